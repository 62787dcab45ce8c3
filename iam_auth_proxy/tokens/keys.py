"""The keys that tokens may be sealed under, by their ARNs, whatever they are called."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final

from iam_auth_proxy.aws.base import Kms
from iam_auth_proxy.aws.renewal import FOREVER, Renewed
from iam_auth_proxy.errors import AwsError, AwsUnavailable, Malformed
from iam_auth_proxy.names import KeyReference, parse_key_arn
from iam_auth_proxy.protocol.service_token import CallerType
from iam_auth_proxy.tokens.accepts import Accepts

log = logging.getLogger(__name__)

RESOLVED_FOR: Final = 300.0
"""Seconds after which an alias is looked up again: it may have been given to another key."""

_AHEAD = 60.0


@dataclass(frozen=True, slots=True)
class Found:
    """The keys of one type of caller: their ARNs, and what could not be looked up.

    :ivar why: what the last of those failed with.
    """

    arns: tuple[str, ...]
    missing: tuple[str, ...]
    why: AwsError | AwsUnavailable | None = None

    def unknown(self, detail: str) -> AwsError | AwsUnavailable:
        """The error for something that depends on what is missing: of the kind of ``why``."""
        if isinstance(self.why, AwsError):
            error: AwsError | AwsUnavailable = AwsError(detail, remedy=self.why.remedy)
        else:
            error = AwsUnavailable(detail)
        error.__cause__ = self.why
        return error


class Keys:
    """Looks keys up. Safe to use from any thread.

    :param kms: gives the one to ask.
    """

    def __init__(self, accepts: Accepts, kms: Callable[[], Kms]) -> None:
        self._accepts = accepts
        self._kms = kms
        named = (*accepts.keys(CallerType.SERVICE), *accepts.keys(CallerType.USER))
        self._arns = {key.text: Renewed[str](ahead=_AHEAD) for key in named}

    def of(self, type: CallerType, now: float) -> Found:
        """The keys for a type of caller. May block."""
        return self._find(self._accepts.keys(type), now)

    def account(self, arn: str, now: float) -> str:
        """The account that a key stands for; empty where it stands for none.

        :raises AwsUnavailable: that cannot be told.
        :raises AwsError: the same, and it is AWS that does not tell us.
        """
        accounts, unknown = set[str](), list[Found]()
        for key, account in self._accepts.scoped_keys:
            found = self._find([key], now)
            if found.missing:
                unknown.append(found)
            elif found.arns == (arn,):
                accounts.add(account)
        if len(accounts) > 1:
            said = f"{arn} stands for several accounts: {', '.join(sorted(accounts))}"
            raise AwsError(said, remedy="Give each key of scoped_keys one account.")
        # Another alias that cannot be looked up must not block a key that is listed by itself too.
        if not accounts and unknown and arn not in self._find(self._accepts.service_keys, now).arns:
            names = ", ".join(name for found in unknown for name in found.missing)
            raise unknown[-1].unknown(f"whether {arn} stands for an account is not known: {names}")
        return next(iter(accounts), "")

    def _find(self, keys: Iterable[KeyReference], now: float) -> Found:
        arns, missing = dict[str, None](), list[str]()
        why: AwsError | AwsUnavailable | None = None
        for key in keys:
            try:
                arns[self._arn(key, now)] = None
            except (AwsError, AwsUnavailable) as error:
                log.error("the key %s cannot be looked up: %s", key, error)
                missing.append(key.text)
                why = error
        return Found(tuple(arns), tuple(missing), why)

    def _arn(self, key: KeyReference, now: float) -> str:
        def ask() -> tuple[str, float]:
            try:
                return str(parse_key_arn(key.text)), FOREVER
            except Malformed:
                pass  # an id, an alias or an alias ARN: AWS knows which key it is
            return self._kms().key_arn(key.text), now + RESOLVED_FOR

        return self._arns[key.text].get(now, ask)
