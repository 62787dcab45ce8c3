"""Keys that do not show themselves."""

from __future__ import annotations

from collections.abc import Mapping

from iam_auth_proxy.compat.keys_management.consts import DECRYPTION_KEY_TYPE, ENCRYPTION_KEY_TYPE
from iam_auth_proxy.compat.keys_management.secret_key.errors import (
    SecretKeyInitError,
    SecretKeyPairInitError,
)
from iam_auth_proxy.compat.keys_management.secret_key.types import StrOrBytes

_REDACTED = "***"


class SecretKeyValue:
    """One key. As text it is as good as nothing: not even its length is told.

    :raises SecretKeyInitError: it is neither text nor bytes.
    """

    __slots__ = ("_value",)

    def __init__(self, secret_key_value: object) -> None:
        if not isinstance(secret_key_value, str | bytes):
            raise SecretKeyInitError(secret_key_value)
        self._value = secret_key_value

    def __str__(self) -> str:
        return _REDACTED

    def get_value(self) -> StrOrBytes:
        """The key."""
        return self._value

    def censor_key(self) -> str:
        """The original shows up to four characters at each end: here there is nothing to see."""
        return _REDACTED


class SecretKeyPair:
    """A key forward and one back, which may be the same.

    :param value_or_values: one for both, two, or a dict of ``encrypt`` and ``decrypt``.
    :raises SecretKeyPairInitError: none of them.
    :raises SecretKeyInitError: one of them is neither text nor bytes.
    """

    __slots__ = ("_back", "_forward")

    def __init__(self, value_or_values: object) -> None:
        forward, back = _two_of(value_or_values)
        self._forward = SecretKeyValue(forward)
        self._back = SecretKeyValue(back)

    def __str__(self) -> str:
        return _REDACTED

    def same_as(self, other: SecretKeyPair) -> bool:
        """Whether both ways are the other's."""
        mine, theirs = (
            (each.forward_key.get_value(), each.back_path_key.get_value()) for each in (self, other)
        )
        return mine == theirs

    def is_symmetric(self) -> bool:
        """Whether one key is for both ways."""
        return self._forward.get_value() == self._back.get_value()

    def is_asymmetric(self) -> bool:
        """Whether there are two."""
        return not self.is_symmetric()

    @property
    def forward_key(self) -> SecretKeyValue:
        """What encrypts."""
        return self._forward

    @property
    def back_path_key(self) -> SecretKeyValue:
        """What decrypts."""
        return self._back


class SecretKeyFactory:
    """Makes one of the two of what it is given, and None of None."""

    @staticmethod
    def create(value_or_values: object) -> SecretKeyValue | SecretKeyPair | None:
        if value_or_values is None:
            return None
        if isinstance(value_or_values, str | bytes):
            return SecretKeyValue(value_or_values)
        return SecretKeyPair(value_or_values)

    def __call__(self, value_or_values: object) -> SecretKeyValue | SecretKeyPair | None:
        return self.create(value_or_values)


def _two_of(given: object) -> tuple[object, object]:
    if isinstance(given, str | bytes):
        return given, given
    if isinstance(given, tuple | list) and len(given) == 2:  # JSON makes lists of tuples
        return given[0], given[1]
    names = (ENCRYPTION_KEY_TYPE, DECRYPTION_KEY_TYPE)
    if isinstance(given, Mapping) and set(given) == set(names):
        return given[names[0]], given[names[1]]
    raise SecretKeyPairInitError(given)
