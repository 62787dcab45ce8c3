"""Ready implementations, which the original lacks: states in a secret store, keys from a ring."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Callable
from typing import Any, Final

from iam_auth_proxy.compat.keys_management.consts import EARLIER, KEY, STATE
from iam_auth_proxy.compat.keys_management.dependecies import CryptoTool, StateRepoInterface
from iam_auth_proxy.compat.keys_management.keys_management import KeysManagement
from iam_auth_proxy.compat.keys_management.secret_key import SecretKeyFlow
from iam_auth_proxy.errors import Malformed, NoSuchSecret
from iam_auth_proxy.keys.secrets import SecretStore
from iam_auth_proxy.protocol.keyring import KeyRing, KeyVersion, Rings, derive
from iam_auth_proxy.protocol.strict import decode_base64, loads_object

PREFIX: Final = "keys-management/"

_MAX_STATE: Final = 65_536


class StoredStates(StateRepoInterface, CryptoTool):
    """Both ports in one: states are secrets of a store, sealed with KMS, in S3 or a folder::

        states = StoredStates(open_store(parse_place("s3://bucket/app"), ["alias/app"]))
        keys_management = KeysManagementImpl(states, states)

    :param prefix: in front of the keys' names.
    :param clock: seconds since the epoch.

    Errors of every method besides its own: the store's, from :mod:`iam_auth_proxy.errors`.
    """

    def __init__(
        self, store: SecretStore, prefix: str = PREFIX, clock: Callable[[], float] = time.time
    ) -> None:
        self._store = store
        self._prefix = prefix
        self._clock = clock

    def encrypt(self, data: Any) -> bytes:
        """As JSON: sealing is the store's."""
        state: dict[str, object] = {STATE: SecretKeyFlow.get(data[STATE]).name}
        if KEY in data:
            state[KEY] = _write(data[KEY])
        if EARLIER in data:
            state[EARLIER] = [_write(each) for each in data[EARLIER]]
        return json.dumps(state).encode()

    def decrypt(self, encrypted_data: bytes) -> dict[str, Any]:
        """What :meth:`encrypt` wrote.

        :raises Malformed: it is something else.
        """
        state = loads_object(encrypted_data, "the state", at_most=_MAX_STATE)
        if KEY in state:
            state[KEY] = _read(state[KEY])
        earlier = state.get(EARLIER, [])
        if not isinstance(earlier, list):
            raise Malformed("the state has earlier keys that are no list")
        return {**state, EARLIER: [_read(each) for each in earlier]}

    def write_state(self, key: str, key_state: bytes) -> None:
        self._store.put(self._prefix + key, key_state, now=self._clock())

    def read_state(self, key: str) -> bytes | None:
        try:
            return self._store.get(self._prefix + key).value
        except NoSuchSecret:
            return None


class RingKeys:
    """A ``keys_store`` over a key ring, so that every worker has every key that is in use::

        rings = open_rings("s3://bucket/app/data", ["alias/app"]).start()
        keys = RingKeys(rings, "data")
        keys_management.define_key("data", keys, SecretKeyUseCase.ROUND_TRIP)
        rings.on_rotation(keys.changes(keys_management, "data"))

    Each key is 32 bytes, derived from a version of the ring for this purpose and no other.

    :param rings: see :mod:`iam_auth_proxy.protocol.keyring`.
    :param purpose: the key's name will do.
    :param clock: seconds since the epoch.
    """

    def __init__(self, rings: Rings, purpose: str, clock: Callable[[], float] = time.time) -> None:
        self._rings = rings
        self._purpose = f"keys-management {purpose}"
        self._clock = clock

    def __call__(self) -> bytes:
        return self._of(self._rings.at(self._clock()).primary)

    def back_path_keys(self) -> list[bytes]:
        """Of every version that is accepted now, the primary's first."""
        return [self._of(version) for version in self._rings.at(self._clock()).versions]

    def changes(
        self, keys_management: KeysManagement, key_name: str
    ) -> Callable[[KeyRing, KeyRing], None]:
        """For ``on_rotation`` of watched rings: the change is declared, in every worker."""

        def tell(before: KeyRing, now: KeyRing) -> None:
            if before.primary.id != now.primary.id:
                old, new = self._of(before.primary), self._of(now.primary)
                keys_management.key_changed(key_name, old, new)

        return tell

    def _of(self, version: KeyVersion) -> bytes:
        return derive(self._purpose, version)


def _write(key: str | bytes) -> str | dict[str, str]:
    return key if isinstance(key, str) else {"bytes": base64.b64encode(key).decode()}


def _read(found: object) -> str | bytes:
    if isinstance(found, str):
        return found
    if isinstance(found, dict) and found.keys() == {"bytes"} and isinstance(found["bytes"], str):
        return decode_base64(found["bytes"], "a key")
    raise Malformed("the state has a key that is none")
