"""The side that faces the browser: requests read, in order, one exchange at a time.

What a client sends ahead stays unread bytes, bounded, until the exchanges before it are over. A
request that is refused is answered and its connection closed before a byte of it goes anywhere.
"""

from __future__ import annotations

import asyncio
from typing import Final, cast

from iam_auth_proxy.names import Origin
from iam_auth_proxy.relay.body import CountedBody
from iam_auth_proxy.relay.chunked import ChunkError, ChunkScanner
from iam_auth_proxy.relay.connect import ESTABLISHED, Connecting
from iam_auth_proxy.relay.deadlines import NEVER
from iam_auth_proxy.relay.decision import ends_tls, reads_tunnel
from iam_auth_proxy.relay.destination import (
    Destination,
    TunnelTo,
    destination,
    destination_inside,
)
from iam_auth_proxy.relay.exchange import EVERYBODY, Entrance, Exchange, Reply
from iam_auth_proxy.relay.forward import Forward
from iam_auth_proxy.relay.intercept import Guest, Intercepting
from iam_auth_proxy.relay.message import BadRequest, Request, went_through_us
from iam_auth_proxy.relay.origin import IDLE, OriginConnection
from iam_auth_proxy.relay.reading import (
    HEAD_END,
    body_of,
    check_beginning,
    check_protocol,
    read_request,
)
from iam_auth_proxy.relay.shared import Registry, Shared, write_reply
from iam_auth_proxy.relay.transports import peer_name, reset, send_fin, set_marks
from iam_auth_proxy.relay.tunnel import End, Tunnel

# Connections over the limit that are told so at one time; further ones are just closed.
_TURNED_AWAY_AT_ONCE: Final = 100
_CR: Final = 0x0D

# READY: between requests or in a head. BUSY: an exchange is under way. DISCARDING: it was answered
# here and the rest of its body is read away. LINGERING: the last answer is written, and the client
# is given time to take it. SWITCHED: a tunnel. GONE: closed.
READY, BUSY, DISCARDING, LINGERING, SWITCHED, GONE = range(6)


class ClientConnection(asyncio.Protocol):
    """A connection of a client.

    :ivar bound: a connection to an origin that was authenticated for this client.
    :ivar entrance: the listener it came in by.
    :ivar peer: the client's ``address:port``.
    :ivar due: see :class:`deadlines.Watched`.
    :ivar closing: no further request is taken on it.
    :ivar write_paused: the transport has enough to send.
    """

    __slots__ = (
        "_below",
        "_body",
        "_buffer",
        "_closed",
        "_discarded",
        "_eof",
        "_exchange",
        "_guest",
        "_in_head",
        "_inside",
        "_pumping",
        "_registry",
        "_shared",
        "_transport",
        "_tunnel",
        "_unsent",
        "bound",
        "closing",
        "due",
        "entrance",
        "peer",
        "state",
        "write_paused",
    )

    _transport: asyncio.Transport
    _below: asyncio.Transport | None  # the socket's, where TLS is ended here
    # aiohttp's Server looks here for a task that outlives the connection; there is none.
    _task_handler: Final = None

    def __init__(
        self, shared: Shared, registry: Registry | None, entrance: Entrance = EVERYBODY
    ) -> None:
        self._shared = shared
        self._registry = registry
        self.entrance = entrance
        self.bound: OriginConnection | None = None
        self._below = None
        self._body: ChunkScanner | CountedBody | None = None
        self._buffer = b""
        self._closed: asyncio.Future[None] | None = None
        self._discarded = 0
        self._eof = False
        self._exchange: Forward | Connecting | Intercepting | None = None
        self._guest: Guest | None = None  # behind TLS that was ended here, before it has spoken
        self._in_head = False
        self._inside: Origin | None = None  # the origin of a tunnel whose requests are read
        self._pumping = False
        self._tunnel: Tunnel | None = None
        self._unsent = 0
        self.closing = False
        self.due = NEVER
        self.peer = ""
        self.state = READY
        self.write_paused = False

    # -- asyncio ---------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        shared = self._shared
        self._transport = cast(asyncio.Transport, transport)
        if not self.entrance.admits(transport):
            shared.counters.strangers += 1
            self.state = GONE
            self._transport.abort()
            return
        set_marks(self._transport)
        self.peer = peer_name(transport)
        if self._registry is not None:
            self._registry.connection_made(self, self._transport)
        shared.clients.add(self)
        shared.sweep.watch(self)
        shared.counters.accepted += 1
        self.due = shared.sweep.now + shared.limits.idle_connection
        if len(shared.clients) > shared.limits.clients:
            self._turn_away()

    def data_received(self, data: bytes) -> None:
        state = self.state
        if state == READY:
            self._buffer = self._buffer + data if self._buffer else data
            if self.write_paused:
                self._read_ahead()
            else:
                self._pump()
        elif state == BUSY:
            if self._body is not None:
                self._upload(self._body, data)
            else:
                self._buffer += data
                self._read_ahead()
        elif state == DISCARDING and self._body is not None:
            self._upload(self._body, data)

    def eof_received(self) -> bool:
        self._eof = True
        if self.state == BUSY:
            if self._body is None:
                # A half-close and a client that is gone look the same until the next write.
                self.due = self._shared.sweep.now + self._shared.limits.half_closed
                return self._transport.can_write_eof()  # behind TLS there is no such half
            self._client_gone()
        elif self.state == READY and self._buffer and self.write_paused:
            return self._transport.can_write_eof()
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        if self.state == GONE:
            return
        self._client_gone()
        if self._guest is not None and self.state == READY:
            self._guest.refuses(exc)
        self.state = GONE
        if self.bound is not None:
            self.bound.discard()
        self._shared.sweep.forget(self)
        self._shared.clients.discard(self)
        if self._registry is not None:
            self._registry.connection_lost(self, exc)
        if self._closed is not None and not self._closed.done():
            self._closed.set_result(None)

    def pause_writing(self) -> None:
        self.write_paused = True
        if isinstance(self._exchange, Forward):
            self._exchange.client_writable(False)

    def resume_writing(self) -> None:
        self.write_paused = False
        if isinstance(self._exchange, Forward):
            self._exchange.client_writable(True)
        elif self.state == READY:
            self._read_ahead()
            self._pump()

    # -- for the server that accepted it -----------------------------------------------------------

    def close(self) -> None:
        """Finish the exchange under way, then close."""
        self.closing = True
        if self.state == READY:
            self._close()
        elif isinstance(self._exchange, Intercepting):
            self.abort()  # nothing was asked yet
        elif self._tunnel is not None and self._tunnel.is_quiet(1.0):
            self._tunnel.abort()

    def close_unlisted(self) -> None:
        """:meth:`close`, where TLS is ended here and nobody lists that host for it any more."""
        inside = self._inside
        if inside is None or inside.scheme != "https":
            return
        if ends_tls(self._shared.steering, inside) is None:
            self.close()

    async def shutdown(self, timeout: float | None = None) -> None:  # noqa: ASYNC109  # aiohttp's
        """:meth:`close`, and close whatever is under way after ``timeout`` seconds (15)."""
        self.close()
        if self.state != GONE:
            self._closed = asyncio.get_running_loop().create_future()
            await asyncio.wait([self._closed], timeout=15.0 if timeout is None else timeout)
            self.abort()

    def abort(self) -> None:
        """Close now, and so that the client sees that it was not the end of an answer."""
        if self._tunnel is not None:
            self._tunnel.abort()
        elif self.state != GONE:
            self._drop_exchange()
            self.state = LINGERING
            reset(self._transport)

    def overdue(self) -> None:
        """See :class:`deadlines.Watched`."""
        self._shared.counters.expired += 1
        exchange = self._exchange
        if self.state == READY:
            self._ready_overdue()
        elif self.state == BUSY and self._eof:
            self._half_closed_overdue()
        elif self.state == BUSY and isinstance(exchange, Forward):
            exchange.overdue()
        elif self.state == DISCARDING:
            self._linger()
        elif not self._is_draining():
            self.abort()

    def _half_closed_overdue(self) -> None:
        moved = self._exchange.last_moved() if isinstance(self._exchange, Forward) else None
        due = NEVER if moved is None else moved + self._shared.limits.half_closed
        if moved is not None and due > self._shared.sweep.now:
            self.due = due  # the answer is on its way, and nobody has refused it
        else:
            self._client_gone()
            self.abort()

    def _ready_overdue(self) -> None:
        if self._in_head:
            self.refuse(408, "The request's head did not come in time.")
        elif not self._is_draining():
            if self._unsent_bytes():
                self.abort()  # it never read its answer
            else:
                self._close()

    def _is_draining(self) -> bool:
        """Whether the client took something of what is written since the last look."""
        unsent = self._unsent_bytes()
        draining = 0 < unsent != self._unsent
        self._unsent = unsent
        if draining:
            self.due = self._shared.sweep.now + self._shared.limits.idle_body
        return draining

    def _unsent_bytes(self) -> int:
        unsent = self._transport.get_write_buffer_size()
        return unsent + (self._below.get_write_buffer_size() if self._below is not None else 0)

    # -- reading -----------------------------------------------------------------------------------

    def _pump(self) -> None:
        """Start the next request, and the next if that one was answered on the spot."""
        if self._pumping:
            return
        self._pumping = True
        while self.state == READY and self._buffer and not self.write_paused:
            if not self._next_request():
                break
        self._pumping = False
        if self.state == READY and (self.closing or self._eof):
            self._close()

    def _next_request(self) -> bool:
        """Whether a whole head was there."""
        data = self._buffer
        if data[0] == _CR and data.startswith(b"\r\n"):
            data = data[2:]  # one empty line is let pass (RFC 9112 section 2.2)
        limits = self._shared.limits
        end = data.find(HEAD_END, 0, limits.head) + 4
        if end < 4:
            return self._no_whole_head(data)
        self._buffer = data[end:]
        self._in_head = False
        head = data[:end]
        try:
            if self._inside is not None:
                check_protocol(head)
            self._start(read_request(head, limits))
        except BadRequest as error:
            self.refuse(error.http_status, error.public)
        except ChunkError as error:
            self.refuse(400, f"The request's body is malformed: {error}.")
        return True

    def _no_whole_head(self, data: bytes) -> bool:
        try:
            check_beginning(data, self._shared.limits)
        except BadRequest as error:
            self.refuse(error.http_status, error.public)
        else:
            if not self._in_head:
                self._in_head = True
                self.due = self._shared.sweep.now + self._shared.limits.client_head
        return False

    def _start(self, request: Request) -> None:
        shared = self._shared
        shared.counters.requests += 1
        found: Destination
        if self._inside is None:
            found = destination(shared, self.entrance, request, self.peer)
        else:
            if self._guest is not None:
                self._guest.spoke()
                self._guest = None
            found = destination_inside(request, self._inside)
        if isinstance(found, Origin):
            self._forward(request, found)
        elif isinstance(found, Reply):
            self._answer(request, found)
        elif isinstance(found, TunnelTo):
            self._connect(request, found.target)
        else:
            self._forward(request, found.app, found.alias)

    def _forward(self, request: Request, origin: Origin, alias: bytes = b"") -> None:
        shared = self._shared
        content = b""
        if request.length:
            content = self._enter_body(request)
        self.state = BUSY
        # A client that half-closed behind pipelined requests: eof_received() is not called again.
        self.due = shared.sweep.now + shared.limits.half_closed if self._eof else NEVER
        exchange = self._exchange = Forward(self, shared, origin, request, alias)
        if b"cdn-loop" in request.noted and went_through_us(request):
            exchange.fail_loop()
            return
        exchange.begin(content, self._body is None)
        if self._body is not None and exchange.path is None and self.state == BUSY:
            self._transport.pause_reading()

    def _answer(self, request: Request, reply: Reply) -> None:
        """A request that no exchange is made of, answered at once."""
        keep = request.keep_alive and not request.length and not self.closing
        self._transport.write(write_reply(reply, request.method, close=not keep))
        if request.length:
            self._linger()
        else:
            self.finished(keep)

    def _connect(self, request: Request, origin: Origin) -> None:
        shared = self._shared
        ends = ends_tls(shared.steering, origin)
        if ends is not None:
            self.state = BUSY
            early, self._buffer = self._buffer, b""
            intercepting = self._exchange = Intercepting(self, shared, origin, request, ends)
            intercepting.begin(early)
            return
        inside = Origin("http", origin.host, origin.port)
        if reads_tunnel(shared.steering, inside):
            shared.counters.tunnels_read += 1
            self._inside = inside
            self.due = shared.sweep.now + shared.limits.idle_connection
            self._transport.write(ESTABLISHED)
            return
        self.state = BUSY
        self.due = NEVER
        connecting = self._exchange = Connecting(self, self._shared, origin, request)
        connecting.begin()

    def _enter_body(self, request: Request) -> bytes:
        """What is there of the request's body."""
        body = body_of(request, self._shared.limits)
        content = body.feed(self._buffer)
        self._buffer = body.rest
        if not body.done:
            self._body = body
        return content

    def _upload(self, body: ChunkScanner | CountedBody, data: bytes) -> None:
        """More of the body of the request under way, or of one that was answered already."""
        self.due = self._shared.sweep.now + self._shared.limits.idle_body
        self._discarded += len(data)
        try:
            data = body.feed(data)
        except ChunkError as error:
            self._bad_upload(error)
            return
        if body.done:
            self._buffer = body.rest
            self._body = None
            self.due = NEVER
        if isinstance(self._exchange, Forward):
            self._exchange.upload(data, body.done)
        elif body.done:
            self.finished(True)
        elif self._discarded > self._shared.limits.discard:
            self._linger()

    def _bad_upload(self, error: ChunkError) -> None:
        """The origin never sees the end of this body; its connection is closed before it."""
        answering = self.state == DISCARDING or (
            isinstance(self._exchange, Forward) and self._exchange.begun
        )
        self._drop_exchange()
        if answering:
            self.abort()
        else:
            self.refuse(400, f"The request's body is malformed: {error}.")

    def _read_ahead(self) -> None:
        """Read on, unless there is enough for later."""
        buffer, limits = self._buffer, self._shared.limits
        # Each request's head ends in one, so there are at most as many requests as this counts.
        if len(buffer) >= limits.head or buffer.count(HEAD_END) >= limits.pipelined:
            self._transport.pause_reading()
        else:
            self._transport.resume_reading()

    # -- for the exchange --------------------------------------------------------------------------

    @property
    def transport(self) -> asyncio.Transport:
        """Where :meth:`write` writes to."""
        return self._transport

    def write(self, data: bytes) -> None:
        """To the client."""
        self._transport.write(data)

    def watch_body(self, exchange: Forward) -> None:
        """The exchange has a connection: the rest of its body may come, and may not stand still."""
        sweep, limits = self._shared.sweep, self._shared.limits
        if self._body is not None:
            self.due = sweep.now + limits.idle_body
            self.body_wanted(exchange.wants_body())
        elif self._eof:
            self.due = sweep.now + limits.half_closed
        elif exchange.hold and exchange.is_sending():
            self.due = sweep.now + limits.idle_body
        else:
            self.due = NEVER

    def body_wanted(self, wanted: bool) -> None:
        """The exchange takes more of the request's body, or has enough for now."""
        if self._body is not None:
            if wanted:
                self._transport.resume_reading()
            else:
                self._transport.pause_reading()

    def take_bound(self, exchange: Exchange) -> OriginConnection | None:
        """The connection that was authenticated for this client, if it leads there."""
        bound = self.bound
        if bound is None or bound.bucket.origin != exchange.origin:
            return None
        if bound.bucket.identified is not exchange.identified:
            return None
        self.bound = None
        return bound if bound.state == IDLE and not bound.transport.is_closing() else None

    def keep_bound(self, connection: OriginConnection) -> None:
        """A connection that no other client may use."""
        if self.bound is not None:
            self.bound.discard()
        self.bound = connection

    def finished(self, keep: bool) -> None:
        """The exchange is over, its request read to the end."""
        self._exchange = None
        if not keep or self.closing:
            self._end()
            return
        shared = self._shared
        self.state = READY
        self.due = shared.sweep.now + shared.limits.idle_connection
        if self._buffer or self._eof:
            self._read_ahead()
            self._pump()

    def upload_unwanted(self) -> None:
        """The answer is whole and the origin takes no more of the request."""
        self._exchange = None
        self._linger()

    def reply(self, request: Request, reply: Reply) -> None:
        """A whole answer in place of the origin's; the exchange is over."""
        self._exchange = None
        if self._transport.is_closing():
            return
        limits = self._shared.limits
        keep = request.keep_alive and not self.closing
        body = self._body
        if body is not None and (body.left > limits.discard or b"expect" in request.noted):
            keep = False  # too much to read away, or nobody knows whether it will come
        self._transport.write(write_reply(reply, request.method, close=not keep))
        if body is None:
            self.finished(keep)
        elif keep:
            self.state = DISCARDING
            self._discarded = 0
            self.due = self._shared.sweep.now + limits.idle_body
            self._transport.resume_reading()
        else:
            self._linger()

    def switch(
        self,
        origin: asyncio.Transport,
        from_origin: bytes = b"",
        *,
        client_end: End | None = None,
        origin_end: End | None = None,
        from_client: bytes = b"",
    ) -> None:
        """From now on bytes pass unread between the client and this transport.

        :param from_client: what was read of the client before anything that is here.
        """
        self._exchange = None
        self.state = SWITCHED
        self.due = NEVER
        limits = self._shared.limits
        self._tunnel = Tunnel(
            self._shared.sweep,
            self._shared.splicer,
            limits.idle_tunnel,
            limits.half_closed,
            self.connection_lost,
        )
        from_client, self._buffer = from_client + self._buffer, b""
        self._tunnel.join(
            self._transport,
            origin,
            client_end=client_end,
            origin_end=origin_end,
            from_client=from_client,
            from_origin=from_origin,
            client_eof=self._eof,
            client_blocked=self.write_paused,
        )

    def secured(
        self, transport: asyncio.Transport, inside: Origin, guest: Guest, data: bytes
    ) -> None:
        """TLS is ended here: from now on requests to ``inside`` come, ``data`` being the first."""
        shared = self._shared
        self._exchange = None
        self._guest = guest
        self._inside = inside
        self._below, self._transport = self._transport, transport
        self.write_paused = False
        self.state = READY
        self.due = shared.sweep.now + shared.limits.idle_connection
        set_marks(transport)
        transport.set_protocol(self)
        if self.closing:
            self._close()
        elif data:
            self.data_received(data)

    # -- ends --------------------------------------------------------------------------------------

    def _client_gone(self) -> None:
        exchange = self._exchange
        if isinstance(exchange, Forward) and not exchange.is_answered():
            self._shared.counters.abandoned += 1
        self._drop_exchange()

    def _drop_exchange(self) -> None:
        exchange, self._exchange = self._exchange, None
        self._body = None
        if exchange is not None:
            exchange.cancel()

    def refuse(self, status: int, reason: str) -> None:
        """Answer a request that goes nowhere; what came behind it may be anything."""
        self._shared.counters.count_refused(status)
        reply = self._shared.steering.refused(status, reason, self.peer)
        self.end_with(write_reply(reply, b"", close=True))

    def end_with(self, data: bytes) -> None:
        """Write this, whatever it is, and close."""
        self._exchange = None
        self._transport.write(data)
        self._linger()

    def _turn_away(self) -> None:
        """One connection too many: say so before it has said anything."""
        shared = self._shared
        shared.counters.over_limit += 1
        if len(shared.clients) > shared.limits.clients + _TURNED_AWAY_AT_ONCE:
            self.abort()
        else:
            self.refuse(503, "Too many connections are open.")

    def _end(self) -> None:
        """No further request: close, gently where the client may still be sending."""
        if self._buffer and not self._eof:
            self._linger()
        else:
            self._close()

    def _close(self) -> None:
        """Close once what is written has been taken."""
        self.state = LINGERING
        self.due = self._shared.sweep.now + self._shared.limits.linger
        self._transport.close()

    def _linger(self) -> None:
        """Close when the client has seen it coming (RFC 9112 section 9.6).

        Closing with unread bytes resets the connection, and a reset takes the answer with it.
        """
        self.state = LINGERING
        self._buffer = b""
        self.due = self._shared.sweep.now + self._shared.limits.linger
        if self._eof or not self._transport.can_write_eof():
            self._transport.close()
        elif send_fin(self._transport):
            self._transport.resume_reading()
