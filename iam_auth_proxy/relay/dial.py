"""How an origin is reached: directly, through SOCKS, or through an HTTP proxy's CONNECT.

One deadline covers a dial: resolving the name, connecting and, where there is a proxy between, its
handshake, and TLS. Nothing is remembered of a way from one dial to the next, so a tunnel that comes
back is used again at once. Every failure becomes a :class:`~iam_auth_proxy.errors.PathError` here.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Iterable, Sequence
from enum import Enum
from typing import Final, TypeVar

import aiohappyeyeballs

from iam_auth_proxy.errors import PathError
from iam_auth_proxy.names import Origin
from iam_auth_proxy.relay import failures, tls_failures
from iam_auth_proxy.relay.addresses import AddressPolicy, IPAddress, far_refusal, parse_address
from iam_auth_proxy.relay.http_connect import http_connect
from iam_auth_proxy.relay.resolve import AddressInfo, Resolve, ThreadResolver
from iam_auth_proxy.relay.tls import ClientIdentity, ClientTls
from iam_auth_proxy.relay.via import ConnectTo, Target, Via, target_of

_P = TypeVar("_P", bound=asyncio.BaseProtocol)

# RFC 8305 section 5: the recommended delay between attempts.
_NEXT_ADDRESS_AFTER: Final = 0.25
# Addresses tried one after the other through a tunnel that takes only addresses.
_MAX_THROUGH: Final = 4


def is_own_address(address: IPAddress) -> bool:
    """Whether an address is one of this machine's: only those can be bound. Sends nothing."""
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.bind((str(address), 0))
    except OSError:
        return False
    return True


class _Step(Enum):
    """Where a dial is when its deadline passes: (error token, sentence)."""

    RESOLVE = "dns_timeout", "The name {target} was not resolved in time."
    CONNECT = "connection_timeout", "{target} did not answer in time."
    REACH_VIA = "connection_timeout", "The tunnel to {target} is down ({via} did not answer)."
    GREET = "connection_timeout", "{via} did not answer as a SOCKS proxy in time."
    THROUGH = "connection_timeout", "The tunnel is up, but no answer for {target} came in time."
    TLS = "connection_timeout", ""


class TcpDialer:
    """The :class:`~iam_auth_proxy.relay.exchange.Dialer` of the proxy.

    :param policy: which addresses may be dialled.
    :param via_for: the upstream proxy of an origin; None: it is dialled directly. May raise
        :class:`~iam_auth_proxy.errors.PathError` where there is no way to it.
    :param connect_to: what is dialled in place of some origins; the first that covers one counts.
    :param trusted: whether the person listed an origin; asked for names that go to the far end.
    :param resolve: how names become addresses.
    :param tls: makes TLS towards apps.
    :param identity_for: the client certificate for an origin; None: there is none for it.
    :param deadline: seconds for the whole of a dial.
    """

    def __init__(
        self,
        policy: AddressPolicy,
        *,
        via_for: Callable[[Origin], Via | None] = lambda origin: None,
        connect_to: Iterable[ConnectTo] = (),
        trusted: Callable[[Origin], bool] = lambda origin: False,
        resolve: Resolve | None = None,
        tls: ClientTls | None = None,
        identity_for: Callable[[Origin], ClientIdentity | None] = lambda origin: None,
        deadline: float = 10.0,
    ) -> None:
        self._policy = policy
        self._via_for = via_for
        self._connect_to = tuple(connect_to)
        self._trusted = trusted
        self._resolve = resolve or ThreadResolver()
        self._tls = tls or ClientTls()
        self._identity_for = identity_for
        self._deadline = deadline

    async def connect(
        self, origin: Origin, protocol_factory: Callable[[], _P], *, deadline: float | None = None
    ) -> tuple[asyncio.Transport, _P]:
        """Connect to ``origin``, within ``deadline`` seconds if given and the dialer's otherwise.

        :raises PathError: the target may not be dialled (403) or could not be reached (502, 504).
        """
        dial = self._dial(origin)
        try:
            async with asyncio.timeout(self._deadline if deadline is None else deadline):
                # Port 80 inside CONNECT is a plain-http WebSocket, not TLS.
                plain = origin.scheme == "http" or dial.target.port == 80
                sock = await dial.reach(origin, self._trusted, plain=plain)
                return await _adopt(sock, protocol_factory)
        except TimeoutError as error:
            raise dial.timed_out() from error

    async def secure(
        self,
        origin: Origin,
        protocol_factory: Callable[[], _P],
        *,
        identified: bool = False,
        deadline: float | None = None,
    ) -> tuple[asyncio.Transport, _P]:
        """The same, and TLS towards ``origin``, whose host is the name that is verified.

        :param identified: a client certificate may be shown, where there is one for the origin.
        :raises PathError: also where the peer does not prove to be that origin.
        """
        identity = self._identity_for(origin) if identified else None
        dial = self._dial(origin)
        try:
            async with asyncio.timeout(self._deadline if deadline is None else deadline):
                await self._tls.prepare(identity)
                sock = await dial.reach(origin, self._trusted, plain=False)
                dial.makes_tls()
                return await self._tls.connect(sock, origin, protocol_factory, identity)
        except TimeoutError as error:
            raise dial.timed_out() from error

    def _dial(self, origin: Origin) -> _Dial:
        target = target_of(origin, self._connect_to)
        return _Dial(self._policy, self._resolve, target, self._via_for(origin))

    def tls_only(self, origin: Origin) -> bool:
        """Whether only TLS protects a name that goes to the far end: see :func:`far_refusal`."""
        dial = self._dial(origin)
        if not dial.names_go_far:
            return False
        return dial.far_reason(origin, self._trusted, plain=True) is not None


async def _adopt(
    sock: socket.socket, protocol_factory: Callable[[], _P]
) -> tuple[asyncio.Transport, _P]:
    # Both loops set TCP_NODELAY for a socket whose protocol number says TCP, as ours does.
    try:
        return await asyncio.get_running_loop().create_connection(protocol_factory, sock=sock)
    except OSError as error:
        sock.close()
        raise PathError(f"the new connection: {error}", error="connection_terminated") from error
    except BaseException:
        sock.close()
        raise


class _Dial:
    """One dial, and the step it is at."""

    def __init__(
        self, policy: AddressPolicy, resolve: Resolve, target: Target, via: Via | None
    ) -> None:
        self.target = target
        self._policy = policy
        self._resolve = resolve
        self._via = via
        self._step = _Step.CONNECT
        self._there = 0.0  # loop time at which the proxy between was reached

    @property
    def names_go_far(self) -> bool:
        """Whether the target's name is resolved by the proxy between."""
        return self._via is not None and self._via.names_go_far

    async def reach(
        self, origin: Origin, trusted: Callable[[Origin], bool], *, plain: bool
    ) -> socket.socket:
        """A connected socket to the target.

        :param plain: whether something else than TLS may go over it.
        :raises PathError: see :meth:`TcpDialer.connect`.
        """
        if self._via is None:
            return await self.direct()
        if self.names_go_far:
            self.check_for_far_end(origin, trusted, plain=plain)
            return await self.through(self.target.host)
        return await self.through_resolved()

    def makes_tls(self) -> None:
        """The target is reached; what follows is its handshake."""
        self._step = _Step.TLS

    def timed_out(self) -> PathError:
        """The deadline passed at the step this dial is at."""
        token, sentence = self._step.value
        via = self._via.host_port if self._via else ""
        text = sentence.format(target=self.target.host_port, via=via)
        remedy = ""
        if self._step is _Step.TLS:
            text, remedy = tls_failures.timed_out(self.target.host_port)
        elif self._via and self._step is _Step.REACH_VIA:
            remedy = failures.start_remedy(self._via)
            if self._via.tunnel is not None:
                text = f"The ssh tunnel to {self.target.host_port} is not up yet."
        elif self._step is _Step.GREET and self._via:
            remedy = failures.greet_remedy(self._via)
            if self._via.tunnel is not None:  # whose name holds a user's, not for every page
                text = f"The ssh tunnel to {self.target.host_port} did not answer in time."
        elif self._step is _Step.THROUGH and self._via and not self._via.greets:
            remedy = f"Check that {via} is such a proxy, then the network and the app."
        detail = f"deadline passed ({self._step.name.lower()})"
        return PathError(
            f"{self.target.host_port}: {detail}",
            error=token,
            status=504,
            public=text,
            remedy=remedy or "Try again; if it stays so, check the network and the app.",
            for_anybody=self._via is None or self._via.tunnel is None,
        )

    # -- directly ----------------------------------------------------------------------------------

    async def direct(self) -> socket.socket:
        infos = await self._allowed_addresses()
        self._step = _Step.CONNECT
        try:
            return await _connect_any(infos)
        except (OSError, RuntimeError) as error:
            raise failures.unreachable(self.target.host_port, error) from error

    async def _allowed_addresses(self) -> list[AddressInfo]:
        """The target's addresses that may be dialled.

        :raises PathError: the name does not resolve, or none may be dialled.
        """
        self._step = _Step.RESOLVE
        try:
            infos = await _addresses(self._resolve, self.target.host, self.target.port)
        except OSError as error:
            raise self._unresolved(error) from error
        refused: PathError | None = None
        allowed = []
        for info in infos:
            refusal = self._refusal(info[4][0])
            if refusal is None:
                allowed.append(info)
            else:
                refused = refused or refusal
        if not allowed:
            raise refused or self._unresolved(None)
        return allowed

    def _unresolved(self, error: OSError | None) -> PathError:
        return failures.unresolved(self.target.host, error, self._via)

    def _refusal(self, literal: str) -> PathError | None:
        address = parse_address(literal)
        if address is None:
            return self._unresolved(None)
        if self._policy.is_ourselves(address, self.target.port):
            return failures.loops_back(self.target)
        if self.target.named:
            return None
        reason = self._policy.refusal(self.target.host, address, self.target.port)
        return None if reason is None else failures.prohibited(self.target, str(address), reason)

    # -- through a proxy ---------------------------------------------------------------------------

    def check_for_far_end(
        self, origin: Origin, trusted: Callable[[Origin], bool], *, plain: bool
    ) -> None:
        """Whether the target may be handed to a proxy that resolves names itself.

        :raises PathError: it may not.
        """
        host = self.target.host
        if parse_address(host) is not None:
            refusal = self._refusal(host)
            if refusal is not None:
                raise refusal
        reason = self.far_reason(origin, trusted, plain=plain)
        if reason is not None:
            raise failures.prohibited(self.target, host, reason)

    def far_reason(
        self, origin: Origin, trusted: Callable[[Origin], bool], *, plain: bool
    ) -> str | None:
        """Why the target's name is not handed to the far end, for what is TLS or is not."""
        host, port = self.target.host, self.target.port
        if parse_address(host) is not None or self.target.named:
            return None
        if self._policy.allows_name(host, port):
            return None
        # What is not TLS inside CONNECT is plain http, to an origin that people list as such.
        if plain and trusted(Origin("http", origin.host, origin.port)):
            plain = False
        return far_refusal(origin, plain=plain, trusted=trusted)

    async def through_resolved(self) -> socket.socket:
        """Through the proxy to one of the target's addresses, as resolved here."""
        failure: PathError | None = None
        for info in (await self._allowed_addresses())[:_MAX_THROUGH]:
            try:
                return await self.through(info[4][0])
            except PathError as error:
                if self._step is _Step.REACH_VIA:
                    raise
                failure = failure or error
        assert failure is not None  # there was at least one address
        raise failure

    async def through(self, host: str) -> socket.socket:
        """Through the proxy to ``host``, a name or an address, at the target's port."""
        assert self._via is not None
        if self._via.scheme == "http":
            return await self._through_http(self._via, Target(host, self.target.port).host_port)
        if self._via.scheme == "socks4" and ":" in host:
            raise PathError(
                f"SOCKS4 cannot reach {host}",
                error="destination_ip_unroutable",
                public="SOCKS4 cannot carry IPv6 addresses.",
                remedy="Use socks5h:// for the proxy.",
                for_anybody=True,
            )
        return await self._through_socks(self._via, host)

    async def _reach_via(self, via: Via) -> socket.socket:
        self._step = _Step.REACH_VIA
        host, port = (via.host, via.port) if via.tunnel is None else await via.tunnel.open()
        try:
            infos = await _addresses(self._resolve, host, port)
            for info in infos:
                address = parse_address(info[4][0])
                if address is not None and self._policy.is_ourselves(address, port):
                    raise failures.loops_back(Target(host, port))
            sock = await _connect_any(infos)
        except socket.gaierror as error:
            raise failures.tunnel_down(via, "does not resolve", "dns_error", error) from error
        except (OSError, RuntimeError) as error:
            token, words, _ = failures.classify(error)
            raise failures.tunnel_down(via, words, token, error) from error
        self._step = _Step.THROUGH
        self._there = asyncio.get_running_loop().time()
        return sock

    async def _through_socks(self, via: Via, host: str) -> socket.socket:
        # Only who has such a proxy pays for the library at the start.
        from iam_auth_proxy.relay.socks import socks_connect

        async def reach() -> socket.socket:
            sock = await self._reach_via(via)
            if via.greets:
                self._step = _Step.GREET
            return sock

        def heard() -> None:
            self._step = _Step.THROUGH

        try:
            return await socks_connect(via, host, self.target, reach, heard)
        except PathError as error:
            if via.tunnel is None or self._step is _Step.REACH_VIA:
                raise
            raise failures.as_said(via, error, await via.tunnel.said(self._there)) from error

    async def _through_http(self, via: Via, authority: str) -> socket.socket:
        sock = await self._reach_via(via)
        try:
            status = await http_connect(sock, authority, via)
            if not 200 <= status < 300:
                raise failures.http_refused(via, self.target, status)
        except (OSError, EOFError) as error:
            sock.close()
            raise failures.closed_without_answer(via, self.target, error) from error
        except ValueError as error:
            sock.close()
            raise failures.not_that_proxy(via, str(error)) from error
        except BaseException:
            sock.close()
            raise
        return sock


# -- sockets ---------------------------------------------------------------------------------------


async def _addresses(resolve: Resolve, host: str, port: int) -> Sequence[AddressInfo]:
    """The addresses of a host; a literal is its own and asks nobody.

    :raises socket.gaierror: there is none.
    """
    address = parse_address(host)
    if address is None:
        infos = await resolve(host, port)
        if not infos:
            raise socket.gaierror(socket.EAI_NONAME, "no addresses")
        return infos
    if address.version == 4:
        return [(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", (host, port))]
    return [(socket.AF_INET6, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", (host, port, 0, 0))]


async def _connect_any(infos: Sequence[AddressInfo]) -> socket.socket:
    """Happy eyeballs (RFC 8305); uvloop has none of its own.

    :raises OSError: no address answered. RuntimeError: the same, in uvloop's words.
    """
    return await aiohappyeyeballs.start_connection(
        infos, happy_eyeballs_delay=_NEXT_ADDRESS_AFTER, interleave=1
    )
