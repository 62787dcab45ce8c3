"""The proxy's own requests to an app: through the same pool, dialler and limits as all others."""

from __future__ import annotations

import asyncio

from iam_auth_proxy.errors import PathError
from iam_auth_proxy.names import Origin
from iam_auth_proxy.relay.exchange import Fetched, RequestHead
from iam_auth_proxy.relay.message import write_request
from iam_auth_proxy.relay.origin import OriginConnection
from iam_auth_proxy.relay.pool import Pool
from iam_auth_proxy.relay.response import Response

_BODY_METHODS = frozenset((b"POST", b"PUT", b"PATCH"))


class Fetch:
    """One request and its whole answer, as an :class:`origin.Taker`.

    :param limit: of the answer's content in bytes.
    :param identified: see :class:`exchange.Exchange`.
    """

    __slots__ = (
        "_body",
        "_identified",
        "_limit",
        "_origin",
        "_path",
        "_pieces",
        "_pool",
        "_request",
        "_response",
        "_retried",
        "_size",
        "decode",
        "result",
    )

    def __init__(
        self,
        pool: Pool,
        origin: Origin,
        request: RequestHead,
        body: bytes,
        limit: int,
        identified: bool = False,
    ) -> None:
        self.decode = True
        self.result: asyncio.Future[Fetched] = asyncio.get_running_loop().create_future()
        self._body = body
        self._identified = identified
        self._limit = limit
        self._origin = origin
        self._path: OriginConnection | None = None
        self._pieces: list[bytes] = []
        self._pool = pool
        self._request = request
        self._response: Response | None = None
        self._retried = False
        self._size = 0

    def begin(self) -> None:
        """Go; ``result`` has the answer or a PathError."""
        try:
            connection = self._pool.acquire(self._origin, self, self._identified)
        except PathError as error:
            self._fail(error)
        else:
            if connection is not None:
                self.assigned(connection)

    def cancel(self) -> None:
        """Nobody waits for the result any more."""
        if self._path is not None:
            self._path.discard()
            self._path = None
        elif not self.result.done() or self.result.cancelled():
            self._pool.cancel(self._origin, self, self._identified)

    def assigned(self, connection: OriginConnection) -> None:
        """See :class:`origin.Taker`."""
        self._path = connection
        request = self._request
        more = connection.mark
        if request.get(b"host") is None:
            more += b"Host: %b\r\n" % self._origin.authority.encode("ascii")
        if self._body or request.method in _BODY_METHODS:
            more += b"Content-Length: %d\r\n" % len(self._body)
        data = write_request(request, more, self._body)
        connection.send(self, request.method, data, whole=True)

    def unassigned(self, error: PathError) -> None:
        """See :class:`origin.Taker`."""
        self._fail(error)

    def informed(self, response: Response) -> None:
        """See :class:`origin.Taker`."""

    def answered(self, response: Response, content: bytes, done: bool) -> None:
        """See :class:`origin.Taker`."""
        self._response = response
        self.content(content, done)

    def content(self, data: bytes, done: bool) -> None:
        """See :class:`origin.Taker`."""
        self._size += len(data)
        if self._size > self._limit:
            self._fail(PathError("the answer is too long", error="http_response_body_size"))
            return
        self._pieces.append(data)
        if done and self._response is not None:
            path, self._path = self._path, None
            if path is not None:
                # A connection that was authenticated as a whole (NTLM) was so for our own request:
                # it must not carry a client's.
                path.discard() if path.bound else path.release()
            if not self.result.done():
                response = self._response
                body = b"".join(self._pieces)
                self.result.set_result(Fetched(response.status, response.headers, body))

    def splice(self, connection: OriginConnection, data: bytes, left: int) -> None:
        """See :class:`origin.Taker`: it is read here."""

    def switched(self, response: Response, rest: bytes) -> None:
        """See :class:`origin.Taker`; no handshake is ever sent from here."""
        raise AssertionError("a 101 without a handshake is refused by the connection")

    def lost(self, error: PathError, *, stale: bool) -> None:
        """See :class:`origin.Taker`."""
        self._path = None
        if stale and not self._retried and self._request.method in (b"GET", b"HEAD"):
            self._retried = True
            self._pool.drop_idle(self._origin, self._identified)
            self.begin()
        else:
            self._fail(error)

    def origin_writable(self, writable: bool) -> None:
        """See :class:`origin.Taker`; the body is small and was written in one piece."""

    def _fail(self, error: PathError) -> None:
        if self._path is not None:
            self._path.discard()
            self._path = None
        if not self.result.done():
            self.result.set_exception(error)
