"""The state of a key: what is known of its last use."""

from __future__ import annotations

from abc import ABC, abstractmethod

from iam_auth_proxy.compat.keys_management.secret_key.secret_key import (
    SecretKeyPair,
    SecretKeyValue,
)
from iam_auth_proxy.compat.keys_management.secret_key.secret_key_use_case import SecretKeyFlow


class SecretKeyState(ABC):
    """A key's last flow, and the keys that were used in it."""

    @abstractmethod
    def get_last_flow(self) -> SecretKeyFlow | None:
        """None: it was not used yet."""

    @abstractmethod
    def set_last_flow(self, last_use: SecretKeyFlow) -> None:
        """Say what the last flow was."""

    @abstractmethod
    def get_previous_keys(self) -> SecretKeyValue | SecretKeyPair | None:
        """The keys used last; None: there are none, or none that were kept."""

    @abstractmethod
    def set_previous_keys(self, keys: object) -> None:
        """Say which keys were used last."""

    @abstractmethod
    def clean_state(self) -> None:
        """Forget the keys."""
