"""CONNECT whose TLS is ended here: the same exchanges, behind a handshake of our own."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import SimpleNamespace

import pytest
import trustme

from iam_auth_proxy.errors import PathError
from iam_auth_proxy.names import Origin
from iam_auth_proxy.relay.certificate_refusals import REMEMBERED, SOON, Refusals
from iam_auth_proxy.relay.exchange import REPEAT, Reply
from iam_auth_proxy.relay.hello import write_alert
from iam_auth_proxy.relay.intercept import Guest
from iam_auth_proxy.relay.limits import Limits
from tests.relay.conftest import Peer, Rig, read_head
from tests.support.hellos import (
    client_hello,
    hello_of,
    protocols,
    records,
    server_name,
    versions,
)

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"
ESTABLISHED = b"HTTP/1.1 200 Connection established\r\n\r\n"
CA = trustme.CA()
HOST = "app.test"


def server_context(host: str = HOST) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    CA.issue_cert(host).configure_cert(context)
    return context


def trusting(authority: trustme.CA) -> ssl.SSLContext:
    """A client's. Without the system's store: reading that takes longer than a handshake."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    authority.configure_trust(context)
    return context


def client_context(*protocols: str) -> ssl.SSLContext:
    context = trusting(CA)
    if protocols:
        context.set_alpn_protocols(list(protocols))
    return context


class Leaf:
    """Has the certificate, or an error in its place; waits where it is told to."""

    def __init__(self) -> None:
        self.made = server_context()
        self.asked = 0
        self.error: Exception | None = None
        self.gate: asyncio.Event | None = None

    async def context(self, hello) -> ssl.SSLContext:
        self.asked += 1
        assert hello.server_name == HOST
        if self.gate is not None:
            await self.gate.wait()
        if self.error is not None:
            raise self.error
        return self.made


def connect(port: int, host: bytes = b"app.test") -> bytes:
    return b"CONNECT %b:%d HTTP/1.1\r\nHost: %b:%d\r\n\r\n" % (host, port, host, port)


def get(app, lines: bytes = b"", path: bytes = b"/") -> bytes:
    return b"GET %b HTTP/1.1\r\nHost: app.test:%d\r\n%b\r\n" % (path, app.port, lines)


def listed(rig: Rig, app) -> Leaf:
    leaf = Leaf()
    rig.steering.tls[Origin("https", HOST, app.port)] = leaf
    return leaf


async def tunnel(rig: Rig, app) -> Peer:
    """A client whose CONNECT to a listed host was answered."""
    listed(rig, app)
    peer = await rig.peer()
    peer.send(connect(app.port))
    assert await peer.head() == ESTABLISHED
    return peer


async def shake(peer: Peer, context: ssl.SSLContext | None = None, host: str = HOST) -> None:
    await peer.writer.start_tls(context or client_context(), server_hostname=host)


async def inside(rig: Rig, app, context: ssl.SSLContext | None = None) -> Peer:
    """A client inside TLS that was ended here."""
    peer = await tunnel(rig, app)
    await shake(peer, context)
    return peer


async def test_requests_inside_are_exchanges_as_all_others(rig):
    await rig.start()
    app = await rig.answering(OK)
    peer = await inside(rig, app)
    assert rig.dialer.dials == 0  # nobody has asked for anything
    for _ in range(2):
        peer.send(get(app))
        assert (await peer.answer())[1] == b"hello"
    origin = f"https://app.test:{app.port}"
    assert [str(exchange.origin) for exchange in rig.steering.exchanges] == [origin] * 2
    counters = rig.relay.counters
    assert (counters.tls_ended, counters.tunnels, counters.requests) == (1, 0, 3)


# -- the hello, in every shape ---------------------------------------------------------------------


class Hand:
    """A client's half of TLS, a step at a time."""

    def __init__(self, context: ssl.SSLContext, host: str | None = HOST) -> None:
        self._in, self._out = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self._in, self._out, server_hostname=host)

    def step(self, data: bytes = b"") -> bytes:
        """What is to be sent after this came; the handshake goes as far as it can."""
        self._in.write(data)
        try:
            self.tls.do_handshake()
        except ssl.SSLWantReadError:
            pass
        return self._out.read()

    async def finish(self, peer: Peer, data: bytes) -> None:
        """The rest of the handshake; ``data`` is what has come already."""
        peer.send(self.step(data))
        while self.tls.version() is None:
            peer.send(self.step(await peer.reader.read(65536)))

    async def refuse(self, peer: Peer) -> None:
        """Say hello, and then what is wrong with the certificate."""
        peer.send(self.step())
        try:
            while True:
                peer.send(self.step(await peer.reader.read(65536)))
        except ssl.SSLCertVerificationError:
            peer.send(self._out.read())

    def write(self, data: bytes) -> bytes:
        self.tls.write(data)
        return self._out.read()

    def close(self) -> bytes:
        """close_notify: it writes no more, and would read on."""
        with contextlib.suppress(ssl.SSLWantReadError):
            self.tls.unwrap()
        return self._out.read()

    async def answer(self, peer: Peer) -> bytes:
        while True:
            try:
                return self.tls.read(65536)
            except ssl.SSLWantReadError:
                self._in.write(await asyncio.wait_for(peer.reader.read(65536), 5))


async def test_a_hello_that_comes_with_the_connect(rig):
    await rig.start()
    app = await rig.answering(OK)
    listed(rig, app)
    hand, peer = Hand(client_context()), await rig.peer()
    peer.send(connect(app.port) + hand.step())
    assert await peer.head() == ESTABLISHED
    await hand.finish(peer, await peer.reader.read(65536))
    peer.send(hand.write(get(app)))
    assert (await hand.answer(peer)).endswith(b"hello")


@pytest.mark.parametrize("size", [1, 7, 200])
async def test_a_hello_in_many_records_and_pieces(rig, size):
    await rig.start()
    app = await rig.answering(OK)
    peer = await tunnel(rig, app)
    hand = Hand(client_context())
    hello = records(hand.step()[5:], size)
    step = 1 if size == 7 else len(hello)
    for at in range(0, len(hello), step):
        peer.send(hello[at : at + step])
        await asyncio.sleep(0)
    await hand.finish(peer, await peer.reader.read(65536))
    peer.send(hand.write(get(app)))
    assert (await hand.answer(peer)).endswith(b"hello")


async def test_a_request_that_comes_with_the_end_of_the_handshake(rig):
    """It reaches us before the handshake has returned, on both loops."""
    await rig.start()
    app = await rig.answering(OK)
    peer = await tunnel(rig, app)
    hand = Hand(client_context())
    peer.send(hand.step())
    finished = hand.step(await peer.reader.read(65536))
    assert hand.tls.version() is not None
    peer.send(finished + hand.write(get(app, path=b"/1") + get(app, path=b"/2")))
    got = b""
    while got.count(b"hello") < 2:
        got += await hand.answer(peer)
    assert app.received.index(b"/1") < app.received.index(b"/2")


H1, H2 = protocols(b"http/1.1"), protocols(b"h2")
NAMED = server_name(b"app.test")
TLS13 = versions(0x0304, 0x0303)


@pytest.mark.parametrize(
    ("hello", "alert"),
    [
        (records(client_hello(NAMED, H1, versions(0x0302, 0x0301))), 70),
        (records(client_hello(NAMED, H1, version=0x0301)), 70),
        (records(client_hello(H1, TLS13)), 109),
        (records(client_hello()), 109),
        (records(client_hello(server_name(b"evil.test"), TLS13)), 112),
        (records(client_hello(server_name(b"app.test.evil.test"), TLS13)), 112),
        (records(client_hello(server_name(b"sub.app.test"), TLS13)), 112),
        (records(client_hello(server_name(b"app..test"), TLS13)), 50),
        (records(client_hello(NAMED, NAMED)), 47),
        (records(client_hello(NAMED, (21, bytes(17_000)))), 47),
        (records(client_hello(NAMED, (21, bytes(10_000))), 1), 47),
        (records(b"\x01\xff\xff\xff" + bytes(40_000)), 47),
        (records(client_hello(NAMED, TLS13), 20)[:25] + b"\x15\x03\x01\x00\x02", 10),
        (b"\x16\x03\x01\x00\x00", 50),
        (b"\x16\x02\x00\x00\x10", 50),
        (records(b"\x02\0\0\1x"), 10),
    ],
)
async def test_a_hello_that_is_refused_gets_an_alert_and_a_close(rig, hello, alert):
    await rig.start()
    app = await rig.answering(OK)
    leaf_asked = rig.steering.tls
    peer = await tunnel(rig, app)
    peer.send(hello)
    assert await peer.rest() == write_alert(alert)
    (leaf,) = leaf_asked.values()
    assert (leaf.asked, rig.dialer.dials) == (0, 0)
    assert rig.relay.counters.tls_failed == 1


async def test_plain_http_where_tls_belongs(rig):
    await rig.start()
    app = await rig.answering(OK)
    peer = await tunnel(rig, app)
    peer.send(get(app))
    answer = await peer.rest()
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert answer.endswith(b"This tunnel is for https, and this is plain HTTP.")
    assert (rig.dialer.dials, rig.relay.counters.refused) == (0, {400: 1})


@pytest.mark.parametrize("sent", [b"\x80\x2e\x01\x00\x02", b"\x00" * 10, b"\x15\x03\x01\x00\x02"])
async def test_what_is_neither_is_closed_without_a_word(rig, sent):
    await rig.start()
    app = await rig.answering(OK)
    peer = await tunnel(rig, app)
    peer.send(sent)
    assert await peer.rest() == b""
    assert rig.dialer.dials == 0


# -- who is intercepted ----------------------------------------------------------------------------


@asynccontextmanager
async def tls_app(rig: Rig) -> AsyncIterator[tuple[int, trustme.CA]]:
    """An app on TLS with a certificate of an authority of its own."""
    theirs = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.set_alpn_protocols(["h2", "http/1.1"])
    theirs.issue_cert(HOST).configure_cert(context)

    async def serve(reader, writer):
        try:
            while await reader.readuntil(b"\r\n\r\n"):
                writer.write(OK)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
    try:
        yield server.sockets[0].getsockname()[1], theirs
    finally:
        server.close()


async def connected(rig: Rig, port: int) -> Peer:
    peer = await rig.peer()
    peer.send(connect(port))
    assert await peer.head() == ESTABLISHED
    return peer


def issuer(peer: Peer) -> str:
    certificate = peer.writer.get_extra_info("peercert")
    return dict(pair for (pair,) in certificate["issuer"])["organizationalUnitName"]


def unit(authority: trustme.CA) -> str:
    """What tells trustme's authorities apart."""
    from cryptography import x509

    name = x509.load_pem_x509_certificate(authority.cert_pem.bytes()).subject
    return str(name.get_attributes_for_oid(x509.NameOID.ORGANIZATIONAL_UNIT_NAME)[0].value)


async def test_who_is_not_listed_shows_its_own_certificate(rig):
    await rig.start()
    async with tls_app(rig) as (port, theirs):
        rig.steering.tls[Origin("https", HOST, port + 1)] = Leaf()
        peer, context = await connected(rig, port), trusting(theirs)
        await shake(peer, context)
        assert issuer(peer) == unit(theirs)
        assert (rig.relay.counters.tunnels, rig.relay.counters.tls_ended) == (1, 0)
        await peer.close()


async def test_a_fault_of_the_question_leaves_the_tunnel_unread(rig, caplog):
    def fails(origin):
        raise KeyError(origin)

    await rig.start()
    app = await rig.answering(OK)
    rig.steering.ends_tls = fails
    peer = await connected(rig, app.port)
    peer.send(get(app))
    assert (await peer.answer())[1] == b"hello"
    assert "a decision about a tunnel failed" in caplog.text


@pytest.mark.parametrize("offered", [(), ("http/1.1",), ("h2", "http/1.1")])
@pytest.mark.parametrize("highest", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_http11_is_what_is_spoken(rig, offered, highest):
    await rig.start()
    app = await rig.answering(OK)
    context = client_context(*offered)
    context.maximum_version = highest
    peer = await inside(rig, app, context)
    tls = peer.writer.get_extra_info("ssl_object")
    assert tls.selected_alpn_protocol() == ("http/1.1" if offered else None)
    peer.send(get(app))
    assert (await peer.answer())[1] == b"hello"


async def test_who_speaks_http2_alone_is_tunnelled(rig):
    await rig.start()
    async with tls_app(rig) as (port, theirs):
        leaf = rig.steering.tls[Origin("https", HOST, port)] = Leaf()
        context = trusting(theirs)
        context.set_alpn_protocols(["h2"])
        peer = await connected(rig, port)
        await shake(peer, context)
        assert peer.writer.get_extra_info("ssl_object").selected_alpn_protocol() == "h2"
        assert (leaf.asked, rig.relay.counters.tunnels) == (0, 1)
        await peer.close()


async def test_who_refuses_our_certificate_is_tunnelled_next(rig, caplog):
    """It then checks the app's own, by its own rules: nothing is weaker than without us."""
    caplog.set_level(logging.INFO)
    await rig.start()
    async with tls_app(rig) as (port, theirs):
        leaf = rig.steering.tls[Origin("https", HOST, port)] = Leaf()
        theirs_alone = trusting(theirs)
        await Hand(theirs_alone).refuse(await connected(rig, port))
        await rig.until(lambda: rig.relay.counters.tls_refused == 1)
        (record,) = [record for record in caplog.records if record.levelno == logging.WARNING]
        assert f"our certificate for https://app.test:{port}" in record.message
        assert "iam-auth-proxy ca install" in record.message
        assert record.reason == "TLSV1_ALERT_UNKNOWN_CA"

        peer = await connected(rig, port)
        await shake(peer, theirs_alone)
        assert issuer(peer) == unit(theirs)
        await peer.close()
        assert leaf.asked == 1
        other = client_context("http/1.1")  # another hello
        peer = await connected(rig, port)
        await shake(peer, other)
        assert issuer(peer) == unit(CA)
        await peer.close()

        shared = rig.relay._shared
        shared.sweep.now += REMEMBERED
        assert not shared.refusals.holds(
            (Origin("https", HOST, port), record.hello), shared.sweep.now
        )


async def test_who_closes_on_our_certificate_twice_is_tunnelled(rig):
    await rig.start()
    async with tls_app(rig) as (port, theirs):
        rig.steering.tls[Origin("https", HOST, port)] = Leaf()
        for count in range(2):
            peer = await connected(rig, port)
            peer.send(hello_of(client_context(), HOST))
            await peer.reader.read(1)
            await peer.close()
            await rig.until(lambda: rig.relay.clients == 0)
            assert rig.relay.counters.tls_refused == count
        context = trusting(theirs)
        peer = await connected(rig, port)
        await shake(peer, context)
        assert issuer(peer) == unit(theirs)
        await peer.close()


async def test_who_spoke_once_may_close_as_often_as_it_likes(rig):
    """A page can have its browser give connections up; it is no refusal of the browser's."""
    await rig.start()
    app = await rig.answering(OK)
    peer = await inside(rig, app)
    peer.send(get(app))
    await peer.answer()
    for _ in range(4):
        peer = await connected(rig, app.port)
        peer.send(hello_of(client_context(), HOST))
        await peer.reader.read(1)
        await peer.close()
    for _ in range(4):
        peer = await connected(rig, app.port)
        await shake(peer)
        await peer.close()
    await rig.until(lambda: rig.relay.clients == 1)
    assert rig.relay.counters.tls_refused == 0


def ssl_error(reason: str) -> ssl.SSLError:
    error = ssl.SSLError(1, reason)
    error.reason = reason
    return error


@pytest.mark.parametrize(
    ("error", "after", "times", "refusal"),
    [
        (ssl_error("TLSV1_ALERT_UNKNOWN_CA"), 100.0, 1, True),
        (ssl_error("TLSV1_ALERT_INTERNAL_ERROR"), 0.0, 3, False),  # another fault
        (None, 0.0, 1, False),
        (None, 0.0, 2, True),
        (None, SOON + 0.1, 3, False),  # a connection that was opened ahead, and not used
        (ConnectionResetError(), 0.0, 2, True),
        (ssl.SSLEOFError(8, "EOF"), 0.0, 2, True),
    ],
)
def test_what_is_a_refusal(error, after, times, refusal):
    key = (Origin("https", HOST, 443), "x")
    sweep, counters = SimpleNamespace(now=10.0), SimpleNamespace(tls_refused=0)
    shared = SimpleNamespace(sweep=sweep, counters=counters, refusals=Refusals())
    for _ in range(times):
        guest = Guest(shared, key, "127.0.0.1:1")
        sweep.now += after
        found = guest.refuses(error)
    assert found is refusal
    assert shared.refusals.holds(key, sweep.now) is refusal


async def test_who_closes_after_the_handshake_twice_is_tunnelled(rig):
    """As GnuTLS's wget does, that looks at the certificate when the handshake is over."""
    await rig.start()
    app = await rig.answering(OK)
    for count in range(2):
        peer = await inside(rig, app)
        await peer.close()
        await rig.until(lambda: rig.relay.clients == 0)
        assert rig.relay.counters.tls_refused == count


@pytest.mark.parametrize(
    ("error", "token"),
    [
        (PathError("no", error="connection_refused"), "connection_refused"),
        (KeyError("a fault"), "proxy_internal_error"),
    ],
)
async def test_a_tunnel_that_cannot_be_dialled_any_more_just_closes(rig, error, token):
    await rig.start()
    app = await rig.answering(OK)
    peer = await tunnel(rig, app)
    rig.dialer.error = error
    peer.send(records(client_hello(NAMED, TLS13, H2)))
    with pytest.raises(ConnectionResetError):
        await peer.rest()
    assert rig.relay.counters.failed == {token: 1}


@pytest.mark.parametrize(
    "error", [PathError("no CA", error="proxy_configuration_error"), KeyError("x")]
)
async def test_without_a_certificate_it_is_tunnelled(rig, error, caplog):
    await rig.start()
    async with tls_app(rig) as (port, theirs):
        leaf = rig.steering.tls[Origin("https", HOST, port)] = Leaf()
        leaf.error = error
        context = trusting(theirs)
        peer = await connected(rig, port)
        await shake(peer, context)
        assert issuer(peer) == unit(theirs)
        assert [record.levelno for record in caplog.records] == [logging.ERROR]
        await peer.close()


# -- inside ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"GET /%d HTTP/1.1\r\nHost: evil.test:%d\r\n\r\n", 421),
        (b"GET /%d HTTP/1.1\r\nHost: app.test\r\nX: %d\r\n\r\n", 421),
        (b"GET https://app.test:%d/ HTTP/1.1\r\nHost: app.test:%d\r\n\r\n", 421),
        (b"GET http://127.0.0.1:%d/ HTTP/1.1\r\nHost: app.test:%d\r\n\r\n", 421),
        (b"CONNECT evil.test:%d HTTP/1.1\r\nHost: app.test:%d\r\n\r\n", 405),
        (b"GET / HTTP/1.1\r\nX: %d %d\r\n\r\n", 400),
        (b"PRI * HTTP/2.0\r\n\r\nSM%d%d\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: app.test:%d\r\n X: obs-fold %d\r\n\r\n", 400),
    ],
)
async def test_requests_that_are_not_for_this_host(rig, sent, status):
    await rig.start()
    app = await rig.answering(OK)
    peer = await inside(rig, app)
    peer.send(sent % (app.port, app.port))
    head, _ = await peer.answer()
    assert head.startswith(b"HTTP/1.1 %d " % status)
    assert await peer.rest() == b""
    assert (rig.dialer.dials, rig.steering.exchanges) == (0, [])


async def test_an_answer_that_ends_with_its_connection(rig):
    async def serve(reader, writer):
        await read_head(reader)
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * 100_000)
        await writer.drain()
        writer.close()

    await rig.start()
    peer = await inside(rig, await rig.app(serve))
    (app,) = rig._apps
    peer.send(get(app).replace(b"HTTP/1.1", b"HTTP/1.0"))  # knows no chunks
    await peer.head()
    assert len(await peer.rest()) == 100_000


async def test_a_last_answer_to_a_client_that_takes_its_time(rig):
    """Closing TLS has deadlines in the libraries, which know nothing of slow clients."""
    size = 1_000_000

    async def serve(reader, writer):
        await read_head(reader)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size + b"x" * size)

    await rig.start(Limits(linger=0.1, idle_body=4))
    # So little in the kernels that what waits is in the relay, where it can be lost.
    (listener,) = rig._server.sockets
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 15)
    app = await rig.app(serve)
    listed(rig, app)
    hand, plain = Hand(client_context()), socket.socket()
    plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 15)
    plain.connect(("127.0.0.1", rig.port))
    peer = Peer(*await asyncio.open_connection(sock=plain, limit=1 << 14))
    rig._peers.append(peer)
    peer.send(connect(app.port) + hand.step())
    assert await peer.head() == ESTABLISHED
    await hand.finish(peer, await peer.reader.read(65536))
    peer.send(hand.write(get(app, b"Connection: close\r\n")))
    got = 0
    while data := await hand.answer(peer):
        got += len(data)
        await asyncio.sleep(0.005 if got < size * 0.6 else 0.02)
    assert got > size


async def test_an_answer_that_is_cut_off_is_seen_to_be(rig):
    async def serve(reader, writer):
        await read_head(reader)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nx")
        writer.close()

    await rig.start()
    peer = await inside(rig, await rig.app(serve))
    (app,) = rig._apps
    peer.send(get(app))
    await peer.head()
    with pytest.raises(OSError):  # a reset, or an end of TLS that was not announced
        await peer.rest()
    assert rig.relay.counters.aborted == 1


async def test_much_either_way_and_a_client_that_takes_its_time(rig):
    size = 3_000_000

    async def serve(reader, writer):
        await read_head(reader)
        got = await reader.readexactly(size)
        assert got == b"u" * size
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        for _ in range(size // 30_000):
            writer.write(b"7530\r\n" + b"d" * 30_000 + b"\r\n")
            await writer.drain()
        writer.write(b"0\r\n\r\n")
        await reader.read()

    await rig.start()
    peer = await inside(rig, await rig.app(serve))
    (app,) = rig._apps
    peer.send(get(app, b"Content-Length: %d\r\n" % size).replace(b"GET", b"POST"))
    peer.send(b"u" * size)
    await peer.head()
    await asyncio.sleep(0.05)  # nothing is read meanwhile: what is on its way stands still
    got = 0
    while got < size // 30_000 * (30_000 + 8) + 5:
        got += len(await peer.reader.read(100_000))


async def test_a_websocket_inside(rig):
    async def serve(reader, writer):
        await read_head(reader)
        writer.write(
            b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
        )
        while data := await reader.read(65536):
            writer.write(data)

    await rig.start()
    peer = await inside(rig, await rig.app(serve))
    (app,) = rig._apps
    peer.send(get(app, b"Connection: Upgrade\r\nUpgrade: websocket\r\n"))
    assert (await peer.head()).startswith(b"HTTP/1.1 101 ")
    for data in (b"ping", b"x" * 1_500_000):  # more than a plain tunnel is spliced from
        peer.send(data)
        assert await peer.exactly(len(data)) == data
    await peer.close()
    await rig.until(lambda: rig.relay.clients == 0)


async def test_a_request_inside_can_be_answered_here_and_repeated(rig):
    async def serve(reader, writer):
        while True:
            head = await read_head(reader)
            good = b"Cookie" in head
            writer.write(OK if good else b"HTTP/1.1 401 No\r\nContent-Length: 0\r\n\r\n")

    def after(exchange, answer):
        async def decide():
            exchange.request.headers.append((b"Cookie", b"s=1"))
            return REPEAT

        return decide() if answer.status == 401 else None

    def before(exchange):
        async def decide():
            return Reply(303, [(b"Location", b"/there")])

        return decide() if exchange.request.target == b"/here" else None

    await rig.start()
    rig.steering.on_before, rig.steering.on_after = before, after
    peer = await inside(rig, await rig.app(serve))
    (app,) = rig._apps
    peer.send(get(app, path=b"/here"))
    assert (await peer.answer())[0].startswith(b"HTTP/1.1 303 ")
    peer.send(get(app))
    assert (await peer.answer())[1] == b"hello"


# -- ends ------------------------------------------------------------------------------------------


async def test_deadlines_of_a_client_that_says_nothing(rig):
    await rig.start(Limits(client_head=0.1, linger=0.1))
    app = await rig.answering(OK)
    for sent in (b"", hello_of(client_context(), HOST)[:100]):
        peer = await tunnel(rig, app)
        peer.send(sent)
        with pytest.raises(ConnectionResetError):
            await peer.rest()
    await rig.until(lambda: rig.relay.clients == 0)
    assert rig.relay.counters.expired == 2


async def test_a_client_that_stalls_in_the_handshake(rig):
    await rig.start(Limits(client_head=0.1, linger=0.1))
    app = await rig.answering(OK)
    peer = await tunnel(rig, app)
    peer.send(hello_of(client_context(), HOST))
    with contextlib.suppress(ConnectionResetError):
        assert await peer.rest()  # the certificate, and then nothing
    await rig.until(lambda: rig.relay.clients == 0)


async def test_an_idle_connection_inside_is_closed(rig):
    await rig.start(Limits(idle_connection=0.7))
    app = await rig.answering(OK)
    peer = await inside(rig, app)
    peer.send(get(app))
    await peer.answer()
    assert await peer.rest() == b""
    assert rig.relay.counters.tls_refused == 0


@pytest.mark.parametrize("rude", [False, True])
@pytest.mark.parametrize(
    "step", ["connect", "hello", "certificate", "handshake", "request", "record"]
)
async def test_a_client_that_dies(rig, step, rude):
    """At each step nothing of it is left: the rig counts."""
    await rig.start()
    app = await rig.answering(OK)
    peer = await tunnel(rig, app)
    (leaf,) = rig.steering.tls.values()
    hand = Hand(client_context())
    hello = hand.step()
    if step == "hello":
        peer.send(hello[:50])
    elif step == "certificate":
        leaf.gate = asyncio.Event()
        peer.send(hello)
        await rig.until(lambda: leaf.asked == 1)
    elif step != "connect":
        peer.send(hello)
        answer = await peer.reader.read(65536)
        if step != "handshake":
            await hand.finish(peer, answer)
            request = hand.write(get(app))
            peer.send(request if step == "request" else request[:20])
    if step == "request":
        await rig.until(lambda: rig.relay.counters.requests == 2)
    if rude:
        peer.reset()
    else:
        peer.writer.close()
    if leaf.gate is not None:
        leaf.gate.set()
    await rig.until(lambda: rig.relay.clients == 0)


@pytest.mark.parametrize("highest", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_a_client_that_ends_its_side_of_tls_is_gone(rig, highest):
    """No loop's TLS writes on after close_notify: the request ends at once, and the app sees it."""
    await rig.start()
    ended = asyncio.Event()

    async def serve(reader, writer):
        await read_head(reader)
        with contextlib.suppress(ConnectionError):
            await reader.read(1)
        ended.set()

    context = client_context()
    context.maximum_version = highest
    app, hand = await rig.app(serve), Hand(context)
    peer = await tunnel(rig, app)
    peer.send(hand.step())
    await hand.finish(peer, await peer.reader.read(65536))
    peer.send(hand.write(get(app)))
    await rig.until(lambda: app.connections == 1)
    peer.send(hand.close())
    await asyncio.wait_for(ended.wait(), 5)
    await rig.until(lambda: rig.relay.clients == 0 and not rig.relay._shared.tasks)


@pytest.mark.parametrize("way", ["close", "shutdown", "abort", "end_clients", "relay"])
@pytest.mark.parametrize("step", ["connect", "certificate", "handshake", "inside", "asked"])
async def test_the_relay_ends_it(rig, step, way):
    await rig.start()
    gate = asyncio.Event()

    async def serve(reader, writer):
        await read_head(reader)
        await gate.wait()
        writer.write(OK)

    app = await rig.app(serve)
    peer = await tunnel(rig, app)
    (leaf,) = rig.steering.tls.values()
    if step == "certificate":
        leaf.gate = asyncio.Event()
        peer.send(hello_of(client_context(), HOST))
        await rig.until(lambda: leaf.asked == 1)
    elif step == "handshake":
        peer.send(hello_of(client_context(), HOST))
        await peer.reader.read(10)
    elif step != "connect":
        await shake(peer)
        await rig.until(lambda: rig.relay.counters.tls_ended == 1)
        if step == "asked":
            peer.send(get(app))
            await rig.until(lambda: app.connections == 1)
    (client,) = rig.relay._shared.clients
    if way == "close":
        client.close()
        gate.set()
        if step == "asked":
            assert (await peer.answer())[1] == b"hello"
    elif way == "shutdown":
        await client.shutdown(0.05)
    elif way == "abort":
        client.abort()
    elif way == "end_clients":
        assert rig.relay.end_clients([client.entrance]) == 1
    else:
        await rig.relay.close()
    await rig.until(lambda: rig.relay.clients == 0 and not rig.relay._shared.tasks)


async def test_what_is_listed_no_more_is_read_no_more(rig):
    await rig.start()
    app = await rig.answering(OK)
    idle, busy = await inside(rig, app), await inside(rig, app)
    asked = asyncio.Event()

    async def wait() -> None:
        await asked.wait()

    rig.steering.on_before = lambda exchange: wait()
    busy.send(get(app))
    await rig.until(lambda: len(rig.steering.exchanges) == 1)
    rig.relay.close_unlisted()
    await asyncio.sleep(0)
    assert rig.relay.clients == 2  # it is listed
    rig.steering.tls.clear()
    rig.relay.close_unlisted()
    assert await idle.rest() == b""
    asked.set()
    assert b"Connection: close" in await busy.head()
    assert await busy.rest() == b"hello"


async def test_an_idle_client_sees_a_proper_end(rig):
    await rig.start()
    app = await rig.answering(OK)
    peer = await inside(rig, app)
    await rig.until(lambda: rig.relay.counters.tls_ended == 1)
    (client,) = rig.relay._shared.clients
    client.close()
    assert await peer.rest() == b""


def test_alerts_are_whole_records():
    assert write_alert(112) == bytes.fromhex("15030300020270")
