"""The original's validator, over :class:`iam_auth_proxy.tokens.verifier.Verifier`."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Final

from iam_auth_proxy.compat.kmsauth import services
from iam_auth_proxy.compat.kmsauth.client import ClientKms, HalfAnswer, ensure_text
from iam_auth_proxy.compat.kmsauth.errors import ConfigurationError, TokenValidationError
from iam_auth_proxy.compat.kmsauth.utils.lru import LRUCache
from iam_auth_proxy.errors import (
    AwsError,
    AwsUnavailable,
    BadServiceToken,
    ConfigError,
    Malformed,
)
from iam_auth_proxy.names import KeyReference, parse_key_arn, parse_key_reference
from iam_auth_proxy.protocol import service_token
from iam_auth_proxy.protocol.service_token import Caller
from iam_auth_proxy.tokens.accepts import Accepts
from iam_auth_proxy.tokens.diagnosis import Rationed
from iam_auth_proxy.tokens.verifier import Verified, Verifier

log = logging.getLogger("iam_auth_proxy.compat.kmsauth")

_FAILED: Final = "Authentication error."
_WRONG_KEY: Final = f"{_FAILED[:-1]} (wrong KMS key)."
_GENERAL: Final = f"{_FAILED} General error."
_NO_ANSWER: Final = f"{_FAILED} Failure connecting to AWS endpoint."
_VERSION: Final = "Unacceptable token version."
_USERNAME: Final = "Unsupported username format."
_OUTSIDE: Final = f"{_FAILED} Invalid time validity for token."

# The original's sentences for what is wrong with a username, and with a token. A token that KMS did
# not open is just that, whichever part of it turns out to be at fault.
_OF_USERNAME: Final = {
    "username": _USERNAME,
    "from": _USERNAME,
    "version": _VERSION,
    "user_type": f"{_FAILED} Unsupported user_type.",
}
_OF_TOKEN: Final = {
    "key": _WRONG_KEY,
    "payload": f"{_FAILED} Missing validity.",
    "lifetime": f"{_FAILED} Token lifetime exceeded.",
    "not_before": _OUTSIDE,
    "not_after": _OUTSIDE,
}

# One token, two spellings of its caller: this one the original accepts besides the bare name.
_LONG_V1: Final = "1/service/"


class KMSTokenValidator:
    """Accepts tokens; what is different from the original is in this package's documentation.

    :param auth_key: keys that services' tokens may be sealed under: a list, one, or None. Any of
        KMS's spellings, or the bare name of an alias.
    :param user_auth_key: the same of users' tokens.
    :param to_auth_context: what the app calls itself.
    :param scoped_auth_keys: further keys of services, each with the account that it stands for.
    :param auth_token_max_lifetime: minutes that a token's window may be long.
    :param aws_creds: a dict of ``AccessKeyId``, ``SecretAccessKey`` and ``SessionToken``.
    :param extra_context: pairs that every token has to be sealed with.
    :param stats: has ``incr(name)``, and ``timer(name)`` that gives a context manager.
    :raises ConfigurationError: one of them does not do.
    """

    def __init__(
        self,
        auth_key: list[str] | str | None,
        user_auth_key: list[str] | str | None,
        to_auth_context: str,
        region: str | None,
        scoped_auth_keys: Mapping[str, str] | None = None,
        minimum_token_version: int = 1,
        maximum_token_version: int = 2,
        auth_token_max_lifetime: float = 60,
        aws_creds: Mapping[str, str] | None = None,
        extra_context: Mapping[str, str] | None = None,
        endpoint_url: str | None = None,
        token_cache_size: int = 4096,
        stats: Any = None,
        max_pool_connections: int | None = None,
        connect_timeout: float | None = None,
        read_timeout: float | None = None,
    ) -> None:
        self.auth_key = _listed(auth_key)
        self.user_auth_key = _listed(user_auth_key)
        self.to_auth_context = to_auth_context
        self.region = region
        self.scoped_auth_keys = dict(scoped_auth_keys or {})
        self.minimum_token_version = minimum_token_version
        self.maximum_token_version = maximum_token_version
        self.auth_token_max_lifetime = auth_token_max_lifetime
        self.aws_creds = aws_creds
        self.extra_context = _extra(extra_context or {})
        self.stats = stats
        self.KEY_METADATA: dict[str, Any] = {}
        self._names: dict[str, str] = {}
        self._accepts = self._read()
        self.kms_client = make_client(
            region,
            aws_creds,
            endpoint_url=endpoint_url,
            max_pool_connections=max_pool_connections,
            connect_timeout=connect_timeout,
            read_timeout=read_timeout,
        )
        self.TOKENS = LRUCache(token_cache_size)

    # -- what is accepted --------------------------------------------------------------------------

    def _read(self) -> Accepts | None:
        """The settings as the verifier's; None where no key is named, so that no token will do."""
        lowest, highest = self.minimum_token_version, self.maximum_token_version
        for name, version in (("minimum", lowest), ("maximum", highest)):
            if version not in service_token.VERSIONS:
                raise ConfigurationError(f"Invalid {name}_token_version provided.")
        if lowest > highest:
            raise ConfigurationError(
                "minimum_token_version can not be greater than self.maximum_token_version"
            )
        services_keys = tuple(map(self._reference, self.auth_key or ()))
        users_keys = tuple(map(self._reference, self.user_auth_key or ()))
        scoped = [(self._reference(key), label) for key, label in self.scoped_auth_keys.items()]
        if lowest == 1 and set(services_keys) & set(users_keys):
            log.warning("one key is for users and for services: set minimum_token_version=2")
        if not (services_keys or users_keys or scoped):
            return None
        try:
            return Accepts(
                to=self.to_auth_context,
                service_keys=services_keys,
                user_keys=users_keys,
                scoped_keys=tuple(scoped),
                min_version=lowest,
                max_version=highest,
                max_lifetime=self.auth_token_max_lifetime * 60,
                extra=self.extra_context,
                shared_v1=True,
            )
        except ConfigError as error:
            raise ConfigurationError(str(error)) from error

    def _reference(self, name: str) -> KeyReference:
        try:
            found = spelled_out(name)
        except Malformed as error:
            raise ConfigurationError(f"{name!r} is {error}") from error
        self._names.setdefault(found.text, name)
        return found

    @property
    def TOKENS(self) -> LRUCache:
        """What was assigned to it last. Assigning forgets every token that was accepted."""
        return self._tokens

    @TOKENS.setter
    def TOKENS(self, value: LRUCache) -> None:
        self._tokens = value
        self._verifier: Verifier | None = None
        if self._accepts is not None:
            kms = ClientKms(lambda: self.kms_client, self._fresh_arn, self._timed)
            explain = Rationed(time.monotonic)
            self._verifier = Verifier(
                self._accepts, lambda: kms, cache_size=value.capacity, explain=explain
            )

    def _timed(self) -> AbstractContextManager[object]:
        timer: AbstractContextManager[object]
        timer = self.stats.timer("kms_decrypt_token") if self.stats else nullcontext()
        return timer

    # -- keys --------------------------------------------------------------------------------------

    def _fresh_arn(self, reference: str) -> str:
        return self._get_key_arn(self._names.get(reference, reference), fresh=True)

    def _get_key_arn(self, key: str, fresh: bool = False) -> str:
        if fresh or key not in self.KEY_METADATA:
            reference = spelled_out(key).text
            arn = _full_arn(reference)
            if arn is None:
                found = self.kms_client.describe_key(KeyId=reference)
                arn = found["KeyMetadata"]["Arn"]
            self.KEY_METADATA[key] = {"KeyMetadata": {"Arn": arn}}
        return str(self.KEY_METADATA[key]["KeyMetadata"]["Arn"])

    def _get_key_alias_from_cache(self, key_arn: str, user_type: str = "service") -> str | None:
        """The name that a key was given by; that with an account, where it has several."""
        named = [*self.scoped_auth_keys, *(self.auth_key or ())]
        users = self.user_auth_key or []
        ordered: list[str] = [*users, *named] if user_type == "user" else [*named, *users]
        for name in ordered:
            known = self.KEY_METADATA.get(name, {}).get("KeyMetadata", {}).get("Arn")
            if key_arn in (known, _full_arn(name)):
                return name
        return None

    def _valid_service_auth_key(self, key_arn: str) -> bool:
        named = (*(self.auth_key or ()), *self.scoped_auth_keys)
        return any(self._get_key_arn(key) == key_arn for key in named)

    def _valid_user_auth_key(self, key_arn: str) -> bool:
        return any(self._get_key_arn(key) == key_arn for key in self.user_auth_key or ())

    # -- usernames and tokens ----------------------------------------------------------------------

    def _parse_username(self, username: str) -> tuple[int, str, str]:
        caller = _caller(username)
        return caller.version, caller.type.value, caller.name

    def extract_username_field(self, username: str, field: str) -> str | int | None:
        """``from``, ``user_type`` or ``version`` of a username; None of anything else.

        :raises TokenValidationError: it is none.
        """
        version, user_type, name = self._parse_username(username)
        fields: dict[str, str | int] = {"from": name, "user_type": user_type, "version": version}
        return fields.get(field)

    def decrypt_token(self, username: str, token: str | bytes) -> dict[str, Any]:
        """Check a token: ``payload`` (two times) and ``key_alias``, the name its key was given by.

        :raises TokenValidationError: it is not accepted, or that could not be found out.
        """
        caller = _caller(username)
        if not self.minimum_token_version <= caller.version <= self.maximum_token_version:
            raise TokenValidationError(_VERSION)
        if self.stats:
            self.stats.incr(f"token_version_{caller.version}")
        found = self._verify(caller, _text(token))
        return {
            "payload": json.loads(service_token.write_payload(found.window)),
            "key_alias": self._get_key_alias_from_cache(found.key_arn, caller.type.value),
        }

    def _verify(self, caller: Caller, token: str) -> Verified:
        if self._verifier is None or not self._verifier.accepts.keys(caller.type):
            raise TokenValidationError(_WRONG_KEY)
        try:
            return self._verifier.verify(str(caller), token, time.time())
        except BadServiceToken as error:
            log.warning("the token of %s is not accepted: %s", caller, error)
            raise TokenValidationError(_OF_TOKEN.get(error.field, _GENERAL)) from error
        except (AwsError, AwsUnavailable) as error:
            log.error("the token of %s cannot be checked: %s", caller, error)
            raise TokenValidationError(_unchecked(error)) from error


def make_client(region: str | None, aws_creds: Mapping[str, str] | None, **settings: Any) -> Any:
    """The client that a generator or a validator was asked to use."""
    if aws_creds:
        settings |= {
            "aws_access_key_id": aws_creds["AccessKeyId"],
            "aws_secret_access_key": aws_creds["SecretAccessKey"],
            "aws_session_token": aws_creds["SessionToken"],
        }
    return services.get_boto_client("kms", region=region, **settings)


def _listed(keys: Any) -> list[str] | None:
    if isinstance(keys, str):
        return [keys]
    if keys is None or isinstance(keys, list):
        return keys
    raise ConfigurationError("auth_key and user_auth_key must be a string, list, or None")


def _extra(pairs: Mapping[str, str]) -> dict[str, str]:
    for name in ("from", "to", "user_type"):
        if name in pairs:
            log.warning("%s in extra_context will be ignored.", name)
    return {name: pairs[name] for name in pairs if name not in ("from", "to", "user_type")}


def spelled_out(name: str) -> KeyReference:
    """A key in one of KMS's spellings; Confidant 1 wrote aliases without ``alias/``.

    :raises Malformed: it is none.
    """
    try:
        return parse_key_reference(name)
    except Malformed:
        return parse_key_reference(f"alias/{name}")


def _full_arn(key: str) -> str | None:
    try:
        return str(parse_key_arn(key))
    except Malformed:
        return None  # an alias, an alias's ARN or an id


def _text(token: Any) -> str:
    try:
        found = ensure_text(token)
    except UnicodeDecodeError as error:
        raise TokenValidationError(_FAILED) from error
    if not isinstance(found, str):
        raise TokenValidationError(_FAILED)
    return found


def _caller(username: str) -> Caller:
    if username.startswith(_LONG_V1):
        name = username.removeprefix(_LONG_V1)
        if "/" not in name:
            username = name
    try:
        return service_token.parse_username(username)
    except BadServiceToken as error:
        log.warning("the username %.200r is not accepted: %s", username, error)
        raise TokenValidationError(_OF_USERNAME[error.field]) from error


def _unchecked(error: AwsError | AwsUnavailable) -> str:
    """Whether AWS was out of reach, or said something that leaves the token unopened."""
    causes: list[BaseException] = [error]
    while causes[-1].__cause__ is not None:
        causes.append(causes[-1].__cause__)
    answered = any(isinstance(each, AwsError | HalfAnswer) for each in causes)
    return _GENERAL if answered or len(causes) == 1 else _NO_ANSWER
