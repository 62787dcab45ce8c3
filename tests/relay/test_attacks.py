"""Peers that stall, lie, ask without end, and leave where it hurts most."""

from __future__ import annotations

import asyncio
import gc
import inspect
import sys

import pytest

from iam_auth_proxy.errors import PathError
from iam_auth_proxy.relay import tunnel
from iam_auth_proxy.relay.exchange import Reply
from iam_auth_proxy.relay.limits import Limits

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"
MIB = 1024 * 1024
SOON = 0.15


def get(app, method: bytes = b"GET", lines: bytes = b"") -> bytes:
    return b"%b %b/ HTTP/1.1\r\nHost: app.test\r\n%b\r\n" % (method, app.url.encode(), lines)


def connect(app) -> bytes:
    return b"CONNECT app.test:%d HTTP/1.1\r\nHost: app.test\r\n\r\n" % app.port


async def later(value):
    await asyncio.sleep(0)
    return value


async def read_head(reader) -> bytes:
    return await reader.readuntil(b"\r\n\r\n")


# -- answers that are replaced ---------------------------------------------------------------------


@pytest.mark.parametrize(
    "framing", [b"Content-Length: 10\r\n", b"Transfer-Encoding: chunked\r\n"], ids=["CL", "TE"]
)
async def test_an_unwanted_answer_that_never_ends_holds_no_connection(rig, framing):
    async def serve(reader, writer):
        await read_head(reader)
        writer.write(b"HTTP/1.1 401 No\r\n" + framing + b"\r\n")
        await reader.read()

    await rig.start(Limits(idle_body=SOON))
    app = await rig.app(serve)
    rig.steering.on_after = lambda *_: later(Reply(403, [], b"no"))
    peer = await rig.peer()
    peer.send(get(app))
    assert (await peer.answer())[1] == b"no"
    await rig.until(lambda: rig.relay.origins == 0)


async def test_a_request_that_stops_while_its_answer_is_decided_on_is_answered_once(rig):
    async def serve(reader, writer):
        await read_head(reader)
        writer.write(OK)
        await reader.read()

    decided = asyncio.Event()

    async def decide():
        await decided.wait()

    await rig.start(Limits(idle_body=SOON, linger=5.0))
    app = await rig.app(serve)
    rig.steering.on_after = lambda *_: decide()
    peer = await rig.peer()
    peer.send(get(app, b"POST", b"Content-Length: 10\r\n") + b"x")
    head, _ = await peer.answer()
    assert head.startswith(b"HTTP/1.1 408 ")
    decided.set()
    assert await peer.rest() == b""
    await rig.until(lambda: not rig.relay._shared.tasks)
    assert rig.relay.counters.passed_on == 0


@pytest.mark.parametrize("reply", [None, Reply(403, [], b"no")], ids=["passed on", "replaced"])
async def test_a_body_for_an_app_that_has_gone_is_not_kept(rig, reply):
    async def serve(reader, writer):
        await read_head(reader)
        writer.write(OK)
        await writer.drain()
        await app.gone.wait()
        writer.transport.abort()

    decided = asyncio.Event()

    async def decide():
        await decided.wait()
        return reply

    await rig.start()
    app = await rig.app(serve)
    app.gone = asyncio.Event()
    rig.steering.on_after = lambda *_: decide()
    peer = await rig.peer()
    peer.send(get(app, b"POST", b"Content-Length: %d\r\n" % (64 * MIB)) + b"x")
    await rig.until(lambda: bool(rig.steering.answers))
    app.gone.set()
    (client,) = rig.relay._shared.clients
    exchange = client._exchange
    for _ in range(16):
        peer.send(b"x" * MIB)
        await asyncio.sleep(0.005)
    assert len(exchange._upload._pending) <= MIB
    decided.set()
    _, body = await peer.answer()
    assert body == (b"hello" if reply is None else b"no")
    for _ in range(16):
        peer.send(b"x" * MIB)
        await asyncio.sleep(0.005)
    assert len(exchange._upload._pending) <= MIB
    try:
        assert await peer.rest() == b""
    except ConnectionResetError:
        pass  # the client was still sending


async def test_a_connection_that_is_lost_while_its_101_is_decided_on(rig):
    async def serve(reader, writer):
        await read_head(reader)
        writer.write(
            b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
        )
        await reader.read()

    async def decide():
        await asyncio.Event().wait()

    await rig.start()
    app = await rig.app(serve)
    rig.steering.on_after = lambda *_: decide()
    peer = await rig.peer()
    peer.send(get(app, lines=b"Connection: Upgrade\r\nUpgrade: websocket\r\n"))
    await rig.until(lambda: bool(rig.steering.answers))
    (client,) = rig.relay._shared.clients
    client._exchange.path.transport.abort()  # as after a write that failed
    head, body = await peer.answer()
    assert (head[:12], body) == (b"HTTP/1.1 502", b"http_response_incomplete")


@pytest.mark.parametrize("when", ["before", "after"])
async def test_a_decision_that_was_called_off_is_answered(rig, when, caplog):
    async def called_off():
        task = asyncio.create_task(asyncio.sleep(60))
        asyncio.get_running_loop().call_soon(task.cancel)
        await task

    await rig.start()
    app = await rig.answering(OK)
    setattr(rig.steering, f"on_{when}", lambda *_: called_off())
    peer = await rig.peer()
    peer.send(get(app))
    head, body = await peer.answer()
    assert (head[:12], body) == (b"HTTP/1.1 502", b"proxy_internal_error")
    setattr(rig.steering, f"on_{when}", lambda *_: None)
    peer.send(get(app))
    assert (await peer.answer())[1] == b"hello"


async def test_a_page_that_cannot_be_made_is_still_an_answer(rig, caplog):
    def broken(exchange, error):
        raise KeyError("template")

    await rig.start()
    rig.steering.failed = broken
    rig.dialer.error = PathError("no", error="connection_refused")
    app = await rig.answering(OK)
    for request in (get(app), connect(app)):
        peer = await rig.peer()
        peer.send(request)
        head, _ = await peer.answer()
        assert head.startswith(b"HTTP/1.1 502 ")
        assert b"\r\nProxy-Status: iam-auth-proxy; error=proxy_internal_error\r\n" in head
    assert "KeyError" in caplog.text


# -- requests and answers that get out of step -----------------------------------------------------


async def test_an_app_that_answered_before_it_had_the_request_gets_no_other(rig):
    async def serve(reader, writer):
        # Takes a body that it did not wait for as its next request, and is slow to answer that.
        while True:
            head = await read_head(reader)
            if b"/smuggled" in head:
                await asked.wait()
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison")
            else:
                asked.set()
                writer.write(OK)

    asked = asyncio.Event()
    await rig.start()
    app = await rig.app(serve)
    smuggled = b"GET /smuggled HTTP/1.1\r\nHost: app.test\r\n\r\n"
    attacker, victim = await rig.peer(), await rig.peer()
    lines = b"Expect: 100-continue\r\nContent-Length: %d\r\n" % len(smuggled)
    attacker.send(get(app, b"POST", lines))
    assert (await attacker.answer())[1] == b"hello"
    asked.clear()
    attacker.send(smuggled)
    await rig.until(lambda: rig.relay._pool.busy == 0)
    victim.send(get(app))
    await rig.until(lambda: rig.relay.counters.requests == 2)
    asyncio.get_running_loop().call_later(0.05, asked.set)
    assert (await victim.answer())[1] == b"hello"
    assert app.connections == 2


# -- memory ----------------------------------------------------------------------------------------


async def test_a_client_that_asks_and_asks_and_never_reads(rig):
    body = b"x" * 100_000
    await rig.start()
    app = await rig.answering(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
    peer = await rig.peer()
    peer.writer.transport.pause_reading()

    async def ask():
        while True:
            peer.send(get(app) * 1000)
            await peer.writer.drain()

    asking = asyncio.create_task(ask())
    (client,) = await clients(rig)
    await rig.until(lambda: client.write_paused and not client._transport.is_reading())
    await asyncio.sleep(0.2)
    assert len(client._buffer) <= MIB
    asking.cancel()
    # Whoever reads in the end gets what it asked for.
    passed_on = rig.relay.counters.passed_on
    peer.writer.transport.resume_reading()
    for _ in range(passed_on + 20):
        assert (await peer.answer())[1] == body


async def clients(rig):
    await rig.until(lambda: rig.relay.clients > 0)
    return rig.relay._shared.clients


async def test_a_tunnel_begun_with_much_is_not_read_without_end(rig):
    async def serve(reader, writer):
        writer.transport.pause_reading()
        await gate.wait()
        writer.transport.resume_reading()
        await reader.read()

    gate = asyncio.Event()
    await rig.start()
    rig.dialer.gate = asyncio.Event()
    app = await rig.app(serve)
    peer = await rig.peer()
    peer.send(connect(app))
    (client,) = await clients(rig)
    await rig.until(lambda: rig.dialer.dials == 1)
    peer.send(b"x" * 300_000)
    await rig.until(lambda: len(client._buffer) > 64 * 1024)
    client._buffer += b"x" * (16 * MIB)  # as if the kernel had room for nothing
    rig.dialer.gate.set()
    await peer.head()
    origin = client._tunnel._origin.transport
    await rig.until(lambda: origin.get_write_buffer_size() > 0)
    waiting = origin.get_write_buffer_size()
    for _ in range(16):
        peer.send(b"x" * MIB)
        await asyncio.sleep(0.005)
    assert origin.get_write_buffer_size() <= waiting
    gate.set()
    peer.writer.write_eof()
    assert await peer.rest() == b""


async def test_a_websocket_begun_behind_much_is_not_read_without_end(rig):
    async def serve(reader, writer):
        await read_head(reader)
        upgrade = b"Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
        writer.write(b"HTTP/1.1 101 Switching Protocols\r\n" + upgrade)
        for _ in range(32):
            writer.write(b"x" * MIB)
            await writer.drain()

    await rig.start()
    app = await rig.app(serve)
    peer = await rig.peer()
    peer.writer.transport.pause_reading()
    (client,) = await clients(rig)
    # As after hints that the client has yet to read.
    rig.steering.on_after = lambda *_: client._transport.write(b"x" * (16 * MIB))
    peer.send(get(app, lines=b"Connection: Upgrade\r\nUpgrade: websocket\r\n"))
    await rig.until(lambda: rig.relay.counters.upgrades == 1)
    waiting = client._transport.get_write_buffer_size()
    assert waiting > MIB
    await asyncio.sleep(0.1)
    assert client._transport.get_write_buffer_size() <= waiting
    peer.writer.transport.resume_reading()
    await peer.exactly(16 * MIB)
    assert (await peer.head()).startswith(b"HTTP/1.1 101 ")
    await peer.exactly(32 * MIB)


# -- ends ------------------------------------------------------------------------------------------


async def deaf(reader, writer):
    writer.transport.pause_reading()
    await asyncio.sleep(60)


@pytest.fixture
def unspliced(monkeypatch):
    """What is sent waits in the transports, which alone end by closing with something to send."""
    monkeypatch.setattr(tunnel, "LONG", sys.maxsize)


async def tunnel_to_a_deaf_app(rig):
    """Its client is gone, and what it sent waits to be taken."""
    app = await rig.app(deaf)
    peer = await rig.peer()
    peer.send(connect(app))
    await peer.head()
    (client,) = rig.relay._shared.clients
    origin = client._tunnel._origin
    peer.send(b"x" * (20 * MIB))
    await rig.until(lambda: origin.transport.get_write_buffer_size() > 0)
    client_end = client._tunnel._client
    peer.writer.transport.abort()
    origin.transport.resume_reading()
    client_end.transport.close()  # an end without an error: what is on its way may still arrive
    await rig.until(lambda: client_end.lost is not None)
    return origin


async def test_closing_ends_tunnels_whose_client_is_gone(rig, unspliced):
    await rig.start()
    origin = await tunnel_to_a_deaf_app(rig)
    assert origin.lost is None
    await rig.relay.close()
    await rig.until(lambda: origin.lost is not None)


async def test_tunnels_whose_client_is_gone_count_as_clients_and_end(rig, unspliced):
    await rig.start(Limits(half_closed=SOON))
    origin = await tunnel_to_a_deaf_app(rig)
    assert rig.relay.clients == 1  # its descriptor is still in use
    await rig.until(lambda: origin.lost is not None)
    assert rig.relay.clients == 0


async def test_a_dialler_that_breaks_its_promise(rig, caplog):
    async def connect_badly(origin, protocol_factory):
        raise ValueError("surprise")

    await rig.start()
    rig.dialer.connect = connect_badly
    app = await rig.answering(OK)
    peer = await rig.peer()
    peer.send(connect(app))
    head, body = await peer.answer()
    assert (head[:12], body) == (b"HTTP/1.1 502", b"proxy_internal_error")
    assert "surprise" in caplog.text


# -- tunnels for TLS alone -------------------------------------------------------------------------

HELLO = b"\x16\x03\x01\x00\x05hello"


@pytest.mark.parametrize("early", [True, False])
@pytest.mark.parametrize("first", [b"GET / HTTP/1.1\r\nUpgrade: websocket\r\n\r\n", HELLO])
async def test_a_tunnel_for_tls_carries_nothing_else(rig, first, early):
    async def serve(reader, writer):
        while data := await reader.read(100):
            writer.write(data)

    await rig.start()
    rig.dialer.only_tls = True
    app = await rig.app(serve)
    peer = await rig.peer()
    peer.send(connect(app) + (first if early else b""))
    if not early:
        await peer.head()
        peer.send(first)
    if first is HELLO:
        if early:
            await peer.head()
        assert await peer.exactly(len(HELLO)) == HELLO
        peer.send(b"GET ")
        assert await peer.exactly(4) == b"GET "
    else:
        try:
            await peer.rest()
        except ConnectionResetError:
            pass  # either is an end
        await rig.until(lambda: rig.relay.clients == 0)
        assert rig.relay.counters.failed == {"destination_ip_prohibited": 1}
        assert app.received == b""


# -- deadlines -------------------------------------------------------------------------------------


async def test_a_refused_client_that_stays_is_left(rig):
    await rig.start(Limits(linger=SOON))
    peer = await rig.peer()
    peer.send(b"nonsense\r\n\r\n")
    assert (await peer.rest()).startswith(b"HTTP/1.1 400 ")
    await rig.until(lambda: rig.relay.clients == 0)


async def test_a_body_that_nobody_wants_and_that_stops(rig):
    await rig.start(Limits(linger=SOON, idle_body=SOON))
    rig.steering.on_before = lambda *_: later(Reply(403, [], b"no"))
    app = await rig.answering(OK)
    peer = await rig.peer()
    peer.send(get(app, b"POST", b"Content-Length: 9\r\n") + b"x")
    assert (await peer.answer())[1] == b"no"
    assert await peer.rest() == b""
    await rig.until(lambda: rig.relay.clients == 0)
    assert app.connections == 0


async def test_a_request_whose_answer_came_early_and_that_stops(rig):
    await rig.start(Limits(idle_body=SOON))
    app = await rig.answering(OK)
    peer = await rig.peer()
    peer.send(get(app, b"POST", b"Content-Length: 9\r\n") + b"x")
    assert (await peer.answer())[1] == b"hello"
    await rig.until(lambda: rig.relay.clients == 0 and rig.relay.origins == 0)


# -- peers that are gone, unseen -------------------------------------------------------------------


def watch_faults() -> list[str]:
    """What reaches the loop's own handler from now on: nobody else hears of it."""
    found: list[str] = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: found.append(repr(context)))
    return found


async def test_a_way_that_is_gone_when_a_tunnel_is_there(rig):
    """Its configuration was taken away during the dial: an answer, and no connection left."""

    def gone(origin):
        raise PathError("no route", error="proxy_configuration_error")

    left = asyncio.Event()

    async def serve(reader, writer):
        await reader.read()
        left.set()

    await rig.start()
    app = await rig.app(serve)
    rig.dialer.tls_only = gone
    peer = await rig.peer()
    peer.send(connect(app))
    head, body = await peer.answer()
    assert (head[:12], body) == (b"HTTP/1.1 502", b"proxy_configuration_error")
    await asyncio.wait_for(left.wait(), 5)


async def test_a_refusal_for_a_client_that_has_gone_unseen(rig):
    """Its body is not read while a decision is awaited; the answer to it is answered with RST."""
    found, decided = watch_faults(), asyncio.Event()

    async def refuse():
        await decided.wait()
        return Reply(403, (), b"no")

    await rig.start()
    app = await rig.answering(OK)
    rig.steering.on_before = lambda _: refuse()
    peer = await rig.peer()
    peer.send(get(app, b"POST", b"Content-Length: %d\r\n" % MIB) + b"x" * 1000)
    await rig.until(lambda: len(rig.steering.exchanges) == 1)
    await peer.close()
    decided.set()
    await rig.until(lambda: rig.relay.clients == 0 and not rig.relay._shared.tasks)
    gc.collect()
    assert not found


async def test_a_half_close_for_an_app_that_has_gone_unseen(rig):
    """What was sent before the tunnel was there is answered with RST; then comes the FIN."""
    found, closed = watch_faults(), asyncio.Event()

    async def serve(reader, writer):
        writer.close()
        await writer.wait_closed()
        closed.set()

    await rig.start()
    app = await rig.app(serve)
    dial = rig.dialer.connect

    async def dial_and_wait(origin, factory):
        made = await dial(origin, factory)
        await closed.wait()
        return made

    rig.dialer.connect = dial_and_wait
    peer = await rig.peer()
    peer.send(connect(app) + b"early")
    peer.writer.write_eof()
    try:
        assert (await peer.rest()).startswith(b"HTTP/1.1 200 ")
    except ConnectionResetError:
        pass  # as the app's was
    await rig.until(lambda: rig.relay.clients == 0 and not rig.relay._shared.tasks)
    gc.collect()
    assert not found


async def test_a_decision_that_never_began_is_called_off(rig):
    """A client that leaves in the very turn of the loop in which it was begun."""
    begun = []

    async def decide():
        raise AssertionError("nobody waits for this")

    def before(exchange):
        (client,) = rig.relay._shared.clients
        asyncio.get_running_loop().call_soon(client.abort)
        begun.append(decide())
        return begun[-1]

    await rig.start()
    app = await rig.answering(OK)
    rig.steering.on_before = before
    peer = await rig.peer()
    peer.send(get(app))
    with pytest.raises(ConnectionResetError):
        await peer.rest()
    await rig.until(lambda: rig.relay.clients == 0 and not rig.relay._shared.tasks)
    assert inspect.getcoroutinestate(begun[0]) == inspect.CORO_CLOSED, "never awaited"
