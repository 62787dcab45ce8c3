"""KMS ciphertexts: AES-256-GCM, with the key's name and the encryption context authenticated.

A blob is ``01 | length | reference | nonce (12) | sealed``, where the reference is
``REGION:ACCOUNT:KEY_ID``; the region is ``*`` for a multi-Region key, whose twins open it too.
The format is our own: KMS does not document its, and promises none.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from iam_auth_proxy.local_aws.state import Key

_VERSION: Final = b"\x01"
_NONCE: Final = 12
_REFERENCE = re.compile(r"(\*|[a-z0-9-]+):([0-9]{12}):([a-z0-9-]+)", re.ASCII)


class Unreadable(ValueError):
    """Not a ciphertext, not of this key, another context, or tampered with."""


@dataclass(frozen=True, slots=True)
class Sealed:
    """A ciphertext taken apart, not opened."""

    region: str
    account: str
    key_id: str
    head: bytes = field(repr=False)
    rest: bytes = field(repr=False)

    def made_by(self, key: Key) -> bool:
        """Whether its reference names ``key``, or a multi-Region twin of it."""
        region = "*" if key.multi_region else key.region
        return (self.region, self.account, self.key_id) == (region, key.account, key.key_id)


def seal(key: Key, plaintext: bytes, context: Mapping[str, str]) -> bytes:
    """Encrypt under ``key``, bound to ``context``; never twice the same."""
    region = "*" if key.multi_region else key.region
    reference = f"{region}:{key.account}:{key.key_id}".encode()
    head = _VERSION + bytes([len(reference)]) + reference
    nonce = os.urandom(_NONCE)
    return head + nonce + AESGCM(key.material).encrypt(nonce, plaintext, _bound(head, context))


def read(blob: bytes) -> Sealed:
    """Take a ciphertext apart.

    :raises Unreadable: not one of ours.
    """
    length = blob[1] if len(blob) > 1 else 0
    head, rest = blob[: 2 + length], blob[2 + length :]
    match = _REFERENCE.fullmatch(head[2:].decode("latin-1"))
    if blob[:1] != _VERSION or match is None or len(rest) <= _NONCE:
        raise Unreadable("not a ciphertext")
    return Sealed(match[1], match[2], match[3], head, rest)


def unseal(key: Key, sealed: Sealed, context: Mapping[str, str]) -> bytes:
    """Decrypt.

    :raises Unreadable: another key, another context, or tampered with.
    """
    nonce, body = sealed.rest[:_NONCE], sealed.rest[_NONCE:]
    try:
        return AESGCM(key.material).decrypt(nonce, body, _bound(sealed.head, context))
    except (InvalidTag, ValueError) as error:
        raise Unreadable("the seal is broken") from error


def _bound(head: bytes, context: Mapping[str, str]) -> bytes:
    # JSON of sorted pairs, not a concatenation: {"ab": "c"} and {"a": "bc"} must differ.
    return head + json.dumps(sorted(context.items()), ensure_ascii=True).encode()
