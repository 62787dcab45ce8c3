"""Which service tokens an app accepts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

from iam_auth_proxy.errors import BadServiceToken, ConfigError, Malformed, Problem
from iam_auth_proxy.names import KeyReference, check_audience
from iam_auth_proxy.protocol import service_token
from iam_auth_proxy.protocol.service_token import VERSIONS, Caller, CallerType

MAX_KEYS: Final = 16
"""Of one type of caller. A token that is none of theirs is as many calls of KMS."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Accepts:
    """The rules, which do not change.

    :ivar to: what the app calls itself.
    :ivar service_keys: keys that services' tokens may be sealed under; ``user_keys`` those of
        users.
    :ivar scoped_keys: keys of services, each with the account (or any label) that it stands for.
    :ivar types: which callers come in at all. Empty: those that there are keys for.
    :ivar max_lifetime: seconds that a token's whole window may be long.
    :ivar leeway: seconds by which clocks may differ.
    :ivar extra: further context that every token has to be sealed with.
    :ivar shared_v1: whether version 1 is accepted under a key that is one of users', too. Its
        context does not say whose type it is, so a user whose policy leaves ``user_type`` open
        could make one of any service.
    :raises ConfigError: with every problem.
    """

    to: str
    service_keys: tuple[KeyReference, ...] = ()
    user_keys: tuple[KeyReference, ...] = ()
    scoped_keys: tuple[tuple[KeyReference, str], ...] = ()
    types: frozenset[CallerType] = frozenset()
    min_version: int = 2
    max_version: int = 2
    max_lifetime: float = 3600.0
    leeway: float = 30.0
    extra: Mapping[str, str] = field(default_factory=dict, hash=False)
    shared_v1: bool = False

    def __post_init__(self) -> None:
        problems = list(self._problems())
        if problems:
            raise ConfigError(problems)
        if not self.types:
            found = {each for each in CallerType if self.keys(each)}
            object.__setattr__(self, "types", frozenset(found))

    def keys(self, type: CallerType) -> tuple[KeyReference, ...]:
        """What tokens of this type may be sealed under."""
        if type is CallerType.USER:
            return self.user_keys
        return (*self.service_keys, *(key for key, _ in self.scoped_keys))

    def check(self, caller: Caller) -> None:
        """Whether tokens that say so are accepted at all.

        :raises BadServiceToken: the field is ``version`` or ``user_type``.
        """
        if not self.min_version <= caller.version <= self.max_version:
            only = {self.min_version: "", self.max_version: ""}
            raise BadServiceToken(
                f"version {caller.version} is not accepted, but {' to '.join(map(str, only))}",
                field="version",
            )
        if caller.type not in self.types:
            raise BadServiceToken(f"{caller.type}s are not accepted", field="user_type")

    def _problems(self) -> Iterator[Problem]:
        try:
            check_audience(self.to)
        except Malformed as error:
            yield Problem("to", str(error))
        try:
            service_token.check_extra(self.extra)
        except Malformed as error:
            yield Problem("extra", str(error))
        for name, version in (("min_version", self.min_version), ("max_version", self.max_version)):
            if version not in VERSIONS:
                yield Problem(
                    name, f"there is no version {version} of service tokens: it is 1 or 2"
                )
        if self.min_version > self.max_version:
            yield Problem("min_version", "is above max_version, so that no token would do")
        for type in CallerType:
            if len(self.keys(type)) > MAX_KEYS:
                yield Problem(f"{type}_keys", f"are more than {MAX_KEYS}")
            if type in self.types and not self.keys(type):
                yield Problem("types", f"{type}s are to come in, and there is no key of theirs")
        if not any(map(self.keys, CallerType)):
            yield Problem("service_keys", "are needed, or user_keys: no token would do")
        labels = [label for _, label in self.scoped_keys]
        if len(set(labels)) != len(labels):
            yield Problem("scoped_keys", "an account is named twice")
