"""The relay as a whole: requests in, answers out, over real sockets."""

from __future__ import annotations

import asyncio
import socket

from aiohttp import web

from iam_auth_proxy.names import parse_authority
from iam_auth_proxy.relay.exchange import RequestHead

OK = b"HTTP/1.1 200 OK\r\nServer: app\r\nContent-Length: 5\r\nX-Odd:   a  b \r\n\r\nhello"


def get(url: str, extra: bytes = b"") -> bytes:
    return b"GET %b HTTP/1.1\r\nHost: other\r\n%b\r\n" % (url.encode(), extra)


async def test_absolute_form_is_forwarded_as_it_came(rig):
    await rig.start()
    app = await rig.answering(OK)
    peer = await rig.peer()
    peer.send(
        get(
            f"{app.url}/a%2fb;c?x=%20&Y", b"aCCept:  x \r\nProxy-Connection: keep-alive\r\nB: 1\r\n"
        )
    )
    head, body = await peer.answer()
    assert head == (
        b"HTTP/1.1 200 OK\r\nServer: app\r\nContent-Length: 5\r\nX-Odd:   a  b \r\n\r\n"
    )
    assert body == b"hello"
    assert bytes(app.received) == (
        b"GET /a%%2fb;c?x=%%20&Y HTTP/1.1\r\nHost: app.test:%d\r\naCCept: x \r\nB: 1\r\n"
        b"CDN-Loop: iam-auth-proxy\r\n\r\n" % app.port
    )


async def test_connections_are_kept_on_both_sides(rig):
    await rig.start()
    app = await rig.answering(OK)
    peer = await rig.peer()
    for _ in range(3):
        peer.send(get(app.url))
        assert (await peer.answer())[1] == b"hello"
    assert app.connections == 1
    assert rig.relay.counters.reused == 2


async def test_connect_loses_nothing(rig):
    async def echo(reader, writer):
        while data := await reader.read(1000):
            writer.write(data)
        writer.write(b"bye")

    await rig.start()
    app = await rig.app(echo)
    peer = await rig.peer()
    peer.send(b"CONNECT app.test:%d HTTP/1.1\r\nHost: app.test\r\n\r\nhello" % app.port)
    assert (await peer.head()).startswith(b"HTTP/1.1 200 ")
    assert await peer.exactly(5) == b"hello"
    peer.send(b"more")
    assert await peer.exactly(4) == b"more"
    peer.writer.write_eof()
    assert await peer.rest() == b"bye"


async def test_fetch_gives_the_whole_answer(rig):
    await rig.start()
    app = await rig.answering(
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n1\r\n!\r\n0\r\n\r\n"
    )
    answer = await rig.relay.fetch(
        parse_authority(f"app.test:{app.port}"),
        RequestHead(b"GET", b"/", [(b"Host", b"app.test")]),
        limit=1000,
        deadline=5,
    )
    assert (answer.status, answer.body) == (200, b"hello!")
    await asyncio.sleep(0)


async def test_own_pages_are_one_more_origin(rig):
    async def pages(request):
        return web.Response(text=f"{request.path_qs} for {request.headers['Host']}")

    application = web.Application()
    application.router.add_get("/{tail:.*}", pages)
    runner = web.AppRunner(application)
    await runner.setup()

    async def own():
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        theirs.setblocking(False)
        await asyncio.get_running_loop().connect_accepted_socket(runner.server, theirs)
        return ours

    await rig.start(own=own)
    app = await rig.answering(OK)
    peer = await rig.peer()
    for _ in range(2):
        peer.send(b"GET /proxy.pac?x HTTP/1.1\r\nHost: 127.0.0.1:8080\r\n\r\n")
        assert (await peer.answer())[1] == b"/proxy.pac?x for 127.0.0.1:8080"
        peer.send(get(f"{app.url}/proxy.pac"))
        assert (await peer.answer())[1] == b"hello"
    assert [str(exchange.origin) for exchange in rig.steering.exchanges] == [
        f"http://app.test:{app.port}"
    ] * 2  # nobody is asked about our own pages
    await rig.relay.close()
    await runner.cleanup()


async def test_own_pages_that_are_down(rig):
    async def own():
        raise ConnectionRefusedError

    await rig.start(own=own)
    peer = await rig.peer()
    peer.send(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    assert (await peer.answer())[0].startswith(b"HTTP/1.1 503 ")


async def test_aiohttp_runs_and_drains_it(rig):
    gate = asyncio.Event()

    async def serve(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        await gate.wait()
        writer.write(OK)
        await reader.read()

    class RelayServer(web.Server):
        def __call__(self):
            return rig.relay.connection(self)

    async def unused(request):
        raise AssertionError

    await rig.start()
    app = await rig.app(serve)
    runner = web.ServerRunner(RelayServer(unused), shutdown_timeout=5)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = site._server.sockets[0].getsockname()[1]
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    _, idle = await asyncio.open_connection("127.0.0.1", port)
    writer.write(get(app.url))
    await rig.until(lambda: app.connections == 1)
    cleanup = asyncio.create_task(runner.cleanup())
    await asyncio.sleep(0.01)
    gate.set()
    assert (await reader.read()).endswith(b"hello")
    await cleanup
    assert rig.relay.clients == 0
    for one in (writer, idle):
        one.close()


async def test_ipv6_literals(rig):
    await rig.start()
    app = await rig.answering(OK)
    peer = await rig.peer()
    peer.send(get(f"http://[0:0::1]:{app.port}/"))
    assert (await peer.answer())[1] == b"hello"
    assert app.received.startswith(b"GET / HTTP/1.1\r\nHost: [::1]:%d\r\n" % app.port)


async def test_a_public_peer_is_not_told_of_loops(rig, monkeypatch):
    monkeypatch.setattr("iam_auth_proxy.relay.origin.is_private", lambda address: False)
    await rig.start()
    app = await rig.answering(OK)
    peer = await rig.peer()
    peer.send(get(app.url))
    await peer.answer()
    assert b"CDN-Loop" not in app.received


async def test_counters_move(rig):
    await rig.start()
    app = await rig.answering(OK)
    peer = await rig.peer()
    peer.send(get(app.url) * 2)
    await peer.answer()
    await peer.answer()
    peer.send(b"nonsense\r\n\r\n")
    await peer.rest()
    counted = {name: value for name, value in rig.relay.counters.snapshot().items() if value}
    assert counted == {
        "accepted": 1,
        "dialled": 1,
        "passed_on": 2,
        "refused": {400: 1},
        "requests": 2,
        "reused": 1,
    }
