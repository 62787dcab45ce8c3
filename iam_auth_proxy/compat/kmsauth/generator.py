"""The original's generator, over :class:`iam_auth_proxy.tokens.issuer.Issuer`."""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from iam_auth_proxy import files
from iam_auth_proxy.compat.kmsauth.client import ClientKms
from iam_auth_proxy.compat.kmsauth.errors import (
    ConfigurationError,
    ServiceConnectionError,
    TokenGenerationError,
)
from iam_auth_proxy.compat.kmsauth.validator import make_client, spelled_out
from iam_auth_proxy.errors import AwsUnavailable, ConfigError, IamAuthError, Malformed
from iam_auth_proxy.protocol.service_token import VERSIONS, Caller, CallerType, ServiceToken
from iam_auth_proxy.tokens.issuer import Issuer

log = logging.getLogger("iam_auth_proxy.compat.kmsauth")

TOKEN_SKEW: Final = 3
"""Minutes before now at which a token begins, of those that it lasts."""

TIME_FORMAT: Final = "%Y%m%dT%H%M%SZ"

_MAX_FILE: Final = 65_536


class KMSTokenGenerator:
    """Makes tokens; what is different from the original is in this package's documentation.

    :param auth_key: the key to seal under, in any of KMS's spellings.
    :param auth_context: ``to``, ``from``, for version 2 ``user_type``, and what else there is to be
        in the encryption context.
    :param token_cache_file: where the last token is kept for the next process; None or empty:
        nowhere.
    :param token_lifetime: minutes, two at least. The token begins :data:`TOKEN_SKEW` minutes before
        now and lasts for the rest of them; of fewer than six, half are before now.
    :param aws_creds: a dict of ``AccessKeyId``, ``SecretAccessKey`` and ``SessionToken``.
    :raises ConfigurationError: one of them does not do.
    """

    def __init__(
        self,
        auth_key: str,
        auth_context: Mapping[str, str] | None,
        region: str | None,
        token_version: int = 2,
        token_cache_file: str | os.PathLike[str] | None = None,
        token_lifetime: float = 10,
        aws_creds: Mapping[str, str] | None = None,
        endpoint_url: str | None = None,
    ) -> None:
        self.auth_key = auth_key
        self.auth_context = dict(auth_context or {})
        self.token_cache_file = token_cache_file
        self.token_lifetime = token_lifetime
        self.region = region
        self.token_version = token_version
        self.aws_creds = aws_creds
        self._skew = 60.0 * min(TOKEN_SKEW, token_lifetime / 2)
        self._usable = 60.0 * token_lifetime - self._skew
        caller, extra = self._validate()
        self.kms_client = make_client(region, aws_creds, endpoint_url=endpoint_url)
        kms = ClientKms(lambda: self.kms_client)
        try:
            self._issuer = Issuer(
                kms,
                spelled_out(auth_key).text,
                caller,
                self.auth_context["to"],
                lifetime=self._usable,
                skew=self._skew,
                extra=extra,
            )
        except Malformed as error:
            raise ConfigurationError(str(error)) from error
        self._username = str(caller)
        self._cached_for = {
            "auth_context": self.auth_context,
            "auth_key": auth_key,
            "region": region,
            "endpoint_url": endpoint_url,
            "token_version": token_version,
            "token_lifetime": token_lifetime,
        }

    def _validate(self) -> tuple[Caller, dict[str, str]]:
        context = dict(self.auth_context)
        for name in ("from", "to"):
            if name not in context:
                raise ConfigurationError(f"{name} missing from auth_context.")
        if self.token_version not in VERSIONS:
            raise ConfigurationError("Invalid token_version provided.")
        if self.token_version > 1 and "user_type" not in context:
            raise ConfigurationError("user_type missing from auth_context.")
        if not all(isinstance(each, str) for each in context.values()):
            raise ConfigurationError("auth_context has a value that is no text.")
        if not self.token_lifetime >= 2:
            raise ConfigurationError("token_lifetime has to be two minutes at least.")
        del context["to"]
        try:
            kind = CallerType(context.pop("user_type", CallerType.SERVICE))
        except ValueError as error:
            raise ConfigurationError("user_type in auth_context is user or service.") from error
        try:
            return Caller(context.pop("from"), kind, self.token_version), context
        except Malformed as error:
            raise ConfigurationError(f"from in auth_context: {error}") from error

    def get_username(self) -> str:
        """What goes with the tokens."""
        return self._username

    def get_token(self) -> bytes:
        """A token: the one in the cache file if it lasts a while longer, else a new one.

        :raises ServiceConnectionError: AWS does not answer.
        :raises TokenGenerationError: AWS says no.
        """
        cached = self._get_cached_token()
        if cached is not None:
            return cached
        try:
            made = self._issuer.issue(time.time())
        except AwsUnavailable as error:
            log.error("AWS did not make a token: %s", error)
            raise ServiceConnectionError from error
        except IamAuthError as error:
            log.error("Failed to create auth token: %s", error)
            raise TokenGenerationError from error
        self._cache_token(made)
        return made.text.encode("ascii")

    # -- the cache file ----------------------------------------------------------------------------
    # The original reads what is written here, and so do those who share a file with it.

    def _get_cached_token(self) -> bytes | None:
        if not self.token_cache_file:
            return None
        path = Path(self.token_cache_file)
        try:
            text = files.read_own(path, _MAX_FILE)
            if text is None:
                return None
            found = json.loads(text)
            if not isinstance(found, dict) or not found.items() >= self._cached_for.items():
                return None  # of somebody else's key, context or version, or the original's
            ends = datetime.strptime(found["not_after"], TIME_FORMAT).replace(tzinfo=UTC)
            token = str(found["token"]).encode("ascii")
        except (ConfigError, OSError, ValueError, KeyError, TypeError, RecursionError) as error:
            log.warning("the token cache %s is not used: %s", path, error)
            return None
        ahead = min(60.0 * TOKEN_SKEW, self._usable / 2)
        return token if time.time() <= ends.timestamp() - ahead else None

    def _cache_token(self, made: ServiceToken) -> None:
        if not self.token_cache_file:
            return
        path = Path(self.token_cache_file)
        ends = datetime.fromtimestamp(made.window.not_after, UTC).strftime(TIME_FORMAT)
        text = json.dumps({"token": made.text, "not_after": ends, **self._cached_for})
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            with files.locked(path.with_name(f".{path.name}.lock")):
                files.replace_file(path, text)
        except (OSError, ConfigError) as error:
            log.warning("the token cache %s is not written: %s", path, error)
