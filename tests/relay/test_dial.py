"""Dialling, against real servers on loopback, on both loops."""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any

import pytest

from iam_auth_proxy.errors import PathError
from iam_auth_proxy.names import Origin
from iam_auth_proxy.relay.addresses import AddressPolicy, parse_address, parse_target
from iam_auth_proxy.relay.dial import TcpDialer, is_own_address
from iam_auth_proxy.relay.exchange import Dialer
from iam_auth_proxy.relay.resolve import AddressInfo
from iam_auth_proxy.relay.via import Via, parse_connect_to, parse_via
from tests.support.sockets import sockets_open
from tests.support.upstreams import HttpConnect, Socks4, Socks5, Upstream, listening

pytestmark = pytest.mark.usefixtures("little_to_search")

PASSWORD = "hunter2"
FAR = {"app.test": ("127.0.0.1", 0)}
UPSTREAMS = [
    pytest.param(Socks5, "socks5h", id="socks5h"),
    pytest.param(Socks4, "socks4", id="socks4"),
    pytest.param(HttpConnect, "http", id="http"),
]


def through(address: str) -> Callable[[Origin], Via | None]:
    """Everything goes through this upstream proxy."""
    return always(parse_via(address))


def always(via: Via) -> Callable[[Origin], Via | None]:
    return lambda origin: via


class Collect(asyncio.Protocol):
    """Keeps what arrives, and says when."""

    def __init__(self) -> None:
        self.received = b""
        self.more = asyncio.Event()
        self.lost: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def data_received(self, data: bytes) -> None:
        self.received += data
        self.more.set()

    def connection_lost(self, exc: Exception | None) -> None:
        self.more.set()
        if not self.lost.done():
            self.lost.set_result(None)

    async def until(self, text: bytes) -> bytes:
        async with asyncio.timeout(5):
            while text not in self.received:
                assert not self.lost.done(), self.received
                self.more.clear()
                await self.more.wait()
        return self.received


def http(host: str, port: int = 80) -> Origin:
    return Origin("http", host, port)


def tls(host: str, port: int = 443) -> Origin:
    return Origin("https", host, port)


def answers(**names: Sequence[str] | OSError | float) -> Callable[[str, int], Any]:
    """A resolver: names (with _ for .) to addresses, an error, or seconds of silence."""
    asked: list[str] = []

    async def resolve(host: str, port: int) -> list[AddressInfo]:
        asked.append(host)
        answer = names.get(host.replace(".", "_"), socket.gaierror(socket.EAI_NONAME, "unknown"))
        if isinstance(answer, OSError):
            raise answer
        if isinstance(answer, (int, float)):
            await asyncio.sleep(answer)
            return []
        infos: list[AddressInfo] = []
        for text in answer:
            if ":" in text:
                bare, _, zone = text.partition("%")
                at = (bare, port, 0, int(zone or 0))
                infos.append((socket.AF_INET6, socket.SOCK_STREAM, 6, "", at))
            else:
                infos.append((socket.AF_INET, socket.SOCK_STREAM, 6, "", (text, port)))
        return infos

    resolve.asked = asked  # type: ignore[attr-defined]  # what the test looks at
    return resolve


def open_policy() -> AddressPolicy:
    """Loopback is where the tests' servers are."""
    return AddressPolicy([parse_target("127.0.0.0/8"), parse_target("::1")])


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65536):
        writer.write(data)


async def ping(dialer: Dialer, origin: Origin) -> None:
    """The connection works both ways."""
    transport, protocol = await dialer.connect(origin, Collect)
    transport.write(b"ping")
    await protocol.until(b"ping")
    transport.abort()
    await protocol.lost


async def failure(dialer: TcpDialer, origin: Origin) -> PathError:
    with pytest.raises(PathError) as caught:
        await dialer.connect(origin, Collect)
    error = caught.value
    assert error.public.endswith(".")
    assert error.remedy
    return error


def free_port(host: str = "127.0.0.1") -> int:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.bind((host, 0))
        return int(probe.getsockname()[1])


@pytest.fixture
async def app() -> AsyncIterator[int]:
    async with listening(echo) as port:
        yield port


@pytest.fixture
async def app6() -> AsyncIterator[int]:
    async with listening(echo, "::1") as port:
        yield port


@pytest.fixture
async def black_hole() -> AsyncIterator[int]:
    """A port that neither takes nor refuses connections: its backlog is full."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        port = listener.getsockname()[1]
        fillers = []
        for _ in range(4):
            filler = socket.socket()
            filler.setblocking(False)
            filler.connect_ex(("127.0.0.1", port))
            fillers.append(filler)
        yield port
        for filler in fillers:
            filler.close()


class TestDirect:
    async def test_a_name_is_resolved_and_connected(self, app: int) -> None:
        resolve = answers(app_test=["127.0.0.1"])
        await ping(TcpDialer(open_policy(), resolve=resolve), http("app.test", app))

    async def test_a_literal_asks_no_resolver(self, app: int, app6: int) -> None:
        resolve = answers()
        dialer = TcpDialer(open_policy(), resolve=resolve)
        await ping(dialer, http("127.0.0.1", app))
        await ping(dialer, http("::1", app6))
        assert resolve.asked == []  # type: ignore[attr-defined]  # see answers()

    async def test_the_systems_own_resolver_is_the_default(self, app: int) -> None:
        await ping(TcpDialer(open_policy()), http("localhost", app))

    @pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
    async def test_nagles_delay_is_off(self, app: int, host: str) -> None:
        transport, _ = await TcpDialer(open_policy()).connect(http(host, app), Collect)
        sock = transport.get_extra_info("socket")
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        transport.abort()

    async def test_another_address_is_tried_when_one_refuses(self, app: int) -> None:
        resolve = answers(app_test=["::1", "127.0.0.1"])
        await ping(TcpDialer(open_policy(), resolve=resolve), http("app.test", app))

    async def test_a_silent_address_does_not_hold_up_the_other(
        self, app: int, black_hole: int
    ) -> None:
        infos: list[AddressInfo] = [
            (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", black_hole)),
            (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", app)),
        ]

        async def resolve(host: str, port: int) -> list[AddressInfo]:
            return infos

        before = sockets_open()
        dialer = TcpDialer(open_policy(), resolve=resolve, deadline=5)
        async with asyncio.timeout(2):
            await ping(dialer, http("app.test"))
        await asyncio.sleep(0)
        assert sockets_open() <= before + 1  # at most the server's end of the ping

    async def test_a_refused_connection_fails_at_once(self) -> None:
        port = free_port()
        async with asyncio.timeout(1):
            error = await failure(TcpDialer(open_policy()), http("127.0.0.1", port))
        assert (error.error, error.http_status) == ("connection_refused", 502)
        assert error.public == f"127.0.0.1:{port} refused the connection."

    async def test_an_unknown_name_fails_at_once(self) -> None:
        async with asyncio.timeout(1):
            error = await failure(TcpDialer(open_policy(), resolve=answers()), http("app.test"))
        assert (error.error, error.http_status) == ("dns_error", 502)
        assert isinstance(error.__cause__, socket.gaierror)

    @pytest.mark.parametrize(
        ("answer", "token", "status"),
        [
            ([], "dns_error", 502),
            (socket.gaierror(socket.EAI_AGAIN, "try again"), "dns_timeout", 504),
            (socket.gaierror(socket.EAI_FAIL, "no"), "dns_error", 502),
            (OSError(errno.EMFILE, "too many files"), "dns_error", 502),
            (["not-an-address"], "dns_error", 502),
            (30.0, "dns_timeout", 504),
        ],
    )
    async def test_what_a_resolver_may_say(self, answer: Any, token: str, status: int) -> None:
        dialer = TcpDialer(open_policy(), resolve=answers(app_test=answer), deadline=0.05)
        error = await failure(dialer, http("app.test"))
        assert (error.error, error.http_status) == (token, status)

    async def test_silence_ends_at_the_deadline(self, black_hole: int) -> None:
        dialer = TcpDialer(open_policy(), deadline=0.1)
        error = await failure(dialer, http("127.0.0.1", black_hole))
        assert (error.error, error.http_status) == ("connection_timeout", 504)

    async def test_one_dial_can_have_a_deadline_of_its_own(self, black_hole: int) -> None:
        dialer = TcpDialer(open_policy(), deadline=60)
        async with asyncio.timeout(2):
            with pytest.raises(PathError):
                await dialer.connect(http("127.0.0.1", black_hole), Collect, deadline=0.05)

    async def test_no_route_is_said(self) -> None:
        # Multicast is the one thing that no TCP route leads to, wherever the tests run.
        error = await failure(TcpDialer(AddressPolicy(), deadline=1), http("224.0.0.1"))
        assert (error.error, error.http_status) == ("destination_ip_unroutable", 502)

    async def test_addresses_that_fail_in_different_ways(self) -> None:
        resolve = answers(app_test=["224.0.0.1", "127.0.0.1"])
        dialer = TcpDialer(open_policy(), resolve=resolve, deadline=1)
        error = await failure(dialer, http("app.test", free_port()))
        assert (error.error, error.http_status) == ("destination_unavailable", 502)

    async def test_a_protocol_that_cannot_be_made_leaves_no_socket(self, app: int) -> None:
        def broken() -> asyncio.Protocol:
            raise RuntimeError("no protocol")

        before = sockets_open()
        with pytest.raises(RuntimeError, match="no protocol"):
            await TcpDialer(open_policy()).connect(http("127.0.0.1", app), broken)
        assert sockets_open() <= before + 1  # the server's end

    @pytest.mark.parametrize("seconds", [0, 0.02])
    async def test_a_cancelled_dial_leaks_no_socket(self, black_hole: int, seconds: float) -> None:
        dialer = TcpDialer(open_policy())
        before = sockets_open()
        tasks = [
            asyncio.ensure_future(dialer.connect(http("127.0.0.1", black_hole), Collect))
            for _ in range(5)
        ]
        await asyncio.sleep(seconds)
        for task in tasks:
            task.cancel()
        ended = await asyncio.gather(*tasks, return_exceptions=True)
        assert [type(end) for end in ended] == [asyncio.CancelledError] * 5
        assert sockets_open() == before

    async def test_a_dial_cancelled_at_any_turn_leaks_no_socket(self, app: int) -> None:
        dialer = TcpDialer(open_policy(), resolve=answers(app_test=["127.0.0.1"]))
        cancelled = 0
        await settled()
        before = sockets_open()
        for turns in range(12):
            task = asyncio.ensure_future(dialer.connect(http("app.test", app), Collect))
            for _ in range(turns):
                await asyncio.sleep(0)
            task.cancel()
            try:
                transport, _ = await task
                transport.abort()
            except asyncio.CancelledError:
                cancelled += 1
        assert cancelled
        await settled()
        assert sockets_open() == before


async def settled() -> None:
    """Until servers have seen their clients go."""
    previous, count = -1, sockets_open()
    while previous != count:
        await asyncio.sleep(0.05)
        previous, count = count, sockets_open()


class TestRefusedTargets:
    @pytest.mark.parametrize(
        "literal",
        ["127.0.0.1", "0.0.0.0", "::1", "::", "::ffff:7f00:1", "169.254.169.254", "fd00:ec2::254"],
    )
    async def test_a_literal_is_refused_before_anything_is_dialled(
        self, app: int, literal: str
    ) -> None:
        error = await failure(TcpDialer(AddressPolicy()), http(literal, app))
        assert (error.error, error.http_status) == ("destination_ip_prohibited", 403)
        assert "allow_targets" in error.remedy

    async def test_a_name_is_judged_by_the_address_it_leads_to(self, app: int) -> None:
        dialer = TcpDialer(AddressPolicy(), resolve=answers(evil_example=["127.0.0.1"]))
        error = await failure(dialer, http("evil.example", app))
        assert (error.error, error.http_status) == ("destination_ip_prohibited", 403)
        assert error.public == (
            "evil.example leads to 127.0.0.1, which is a loopback address:"
            " the proxy does not go there."
        )

    async def test_of_several_addresses_only_the_allowed_are_dialled(self, app: int) -> None:
        policy = AddressPolicy([parse_target("127.0.0.1")])
        resolve = answers(app_test=["0.0.0.0", "127.0.0.2", "127.0.0.1"])
        transport, _ = await TcpDialer(policy, resolve=resolve).connect(
            http("app.test", app), Collect
        )
        assert transport.get_extra_info("peername")[0] == "127.0.0.1"
        transport.abort()

    async def test_a_zone_does_not_hide_a_link_local_address(self) -> None:
        dialer = TcpDialer(AddressPolicy(), resolve=answers(app_test=["fe80::1%1"]))
        assert (await failure(dialer, http("app.test"))).http_status == 403

    async def test_a_mapped_target_is_not_refused(self, app: int) -> None:
        mapping = parse_connect_to(f"app.test:80:127.0.0.1:{app}")
        dialer = TcpDialer(AddressPolicy(), connect_to=[mapping])
        await ping(dialer, http("app.test"))
        assert (await failure(dialer, http("127.0.0.1", app))).http_status == 403

    async def test_a_mapped_port_alone_lifts_nothing(self, app: int) -> None:
        mapping = parse_connect_to(f":::{app}")
        dialer = TcpDialer(AddressPolicy(), connect_to=[mapping])
        assert (await failure(dialer, http("127.0.0.1"))).http_status == 403

    async def test_a_mapping_to_ourselves_is_a_loop(self, app: int) -> None:
        own = parse_address("127.0.0.1")
        assert own is not None
        dialer = TcpDialer(
            AddressPolicy([parse_target("127.0.0.1")], listeners=[(own, app)]),
            connect_to=[parse_connect_to(f"app.test:80:localhost:{app}")],
            resolve=answers(localhost=["127.0.0.1"]),
        )
        error = await failure(dialer, http("app.test"))
        assert (error.error, error.http_status) == ("proxy_loop_detected", 403)
        assert (await failure(dialer, http("127.0.0.1", app))).error == "proxy_loop_detected"


class Tunnelled:
    """A dialer through an upstream of some kind, whose far end has the app under its name."""

    def __init__(self, kind: type[Upstream], scheme: str, app: int, **options: Any) -> None:
        self.upstream = kind(names={"app.test": ("127.0.0.1", app)}, **options)
        self.scheme = scheme

    def dialer(self, user: str = "", **options: Any) -> TcpDialer:
        via = parse_via(f"{self.scheme}://{user}127.0.0.1:{self.upstream.port}")
        if self.upstream.credentials and user:
            via = via.with_password(self.upstream.credentials[1])
        return TcpDialer(AddressPolicy(), via_for=always(via), resolve=answers(), **options)


@pytest.mark.parametrize(("kind", "scheme"), UPSTREAMS)
class TestThroughAProxyThatResolves:
    async def test_names_go_to_the_far_end(
        self, kind: type[Upstream], scheme: str, app: int
    ) -> None:
        through = Tunnelled(kind, scheme, app)
        async with through.upstream as upstream:
            await ping(through.dialer(), http("app.test"))
            assert upstream.asked == [("app.test", 80)]

    async def test_literals_are_still_judged(
        self, kind: type[Upstream], scheme: str, app: int
    ) -> None:
        through = Tunnelled(kind, scheme, app)
        async with through.upstream as upstream:
            for literal in ("127.0.0.1", "169.254.169.254", "::1"):
                assert (await failure(through.dialer(), tls(literal))).http_status == 403
            assert upstream.asked == []

    async def test_private_literals_are_asked_for(
        self, kind: type[Upstream], scheme: str, app: int
    ) -> None:
        through = Tunnelled(kind, scheme, app)
        through.upstream.names["10.0.0.7"] = ("127.0.0.1", app)
        async with through.upstream as upstream:
            await ping(through.dialer(), http("10.0.0.7", 8080))
            assert upstream.asked == [("10.0.0.7", 8080)]

    async def test_plain_public_names_stay_here_unless_trusted(
        self, kind: type[Upstream], scheme: str, app: int
    ) -> None:
        through = Tunnelled(kind, scheme, app)
        through.upstream.names["app.example"] = ("127.0.0.1", app)
        async with through.upstream as upstream:
            dialer = through.dialer()
            for origin in (http("app.example", 8080), tls("app.example", 80), tls("localhost")):
                error = await failure(dialer, origin)
                assert (error.error, error.http_status) == ("destination_ip_prohibited", 403)
            assert upstream.asked == []
            await ping(dialer, tls("app.example"))
            trusting = through.dialer(trusted=lambda origin: origin.host == "app.example")
            await ping(trusting, http("app.example", 8080))
            # A WebSocket to a plain-http origin is a CONNECT to its port 80.
            listed = through.dialer(trusted=lambda origin: origin == http("app.example"))
            await ping(listed, tls("app.example", 80))

    async def test_what_only_tls_protects(
        self, kind: type[Upstream], scheme: str, app: int
    ) -> None:
        through = Tunnelled(kind, scheme, app)
        async with through.upstream:
            dialer = through.dialer(
                trusted=lambda origin: origin in (http("trusted.example", 81), tls("two.example")),
                connect_to=[parse_connect_to("mapped.example::10.0.0.7:")],
            )
        assert dialer.tls_only(tls("app.example"))
        assert dialer.tls_only(tls("app.example", 8080))
        assert dialer.tls_only(tls("trusted.example", 82))
        for origin in (
            tls("grafana"),
            tls("grafana.internal", 3000),
            tls("10.0.0.7"),
            tls("mapped.example"),
            tls("trusted.example", 81),
            tls("two.example"),
        ):
            assert not dialer.tls_only(origin), origin
        assert not TcpDialer(open_policy()).tls_only(tls("app.example"))

    async def test_what_connect_to_names_goes_through(
        self, kind: type[Upstream], scheme: str, app: int
    ) -> None:
        through = Tunnelled(kind, scheme, app)
        through.upstream.names["localhost"] = ("127.0.0.1", app)
        mappings = [parse_connect_to("app.example:80:localhost:8082")]
        async with through.upstream as upstream:
            await ping(through.dialer(connect_to=mappings), http("app.example"))
            assert upstream.asked == [("localhost", 8082)]

    async def test_a_dead_tunnel_says_so_and_works_again_by_itself(
        self, kind: type[Upstream], scheme: str, app: int
    ) -> None:
        through = Tunnelled(kind, scheme, app)
        async with through.upstream as upstream:
            dialer = through.dialer()
            await ping(dialer, http("app.test"))
        await settled()
        async with asyncio.timeout(1):
            error = await failure(dialer, http("app.test"))
        assert (error.error, error.http_status) == ("connection_refused", 502)
        assert error.public == (
            f"The tunnel is down (127.0.0.1:{upstream.port} refused the connection)."
        )
        if scheme != "http":
            assert error.remedy.endswith(f"ssh -D {upstream.port} BASTION")
        async with through.upstream:  # on the same port
            await ping(dialer, http("app.test"))

    async def test_a_tunnel_that_closes_without_an_answer(
        self, kind: type[Upstream], scheme: str, app: int
    ) -> None:
        through = Tunnelled(kind, scheme, app, hang_up=True)
        async with through.upstream:
            error = await failure(through.dialer(), http("app.test"))
        assert (error.error, error.http_status) == ("destination_unavailable", 502)
        assert error.public == "The tunnel is up, but it could not reach app.test:80."
        assert error.remedy == "ssh's own output says why."

    async def test_a_slow_tunnel_meets_the_deadline(
        self, kind: type[Upstream], scheme: str, app: int
    ) -> None:
        through = Tunnelled(kind, scheme, app, mute=True)
        async with through.upstream as upstream:
            before = sockets_open()
            error = await failure(through.dialer(deadline=0.1), http("app.test"))
            assert (error.error, error.http_status) == ("connection_timeout", 504)
            assert error.public == "The tunnel is up, but no answer for app.test:80 came in time."
            assert ("is such a proxy" in error.remedy) == (scheme not in ("socks5h", "socks5"))
            async with asyncio.timeout(5):
                await upstream.closed.wait()
            await settled()
            assert sockets_open() <= before

    async def test_a_cancelled_dial_leaks_no_socket(
        self, kind: type[Upstream], scheme: str, app: int
    ) -> None:
        through = Tunnelled(kind, scheme, app, mute=True)
        async with through.upstream as upstream:
            before = sockets_open()
            for seconds in (0, 0.001, 0.02):
                upstream.closed.clear()
                task = asyncio.ensure_future(through.dialer().connect(http("app.test"), Collect))
                await asyncio.sleep(seconds)
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task
            await settled()
            assert sockets_open() == before

    async def test_a_tunnel_that_is_silent_from_the_start(
        self, kind: type[Upstream], scheme: str, app: int, black_hole: int
    ) -> None:
        via = parse_via(f"{scheme}://127.0.0.1:{black_hole}")
        error = await failure(
            TcpDialer(AddressPolicy(), via_for=always(via), deadline=0.1), http("app.test")
        )
        assert (error.error, error.http_status) == ("connection_timeout", 504)
        assert "tunnel to app.test:80 is down" in error.public

    async def test_a_tunnel_whose_own_name_does_not_resolve(
        self, kind: type[Upstream], scheme: str, app: int
    ) -> None:
        via = parse_via(f"{scheme}://bastion.test:1080")
        error = await failure(
            TcpDialer(AddressPolicy(), via_for=always(via), resolve=answers()), http("app")
        )
        assert (error.error, error.http_status) == ("dns_error", 502)
        assert error.public == "The tunnel is down (bastion.test:1080 does not resolve)."
        assert "ssh" not in error.remedy

    async def test_something_else_listens_there(
        self, kind: type[Upstream], scheme: str, app: int
    ) -> None:
        async def smtp(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(b"220 mail.test ESMTP, not at all what you expected\r\n\r\n")
            await reader.read()

        async with listening(smtp) as port:
            via = parse_via(f"{scheme}://127.0.0.1:{port}")
            error = await failure(TcpDialer(AddressPolicy(), via_for=always(via)), http("app.test"))
        assert (error.error, error.http_status) == ("proxy_configuration_error", 502)


class TestSocks:
    @pytest.mark.parametrize(
        ("code", "token", "status"),
        [
            (1, "destination_unavailable", 502),
            (2, "destination_ip_prohibited", 502),
            (3, "destination_ip_unroutable", 502),
            (4, "destination_ip_unroutable", 502),
            (5, "connection_refused", 502),
            (6, "connection_timeout", 504),
            (7, "proxy_configuration_error", 502),
            (8, "proxy_configuration_error", 502),
            (99, "proxy_configuration_error", 502),
        ],
    )
    async def test_replies(self, code: int, token: str, status: int, app: int) -> None:
        through = Tunnelled(Socks5, "socks5h", app, refuse_with=code)
        async with through.upstream:
            error = await failure(through.dialer(), http("app.test"))
        assert (error.error, error.http_status) == (token, status)

    @pytest.mark.parametrize(
        ("code", "token"),
        [(0x5B, "destination_unavailable"), (0x5D, "proxy_configuration_error")],
    )
    async def test_replies_of_socks4(self, code: int, token: str, app: int) -> None:
        through = Tunnelled(Socks4, "socks4", app, refuse_with=code)
        async with through.upstream:
            assert (await failure(through.dialer(), http("app.test"))).error == token

    async def test_user_and_password(self, app: int) -> None:
        through = Tunnelled(Socks5, "socks5h", app, credentials=("me", PASSWORD))
        async with through.upstream as upstream:
            await ping(through.dialer(user="me@"), http("app.test"))
            assert upstream.users == ["me"]

    @pytest.mark.parametrize("user", ["", "you@"])
    async def test_a_login_that_is_not_taken(self, user: str, app: int) -> None:
        through = Tunnelled(Socks5, "socks5h", app, credentials=("me", PASSWORD))
        async with through.upstream:
            error = await failure(through.dialer(user=user), http("app.test"))
        assert (error.error, error.http_status) == ("proxy_configuration_error", 502)
        assert PASSWORD not in f"{error!r} {error.public} {error.remedy} {error.__cause__!r}"

    async def test_socks4_gives_its_user(self, app: int) -> None:
        through = Tunnelled(Socks4, "socks4", app)
        async with through.upstream as upstream:
            await ping(through.dialer(user="me@"), http("app.test"))
            assert upstream.users == ["me"]

    async def test_socks4_cannot_carry_ipv6(self, app: int) -> None:
        through = Tunnelled(Socks4, "socks4", app)
        async with through.upstream as upstream:
            error = await failure(through.dialer(), http("fd00::1"))
            assert error.error == "destination_ip_unroutable"
            assert upstream.asked == []

    async def test_an_upstream_on_ipv6(self, app: int) -> None:
        async with Socks5(names={"app.test": ("127.0.0.1", app)}, host="::1") as upstream:
            dialer = TcpDialer(AddressPolicy(), via_for=through(f"[::1]:{upstream.port}"))
            await ping(dialer, http("app.test"))

    async def test_an_upstream_by_a_name_that_has_both_families(self, app: int) -> None:
        async with Socks5(names={"app.test": ("127.0.0.1", app)}, host="::1") as upstream:
            dialer = TcpDialer(
                AddressPolicy(),
                via_for=through(f"localhost:{upstream.port}"),
                resolve=answers(localhost=["127.0.0.1", "::1"]),
            )
            await ping(dialer, http("app.test"))

    async def test_a_bound_name_that_is_not_text(self) -> None:
        async def odd(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readexactly(3)
            writer.write(b"\x05\x00")
            await reader.read(64)
            writer.write(b"\x05\x00\x00\x03\x01\xff\x00\x00")
            await reader.read()

        async with listening(odd) as port:
            dialer = TcpDialer(AddressPolicy(), via_for=through(f"127.0.0.1:{port}"))
            error = await failure(dialer, http("app.test"))
        assert error.error == "proxy_configuration_error"


class TestNamesResolvedHere:
    """socks5://: the address is judged, and is what the proxy is asked for."""

    async def test_the_address_goes_through(self, app: int) -> None:
        async with Socks5(names={"192.0.2.7": ("127.0.0.1", app)}) as upstream:
            dialer = TcpDialer(
                AddressPolicy(),
                via_for=through(f"socks5://127.0.0.1:{upstream.port}"),
                resolve=answers(app_example=["192.0.2.7"]),
            )
            await ping(dialer, http("app.example"))
            assert upstream.asked == [("192.0.2.7", 80)]

    async def test_the_address_is_judged(self, app: int) -> None:
        async with Socks5(names={"127.0.0.1": ("127.0.0.1", app)}) as upstream:
            dialer = TcpDialer(
                AddressPolicy(),
                via_for=through(f"socks5://127.0.0.1:{upstream.port}"),
                resolve=answers(evil_example=["127.0.0.1"]),
            )
            error = await failure(dialer, http("evil.example"))
            assert error.http_status == 403
            assert upstream.asked == []

    async def test_the_next_address_is_tried(self, app: int) -> None:
        async with Socks5(names={"192.0.2.8": ("127.0.0.1", app)}) as upstream:
            dialer = TcpDialer(
                AddressPolicy(),
                via_for=through(f"socks5://127.0.0.1:{upstream.port}"),
                resolve=answers(app_example=["2001:db8::7", "192.0.2.8"], none=["192.0.2.9"]),
            )
            await ping(dialer, http("app.example"))
            assert [host for host, _ in upstream.asked] == ["2001:db8::7", "192.0.2.8"]
            assert (await failure(dialer, http("none"))).error == "destination_unavailable"

    async def test_a_dead_tunnel_is_tried_once(self) -> None:
        resolve = answers(app_example=["192.0.2.7", "192.0.2.8"], bastion=["127.0.0.1"])
        dialer = TcpDialer(
            AddressPolicy(),
            via_for=through(f"socks5://bastion:{free_port()}"),
            resolve=resolve,
        )
        assert "tunnel is down" in (await failure(dialer, http("app.example"))).public
        asked = resolve.asked  # type: ignore[attr-defined]  # see answers()
        assert asked == ["app.example", "bastion"]

    async def test_a_name_that_the_far_end_alone_knows(self) -> None:
        async with Socks5() as upstream:
            via = through(f"socks5://127.0.0.1:{upstream.port}")
            dialer = TcpDialer(AddressPolicy(), via_for=via, resolve=answers())
            error = await failure(dialer, http("a.internal"))
        assert error.public == "The name a.internal does not resolve on this network."
        assert "with socks5:// it is resolved here" in error.remedy
        assert f"write socks5h:// for the proxy at 127.0.0.1:{upstream.port}." in error.remedy
        assert (
            "--socks-proxy"
            in (
                await failure(TcpDialer(AddressPolicy(), resolve=answers()), http("a.internal"))
            ).remedy
        )


class Silent(Upstream):
    """Takes connections, and speaks no SOCKS."""

    async def read_request(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> tuple[str, int] | None:
        await reader.read()
        return None


@pytest.mark.parametrize("scheme", ["socks5h", "socks5"])
async def test_what_listens_there_is_no_socks_proxy(scheme: str) -> None:
    async with Silent() as upstream:
        place = f"127.0.0.1:{upstream.port}"
        dialer = TcpDialer(
            AddressPolicy(),
            via_for=through(f"{scheme}://{place}"),
            resolve=answers(a_internal=["192.0.2.7"]),
            deadline=0.1,
        )
        error = await failure(dialer, http("a.internal"))
    assert (error.error, error.http_status) == ("connection_timeout", 504)
    assert error.public == f"{place} did not answer as a SOCKS proxy in time."
    assert error.remedy == f"Check that a SOCKS proxy listens at {place}, and no other program."


@dataclass
class Ssh:
    """A tunnel whose near end is a server of the test's."""

    port: int
    name: str = "ssh://alice@bastion.test"
    remedy: str = "Run: ssh -v alice@bastion.test"

    async def open(self) -> tuple[str, int]:
        return "127.0.0.1", self.port

    async def said(self, since: float) -> str:
        return ""


async def test_an_ssh_tunnel_that_is_silent_is_not_named() -> None:
    """The page is under an app's origin, whose scripts can read it; the name may hold a user's."""
    async with Silent() as upstream:
        via = Via("socks5h", "127.0.0.1", 0, tunnel=Ssh(upstream.port))
        dialer = TcpDialer(AddressPolicy(), via_for=always(via), deadline=0.1)
        error = await failure(dialer, http("app.test"))
    assert error.public == "The ssh tunnel to app.test:80 did not answer in time."


async def close_unread(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """The client finds a reset: what it sent is left unread."""


async def close_read(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read(1024)


@pytest.mark.parametrize("scheme", ["socks5h", "socks5"])
@pytest.mark.parametrize("close", [close_unread, close_read])
async def test_what_closes_before_it_greets_is_no_socks_proxy(
    close: Callable[..., Awaitable[None]], scheme: str
) -> None:
    """Nothing is said of the app, which nobody was asked for."""
    async with listening(close) as port:
        place = f"127.0.0.1:{port}"
        dialer = TcpDialer(
            AddressPolicy(),
            via_for=through(f"{scheme}://{place}"),
            resolve=answers(a_internal=["192.0.2.7"]),
        )
        error = await failure(dialer, http("a.internal"))
    assert (error.error, error.http_status) == ("proxy_configuration_error", 502)
    assert error.public == f"{place} closed the connection and did not answer as a SOCKS proxy."
    assert error.remedy == f"Check that a SOCKS proxy listens at {place}, and no other program."


async def test_an_ssh_tunnel_that_closes_before_it_greets_is_not_named() -> None:
    async with listening(close_read) as port:
        via = Via("socks5h", "127.0.0.1", 0, tunnel=Ssh(port))
        error = await failure(TcpDialer(AddressPolicy(), via_for=always(via)), http("app.test"))
    assert error.public == "The ssh tunnel to app.test:80 closed the connection."
    assert error.remedy == Ssh.remedy
    assert not error.for_anybody
    assert (error.remedy, error.for_anybody) == (Ssh.remedy, False)


class TestHttpConnect:
    async def test_the_request(self, app: int) -> None:
        through = Tunnelled(HttpConnect, "http", app, credentials=("me", PASSWORD))
        async with through.upstream as upstream:
            assert isinstance(upstream, HttpConnect)
            await ping(through.dialer(user="me@"), http("app.test"))
            assert upstream.heads == [
                b"CONNECT app.test:80 HTTP/1.1\r\nHost: app.test:80\r\n"
                b"Proxy-Authorization: Basic bWU6aHVudGVyMg==\r\n\r\n"
            ]

    async def test_ipv6_stands_in_brackets(self, app: int) -> None:
        through = Tunnelled(HttpConnect, "http", app)
        through.upstream.names["fd00::1"] = ("127.0.0.1", app)
        async with through.upstream as upstream:
            await ping(through.dialer(), http("fd00::1", 8080))
            assert upstream.asked == [("fd00::1", 8080)]

    @pytest.mark.parametrize(
        "pieces",
        [
            (b"HTTP/1.1 200 OK\r\n\r\nSSH-2.0-early",),
            (b"HTTP/1.1 200 OK\r\n", b"Via: x\r\n", b"\r\n", b"SSH-2.0-early"),
            (b"HTTP/1.1 200 OK\r\nVia: x\r", b"\n\r", b"\nSSH-2.0-early"),
            (b"H", b"TTP/1.1 200\r\n\r\nSSH-2", b".0-early"),
            (b"HTTP/1.0 200 Connection established\n\nSSH-2.0-early",),
            (b"HTTP/1.1 103 Early\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\n\r\nSSH-2.0-early",),
            (b"HTTP/1.1 204 No Content\r\nX: " + b"x" * 9000 + b"\r\n\r\nSSH-2.0-early",),
        ],
    )
    async def test_a_split_answer_loses_no_early_bytes(self, pieces: tuple[bytes, ...]) -> None:
        async with HttpConnect(raw=pieces) as upstream:
            dialer = TcpDialer(
                AddressPolicy(), via_for=through(f"http://127.0.0.1:{upstream.port}")
            )
            transport, protocol = await dialer.connect(http("app.test"), Collect)
            await protocol.until(b"early")
            assert protocol.received == b"SSH-2.0-early"
            transport.abort()

    @pytest.mark.parametrize(
        ("pieces", "token", "status"),
        [
            (
                (b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n",),
                "proxy_configuration_error",
                502,
            ),
            ((b"HTTP/1.1 403 Forbidden\r\n\r\n",), "http_request_denied", 502),
            ((b"HTTP/1.1 503 Busy\r\n\r\n",), "destination_unavailable", 502),
            ((b"HTTP/1.1 504 Slow\r\n\r\n",), "connection_timeout", 504),
            ((b"HTTP/1.1 301 Away\r\nLocation: /\r\n\r\n",), "destination_unavailable", 502),
            ((b"HTTP/1.1 200 OK\r\nno end",), "destination_unavailable", 502),
            ((), "destination_unavailable", 502),
            ((b"HTTP/2 200\r\n\r\n",), "proxy_configuration_error", 502),
            ((b"HTTP/1.1 2000 OK\r\n\r\n",), "proxy_configuration_error", 502),
            ((b"HTTP/1.1 099 OK\r\n\r\n",), "proxy_configuration_error", 502),
            (
                (b"HTTP/1.1 200 OK\r\nX: " + b"x" * 17_000 + b"\r\n\r\n",),
                "proxy_configuration_error",
                502,
            ),
            ((b"HTTP/1.1 100 Continue\r\n\r\n" * 20,), "proxy_configuration_error", 502),
        ],
    )
    async def test_answers_that_are_no_tunnel(
        self, pieces: tuple[bytes, ...], token: str, status: int
    ) -> None:
        before = sockets_open()
        async with HttpConnect(raw=pieces) as upstream:
            dialer = TcpDialer(
                AddressPolicy(), via_for=through(f"http://127.0.0.1:{upstream.port}")
            )
            error = await failure(dialer, http("app.test"))
        assert (error.error, error.http_status) == (token, status)
        await settled()
        assert sockets_open() == before


def test_own_addresses_are_those_that_can_be_bound() -> None:
    for text, own in [("127.0.0.1", True), ("192.0.2.1", False), ("2001:db8::1", False)]:
        address = parse_address(text)
        assert address is not None
        assert is_own_address(address) is own
