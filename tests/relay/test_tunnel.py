"""CONNECT: nothing is lost, nothing piles up, and a half-close goes through."""

from __future__ import annotations

import asyncio

import pytest

from iam_auth_proxy.errors import PathError
from iam_auth_proxy.relay.limits import Limits

MIB = 1024 * 1024


def connect(app) -> bytes:
    return b"CONNECT app.test:%d HTTP/1.1\r\nHost: app.test\r\n\r\n" % app.port


async def test_a_server_that_speaks_first(rig):
    async def serve(reader, writer):
        writer.write(b"SSH-2.0-x\r\n")
        assert await reader.read() == b"hello"

    await rig.start()
    app = await rig.app(serve)
    peer = await rig.peer()
    peer.send(connect(app))
    assert await peer.head() == b"HTTP/1.1 200 Connection established\r\n\r\n"
    assert await peer.exactly(11) == b"SSH-2.0-x\r\n"
    peer.send(b"hello")
    peer.writer.write_eof()
    assert await peer.rest() == b""
    assert rig.relay.counters.tunnels == 1


async def test_half_closes_go_through_both_ways(rig):
    async def serve(reader, writer):
        writer.write(b"server's")
        writer.write_eof()
        received.append(await reader.read())

    received: list[bytes] = []
    await rig.start()
    app = await rig.app(serve)
    peer = await rig.peer()
    peer.send(connect(app))
    await peer.head()
    assert await peer.rest() == b"server's"
    peer.send(b"client's")
    await asyncio.sleep(0.01)
    peer.send(b", later")
    await peer.close()
    await rig.until(lambda: received == [b"client's, later"])


async def test_everything_sent_before_the_answer_arrives(rig):
    received: list[bytes] = []

    async def serve(reader, writer):
        received.append(await reader.read())

    await rig.start()
    rig.dialer.gate = asyncio.Event()
    app = await rig.app(serve)
    peer = await rig.peer()
    early = bytes(range(256)) * 4096  # more than is read ahead
    peer.send(connect(app) + early)
    peer.writer.write_eof()
    await rig.until(lambda: rig.dialer.dials == 1)
    await asyncio.sleep(0.02)
    rig.dialer.gate.set()
    await peer.head()
    await peer.rest()
    await rig.until(lambda: received == [early])


@pytest.mark.parametrize("direction", ["up", "down"])
async def test_backpressure(rig, direction):
    async def flood(writer):
        for _ in range(64):
            writer.write(b"x" * MIB)
            await writer.drain()
            sent.append(1)

    async def serve(reader, writer):
        if direction == "down":
            await flood(writer)
        else:
            writer.transport.pause_reading()
            await gate.wait()
            writer.transport.resume_reading()
            await reader.readexactly(64 * MIB)
            writer.write(b"done")

    sent: list[int] = []
    gate = asyncio.Event()
    await rig.start()
    app = await rig.app(serve)
    peer = await rig.peer()
    peer.send(connect(app))
    await peer.head()
    if direction == "down":
        peer.writer.transport.pause_reading()
    flooding = asyncio.create_task(flood(peer.writer)) if direction == "up" else None
    await asyncio.sleep(0.3)
    assert len(sent) < 48
    (client,) = rig.relay._shared.clients
    ends = client._tunnel._client, client._tunnel._origin
    assert all(end.transport.get_write_buffer_size() <= MIB for end in ends)
    gate.set()
    if flooding is None:
        peer.writer.transport.resume_reading()
        await peer.exactly(64 * MIB)
    else:
        await flooding
        assert await peer.exactly(4) == b"done"


async def test_a_failed_connect_is_answered(rig):
    await rig.start()
    rig.dialer.error = PathError("no", error="destination_ip_prohibited", status=403)
    peer = await rig.peer()
    peer.send(b"CONNECT app.test:443 HTTP/1.1\r\nHost: app.test:443\r\n\r\n\x16\x03\x01")
    answer = await peer.rest()
    assert answer.startswith(b"HTTP/1.1 403 ")
    assert b"\r\nProxy-Status: iam-auth-proxy; error=destination_ip_prohibited\r\n" in answer
    assert b"\r\nConnection: close\r\n" in answer
    assert rig.relay.counters.failed == {"destination_ip_prohibited": 1}


async def test_a_client_that_leaves_ends_the_dial(rig):
    await rig.start()
    rig.dialer.gate = asyncio.Event()
    app = await rig.answering(b"")
    peer = await rig.peer()
    peer.send(connect(app) + b"x" * 300_000)
    await rig.until(lambda: rig.dialer.dials == 1)
    (client,) = rig.relay._shared.clients
    client.abort()
    await rig.until(lambda: not rig.relay._shared.tasks)
    assert app.connections == 0


@pytest.mark.parametrize("side", ["client", "origin"])
async def test_a_reset_goes_through(rig, side):
    async def serve(reader, writer):
        if side == "origin":
            await reader.read(1)
            writer.transport.abort()
        else:
            with pytest.raises((ConnectionResetError, asyncio.IncompleteReadError)):
                await reader.readexactly(10)
            ended.set()

    ended = asyncio.Event()
    await rig.start()
    app = await rig.app(serve)
    peer = await rig.peer()
    peer.send(connect(app))
    await peer.head()
    if side == "origin":
        peer.send(b"xx")
        try:
            assert await peer.rest() == b""
        except ConnectionResetError:
            pass  # either is an end
    else:
        peer.writer.transport.abort()
        await asyncio.wait_for(ended.wait(), 5)


async def test_silence_ends_a_tunnel(rig):
    async def serve(reader, writer):
        await reader.read()

    await rig.start(Limits(idle_tunnel=0.2))
    app = await rig.app(serve)
    peer = await rig.peer()
    peer.send(connect(app))
    await peer.head()
    loop = asyncio.get_running_loop()
    for _ in range(6):
        peer.send(b"x")
        await asyncio.sleep(0.06)
    assert rig.relay.clients == 1
    start = loop.time()
    try:
        assert await peer.rest() == b""
    except ConnectionResetError:
        pass
    assert loop.time() - start < 2


async def test_a_drain_closes_a_quiet_tunnel(rig):
    async def serve(reader, writer):
        await reader.read()

    await rig.start()
    app = await rig.app(serve)
    peer = await rig.peer()
    peer.send(connect(app))
    await peer.head()
    (client,) = rig.relay._shared.clients
    await client.shutdown(0.05)
    await rig.until(lambda: rig.relay.clients == 0)


async def test_an_origin_that_takes_nothing_does_not_outlive_its_client(rig):
    async def serve(reader, writer):
        writer.transport.pause_reading()
        await asyncio.sleep(60)

    await rig.start(Limits(idle_tunnel=0.3))
    app = await rig.app(serve)
    peer = await rig.peer()
    peer.send(connect(app))
    await peer.head()
    (client,) = rig.relay._shared.clients
    origin = client._tunnel._origin
    peer.send(b"x" * 20_000_000)
    await rig.until(lambda: client._tunnel._client.splice is not None)
    peer.reset()
    await rig.until(lambda: origin.lost is not None)
    assert len(rig.relay._sweep) == 0
