"""``python -m tests.bench.reference_tunnel``: the least that a CONNECT proxy on uvloop can do.

Reads and writes with backpressure, and nothing else: no checks, limits, deadlines or counters. It
is what our tunnel's CPU is measured against, and serves no other purpose.
"""

from __future__ import annotations

import asyncio
from typing import cast

import uvloop

from tests.bench.serve import serve


class Pipe(asyncio.Protocol):
    """One end of a tunnel; what it reads is written to the other."""

    transport: asyncio.Transport
    other: Pipe

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self.other.transport.write(data)

    def pause_writing(self) -> None:
        self.other.transport.pause_reading()

    def resume_writing(self) -> None:
        self.other.transport.resume_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        self.other.transport.close()


class Client(Pipe):
    """The client's end, which begins with one CONNECT that came in one piece."""

    connected = False

    def data_received(self, data: bytes) -> None:
        if self.connected:
            super().data_received(data)
            return
        self.connected = True
        self.transport.pause_reading()
        host, _, port = data.split(b" ", 2)[1].decode("ascii").rpartition(":")
        self.dialling = asyncio.ensure_future(self._dial(host, int(port)))

    async def _dial(self, host: str, port: int) -> None:
        _, self.other = await asyncio.get_running_loop().create_connection(Pipe, host, port)
        self.other.other = self
        self.transport.write(b"HTTP/1.1 200 OK\r\n\r\n")
        self.transport.resume_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        if self.connected:
            super().connection_lost(exc)


if __name__ == "__main__":
    uvloop.run(serve(Client))
