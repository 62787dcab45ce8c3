"""Connections are shared out within their bounds."""

from __future__ import annotations

import asyncio

import pytest

from iam_auth_proxy.errors import PathError
from iam_auth_proxy.names import parse_origin
from iam_auth_proxy.relay.exchange import RequestHead
from iam_auth_proxy.relay.limits import Limits

SOON = 0.15

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"


def get(app) -> bytes:
    return b"GET %b/ HTTP/1.1\r\nHost: app.test\r\n\r\n" % app.url.encode()


def gated(gate: asyncio.Event):
    async def serve(reader, writer):
        while True:
            await reader.readuntil(b"\r\n\r\n")
            await gate.wait()
            writer.write(OK)

    return serve


async def test_beyond_the_bound_they_wait_their_turn(rig):
    gate = asyncio.Event()
    await rig.start(Limits(connections=8))
    app = await rig.app(gated(gate))
    peers = [await rig.peer() for _ in range(30)]
    for peer in peers:
        peer.send(get(app))
    await rig.until(lambda: rig.relay._pool.waiting == 22 and app.connections == 8)
    gate.set()
    for peer in peers:
        assert (await peer.answer())[1] == b"hello"
    assert app.connections == 8
    assert rig.relay._pool.waiting == 0


async def test_an_idle_connection_makes_room_for_another_origin(rig):
    await rig.start(Limits(connections=2))
    apps = [await rig.answering(OK) for _ in range(4)]
    peer = await rig.peer()
    for app in apps:
        peer.send(get(app))
        assert (await peer.answer())[1] == b"hello"
        assert rig.relay.origins <= 2
    peer.send(get(apps[3]))
    await peer.answer()
    assert apps[3].connections == 1  # the latest was kept
    peer.send(get(apps[0]))
    await peer.answer()
    assert apps[0].connections == 2  # the oldest was not


async def test_a_full_pool_makes_others_wait(rig):
    gate = asyncio.Event()
    await rig.start(Limits(connections=1))
    busy, other = await rig.app(gated(gate)), await rig.answering(OK)
    first, second = await rig.peer(), await rig.peer()
    first.send(get(busy))
    await rig.until(lambda: busy.connections == 1)
    second.send(get(other))
    await rig.until(lambda: rig.relay._pool.waiting == 1)
    assert other.connections == 0
    gate.set()
    await first.answer()
    first.reset()
    assert (await second.answer())[1] == b"hello"


async def test_each_that_waits_hears_of_a_failed_dial(rig):
    await rig.start(Limits(connections=2))
    app = await rig.answering(OK)
    rig.dialer.error = PathError("no", error="connection_refused")
    peers = [await rig.peer() for _ in range(7)]
    for peer in peers:
        peer.send(get(app))
    for peer in peers:
        assert (await peer.answer())[1] == b"connection_refused"
    assert rig.relay.origins == 0
    rig.dialer.error = None
    peers[0].send(get(app))
    assert (await peers[0].answer())[1] == b"hello"


async def test_a_server_that_closes_at_once(rig):
    async def serve(reader, writer):
        return

    await rig.start()
    app = await rig.app(serve)
    peer = await rig.peer()
    peer.send(get(app))
    head, body = await peer.answer()
    assert (head[:12], body) == (b"HTTP/1.1 502", b"connection_terminated")


async def test_closing_ends_dials(rig):
    await rig.start()
    rig.dialer.gate = asyncio.Event()
    app = await rig.answering(OK)
    peer = await rig.peer()
    peer.send(get(app))
    await rig.until(lambda: rig.dialer.dials == 1)
    await rig.relay.close()
    assert rig.relay.origins == 0


async def test_a_connection_is_read_again_whoever_did_not_read_before(rig):
    size = 20_000_000
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size

    async def serve(reader, writer):
        while True:
            await reader.readuntil(b"\r\n\r\n")
            # The last bytes come alone, so that they are read while the client takes nothing.
            writer.write(answer + b"x" * (size - 10))
            await writer.drain()
            await asyncio.sleep(0.01)
            writer.write(b"x" * 10)

    await rig.start()
    app = await rig.app(serve)
    slow, other = await rig.peer(), await rig.peer()
    for _ in range(3):
        slow.send(get(app))
        await slow.head()
        await asyncio.sleep(0.02)
        await slow.exactly(size)
        other.send(get(app))
        await other.head()
        await other.exactly(size)
    assert app.connections <= 2


async def test_long_answers_hold_up_nobody(rig):
    """Event streams, long polls and downloads that stall: the next request does not queue."""
    gate = asyncio.Event()
    await rig.start()
    app = await rig.app(gated(gate))
    waiting = [await rig.peer() for _ in range(20)]
    for peer in waiting:
        peer.send(get(app))
    await rig.until(lambda: app.connections == len(waiting))
    assert rig.relay._pool.waiting == 0
    gate.set()
    for peer in waiting:
        assert (await peer.answer())[1] == b"hello"


async def test_what_a_crowd_needed_is_not_kept(rig):
    gate = asyncio.Event()
    await rig.start(Limits(kept_per_origin=2, spare=SOON))
    app = await rig.app(gated(gate))
    peers = [await rig.peer() for _ in range(6)]
    for peer in peers:
        peer.send(get(app))
    await rig.until(lambda: app.connections == 6)
    gate.set()
    for peer in peers:
        assert (await peer.answer())[1] == b"hello"
    await rig.until(lambda: rig.relay.origins == 2)


async def test_a_dial_that_fails_unforeseen_is_heard_of(rig, caplog):
    await rig.start()
    app = await rig.answering(OK)
    rig.dialer.error = RuntimeError("a bug")
    peer = await rig.peer()
    peer.send(get(app))
    head, body = await peer.answer()
    assert (head[:12], body) == (b"HTTP/1.1 502", b"proxy_internal_error")
    assert "a bug" in caplog.text
    assert rig.relay.origins == 0


async def test_origins_that_nobody_reached_take_no_room(rig):
    gate = asyncio.Event()
    await rig.start(Limits(connections=1))
    busy = await rig.app(gated(gate))
    first = await rig.peer()
    first.send(get(busy))
    await rig.until(lambda: busy.connections == 1)
    for number in range(20):
        peer = await rig.peer()
        peer.send(b"GET http://host%d.test/ HTTP/1.1\r\nHost: x\r\n\r\n" % number)
        await rig.until(lambda: rig.relay._pool.waiting == 1)
        peer.reset()
        await rig.until(lambda: rig.relay._pool.waiting == 0)
    assert len(rig.relay._pool._buckets) == len(rig.relay._pool._by_id) == 1
    gate.set()
    assert (await first.answer())[1] == b"hello"


async def test_whoever_waits_hears_of_the_end(rig):
    await rig.start()
    rig.dialer.gate = asyncio.Event()
    app = await rig.answering(OK)
    request = RequestHead(b"GET", b"/", [])
    fetch = asyncio.ensure_future(
        rig.relay.fetch(parse_origin(app.url), request, limit=100, deadline=60.0)
    )
    await rig.until(lambda: rig.dialer.dials == 1)
    await rig.relay.close()
    with pytest.raises(PathError, match="the proxy ends"):
        await fetch
