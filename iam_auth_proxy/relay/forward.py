"""One exchange on its way: from a request's head to the last byte of its answer.

Steering is asked before anything is dialled and again before anything of the answer is passed on.
In the common case both say None at once, the pool has a connection, and no task, future or timer
is made.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Final

from iam_auth_proxy.errors import PathError
from iam_auth_proxy.names import Origin
from iam_auth_proxy.relay.chunked import LAST_CHUNK, write_chunk
from iam_auth_proxy.relay.deadlines import NEVER
from iam_auth_proxy.relay.exchange import REPEAT, Exchange, Repeat, Reply
from iam_auth_proxy.relay.message import (
    UNTIL_CLOSE,
    Request,
    binds_connection,
    write_fields,
    write_request,
)
from iam_auth_proxy.relay.origin import IDLE, OriginConnection
from iam_auth_proxy.relay.pool import OWN
from iam_auth_proxy.relay.response import Response
from iam_auth_proxy.relay.shared import Shared, internal
from iam_auth_proxy.relay.splice import Splice

if TYPE_CHECKING:
    from iam_auth_proxy.relay.client import ClientConnection

# RFC 9110 section 9.2.2; what may be sent twice.
_IDEMPOTENT: Final = frozenset((b"GET", b"HEAD", b"OPTIONS", b"TRACE", b"PUT", b"DELETE"))
_DECIDING: Final = "a decision about an exchange"
_Verdict = Awaitable[Reply | Repeat | None]
# How often one request goes out again at steering's word; more is a circle that nothing ends.
_REPEATS: Final = 3
_UPGRADE_FIELDS: Final = b"Connection: Upgrade\r\nUpgrade: websocket\r\n"


class Forward(Exchange):
    """An exchange, and the :class:`origin.Taker` of its answer.

    :ivar request: see :class:`message.Request`.
    :ivar path: the connection it goes over, once there is one.
    :ivar uploaded: the request's body has been taken from the client to its end.
    :ivar begun: the head of a final answer was written to the client.
    """

    __slots__ = (
        "_answered",
        "_held",
        "_keep",
        "_pending",
        "_rechunk",
        "_retried",
        "_shared",
        "_side",
        "_task",
        "begun",
        "decode",
        "path",
        "uploaded",
    )
    request: Request

    def __init__(
        self, side: ClientConnection, shared: Shared, origin: Origin, request: Request
    ) -> None:
        self.origin = origin
        self.client = side.peer
        self.request = request
        self.entrance = side.entrance
        self.hold = False
        self.repeated = 0
        self.memo = None
        self.path: OriginConnection | None = None
        self.uploaded = True
        self.begun = False
        self.decode = request.http10  # knows no chunks
        self._shared = shared
        self._side = side
        self._answered = False
        self._held: tuple[Response, list[bytes], bool] | None = None
        self._keep = True
        self._pending = b""
        self._rechunk = False
        self._retried = False
        self._task: asyncio.Task[None] | None = None

    @property
    def repeatable(self) -> bool:
        """See :class:`exchange.Exchange`."""
        return self.request.length == 0

    @property
    def upgrade(self) -> bool:
        """See :class:`exchange.Exchange`."""
        return self.request.websocket

    # -- the request -----------------------------------------------------------------------------

    def begin(self, content: bytes, uploaded: bool) -> None:
        """Go. ``content`` is the part of the body that came with the head."""
        self._pending = content
        self.uploaded = uploaded
        try:
            verdict = self._consult(None)
        except PathError as error:
            self._fail(error)
            return
        if verdict is None:
            self._acquire()
        else:
            self._ask(verdict, self._acquire)

    def upload(self, data: bytes, done: bool) -> None:
        """More of the request's body, validated and in its framing."""
        path = self.path
        if done:
            self.uploaded = True
        if path is None:
            self._pending += data
        elif not path.transport.is_closing():
            path.transport.write(data)
            if done:
                path.request_sent()
        if done and self._answered:
            self._over()

    def cancel(self) -> None:
        """The client is gone, or its request turned out to be malformed."""
        if self._task is not None:
            self._task.cancel()
        if self.path is not None:
            self.path.discard()
            self.path = None
        else:
            self._shared.pool.cancel(self.origin, self)

    def client_writable(self, writable: bool) -> None:
        """The client takes more, or has enough for now."""
        if self.path is not None and self._held is None:
            if writable:
                self.path.resume_reading()
            else:
                self.path.pause_reading()

    def is_blocked(self) -> bool:
        """Whether the origin has enough of the request for now."""
        return self.path is not None and self.path.write_paused

    def last_moved(self) -> float | None:
        """Loop time of the last bytes of the answer; None if none were passed on yet."""
        if self.path is None or not self.begun or self.path.due == NEVER:
            return None
        return self.path.due - self._shared.limits.idle_body

    def fail_loop(self, uploaded: bool) -> None:
        """The request came from this proxy, through others, back to it."""
        self.uploaded = uploaded
        self._fail(
            PathError(
                f"{self.origin} leads back to this proxy",
                error="proxy_loop_detected",
                public="This address leads back to the proxy.",
            )
        )

    def _acquire(self) -> None:
        side = self._side
        path = side.take_bound(self.origin) if side.bound is not None else None
        if path is None:
            try:
                path = self._shared.pool.acquire(self.origin, self)
            except PathError as error:
                self._fail(error)
                return
        if path is not None:
            self.assigned(path)
        else:
            side.due = self._shared.sweep.now + self._shared.limits.pool_wait

    def wait_expired(self) -> None:
        """No connection of the pool became free in time."""
        self._shared.pool.cancel(self.origin, self)
        self._fail(
            PathError(
                "no connection became free in time",
                error="connection_limit_reached",
                status=503,
                public="Too many requests to this app are under way.",
                remedy="Try again in a few seconds.",
            )
        )

    def upload_expired(self, *, by_origin: bool) -> None:
        """The request's body stood still: the client sent none, or the origin took none."""
        error = "connection_write_timeout" if by_origin else "http_request_error"
        status = 504 if by_origin else 408
        self.request.keep_alive = False
        self._drop_path()
        self._fail(PathError("the request's body stood still", error=error, status=status))

    # -- origin.Taker ----------------------------------------------------------------------------

    def assigned(self, connection: OriginConnection) -> None:
        """See :class:`origin.Taker`."""
        request, side = self.request, self._side
        self.path = connection
        head = write_request(request) + connection.mark
        if request.trailers:
            head += b"TE: trailers\r\n"
            if not request.websocket:
                head += b"Connection: TE\r\n"
        if request.websocket:
            head += _UPGRADE_FIELDS
        if b"authorization" in request.noted and binds_connection(request):
            connection.bound = True
        connection.start(self, request.method, websocket=request.websocket)
        connection.transport.write(head + b"\r\n" + self._pending)
        if self.uploaded:
            connection.request_sent()
        side.assigned(self)

    def unassigned(self, error: PathError) -> None:
        """See :class:`origin.Taker`."""
        self._fail(error)

    def informed(self, response: Response) -> None:
        """See :class:`origin.Taker`."""
        if not self.request.http10:
            self._side.write(
                b"HTTP/1.1 %d %b\r\n" % (response.status, response.reason)
                + write_fields(response.headers)
                + b"\r\n"
            )

    def answered(self, response: Response, content: bytes, done: bool) -> None:
        """See :class:`origin.Taker`."""
        try:
            verdict = self._consult(response)
        except PathError as error:
            self._fail(error)
            return
        if verdict is not None:
            self._held = (response, [content], done)
            if self.path is not None:
                self.path.hold()
            self._ask(verdict, self._pass_on_held)
            return
        self._pass_on(response, content, done)

    def content(self, data: bytes, done: bool) -> None:
        """See :class:`origin.Taker`."""
        if self._held is not None:
            response, pieces, _ = self._held
            pieces.append(data)
            self._held = (response, pieces, done)
            return
        if self._rechunk:
            data = (write_chunk(data) if data else b"") + (LAST_CHUNK if done else b"")
        if data:
            self._side.write(data)
        if done:
            self._answer_done()

    def splice(self, connection: OriginConnection, data: bytes, left: int) -> Splice | None:
        """See :class:`origin.Taker`."""
        if self._held is not None or self._rechunk:
            return None
        return self._shared.splicer.start(
            connection.transport, self._side.transport, connection, data, left
        )

    def switched(self, response: Response, rest: bytes) -> None:
        """See :class:`origin.Taker`."""
        try:
            verdict = self._consult(response)
        except PathError as error:
            self._fail(error)
            return

        def switch() -> None:
            path = self.path
            if path is None:
                return
            self.path = None
            head = b"HTTP/1.1 %d %b\r\n" % (response.status, response.reason)
            self._side.write(head + write_fields(response.headers) + _UPGRADE_FIELDS + b"\r\n")
            self._shared.counters.upgrades += 1
            self._side.switch(path.give_up(), rest)

        if verdict is None:
            switch()
        else:
            self._ask(verdict, switch)

    def lost(self, error: PathError, *, stale: bool) -> None:
        """See :class:`origin.Taker`."""
        self.path = None
        if self._answered:
            self._side.upload_unwanted()
        elif self.begun:
            self._shared.counters.aborted += 1
            self._side.abort()
        elif self._held is not None:
            if not self._held[2]:
                self._fail(error)  # nothing was passed on, and nothing whole can be
            elif not self.uploaded:
                # The answer is whole; the rest of the request has nowhere to go.
                self.request.keep_alive = False
                self._side.origin_writable(False)
                self._side.due = NEVER
        elif stale and self._may_retry():
            self._retried = True
            self._shared.counters.retried += 1
            self._shared.pool.drop_idle(self.origin)
            self._acquire()
        else:
            self._fail(error)

    def origin_writable(self, writable: bool) -> None:
        """See :class:`origin.Taker`."""
        self._side.origin_writable(writable)

    # -- the answer ------------------------------------------------------------------------------

    def _consult(self, response: Response | None) -> _Verdict | None:
        """Steering's word; the proxy's own pages are nobody else's business."""
        if self.origin is OWN:
            return None
        steering = self._shared.steering
        try:
            return steering.before(self) if response is None else steering.after(self, response)
        except PathError:
            raise
        except Exception as error:
            raise internal(error, _DECIDING) from error

    def _may_retry(self) -> bool:
        """Nothing of the body was given away, and doing it twice is doing it once."""
        request = self.request
        return request.method in _IDEMPOTENT and request.length == 0 and not self._retried

    def _pass_on(self, response: Response, content: bytes, done: bool) -> None:
        request, side = self.request, self._side
        keep = self._keep = request.keep_alive and not side.closing
        extra = b"\r\n" if keep else b"Connection: close\r\n\r\n"
        fields = response.headers
        if response.length == UNTIL_CLOSE:
            if not request.http10:
                self._rechunk = True
                extra = b"Transfer-Encoding: chunked\r\n" + extra
                content = (write_chunk(content) if content else b"") + (LAST_CHUNK if done else b"")
        elif request.http10 and b"transfer-encoding" in response.noted:
            fields = [field for field in fields if field[0].lower() != b"transfer-encoding"]
        self.begun = True
        self._shared.counters.passed_on += 1
        side.write(
            b"HTTP/1.1 %d %b\r\n" % (response.status, response.reason)
            + write_fields(fields)
            + extra
            + content
        )
        if done:
            self._answer_done()

    def _pass_on_held(self) -> None:
        held, self._held = self._held, None
        if held is not None:
            response, pieces, done = held
            if self.path is not None:
                self.path.unhold(reading=not self._side.write_paused)
            self._pass_on(response, b"".join(pieces), done)

    def _answer_done(self) -> None:
        self._answered = True
        if self.uploaded:
            self._over()
        elif self.path is not None:
            # An app that did not wait for all of a request may take the rest of it for another.
            self.path.retire()
        else:
            self._side.upload_unwanted()

    def _over(self) -> None:
        path, self.path = self.path, None
        side = self._side
        if path is not None:
            path.release()
            if path.bound and path.state == IDLE:
                side.keep_bound(path)
        side.finished(self._keep)

    # -- replies instead of an answer ------------------------------------------------------------

    def _ask(self, verdict: _Verdict, otherwise: Callable[[], None]) -> None:
        self._task = self._shared.spawn(self._decide(verdict, otherwise))

    async def _decide(self, verdict: _Verdict, otherwise: Callable[[], None]) -> None:
        try:
            reply = await _outcome(verdict)
        except PathError as error:
            self._task = None
            self._fail(error)
            return
        self._task = None
        if reply is None:
            otherwise()
        elif reply is REPEAT:
            self._repeat()
        else:
            self._held = None
            if self.path is not None:
                path, self.path = self.path, None
                if self.uploaded:
                    path.drain()
                else:
                    path.discard()
            self._shared.counters.replied += 1
            self._side.reply(self.request, reply)

    def _repeat(self) -> None:
        """Send the request again; the answer to it so far is nobody's."""
        if not self.repeatable or self.repeated >= _REPEATS:
            self._fail(PathError("a request cannot be sent again", error="proxy_internal_error"))
            return
        self.repeated += 1
        self._held = None
        self._retried = False
        path, self.path = self.path, None
        if path is not None:
            path.drain()
        self._acquire()

    def _drop_path(self) -> None:
        path, self.path = self.path, None
        if path is not None:
            path.discard()

    def _fail(self, error: PathError) -> None:
        self._drop_path()
        self._held = None
        if self._task is not None:
            self._task.cancel()  # one request has one answer
            self._task = None
        self._side.reply(self.request, self._shared.failure(self, error))


async def _outcome(verdict: _Verdict) -> Reply | Repeat | None:
    try:
        return await verdict
    except PathError:
        raise
    except asyncio.CancelledError as error:
        task = asyncio.current_task()
        if task is None or task.cancelling():
            raise
        raise internal(error, _DECIDING) from error  # what it waited for was called off
    except Exception as error:
        raise internal(error, _DECIDING) from error
