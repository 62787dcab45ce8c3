"""CONNECT whose requests are read: the same exchanges, for one origin and no other."""

from __future__ import annotations

import asyncio
import json
import re
import socket
from pathlib import Path

import pytest

from iam_auth_proxy.names import Origin
from iam_auth_proxy.relay.exchange import REPEAT, Reply
from iam_auth_proxy.relay.limits import Limits
from tests.relay.conftest import read_head

VECTORS = json.loads((Path(__file__).parent.parent / "vectors" / "smuggling.json").read_text())
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"
NO = b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 2\r\n\r\nno"
ESTABLISHED = b"HTTP/1.1 200 Connection established\r\n\r\n"


def connect(port: int, host: bytes = b"app.test") -> bytes:
    return b"CONNECT %b:%d HTTP/1.1\r\nHost: %b:%d\r\n\r\n" % (host, port, host, port)


def get(app, lines: bytes = b"", path: bytes = b"/") -> bytes:
    return b"GET %b HTTP/1.1\r\nHost: app.test:%d\r\n%b\r\n" % (path, app.port, lines)


def read(rig, app) -> None:
    rig.steering.read.add(Origin("http", "app.test", app.port))


async def tunnel(rig, app):
    """A client inside a tunnel to the app that is read."""
    read(rig, app)
    peer = await rig.peer()
    peer.send(connect(app.port))
    assert await peer.head() == ESTABLISHED
    return peer


async def test_requests_inside_are_exchanges_as_all_others(rig):
    await rig.start()
    app = await rig.answering(OK)
    peer = await tunnel(rig, app)
    assert rig.dialer.dials == 0  # nobody has asked for anything
    for _ in range(2):
        peer.send(get(app))
        assert (await peer.answer())[1] == b"hello"
    assert bytes(app.received) == get(app, b"CDN-Loop: iam-auth-proxy\r\n") * 2
    assert [str(exchange.origin) for exchange in rig.steering.exchanges] == [
        f"http://app.test:{app.port}"
    ] * 2
    assert len(rig.steering.answers) == 2
    counters = rig.relay.counters
    assert (counters.tunnels_read, counters.tunnels, counters.requests) == (1, 0, 3)


async def test_other_tunnels_stay_unread(rig):
    await rig.start()
    app = await rig.answering(OK)
    rig.steering.read.add(Origin("http", "other.test", app.port))
    peer = await rig.peer()
    peer.send(connect(app.port))
    await peer.head()
    peer.send(b"GET http://anything/ HTTP/1.1\r\n\r\n")
    assert (await peer.answer())[1] == b"hello"
    assert rig.steering.exchanges == []
    assert rig.relay.counters.tunnels_read == 0


async def test_a_fault_of_the_question_leaves_the_tunnel_unread(rig, caplog):
    def fails(origin):
        raise KeyError(origin)

    await rig.start()
    app = await rig.answering(OK)
    rig.steering.reads_tunnel = fails
    peer = await rig.peer()
    peer.send(connect(app.port))
    assert await peer.head() == ESTABLISHED
    peer.send(get(app))
    assert (await peer.answer())[1] == b"hello"
    assert rig.relay.counters.tunnels == 1
    assert "a decision about a tunnel failed" in caplog.text


async def test_what_comes_with_the_connect_is_pipelined(rig):
    await rig.start()
    app = await rig.answering(OK)
    read(rig, app)
    peer = await rig.peer()
    peer.send(connect(app.port) + get(app, path=b"/1") + get(app, path=b"/2"))
    assert await peer.head() == ESTABLISHED
    for _ in range(2):
        assert (await peer.answer())[1] == b"hello"
    assert app.received.index(b"/1") < app.received.index(b"/2")


async def test_a_request_inside_can_be_repeated(rig):
    async def serve(reader, writer):
        while True:
            head = await read_head(reader)
            writer.write(OK if b"Cookie" in head else NO)

    def after(exchange, answer):
        async def decide():
            exchange.request.headers.append((b"Cookie", b"s=1"))
            return REPEAT

        return decide() if answer.status == 401 else None

    await rig.start()
    app = await rig.app(serve)
    rig.steering.on_after = after
    peer = await tunnel(rig, app)
    peer.send(get(app))
    assert (await peer.answer())[1] == b"hello"


async def test_a_websocket_inside(rig):
    async def serve(reader, writer):
        head = await read_head(reader)
        assert b"\r\nUpgrade: websocket\r\n" in head
        writer.write(
            b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
        )
        writer.write(await reader.readexactly(4))
        await reader.read()

    await rig.start()
    app = await rig.app(serve)
    peer = await tunnel(rig, app)
    peer.send(get(app, b"Connection: Upgrade\r\nUpgrade: websocket\r\n"))
    assert (await peer.head()).startswith(b"HTTP/1.1 101 ")
    peer.send(b"ping")
    assert await peer.exactly(4) == b"ping"
    assert rig.relay.counters.upgrades == 1


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"GET http://app.test:%d/ HTTP/1.1\r\nHost: app.test:%d\r\n\r\n", 421),
        (b"GET http://evil.test:%d/ HTTP/1.1\r\nHost: app.test:%d\r\n\r\n", 421),
        (b"GET /%d HTTP/1.1\r\nHost: evil.test:%d\r\n\r\n", 421),
        (b"GET /%d HTTP/1.1\r\nHost: app.test\r\nX: %d\r\n\r\n", 421),
        (b"GET /%d%d HTTP/1.1\r\nHost:\r\n\r\n", 400),
        (b"GET /%d%d HTTP/1.1\r\n\r\n", 400),
        (b"GET /%d#x HTTP/1.1\r\nHost: app.test:%d\r\n\r\n", 400),
        (b"GET * HTTP/1.1\r\nX: %d\r\nHost: app.test:%d\r\n\r\n", 421),
        (b"GET app.test:%d HTTP/1.1\r\nHost: app.test:%d\r\n\r\n", 400),
        (b"CONNECT app.test:%d HTTP/1.1\r\nHost: app.test:%d\r\n\r\n", 405),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03%d\r\n\r\n%d", 400),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00%d%d", 400),
        (b"SSH-2.0-%d\r\n\r\n%d", 400),
    ],
)
async def test_what_is_not_for_the_app_is_refused(rig, sent, status):
    """With pages of the proxy's own, which must not be reachable either."""

    async def own() -> socket.socket:
        raise AssertionError("the proxy's own pages were asked for")

    await rig.start(own=own)
    app = await rig.answering(OK)
    peer = await tunnel(rig, app)
    peer.send(sent % (app.port, app.port))
    answer = await peer.rest()
    assert answer.startswith(b"HTTP/1.1 %d " % status), answer
    assert b"\r\nConnection: close\r\n" in answer
    assert (app.connections, rig.dialer.dials) == (0, 0)
    assert rig.relay.counters.refused == {status: 1}
    assert rig.steering.exchanges == []


async def test_the_default_port_may_be_left_out(rig):
    await rig.start()
    app = await rig.answering(OK)
    rig.steering.read.add(Origin("http", "app.test", 80))

    async def to_app(origin, factory):
        assert origin == Origin("http", "app.test", 80)
        return await asyncio.get_running_loop().create_connection(factory, "127.0.0.1", app.port)

    rig.dialer.connect = to_app
    for host in (b"app.test", b"app.test:80", b"APP.TEST:", b"App.Test:080"):
        peer = await rig.peer()
        peer.send(connect(80, b"App.test"))
        await peer.head()
        peer.send(b"GET / HTTP/1.1\r\nHost: %b\r\n\r\n" % host)
        assert (await peer.answer())[1] == b"hello", host
    assert len(re.findall(rb"\r\nHost: app.test\r\n", bytes(app.received))) == 4


async def test_the_server_itself_can_be_asked(rig):
    await rig.start()
    app = await rig.answering(OK)
    peer = await tunnel(rig, app)
    peer.send(b"OPTIONS * HTTP/1.1\r\nHost: app.test:%d\r\n\r\n" % app.port)
    assert (await peer.answer())[1] == b"hello"
    assert app.received.startswith(b"OPTIONS * HTTP/1.1\r\n")
    peer.send(b"OPTIONS / HTTP/1.1\r\nHost: app.test:%d\r\nMax-Forwards: 0\r\n\r\n" % app.port)
    assert (await peer.head()).startswith(b"HTTP/1.1 204 ")


async def test_credentials_were_asked_for_outside(rig):
    class Guarded:
        name = "guarded"
        private = False
        local = True
        guarded = True
        asked = 0

        def admits(self, transport):
            return True

        def authenticates(self, credentials, client):
            self.asked += 1
            return credentials == b"Basic eA=="

    await rig.start()
    app = await rig.answering(OK)
    read(rig, app)
    entrance = Guarded()
    server = await asyncio.get_running_loop().create_server(
        lambda: rig.relay.connection(entrance=entrance), "127.0.0.1", 0
    )
    rig.port = server.sockets[0].getsockname()[1]
    peer = await rig.peer()
    peer.send(connect(app.port))
    assert (await peer.answer())[0].startswith(b"HTTP/1.1 407 ")
    peer.send(connect(app.port)[:-2] + b"Proxy-Authorization: Basic eA==\r\n\r\n")
    assert await peer.head() == ESTABLISHED
    peer.send(get(app, b"Authorization: Bearer x\r\n"))
    assert (await peer.answer())[1] == b"hello"
    assert entrance.asked == 2
    assert b"\r\nAuthorization: Bearer x\r\n" in app.received
    assert rig.steering.exchanges[0].entrance is entrance
    server.close()


@pytest.mark.parametrize("sent", [b"", b"GET / HT"])
async def test_a_tunnel_that_says_nothing_ends(rig, sent):
    await rig.start(Limits(idle_connection=0.15, client_head=0.15))
    app = await rig.answering(OK)
    peer = await tunnel(rig, app)
    peer.send(sent)
    assert (await peer.rest()).startswith(b"HTTP/1.1 408 " if sent else b"")
    assert rig.dialer.dials == 0


async def test_a_reply_inside_keeps_the_tunnel(rig):
    await rig.start()
    app = await rig.answering(OK)

    async def reply():
        return Reply(302, [(b"Location", b"/x")])

    rig.steering.on_before = lambda _: reply()
    peer = await tunnel(rig, app)
    for _ in range(2):
        peer.send(get(app))
        assert (await peer.answer())[0].startswith(b"HTTP/1.1 302 ")


# -- the hostile corpus, inside --------------------------------------------------------------------

# What these say is about the form of the target, or is another matter inside.
_OTHER_INSIDE = {
    "origin-form without own pages",
    "Host disagrees",
    "empty Host",
    "no path",
    "query without path",
    "OPTIONS of the whole server",
}


def inside(text: str) -> str:
    text = re.sub(r"http://app\.test:%PORT%(?=/)", "", text, flags=re.IGNORECASE)
    return re.sub(r"\r\nHost: app\.test\r\n", "\r\nHost: app.test:%PORT%\r\n", text)


def written(case: dict, key: str, port: int) -> bytes:
    piece, times = case.get("repeat", ["", 0])
    text = inside(case[key]) + piece * times + case.get("then", "")
    return text.replace("%PORT%", str(port)).encode("latin-1")


def cases(kind: str):
    chosen = [case for case in VECTORS[kind] if case["name"] not in _OTHER_INSIDE]
    return pytest.mark.parametrize("case", chosen, ids=lambda case: case["name"])


@cases("refused")
async def test_a_refused_request_reaches_nobody_inside_either(rig, case):
    await rig.start()
    app = await rig.answering(OK)
    peer = await tunnel(rig, app)
    sent = written(case, "send", app.port)
    peer.send(sent + (b"" if "then" in case else get(app)))
    answer = await peer.rest()
    allowed = {case["status"]}
    if sent.startswith(b"CONNECT") or not re.match(rb"[^ ]+ +/", sent):
        allowed |= {400, 405, 421}
    assert int(answer[9:12]) in allowed, answer[:100]
    assert len(re.findall(rb"^HTTP/1.1 ", answer, re.MULTILINE)) == 1
    assert b"\r\nConnection: close\r\n" in answer
    assert (app.connections, rig.dialer.dials) == (0, 0)
    assert rig.steering.exchanges == []


@cases("accepted")
async def test_an_accepted_request_arrives_as_it_should_inside_too(rig, case):
    await rig.start()
    app = await rig.answering(b"HTTP/1.1 204 No Content\r\n\r\n")
    peer = await tunnel(rig, app)
    peer.send(written(case, "send", app.port))
    assert (await peer.head()).startswith(b"HTTP/1.1 204 ")
    forwarded = case["forwarded"].replace("%PORT%", str(app.port)).encode("latin-1")
    await rig.until(lambda: len(app.received) >= len(forwarded))
    assert bytes(app.received) == forwarded
