"""REPEAT: a request that goes out again, and what comes back for it."""

from __future__ import annotations

import asyncio

import pytest

from iam_auth_proxy.relay.exchange import REPEAT, Reply
from iam_auth_proxy.relay.limits import Limits
from tests.relay.conftest import read_head

NO = b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 2\r\n\r\nno"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"


def request(app, method: bytes = b"GET", lines: bytes = b"", path: bytes = b"/") -> bytes:
    url = app.url.encode() + path
    return b"%b %b HTTP/1.1\r\nHost: app.test:%d\r\n%b\r\n" % (method, url, app.port, lines)


def forwarded(app, lines: bytes = b"", path: bytes = b"/") -> bytes:
    lines += b"CDN-Loop: iam-auth-proxy\r\n"
    return b"GET %b HTTP/1.1\r\nHost: app.test:%d\r\n%b\r\n" % (path, app.port, lines)


def guarded(*answers: bytes):
    """An app that answers the heads it gets, on whatever connection, with these in turn."""
    left = list(answers)

    async def serve(reader, writer):
        while True:
            await read_head(reader)
            writer.write(left.pop(0) if len(left) > 1 else left[0])

    return serve


def sign_in(exchange, answer):
    """What sign-in in the proxy does: a cookie more, and again."""
    if answer.status != 401:
        return None

    async def decide():
        await asyncio.sleep(0)
        exchange.request.headers.append((b"Cookie", b"s=%d" % exchange.repeated))
        return REPEAT

    return decide()


async def test_a_request_goes_out_again_with_what_steering_added(rig):
    await rig.start()
    app = await rig.app(guarded(NO, OK))
    rig.steering.on_after = sign_in
    peer = await rig.peer()
    peer.send(request(app, lines=b"X-One: 1\r\n"))
    assert (await peer.answer())[1] == b"hello"
    assert bytes(app.received) == (
        forwarded(app, b"X-One: 1\r\n") + forwarded(app, b"X-One: 1\r\nCookie: s=0\r\n")
    )
    assert app.connections == 1  # the short 401 was read away
    assert [answer.status for answer in rig.steering.answers] == [401, 200]
    assert rig.steering.exchanges[0].repeated == 1
    counters = rig.relay.counters
    assert (counters.repeated, counters.passed_on, counters.requests) == (1, 1, 1)


async def test_a_long_refusal_costs_its_connection_only(rig):
    await rig.start()
    long = b"HTTP/1.1 401 No\r\nContent-Length: 1000000\r\n\r\n" + b"x" * 1_000_000
    app = await rig.app(guarded(long, OK))
    rig.steering.on_after = sign_in
    peer = await rig.peer()
    peer.send(request(app))
    assert (await peer.answer())[1] == b"hello"
    assert app.connections == 2


async def test_pipelined_requests_wait_their_turn(rig):
    await rig.start()
    app = await rig.app(guarded(NO, OK))
    rig.steering.on_after = sign_in
    peer = await rig.peer()
    peer.send(request(app, path=b"/1") + request(app, path=b"/2") + request(app, path=b"/3"))
    for _ in range(3):
        assert (await peer.answer())[1] == b"hello"
    assert bytes(app.received) == (
        forwarded(app, path=b"/1")
        + forwarded(app, b"Cookie: s=0\r\n", b"/1")
        + forwarded(app, path=b"/2")
        + forwarded(app, path=b"/3")
    )


async def test_a_circle_ends(rig):
    await rig.start()
    app = await rig.answering(NO)
    rig.steering.on_after = sign_in
    peer = await rig.peer()
    peer.send(request(app))
    head, body = await peer.answer()
    assert head.startswith(b"HTTP/1.1 502 ")
    assert body == b"proxy_internal_error"
    assert rig.relay.counters.repeated == 3
    assert bytes(app.received).count(b"GET / ") == 4


async def test_what_is_not_kept_is_not_sent_again(rig):
    async def serve(reader, writer):
        await read_head(reader)
        await reader.readexactly(4)
        writer.write(NO)

    await rig.start()
    app = await rig.app(serve)
    seen = []

    def after(exchange, answer):
        seen.append(exchange.repeatable)
        return sign_in(exchange, answer)

    rig.steering.on_after = after
    peer = await rig.peer()
    peer.send(request(app, b"POST", b"Content-Length: 4\r\n") + b"body")
    head, body = await peer.answer()
    assert head.startswith(b"HTTP/1.1 502 ")
    assert body == b"proxy_internal_error"
    assert seen == [False]
    assert app.connections == 1


async def test_an_app_that_closes_with_its_refusal_is_dialled_again(rig):
    async def serve(reader, writer):
        head = await read_head(reader)
        writer.write(OK if b"Cookie" in head else NO)

    await rig.start()
    app = await rig.app(serve)  # closes after one answer
    rig.steering.on_after = sign_in
    peer = await rig.peer()
    for _ in range(3):
        peer.send(request(app))
        assert (await peer.answer())[1] == b"hello"


async def test_a_refusal_that_stops_short_can_be_replaced_but_not_passed_on(rig):
    async def serve(reader, writer):
        head = await read_head(reader)
        writer.write(OK if b"Cookie" in head else NO[:-1])
        writer.close()

    await rig.start()
    app = await rig.app(serve)
    decide = asyncio.Event()

    def after(exchange, answer):
        async def later():
            await decide.wait()
            exchange.request.headers.append((b"Cookie", b"s=1"))
            return REPEAT if exchange.request.target == b"/again" else None

        return later() if answer.status == 401 else None

    rig.steering.on_after = after
    for path, expected in ((b"/again", b"hello"), (b"/", b"http_response_incomplete")):
        decide.clear()
        peer = await rig.peer()
        answers = len(rig.steering.answers)
        peer.send(request(app, path=path))
        await rig.until(lambda before=answers: len(rig.steering.answers) > before)
        (exchange,) = [side._exchange for side in rig.relay._shared.clients if side._exchange]
        exchange.path.resume_reading()  # or its end is not noticed before it is decided
        await rig.until(lambda exchange=exchange: exchange.path is None)
        decide.set()
        assert (await peer.answer())[1] == expected


async def test_a_client_that_leaves_during_the_sign_in_leaves_nothing(rig):
    await rig.start()
    app = await rig.answering(NO)
    waiting = asyncio.Event()

    async def forever():
        waiting.set()
        await asyncio.Event().wait()

    rig.steering.on_after = lambda *_: forever()
    peer = await rig.peer()
    peer.send(request(app))
    await waiting.wait()
    peer.reset()
    await rig.until(lambda: rig.relay.clients == 0)
    await rig.until(lambda: not rig.relay._shared.tasks)
    assert rig.relay.origins == 0


async def test_a_repeated_request_has_the_deadline_of_a_first(rig):
    async def serve(reader, writer):
        await read_head(reader)
        writer.write(NO)
        await read_head(reader)
        await reader.read()

    await rig.start(Limits(answer_head=0.2))
    app = await rig.app(serve)
    rig.steering.on_after = sign_in
    peer = await rig.peer()
    peer.send(request(app))
    head, body = await peer.answer()
    assert head.startswith(b"HTTP/1.1 504 ")
    assert body == b"http_response_timeout"


async def test_a_refused_upgrade_switches_the_second_time(rig):
    async def serve(reader, writer):
        head = await read_head(reader)
        if b"Cookie" not in head:
            writer.write(NO)
            head = await read_head(reader)
        assert b"\r\nUpgrade: websocket\r\n" in head
        writer.write(
            b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
        )
        writer.write(await reader.readexactly(4))
        await reader.read()

    await rig.start()
    app = await rig.app(serve)
    seen = []

    def after(exchange, answer):
        seen.append((answer.status, exchange.upgrade, exchange.repeatable))
        if answer.status == 101:
            answer.headers.append((b"Set-Cookie", b"s=0"))
        return sign_in(exchange, answer)

    rig.steering.on_after = after
    peer = await rig.peer()
    peer.send(request(app, lines=b"Connection: Upgrade\r\nUpgrade: websocket\r\n"))
    head = await peer.head()
    assert head.startswith(b"HTTP/1.1 101 ")
    assert b"\r\nSet-Cookie: s=0\r\n" in head
    peer.send(b"ping")
    assert await peer.exactly(4) == b"ping"
    assert seen == [(401, True, True), (101, True, True)]


@pytest.mark.parametrize("waits", [False, True])
async def test_fields_that_steering_changed_are_passed_on(rig, waits):
    await rig.start()
    app = await rig.answering(OK)

    async def later():
        await asyncio.sleep(0)

    def before(exchange):
        exchange.request.headers.append((b"Cookie", b"s=1"))
        return later() if waits else None

    def after(exchange, answer):
        async def late():
            answer.headers.append((b"Set-Cookie", b"s=2"))

        if waits:
            return late()
        answer.headers.append((b"Set-Cookie", b"s=2"))
        return None

    rig.steering.on_before, rig.steering.on_after = before, after
    peer = await rig.peer()
    for _ in range(2):
        peer.send(request(app))
        head, body = await peer.answer()
        assert b"\r\nSet-Cookie: s=2\r\n" in head
        assert body == b"hello"
    assert bytes(app.received) == forwarded(app, b"Cookie: s=1\r\n") * 2


async def test_connections_authenticated_for_one_client_do_not_pile_up(rig):
    await rig.start()
    challenge = b"HTTP/1.1 401 No\r\nWWW-Authenticate: NTLM\r\nContent-Length: 0\r\n\r\n"
    app = await rig.answering(challenge)

    async def replace():
        return Reply(403, [], b"no")

    rig.steering.on_after = lambda *_: replace()
    peer = await rig.peer()
    peer.send(request(app))
    assert (await peer.answer())[1] == b"no"
    assert rig.relay.origins == 0
