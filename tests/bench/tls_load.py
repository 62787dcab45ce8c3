"""Load through CONNECT and TLS, which wrk does not speak: a client of our own, in this process.

It is slower than wrk, so at high rates it is the client that is measured; a ratio to somebody
slower is then smaller than it would be, and never larger.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
import time
from dataclasses import dataclass
from statistics import median
from typing import cast

import uvloop

from tests.bench.machine import BenchError

HOST = "app.test"
_END = b"\r\n\r\n"
_CONTENT = b"x" * 100


@dataclass(frozen=True, slots=True)
class Way:
    """How the app is reached.

    :ivar name: the host of its certificate.
    :ivar authority: what CONNECT is for; empty: it is the app's own port.
    """

    port: int
    context: ssl.SSLContext
    name: str
    authority: str = ""

    @property
    def connect(self) -> bytes:
        """The head of a CONNECT."""
        return f"CONNECT {self.authority} HTTP/1.1\r\nHost: {self.authority}\r\n\r\n".encode()

    @property
    def request(self) -> bytes:
        """The head of a request inside."""
        host = self.authority.removesuffix(":443") or self.name
        return f"GET /small HTTP/1.1\r\nHost: {host}\r\n\r\n".encode()


def connect(way: Way) -> ssl.SSLSocket:
    """One connection, TLS included."""
    plain = socket.create_connection(("127.0.0.1", way.port), 10)
    plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if way.authority:
        plain.sendall(way.connect)
        answer = b""
        while not answer.endswith(_END):
            more = plain.recv(4096)
            if not more:
                raise BenchError(f"CONNECT was answered with {answer!r}")
            answer += more
    return way.context.wrap_socket(plain, server_hostname=way.name)


def ask(connection: ssl.SSLSocket, way: Way) -> float:
    """One request; seconds until the first byte of its answer."""
    begun = time.perf_counter()
    connection.sendall(way.request)
    answer = connection.recv(65536)
    first = time.perf_counter() - begun
    while not answer.endswith(_CONTENT):
        more = connection.recv(65536)
        if not more:
            raise BenchError(f"a connection was closed: {answer!r}")
        answer += more
    if not answer.startswith(b"HTTP/1.1 200 "):
        raise BenchError(f"not the answer of the origin: {answer!r}")
    return first


def first_byte(way: Way, seconds: float) -> float:
    """Median microseconds to the first byte, over one kept connection."""
    with connect(way) as connection:
        for _ in range(20):
            ask(connection, way)
        end, found = time.perf_counter() + seconds, []
        while time.perf_counter() < end:
            found.append(ask(connection, way))
    return 1e6 * median(found)


def requests(way: Way, connections: int, seconds: float) -> float:
    """Requests per second over kept connections, each in a closed loop."""
    return uvloop.run(_requests(way, connections, seconds))


def new_connections(way: Way, workers: int, seconds: float) -> float:
    """New connections per second, each with one request; so many are made at one time."""
    return uvloop.run(_new(way, workers, seconds))


async def _open(way: Way) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    if not way.authority:
        return await asyncio.open_connection(
            "127.0.0.1", way.port, ssl=way.context, server_hostname=way.name
        )
    reader, writer = await asyncio.open_connection("127.0.0.1", way.port)
    writer.write(way.connect)
    answer = await reader.readuntil(_END)
    if b" 200 " not in answer:
        raise BenchError(f"CONNECT was answered with {answer!r}")
    await writer.start_tls(way.context, server_hostname=way.name)
    return reader, writer


class _Loop(asyncio.Protocol):
    """Asks, and asks again when the answer is whole."""

    def __init__(self, request: bytes) -> None:
        self._request = request
        self.answers = 0
        self.problem = ""
        self._tail = b""

    def begin(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        transport.set_protocol(self)
        transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        if not self._tail and not data.startswith(b"HTTP/1.1 200 "):
            self.problem = repr(data[:100])
        self._tail = data if len(data) >= 100 else self._tail + data
        if self._tail.endswith(_CONTENT):
            self.answers += 1
            self._tail = b""
            self._transport.write(self._request)

    def connection_lost(self, exc: Exception | None) -> None:
        self.problem = self.problem or f"closed: {exc}"


async def _requests(way: Way, connections: int, seconds: float) -> float:
    loops, writers = [], []
    for _ in range(connections):
        _, writer = await _open(way)
        one = _Loop(way.request)
        one.begin(cast(asyncio.Transport, writer.transport))
        loops.append(one)
        writers.append(writer)
    await asyncio.sleep(0.3)
    before, begun = sum(one.answers for one in loops), time.perf_counter()
    await asyncio.sleep(seconds)
    count = sum(one.answers for one in loops) - before
    rate = count / (time.perf_counter() - begun)
    problems = [one.problem for one in loops if one.problem]
    for writer in writers:
        writer.transport.abort()
    if problems or not count:
        raise BenchError(f"{len(problems)} connections failed: {problems[:1]}")
    return rate


async def _new(way: Way, workers: int, seconds: float) -> float:
    end, done = time.perf_counter() + seconds, 0

    async def work() -> None:
        nonlocal done
        while time.perf_counter() < end:
            reader, writer = await _open(way)
            writer.write(way.request)
            await reader.readuntil(_CONTENT)
            writer.transport.abort()
            done += 1

    begun = time.perf_counter()
    await asyncio.gather(*(work() for _ in range(workers)))
    return done / (time.perf_counter() - begun)
