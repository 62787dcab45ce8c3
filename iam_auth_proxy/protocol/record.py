"""A stored secret, to the byte: a head that says what it is, and the value in sealed frames.

::

    iam-auth-secret/1 LF
    {"created":…,"deleted":…,"key":…,"name":…,"store":…,"version":…,"wrapped":…} LF
    BASE64(HMAC-SHA256 of both lines) LF
    frame frame … last frame

KMS Encrypt wraps a fresh 32-byte data key, bound to store, name and version as its encryption
context. Two keys are derived from it (HKDF-SHA256, RFC 5869): one authenticates the head, the other
seals the frames. So nothing of a head can be changed, and a record that was copied to another name,
version or store does not open there; while another KMS key can wrap the same data key without a
frame being touched.

Frames are AES-256-GCM over 64 KiB of the value each, the last over what is left. A frame's nonce is
its number (11 bytes) and whether it is the last one (1 byte), so that frames can be neither cut
off, added, repeated nor reordered (the STREAM construction of Hoang, Reyhanitabar, Rogaway and
Vizár, 2015). A data key seals one value only: no nonce is ever used twice with a key.
"""

from __future__ import annotations

import hmac
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from iam_auth_proxy.errors import Malformed, RecordUnusable
from iam_auth_proxy.names import parse_key_arn
from iam_auth_proxy.protocol.envelope import DATA_KEY_BYTES, MAX_WRAPPED_KEY, TAG_BYTES
from iam_auth_proxy.protocol.strict import decode_base64, encode_base64, loads_object

MAGIC: Final = b"iam-auth-secret/1\n"
FRAME: Final = 65_536
"""Bytes of the value in each frame but the last."""
SEALED_FRAME: Final = FRAME + TAG_BYTES

MAX_NAME: Final = 200
MAX_STORE: Final = 1024
MAX_VERSION: Final = 99_999_999
MAX_HEAD: Final = 16_384
"""Bytes of the three lines; a record that has not ended them by then is none."""

_MAX_CREATED = 1 << 53
_MAC_BYTES = 32
_SEGMENT = r"[A-Za-z0-9_][A-Za-z0-9._+=-]*"
_NAME = re.compile(rf"{_SEGMENT}(?:/{_SEGMENT})*", re.ASCII)
_STORE = re.compile(r"[\x21-\x7e\u00a0-\U0010ffff](?:[\x20-\x7e\u00a0-\U0010ffff]*)")
_FIELDS = frozenset({"created", "deleted", "key", "name", "store", "version", "wrapped"})


def check_name(name: str) -> str:
    """A secret's name: ``db``, ``web/session-key``.

    :raises Malformed: empty, over 200 characters, other characters than letters, digits and
        ``. _ + = -`` in parts divided by ``/``, or a part that begins with one of ``. + = -``.
    """
    if len(name) > MAX_NAME or not _NAME.fullmatch(name):
        raise Malformed(
            f"{name[:MAX_NAME]!r} is no name of a secret",
            public="A secret's name is like db or web/session-key: letters, digits, . _ + = - "
            f"and /, at most {MAX_NAME}.",
        )
    return name


@dataclass(frozen=True, slots=True)
class Header:
    """What a record says of itself.

    :ivar store: the store it belongs to, such as ``s3://bucket/prefix``.
    :ivar version: counts from 1.
    :ivar created: whole seconds since the epoch.
    :ivar deleted: a delete marker, whose value is empty.
    :ivar key: ARN of the KMS key that wraps the data key; ``wrapped``: that, wrapped.
    :raises Malformed: any of them is outside its bounds.
    """

    store: str
    name: str
    version: int
    created: int
    key: str
    wrapped: bytes = field(repr=False)
    deleted: bool = False

    def __post_init__(self) -> None:
        check_name(self.name)
        parse_key_arn(self.key)
        if len(self.store) > MAX_STORE or not _STORE.fullmatch(self.store):
            raise Malformed("the record's store is empty, too long, or not printable")
        if not 0 < self.version <= MAX_VERSION:
            raise Malformed("the record's version is out of bounds")
        if not 0 <= self.created <= _MAX_CREATED:
            raise Malformed("the record's time is out of bounds")
        if not 0 < len(self.wrapped) <= MAX_WRAPPED_KEY:
            raise Malformed("the record's wrapped key is empty or too long")

    @property
    def context(self) -> dict[str, str]:
        """The encryption context of its data key."""
        return context_of(self.store, self.name, self.version)


def context_of(store: str, name: str, version: int) -> dict[str, str]:
    """What a data key is bound to; IAM sees it as ``kms:EncryptionContext:iam-auth-secret``."""
    return {
        "iam-auth-store": store,
        "iam-auth-secret": name,
        "iam-auth-version": str(version),
    }


# -- the head --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Head:
    """A head as read: nothing of it is to be believed before :meth:`check`.

    :ivar length: bytes of the three lines, after which the frames begin.
    """

    header: Header
    length: int
    signed: bytes = field(repr=False)
    mac: bytes = field(repr=False)

    def check(self, data_key: bytes) -> Header:
        """The header, now that it is known to be that of whoever had the data key.

        :raises Malformed: a data key of another size.
        :raises RecordUnusable: the head was changed, or belongs to another data key.
        """
        if not hmac.compare_digest(self.mac, _mac(self.signed, data_key)):
            raise RecordUnusable("the record's head was changed")
        return self.header


def dumps_head(header: Header, data_key: bytes) -> bytes:
    """The three lines, which :func:`loads_head` reads.

    :raises Malformed: a data key of another size than 32 bytes.
    """
    signed = MAGIC + _canonical(header)
    return signed + encode_base64(_mac(signed, data_key)).encode() + b"\n"


def loads_head(start: bytes) -> Head:
    """The head of a record, in its one spelling.

    :param start: the first ``MAX_HEAD`` bytes of the record, or all of them.
    :raises Malformed: otherwise.
    """
    lines = start[:MAX_HEAD].split(b"\n", 3)
    if len(lines) != 4 or lines[0] + b"\n" != MAGIC:
        raise Malformed("the record does not begin with a head of ours")
    _, line, mac, _ = lines
    if not mac.isascii():
        raise Malformed("the record's authenticator is not base64")
    header = _header(loads_object(line, "the record's head", at_most=MAX_HEAD))
    if _canonical(header) != line + b"\n":
        raise Malformed("the record's head is not in its one spelling")
    signed = MAGIC + line + b"\n"
    code = decode_base64(mac.decode(), "the record's authenticator")
    if len(code) != _MAC_BYTES:
        raise Malformed("the record's authenticator is of another length")
    return Head(header, len(signed) + len(mac) + 1, signed, code)


def _canonical(header: Header) -> bytes:
    fields: Mapping[str, object] = {
        "created": header.created,
        "deleted": header.deleted,
        "key": header.key,
        "name": header.name,
        "store": header.store,
        "version": header.version,
        "wrapped": encode_base64(header.wrapped),
    }
    text = json.dumps(fields, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return text.encode() + b"\n"


def _header(fields: Mapping[str, Any]) -> Header:
    if fields.keys() != _FIELDS:
        raise Malformed("the record's head has other members than it should")
    texts = [fields[name] for name in ("key", "name", "store", "wrapped")]
    # bool is an int to isinstance.
    numbers = [type(fields[name]) is int for name in ("created", "version")]
    if not all(isinstance(text, str) for text in texts) or not all(numbers):
        raise Malformed("a member of the record's head is of another type than it should be")
    if not isinstance(fields["deleted"], bool):
        raise Malformed("a member of the record's head is of another type than it should be")
    wrapped = decode_base64(fields["wrapped"], "the record's wrapped key")
    return Header(
        fields["store"],
        fields["name"],
        fields["version"],
        fields["created"],
        fields["key"],
        wrapped,
        fields["deleted"],
    )


# -- the frames ------------------------------------------------------------------------------------


class Frames:
    """Seals or opens the frames of one value, in their order.

    :raises Malformed: a data key of another size than 32 bytes.
    """

    def __init__(self, data_key: bytes) -> None:
        self._cipher = AESGCM(_derived(data_key, b"frames"))
        self._number = 0

    def seal(self, value: bytes, *, last: bool) -> bytes:
        """The next frame.

        :param value: 64 KiB of it; of the last frame as many or fewer, and none at all only where
            the whole value is empty.
        """
        self._check(len(value), last=last)
        return self._cipher.encrypt(self._nonce(last=last), value, None)

    def open(self, frame: bytes, *, last: bool) -> bytes:
        """What the next frame holds.

        :raises RecordUnusable: it was changed, is not the next one, or not the last one as said.
        """
        number = self._number
        try:
            self._check(len(frame) - TAG_BYTES, last=last)
            return self._cipher.decrypt(self._nonce(last=last), frame, None)
        except (InvalidTag, Malformed) as error:
            raise RecordUnusable(f"frame {number} of the record does not open") from error

    def _check(self, length: int, *, last: bool) -> None:
        empty = length == 0 and self._number > 0
        if not 0 <= length <= FRAME or empty or (length < FRAME and not last):
            raise Malformed(f"a frame of {length} bytes, where that cannot be")

    def _nonce(self, *, last: bool) -> bytes:
        number, self._number = self._number, self._number + 1
        return number.to_bytes(11, "big") + (b"\1" if last else b"\0")


def value_size(sealed: int) -> int:
    """Bytes of the value in that many bytes of frames.

    :raises Malformed: frames are never that long together.
    """
    whole, left = divmod(sealed, SEALED_FRAME)
    if sealed < TAG_BYTES or 0 < left < TAG_BYTES or (left == TAG_BYTES and whole):
        raise Malformed("the record's frames have been cut")
    return sealed - TAG_BYTES * (whole + (left > 0))


def _mac(signed: bytes, data_key: bytes) -> bytes:
    return hmac.digest(_derived(data_key, b"head"), signed, "sha256")


def _derived(data_key: bytes, purpose: bytes) -> bytes:
    if len(data_key) != DATA_KEY_BYTES:
        raise Malformed(f"the data key is not of {DATA_KEY_BYTES} bytes")
    return HKDF(SHA256(), 32, salt=None, info=MAGIC + purpose).derive(data_key)
