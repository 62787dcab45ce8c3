"""The relay as a whole: requests in, answers out, over real sockets."""

from __future__ import annotations

import asyncio

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
    assert head == (b"HTTP/1.1 200 OK\r\nServer: app\r\nContent-Length: 5\r\nX-Odd: a  b \r\n\r\n")
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
