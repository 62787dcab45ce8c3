"""Keys, their definitions and their states."""

from __future__ import annotations

from iam_auth_proxy.compat.keys_management.secret_key.errors import (
    InitError,
    InvalidFlowNameError,
    SecretKeyDefinitionInitError,
    SecretKeyInitError,
    SecretKeyPairInitError,
)
from iam_auth_proxy.compat.keys_management.secret_key.key_definition import (
    BaseSecretKeyDefinition,
    SecretKeyDefinition,
)
from iam_auth_proxy.compat.keys_management.secret_key.key_state import SecretKeyState
from iam_auth_proxy.compat.keys_management.secret_key.secret_key import (
    SecretKeyFactory,
    SecretKeyPair,
    SecretKeyValue,
)
from iam_auth_proxy.compat.keys_management.secret_key.secret_key_use_case import (
    SecretKeyFlow,
    SecretKeyUseCase,
)
from iam_auth_proxy.compat.keys_management.secret_key.types import (
    KeysStore,
    StrOrBytes,
    StrOrBytesPair,
)

__all__ = [
    "BaseSecretKeyDefinition",
    "InitError",
    "InvalidFlowNameError",
    "KeysStore",
    "SecretKeyDefinition",
    "SecretKeyDefinitionInitError",
    "SecretKeyFactory",
    "SecretKeyFlow",
    "SecretKeyInitError",
    "SecretKeyPair",
    "SecretKeyPairInitError",
    "SecretKeyState",
    "SecretKeyUseCase",
    "SecretKeyValue",
    "StrOrBytes",
    "StrOrBytesPair",
]
