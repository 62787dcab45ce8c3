"""Small real upstream proxies: SOCKS5 (RFC 1928, 1929), SOCKS4a and HTTP CONNECT, on loopback.

Each takes a connection, reads what it is asked, and dials it as its ``names`` say, as the far end
of a tunnel with its own view of names would. What it was asked is kept in ``asked``.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from types import TracebackType

Address = tuple[str, int]
Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Refuse(Exception):
    """Answer with this reply code."""

    def __init__(self, code: int) -> None:
        self.code = code


@dataclass
class Upstream:
    """What all three share.

    :ivar names: what the far end reaches for a name or address; anything else is refused.
    :ivar credentials: (user, password) that a client must give.
    :ivar mute: read the request, never answer.
    :ivar hang_up: read the request, close without an answer, as ``ssh -D`` does.
    """

    names: dict[str, Address] = field(default_factory=dict)
    credentials: tuple[str, str] | None = None
    refuse_with: int | None = None
    mute: bool = False
    hang_up: bool = False
    host: str = "127.0.0.1"
    asked: list[Address] = field(default_factory=list)
    users: list[str] = field(default_factory=list)
    port: int = 0
    closed: asyncio.Event = field(default_factory=asyncio.Event)

    async def __aenter__(self) -> Upstream:
        self._stack = contextlib.AsyncExitStack()
        self.port = await self._stack.enter_async_context(
            listening(self._serve, self.host, self.port)
        )
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        await self._stack.aclose()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await self._handle(reader, writer)
        finally:
            self.closed.set()

    async def _handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        target = await self.read_request(reader, writer)
        if target is None:
            return
        self.asked.append(target)
        if self.mute:
            await reader.read()  # until the client gives up
            return
        if self.hang_up:
            return
        if self.refuse_with is not None or target[0] not in self.names:
            writer.write(self.answer(self.refuse_with or self.GENERAL_FAILURE))
            await writer.drain()
            return
        far_reader, far_writer = await asyncio.open_connection(*self.names[target[0]])
        writer.write(self.answer(self.GRANTED))
        try:
            await asyncio.gather(_pump(reader, far_writer), _pump(far_reader, writer))
        finally:
            far_writer.close()

    GRANTED = 0
    GENERAL_FAILURE = 1

    async def read_request(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> Address | None:
        raise NotImplementedError

    def answer(self, code: int) -> bytes:
        raise NotImplementedError


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()
    if writer.can_write_eof():
        writer.write_eof()


class Socks5(Upstream):
    async def read_request(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> Address | None:
        version, count = await reader.readexactly(2)
        methods = await reader.readexactly(count)
        if version != 5:
            return None
        wanted = 0 if self.credentials is None else 2
        if wanted not in methods:
            writer.write(b"\x05\xff")
            return None
        writer.write(bytes([5, wanted]))
        if wanted == 2 and not await self._log_in(reader, writer):
            return None
        _, command, _, kind = await reader.readexactly(4)
        assert command == 1
        if kind == 3:
            host = (await reader.readexactly((await reader.readexactly(1))[0])).decode("ascii")
        else:
            host = str(ipaddress.ip_address(await reader.readexactly(4 if kind == 1 else 16)))
        return host, int.from_bytes(await reader.readexactly(2), "big")

    async def _log_in(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        await reader.readexactly(1)
        user = await reader.readexactly((await reader.readexactly(1))[0])
        password = await reader.readexactly((await reader.readexactly(1))[0])
        self.users.append(user.decode())
        good = (user.decode(), password.decode()) == self.credentials
        writer.write(bytes([1, 0 if good else 1]))
        return good

    def answer(self, code: int) -> bytes:
        return bytes([5, code, 0]) + (b"" if code else b"\x03\x04here\x00\x00")


class Socks4(Upstream):
    GRANTED = 0x5A
    GENERAL_FAILURE = 0x5B

    async def read_request(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> Address | None:
        version, command = await reader.readexactly(2)
        assert (version, command) == (4, 1)
        port = int.from_bytes(await reader.readexactly(2), "big")
        address = await reader.readexactly(4)
        self.users.append((await reader.readuntil(b"\0"))[:-1].decode())
        if address[:3] == b"\0\0\0" and address[3]:
            return (await reader.readuntil(b"\0"))[:-1].decode(), port
        return str(ipaddress.ip_address(address)), port

    def answer(self, code: int) -> bytes:
        return bytes([0, code]) + bytes(6)


@dataclass
class HttpConnect(Upstream):
    """:ivar raw: sent in place of an answer, piece by piece, then the connection is closed."""

    raw: tuple[bytes, ...] | None = None
    heads: list[bytes] = field(default_factory=list)

    GRANTED = 200
    GENERAL_FAILURE = 502

    async def read_request(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> Address | None:
        head = await reader.readuntil(b"\r\n\r\n")
        self.heads.append(head)
        if self.raw is not None:
            for piece in self.raw:
                writer.write(piece)
                await writer.drain()
                await asyncio.sleep(0.005)  # so that each piece is a segment of its own
            return None
        method, authority, version = head.split(b"\r\n", 1)[0].decode("ascii").split(" ")
        assert (method, version) == ("CONNECT", "HTTP/1.1")
        host, _, port = authority.rpartition(":")
        return host.strip("[]"), int(port)

    def answer(self, code: int) -> bytes:
        return b"HTTP/1.1 %d Because\r\nServer: tiny\r\n\r\n" % code


@contextlib.asynccontextmanager
async def listening(
    serve: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]],
    host: str = "127.0.0.1",
    port: int = 0,
) -> AsyncIterator[int]:
    """A TCP server on ``host``; gives its port. Closes what ``serve`` leaves open."""
    tasks: set[asyncio.Task[None]] = set()

    async def client(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        try:
            await serve(reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass  # the client went, or the test is over
        finally:
            tasks.discard(task)
            writer.close()

    server = await asyncio.start_server(client, host, port)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks)
