"""The envelope around a bound proof (section 3): a data key that KMS wrapped, and what it seals.

::

    e1.BASE64URL(wrapped key).BASE64URL(iv + ciphertext + tag)

KMS encrypts 4,096 bytes at most, which a session token may fill by itself. So KMS Encrypt wraps a
fresh 32-byte data key under the sign-in's encryption context, and AES-256-GCM seals the proof with
that key and the same context as its additional data. Without kms:Decrypt for that context nothing
opens; with another context neither half does.

A data key seals one proof only, so that no iv is ever used twice with a key.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from iam_auth_proxy.errors import Malformed, StaleToken
from iam_auth_proxy.names import Origin
from iam_auth_proxy.protocol.nonce import check_nonce
from iam_auth_proxy.protocol.proof import MAX_PROOF, ProofKind
from iam_auth_proxy.protocol.strict import decode_base64, encode_base64

RESERVED_PREFIX: Final = "iam-auth-"
"""Of context keys that the proxy alone may set; a challenge must not bring its own."""

ORIGIN_KEY: Final = "iam-auth-origin"
NONCE_KEY: Final = "iam-auth-nonce"
PROOF_KEY: Final = "iam-auth-proof"

DATA_KEY_BYTES: Final = 32
IV_BYTES: Final = 12
TAG_BYTES: Final = 16

MAX_WRAPPED_KEY: Final = 6144
"""Bytes: KMS API reference, Decrypt, CiphertextBlob."""

_MAX_SEALED = MAX_PROOF + TAG_BYTES


def _encoded(length: int) -> int:
    """Characters of that many bytes in base64 without padding."""
    return (length * 4 + 2) // 3


MAX_TEXT: Final = len("e1..") + _encoded(MAX_WRAPPED_KEY) + _encoded(IV_BYTES + _MAX_SEALED)
"""Characters."""

_TEXT = re.compile(r"e1\.(?P<wrapped>[A-Za-z0-9_-]+)\.(?P<sealed>[A-Za-z0-9_-]+)", re.ASCII)


@dataclass(frozen=True, slots=True)
class Envelope:
    """A sealed proof.

    :param wrapped_key: KMS's ciphertext over the data key.
    :param iv: 12 bytes.
    :param sealed: ciphertext and tag, as :func:`seal` makes them.
    :raises Malformed: any of them is empty, too short or too long.
    """

    wrapped_key: bytes = field(repr=False)
    iv: bytes = field(repr=False)
    sealed: bytes = field(repr=False)

    def __post_init__(self) -> None:
        if not 0 < len(self.wrapped_key) <= MAX_WRAPPED_KEY:
            raise Malformed("the envelope's wrapped key is empty or too long")
        if len(self.iv) != IV_BYTES:
            raise Malformed(f"the envelope's iv is not of {IV_BYTES} bytes")
        if not TAG_BYTES < len(self.sealed) <= _MAX_SEALED:
            raise Malformed("the envelope's sealed proof is empty or too long")

    def dumps(self) -> str:
        """The envelope as the form field ``token`` has it."""
        wrapped = encode_base64(self.wrapped_key, urlsafe=True)
        return f"e1.{wrapped}.{encode_base64(self.iv + self.sealed, urlsafe=True)}"


def loads(text: str) -> Envelope:
    """What :meth:`Envelope.dumps` writes, in its one spelling.

    :raises Malformed: otherwise.
    """
    match = _TEXT.fullmatch(text) if len(text) <= MAX_TEXT else None
    if match is None:
        raise Malformed("the token is not an envelope e1.KEY.SEALED, or too long")
    wrapped = decode_base64(match["wrapped"], "the envelope's wrapped key", urlsafe=True)
    sealed = decode_base64(match["sealed"], "the envelope's sealed proof", urlsafe=True)
    return Envelope(wrapped, sealed[:IV_BYTES], sealed[IV_BYTES:])


def bound_context(
    context: Mapping[str, str], origin: Origin, nonce: str, kind: ProofKind
) -> dict[str, str]:
    """The encryption context of a bound sign-in: the challenge's, and what it is bound to.

    Operators may say in IAM who signs in where, with ``kms:EncryptionContext:iam-auth-origin``.

    :raises Malformed: the challenge's context has a key of ours already, or the nonce is none.
    """
    # IAM compares the names in kms:EncryptionContext:NAME without regard to case.
    if any(key.casefold().startswith(RESERVED_PREFIX) for key in context):
        raise Malformed(f"the encryption context has a key of ours ({RESERVED_PREFIX}...)")
    ours = {ORIGIN_KEY: str(origin), NONCE_KEY: check_nonce(nonce), PROOF_KEY: kind.value}
    return dict(context) | ours


def seal(proof: bytes, *, data_key: bytes, iv: bytes, context: Mapping[str, str]) -> bytes:
    """``proof`` under AES-256-GCM with that context: :attr:`Envelope.sealed`.

    :param data_key: 32 random bytes, for this one proof; what KMS Encrypt wraps.
    :param iv: 12 bytes.
    :raises Malformed: a key or iv of another size, or a proof that is empty or too long.
    """
    if not 0 < len(proof) <= MAX_PROOF:
        raise Malformed("the proof is empty or too long")
    if len(iv) != IV_BYTES:
        raise Malformed(f"the iv is not of {IV_BYTES} bytes")
    _check_data_key(data_key)
    # cryptography costs 27 ms to import, and not every command of ours seals something.
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    return AESGCM(data_key).encrypt(iv, proof, _additional(context))


def unseal(envelope: Envelope, *, data_key: bytes, context: Mapping[str, str]) -> bytes:
    """The proof in an envelope.

    :param data_key: what KMS Decrypt made of the wrapped key with the same context; whoever may
        encrypt with the app's key chose it, so its size is checked here.
    :raises Malformed: a data key of another size.
    :raises StaleToken: the tag does not hold: another key or context, or tampered with.
    """
    _check_data_key(data_key)
    from cryptography.exceptions import InvalidTag
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    try:
        return AESGCM(data_key).decrypt(envelope.iv, envelope.sealed, _additional(context))
    except InvalidTag as error:
        raise StaleToken("the envelope does not open with this key and context") from error


def _check_data_key(data_key: bytes) -> None:
    if len(data_key) != DATA_KEY_BYTES:
        raise Malformed(f"the data key is not of {DATA_KEY_BYTES} bytes")


def _additional(context: Mapping[str, str]) -> bytes:
    """``e1``, NUL, and the context as compact UTF-8 JSON, its keys in the order of code points."""
    text = json.dumps(
        dict(context), sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    )
    return b"e1\0" + text.encode("utf-8")
