"""What the relay says about an exchange, and what it can be told: the seam to ``proxy/``.

The relay asks twice: :meth:`Steering.before` when a request's head is known and nothing has been
dialled, and :meth:`Steering.after` when the final answer's head is known and nothing of it has been
passed on. Both answer at once with None in the common case; a coroutine pauses only this exchange.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

from iam_auth_proxy.errors import PathError
from iam_auth_proxy.names import Origin

# Field lines as they came: order, case and bytes of names and values are kept.
Headers = Sequence[tuple[bytes, bytes]]

_P = TypeVar("_P", bound=asyncio.BaseProtocol)


class _Head:
    """Field lines by name."""

    __slots__ = ("headers",)

    headers: list[tuple[bytes, bytes]]

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
    """A request as it goes to the origin: origin-form target, hop-by-hop fields already removed."""

    __slots__ = ("method", "target")

    def __init__(self, method: bytes, target: bytes, headers: list[tuple[bytes, bytes]]) -> None:
        self.method = method
        self.target = target
        self.headers = headers


class ResponseHead(_Head):
    """A final answer's head as the origin sent it, hop-by-hop fields already removed."""

    __slots__ = ("reason", "status")

    def __init__(self, status: int, reason: bytes, headers: list[tuple[bytes, bytes]]) -> None:
        self.status = status
        self.reason = reason
        self.headers = headers


class Exchange:
    """One request and the answer to come.

    :ivar origin: of the URL the client asked for.
    :ivar client: the peer's address, for logs and for binding a ticket to a client.
    """

    __slots__ = ("client", "origin", "request")

    def __init__(self, origin: Origin, client: str, request: RequestHead) -> None:
        self.origin = origin
        self.client = client
        self.request = request


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

    def tls_only(self, origin: Origin) -> bool:
        """Whether a tunnel to this CONNECT target may be dialled for TLS and nothing else."""
        ...


class Steering(Protocol):
    """What decides about exchanges. The relay knows only this of the rest of the proxy.

    Neither CONNECT nor the proxy's own pages are asked about; a CONNECT that fails is shown to
    :meth:`failed` with an exchange whose method is CONNECT and whose target is ``host:port``.
    """

    def before(self, exchange: Exchange) -> Awaitable[Reply | None] | None:
        """The request's head is known, nothing is dialled. None: forward it.

        An awaitable's Reply is the answer; the request's body is read and thrown away up to a
        bound, past which the connection closes after the answer.
        """
        ...

    def after(self, exchange: Exchange, answer: ResponseHead) -> Awaitable[Reply | None] | None:
        """The final answer's head is known, none of it passed on. None: pass it on.

        Reading from the origin pauses while an awaitable runs. Its Reply replaces the answer (the
        origin's body is drained up to a bound, past which that connection is dropped); None from it
        passes the answer on.
        """
        ...

    def failed(self, exchange: Exchange, error: PathError) -> Reply:
        """The path failed before anything was passed on: the page for it.

        The relay adds ``Proxy-Status`` itself.
        """
        ...

    def refused(self, status: int, reason: str, client: str) -> Reply:
        """A request that the relay will not forward; ``reason`` is one sentence for anybody.

        400, 405, 408, 414, 421, 431, 501, 503 or 505; the connection closes after most of them.
        """
        ...
