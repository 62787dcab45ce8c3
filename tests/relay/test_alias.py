"""An app that is known on the proxy's own port by another name."""

from __future__ import annotations

import asyncio

import pytest

from iam_auth_proxy.names import Origin
from iam_auth_proxy.relay.exchange import REPEAT
from tests.relay.conftest import read_head

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"
NAME = b"wiki.localhost:8080"


def get(lines: bytes = b"", path: bytes = b"/", host: bytes = NAME) -> bytes:
    return b"GET %b HTTP/1.1\r\nHost: %b\r\n%b\r\n" % (path, host, lines)


@pytest.fixture
def known(rig):
    """Makes an app known, and says what Host becomes."""

    def as_alias(app) -> bytes:
        rig.steering.aliases[NAME] = Origin("http", "app.test", app.port)
        return b"app.test:%d" % app.port

    return as_alias


async def test_a_request_by_the_other_name_is_an_exchange_of_the_app(rig, known):
    await rig.start()
    app = await rig.answering(OK)
    host = known(app)
    peer = await rig.peer()
    for path in (b"/a?b", b"//evil.test/"):
        peer.send(get(path=path))
        assert (await peer.answer())[1] == b"hello"
    mark = b"CDN-Loop: iam-auth-proxy\r\n"
    assert bytes(app.received) == b"".join(
        get(mark, path, host) for path in (b"/a?b", b"//evil.test/")
    )
    assert [(each.origin, each.alias) for each in rig.steering.exchanges] == [
        (Origin("http", "app.test", app.port), b"http://" + NAME)
    ] * 2
    assert len(rig.steering.answers) == 2


async def test_the_name_in_capitals_is_the_same(rig, known):
    await rig.start()
    app = await rig.answering(OK)
    known(app)
    rig.steering.serves = lambda host, entrance: rig.steering.aliases.get(host.lower())
    peer = await rig.peer()
    peer.send(get(host=b"WIKI.localhost:8080 "))
    assert (await peer.answer())[1] == b"hello"
    assert rig.steering.exchanges[0].alias == b"http://wiki.localhost:8080"


@pytest.mark.parametrize(
    "request_", [get(host=b"docs.localhost:8080"), b"GET / HTTP/1.0\r\n\r\n"], ids=["other", "none"]
)
async def test_any_other_name_is_not(rig, known, request_):
    await rig.start()
    known(await rig.answering(OK))
    peer = await rig.peer()
    peer.send(request_)
    assert (await peer.head()).startswith(b"HTTP/1.1 421 ")
    assert rig.dialer.dials == 0


async def test_a_program_that_is_told_of_the_proxy_names_the_whole_url(rig, known):
    await rig.start()
    app = await rig.answering(OK)
    host = known(app)
    peer = await rig.peer()
    peer.send(get(path=b"http://WIKI.localhost:8080/a", host=b"other.test"))
    assert (await peer.answer())[1] == b"hello"
    assert bytes(app.received) == get(b"CDN-Loop: iam-auth-proxy\r\n", b"/a", host)
    assert rig.steering.exchanges[0].alias == b"http://wiki.localhost:8080"


async def test_hints_at_parts_of_the_page_stay_here(rig, known):
    await rig.start()
    hint = b"HTTP/1.1 103 Early Hints\r\nLink: <https://app.test/x>; rel=preload\r\n\r\n"
    known(await rig.answering(b"HTTP/1.1 100 Continue\r\nSet-Cookie: a=1\r\n\r\n" + hint + OK))
    peer = await rig.peer()
    peer.send(get())
    assert await peer.head() == b"HTTP/1.1 100 Continue\r\n\r\n"
    assert (await peer.head()).startswith(b"HTTP/1.1 200 ")


async def test_an_absolute_url_is_what_counts(rig, known):
    """RFC 9112 section 3.2.2: Host is not looked at then."""
    await rig.start()
    app, other = await rig.answering(OK), await rig.answering(OK)
    known(app)
    peer = await rig.peer()
    peer.send(get(path=b"http://other.test:%d/" % other.port))
    await peer.answer()
    assert (app.connections, other.connections) == (0, 1)
    assert rig.steering.exchanges[0].alias == b""


async def test_a_fragment_is_no_part_of_a_target(rig, known):
    await rig.start()
    known(await rig.answering(OK))
    peer = await rig.peer()
    peer.send(get(path=b"/a#b"))
    assert (await peer.head()).startswith(b"HTTP/1.1 400 ")
    assert rig.dialer.dials == 0


async def test_fields_are_rewritten_before_and_after(rig, known):
    await rig.start()
    app = await rig.answering(OK)
    known(app)
    rig.steering.on_before = lambda exchange: exchange.request.headers.append((b"A", b"1"))
    rig.steering.on_after = lambda exchange, answer: answer.headers.append((b"B", b"2"))
    peer = await rig.peer()
    peer.send(get())
    assert b"\r\nB: 2\r\n" in (await peer.answer())[0]
    assert b"\r\nA: 1\r\n" in app.received


async def test_a_request_is_repeated_as_any_other(rig, known):
    await rig.start()
    app = await rig.answering(OK)
    known(app)

    async def repeat():
        return REPEAT

    rig.steering.on_after = lambda exchange, answer: None if exchange.repeated else repeat()
    peer = await rig.peer()
    peer.send(get())
    assert (await peer.answer())[1] == b"hello"
    assert app.received.count(b"GET / ") == 2


async def test_a_websocket_and_what_is_said_on_it(rig, known):
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_head(reader)
        writer.write(
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n"
        )
        writer.write(await reader.readexactly(5))
        await writer.drain()

    await rig.start()
    known(await rig.app(serve))
    peer = await rig.peer()
    peer.send(get(b"Connection: Upgrade\r\nUpgrade: websocket\r\n"))
    assert (await peer.head()).startswith(b"HTTP/1.1 101 ")
    peer.send(b"hello")
    assert await peer.reader.readexactly(5) == b"hello"
    assert [answer.status for answer in rig.steering.answers] == [101]


async def test_a_fault_of_the_question_serves_nobody(rig, known, caplog):
    def fails(host, entrance):
        raise KeyError(host)

    await rig.start()
    known(await rig.answering(OK))
    rig.steering.serves = fails
    peer = await rig.peer()
    peer.send(get())
    assert (await peer.head()).startswith(b"HTTP/1.1 421 ")
    assert "a decision about a host failed" in caplog.text


async def test_a_loop_is_seen(rig, known):
    await rig.start()
    app = await rig.answering(OK)
    known(app)
    peer = await rig.peer()
    peer.send(get(b"CDN-Loop: iam-auth-proxy\r\n"))
    await peer.answer()
    assert rig.steering.errors[0].error == "proxy_loop_detected"
    assert app.connections == 0
