"""How soon the proxy is ready, and how much memory it takes."""

from __future__ import annotations

import contextlib
import resource
import socket
import time
from collections.abc import Iterator

from tests.bench.contestants import Contestant, Field, start
from tests.bench.figures import Figure, absolute
from tests.bench.load import PATH
from tests.bench.machine import MB, BenchError, rss
from tests.bench.rows import IDLE, READY, RSS
from tests.bench.settings import Settings, say

CONNECTIONS = 1000
"""As many as the proxy takes by default."""


def starting(field: Field, settings: Settings) -> list[Figure]:
    """From exec to the line that says "ready", on any core; and the resident memory then."""
    times: list[float] = []
    sizes: list[float] = []
    for _ in range(settings.alternations + 1):
        begun = time.perf_counter()
        with start() as proxy:
            times.append(1000 * (time.perf_counter() - begun))
            sizes.append(rss(proxy.process.pid) / MB)
        say(f"ready after {times[-1]:.0f} ms with {sizes[-1]:.1f} MB")
    # The first start reads the files from the disk, which is not what is compared.
    return [absolute(READY, times[1:]), absolute(RSS, sizes[1:])]


def idle(field: Field, settings: Settings) -> list[Figure]:
    """Resident memory with 1,000 connections that had an answer each, less that before them."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 4 * CONNECTIONS
    if hard != resource.RLIM_INFINITY and hard < wanted:
        raise BenchError(f"{wanted} open files are needed; the hard limit is {hard}")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted), hard))
    samples = []
    for _ in range(settings.alternations):
        # A fresh one each time: memory that an earlier load left behind would be used again.
        with field.fresh() as who:
            samples.append(_growth(who, field.origin) / MB)
        say(f"{CONNECTIONS} idle connections: {samples[-1]:+.1f} MB")
    return [absolute(IDLE, samples)]


def _growth(who: Contestant, origin: int) -> int:
    assert who.pid is not None
    with _open(who, origin, 1):
        pass  # what the first request brings in is not what is measured
    before = rss(who.pid)
    with _open(who, origin, CONNECTIONS) as connections:
        after = rss(who.pid)
        _ask(connections[0], who, origin)  # the oldest is still there
    return after - before


@contextlib.contextmanager
def _open(who: Contestant, origin: int, count: int) -> Iterator[list[socket.socket]]:
    """Connections, each of which had one answer."""
    with contextlib.ExitStack() as stack:
        connections = []
        for _ in range(count):
            connection = socket.create_connection(("127.0.0.1", who.port), 10)
            connections.append(stack.enter_context(connection))
            _ask(connection, who, origin)
        yield connections


def _ask(connection: socket.socket, who: Contestant, origin: int) -> None:
    target = who.target(origin, PATH)
    request = f"GET {target} HTTP/1.1\r\nHost: 127.0.0.1:{origin}\r\n\r\n"
    connection.sendall(request.encode("ascii"))
    answer = b""
    while not answer.endswith(b"x"):
        more = connection.recv(4096)
        if not more:
            raise BenchError(f"a connection was closed: {answer!r}")
        answer += more
    if not answer.startswith(b"HTTP/1.1 200 "):
        raise BenchError(f"not the answer of the origin: {answer!r}")
