"""TLS towards apps, against real peers, on both loops: verified, or not at all."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import ssl
import threading
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import trustme
from cryptography.hazmat.primitives import serialization
from hypothesis import example, given, settings
from hypothesis import strategies as st

from iam_auth_proxy.errors import PathError
from iam_auth_proxy.names import Origin
from iam_auth_proxy.relay import tls
from iam_auth_proxy.relay.addresses import AddressPolicy, parse_target
from iam_auth_proxy.relay.deadlines import Sweep
from iam_auth_proxy.relay.dial import TcpDialer
from iam_auth_proxy.relay.exchange import Exchange, RequestHead
from iam_auth_proxy.relay.limits import Limits
from iam_auth_proxy.relay.origin import OriginConnection
from iam_auth_proxy.relay.tls import ClientIdentity, ClientTls
from iam_auth_proxy.relay.tls_failures import read_certificate
from iam_auth_proxy.relay.via import parse_connect_to, parse_via
from tests.support import tls_peers
from tests.support.sockets import sockets_open
from tests.support.tls_peers import HOST, OK, PEERS, server_context, speaking
from tests.support.upstreams import HttpConnect, Socks4, Socks5, Upstream
from tests.support.vectors import FOLDER

pytestmark = pytest.mark.usefixtures("little_to_search")

APP = Origin("https", HOST, 443)
AUTHORITY = trustme.CA()
FAILURES = json.loads((FOLDER / "tls_failures.json").read_text("utf-8"))["failures"]


@pytest.fixture(autouse=True)
def no_system_store(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """This machine's own authorities are none of a test's, and take a while to read."""
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("SSL_CERT_DIR", str(tmp_path / "none"))


@pytest.fixture
def authority_file(tmp_path: Path) -> str:
    return tls_peers.authority_file(AUTHORITY, tmp_path)


def dialer_to(port: int, authority: str, **more: Any) -> TcpDialer:
    """The dialer of the proxy, to which app.test is that port."""
    return TcpDialer(
        AddressPolicy([parse_target("127.0.0.0/8")]),
        connect_to=[parse_connect_to(f"{HOST}:443:127.0.0.1:{port}")],
        tls=ClientTls(authority),
        **more,
    )


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not condition():  # noqa: ASYNC110  # what is waited for announces nothing
            await asyncio.sleep(0.002)


class Through:
    """A relay whose requests all go to the https origin ``app.test``."""

    def __init__(self, rig: Any) -> None:
        self.rig = rig
        self.identified = False

    async def start(self, dialer: TcpDialer, *limits: Any) -> None:
        self.rig.dialer = dialer
        self.rig.steering.on_before = self._to_https
        await self.rig.start(*limits)

    def _to_https(self, exchange: Exchange) -> None:
        exchange.origin = APP
        exchange.identified = self.identified

    async def get(self, path: str = "/", fields: bytes = b"") -> tuple[bytes, bytes]:
        peer = await self.rig.peer()
        peer.send(b"GET http://app.test%b HTTP/1.1\r\nHost: app.test\r\n" % path.encode())
        peer.send(fields + b"\r\n")
        return await peer.answer()


@pytest.fixture
async def through(rig: Any) -> Through:
    return Through(rig)


# -- what is wrong ---------------------------------------------------------------------------------


@pytest.mark.parametrize("case", [pytest.param(case, id=case["peer"]) for case in FAILURES])
async def test_what_is_wrong_is_said_and_nothing_goes_on(
    through: Through, case: dict[str, Any], authority_file: str, tmp_path: Path
) -> None:
    before = sockets_open()
    async with PEERS[case["peer"]](AUTHORITY, tmp_path) as port:
        deadline = 0.3 if case["status"] == 504 else 10.0
        await through.start(dialer_to(port, authority_file, deadline=deadline))
        head, body = await through.get()
        assert (int(head[9:12]), body.decode()) == (case["status"], case["error"])
        (error,) = through.rig.steering.errors
        assert case["says"] in error.public
        assert case["remedy"] in error.remedy
        assert error.public.isprintable()
        assert through.rig.relay.counters.failed == {case["error"]: 1}
        await until(lambda: through.rig.relay.origins == 0)
        await through.rig.stop()
    await until(lambda: sockets_open() <= before)


async def test_nothing_is_ever_sent_to_a_peer_that_is_not_verified(
    through: Through, authority_file: str
) -> None:
    """The bytes of the request, that is: the peer sees a handshake and its end."""
    heard: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heard.append(await reader.read(100))

    stranger = server_context(trustme.CA().issue_cert(HOST))
    async with speaking(stranger, serve) as port:
        await through.start(dialer_to(port, authority_file))
        for _ in range(3):
            assert (await through.get())[1] == b"tls_certificate_error"
    assert not any(heard)


def test_every_peer_that_is_refused_has_its_vector() -> None:
    assert {case["peer"] for case in FAILURES} == PEERS.keys() - {"good"}


# -- what is right ---------------------------------------------------------------------------------


async def test_an_https_exchange(through: Through, authority_file: str) -> None:
    seen: list[Any] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        made = writer.get_extra_info("ssl_object")
        seen.append((names[-1], made.selected_alpn_protocol(), made.version()))
        while head := await reader.readuntil(b"\r\n\r\n"):
            seen.append(head)
            writer.write(OK)

    names: list[str | None] = []
    context = server_context(AUTHORITY.issue_cert(HOST))
    context.sni_callback = lambda made, name, _: names.append(name)
    context.set_alpn_protocols(["h2", "http/1.1"])
    async with speaking(context, serve) as port:
        await through.start(dialer_to(port, authority_file))
        for _ in range(3):
            assert (await through.get("/x?y"))[1] == b"hello"
    assert seen[0] == (HOST, "http/1.1", "TLSv1.3")
    assert seen[1].startswith(b"GET /x?y HTTP/1.1\r\nHost: app.test\r\n")
    assert len(seen) == 4, "one connection carries them all"


@pytest.mark.parametrize(
    ("upstream_type", "scheme"),
    [(Socks5, "socks5h"), (Socks5, "socks5"), (Socks4, "socks4"), (HttpConnect, "http")],
)
async def test_through_an_upstream_proxy_the_name_stays_the_origins(
    upstream_type: type[Upstream], scheme: str, authority_file: str
) -> None:
    async def resolve(host: str, port: int) -> Any:
        return [(2, 1, 6, "", ("127.0.0.1", port))]

    async with speaking(server_context(AUTHORITY.issue_cert(HOST))) as port:
        at = ("127.0.0.1", port)
        async with upstream_type(names={HOST: at, "127.0.0.1": at}) as upstream:
            via = parse_via(f"{scheme}://127.0.0.1:{upstream.port}")
            dialer = TcpDialer(
                AddressPolicy([parse_target("127.0.0.0/8")]),
                via_for=lambda origin: via,
                trusted=lambda origin: True,
                resolve=resolve,
                tls=ClientTls(authority_file),
            )
            transport, _ = await dialer.secure(APP, asyncio.Protocol)
            made = transport.get_extra_info("ssl_object")
            assert made.server_hostname == HOST
            assert made.getpeercert()["subjectAltName"] == (("DNS", HOST),)
            transport.abort()
            with pytest.raises(PathError) as caught:
                await dialer.secure(Origin("https", "127.0.0.1", 443), asyncio.Protocol)
            assert caught.value.error == "tls_certificate_error", "for another name, by that way"
    assert upstream.asked[0] == ((HOST if scheme != "socks5" else "127.0.0.1"), 443)


@pytest.mark.parametrize(("never_by", "taken"), [("", True), ("Local", False), ("Other", True)])
async def test_an_authority_that_is_not_for_apps(
    never_by: str, taken: bool, tmp_path: Path
) -> None:
    local = trustme.CA(organization_name="Local")
    trusted = tls_peers.authority_file(local, tmp_path)
    async with speaking(server_context(local.issue_cert(HOST))) as port:
        dialer = TcpDialer(
            AddressPolicy([parse_target("127.0.0.0/8")]),
            connect_to=[parse_connect_to(f"{HOST}:443:127.0.0.1:{port}")],
            tls=ClientTls(trusted, never_by=never_by),
        )
        for _ in range(2):  # the second handshake may resume the first one's session
            if taken:
                transport, _ = await dialer.secure(APP, asyncio.Protocol)
                transport.abort()
                continue
            with pytest.raises(PathError) as caught:
                await dialer.secure(APP, asyncio.Protocol)
            assert caught.value.error == "tls_certificate_error"
            assert "a local CA" in caught.value.public
            assert "ca remove app.test" in caught.value.remedy


@pytest.mark.parametrize("host", ["app.test.", "127.0.0.1"])
async def test_names_as_tls_has_them(host: str, authority_file: str) -> None:
    names: list[str | None] = []
    context = server_context(AUTHORITY.issue_cert(host.rstrip(".")))
    context.sni_callback = lambda made, name, _: names.append(name)
    async with speaking(context) as port:
        dialer = TcpDialer(
            AddressPolicy([parse_target("127.0.0.0/8")]),
            connect_to=[parse_connect_to(f":443:127.0.0.1:{port}")],
            tls=ClientTls(authority_file),
        )
        transport, _ = await dialer.secure(Origin("https", host, 443), asyncio.Protocol)
        transport.abort()
    assert names == [None if host[0].isdigit() else host.rstrip(".")]


async def test_the_proxys_own_requests(through: Through, authority_file: str) -> None:
    async with speaking(server_context(AUTHORITY.issue_cert(HOST))) as port:
        await through.start(dialer_to(port, authority_file))
        request = RequestHead(b"POST", b"/auth", [])
        for _ in range(2):
            answer = await through.rig.relay.fetch(APP, request, b"a=b", limit=100, deadline=5.0)
            assert (answer.status, answer.body) == (200, b"hello")
        assert through.rig.relay.counters.dialled == 1


async def test_blind_tunnels_stay_blind(rig: Any, authority_file: str) -> None:
    async with speaking(server_context(AUTHORITY.issue_cert(HOST))) as port:
        rig.dialer = dialer_to(port, authority_file)
        await rig.start()
        peer = await rig.peer()
        peer.send(b"CONNECT app.test:443 HTTP/1.1\r\nHost: app.test:443\r\n\r\n")
        await peer.head()
        context = ssl.create_default_context(cafile=authority_file)
        await peer.writer.start_tls(context, server_hostname=HOST)
        peer.send(b"GET / HTTP/1.1\r\nHost: app.test\r\n\r\n")
        assert (await peer.answer())[1] == b"hello"


# -- long bodies, switches and ends ----------------------------------------------------------------

LONG = 8 * 1024 * 1024


async def test_a_long_answer_is_read_and_not_spliced(through: Through, authority_file: str) -> None:
    body = os.urandom(1024) * (LONG // 1024)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % LONG)
        writer.write(body)
        await reader.read()

    async with speaking(server_context(AUTHORITY.issue_cert(HOST)), serve) as port:
        await through.start(dialer_to(port, authority_file))
        assert (await through.get())[1] == body
        assert through.rig.relay._shared.splicer.running == 0


async def test_who_does_not_read_stops_the_app(through: Through, authority_file: str) -> None:
    written = 0
    stuck = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal written
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % (50 * LONG))
        for _ in range(50 * LONG // 65536):
            writer.write(bytes(65536))
            try:
                await asyncio.wait_for(writer.drain(), 0.4)
            except TimeoutError:
                stuck.set()
                await writer.drain()
            written += 65536

    async with speaking(server_context(AUTHORITY.issue_cert(HOST)), serve) as port:
        await through.start(dialer_to(port, authority_file))
        peer = await through.rig.peer()
        peer.send(b"GET http://app.test/ HTTP/1.1\r\nHost: app.test\r\n\r\n")
        await asyncio.wait_for(stuck.wait(), 20)
        assert written < 4 * LONG
        await peer.head()
        await peer.exactly(written + LONG)
        peer.reset()
        await through.rig.until(lambda: through.rig.relay.origins == 0)


async def test_a_long_request(through: Through, authority_file: str) -> None:
    got = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal got
        await reader.readuntil(b"\r\n\r\n")
        while got < LONG:
            got += len(await reader.read(65536))
        writer.write(OK)
        await reader.read()

    async with speaking(server_context(AUTHORITY.issue_cert(HOST)), serve) as port:
        await through.start(dialer_to(port, authority_file))
        peer = await through.rig.peer()
        peer.send(b"POST http://app.test/ HTTP/1.1\r\nHost: app.test\r\n")
        peer.send(b"Content-Length: %d\r\n\r\n" % LONG + bytes(LONG))
        assert (await peer.answer())[1] == b"hello"


WEBSOCKET = (
    b"Connection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
)


async def test_a_websocket(
    through: Through, authority_file: str, caplog: pytest.LogCaptureFixture
) -> None:
    size = 2 * 1024 * 1024
    closed = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(
            b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
            b"first"
        )
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
        closed.set()

    async with speaking(server_context(AUTHORITY.issue_cert(HOST)), serve) as port:
        await through.start(dialer_to(port, authority_file))
        peer = await through.rig.peer()
        peer.send(b"GET http://app.test/ HTTP/1.1\r\nHost: app.test\r\n" + WEBSOCKET + b"\r\n")
        assert (await peer.head())[9:12] == b"101"
        assert await peer.exactly(5) == b"first"
        data = os.urandom(size)
        peer.send(data)
        assert await peer.exactly(size) == data
        peer.writer.write_eof()  # TLS cannot hand on half an end: the whole connection ends
        assert await peer.rest() == b""
        await asyncio.wait_for(closed.wait(), 5)
        await through.rig.until(lambda: through.rig.relay.clients == 0)
    assert not caplog.records


CLOSING = b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nall of it"


async def test_an_answer_that_ends_with_the_connection(
    through: Through, authority_file: str
) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(CLOSING)

    async with speaking(server_context(AUTHORITY.issue_cert(HOST)), serve) as port:
        await through.start(dialer_to(port, authority_file))
        peer = await through.rig.peer()
        peer.send(b"GET http://app.test/ HTTP/1.0\r\nHost: app.test\r\n\r\n")
        assert (await peer.rest()).endswith(b"all of it")


@pytest.mark.parametrize("answer", [CLOSING, OK[:-1], OK[:20]])
async def test_an_end_that_the_app_did_not_say_is_no_end(
    through: Through, authority_file: str, answer: bytes
) -> None:
    """Anybody on the way can end a TCP connection; only the app can end TLS."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        await writer.drain()
        tls_peers.half_close(writer)
        await reader.read()

    async with speaking(server_context(AUTHORITY.issue_cert(HOST)), serve) as port:
        await through.start(dialer_to(port, authority_file))
        peer = await through.rig.peer()
        peer.send(b"GET http://app.test/ HTTP/1.0\r\nHost: app.test\r\n\r\n")
        if answer == OK[:20]:
            assert (await peer.rest()).endswith(b"http_response_incomplete")
        else:
            with pytest.raises(ConnectionResetError):
                await peer.rest()
            assert through.rig.relay.counters.aborted == 1


async def test_a_pooled_connection_that_the_app_closed(
    through: Through, authority_file: str
) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(OK)

    async with speaking(server_context(AUTHORITY.issue_cert(HOST)), serve) as port:
        await through.start(dialer_to(port, authority_file))
        peer = await through.rig.peer()
        for _ in range(10):
            peer.send(b"GET http://app.test/ HTTP/1.1\r\nHost: app.test\r\n\r\n")
            head, body = await peer.answer()
            assert (head[9:12], body) == (b"200", b"hello")


SMALL = 16_000


@pytest.mark.parametrize("size", [6_000, 30_000])
async def test_it_dies_in_the_middle_of_a_record(
    through: Through, authority_file: str, size: int
) -> None:
    """Of the first one, and of one after the answer's head."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 64000\r\n\r\n" + bytes(64000))
        await reader.read()

    async with (
        speaking(server_context(AUTHORITY.issue_cert(HOST)), serve) as port,
        tls_peers.cut_after(port, size) as here,
    ):
        await through.start(dialer_to(here, authority_file))
        peer = await through.rig.peer()
        peer.send(b"GET http://app.test/ HTTP/1.1\r\nHost: app.test\r\n\r\n")
        if size < SMALL:
            head, body = await peer.answer()
            assert (head[9:12], body) == (b"502", b"connection_terminated")
        else:
            await peer.head()
            with pytest.raises(ConnectionResetError):
                await peer.rest()
        await through.rig.until(lambda: through.rig.relay.origins == 0)


async def test_tls_where_plain_http_is_asked_for(rig: Any) -> None:
    """The other way round: an app on https that somebody wrote down as http."""
    async with tls_peers.blunt(server_context(AUTHORITY.issue_cert(HOST))) as port:
        await rig.start()
        peer = await rig.peer()
        peer.send(b"GET http://app.test:%d/ HTTP/1.1\r\nHost: app.test\r\n\r\n" % port)
        head, body = await peer.answer()
        assert head[9:12] == b"502"
        assert body in (b"http_protocol_error", b"connection_terminated")


# -- contexts and sessions -------------------------------------------------------------------------


async def count_resumed(dialer: TcpDialer, times: int) -> list[bool]:
    found = []
    for _ in range(times):
        transport, _ = await dialer.secure(APP, asyncio.Protocol)
        found.append(bool(transport.get_extra_info("ssl_object").session_reused))
        await asyncio.sleep(0.05)  # the tickets come after the handshake, unannounced
        transport.abort()
    return found


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_a_handshake_resumes_the_one_before(
    version: ssl.TLSVersion, authority_file: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tls, "_TICKETS_BY", 0.02)
    context = server_context(AUTHORITY.issue_cert(HOST))
    context.maximum_version = version

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()

    async with speaking(context, serve) as port:
        dialer = dialer_to(port, authority_file)
        assert await count_resumed(dialer, 3) == [False, True, True]
        monkeypatch.setattr(tls, "_RESUMED_FOR", 0.0)
        assert await count_resumed(dialer, 1) == [False], "a certificate is looked at now and then"


async def test_resuming_puts_no_look_at_the_certificate_off(
    authority_file: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tls, "_TICKETS_BY", 0.02)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()

    async with speaking(server_context(AUTHORITY.issue_cert(HOST)), serve) as port:
        dialer = dialer_to(port, authority_file)
        context = await dialer._tls._context(None)

        def looked() -> float:
            found = context.session(APP, asyncio.get_running_loop().time())
            assert found is not None
            return found.verified

        assert await count_resumed(dialer, 1) == [False]
        async with asyncio.timeout(20):
            while context.session(APP, 0.0) is None:  # noqa: ASYNC110  # nobody announces it
                await asyncio.sleep(0.01)
        first = looked()
        assert await count_resumed(dialer, 1) == [True]
        assert looked() == first


@pytest.mark.parametrize("secure", [True, False])
async def test_last_words_beside_tls_are_nobodys(secure: bool) -> None:
    """Whoever is on the way could put an answer behind what ends a connection."""
    near, far = socket.socketpair()
    said: list[str] = []
    taker = SimpleNamespace(
        decode=False,
        answered=lambda *_: said.append("answered"),
        lost=lambda *_, **__: said.append("lost"),
    )
    with near, far:
        far.sendall(OK)
        info = {"socket": near, "sslcontext": object() if secure else None}
        transport = SimpleNamespace(
            get_extra_info=info.get,
            set_write_buffer_limits=lambda **_: None,
            write=lambda _: None,
            abort=lambda: None,
        )
        bucket = SimpleNamespace(origin=APP, pool=SimpleNamespace(remove=lambda _: None))
        connection = OriginConnection(cast(Any, bucket), Sweep(1.0), Limits())
        connection.connection_made(cast(Any, transport))
        connection.send(cast(Any, taker), b"GET", b"GET / HTTP/1.1\r\n\r\n", whole=True)
        connection.connection_lost(ConnectionResetError())
    assert said[0] == ("lost" if secure else "answered")


async def test_an_authority_that_is_added_counts_at_the_next_try(
    authority_file: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tls, "_STORE_HOLDS", 0.0)
    newcomer = trustme.CA()
    async with speaking(server_context(newcomer.issue_cert(HOST))) as port:
        dialer = dialer_to(port, authority_file)
        with pytest.raises(PathError):
            await dialer.secure(APP, asyncio.Protocol)
        newcomer.cert_pem.write_to_path(authority_file)
        transport, _ = await dialer.secure(APP, asyncio.Protocol)
        transport.abort()


async def test_no_keys_are_logged_for_a_variable(
    authority_file: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSLKEYLOGFILE", str(tmp_path / "keys"))
    async with speaking(server_context(AUTHORITY.issue_cert(HOST))) as port:
        transport, _ = await dialer_to(port, authority_file).secure(APP, asyncio.Protocol)
        transport.abort()
    assert not (tmp_path / "keys").exists()


def test_no_app_renegotiates() -> None:
    assert tls._build("", None).options & ssl.OP_NO_RENEGOTIATION


async def test_the_system_store_is_read_off_the_loop(
    authority_file: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", authority_file)
    threads = []

    def build(*given: Any) -> ssl.SSLContext:
        threads.append(threading.get_ident())
        return _build(*given)

    _build = tls._build
    monkeypatch.setattr(tls, "_build", build)
    async with speaking(server_context(AUTHORITY.issue_cert(HOST))) as port:
        dialer = dialer_to(port, "")
        for transport, _ in await asyncio.gather(
            *[dialer.secure(APP, asyncio.Protocol) for _ in range(5)]
        ):
            transport.abort()
    assert len(threads) == 1
    assert threads[0] != threading.get_ident()


# -- client certificates ---------------------------------------------------------------------------


def wanting_clients(version: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3) -> ssl.SSLContext:
    context = server_context(AUTHORITY.issue_cert(HOST))
    AUTHORITY.configure_trust(context)
    context.verify_mode = ssl.CERT_OPTIONAL
    context.maximum_version = version
    return context


async def naming(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """An app that says whose certificate it was shown."""
    shown = writer.get_extra_info("ssl_object").getpeercert()
    name = shown["subjectAltName"][0][1] if shown else "nobody"
    while await reader.readuntil(b"\r\n\r\n"):
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(name) + name.encode())


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_a_client_certificate_goes_with_identified_exchanges_alone(
    through: Through, authority_file: str, tmp_path: Path, version: ssl.TLSVersion
) -> None:
    identity = ClientIdentity(*tls_peers.key_pair(AUTHORITY.issue_cert("me@corp.test"), tmp_path))
    async with speaking(wanting_clients(version), naming) as port:
        await through.start(dialer_to(port, authority_file, identity_for=lambda origin: identity))
        said = []
        for identified in (True, False, True, False):
            through.identified = identified
            said.append((await through.get())[1])
        assert said == [b"me@corp.test", b"nobody"] * 2
        assert through.rig.relay.counters.dialled == 2, "each kind has its own connections"
        request = RequestHead(b"GET", b"/", [])
        for identified, name in ((True, b"me@corp.test"), (False, b"nobody")):
            answer = await through.rig.relay.fetch(
                APP, request, limit=100, deadline=5.0, identified=identified
            )
            assert answer.body == name


async def test_a_connection_that_is_one_clients_is_not_lent_to_its_other_requests(
    through: Through, authority_file: str, tmp_path: Path
) -> None:
    """One that was authenticated (NTLM), and shown a certificate."""
    identity = ClientIdentity(*tls_peers.key_pair(AUTHORITY.issue_cert("me@corp.test"), tmp_path))
    async with speaking(wanting_clients(), naming) as port:
        await through.start(dialer_to(port, authority_file, identity_for=lambda origin: identity))
        peer = await through.rig.peer()
        said = []
        for identified in (True, True, False):
            through.identified = identified
            peer.send(b"GET http://app.test/ HTTP/1.1\r\nHost: app.test\r\n")
            peer.send(b"Authorization: NTLM abc\r\n\r\n")
            said.append((await peer.answer())[1])
        assert said == [b"me@corp.test", b"me@corp.test", b"nobody"]
        assert through.rig.relay.counters.dialled == 2


@pytest.mark.parametrize("what", ["no file", "no key of it", "encrypted"])
async def test_a_client_certificate_that_cannot_be_used(
    authority_file: str, tmp_path: Path, what: str
) -> None:
    identity = unusable(what, tmp_path)
    async with speaking(wanting_clients(), naming) as port:
        dialer = dialer_to(port, authority_file, identity_for=lambda origin: identity)
        with pytest.raises(PathError) as caught:
            await dialer.secure(APP, asyncio.Protocol, identified=True)
        assert caught.value.error == "proxy_configuration_error"
        transport, _ = await dialer.secure(APP, asyncio.Protocol)
        transport.abort()


def unusable(what: str, tmp_path: Path) -> ClientIdentity:
    certificate, key = tls_peers.key_pair(AUTHORITY.issue_cert("me@corp.test"), tmp_path)
    if what == "no file":
        Path(certificate).unlink()
    elif what == "no key of it":
        key = tls_peers.key_pair(AUTHORITY.issue_cert("you@corp.test"), tmp_path, "you")[1]
    else:
        loaded = serialization.load_pem_private_key(Path(key).read_bytes(), None)
        Path(key).write_bytes(
            loaded.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.BestAvailableEncryption(b"hunter2"),
            )
        )
    return ClientIdentity(certificate, key)


async def test_a_certificate_that_is_renewed_needs_no_reload(
    authority_file: str, tmp_path: Path
) -> None:
    identity = ClientIdentity(*tls_peers.key_pair(AUTHORITY.issue_cert("me@corp.test"), tmp_path))
    shown: list[str] = []
    names = ["me@corp.test", "you@corp.test", "new@corp.test"]

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        certificate = writer.get_extra_info("ssl_object").getpeercert()
        shown.append(certificate["subjectAltName"][0][1])
        writer.write(b"x")

    async with speaking(wanting_clients(), serve) as port:
        dialer = dialer_to(port, authority_file, identity_for=lambda origin: identity)
        for count, name in enumerate(names, 1):
            tls_peers.key_pair(AUTHORITY.issue_cert(name), tmp_path)
            transport, _ = await dialer.secure(APP, asyncio.Protocol, identified=True)
            await until(lambda: len(shown) == count)  # noqa: B023  # it is called at once
            transport.abort()
    assert shown == names


# -- certificates that are none --------------------------------------------------------------------

DER = ssl.PEM_cert_to_DER_cert(
    trustme.CA()
    .issue_cert("a.test", "b.test", "127.0.0.1", common_name="Called")
    .cert_chain_pems[0]
    .bytes()
    .decode("ascii")
)

CALLED = b"\x0c\x06Called"  # as a UTF8String


def test_a_certificate_says_whose_it_is():
    facts = read_certificate(DER)
    assert facts is not None
    assert "a.test" in str(facts)


@given(st.binary(max_size=80))
def test_any_bytes_are_a_certificate_or_none(raw):
    assert read_certificate(raw) is None


@given(
    st.lists(st.tuples(st.integers(0, len(DER) - 1), st.integers(0, 255)), min_size=1, max_size=3),
    st.integers(0, len(DER)),
)
@pytest.mark.filterwarnings("ignore:Parsed a serial number", "ignore:Attribute's length")
@example([(12, 1)], 0)  # a version that does not exist
@example([(DER.index(CALLED), 3), (DER.index(CALLED) + 2, 0)], 0)  # its name is bits
@settings(max_examples=1000)
def test_a_certificate_with_other_bytes_is_read_or_none(changes, cut):
    raw = bytearray(DER)
    for at, byte in changes:
        raw[at] = byte
    for der in (bytes(raw), bytes(raw[:cut]), DER[:cut] + bytes(raw[cut:])):
        facts = read_certificate(der)
        assert facts is None or str(facts).isprintable()
