"""keys-management's names: ``import iam_auth_proxy.compat.keys_management as keys_management``.

Names, signatures and messages are those of keys-management 0.1.5, and its stored states are read.
Different is, and docs/compat.md says why:

- **states** are written without using the key, and are read whether the flow is a member, its name
  or its number; a key that was not used yet does not overwrite what is stored;
- **keys** that were used are remembered, 16 of each definition: ``get_back_path_keys`` gives them
  all, where ``get_back_path_key`` gives the last;
- **callbacks** run without a lock and may use everything; where nothing is said of their errors,
  all are run and a ``KeyChangedError`` is raised;
- ``define_key`` may leave out ``stateless`` and ``keep_in_cache``; defining a key anew keeps its
  callbacks; a one-way key has no other flow;
- **no key is shown**, in part or by its length, at any log level, and logging changes nothing else;
- **threads** are always safe: what the original has for that is accepted, and has no effect.

``StoredStates`` keeps states in a secret store of ours, ``RingKeys`` takes keys from a key ring.
The native API is :mod:`iam_auth_proxy.protocol.keyring`, whose keys say which of them was used.
"""

from __future__ import annotations

from iam_auth_proxy.compat.keys_management.concurrency import (
    EnvironemtType,
    Synchronizer,
    SynchronizerFactory,
)
from iam_auth_proxy.compat.keys_management.dependecies import CryptoTool, StateRepoInterface
from iam_auth_proxy.compat.keys_management.errors import (
    GetKeyError,
    KeyChangedError,
    KeyIsNotDefinedError,
    KeysManagementError,
    OnKeyChangedCallbackErrorStrategy,
)
from iam_auth_proxy.compat.keys_management.key_changed_utils import KeyChangedCallback
from iam_auth_proxy.compat.keys_management.keys_management import (
    KeysManagement,
    KeysManagementImpl,
    SingleKeyManagement,
)
from iam_auth_proxy.compat.keys_management.on_change_key_definition import (
    OnChangeKeyDefinition,
    OnChangeKeyDefinitionInitError,
)
from iam_auth_proxy.compat.keys_management.secret_key import (
    BaseSecretKeyDefinition,
    InvalidFlowNameError,
    KeysStore,
    SecretKeyDefinitionInitError,
    SecretKeyFlow,
    SecretKeyUseCase,
    StrOrBytes,
    StrOrBytesPair,
)
from iam_auth_proxy.compat.keys_management.states import RingKeys, StoredStates

__all__ = [
    "BaseSecretKeyDefinition",
    "CryptoTool",
    "EnvironemtType",
    "GetKeyError",
    "InvalidFlowNameError",
    "KeyChangedCallback",
    "KeyChangedError",
    "KeyIsNotDefinedError",
    "KeysManagement",
    "KeysManagementError",
    "KeysManagementImpl",
    "KeysStore",
    "OnChangeKeyDefinition",
    "OnChangeKeyDefinitionInitError",
    "OnKeyChangedCallbackErrorStrategy",
    "RingKeys",
    "SecretKeyDefinitionInitError",
    "SecretKeyFlow",
    "SecretKeyUseCase",
    "SingleKeyManagement",
    "StateRepoInterface",
    "StoredStates",
    "StrOrBytes",
    "StrOrBytesPair",
    "Synchronizer",
    "SynchronizerFactory",
]
