"""Errors of keys and definitions that cannot be made."""

from __future__ import annotations

from iam_auth_proxy.compat.keys_management.errors import KeysManagementError


class InitError(KeysManagementError):
    """Something cannot be made of what was given. No value is named: it may be a key."""

    def __init__(self, what_to_init: str, why: str) -> None:
        super().__init__(f"Failed to init {what_to_init}: {why}")


class SecretKeyInitError(InitError):
    """A key is text or bytes."""

    def __init__(self, secret_key_value: object) -> None:
        super().__init__("SecretKey", f"secret_key_value type is {type(secret_key_value)}")


class SecretKeyPairInitError(InitError):
    """Keys are one, or two."""

    def __init__(self, secret_key_pair_values: object) -> None:
        kind = type(secret_key_pair_values)
        super().__init__("SecretKeyPair", f"secret_key_pair_values type is {kind}")


class InvalidFlowNameError(KeysManagementError):
    """Not the name of a flow."""

    def __init__(self, bad_value: object) -> None:
        super().__init__(f"Failed to parse {bad_value} to SecretKeyFlow")


class SecretKeyDefinitionInitError(InitError):
    """A definition that does not do."""

    def __init__(self, reason: str) -> None:
        super().__init__("SecretKeyDefinition", reason)
