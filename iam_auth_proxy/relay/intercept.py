"""TLS ended here, for the hosts that somebody listed: CONNECT, and then a handshake of our own.

The ClientHello is read before anything answers it. What cannot become a connection of ours gets an
alert and a close; who speaks something else than HTTP/1.1, or refused our certificate lately, is
tunnelled unread as hosts are that nobody listed. Everybody else gets our certificate, and the
requests inside are exchanges as all others, read by the very same :class:`client.ClientConnection`.

In no case is anything weaker than without us: an unread tunnel leaves the check to the client.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
from typing import TYPE_CHECKING, Final, cast

from iam_auth_proxy.errors import PathError
from iam_auth_proxy.names import Origin
from iam_auth_proxy.relay.certificate_refusals import SOON, Key
from iam_auth_proxy.relay.connect import ESTABLISHED
from iam_auth_proxy.relay.exchange import Exchange, TlsEnd
from iam_auth_proxy.relay.hello import (
    BadHello,
    Hello,
    HelloReader,
    NotTls,
    write_alert,
)
from iam_auth_proxy.relay.message import Request
from iam_auth_proxy.relay.shared import Shared, internal
from iam_auth_proxy.relay.tunnel import End

if TYPE_CHECKING:
    from iam_auth_proxy.relay.client import ClientConnection

log = logging.getLogger(__name__)

# What OpenSSL calls the alerts of a client that does not take a certificate.
_CERTIFICATE_ALERTS: Final = (
    "BAD_CERTIFICATE",
    "UNSUPPORTED_CERTIFICATE",
    "CERTIFICATE_REVOKED",
    "CERTIFICATE_EXPIRED",
    "CERTIFICATE_UNKNOWN",
    "UNKNOWN_CA",
    "ACCESS_DENIED",
)
_LONG: Final = 1e6
_INSTALL: Final = "If it is a browser of yours, run: iam-auth-proxy ca install"


class Intercepting(Exchange):
    """The exchange of a CONNECT whose TLS is ended here, until it is."""

    __slots__ = ("_ends", "_reader", "_shared", "_side", "_task")
    request: Request

    def __init__(
        self,
        side: ClientConnection,
        shared: Shared,
        origin: Origin,
        request: Request,
        ends: TlsEnd,
    ) -> None:
        super().__init__(origin, side.peer, request, side.entrance)
        request.keep_alive = False
        self._ends = ends
        self._reader = HelloReader()
        self._shared = shared
        self._side = side
        self._task: asyncio.Task[None] | None = None

    def begin(self, early: bytes) -> None:
        """Answer, and read what the client sends; ``early`` is what came with its CONNECT."""
        side, shared = self._side, self._shared
        side.due = shared.sweep.now + shared.limits.client_head
        side.transport.set_protocol(_Greeting(self))
        side.transport.resume_reading()
        side.write(ESTABLISHED)
        if early:
            self.feed(early)

    def cancel(self) -> None:
        """The client is gone, or the relay ends."""
        if self._task is not None:
            self._task.cancel()

    def feed(self, data: bytes) -> None:
        """More of the ClientHello."""
        if self._task is not None:
            self._reader.raw += data  # reading is paused, so this is no more than was on its way
            return
        try:
            hello = self._reader.feed(data)
            if hello is not None and hello.speaks_http11:
                hello.check(self.origin.host)
        except NotTls as error:
            self._refuse_plain(error.data)
        except BadHello as error:
            self._turn_away(error)
        else:
            if hello is not None:
                self._side.transport.pause_reading()
                self._task = self._shared.spawn(self._go_on(hello))

    def gone(self, exc: Exception | None) -> None:
        """The client is gone before it had said hello."""
        self._side.connection_lost(exc)

    # -- who gets no connection of ours ------------------------------------------------------------

    def _refuse_plain(self, data: bytes) -> None:
        self._leave()
        if data[:1].isalpha():
            self._side.refuse(400, "This tunnel is for https, and this is plain HTTP.")
        else:
            self._side.end_with(b"")

    def _turn_away(self, error: BadHello) -> None:
        self._leave()
        log.info("%s", error, extra={"origin": str(self.origin), "client": self.client})
        self._side.end_with(write_alert(error.alert))

    def _leave(self) -> None:
        """Hands the client's connection back to it."""
        self._shared.counters.tls_failed += 1
        self._side.transport.set_protocol(self._side)

    # -- who does ----------------------------------------------------------------------------------

    async def _go_on(self, hello: Hello) -> None:
        key = (self.origin, hello.fingerprint)
        shared = self._shared
        if not hello.speaks_http11 or shared.refusals.holds(key, shared.sweep.now):
            await self._tunnel()
            return
        # A backstop: each step has a deadline of its own.
        self._side.due = shared.sweep.now + 2 * shared.limits.pool_wait
        try:
            context = await self._ends.context(hello)
        except PathError as error:
            log.error("%s is tunnelled: %s. %s", self.origin, error, error.remedy)
            await self._tunnel()
        except Exception as error:  # noqa: BLE001  # logged; tunnelled, as most hosts are
            internal(error, "a certificate")
            await self._tunnel()
        else:
            await self._shake_hands(context, key)

    async def _shake_hands(self, context: ssl.SSLContext, key: Key) -> None:
        side, shared, loop = self._side, self._shared, asyncio.get_running_loop()
        raw, first = side.transport, _First()
        handshake = loop.create_task(
            loop.start_tls(
                raw,
                first,
                context,
                server_side=True,
                ssl_handshake_timeout=shared.limits.client_head,
                ssl_shutdown_timeout=_LONG,  # its connection has deadlines of its own
            )
        )
        handshake.add_done_callback(_look_at)
        try:
            await asyncio.sleep(0)  # its first step puts TLS between the socket and us
            loop.call_soon(_give, raw, bytes(self._reader.raw))
            transport = await handshake
        except (OSError, RuntimeError) as error:  # ssl.SSLError, a reset, a timeout; uvloop's own
            self._not_shaken(error, key)
            # During a handshake asyncio does not tell the protocol behind TLS of a lost connection.
            side.connection_lost(error)
        except asyncio.CancelledError:
            handshake.cancel()
            raw.abort()
            side.connection_lost(None)
            raise
        else:
            first.heir = side
            if transport is None or first.lost is not None:
                side.connection_lost(first.lost[0] if first.lost else None)
                return
            shared.counters.tls_ended += 1
            side.secured(transport, self.origin, Guest(shared, key, self.client), first.data)

    def _not_shaken(self, error: Exception, key: Key) -> None:
        shared = self._shared
        shared.counters.tls_failed += 1
        guest = Guest(shared, key, self.client)
        if not guest.refuses(error):
            reason = getattr(error, "reason", None) or type(error).__name__
            extra = {"origin": str(self.origin), "client": self.client, "reason": reason}
            log.info("a TLS handshake with a client failed", extra=extra)

    async def _tunnel(self) -> None:
        """As CONNECT to a host that nobody listed; it was answered already."""
        end = End()
        side, shared = self._side, self._shared
        side.due = shared.sweep.now + shared.limits.pool_wait
        try:
            transport, _ = await shared.dialer.connect(self.origin, lambda: end)
            if end.lost is not None:
                raise PathError("closed as soon as opened", error="connection_terminated")
        except PathError as error:
            self._not_tunnelled(error)
        except asyncio.CancelledError:
            end.abort()
            raise
        except Exception as error:  # noqa: BLE001  # logged, and counted
            self._not_tunnelled(internal(error, "a dial"))
        else:
            shared.counters.tunnels += 1
            side.switch(transport, origin_end=end, from_client=bytes(self._reader.raw))

    def _not_tunnelled(self, error: PathError) -> None:
        """A page is out of the question: within its TLS the client waits for the app."""
        self._shared.counters.count_failed(error.error)
        log.info("%s", error, extra={"origin": str(self.origin), "client": self.client})
        self._leave()
        self._side.abort()


class Guest:
    """A client that our certificate was shown to, until it has shown what it thinks of it."""

    __slots__ = ("_client", "_key", "_shared", "_since")

    def __init__(self, shared: Shared, key: Key, client: str) -> None:
        self._shared = shared
        self._key = key
        self._client = client
        self._since = shared.sweep.now

    def spoke(self) -> None:
        """A request came."""
        self._shared.refusals.spoke(self._key, self._shared.sweep.now)

    def refuses(self, error: Exception | None) -> bool:
        """The connection ended before a request came: whether that is a refusal."""
        shared = self._shared
        now = shared.sweep.now
        reason = str(getattr(error, "reason", None) or "")
        if isinstance(error, ssl.SSLError) and reason.endswith(_CERTIFICATE_ALERTS):
            shared.refusals.refused(self._key, now)
        elif isinstance(error, ssl.SSLError) and not isinstance(error, ssl.SSLEOFError):
            return False  # another fault
        elif now - self._since > SOON or not shared.refusals.closed(self._key, now):
            return False
        shared.counters.tls_refused += 1
        log.warning(
            "a client does not take our certificate for %s: for 5 minutes it is tunnelled, and not "
            "signed in. %s",
            self._key[0],
            _INSTALL,
            extra={
                "origin": str(self._key[0]),
                "client": self._client,
                "reason": reason or "closed",
                "hello": self._key[1],
            },
        )
        return True


def _look_at(handshake: asyncio.Task[asyncio.Transport | None]) -> None:
    """A handshake that nobody waits for any more failed as it had to."""
    if not handshake.cancelled():
        handshake.exception()


class _Greeting(asyncio.Protocol):
    """The client's connection until it has said hello."""

    __slots__ = ("_exchange",)

    def __init__(self, exchange: Intercepting) -> None:
        self._exchange = exchange

    def data_received(self, data: bytes) -> None:
        self._exchange.feed(data)

    def connection_lost(self, exc: Exception | None) -> None:
        self._exchange.gone(exc)


class _First(asyncio.Protocol):
    """Inside TLS before anybody knows the transport: on both loops requests can come so soon.

    :ivar heir: who comes after it. The end of a connection that is on its way is the heir's.
    """

    __slots__ = ("data", "heir", "lost")

    def __init__(self) -> None:
        self.data = b""
        self.heir: asyncio.Protocol | None = None
        self.lost: tuple[Exception | None] | None = None

    def data_received(self, data: bytes) -> None:
        self.data += data

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost = (exc,)
        if self.heir is not None:
            self.heir.connection_lost(exc)


def _give(transport: asyncio.Transport, data: bytes) -> None:
    """Passes bytes that were read already to the protocol that reads now."""
    protocol = cast(asyncio.BufferedProtocol, transport.get_protocol())  # TLS, on both loops
    while data and not transport.is_closing():
        buffer = memoryview(protocol.get_buffer(len(data)))
        count = min(len(buffer), len(data))
        buffer[:count] = data[:count]
        protocol.buffer_updated(count)
        data = data[count:]
