"""The person on whose behalf the proxy signs in (steps 4 to 7), as the rest of the proxy holds it.

boto3 is imported at the first use: a proxy that has just started has nobody to sign in yet.
:mod:`iam_auth_proxy.aws.person` does the work.
"""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from iam_auth_proxy.aws.base import CallerIdentity, Encrypted, Seen
from iam_auth_proxy.aws.renewal import Logins
from iam_auth_proxy.errors import MfaNeeded, MfaRefused
from iam_auth_proxy.names import KeyArn, Origin
from iam_auth_proxy.protocol.proof import SessionCredentials, SignedIdentity

if TYPE_CHECKING:
    from iam_auth_proxy.aws.person import Person

_CODE = re.compile(r"[0-9]{6}", re.ASCII)


@dataclass(frozen=True, slots=True)
class CredentialSettings:
    """Whose credentials, as configured. Everything may be absent (empty).

    :ivar region: for STS; see :func:`~iam_auth_proxy.aws.login.region`.
    :ivar policy: a session policy for the assumed role, as JSON text.
    :ivar duration_seconds: of the assumed role's, or the MFA, session.
    :ivar mfa_code: a code that has not been used yet.
    :ivar further_authorities: a PEM file of authorities to trust besides the usual.
    :ivar login_role_arn: whose credentials a legacy app gets where ours are a session already.
    """

    profile: str = ""
    region: str = ""
    assume_role_arn: str = ""
    external_id: str = ""
    session_name: str = ""
    policy: str = ""
    duration_seconds: int = 3600
    mfa_serial: str = ""
    mfa_code: str = field(default="", repr=False)
    further_authorities: str = ""
    login_role_arn: str = ""


class Codes:
    """The one code that was given and not used yet."""

    def __init__(self, code: str) -> None:
        self._code = code
        self._lock = threading.Lock()

    def put(self, code: str) -> None:
        with self._lock:
            self._code = code

    def take(self, serial: str) -> str:
        """The code, which is used up by that: AWS takes each once, right or wrong.

        :raises MfaNeeded: there is none.
        """
        with self._lock:
            code, self._code = self._code, ""
        if not code:
            raise MfaNeeded(serial)
        return code


class AwsPrincipal:
    """:class:`~iam_auth_proxy.aws.base.Principal` over boto3. Safe to use from any thread.

    :param environ: read for AWS_REGION; boto3 reads the process's own.
    :param key_region: where STS is asked if nothing else says a region.
    """

    def __init__(
        self,
        settings: CredentialSettings,
        environ: Mapping[str, str] = os.environ,
        key_region: str = "",
    ) -> None:
        self._codes = Codes(settings.mfa_code)

        def log_in() -> Person:
            from iam_auth_proxy.aws.person import Person

            return Person(settings, environ, key_region, self._codes)

        self._logins: Logins[Person] = Logins(log_in)

    def identity(self, now: float) -> CallerIdentity:
        return self._logins.use(lambda person: person.identity(now))

    def seen(self) -> Seen | None:
        person = self._logins.held
        return None if person is None else person.seen()

    def sign_identity(self, key: KeyArn, origin: Origin, nonce: str, now: float) -> SignedIdentity:
        return self._logins.use(lambda person: person.sign_identity(key, origin, nonce, now))

    def session_credentials(self, now: float) -> SessionCredentials:
        return self._logins.use(lambda person: person.session_credentials(now))

    def session_identity(self, now: float) -> CallerIdentity:
        return self._logins.use(lambda person: person.session_identity(now))

    def encrypt(
        self, key: str, plaintext: bytes, context: Mapping[str, str], now: float
    ) -> Encrypted:
        return self._logins.use(lambda person: person.encrypt(key, plaintext, context, now))

    def enter_mfa(self, code: str) -> None:
        if not _CODE.fullmatch(code):
            raise MfaRefused(
                "an MFA code has six digits", public="An MFA code has six digits, and no others."
            )
        self._codes.put(code)
        try:
            self._logins.use(lambda person: person.begin_mfa())
        finally:
            self._codes.put("")

    def forget(self) -> None:
        self._logins.forget()


class AwsPrincipals:
    """:class:`~iam_auth_proxy.aws.base.Principals` over boto3. Safe to use from any thread.

    A profile other than the configured one brings its own role and device, or none. The login role
    goes for all of them: it says what a legacy app gets, not who the person is.

    :param environ: see :class:`AwsPrincipal`, as for ``key_region``.
    """

    def __init__(
        self,
        settings: CredentialSettings,
        environ: Mapping[str, str] = os.environ,
        key_region: str = "",
    ) -> None:
        self._settings = settings
        self._environ = environ
        self._key_region = key_region
        self._held: dict[str, AwsPrincipal] = {}
        self._lock = threading.Lock()

    def of(self, profile: str = "") -> AwsPrincipal:
        profile = profile or self._settings.profile
        with self._lock:
            principal = self._held.get(profile)
            if principal is None:
                settings = self._settings_of(profile)
                principal = AwsPrincipal(settings, self._environ, self._key_region)
                self._held[profile] = principal
            return principal

    def _settings_of(self, profile: str) -> CredentialSettings:
        settings = self._settings
        if profile == settings.profile:
            return settings
        return CredentialSettings(
            profile=profile,
            region=settings.region,
            further_authorities=settings.further_authorities,
            login_role_arn=settings.login_role_arn,
        )

    def forget(self) -> None:
        with self._lock:
            held = list(self._held.values())
        for principal in held:
            principal.forget()
