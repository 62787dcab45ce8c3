"""A TLS ClientHello, read before anything is answered to it. Pure.

Whose certificate is wanted, whether HTTP/1.1 may be spoken, and which client it is that speaks are
in the first message of a connection, in clear (RFC 8446 section 4.1.2, RFC 5246 section 7.4.1.2).
So what cannot become a connection of ours is refused with an alert that says why, before a library
has seen a byte of it.
"""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass
from typing import Final

from iam_auth_proxy.errors import Malformed
from iam_auth_proxy.names import parse_host

HANDSHAKE: Final = 0x16
"""The content type of a ClientHello's record, its first byte (RFC 8446 section 5.1)."""
LONGEST: Final = 16 * 1024
"""Bytes of a ClientHello; browsers with post-quantum keys send 2,000."""
TLS12: Final = 0x0303

_LONGEST_RAW: Final = 2 * LONGEST  # with the headers of its records, which may be tiny
_LONGEST_RECORD: Final = 2**14
_CLIENT_HELLO: Final = 1

# RFC 8446 section 6 and RFC 7301, RFC 6066: what an alert can say.
UNEXPECTED_MESSAGE: Final = 10
ILLEGAL_PARAMETER: Final = 47
DECODE_ERROR: Final = 50
PROTOCOL_VERSION: Final = 70
MISSING_EXTENSION: Final = 109
UNRECOGNIZED_NAME: Final = 112

_SERVER_NAME, _GROUPS, _SIGNATURES, _PROTOCOLS, _VERSIONS = 0, 10, 13, 16, 43
# Extensions that come and go with one client: the name, padding, what resumes a session, a cookie
# of a second hello.
_PASSING: Final = frozenset((_SERVER_NAME, 21, 35, 41, 42, 44))


class NotTls(Exception):
    """The first byte is not that of a handshake's record.

    :ivar data: what came.
    """

    def __init__(self, data: bytes) -> None:
        super().__init__("not TLS")
        self.data = data


class BadHello(Exception):
    """A ClientHello that is answered with this fatal alert.

    :ivar alert: its description, a byte.
    """

    def __init__(self, alert: int, why: str) -> None:
        super().__init__(why)
        self.alert = alert


@dataclass(frozen=True, slots=True)
class Hello:
    """What a client said of itself.

    :ivar server_name: the host that it wants; empty: it did not say (RFC 6066 section 3).
    :ivar protocols: what it would speak inside; empty: it did not say (RFC 7301).
    :ivar version: the highest version of TLS that it offers.
    :ivar fingerprint: the same for each connection of one client of one configuration: what it
        offers, without what is random, and without what depends on host and session.
    """

    server_name: str
    protocols: tuple[bytes, ...]
    version: int
    fingerprint: str

    @property
    def speaks_http11(self) -> bool:
        """Whether HTTP/1.1 may be spoken inside."""
        return not self.protocols or b"http/1.1" in self.protocols

    def check(self, host: str) -> None:
        """Whether it may be answered for this host, which the tunnel was asked for.

        :raises BadHello: no TLS 1.2 or later, no name, another name.
        """
        if self.version < TLS12:
            raise BadHello(PROTOCOL_VERSION, "the client knows no TLS 1.2")
        if not self.server_name:
            raise BadHello(MISSING_EXTENSION, "the client names no host (SNI)")
        if self.server_name != host:
            raise BadHello(UNRECOGNIZED_NAME, "the client names another host than in CONNECT (SNI)")


def write_alert(description: int) -> bytes:
    """The record of a fatal alert."""
    return bytes((21, 3, 3, 0, 2, 2, description))


class HelloReader:
    """Takes what comes until a ClientHello is whole, in however many pieces and records.

    :ivar raw: all that was taken.
    """

    __slots__ = ("_message", "_pending", "raw")

    def __init__(self) -> None:
        self.raw = bytearray()
        self._pending = bytearray()
        self._message = bytearray()

    def feed(self, data: bytes) -> Hello | None:
        """The ClientHello once it is whole.

        :raises NotTls: it is none.
        :raises BadHello: it is malformed, or longer than any.
        """
        self.raw += data
        if self.raw and self.raw[0] != HANDSHAKE:
            raise NotTls(bytes(self.raw))
        if len(self.raw) > _LONGEST_RAW:
            raise BadHello(ILLEGAL_PARAMETER, "the ClientHello is too long")
        self._pending += data
        while (record := self._next_record()) is not None:
            self._message += record
            message = self._whole()
            if message is not None:
                return _parse(message)
        return None

    def _next_record(self) -> bytes | None:
        pending = self._pending
        if len(pending) < 5:
            return None
        length = int.from_bytes(pending[3:5], "big")
        if pending[0] != HANDSHAKE:
            raise BadHello(UNEXPECTED_MESSAGE, "the ClientHello is interrupted")
        if pending[1] != 3 or not 0 < length <= _LONGEST_RECORD:
            raise BadHello(DECODE_ERROR, "the record is malformed")
        if len(pending) < 5 + length:
            return None
        record = bytes(pending[5 : 5 + length])
        del pending[: 5 + length]
        return record

    def _whole(self) -> bytes | None:
        message = self._message
        if message[0] != _CLIENT_HELLO:
            raise BadHello(UNEXPECTED_MESSAGE, "the first message is no ClientHello")
        if len(message) < 4:
            return None
        length = int.from_bytes(message[1:4], "big")
        if length > LONGEST:
            raise BadHello(ILLEGAL_PARAMETER, "the ClientHello is too long")
        return bytes(message[4 : 4 + length]) if len(message) >= 4 + length else None


class _Fields:
    """Bytes with lengths in front of them."""

    __slots__ = ("_at", "_data")

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    @property
    def more(self) -> bool:
        return self._at < len(self._data)

    def take(self, count: int) -> bytes:
        data = self._data[self._at : self._at + count]
        if len(data) < count:
            raise BadHello(DECODE_ERROR, "the ClientHello is malformed")
        self._at += count
        return data

    def number(self, size: int) -> int:
        return int.from_bytes(self.take(size), "big")

    def block(self, size: int) -> bytes:
        """What a length of so many bytes announces."""
        return self.take(self.number(size))

    def whole(self, size: int) -> _Fields:
        """The same; nothing may follow it."""
        block = self.block(size)
        if self.more:
            raise BadHello(DECODE_ERROR, "the ClientHello is malformed")
        return _Fields(block)

    def numbers(self) -> tuple[int, ...]:
        """Of two bytes each, without those that mean nothing (GREASE, RFC 8701)."""
        rest = self.take(len(self._data) - self._at)
        if len(rest) % 2:
            raise BadHello(DECODE_ERROR, "the ClientHello is malformed")
        return tuple(each for (each,) in struct.iter_unpack("!H", rest) if not _is_grease(each))


def _is_grease(number: int) -> bool:
    return number & 0x0F0F == 0x0A0A and number >> 8 == number & 0xFF


def _parse(message: bytes) -> Hello:
    fields = _Fields(message)
    legacy = fields.number(2)
    fields.take(32)  # random
    if len(fields.block(1)) > 32:
        raise BadHello(DECODE_ERROR, "the ClientHello is malformed")
    ciphers = _Fields(fields.block(2)).numbers()
    fields.block(1)  # compression methods
    extensions = _extensions(fields.whole(2)) if fields.more else {}
    listed = {
        kind: _Fields(extensions[kind]).whole(size).numbers()
        for kind, size in ((_VERSIONS, 1), (_GROUPS, 2), (_SIGNATURES, 2))
        if kind in extensions
    }
    versions = listed.get(_VERSIONS, (legacy,))
    protocols = _protocols(extensions)
    offered = (
        legacy,
        sorted(ciphers),
        sorted(kind for kind in extensions if kind not in _PASSING and not _is_grease(kind)),
        sorted(listed.items()),
        protocols,
    )
    return Hello(
        server_name=_server_name(extensions),
        protocols=protocols,
        version=max(versions, default=0),
        fingerprint=hashlib.sha256(repr(offered).encode("ascii")).hexdigest()[:32],
    )


def _extensions(fields: _Fields) -> dict[int, bytes]:
    found: dict[int, bytes] = {}
    while fields.more:
        kind = fields.number(2)
        if kind in found:
            raise BadHello(ILLEGAL_PARAMETER, "an extension came twice")
        found[kind] = fields.block(2)
    return found


def _server_name(extensions: dict[int, bytes]) -> str:
    """The only host name; a list of several, or of another kind, is nothing that anybody sends."""
    if _SERVER_NAME not in extensions:
        return ""
    names = _Fields(extensions[_SERVER_NAME]).whole(2)
    kind, name = names.number(1), names.block(2)
    if kind or names.more:
        raise BadHello(DECODE_ERROR, "the host's name is malformed (SNI)")
    try:
        return parse_host(name.decode("ascii"))
    except (Malformed, UnicodeDecodeError) as error:
        raise BadHello(DECODE_ERROR, "the host's name is malformed (SNI)") from error


def _protocols(extensions: dict[int, bytes]) -> tuple[bytes, ...]:
    if _PROTOCOLS not in extensions:
        return ()
    fields, found = _Fields(extensions[_PROTOCOLS]).whole(2), []
    while fields.more:
        name = fields.block(1)
        if not (len(name) == 2 and _is_grease(int.from_bytes(name, "big"))):
            found.append(name)
    return tuple(found)
