"""Every wait has an end, and what is merely slow has not."""

from __future__ import annotations

import asyncio

import pytest

from iam_auth_proxy.relay.deadlines import NEVER, Sweep
from iam_auth_proxy.relay.limits import Limits

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"
SOON = 0.15

# What is merely slow: pieces that come at a third of the deadline, for longer than it in all. A
# busy machine may be late with one of them.
PATIENCE = 0.75
PIECES = 5


def get(app, lines: bytes = b"") -> bytes:
    return b"GET %b/ HTTP/1.1\r\nHost: app.test\r\n%b\r\n" % (app.url.encode(), lines)


async def hang(reader, writer):
    await reader.read()


async def test_a_head_that_drips_in(rig):
    await rig.start(Limits(client_head=SOON))
    peer = await rig.peer()

    async def drip():
        while True:
            peer.send(b"G")
            await asyncio.sleep(0.02)

    dripping = asyncio.create_task(drip())
    answer = await peer.rest()
    dripping.cancel()
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert rig.relay.counters.refused == {408: 1}


async def test_an_idle_connection_is_closed_without_a_word(rig):
    await rig.start(Limits(idle_connection=SOON))
    app = await rig.answering(OK)
    peer = await rig.peer()
    peer.send(get(app))
    await peer.answer()
    assert await peer.rest() == b""
    await rig.until(lambda: rig.relay.origins == 0)  # the origin's too


async def test_an_app_that_does_not_answer(rig):
    await rig.start(Limits(answer_head=SOON))
    app = await rig.app(hang)
    peer = await rig.peer()
    peer.send(get(app))
    head, body = await peer.answer()
    assert (head[:12], body) == (b"HTTP/1.1 504", b"http_response_timeout")


async def test_an_answer_may_take_longer_than_a_connection_may(rig):
    """The request waited for a connection first, as every first one does."""

    async def serve(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        await asyncio.sleep(1.5 * PATIENCE)
        writer.write(OK)

    await rig.start(Limits(pool_wait=PATIENCE))
    app = await rig.app(serve)
    peer = await rig.peer()
    peer.send(get(app))
    assert (await peer.answer())[1] == b"hello"


async def test_an_app_that_drips_its_head(rig):
    async def serve(reader, writer):
        while True:
            writer.write(b"H" if not app.dripped else b"x")
            app.dripped = True
            await asyncio.sleep(0.02)

    await rig.start(Limits(answer_head=SOON))
    app = await rig.app(serve)
    app.dripped = False
    peer = await rig.peer()
    peer.send(get(app))
    head, _ = await peer.answer()
    assert head[:12] in (b"HTTP/1.1 504", b"HTTP/1.1 502")


async def test_an_app_that_stops_in_its_body(rig):
    async def serve(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\nhello")
        await reader.read()

    await rig.start(Limits(idle_body=SOON))
    app = await rig.app(serve)
    peer = await rig.peer()
    peer.send(get(app))
    await peer.head()
    with pytest.raises(ConnectionResetError):
        await peer.rest()


@pytest.mark.parametrize("framing", ["counted", "chunked", "close"])
async def test_a_body_may_take_its_time(rig, framing):
    async def serve(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\n")
        lines = {"counted": b"Content-Length: 5\r\n", "chunked": b"Transfer-Encoding: chunked\r\n"}
        writer.write(lines.get(framing, b"") + b"\r\n")
        for _ in range(PIECES):
            await asyncio.sleep(PATIENCE / 3)
            writer.write(b"1\r\nx\r\n" if framing == "chunked" else b"x")
        writer.write(b"0\r\n\r\n" if framing == "chunked" else b"")

    await rig.start(Limits(idle_body=PATIENCE, answer_head=10.0))
    app = await rig.app(serve)
    peer = await rig.peer()
    peer.send(get(app, b"Connection: close\r\n"))
    assert (await peer.rest()).count(b"x") >= PIECES


async def test_a_client_that_stops_in_its_body(rig):
    await rig.start(Limits(idle_body=SOON))
    app = await rig.app(hang)
    peer = await rig.peer()
    peer.send(get(app, b"Content-Length: 50\r\n") + b"x")
    answer = await peer.rest()
    assert answer.startswith(b"HTTP/1.1 408 ")
    await rig.until(lambda: rig.relay.origins == 0)


async def test_a_client_that_takes_its_time_over_its_body(rig):
    async def serve(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        await reader.readexactly(PIECES)
        writer.write(OK)

    await rig.start(Limits(idle_body=PATIENCE))
    app = await rig.app(serve)
    peer = await rig.peer()
    peer.send(get(app, b"Content-Length: %d\r\n" % PIECES))
    for _ in range(PIECES):
        await asyncio.sleep(PATIENCE / 3)
        peer.send(b"x")
    assert (await peer.answer())[1] == b"hello"


async def test_an_app_that_takes_nothing(rig):
    async def serve(reader, writer):
        writer.transport.pause_reading()
        await asyncio.sleep(60)

    await rig.start(Limits(idle_body=SOON))
    app = await rig.app(serve)
    peer = await rig.peer()
    peer.send(get(app, b"Content-Length: 50000000\r\n") + b"x" * 50_000_000)
    head, body = await peer.answer()
    assert (head[:12], body) == (b"HTTP/1.1 504", b"connection_write_timeout")


async def test_a_client_that_never_reads(rig):
    async def serve(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 50000000\r\n\r\n")
        writer.write(b"x" * 50_000_000)
        await writer.drain()

    await rig.start(Limits(idle_body=SOON, idle_connection=SOON))
    app = await rig.app(serve)
    peer = await rig.peer()
    peer.writer.transport.pause_reading()
    peer.send(get(app))
    await rig.until(lambda: rig.relay.counters.passed_on == 1)
    await rig.until(lambda: rig.relay.clients == 0 and rig.relay.origins == 0)


async def test_a_client_that_never_reads_a_short_answer(rig):
    body = b"x" * 200_000
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body
    await rig.start(Limits(idle_connection=SOON, idle_body=SOON))
    app = await rig.answering(answer)
    peer = await rig.peer()
    peer.writer.transport.pause_reading()
    peer.send(get(app) * 200)
    await rig.until(lambda: rig.relay.counters.passed_on > 0)
    await rig.until(lambda: rig.relay.clients == 0)
    assert rig.relay.counters.passed_on < 200


async def test_no_free_connection(rig):
    await rig.start(Limits(connections=1, pool_wait=SOON))
    app = await rig.app(hang)
    first, second = await rig.peer(), await rig.peer()
    first.send(get(app))
    await rig.until(lambda: app.connections == 1)
    second.send(get(app))
    head, body = await second.answer()
    assert (head[:12], body) == (b"HTTP/1.1 503", b"connection_limit_reached")


async def test_a_client_that_sent_fin_is_waited_for_a_while(rig):
    await rig.start(Limits(half_closed=SOON))
    app = await rig.app(hang)
    peer = await rig.peer()
    peer.send(get(app))
    await rig.until(lambda: app.connections == 1)
    peer.writer.write_eof()
    await rig.until(lambda: rig.relay.clients == 0 and rig.relay.origins == 0)


async def test_what_was_sent_ahead_of_a_fin_is_waited_for_no_longer(rig):
    """The FIN was seen while another exchange was under way."""

    async def serve(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(OK)
        await reader.read()

    await rig.start(Limits(half_closed=SOON))
    app = await rig.app(serve)
    peer = await rig.peer()
    peer.send(get(app) * 2)
    peer.writer.write_eof()
    assert (await peer.answer())[1] == b"hello"
    await rig.until(lambda: rig.relay.clients == 0 and rig.relay.origins == 0)


async def test_a_half_closed_client_gets_an_answer_that_moves(rig):
    async def serve(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n")
        for _ in range(PIECES):
            await asyncio.sleep(PATIENCE / 3)
            writer.write(b"x")

    await rig.start(Limits(half_closed=PATIENCE))
    app = await rig.app(serve)
    peer = await rig.peer()
    peer.send(get(app))
    peer.writer.write_eof()
    assert (await peer.rest()).endswith(b"\r\n\r\nxxxxx")


async def test_the_sweep_sleeps_when_nobody_is_there():
    class Watched:
        due = NEVER

        def overdue(self):
            calls.append(self)
            self.due = NEVER

    calls: list[Watched] = []
    sweep, watched = Sweep(0.01), Watched()
    sweep.watch(watched)
    watched.due = sweep.now + 0.02
    await asyncio.sleep(0.1)
    assert calls == [watched]
    sweep.forget(watched)
    await asyncio.sleep(0.1)
    assert sweep._handle is None
    sweep.watch(watched)
    assert sweep._handle is not None
    sweep.stop()
