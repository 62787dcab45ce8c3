"""What the relay says about an exchange, and what it can be told: the seam to ``proxy/``.

The relay asks twice: :meth:`Steering.before` when a request's head is known and nothing has been
dialled, and :meth:`Steering.after` when the final answer's head is known and nothing of it has been
passed on. Both answer at once with None in the common case; a coroutine pauses only this exchange.
"""

from __future__ import annotations

import asyncio
import enum
import ssl
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Final, Protocol, TypeVar

from iam_auth_proxy.errors import PathError
from iam_auth_proxy.names import Origin
from iam_auth_proxy.relay.fields import Headers, divide, join
from iam_auth_proxy.relay.hello import Hello

_P = TypeVar("_P", bound=asyncio.BaseProtocol)


class _Head:
    """Base of requests and answers: their fields.

    Most heads pass through without anybody's asking for one.
    """

    __slots__ = ("_headers", "_lines")

    _headers: list[tuple[bytes, bytes]]
    _lines: bytes | None  # as they came; None: _headers is what counts

    @property
    def headers(self) -> list[tuple[bytes, bytes]]:
        """Names and values in order, bytes and case kept. What is changed here is passed on."""
        if self._lines is not None:
            self._headers = divide(self._lines)
            self._lines = None
        return self._headers

    @headers.setter
    def headers(self, headers: list[tuple[bytes, bytes]]) -> None:
        self._headers = headers
        self._lines = None

    @property
    def lines(self) -> bytes:
        """The field lines as they are passed on, each with its end."""
        lines = self._lines
        return join(self._headers) if lines is None else lines

    @lines.setter
    def lines(self, lines: bytes) -> None:
        self._lines = lines

    def get(self, name: bytes) -> bytes | None:
        """The value of the only field with this lower-case name; None if absent.

        Several fields of one name are joined with ``", "`` (RFC 9110 section 5.3).
        """
        values = self.get_all(name)
        return b", ".join(values) if values else None

    def get_all(self, name: bytes) -> list[bytes]:
        """The values of all fields with this lower-case name."""
        return [value for key, value in self.headers if key.lower() == name]


class RequestHead(_Head):
    """A request as it goes to the origin: origin-form target, hop-by-hop fields already removed.

    :ivar websocket: a WebSocket handshake (RFC 6455 section 4.1), the only Upgrade passed on. What
        said so is among the removed fields.
    """

    __slots__ = ("method", "target", "websocket")

    def __init__(
        self,
        method: bytes,
        target: bytes,
        headers: list[tuple[bytes, bytes]],
        *,
        websocket: bool = False,
    ) -> None:
        self.method = method
        self.target = target
        self.headers = headers
        self.websocket = websocket


class ResponseHead(_Head):
    """A final answer's head as the origin sent it, hop-by-hop fields already removed."""

    __slots__ = ("status",)

    def __init__(self, status: int, headers: list[tuple[bytes, bytes]]) -> None:
        self.status = status
        self.headers = headers


class Entrance(Protocol):
    """A listener, and who may come in by it.

    :ivar name: "local", "exec": for logs, and to keep what is held for one entrance from another.
    :ivar private: every client of it is one program's, which was started for it.
    :ivar guarded: its requests must have credentials.
    :ivar local: only this machine reaches it.
    """

    @property
    def name(self) -> str: ...

    @property
    def private(self) -> bool: ...

    @property
    def guarded(self) -> bool: ...

    @property
    def local(self) -> bool: ...

    def admits(self, transport: asyncio.BaseTransport) -> bool:
        """Asked as soon as a client has connected. False: closed without a word, and counted."""
        ...

    def authenticates(self, credentials: bytes | None, client: str) -> bool:
        """Whether a request with these credentials is taken. Asked only where it is ``guarded``.

        :param credentials: the value of the only ``Proxy-Authorization``, or ``Authorization`` for
            the proxy's own pages; None: it has none.
        :param client: the peer's address, as :class:`Exchange` has it.
        :returns: False is answered with 407, or 401 for the proxy's own pages, and a challenge.
        """
        ...


class Everybody:
    """An entrance that is open to whoever can connect."""

    name: Final = "open"
    private: Final = False
    guarded: Final = False
    local: Final = True

    def admits(self, transport: asyncio.BaseTransport) -> bool:
        """See :class:`Entrance`."""
        return True

    def authenticates(self, credentials: bytes | None, client: str) -> bool:
        """See :class:`Entrance`."""
        return True


EVERYBODY: Final = Everybody()


class Exchange:
    """One request and the answer to come.

    :ivar origin: of the URL the client asked for.
    :ivar client: the peer's address, for logs and for binding a ticket to a client.
    :ivar entrance: the listener the client came in by.
    :ivar identified: :meth:`Steering.before` may set it: a client certificate may be shown for this
        request, and its connection is one of those that are.
    :ivar hold: :meth:`Steering.before` may set it: the request's body is kept, within
        ``Limits.replay_memory`` and ``replay_file``, so that the request can be sent again.
    :ivar alias: the origin by which the client knows ``origin``, where that is another one, such as
        ``http://wiki.localhost:8080``; empty otherwise.
    :ivar repeated: how often it was sent again at :meth:`Steering.after`'s word.
    :ivar memo: steering's own, for as long as the exchange lasts.
    """

    __slots__ = (
        "alias",
        "client",
        "entrance",
        "hold",
        "identified",
        "memo",
        "origin",
        "repeated",
        "request",
    )

    def __init__(
        self,
        origin: Origin,
        client: str,
        request: RequestHead,
        entrance: Entrance = EVERYBODY,
        alias: bytes = b"",
    ) -> None:
        self.origin = origin
        self.alias = alias
        self.client = client
        self.request = request
        self.entrance = entrance
        self.hold = False
        self.identified = False
        self.repeated = 0
        self.memo: object | None = None

    @property
    def repeatable(self) -> bool:
        """Whether :data:`REPEAT` can be said: all that was taken of the request is there still.

        It may turn from True to False while a decision is awaited, where the body goes on coming
        and outgrows what may be kept: ask last.
        """
        return False

    @property
    def upgrade(self) -> bool:
        """A WebSocket handshake (RFC 6455 section 4.1)."""
        return False


class Repeat(enum.Enum):
    """The type of :data:`REPEAT`."""

    REPEAT = "repeat"


# What Steering.after says in place of a Reply: send the request again.
REPEAT: Final = Repeat.REPEAT


@dataclass(frozen=True, slots=True)
class Reply:
    """A small whole answer made on this machine; Content-Length is the relay's."""

    status: int
    headers: Headers = field(default=(), repr=False)  # a cookie, a token in Location
    body: bytes = field(default=b"", repr=False)


@dataclass(frozen=True, slots=True)
class Fetched:
    """A whole answer to a request of the proxy's own: final status, fields as sent, content."""

    status: int
    headers: Headers = field(repr=False)
    body: bytes = field(default=b"", repr=False)


class Dialer(Protocol):
    """How an origin is reached: directly, through SOCKS, or through another HTTP proxy."""

    async def connect(
        self, origin: Origin, protocol_factory: Callable[[], _P]
    ) -> tuple[asyncio.Transport, _P]:
        """A connected transport to ``origin.host:origin.port`` and the protocol made for it.

        Within the dialer's own deadline, cancellation included, and only to addresses that may be
        dialled. The transport carries plain bytes: ``scheme`` is "http" for a relayed request and
        "https" for a CONNECT target, whose TLS is the client's own.

        :raises PathError: and nothing else; its ``error`` is RFC 9209's token, its
            ``http_status`` 502, 503 or 504, or 403 for a target that may not be dialled.
        """
        ...

    async def secure(
        self, origin: Origin, protocol_factory: Callable[[], _P], *, identified: bool = False
    ) -> tuple[asyncio.Transport, _P]:
        """The same with TLS, for a relayed request to an https origin.

        The peer has proved to be ``origin.host``; else there is no transport. ``connection_made``
        comes after the handshake, so it does not come where that fails.

        :param identified: a client certificate may be shown.
        :raises PathError: as ``connect``, and for whatever is wrong with the peer's TLS.
        """
        ...

    def tls_only(self, origin: Origin) -> bool:
        """Whether a tunnel to this CONNECT target may be dialled for TLS and nothing else."""
        ...


class TlsEnd(Protocol):
    """Whose certificate is shown where TLS is ended here."""

    async def context(self, hello: Hello) -> ssl.SSLContext:
        """For a handshake as the server: TLS 1.2 or later, HTTP/1.1 for its only protocol.

        :param hello: what the client said; it names the host of the CONNECT and no other.
        :raises PathError: there is none, and why; the client is tunnelled.
        """
        ...


class Steering(Protocol):
    """What decides about exchanges. The relay knows only this of the rest of the proxy.

    :meth:`before` and :meth:`after` are asked neither about CONNECT nor about the proxy's own
    pages; a CONNECT that fails is shown to :meth:`failed` with an exchange whose method is CONNECT
    and whose target is ``host:port``.
    """

    def before(self, exchange: Exchange) -> Awaitable[Reply | None] | None:
        """The request's head is known, nothing is dialled. None: forward it.

        An awaitable's Reply is the answer; the request's body is read and thrown away up to a
        bound, past which the connection closes after the answer. ``exchange.request.headers`` may
        be changed before None is said, framing, Host and hop-by-hop fields aside;
        ``exchange.hold``, ``exchange.identified`` and ``exchange.memo`` are for this method to
        set.
        """
        ...

    def after(
        self, exchange: Exchange, answer: ResponseHead
    ) -> Awaitable[Reply | Repeat | None] | None:
        """The final answer's head is known, none of it passed on. None: pass it on.

        Reading from the origin pauses while an awaitable runs. Its Reply replaces the answer (the
        origin's body is drained up to a bound, past which that connection is dropped); None from it
        passes the answer on. ``answer.headers`` may be changed before None is said, framing and
        hop-by-hop fields aside.

        :data:`REPEAT` from it sends the request again, byte for byte but for what was changed in
        ``exchange.request.headers``, and comes back here with the new answer and
        ``exchange.repeated`` one higher. Where the exchange is not ``repeatable``, and more than
        three times, it is answered as a fault of this program.
        """
        ...

    def serves(self, host: bytes, entrance: Entrance) -> Origin | None:
        """The app that a request on our own port is for, by its Host; None: one of our own pages.

        The relay then forwards it to that origin, whose name Host becomes, with ``exchange.alias``
        set. All else that names the alias is for :meth:`before` and :meth:`after` to rewrite.
        """
        ...

    def reads_tunnel(self, origin: Origin) -> bool:
        """Whether ``CONNECT host:port`` is read as HTTP, for this origin ``http://host:port``.

        Its requests are then exchanges as all others. False: bytes are passed unread.
        """
        ...

    def ends_tls(self, origin: Origin) -> TlsEnd | None:
        """Who has the certificate, where the TLS of ``CONNECT host:port`` is ended here.

        Asked for the origin ``https://host:port``. Its requests are then exchanges as all others.
        None: bytes are passed unread.
        """
        ...

    def failed(self, exchange: Exchange, error: PathError) -> Reply:
        """The path failed before anything was passed on: the page for it.

        The relay adds ``Proxy-Status`` itself.
        """
        ...

    def refused(self, status: int, reason: str, client: str) -> Reply:
        """A request that the relay will not forward; ``reason`` is one sentence for anybody.

        400, 401, 405, 407, 408, 414, 421, 431, 501, 503 or 505; the connection closes after most
        of them.
        """
        ...
