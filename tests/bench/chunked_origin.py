"""``python -m tests.bench.chunked_origin``: answers every request with the blob, in chunks.

The chunks are prepared, so that it costs little more than writing. Their size is what servers in
Python and Go commonly write at once.
"""

from __future__ import annotations

import asyncio
from typing import Final, cast

import uvloop

from tests.bench.serve import serve

SIZE: Final = 256 * 1024 * 1024
CHUNK: Final = 16 * 1024

_HEAD: Final = (
    b"HTTP/1.1 200 OK\r\nContent-Type: application/octet-stream\r\n"
    b"Transfer-Encoding: chunked\r\n\r\n"
)
_PIECE: Final = (b"%x\r\n" % CHUNK + b"x" * CHUNK + b"\r\n") * 16
_PIECES: Final = SIZE // (16 * CHUNK)
_LAST: Final = b"0\r\n\r\n"


class Origin(asyncio.Protocol):
    """Writes as much as the transport takes, and goes on when it takes more."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._transport.set_write_buffer_limits(4 * len(_PIECE))
        self._head = b""
        self._left = 0
        self._paused = False

    def data_received(self, data: bytes) -> None:
        self._head += data
        if self._head.endswith(b"\r\n\r\n"):
            self._head = b""
            self._left = _PIECES
            self._transport.write(_HEAD)
            self._write()

    def _write(self) -> None:
        while self._left and not self._paused:
            self._left -= 1
            self._transport.write(_PIECE)
            if not self._left:
                self._transport.write(_LAST)

    def pause_writing(self) -> None:
        self._paused = True

    def resume_writing(self) -> None:
        self._paused = False
        self._write()


if __name__ == "__main__":
    uvloop.run(serve(Origin))
