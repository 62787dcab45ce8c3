"""The proxy's own requests."""

from __future__ import annotations

import asyncio

import pytest

from iam_auth_proxy.errors import PathError
from iam_auth_proxy.names import parse_authority
from iam_auth_proxy.relay.exchange import RequestHead

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"


def ask(rig, app, method: bytes = b"GET", body: bytes = b"", limit: int = 1000, deadline=5.0):
    return rig.relay.fetch(
        parse_authority(f"app.test:{app.port}"),
        RequestHead(method, b"/auth?token=x", [(b"X", b"1")]),
        body,
        limit=limit,
        deadline=deadline,
    )


async def test_host_and_length_are_added(rig):
    await rig.start()
    app = await rig.answering(OK)
    assert (await ask(rig, app, b"POST", b"a=b")).body == b"hello"
    assert bytes(app.received) == (
        b"POST /auth?token=x HTTP/1.1\r\nX: 1\r\nCDN-Loop: iam-auth-proxy\r\n"
        b"Host: app.test:%d\r\nContent-Length: 3\r\n\r\na=b" % app.port
    )
    assert rig.steering.exchanges == []  # nobody is asked about these


async def test_connections_are_those_of_the_pool(rig):
    await rig.start()
    app = await rig.answering(OK)
    for _ in range(3):
        await ask(rig, app)
    assert app.connections == 1
    assert rig.relay.counters.fetched == 3


@pytest.mark.parametrize(
    ("answer", "body"),
    [
        (
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n1\r\nc\r\n0\r\n\r\n",
            b"abc",
        ),
        (b"HTTP/1.1 103 Early\r\n\r\n" + OK, b"hello"),
        (b"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n", b""),
    ],
)
async def test_answers_are_whole(rig, answer, body):
    await rig.start()
    app = await rig.answering(answer)
    assert (await ask(rig, app)).body == body


async def test_a_close_delimited_answer(rig):
    async def serve(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.0 302 Found\r\nLocation: /\r\n\r\nbye")

    await rig.start()
    app = await rig.app(serve)
    answer = await ask(rig, app)
    assert (answer.status, answer.headers, answer.body) == (302, [(b"Location", b"/")], b"bye")


@pytest.mark.parametrize(
    ("answer", "limit", "error"),
    [
        (OK, 4, "http_response_body_size"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhello", 1000, "http_response_incomplete"),
        (b"nonsense\r\n\r\n", 1000, "http_protocol_error"),
        (b"", 1000, "connection_terminated"),
    ],
)
async def test_anything_else_is_a_path_error(rig, answer, limit, error):
    async def serve(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)

    await rig.start()
    app = await rig.app(serve)
    with pytest.raises(PathError) as caught:
        await ask(rig, app, limit=limit)
    assert caught.value.error == error
    await rig.until(lambda: rig.relay.origins == 0)


async def test_the_deadline_covers_all_of_it(rig):
    async def serve(reader, writer):
        while True:
            await asyncio.sleep(0.02)
            writer.write(b"x")

    await rig.start()
    app = await rig.answering(b"")
    with pytest.raises(PathError) as caught:
        await ask(rig, app, deadline=0.1)
    assert (caught.value.error, caught.value.http_status) == ("http_response_timeout", 504)
    assert rig.relay.origins == 0
    rig.dialer.gate = asyncio.Event()
    with pytest.raises(PathError):
        await ask(rig, app, deadline=0.1)
    assert rig.relay._pool.waiting == 0
    rig.dialer.gate.set()


async def test_a_failed_dial_is_told(rig):
    await rig.start()
    app = await rig.answering(OK)
    rig.dialer.error = PathError("no", error="dns_error")
    with pytest.raises(PathError) as caught:
        await ask(rig, app)
    assert caught.value is rig.dialer.error


async def test_a_stale_connection_is_replaced(rig):
    async def serve(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(OK)
        if app.connections == 1:
            await reader.readuntil(b"\r\n\r\n")

    await rig.start()
    app = await rig.app(serve)
    for _ in range(2):
        assert (await ask(rig, app)).body == b"hello"
    assert app.connections == 2


async def test_what_was_authenticated_for_us_is_for_nobody_else(rig):
    await rig.start()
    app = await rig.answering(
        b"HTTP/1.1 401 No\r\nWWW-Authenticate: NTLM\r\nContent-Length: 0\r\n\r\n"
    )
    await ask(rig, app)
    assert rig.relay.origins == 0
