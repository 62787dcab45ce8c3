"""A client's connection: order, bounds, half-closes, and its end."""

from __future__ import annotations

import asyncio
import resource

import pytest

from iam_auth_proxy.relay.exchange import Reply
from iam_auth_proxy.relay.limits import Limits

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"


def get(app, path: str = "/", lines: bytes = b"") -> bytes:
    url = f"{app.url}{path}".encode()
    return b"GET %b HTTP/1.1\r\nHost: app.test\r\n%b\r\n" % (url, lines)


async def echo_paths(reader, writer):
    """Answers with the path that was asked for; a slow one for /slow."""
    while True:
        head = await reader.readuntil(b"\r\n\r\n")
        path = head.split(b" ")[1]
        if path == b"/slow":
            await asyncio.sleep(0.05)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(path), path))


async def test_pipelined_requests_are_answered_in_order(rig):
    await rig.start()
    app, other = await rig.app(echo_paths), await rig.app(echo_paths)
    peer = await rig.peer()
    paths = ["/slow", *(f"/{n}" for n in range(60))]
    peer.send(b"".join(get(other if n % 3 else app, path) for n, path in enumerate(paths)))
    for path in paths:
        assert (await peer.answer())[1].decode() == path


async def test_a_refusal_waits_its_turn(rig):
    await rig.start()
    app = await rig.app(echo_paths)
    peer = await rig.peer()
    peer.send(get(app, "/slow") + b"BAD\r\n\r\n" + get(app, "/never"))
    assert (await peer.answer())[1] == b"/slow"
    assert (await peer.head()).startswith(b"HTTP/1.1 400 ")
    assert b"/never" not in app.received


async def test_reading_ahead_is_bounded(rig):
    gate = asyncio.Event()

    async def serve(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        await gate.wait()
        writer.write(OK)
        await echo_paths(reader, writer)

    await rig.start()
    app = await rig.app(serve)
    peer = await rig.peer()
    peer.send(get(app))
    await rig.until(lambda: app.connections == 1)
    (client,) = rig.relay._shared.clients

    # Well over the kernel's buffers, so that what is not read shows.
    request = get(app, "/" + "x" * 10_000)
    many = 2000

    async def flood():
        for _ in range(many):
            peer.send(request)
            await peer.writer.drain()

    flooding = asyncio.create_task(flood())
    await asyncio.sleep(0.2)
    assert not flooding.done()
    assert len(client._buffer) <= 64 * 1024 + 256 * 1024  # the bound, and the read that passed it
    gate.set()
    for number in range(many + 1):
        await peer.answer()
        if number == many:
            await flooding


async def test_replies_of_our_own_to_a_whole_pipeline(rig):
    await rig.start()
    peer = await rig.peer()
    peer.send(b"OPTIONS * HTTP/1.1\r\nHost: proxy\r\n\r\n" * 3000)
    for _ in range(3000):
        assert (await peer.head()).startswith(b"HTTP/1.1 204 ")


async def test_requests_with_bodies_follow_each_other(rig):
    async def serve(reader, writer):
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            if b"chunked" in head:
                body = await reader.readuntil(b"0\r\n\r\n")
            else:
                body = await reader.readexactly(5)
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))

    await rig.start()
    app = await rig.app(serve)
    peer = await rig.peer()
    counted = get(app, lines=b"Content-Length: 5\r\n") + b"GET /"
    chunked = get(app, lines=b"Transfer-Encoding: chunked\r\n") + b"2\r\nhi\r\n0\r\n\r\n"
    data = (counted + chunked) * 3
    for at in range(0, len(data), 11):
        peer.send(data[at : at + 11])
        await asyncio.sleep(0)
    for _ in range(3):
        assert (await peer.answer())[1] == b"GET /"
        assert (await peer.answer())[1] == b"2\r\nhi\r\n0\r\n\r\n"


@pytest.mark.parametrize("lines", [b"Connection: close\r\n", b""])
async def test_connection_close_is_honoured(rig, lines):
    await rig.start()
    app = await rig.answering(OK)
    peer = await rig.peer()
    peer.send(get(app, lines=lines))
    if not lines:
        peer.writer.write_eof()  # a half-close: the answer still comes, and then the end
    answer = await peer.rest()
    assert answer.endswith(b"hello")
    assert (b"Connection: close" in answer) == bool(lines)


async def test_a_client_that_vanishes_mid_upload_takes_its_request_along(rig):
    ended = asyncio.Event()

    async def serve(reader, writer):
        try:
            await reader.readexactly(1000)
        except (asyncio.IncompleteReadError, ConnectionError):
            ended.set()

    await rig.start()
    app = await rig.app(serve)
    peer = await rig.peer()
    peer.send(get(app, lines=b"Content-Length: 1000\r\n") + b"x" * 10)
    await rig.until(lambda: app.received.endswith(b"x" * 10))
    await peer.close()
    await asyncio.wait_for(ended.wait(), 5)
    await rig.until(lambda: rig.relay.origins == 0)


@pytest.mark.parametrize("bad", [b"zz\r\n", b"5\r\nhello!!"])
async def test_malformed_chunks_in_mid_upload(rig, bad):
    ended = asyncio.Event()

    async def serve(reader, writer):
        await reader.read(100)
        await reader.read()
        ended.set()

    await rig.start()
    app = await rig.app(serve)
    peer = await rig.peer()
    peer.send(get(app, lines=b"Transfer-Encoding: chunked\r\n") + b"2\r\nhi\r\n")
    await rig.until(lambda: app.received.endswith(b"hi\r\n"))
    peer.send(bad)
    assert (await peer.rest()).startswith(b"HTTP/1.1 400 ")
    await asyncio.wait_for(ended.wait(), 5)
    assert app.received.endswith(b"2\r\nhi\r\n")
    assert rig.relay.counters.abandoned == 0


async def test_a_client_may_leave_while_its_connection_is_dialled(rig):
    await rig.start()
    rig.dialer.gate = asyncio.Event()
    app = await rig.answering(OK)
    peer = await rig.peer()
    peer.send(get(app))
    await rig.until(lambda: rig.dialer.dials == 1)
    peer.reset()
    await rig.until(lambda: rig.relay.clients == 0)
    rig.dialer.gate.set()
    # The connection is there and idle: the next client has it.
    await rig.until(lambda: app.connections == 1 and rig.relay._pool.busy == 0)
    other = await rig.peer()
    other.send(get(app))
    assert (await other.answer())[1] == b"hello"
    assert app.connections == 1


async def test_the_connection_over_the_limit_is_told_so(rig):
    need = 2 * 1001 + 100
    if resource.getrlimit(resource.RLIMIT_NOFILE)[0] < need:
        pytest.fail(f"this test needs {need} descriptors: ulimit -n {need}")
    await rig.start()
    app = await rig.answering(OK)
    peers = [await rig.peer() for _ in range(1000)]
    await rig.until(lambda: rig.relay.clients == 1000)
    late = await rig.peer()
    late.send(get(app))
    answer = await late.rest()
    assert answer.startswith(b"HTTP/1.1 503 ")
    assert rig.relay.counters.over_limit == 1
    await rig.until(lambda: rig.relay.clients == 1000)
    for peer in (peers[0], peers[999]):
        peer.send(get(app))
        assert (await peer.answer())[1] == b"hello"
    await peers[5].close()
    await rig.until(lambda: rig.relay.clients == 999)
    again = await rig.peer()
    again.send(get(app))
    assert (await again.answer())[1] == b"hello"


async def test_far_too_many_connections_are_just_closed(rig):
    await rig.start(Limits(clients=1, linger=60.0))
    peers = [await rig.peer() for _ in range(120)]
    outcomes = await asyncio.gather(*(peer.rest() for peer in peers[1:]), return_exceptions=True)
    assert any(isinstance(outcome, ConnectionResetError) for outcome in outcomes)
    assert sum(b"503" in outcome for outcome in outcomes if isinstance(outcome, bytes)) == 100


async def test_a_drain_lets_the_exchange_end(rig):
    gate = asyncio.Event()

    async def serve(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        await gate.wait()
        writer.write(OK)
        await reader.read()

    await rig.start()
    app = await rig.app(serve)
    busy, idle = await rig.peer(), await rig.peer()
    busy.send(get(app))
    await rig.until(lambda: app.connections == 1 and rig.relay.clients == 2)
    shutdowns = [asyncio.create_task(c.shutdown(5)) for c in list(rig.relay._shared.clients)]
    assert await idle.rest() == b""
    gate.set()
    head, body = await busy.answer()
    assert b"\r\nConnection: close\r\n" in head
    assert body == b"hello"
    await asyncio.gather(*shutdowns)


async def test_a_drain_is_bounded(rig):
    async def serve(reader, writer):
        await reader.read()

    await rig.start()
    app = await rig.app(serve)
    peer = await rig.peer()
    peer.send(get(app))
    await rig.until(lambda: app.connections == 1)
    (client,) = rig.relay._shared.clients
    await client.shutdown(0.05)
    with pytest.raises(ConnectionResetError):
        await peer.rest()


async def test_a_registry_is_told(rig):
    class Registry:
        def __init__(self):
            self.seen = []

        def connection_made(self, handler, transport):
            self.seen.append(("made", handler))

        def connection_lost(self, handler, exc=None):
            self.seen.append(("lost", handler))

    await rig.start()
    registry = Registry()
    server = await asyncio.get_running_loop().create_server(
        lambda: rig.relay.connection(registry), "127.0.0.1", 0
    )
    async with server:
        port = server.sockets[0].getsockname()[1]
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.close()
        await writer.wait_closed()
        await rig.until(lambda: len(registry.seen) == 2)
    assert [event for event, _ in registry.seen] == ["made", "lost"]
    assert registry.seen[0][1] is registry.seen[1][1]


async def test_a_refusal_survives_a_client_that_is_still_sending(rig):
    await rig.start()
    peer = await rig.peer()
    peer.writer.transport.pause_reading()  # the answer waits in the kernel, where a reset drops it
    peer.send(b"GET nothing HTTP/1.1\r\n\r\n")
    await rig.until(lambda: rig.relay.counters.refused == {400: 1})
    for _ in range(5):
        await asyncio.sleep(0.01)
        peer.send(b"x" * 100_000)
    peer.writer.transport.resume_reading()
    assert (await peer.rest()).startswith(b"HTTP/1.1 400 ")


async def test_an_answer_here_while_a_body_is_expected(rig):
    async def no():
        return Reply(403, [], b"no")

    await rig.start()
    app = await rig.answering(OK)
    rig.steering.on_before = lambda _: no()
    peer = await rig.peer()
    peer.send(get(app, lines=b"Expect: 100-continue\r\nContent-Length: 3\r\n"))
    answer = await peer.rest()
    assert answer.startswith(b"HTTP/1.1 403 ")
    assert b"\r\nConnection: close\r\n" in answer
