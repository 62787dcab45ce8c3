"""Who we are at AWS: one reading of the configuration and of the chain of credential providers."""

from __future__ import annotations

import difflib
import shlex
import threading
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Final

from botocore.credentials import Credentials
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    CredentialRetrievalError,
    InfiniteLoopConfigError,
    InvalidConfigError,
    MetadataRetrievalError,
    PartialCredentialsError,
    ProfileNotFound,
)

from iam_auth_proxy.aws.base import AS_USUAL, ClientSettings
from iam_auth_proxy.aws.connections import Connections, new_session, said_once
from iam_auth_proxy.aws.failures import NO_ANSWER, Asked, from_client_error, unquote
from iam_auth_proxy.aws.profiles import profiles
from iam_auth_proxy.aws.renewal import PATIENCE
from iam_auth_proxy.errors import (
    AwsUnavailable,
    IamAuthError,
    LoginNeeded,
    MfaNeeded,
    NoCredentials,
    NoProfile,
)

FALLBACK_REGION: Final = "us-east-1"
# What no login mends.
_MISWRITTEN: Final = (InvalidConfigError, InfiniteLoopConfigError, PartialCredentialsError)
_MAX_SOURCES: Final = 5
# Where no profile has the credentials: what botocore calls the provider -> what to do.
_GIVEN: Final = {
    "env": "Put fresh AWS credentials into the environment, and start again.",
    "explicit": "Give fresh AWS credentials in place of these.",
    "container-role": "See that this container still has its role.",
    "iam-role": "See that this instance still has its role.",
}
# credential_source, of a role that no other profile is behind -> the provider.
_SOURCES: Final = {
    "Environment": "env",
    "EcsContainer": "container-role",
    "Ec2InstanceMetadata": "iam-role",
}
_WEB_IDENTITY: Final = "assume-role-with-web-identity"


def region(
    configured: str, environ: Mapping[str, str], of_profile: str = "", of_key: str = ""
) -> str:
    """The region for STS: the first that is said, in this order.

    boto3 ignores AWS_REGION, which other SDKs read, so it is read here.
    """
    candidates = (
        configured,
        environ.get("AWS_REGION"),
        environ.get("AWS_DEFAULT_REGION"),
        of_profile,
        of_key,
    )
    return next((name for name in candidates if name), FALLBACK_REGION)


def no_prompt(serial: str) -> str:
    """For a login that nobody can be asked about.

    :raises MfaNeeded: always.
    """
    raise MfaNeeded(serial)


class Login:
    """One reading of a profile: its clients, and its credentials as boto3 finds them.

    :param profile: empty for AWS_PROFILE's, or the default one.
    :param code_of: gives the MFA code for a device's serial number, where the profile itself names
        a device (``mfa_serial``).
    :param near: gives the region for STS when told the profile's; empty where the profile has none.
    :param further_authorities: a PEM file; see :func:`.connections.new_session`.
    :param settings: how AWS is asked; with ``keys`` nothing else is looked for.
    :ivar expires: when the credentials last used end, as seconds since the epoch; None: they do
        not, or nobody says when.
    :raises LoginNeeded: the profile does not exist, or the files cannot be read.
    """

    def __init__(
        self,
        profile: str = "",
        code_of: Callable[[str], str] = no_prompt,
        near: Callable[[str], str] = lambda of_profile: of_profile or FALLBACK_REGION,
        further_authorities: str = "",
        settings: ClientSettings = AS_USUAL,
    ) -> None:
        try:
            self._session = session = new_session(profile, further_authorities)
            self._config: Mapping[str, str] = session.get_scoped_config()
        except ProfileNotFound as error:
            raise _no_profile(error, named=bool(profile)) from error
        except BotoCoreError as error:
            raise LoginNeeded(
                f"{type(error).__name__}: {error}",
                remedy="Correct the AWS configuration files (~/.aws).",
            ) from error
        if settings.keys is not None:
            access_key, secret_key, token = settings.keys
            session.set_credentials(access_key, secret_key, token or None)
        self.connections = Connections(session, settings)
        self.profile = str(session.get_config_variable("profile") or "")
        self.region = near(str(self._config.get("region") or ""))
        # botocore itself calls STS, for a profile's role for example, and needs a region for that.
        session.set_config_variable("region", self.region)
        self._method = ""
        self.expires: float | None = None
        self._lock = threading.Lock()
        # botocore would read the MFA code from the terminal, in whichever thread it runs. Its
        # prompt has no public setter.
        provider = self._session.get_component("credential_provider").get_provider("assume-role")
        provider._prompter = lambda text: code_of(str(self._config.get("mfa_serial") or ""))

    def credentials(self) -> Credentials:
        """What to sign with now; botocore renews ahead of expiry what it can renew.

        :raises LoginNeeded: there are none, or they cannot be renewed.
        :raises MfaNeeded: the profile's role wants a code.
        :raises AwsUnavailable: who gives them did not answer.
        """
        if not self._lock.acquire(timeout=PATIENCE):
            raise AwsUnavailable("the credentials take too long to come")
        try:
            with said_once():
                found = self._session.get_credentials()
                if found is None:
                    raise NoCredentials("no AWS credentials found", remedy=self.remedy)
                self._method = str(found.method)
                frozen = found.get_frozen_credentials()
            # botocore says it nowhere else.
            expiry = getattr(found, "_expiry_time", None)
            self.expires = expiry.timestamp() if isinstance(expiry, datetime) else None
        except IamAuthError:
            raise
        except Exception as error:
            raise self._translate(error) from error
        finally:
            self._lock.release()
        if not frozen.access_key or not frozen.secret_key:
            raise LoginNeeded("the AWS credentials are empty", remedy=self.remedy)
        return Credentials(frozen.access_key, frozen.secret_key, frozen.token)

    def _translate(self, error: Exception) -> IamAuthError:
        """Anything may come out of the chain: a credential_process that prints no JSON raises
        JSONDecodeError, one that is not there FileNotFoundError."""
        unquote(error)
        if isinstance(error, NO_ANSWER) or _machine_is_silent(error):
            return AwsUnavailable(f"credentials: {error}")
        if isinstance(error, ClientError):
            service = "sso" if error.operation_name == "GetRoleCredentials" else "sts"
            return from_client_error(error, Asked(f"{service}:{error.operation_name}"))
        remedy = self.remedy
        if isinstance(error, _MISWRITTEN):
            whose = f"profile {self.profile}" if self.profile else "the default profile"
            remedy = f"Correct {whose} in your AWS configuration."
        return LoginNeeded(f"credentials: {type(error).__name__}: {error}", remedy=remedy)

    @property
    def remedy(self) -> str:
        """The one thing to do about credentials that are missing or not good any more."""
        if self._method in _GIVEN:
            return _GIVEN[self._method]
        name, config = self._source()
        if config.get("role_arn") and config.get("credential_source") in _SOURCES:
            return _GIVEN[_SOURCES[config["credential_source"]]]
        option = f" --profile {shlex.quote(name)}" if name else ""
        whose = f" of profile {name}" if name else ""
        if "sso_session" in config or "sso_start_url" in config:
            return f"Run: aws sso login{option}"
        if "login_session" in config:
            return f"Run: aws login{option}"
        if "credential_process" in config:
            return f"Run the credential_process{whose} by hand, and see what it says."
        if "web_identity_token_file" in config:
            return f"See that the web_identity_token_file{whose} holds a fresh token."
        if self._method == _WEB_IDENTITY:
            return "See that the file that AWS_WEB_IDENTITY_TOKEN_FILE names holds a fresh token."
        if self._method:
            return f"Renew the profile's credentials, for example with: aws configure{option}"
        return f"Sign in to AWS, for example with: aws sso login{option}"

    def _source(self) -> tuple[str, Mapping[str, str]]:
        """The profile that the credentials come from in the end (``source_profile``), by name.

        The commands that sign in want that one: they do not follow a role's profile to it.
        """
        name, config = self.profile, self._config
        profiles: Mapping[str, Mapping[str, str]] = self._session.full_config.get("profiles", {})
        for _ in range(_MAX_SOURCES):
            source = config.get("source_profile")
            if not source or source not in profiles or profiles[source] is config:
                break
            name, config = source, profiles[source]
        return name, config


def _machine_is_silent(error: Exception) -> bool:
    """Whether the machine's own role could not be asked for: of a container, or of an instance."""
    if isinstance(error, CredentialRetrievalError):
        return error.kwargs.get("provider") in ("container-role", "iam-role")
    return isinstance(error, MetadataRetrievalError)


def _no_profile(error: ProfileNotFound, *, named: bool) -> NoProfile:
    """:param named: by us; otherwise the environment names it."""
    asked = str(error.kwargs.get("profile", ""))
    near = difflib.get_close_matches(asked, profiles(), n=3)
    if near:
        remedy = f"Did you mean --profile {' or --profile '.join(map(shlex.quote, near))}?"
    else:
        remedy = "See which profiles there are: aws configure list-profiles"
    # The public sentence is for anybody, and so names no profile.
    source = "" if named else ", which the environment names (AWS_PROFILE)"
    return NoProfile(
        f"there is no AWS profile {asked!r}{source}", remedy=f"It is {asked!r}{source}. {remedy}"
    )
