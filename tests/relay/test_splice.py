"""Long runs go through the kernel: every byte, in order, and nothing stays open."""

from __future__ import annotations

import asyncio
import hashlib
import os
import random
import socket
import struct
import sys

import pytest

from iam_auth_proxy.relay import splice
from iam_auth_proxy.relay.deadlines import Sweep
from iam_auth_proxy.relay.limits import Limits
from iam_auth_proxy.relay.splice import Splice, Splicer
from tests.relay.conftest import reset

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="splice(2) is Linux's")

MIB = 1024 * 1024
BLOCK = random.Random(1).randbytes(MIB - 8)


def blocks(count: int):
    """MiB after MiB, no two the same."""
    for number in range(count):
        yield struct.pack("!Q", number) + BLOCK


def digest_of(count: int) -> str:
    digest = hashlib.sha256()
    for block in blocks(count):
        digest.update(block)
    return digest.hexdigest()


async def send(writer, count: int) -> None:
    for block in blocks(count):
        writer.write(block)
        await writer.drain()


async def receive(reader, count: int, *, rests: int = 0) -> str:
    """The digest of so many MiB; a reader that rests lets everything fill up before it."""
    digest, left = hashlib.sha256(), count * MIB
    rest_at = [left * part // (rests + 1) for part in range(1, rests + 1)]
    while left:
        data = await asyncio.wait_for(reader.read(min(left, MIB)), 10)
        if not data:
            raise EOFError(f"{left} bytes are missing")
        digest.update(data)
        left -= len(data)
        if rest_at and left <= rest_at[-1]:
            rest_at.pop()
            await asyncio.sleep(0.05)
    return digest.hexdigest()


def connect(app) -> bytes:
    return b"CONNECT app.test:%d HTTP/1.1\r\nHost: app.test\r\n\r\n" % app.port


def get(app) -> bytes:
    return b"GET %b/ HTTP/1.1\r\nHost: app.test\r\n\r\n" % app.url.encode()


def counted(size: int) -> bytes:
    return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


@pytest.fixture
def begun(monkeypatch) -> list[Splice | None]:
    """Every splice, in the order in which they began; None where one could not."""
    made: list[Splice | None] = []
    start = Splicer.start

    def recorded(*args, **kwargs):
        made.append(start(*args, **kwargs))
        return made[-1]

    monkeypatch.setattr(Splicer, "start", recorded)
    return made


async def none_left(rig) -> None:
    await rig.until(lambda: rig.relay._shared.splicer.running == 0)


# -- tunnels ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("rests", [0, 5])
async def test_every_byte_of_a_tunnel_both_ways_at_once(rig, begun, rests):
    count = 64

    async def serve(reader, writer):
        sending = asyncio.create_task(send(writer, count))
        got.append(await receive(reader, count, rests=rests))
        await sending
        writer.write_eof()
        assert await reader.read() == b"the end"

    got: list[str] = []
    await rig.start()
    app = await rig.app(serve)
    peer = await rig.peer()
    peer.send(connect(app))
    await peer.head()
    sending = asyncio.create_task(send(peer.writer, count))
    assert await receive(peer.reader, count, rests=rests) == digest_of(count)
    await sending
    assert await peer.rest() == b""
    peer.send(b"the end")
    peer.writer.write_eof()
    await rig.until(lambda: got == [digest_of(count)])
    await rig.until(lambda: rig.relay.clients == 0)
    assert begun.count(None) == 0
    assert len(begun) >= 2
    await none_left(rig)


class Busy:
    """A TCP socket, and a transport on it that has ``waiting`` bytes to send before all others."""

    def __init__(self, sock: socket.socket, waiting: int) -> None:
        self.sock = sock
        self.waiting = waiting

    def get_extra_info(self, name):
        return self.sock if name == "socket" else None

    def get_write_buffer_size(self):
        return self.waiting

    def pause_reading(self):
        pass


async def test_what_was_written_before_goes_out_before():
    async def pair():
        with socket.create_server(("127.0.0.1", 0)) as server:
            one = socket.create_connection(server.getsockname())
            other, _ = server.accept()
        one.setblocking(False)
        other.setblocking(False)
        return one, other

    class Whose:
        moved = 0

        def spliced(self, count):
            self.moved += count

    loop = asyncio.get_running_loop()
    sender, source = await pair()
    sink, receiver = await pair()
    with sender, source, sink, receiver:
        owner, busy = Whose(), Busy(sink, 6)
        running = Splicer(Sweep(1.0)).start(Busy(source, 0), busy, owner, b"first")
        assert running is not None
        await loop.sock_sendall(sender, b" and the rest")
        await asyncio.sleep(0.05)
        assert owner.moved == 0
        await loop.sock_sendall(sink, b"before")
        busy.waiting = 0
        got = b""
        while len(got) < 24:
            got += await asyncio.wait_for(loop.sock_recv(receiver, 100), 5)
        running.stop()
        assert got == b"beforefirst and the rest"


async def test_a_quiet_tunnel_gives_its_pipe_back_and_goes_on(rig, begun, monkeypatch):
    async def serve(reader, writer):
        for _ in range(2):
            await reader.readexactly(1)
            await send(writer, 4)
        writer.write(b"bye")
        await reader.read()

    monkeypatch.setattr(splice, "_QUIET", 0.05)
    await rig.start(Limits(half_closed=0.2))
    app = await rig.app(serve)
    peer = await rig.peer()
    peer.send(connect(app))
    await peer.head()
    before = descriptors()
    for _ in range(2):
        peer.send(b"x")
        assert await receive(peer.reader, 4) == digest_of(4)
        await none_left(rig)
        assert descriptors() == before
    assert await peer.exactly(3) == b"bye"
    assert len(begun) == 2


@pytest.mark.parametrize("kind", ["tunnel", "body"])
async def test_what_moves_is_not_silent(rig, begun, kind):
    async def serve(reader, writer):
        if kind == "body":
            await reader.readuntil(b"\r\n\r\n")
            writer.write(counted(13 * MIB))
        for block in blocks(12):
            writer.write(block)
            await asyncio.sleep(0.06)
        await reader.read()

    await rig.start(Limits(idle_tunnel=0.3, idle_body=0.3))
    app = await rig.app(serve)
    peer = await rig.peer()
    peer.send(connect(app) if kind == "tunnel" else get(app))
    await peer.head()
    assert await receive(peer.reader, 12) == digest_of(12)
    assert begun
    loop = asyncio.get_running_loop()
    start = loop.time()
    try:
        assert await peer.rest() == b""
    except ConnectionResetError:
        pass  # either is an end
    assert loop.time() - start < 2


@pytest.mark.parametrize("who", ["client", "origin", "relay"])
@pytest.mark.parametrize("stalled", [False, True])
async def test_whoever_leaves_a_tunnel_in_the_middle(rig, begun, who, stalled, caplog):
    async def serve(reader, writer):
        writers.append(writer)
        try:
            while not writer.transport.is_closing():
                await send(writer, 1)
        finally:
            ended.set()

    writers: list[asyncio.StreamWriter] = []
    ended = asyncio.Event()
    await rig.start()
    before = descriptors()
    app = await rig.app(serve)
    peer = await rig.peer()
    peer.send(connect(app))
    await peer.head()
    await receive(peer.reader, 4)
    await rig.until(lambda: rig.relay._shared.splicer.running == 1)
    if stalled:
        peer.writer.transport.pause_reading()
        await asyncio.sleep(0.1)
    if who == "client":
        peer.reset()
    elif who == "origin":
        reset(writers[0])
        peer.writer.transport.resume_reading()
        with pytest.raises((ConnectionResetError, EOFError)):
            await receive(peer.reader, 1000)
        await peer.close()
    else:
        await rig.relay.close()
        peer.writer.transport.resume_reading()
        with pytest.raises((ConnectionResetError, EOFError)):
            await receive(peer.reader, 1000)
        await peer.close()
    await asyncio.wait_for(ended.wait(), 5)
    await none_left(rig)
    await rig.until(lambda: rig.relay.clients == 0)
    assert len(rig.relay._sweep) == 0
    await app.stop()
    await rig.until(lambda: descriptors() <= before)
    assert not caplog.records


@pytest.mark.parametrize("leaves", ["by a reset", "at its end"])
@pytest.mark.parametrize("end", ["silence", "the relay's"])
async def test_a_client_that_is_gone_counts_until_the_tunnel_ends(rig, begun, leaves, end):
    """The origin takes nothing, so nobody looks at the client, whose descriptors are in use."""

    async def deaf(reader, writer):
        writer.transport.pause_reading()
        await asyncio.Event().wait()

    await rig.start(Limits(idle_tunnel=0.5 if end == "silence" else 60))
    app = await rig.app(deaf)
    peer = await rig.peer()
    before = descriptors()
    peer.send(connect(app))
    await peer.head()
    peer.send(b"x" * (20 * MIB))
    await rig.until(lambda: rig.relay._shared.splicer.running == 1)
    await asyncio.sleep(0.1)
    if leaves == "by a reset":
        peer.reset()
    else:
        peer.writer.transport.abort()
    await asyncio.sleep(0.1)
    assert rig.relay.clients == 1
    if end == "silence":
        await rig.until(lambda: rig.relay.clients == 0)
    else:
        await rig.relay.close()
    assert rig.relay.clients == 0
    await none_left(rig)
    await rig.until(lambda: descriptors() <= before)


# -- counted bodies --------------------------------------------------------------------------------


@pytest.mark.parametrize("rests", [0, 5])
async def test_a_counted_body_and_the_next_request(rig, begun, rests):
    count = 64

    async def serve(reader, writer):
        for _ in range(2):
            await reader.readuntil(b"\r\n\r\n")
            writer.write(counted(count * MIB))
            await send(writer, count)
        await reader.readuntil(b"\r\n\r\n")
        writer.write(counted(4) + b"last")

    await rig.start()
    app = await rig.app(serve)
    peer = await rig.peer()
    for _ in range(2):
        peer.send(get(app))
        await peer.head()
        assert await receive(peer.reader, count, rests=rests) == digest_of(count)
    peer.send(get(app))
    assert (await peer.answer())[1] == b"last"
    assert app.connections == 1
    assert len(begun) == 2
    assert None not in begun
    await none_left(rig)


async def test_bytes_behind_the_body_are_nobodys(rig, begun):
    """The splice takes no byte more than the body has."""

    async def serve(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(counted(4 * MIB))
        for block in blocks(4):
            writer.write(block)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil")
        await reader.read()

    await rig.start()
    app = await rig.app(serve)
    peer = await rig.peer()
    peer.send(get(app))
    await peer.head()
    assert await receive(peer.reader, 4) == digest_of(4)
    assert begun
    fine = await rig.answering(counted(4) + b"fine")
    peer.send(get(fine))
    assert (await peer.answer())[1] == b"fine"
    await rig.until(lambda: rig.relay.origins == 1)


@pytest.mark.parametrize("by_reset", [False, True])
async def test_a_body_that_is_cut_is_seen_to_be(rig, begun, by_reset, caplog):
    async def serve(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(counted(64 * MIB))
        await send(writer, 8)
        await gate.wait()
        if by_reset:
            reset(writer)

    gate = asyncio.Event()
    await rig.start()
    app = await rig.app(serve)
    peer = await rig.peer()
    peer.send(get(app))
    await peer.head()
    assert await receive(peer.reader, 8) == digest_of(8)
    assert rig.relay._shared.splicer.running == 1
    gate.set()
    with pytest.raises(ConnectionResetError):
        await peer.rest()
    assert rig.relay.counters.aborted == 1
    assert not caplog.records
    await none_left(rig)


async def test_a_client_that_takes_nothing_is_given_up(rig, begun):
    async def serve(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(counted(1000 * MIB))
        for block in blocks(1000):
            writer.write(block)
            await writer.drain()
            sent.append(1)

    sent: list[int] = []
    await rig.start(Limits(idle_body=0.4))
    app = await rig.app(serve)
    peer = await rig.peer()
    peer.send(get(app))
    await peer.head()
    await rig.until(lambda: rig.relay._shared.splicer.running == 1)
    peer.writer.transport.pause_reading()
    await rig.until(lambda: rig.relay.clients == 0)
    assert len(sent) < 64, "the origin is held back"
    assert rig.relay.counters.aborted == 1
    assert rig.relay.counters.abandoned == 0
    await none_left(rig)


async def test_a_client_that_leaves_a_body(rig, begun, caplog):
    async def serve(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(counted(1000 * MIB))
        try:
            await send(writer, 1000)
        finally:
            ended.set()

    ended = asyncio.Event()
    await rig.start()
    app = await rig.app(serve)
    peer = await rig.peer()
    peer.send(get(app))
    await peer.head()
    await receive(peer.reader, 4)
    peer.reset()
    await asyncio.wait_for(ended.wait(), 5)
    await rig.until(lambda: rig.relay.clients == rig.relay.origins == 0)
    await none_left(rig)
    assert rig.relay.counters.abandoned == 1
    assert rig.relay.counters.aborted == 0
    assert not caplog.records


async def test_a_pause_in_a_body(rig, begun, monkeypatch):
    """The pipe is given back, and another taken when the body goes on."""

    async def serve(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(counted(16 * MIB))
        for number, block in enumerate(blocks(16)):
            if number == 8:
                await gate.wait()
            writer.write(block)
        await reader.read()

    gate = asyncio.Event()
    monkeypatch.setattr(splice, "_QUIET", 0.05)
    await rig.start(Limits(half_closed=0.2))
    app = await rig.app(serve)
    peer = await rig.peer()
    peer.send(get(app))
    await peer.head()
    first = await peer.exactly(8 * MIB)
    await none_left(rig)
    gate.set()
    whole = first + await peer.exactly(8 * MIB)
    assert hashlib.sha256(whole).hexdigest() == digest_of(16)
    assert len(begun) == 2


# -- where it cannot be ----------------------------------------------------------------------------


@pytest.mark.parametrize("why", ["no descriptors", "small pipes", "enough of them", "forbidden"])
async def test_without_it_all_the_same(rig, begun, monkeypatch, why):
    async def serve(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(counted(8 * MIB))
        await send(writer, 8)

    def forbidden(*_, **__):
        raise PermissionError(1, "Operation not permitted")

    def no_more(*_):
        raise OSError(24, "Too many open files")

    if why == "no descriptors":
        monkeypatch.setattr(os, "pipe2", no_more)
    elif why == "forbidden":
        monkeypatch.setattr(os, "splice", forbidden)
    elif why == "small pipes":
        monkeypatch.setattr(splice, "_PIPE", 4096)
    else:
        monkeypatch.setattr(splice, "_AT_ONCE", 0)
    await rig.start()
    app = await rig.app(serve)
    peer = await rig.peer()
    before = descriptors()
    peer.send(get(app))
    await peer.head()
    assert await receive(peer.reader, 8) == digest_of(8)
    assert begun
    assert set(begun) == {None}
    assert descriptors() <= before + 2
