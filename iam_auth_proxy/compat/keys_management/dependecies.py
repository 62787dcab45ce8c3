"""The interfaces that an app implements (the module's name, typo included, is the original's)."""

from __future__ import annotations

from typing import Any


class StateRepoInterface:
    """Where states are kept, encrypted."""

    def write_state(self, key: str, key_state: Any) -> None:
        """Keep the state of a key: what :meth:`CryptoTool.encrypt` made of it."""
        raise NotImplementedError

    def read_state(self, key: str) -> Any:
        """What was kept; None: nothing."""
        raise NotImplementedError


class CryptoTool:
    """Encrypts states, which hold keys: a dict of names to a flow, to a key and to a list of keys.

    The flow is a :class:`.SecretKeyFlow`, which is a number, too: JSON will do.
    """

    def encrypt(self, data: Any) -> Any:
        """Whatever the repository keeps."""
        raise NotImplementedError

    def decrypt(self, encrypted_data: Any) -> Any:
        """What was encrypted; the flow as such a member, its name, or its number."""
        raise NotImplementedError
