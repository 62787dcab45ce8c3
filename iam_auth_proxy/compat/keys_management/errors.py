"""The original's errors. Where one came from another, that is its ``__cause__``."""

from __future__ import annotations

from enum import Enum


class KeysManagementError(RuntimeError):
    """The root."""


class OnKeyChangedCallbackErrorStrategy(Enum):
    """What a callback's error does to the callbacks after it, and to who declared the change."""

    RAISE_IMMEDIATELY = (1,)
    SKIP_AND_RAISE = (2,)
    SKIP = (3,)
    HALT = (4,)


class GetKeyError(KeysManagementError):
    """There is no key to give."""

    def __init__(self, key_name: str, reason: str | None = None) -> None:
        super().__init__(f"failed to get key for {key_name}: {reason or ''}")


class KeyChangedError(KeysManagementError):
    """A callback failed, or there is no such key."""

    def __init__(self, key_name: str, key_changed_context: object = None) -> None:
        super().__init__(key_name, key_changed_context)

    def __str__(self) -> str:
        return f"KeyChangedError: key_name is '{self.args[0]}'"


class KeyIsNotDefinedError(KeysManagementError):
    """There is no such key."""

    def __init__(self, key_name: str) -> None:
        super().__init__(key_name)

    def __str__(self) -> str:
        return f"KeyIsNotDefinedError: key_name is '{self.args[0]}'"


class FetchAndSetStateFromRepoError(KeysManagementError):
    """A stored state cannot be read."""

    def __init__(self, key_name: str, why: str | None = None) -> None:
        super().__init__(f"Failed to fetch and set key state for {key_name} from_repo: {why or ''}")


class InvalidKeyStateError(FetchAndSetStateFromRepoError):
    """A stored state is none."""
