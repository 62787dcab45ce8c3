"""One exchange: what steering may do, what becomes of bodies, and how it may go wrong."""

from __future__ import annotations

import asyncio
import logging
import socket
import struct

import pytest

from iam_auth_proxy.errors import PathError
from iam_auth_proxy.relay.exchange import Reply
from iam_auth_proxy.relay.limits import Limits

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"
MIB = 1024 * 1024


def get(app, method: bytes = b"GET", lines: bytes = b"", version: bytes = b"1.1") -> bytes:
    host = b"Host: app.test\r\n"
    url = app.url.encode() + b"/"
    return b"%b %b HTTP/%b\r\n%b%b\r\n" % (method, url, version, host, lines)


async def head_of(reader) -> bytes:
    return await reader.readuntil(b"\r\n\r\n")


def reset(writer) -> None:
    linger = struct.pack("ii", 1, 0)
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    writer.transport.abort()


async def later(value):
    await asyncio.sleep(0)
    return value


# -- steering --------------------------------------------------------------------------------------


async def test_a_reply_before_dialling(rig):
    await rig.start()
    app = await rig.answering(OK)
    rig.steering.on_before = lambda _: later(Reply(302, [(b"Location", b"/x")], b"over there"))
    peer = await rig.peer()
    for _ in range(2):
        peer.send(get(app))
        head, body = await peer.answer()
        assert head == b"HTTP/1.1 302 Found\r\nLocation: /x\r\nContent-Length: 10\r\n\r\n"
        assert body == b"over there"
    assert rig.dialer.dials == 0
    assert rig.relay.counters.replied == 2


async def test_a_reply_to_head_has_no_body(rig):
    await rig.start()
    app = await rig.answering(OK)
    rig.steering.on_before = lambda _: later(Reply(200, [], b"body"))
    peer = await rig.peer()
    peer.send(get(app, b"HEAD"))
    assert b"Content-Length: 4\r\n" in await peer.head()
    peer.send(get(app, b"HEAD"))
    assert (await peer.head()).startswith(b"HTTP/1.1 200 OK\r\n")


async def test_a_decision_that_waits_lets_the_exchange_go_on(rig):
    await rig.start()
    app = await rig.answering(OK)
    rig.steering.on_before = lambda _: later(None)
    rig.steering.on_after = lambda *_: later(None)
    peer = await rig.peer()
    for _ in range(2):
        peer.send(get(app))
        assert (await peer.answer())[1] == b"hello"
    assert app.connections == 1


async def test_a_reply_in_place_of_the_answer(rig):
    await rig.start()
    app = await rig.answering(OK)
    rig.steering.on_after = lambda *_: later(Reply(403, [], b"no"))
    peer = await rig.peer()
    for _ in range(2):
        peer.send(get(app))
        head, body = await peer.answer()
        assert (head[:12], body) == (b"HTTP/1.1 403", b"no")
    assert app.connections == 1  # the short answer was read away
    assert rig.steering.answers[0].get(b"content-length") == b"5"


@pytest.mark.parametrize(("size", "connections"), [(100_000, 1), (10 * MIB, 2)])
async def test_an_unwanted_answer_is_read_away_or_dropped(rig, size, connections):
    async def serve(reader, writer):
        while True:
            await head_of(reader)
            writer.write(b"HTTP/1.1 401 No\r\nContent-Length: %d\r\n\r\n" % size + b"x" * size)

    await rig.start()
    app = await rig.app(serve)
    rig.steering.on_after = lambda _, answer: later(Reply(403, [], b"no"))
    peer = await rig.peer()
    for _ in range(2):
        peer.send(get(app))
        assert (await peer.answer())[1] == b"no"
        await rig.until(lambda: app.connections == 2 or not rig.relay._pool.busy)
    assert app.connections == connections


async def test_an_answer_that_waits_is_not_read_on(rig):
    async def serve(reader, writer):
        await head_of(reader)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % (32 * MIB))
        for _ in range(32):
            writer.write(b"x" * MIB)
            await writer.drain()
            sent.append(1)

    sent: list[int] = []
    decided = asyncio.Event()

    async def decide():
        await decided.wait()

    await rig.start()
    app = await rig.app(serve)
    rig.steering.on_after = lambda *_: decide()
    peer = await rig.peer()
    peer.send(get(app))
    await rig.until(lambda: bool(rig.steering.answers))
    await asyncio.sleep(0.1)
    assert len(sent) < 32
    decided.set()
    await peer.head()
    await peer.exactly(32 * MIB)


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("wait", [True, False])
async def test_a_fault_of_steering_is_a_502(rig, caplog, when, wait):
    def fault(*_):
        raise ZeroDivisionError

    async def fault_later():
        fault()

    await rig.start()
    app = await rig.answering(OK)
    setattr(rig.steering, f"on_{when}", (lambda *_: fault_later()) if wait else fault)
    peer = await rig.peer()
    with caplog.at_level(logging.CRITICAL):
        peer.send(get(app))
        head, body = await peer.answer()
    assert (head[:12], body) == (b"HTTP/1.1 502", b"proxy_internal_error")


async def test_a_path_error_of_steering_is_its_page(rig):
    async def fail():
        raise PathError("slow", error="http_response_timeout", status=504)

    await rig.start()
    app = await rig.answering(OK)
    rig.steering.on_after = lambda *_: fail()
    peer = await rig.peer()
    peer.send(get(app))
    head, _ = await peer.answer()
    assert head.startswith(b"HTTP/1.1 504 ")
    assert b"\r\nProxy-Status: iam-auth-proxy; error=http_response_timeout\r\n" in head


async def test_a_client_that_leaves_ends_the_decision(rig):
    cancelled = asyncio.Event()

    async def decide():
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            cancelled.set()
            raise

    await rig.start()
    app = await rig.answering(OK)
    rig.steering.on_after = lambda *_: decide()
    peer = await rig.peer()
    peer.send(get(app))
    await rig.until(lambda: bool(rig.steering.answers))
    reset(peer.writer)
    await asyncio.wait_for(cancelled.wait(), 5)
    await rig.until(lambda: rig.relay.origins == 0)


@pytest.mark.parametrize(
    ("size", "kept"), [(100_000, True), (1_000_000, False)], ids=["short", "long"]
)
async def test_the_body_of_a_request_that_was_answered_here(rig, size, kept):
    await rig.start()
    app = await rig.answering(OK)
    rig.steering.on_before = lambda _: later(Reply(403, [], b"no"))
    peer = await rig.peer()
    peer.send(get(app, b"POST", b"Content-Length: %d\r\n" % size))
    head, body = await peer.answer()
    assert (b"Connection: close" in head, body) == (not kept, b"no")
    peer.send(b"x" * size)
    if kept:
        peer.send(get(app))
        assert (await peer.answer())[1] == b"no"
    else:
        assert await peer.rest() == b""


async def test_a_loop_is_refused(rig):
    await rig.start()
    app = await rig.answering(OK)
    peer = await rig.peer()
    peer.send(get(app, lines=b"CDN-Loop: x, iam-auth-proxy\r\n"))
    head, body = await peer.answer()
    assert (head[:12], body) == (b"HTTP/1.1 502", b"proxy_loop_detected")
    assert rig.dialer.dials == 0


# -- answers ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("others", [b"", b"Via: 1.0 fred\r\n"])
async def test_no_via_is_added(rig, others):
    """In neither direction; that of others stays (docs/protocol.md section 4)."""
    heads = []

    async def serve(reader, writer):
        heads.append(await head_of(reader))
        writer.write(b"HTTP/1.1 200 OK\r\n%bContent-Length: 0\r\n\r\n" % others)

    await rig.start()
    app = await rig.app(serve)
    peer = await rig.peer()
    peer.send(get(app, lines=others))
    heads.append((await peer.answer())[0])
    for head in heads:
        assert [line for line in head.split(b"\r\n") if line.lower().startswith(b"via:")] == (
            others.split(b"\r\n")[:-1]
        )


async def test_an_answer_to_head_has_no_body(rig):
    await rig.start()
    app = await rig.answering(b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n")
    peer = await rig.peer()
    for _ in range(3):
        peer.send(get(app, b"HEAD"))
        assert await peer.head() == b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n"
    assert app.connections == 1


async def close_delimited(reader, writer):
    await head_of(reader)
    writer.write(b"HTTP/1.0 200 OK\r\nX: 1\r\n\r\nhel")
    await asyncio.sleep(0.01)
    writer.write(b"lo")


async def test_a_close_delimited_answer_becomes_chunks(rig):
    await rig.start()
    app = await rig.app(close_delimited)
    peer = await rig.peer()
    for _ in range(2):  # the client's connection stays
        peer.send(get(app))
        assert await peer.head() == b"HTTP/1.1 200 OK\r\nX: 1\r\nTransfer-Encoding: chunked\r\n\r\n"
        assert await peer.reader.readuntil(b"0\r\n\r\n") == b"3\r\nhel\r\n2\r\nlo\r\n0\r\n\r\n"


async def test_a_close_delimited_answer_to_http_10(rig):
    await rig.start()
    app = await rig.app(close_delimited)
    peer = await rig.peer()
    peer.send(get(app, version=b"1.0"))
    assert await peer.rest() == b"HTTP/1.1 200 OK\r\nX: 1\r\nConnection: close\r\n\r\nhello"


async def test_a_chunked_answer_to_http_10(rig):
    await rig.start()
    app = await rig.answering(
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
        b"3\r\nhel\r\n2\r\nlo\r\n0\r\nX: 1\r\n\r\n"
    )
    peer = await rig.peer()
    peer.send(get(app, version=b"1.0"))
    assert await peer.rest() == b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nhello"


@pytest.mark.parametrize("version", [b"1.0", b"1.1"])
@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n9\r\nhello",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n",
    ],
)
async def test_a_truncated_answer_is_never_whole(rig, answer, version):
    gate = asyncio.Event()

    async def serve(reader, writer):
        await head_of(reader)
        writer.write(answer)
        await gate.wait()

    await rig.start()
    app = await rig.app(serve)
    peer = await rig.peer()
    peer.send(get(app, version=version))
    await peer.head()
    gate.set()
    with pytest.raises(ConnectionResetError):
        await peer.rest()
    assert rig.relay.counters.aborted == 1
    assert rig.relay.counters.abandoned == 0


async def test_a_reset_ends_no_close_delimited_answer(rig):
    gate = asyncio.Event()

    async def serve(reader, writer):
        await head_of(reader)
        writer.write(b"HTTP/1.1 200 OK\r\n\r\nhello")
        await gate.wait()
        reset(writer)

    await rig.start()
    app = await rig.app(serve)
    peer = await rig.peer()
    peer.send(get(app))
    await peer.head()
    gate.set()
    with pytest.raises(ConnectionResetError):
        await peer.rest()


@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 200 OK\r\nContent-"])
async def test_no_answer_is_a_502(rig, answer):
    async def serve(reader, writer):
        await head_of(reader)
        writer.write(answer)

    await rig.start()
    app = await rig.app(serve)
    peer = await rig.peer()
    peer.send(get(app))
    error = b"http_response_incomplete" if answer else b"connection_terminated"
    assert (await peer.answer())[1] == error


async def test_malformed_chunks_abort_what_was_begun(rig):
    gate = asyncio.Event()

    async def serve(reader, writer):
        await head_of(reader)
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n")
        await gate.wait()
        writer.write(b"0x5\r\nhello\r\n")
        await reader.read()

    await rig.start()
    app = await rig.app(serve)
    peer = await rig.peer()
    peer.send(get(app))
    await peer.head()
    gate.set()
    with pytest.raises(ConnectionResetError):
        await peer.rest()


@pytest.mark.parametrize(("version", "hints"), [(b"1.1", 1), (b"1.0", 0)])
async def test_informational_answers(rig, version, hints):
    await rig.start()
    app = await rig.answering(b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" + OK)
    peer = await rig.peer()
    peer.send(get(app, version=version, lines=b"Connection: close\r\n"))
    assert (await peer.rest()).count(b"HTTP/1.1 103 ") == hints


async def test_continue_comes_before_the_body_goes(rig):
    async def serve(reader, writer):
        assert b"Expect: 100-continue" in await head_of(reader)
        writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n" + await reader.readexactly(3))

    await rig.start()
    app = await rig.app(serve)
    peer = await rig.peer()
    peer.send(get(app, b"POST", b"Expect: 100-continue\r\nContent-Length: 3\r\n"))
    assert await peer.head() == b"HTTP/1.1 100 Continue\r\n\r\n"
    peer.send(b"abc")
    assert (await peer.answer())[1] == b"abc"


async def test_an_answer_may_come_before_the_end_of_the_request(rig):
    async def serve(reader, writer):
        await head_of(reader)
        writer.write(b"HTTP/1.1 413 Too Large\r\nContent-Length: 2\r\nConnection: close\r\n\r\nno")
        await writer.drain()

    await rig.start()
    app = await rig.app(serve)
    peer = await rig.peer()
    peer.send(get(app, b"POST", b"Content-Length: 100000000\r\n") + b"x" * 1000)
    assert (await peer.answer())[1] == b"no"
    assert await peer.rest() == b""


async def test_an_early_answer_does_not_end_the_request(rig):
    async def serve(reader, writer):
        while True:
            await head_of(reader)
            writer.write(OK)
            await reader.readexactly(10)

    await rig.start()
    app = await rig.app(serve)
    peer = await rig.peer()
    for _ in range(2):
        peer.send(get(app, b"POST", b"Content-Length: 10\r\n"))
        assert (await peer.answer())[1] == b"hello"
        peer.send(b"0123456789")
    await rig.until(lambda: rig.relay.counters.passed_on == 2)
    # An app that did not wait for all of a request may take the rest of it for another.
    assert app.connections == 2


# -- bodies ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("framing", ["counted", "chunked"])
async def test_bodies_stream_both_ways(rig, framing):
    async def serve(reader, writer):
        head = await head_of(reader)
        writer.write(b"HTTP/1.1 200 OK\r\n" + head.partition(b"X: \r\n")[2])
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()

    await rig.start()
    app = await rig.app(serve)
    peer = await rig.peer()
    pieces = [bytes([n]) * 70_001 for n in range(60)]
    if framing == "counted":
        lines, body = b"Content-Length: %d\r\n" % (60 * 70_001), b"".join(pieces)
    else:
        lines = b"Transfer-Encoding: chunked\r\n"
        body = b"".join(b"%x\r\n%b\r\n" % (len(p), p) for p in pieces) + b"0\r\nT: 1\r\n\r\n"
    peer.send(get(app, b"POST", b"X: \r\n" + lines))
    echoed = asyncio.create_task(peer.head())
    peer.send(body)
    await echoed
    received = await peer.exactly(len(body))
    assert received == body


async def test_a_client_that_does_not_read_stops_the_origin(rig):
    sent = 0

    async def serve(reader, writer):
        nonlocal sent
        await head_of(reader)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % (256 * MIB))
        for _ in range(256):
            writer.write(b"x" * MIB)
            await writer.drain()
            sent += 1

    await rig.start()
    app = await rig.app(serve)
    peer = await rig.peer()
    peer.writer.transport.pause_reading()
    peer.send(get(app))
    await rig.until(lambda: rig.relay.counters.passed_on == 1)
    stood, before = 0, -1
    while stood < 5:
        stood = stood + 1 if sent == before else 0
        before = sent
        await asyncio.sleep(0.02)
    assert sent < 64  # what the kernel's buffers take, and no more
    (client,) = rig.relay._shared.clients
    assert client._transport.get_write_buffer_size() <= MIB
    peer.writer.transport.resume_reading()
    await peer.head()
    await peer.exactly(256 * MIB)


async def test_an_origin_that_does_not_read_stops_the_client(rig):
    gate = asyncio.Event()

    async def serve(reader, writer):
        await head_of(reader)
        writer.transport.pause_reading()
        await gate.wait()
        writer.transport.resume_reading()
        await reader.readexactly(64 * MIB)
        writer.write(OK)

    await rig.start()
    app = await rig.app(serve)
    peer = await rig.peer()
    peer.send(get(app, b"PUT", b"Content-Length: %d\r\n" % (64 * MIB)))

    async def upload():
        for _ in range(64):
            peer.send(b"x" * MIB)
            await peer.writer.drain()

    uploading = asyncio.create_task(upload())
    await asyncio.sleep(0.3)
    assert not uploading.done()
    (origin,) = rig.relay._pool._connections
    assert origin.transport.get_write_buffer_size() <= MIB
    gate.set()
    await uploading
    assert (await peer.answer())[1] == b"hello"


# -- connections that were kept --------------------------------------------------------------------


@pytest.mark.parametrize(("method", "status"), [(b"GET", b"200"), (b"POST", b"502")])
async def test_a_stale_connection_is_retried_only_where_that_is_safe(rig, method, status):
    async def serve(reader, writer):
        await head_of(reader)
        writer.write(OK)
        if app.connections == 1:
            await head_of(reader)  # takes the next request and leaves without a word

    await rig.start()
    app = await rig.app(serve)
    peer = await rig.peer()
    peer.send(get(app))
    await peer.answer()
    peer.send(get(app, method))
    head, _ = await peer.answer()
    assert head.startswith(b"HTTP/1.1 " + status)
    assert app.connections == (2 if status == b"200" else 1)
    assert rig.relay.counters.retried == (1 if status == b"200" else 0)


async def test_a_connection_that_gave_a_byte_is_not_retried(rig):
    async def serve(reader, writer):
        await head_of(reader)
        writer.write(OK)
        await head_of(reader)
        writer.write(b"H")

    await rig.start()
    app = await rig.app(serve)
    peer = await rig.peer()
    peer.send(get(app))
    await peer.answer()
    peer.send(get(app))
    assert (await peer.answer())[1] == b"http_response_incomplete"


async def test_unasked_bytes_end_an_idle_connection(rig):
    async def serve(reader, writer):
        await head_of(reader)
        writer.write(OK)
        await asyncio.sleep(0.01)
        writer.write(OK)  # poison for whoever asks next
        await reader.read()

    await rig.start()
    app = await rig.app(serve)
    peer = await rig.peer()
    peer.send(get(app))
    await peer.answer()
    await rig.until(lambda: rig.relay.origins == 0)


@pytest.mark.parametrize("scheme", [b"NTLM", b"Negotiate"])
async def test_an_authenticated_connection_is_never_lent(rig, scheme):
    async def serve(reader, writer):
        number = app.connections
        await head_of(reader)
        writer.write(
            b"HTTP/1.1 401 No\r\nWWW-Authenticate: %b\r\nContent-Length: 0\r\n\r\n" % scheme
        )
        while True:
            await head_of(reader)
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n%d" % number)

    await rig.start()
    app = await rig.app(serve)
    alice, mallory = await rig.peer(), await rig.peer()
    alice.send(get(app))
    assert (await alice.answer())[0].startswith(b"HTTP/1.1 401")
    alice.send(get(app, lines=b"Authorization: %b abc\r\n" % scheme))
    assert (await alice.answer())[1] == b"1"
    mallory.send(get(app))
    assert (await mallory.answer())[0].startswith(b"HTTP/1.1 401")
    alice.send(get(app))
    assert (await alice.answer())[1] == b"1"
    await alice.close()
    await rig.until(lambda: rig.relay.origins == 1)


@pytest.mark.parametrize("scheme", [b"NTLM", b"negotiate"])
async def test_nor_one_that_was_authenticated_unasked(rig, scheme):
    """By a client that knows the app and waits for no challenge, so that no answer tells of it."""

    async def serve(reader, writer):
        number = app.connections
        while True:
            await head_of(reader)
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n%d" % number)

    await rig.start()
    app = await rig.app(serve)
    alice, mallory = await rig.peer(), await rig.peer()
    alice.send(get(app, lines=b"Authorization: %b abc\r\n" % scheme))
    assert (await alice.answer())[1] == b"1"
    mallory.send(get(app))
    assert (await mallory.answer())[1] == b"2"
    alice.send(get(app))
    assert (await alice.answer())[1] == b"1"


# -- websockets ------------------------------------------------------------------------------------

HANDSHAKE = b"Connection: keep-alive, Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: x\r\n"
SWITCH = (
    b"HTTP/1.1 101 Switching Protocols\r\nSec-WebSocket-Accept: y\r\n"
    b"Upgrade: WebSocket\r\nConnection: upgrade\r\n\r\n"
)


async def test_a_websocket_becomes_a_tunnel(rig):
    async def serve(reader, writer):
        head = await head_of(reader)
        assert b"\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n" in head
        writer.write(SWITCH + b"first")
        while data := await reader.read(100):
            writer.write(data)

    await rig.start()
    app = await rig.app(serve)
    peer = await rig.peer()
    peer.send(get(app, lines=HANDSHAKE) + b"early")
    assert await peer.head() == (
        b"HTTP/1.1 101 Switching Protocols\r\nSec-WebSocket-Accept: y\r\n"
        b"Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
    )
    assert await peer.exactly(10) == b"firstearly"
    peer.send(b"GET / HTTP/1.1\r\n\r\n")
    assert await peer.exactly(18) == b"GET / HTTP/1.1\r\n\r\n"
    assert rig.relay.origins == 0  # no longer the pool's
    assert rig.relay.counters.upgrades == 1


async def test_a_refused_websocket_is_an_answer(rig):
    await rig.start()
    app = await rig.answering(b"HTTP/1.1 403 No\r\nContent-Length: 2\r\n\r\nno")
    peer = await rig.peer()
    for _ in range(2):
        peer.send(get(app, lines=HANDSHAKE))
        assert (await peer.answer())[1] == b"no"


async def test_limits_of_the_pool_hold_for_what_waits(rig):
    await rig.start(Limits(connections=1, waiting=1))
    gate = asyncio.Event()

    async def serve(reader, writer):
        while True:
            await head_of(reader)
            await gate.wait()
            writer.write(OK)

    app = await rig.app(serve)
    peers = [await rig.peer() for _ in range(3)]
    for number, peer in enumerate(peers, 1):
        peer.send(get(app))
        await rig.until(lambda n=number: rig.relay.counters.requests == n)
        if number == 1:
            await rig.until(lambda: app.connections == 1)
            await rig.until(lambda: rig.relay._pool.waiting == 0)
    head, body = await peers[2].answer()
    assert (head[:12], body) == (b"HTTP/1.1 503", b"connection_limit_reached")
    gate.set()
    for peer in peers[:2]:
        assert (await peer.answer())[1] == b"hello"
    assert app.connections == 1
