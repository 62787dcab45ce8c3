"""The chunked transfer coding (RFC 9112 section 7.1): validated while it passes. Pure.

Nothing that has not been validated is handed on: an unfinished chunk line or trailer is held back.
Chunk data is passed as it was read, so that a large chunk costs one slice at most.
"""

from __future__ import annotations

import re
from typing import Final

from iam_auth_proxy.errors import Malformed

_SIZE_LINE = re.compile(rb"([0-9A-Fa-f]{1,15})(?:[ \t]*;[\t\x20-\x7e\x80-\xff]*)?\r\n")
# A size line as far as it goes: what cannot become one is refused before its end is there.
_SIZE_LINE_SO_FAR = re.compile(
    rb"[0-9A-Fa-f]{0,15}(?:(?<=[0-9A-Fa-f])(?:\r|[ \t]+(?:;[\t\x20-\x7e\x80-\xff]*\r?)?"
    rb"|;[\t\x20-\x7e\x80-\xff]*\r?))?"
)
_TRAILER = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[\t\x20-\x7e\x80-\xff]*\r\n")
# Framing, routing and connection control have no place behind a body (RFC 9110 section 6.5.1).
_NEVER_TRAILERS: Final = frozenset(
    b"content-length transfer-encoding host connection proxy-connection keep-alive te trailer "
    b"upgrade authorization proxy-authorization cookie set-cookie content-encoding content-type "
    b"content-range".split()
)

_SIZE, _DATA, _DATA_END, _TRAILERS = range(4)


class ChunkError(Malformed):
    """A chunked body outside its grammar or its limits."""


class ChunkScanner:
    """Follows one chunked body through reads of any size.

    :ivar left: bytes that are known to come; more may.
    :ivar done: the last chunk and the trailers have been seen.
    :ivar rest: what came behind the body, once ``done``.
    """

    __slots__ = ("_held", "_line_limit", "_state", "_trailer_limit", "done", "left", "rest")

    def __init__(self, line_limit: int = 256, trailer_limit: int = 16 * 1024) -> None:
        self._line_limit = line_limit
        self._trailer_limit = trailer_limit
        self._held = b""
        self.left = 0
        self._state = _SIZE
        self.done = False
        self.rest = b""

    def feed(self, data: bytes, content: list[bytes] | None = None) -> bytes:
        """The part of what was read so far that is valid and not yet handed on, in its framing.

        :param content: gets the pieces of chunk data, for a reader that knows no chunks.
        :raises ChunkError: the body is malformed; nothing more may be passed on.
        """
        if self._held:
            data = self._held + data
            self._held = b""
        position, size = 0, len(data)
        while position < size:
            state = self._state
            if state == _DATA:
                end = min(position + self.left, size)
                if content is not None:
                    content.append(data[position:end])
                self.left -= end - position
                position = end
                if self.left:
                    break
                self._state = _DATA_END
            elif state == _SIZE:
                after = self._size_line(data, position)
                if after < 0:
                    break
                position = after
            elif state == _DATA_END:
                if size - position < 2 and data[position:] == b"\r":
                    break
                if data[position : position + 2] != b"\r\n":
                    raise ChunkError("chunk data does not end where its size says")
                position += 2
                self._state = _SIZE
            else:
                after = self._trailers(data, position)
                if after < 0:
                    break
                self.done = True
                self.rest = data[after:]
                return data if after == size else data[:after]
        if position < size:
            self._held = data[position:]
            return data[:position]
        return data

    def _size_line(self, data: bytes, position: int) -> int:
        """The position behind the chunk-size line, or -1 where it is not all there."""
        match = _SIZE_LINE.match(data, position, position + self._line_limit)
        if match is None:
            seen = data[position : position + self._line_limit]
            if len(seen) == self._line_limit or not _SIZE_LINE_SO_FAR.fullmatch(seen):
                raise ChunkError("a chunk size is malformed or too long")
            return -1
        self.left = int(match[1], 16)
        self._state = _DATA if self.left else _TRAILERS
        return match.end()

    def _trailers(self, data: bytes, position: int) -> int:
        """The position behind the trailer section, or -1 where it is not all there."""
        if data.startswith(b"\r\n", position):
            return position + 2
        end = data.find(b"\r\n\r\n", position, position + self._trailer_limit)
        if end < 0:
            if len(data) - position >= self._trailer_limit:
                raise ChunkError("the trailers are too long")
            return -1
        at = position
        while at < end + 2:
            match = _TRAILER.match(data, at, end + 2)
            if match is None or match[1].lower() in _NEVER_TRAILERS:
                raise ChunkError("a trailer is malformed or may not be one")
            at = match.end()
        return end + 4


def write_chunk(data: bytes) -> bytes:
    """One chunk around data that is not empty."""
    return b"%x\r\n%b\r\n" % (len(data), data)


LAST_CHUNK: Final = b"0\r\n\r\n"
