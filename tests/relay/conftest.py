"""What the relay's tests share."""

from __future__ import annotations

import asyncio
import gc
import re
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import TypeVar

import pytest
import uvloop

from iam_auth_proxy.errors import PathError
from iam_auth_proxy.names import Origin
from iam_auth_proxy.relay.exchange import Entrance, Exchange, Repeat, Reply, ResponseHead, TlsEnd
from iam_auth_proxy.relay.limits import Limits
from iam_auth_proxy.relay.pool import OwnPages
from iam_auth_proxy.relay.relay import Relay

P = TypeVar("P", bound=asyncio.BaseProtocol)
Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Everything of the relay runs on both loops: they differ in more than speed."""
    return {"stock": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}


@pytest.fixture(scope="module")
def little_to_search() -> None:
    """What earlier files left in memory is looked through once, and not at each ``gc.collect()``.

    For files that count what is open: one such search takes a tenth of a second.
    """
    gc.collect()
    gc.freeze()


class PlainDialer:
    """Connects to the port of the URL on loopback, whatever the host is; no policy."""

    def __init__(self) -> None:
        self.dials = 0
        self.only_tls = False
        self.error: PathError | None = None
        self.gate: asyncio.Event | None = None

    async def connect(
        self, origin: Origin, protocol_factory: Callable[[], P]
    ) -> tuple[asyncio.Transport, P]:
        self.dials += 1
        if self.gate is not None:
            await self.gate.wait()
        if self.error is not None:
            raise self.error
        try:
            return await asyncio.get_running_loop().create_connection(
                protocol_factory, "127.0.0.1", origin.port
            )
        except OSError as error:
            raise PathError(str(error), error="connection_refused") from error

    async def secure(
        self, origin: Origin, protocol_factory: Callable[[], P], *, identified: bool = False
    ) -> tuple[asyncio.Transport, P]:
        """Without TLS all the same: what the relay makes of an https origin is not a dialer's."""
        return await self.connect(origin, protocol_factory)

    def tls_only(self, origin: Origin) -> bool:
        return self.only_tls


class OpenSteering:
    """Lets everything pass; what it says of failures is easy to look for."""

    def __init__(self) -> None:
        self.exchanges: list[Exchange] = []
        self.answers: list[ResponseHead] = []
        self.errors: list[PathError] = []
        self.read: set[Origin] = set()
        self.aliases: dict[bytes, Origin] = {}
        self.tls: dict[Origin, TlsEnd] = {}
        self.on_before: Callable[[Exchange], Awaitable[Reply | None] | None] = lambda _: None
        self.on_after: Callable[
            [Exchange, ResponseHead], Awaitable[Reply | Repeat | None] | None
        ] = lambda *_: None

    def before(self, exchange: Exchange) -> Awaitable[Reply | None] | None:
        self.exchanges.append(exchange)
        return self.on_before(exchange)

    def after(
        self, exchange: Exchange, answer: ResponseHead
    ) -> Awaitable[Reply | Repeat | None] | None:
        self.answers.append(answer)
        return self.on_after(exchange, answer)

    def serves(self, host: bytes, entrance: Entrance) -> Origin | None:
        return self.aliases.get(host)

    def reads_tunnel(self, origin: Origin) -> bool:
        return origin in self.read

    def ends_tls(self, origin: Origin) -> TlsEnd | None:
        return self.tls.get(origin)

    def failed(self, exchange: Exchange, error: PathError) -> Reply:
        self.errors.append(error)
        return Reply(error.http_status, [(b"X-From", b"failed")], error.error.encode())

    def refused(self, status: int, reason: str, client: str) -> Reply:
        return Reply(status, [(b"X-From", b"refused")], reason.encode())


class _Tap(asyncio.StreamReader):
    """Keeps a copy of what came."""

    def __init__(self, seen: bytearray) -> None:
        super().__init__(limit=2**20)
        self._seen = seen

    def feed_data(self, data: bytes) -> None:
        self._seen += data
        super().feed_data(data)


class App:
    """An origin that a test scripts: ``serve(reader, writer)`` runs for each connection."""

    def __init__(self, serve: Serve) -> None:
        self._serve = serve
        self.connections = 0
        self.received = bytearray()
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        self._server = await asyncio.get_running_loop().create_server(
            lambda: asyncio.StreamReaderProtocol(_Tap(self.received), self._accept), "127.0.0.1", 0
        )
        self.port = self._server.sockets[0].getsockname()[1]
        self.url = f"http://app.test:{self.port}"

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            await self._serve(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass  # the other side is gone, or the test is over
        finally:
            self._tasks.discard(task)
            writer.close()

    async def stop(self) -> None:
        self._server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


async def read_head(reader: asyncio.StreamReader) -> bytes:
    return await reader.readuntil(b"\r\n\r\n")


def reset(writer: asyncio.StreamWriter) -> None:
    """Close with RST."""
    if not writer.transport.is_closing():
        linger = struct.pack("ii", 1, 0)
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    writer.transport.abort()


class Peer:
    """A client's raw socket."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    def send(self, data: bytes) -> None:
        self.writer.write(data)

    async def head(self) -> bytes:
        """The next head."""
        return await asyncio.wait_for(self.reader.readuntil(b"\r\n\r\n"), 5)

    async def exactly(self, size: int) -> bytes:
        return await asyncio.wait_for(self.reader.readexactly(size), 5)

    async def answer(self) -> tuple[bytes, bytes]:
        """The next head and its counted body."""
        head = await self.head()
        match = re.search(rb"\r\ncontent-length: *(\d+)", head, re.IGNORECASE)
        return head, await self.exactly(int(match[1]) if match else 0)

    async def rest(self) -> bytes:
        """Everything up to the end of the connection; a reset is raised."""
        return await asyncio.wait_for(self.reader.read(-1), 5)

    def reset(self) -> None:
        """Be gone, in a way that the other side notices at once."""
        reset(self.writer)

    async def close(self) -> None:
        self.writer.close()
        try:
            await self.writer.wait_closed()
        except ConnectionError:
            pass  # closed already, by the other side


class Rig:
    """A relay on a port, and what a test puts around it."""

    def __init__(self) -> None:
        self.dialer = PlainDialer()
        self.steering = OpenSteering()
        self._apps: list[App] = []
        self._peers: list[Peer] = []

    async def start(self, limits: Limits | None = None, own: OwnPages | None = None) -> None:
        self.relay = Relay(dialer=self.dialer, steering=self.steering, limits=limits, own=own)
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(self.relay.connection, "127.0.0.1", 0, backlog=2048)
        self.port = self._server.sockets[0].getsockname()[1]

    async def app(self, serve: Serve) -> App:
        app = App(serve)
        await app.start()
        self._apps.append(app)
        return app

    async def answering(self, answer: bytes) -> App:
        """An app that gives this answer to every head."""

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            while True:
                await read_head(reader)
                writer.write(answer)

        return await self.app(serve)

    async def peer(self) -> Peer:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port, limit=2**20)
        peer = Peer(reader, writer)
        self._peers.append(peer)
        return peer

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait until the relay has come to see what has happened."""
        async with asyncio.timeout(5):
            while not condition():  # noqa: ASYNC110  # the relay announces nothing
                await asyncio.sleep(0.002)

    async def stop(self) -> None:
        for peer in self._peers:
            peer.reset()
            await peer.close()
        await self.until(lambda: self.relay.clients == 0)
        self._server.close()
        await self.relay.close()
        for app in self._apps:
            await app.stop()


@pytest.fixture
async def rig() -> AsyncIterator[Rig]:
    """A relay whose connections and tasks are all gone when the test is over."""
    rig = Rig()
    before = asyncio.all_tasks()
    yield rig
    if hasattr(rig, "relay"):
        await rig.stop()
        assert (rig.relay.clients, rig.relay.origins) == (0, 0)
    left = {task for task in asyncio.all_tasks() - before if not task.done()}
    left.discard(asyncio.current_task())
    assert not left, left
