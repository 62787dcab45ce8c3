"""Two connections joined: CONNECT, and a WebSocket after its 101. Bytes are not looked at.

Each end writes what it reads to the other, stops reading while the other has enough to send, and
hands a half-close on. A direction in which much goes is spliced. There is no deadline but on
silence.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final, cast

from iam_auth_proxy.relay.deadlines import Sweep
from iam_auth_proxy.relay.splice import LONG, Splice, Splicer
from iam_auth_proxy.relay.transports import send_fin

_TLS_HANDSHAKE: Final = 0x16  # the content type of a ClientHello's record (RFC 8446 section 5.1)


class End(asyncio.Protocol):
    """One end. Reading is paused until it is joined to the other."""

    __slots__ = (
        "_made",
        "_passed",
        "_tunnel",
        "blocked",
        "eof",
        "lost",
        "peer",
        "splice",
        "transport",
    )

    transport: asyncio.Transport
    peer: asyncio.Transport

    def __init__(self) -> None:
        self._made: asyncio.Transport | None = None
        self._passed = 0
        self._tunnel: Tunnel | None = None
        self.splice: Splice | None = None
        self.blocked = False  # the transport has enough to send
        self.eof = False
        self.lost: tuple[Exception | None] | None = None

    def join(self, tunnel: Tunnel, transport: asyncio.Transport, peer: asyncio.Transport) -> None:
        """From now on what comes from ``transport`` goes to ``peer``."""
        self._tunnel = tunnel
        self.transport = transport
        self.peer = peer

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # A server may speak first, and the client has not been told yet that it is connected.
        self._made = self.transport = cast(asyncio.Transport, transport)
        self.transport.pause_reading()

    def abort(self) -> None:
        """Close a connection that nobody wants any more."""
        if self._made is not None:
            self._made.abort()

    def data_received(self, data: bytes) -> None:
        tunnel = self._tunnel
        if tunnel is not None:
            tunnel.due = tunnel.sweep.now + tunnel.idle
            self._passed += len(data)
            if self._passed >= LONG:
                self.splice = tunnel.splicer.start(self.transport, self.peer, self, data)
                if self.splice is not None:
                    return
        self.peer.write(data)

    def spliced(self, count: int) -> None:
        """See :class:`splice.Owner`."""
        tunnel = self._tunnel
        if tunnel is not None:
            tunnel.due = tunnel.sweep.now + tunnel.idle

    def splice_ended(self, error: OSError | None) -> None:
        """See :class:`splice.Owner`."""
        self.stop_splice()
        if error is None:
            self.transport.resume_reading()
        elif self._tunnel is not None:
            self._tunnel.abort()

    def stop_splice(self) -> None:
        """Stops the splice: what comes next comes through the transport."""
        self._passed = 0
        splice, self.splice = self.splice, None
        if splice is not None:
            splice.stop()

    def eof_received(self) -> bool:
        self.eof = True
        if self._tunnel is not None:
            self._tunnel.half_closed(self)
        return self.transport.can_write_eof()  # TLS has no half-close

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost = (exc,)
        if self._tunnel is not None:
            self._tunnel.closed(self, exc)

    def pause_writing(self) -> None:
        self.blocked = True
        self.peer.pause_reading()

    def resume_writing(self) -> None:
        self.blocked = False
        self.peer.resume_reading()


class TlsOnlyEnd(End):
    """The client's end of a tunnel for TLS alone: what is not TLS shows in its first byte.

    :param refuse: called before a tunnel that carries something else is ended.
    """

    __slots__ = ("_refuse", "_seen")

    def __init__(self, refuse: Callable[[], None]) -> None:
        super().__init__()
        self._refuse = refuse
        self._seen = False

    def data_received(self, data: bytes) -> None:
        if not self._seen:
            if data[0] != _TLS_HANDSHAKE:
                self._refuse()
                self.transport.abort()
                self.peer.abort()
                return
            self._seen = True
        super().data_received(data)


class Tunnel:
    """Both ends together.

    :ivar due: see :class:`deadlines.Watched`.
    :ivar splicer: moves what is much.
    :param idle: seconds without a byte after which it is closed.
    :param alone: the same once one end is gone and the other has yet to take what it sent.
    :param on_close: called once, when both ends are gone, with the exception of the client's.
    """

    __slots__ = ("_alone", "_client", "_on_close", "_origin", "due", "idle", "splicer", "sweep")

    def __init__(
        self,
        sweep: Sweep,
        splicer: Splicer,
        idle: float,
        alone: float,
        on_close: Callable[[Exception | None], None],
    ) -> None:
        self._alone = alone
        self.sweep = sweep
        self.splicer = splicer
        self.idle = idle
        self.due = sweep.now + idle
        self._on_close = on_close

    def join(
        self,
        client: asyncio.Transport,
        origin: asyncio.Transport,
        *,
        client_end: End | None = None,
        origin_end: End | None = None,
        from_client: bytes = b"",
        from_origin: bytes = b"",
        client_eof: bool = False,
        client_blocked: bool = False,
    ) -> None:
        """Take both transports over; ``from_*`` is what was read of them already."""
        self._client = client_end or End()
        self._client.blocked = client_blocked
        self._origin = origin_end or End()
        self._client.join(self, client, origin)
        self._origin.join(self, origin, client)
        self.sweep.watch(self)
        client.set_protocol(self._client)
        if origin_end is None:
            origin.set_protocol(self._origin)
        if from_origin:
            client.write(from_origin)
        if from_client:
            self._client.data_received(from_client)
        if client_eof:
            self._client.eof_received()
        if not self._origin.blocked:
            client.resume_reading()
        if not self._client.blocked:
            origin.resume_reading()
        if self._origin.lost is not None:
            self.closed(self._origin, self._origin.lost[0])

    def half_closed(self, end: End) -> None:
        """One side will send no more: tell the other, and end when both have said so."""
        if self._client.eof and self._origin.eof:
            self._client.transport.close()
            self._origin.transport.close()
        elif end.peer.can_write_eof() and not end.peer.is_closing():
            send_fin(end.peer)
        else:
            end.peer.close()

    def closed(self, end: End, exc: Exception | None) -> None:
        """One side is gone: the other gets what is on its way to it, and closes."""
        self._stop_splices()
        if exc is None:
            end.peer.close()
        else:
            end.peer.abort()
        if self._client.lost is not None and self._origin.lost is not None:
            self.sweep.forget(self)
            self._on_close(self._client.lost[0])
        else:
            # The other side may never read what is left for it: it gets a deadline.
            self.due = min(self.due, self.sweep.now + self._alone)

    def is_quiet(self, seconds: float) -> bool:
        """Whether nothing has moved for so long."""
        return self.due - self.idle <= self.sweep.now - seconds

    def overdue(self) -> None:
        """See :class:`deadlines.Watched`."""
        self.abort()

    def abort(self) -> None:
        """Close both ends now."""
        self._stop_splices()
        self._origin.transport.abort()
        self._client.transport.abort()

    def _stop_splices(self) -> None:
        """Stops both splices; to be called before a socket is closed."""
        self._client.stop_splice()
        self._origin.stop_splice()
