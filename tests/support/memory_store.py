"""A secret store without a disk or a network, for simulations: objects and a KMS in memory.

The real store over the embedded AWS answers in milliseconds; this one in microseconds, and it can
be down.
"""

from __future__ import annotations

import hashlib
import io
import os
import threading
from collections.abc import Mapping
from typing import BinaryIO

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from iam_auth_proxy.aws.base import Decrypted, Encrypted, StoredObject
from iam_auth_proxy.errors import AwsUnavailable, CiphertextInvalid, NoSuchObject, ObjectChanged
from iam_auth_proxy.keys.ringstore import RingStore
from iam_auth_proxy.keys.secrets import SecretStore

KEY = "arn:aws:kms:eu-west-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab"


class MemoryObjects:
    """:class:`~iam_auth_proxy.aws.base.ObjectStore`.

    :ivar down: whether every call fails. ``calls``: how many there were.
    """

    def __init__(self) -> None:
        self.stored: dict[str, bytes] = {}
        self.down = False
        self.calls = 0
        self._lock = threading.Lock()

    def _call(self) -> None:
        self.calls += 1
        if self.down:
            raise AwsUnavailable("the store is down")

    def read(self, key: str, at_most: int | None = None) -> StoredObject:
        self._call()
        try:
            data = self.stored[key]
        except KeyError as error:
            raise NoSuchObject(key) from error
        return StoredObject(io.BytesIO(data[:at_most]), len(data), _tag(data))

    def create(self, key: str, body: BinaryIO) -> None:
        self._call()
        with self._lock:
            if key in self.stored:
                raise ObjectChanged(key)
            self.stored[key] = body.read()

    def replace(self, key: str, body: BinaryIO, tag: str) -> None:
        self._call()
        with self._lock:
            if key not in self.stored or _tag(self.stored[key]) != tag:
                raise ObjectChanged(key)
            self.stored[key] = body.read()

    def delete(self, key: str) -> None:
        self._call()
        self.stored.pop(key, None)

    def keys(self, prefix: str) -> list[str]:
        self._call()
        return sorted(key for key in self.stored if key.startswith(prefix))


class MemoryKms:
    """:class:`~iam_auth_proxy.aws.base.Kms` with one key."""

    def __init__(self) -> None:
        self._key = AESGCM(os.urandom(32))

    def encrypt(self, key: str, plaintext: bytes, context: Mapping[str, str]) -> Encrypted:
        nonce = os.urandom(12)
        return Encrypted(nonce + self._key.encrypt(nonce, plaintext, _aad(context)), KEY)

    def decrypt(self, key: str, ciphertext: bytes, context: Mapping[str, str]) -> Decrypted:
        try:
            plain = self._key.decrypt(ciphertext[:12], ciphertext[12:], _aad(context))
        except Exception as error:
            raise CiphertextInvalid("another context") from error
        return Decrypted(plain, KEY)

    def key_arn(self, key: str) -> str:
        return KEY


def ring_store(objects: MemoryObjects, kms: MemoryKms | None = None) -> RingStore:
    """A ring ``ring`` there."""
    store = SecretStore(objects, kms or MemoryKms(), [KEY], "s3://bucket/prefix")
    return RingStore(store, "ring")


def _tag(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _aad(context: Mapping[str, str]) -> bytes:
    return repr(sorted(context.items())).encode()
