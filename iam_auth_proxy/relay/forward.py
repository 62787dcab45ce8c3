"""One exchange on its way: from a request's head to the last byte of its answer.

Steering is asked before anything is dialled and again before anything of the answer is passed on.
In the common case both say None at once, the pool has a connection, and no task, future or timer
is made.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Final

from iam_auth_proxy.errors import PathError
from iam_auth_proxy.names import Origin
from iam_auth_proxy.relay.chunked import LAST_CHUNK, write_chunk
from iam_auth_proxy.relay.deadlines import NEVER
from iam_auth_proxy.relay.decision import Verdict, fault_of, outcome
from iam_auth_proxy.relay.exchange import REPEAT, Exchange
from iam_auth_proxy.relay.message import (
    UNTIL_CLOSE,
    Request,
    binds_connection,
    drop_fields,
    write_answer,
    write_request,
)
from iam_auth_proxy.relay.origin import IDLE, OriginConnection
from iam_auth_proxy.relay.pool import OWN
from iam_auth_proxy.relay.response import Response
from iam_auth_proxy.relay.shared import Shared
from iam_auth_proxy.relay.splice import Splice
from iam_auth_proxy.relay.upload import Upload

if TYPE_CHECKING:
    from iam_auth_proxy.relay.client import ClientConnection

# RFC 9110 section 9.2.2; what may be sent twice.
_IDEMPOTENT: Final = frozenset((b"GET", b"HEAD", b"OPTIONS", b"TRACE", b"PUT", b"DELETE"))
# How often one request goes out again at steering's word; more is a circle that nothing ends.
_REPEATS: Final = 3
# Field lines about one connection, which are made anew for the next (RFC 9110 section 7.6.1).
_UPGRADE: Final = b"Connection: Upgrade\r\nUpgrade: websocket\r\n"
_TRAILERS: Final = b"TE: trailers\r\n"
_TRAILERS_ALONE: Final = _TRAILERS + b"Connection: TE\r\n"
_CLOSE: Final = b"Connection: close\r\n"
_CHUNKED: Final = b"Transfer-Encoding: chunked\r\n"


class _Undecided:
    """An answer about which steering has not decided yet.

    :ivar whole: no more of its body will come.
    :ivar error: why its connection is gone; None while it is there.
    """

    __slots__ = ("error", "pieces", "response", "whole")

    def __init__(self, response: Response, content: bytes, whole: bool) -> None:
        self.response = response
        self.pieces = [content]
        self.whole = whole
        self.error: PathError | None = None


class Forward(Exchange):
    """An exchange, and the :class:`origin.Taker` of its answer.

    :ivar request: see :class:`message.Request`.
    :ivar path: the connection it goes over, once there is one.
    :ivar begun: the head of a final answer was written to the client.
    """

    __slots__ = (
        "_answered",
        "_keep",
        "_rechunk",
        "_retried",
        "_shared",
        "_side",
        "_task",
        "_undecided",
        "_upload",
        "begun",
        "decode",
        "path",
    )
    request: Request

    def __init__(
        self,
        side: ClientConnection,
        shared: Shared,
        origin: Origin,
        request: Request,
        alias: bytes = b"",
    ) -> None:
        self.origin = origin
        self.alias = alias
        self.client = side.peer
        self.request = request
        self.entrance = side.entrance
        self.hold = False
        self.identified = False
        self.repeated = 0
        self.memo = None
        self.path: OriginConnection | None = None
        self.begun = False
        self.decode = request.http10  # knows no chunks
        self._shared = shared
        self._side = side
        self._answered = False
        self._keep = True
        self._rechunk = False
        self._retried = False
        self._task: asyncio.Task[None] | None = None
        self._undecided: _Undecided | None = None
        self._upload: Upload | None = None

    @property
    def repeatable(self) -> bool:
        """See :class:`exchange.Exchange`."""
        upload = self._upload
        return not self.begun and (upload is None or upload.whole)

    @property
    def upgrade(self) -> bool:
        """See :class:`exchange.Exchange`."""
        return self.request.websocket

    # -- the request -----------------------------------------------------------------------------

    def begin(self, content: bytes, uploaded: bool) -> None:
        """Go. ``content`` is the part of the body that came with the head, maybe all of it."""
        if self.request.length:
            self._upload = Upload(content, uploaded)
        try:
            verdict = None if self.origin is OWN else self._shared.steering.before(self)
        except Exception as error:  # noqa: BLE001  # told to the client, and logged
            self._fail(fault_of(error))
            return
        if verdict is not None:
            self._ask(verdict, self._go)
        elif self.hold:
            self._go()
        else:
            self._acquire()

    def upload(self, data: bytes, done: bool) -> None:
        """More of the request's body, validated and in its framing."""
        upload = self._upload
        if upload is None:
            return
        deciding = self._task is not None
        upload.take(data, done, deciding=deciding)
        if not done:
            if deciding and not upload.is_wanted(deciding=True):
                self._side.body_wanted(False)
        elif self._answered:
            self._over()
        elif not upload.sent and not deciding:
            self._side.watch_body(self)

    def cancel(self) -> None:
        """The client is gone, or its request turned out to be malformed."""
        if self._task is not None:
            self._task.cancel()
        if self.path is not None:
            self.path.discard()
            self.path = None
        else:
            self._shared.pool.cancel(self.origin, self, self.identified)
        self._free()

    def client_writable(self, writable: bool) -> None:
        """The client takes more, or has enough for now."""
        if self.path is not None and self._undecided is None:
            if writable:
                self.path.resume_reading()
            else:
                self.path.pause_reading()

    def wants_body(self) -> bool:
        """Whether the client shall go on sending the request's body."""
        upload = self._upload
        return upload is not None and upload.is_wanted(deciding=self._task is not None)

    def is_sending(self) -> bool:
        """Whether the answer cannot come yet because the request's body has yet to go out."""
        upload = self._upload
        return upload is not None and not upload.sent and not self.begun and self._task is None

    def is_answered(self) -> bool:
        """Whether the whole answer was passed on; the request's body may yet be coming."""
        return self._answered

    def last_moved(self) -> float | None:
        """Loop time of the last bytes of the answer; None if none were passed on yet."""
        if self.path is None or not self.begun or self.path.due == NEVER:
            return None
        return self.path.due - self._shared.limits.idle_body

    def fail_loop(self) -> None:
        """The request came from this proxy, through others, back to it."""
        self._fail(
            PathError(
                f"{self.origin} leads back to this proxy",
                error="proxy_loop_detected",
                public="This address leads back to the proxy.",
                remedy="Check --connect-to, the upstream proxy and the hosts file.",
                for_anybody=True,
            )
        )

    def _go(self) -> None:
        if self.hold and self._upload is not None:
            room = self._shared.room
            if room.limits.replay_file:
                self._upload.keep(room)
            else:
                self.hold = False
        self._acquire()

    def _acquire(self) -> None:
        side = self._side
        path = side.take_bound(self) if side.bound is not None else None
        if path is None:
            try:
                path = self._shared.pool.acquire(self.origin, self, self.identified)
            except PathError as error:
                self._fail(error)
                return
        if path is not None:
            self.assigned(path)
        else:
            side.due = self._shared.sweep.now + self._shared.limits.pool_wait

    def overdue(self) -> None:
        """The client's connection has waited for as long as it may."""
        side, path = self._side, self.path
        side.due = NEVER
        if self._task is not None:
            # Steering is deciding, which has deadlines of its own. This one is the client's, whose
            # body is being read meanwhile.
            if self.wants_body():
                self._upload_expired("http_request_error", 408)
        elif self.begun:
            side.abort()
        elif path is None:
            self._wait_expired()
        elif path.write_paused:
            self._upload_expired("connection_write_timeout", 504)
        else:
            self._upload_expired("http_request_error", 408)

    def _wait_expired(self) -> None:
        """No connection of the pool became free in time."""
        self._shared.pool.cancel(self.origin, self, self.identified)
        self._fail(
            PathError(
                "no connection became free in time",
                error="connection_limit_reached",
                status=503,
                public="Too many requests to this app are under way.",
                remedy="Try again in a few seconds.",
                for_anybody=True,
            )
        )

    def _upload_expired(self, error: str, status: int) -> None:
        """The request's body stood still: the client sent none, or the origin took none."""
        self.request.keep_alive = False
        self._fail(
            PathError(
                "the request's body stood still",
                error=error,
                status=status,
                public="The request's body did not come in time."
                if status == 408
                else "The app did not take the request's body in time.",
            )
        )

    # -- origin.Taker ----------------------------------------------------------------------------

    def assigned(self, connection: OriginConnection) -> None:
        """See :class:`origin.Taker`."""
        request, upload = self.request, self._upload
        self.path = connection
        more = connection.mark
        if request.trailers:
            more += _TRAILERS if request.websocket else _TRAILERS_ALONE
        if request.websocket:
            more += _UPGRADE
        if b"authorization" in request.noted and binds_connection(request):
            connection.bound = True
        if upload is None:
            connection.send(
                self,
                request.method,
                write_request(request, more),
                whole=True,
                websocket=request.websocket,
            )
            if self._side.due != NEVER:
                self._side.watch_body(self)
            return
        try:
            content = upload.start(connection)
        except PathError as error:
            self._fail(error)
            return
        data = write_request(request, more, content)
        connection.send(self, request.method, data, whole=upload.sent)
        if self.hold:
            self._send_on(connection)
        else:
            self._side.watch_body(self)

    def _send_on(self, connection: OriginConnection) -> None:
        """As much of what is kept of the body as this connection takes now."""
        upload = self._upload
        if upload is None or connection is not self.path:
            return
        try:
            upload.go_on()
        except PathError as error:
            self._fail(error)
            return
        if upload.is_ready():
            asyncio.get_running_loop().call_soon(self._send_on, connection)
        self._side.watch_body(self)

    def unassigned(self, error: PathError) -> None:
        """See :class:`origin.Taker`."""
        self._fail(error)

    def informed(self, response: Response) -> None:
        """See :class:`origin.Taker`."""
        if self.alias and response.status != 100:
            return  # a hint at parts of the page (RFC 8297), by the app's own name
        if not self.request.http10:
            lines = b"" if self.alias else response.lines  # nobody looks at these
            self._side.write(write_answer(response.line, lines))

    def answered(self, response: Response, content: bytes, done: bool) -> None:
        """See :class:`origin.Taker`."""
        try:
            verdict = None if self.origin is OWN else self._shared.steering.after(self, response)
        except Exception as error:  # noqa: BLE001  # told to the client, and logged
            self._fail(fault_of(error))
            return
        if verdict is None:
            self._pass_on(response, content, done)
            return
        upload = self._upload
        self._undecided = _Undecided(response, content, done)
        if self.path is not None:
            self.path.hold()
        self._ask(verdict, self._pass_on_held)
        if upload is not None:
            self._side.body_wanted(upload.is_wanted(deciding=True))

    def content(self, data: bytes, done: bool) -> None:
        """See :class:`origin.Taker`."""
        undecided = self._undecided
        if undecided is not None:
            undecided.pieces.append(data)
            undecided.whole = done
            return
        if self._rechunk:
            data = (write_chunk(data) if data else b"") + (LAST_CHUNK if done else b"")
        if data:
            self._side.write(data)
        if done:
            self._answer_done()

    def splice(self, connection: OriginConnection, data: bytes, left: int) -> Splice | None:
        """See :class:`origin.Taker`."""
        if self._undecided is not None or self._rechunk:
            return None
        return self._shared.splicer.start(
            connection.transport, self._side.transport, connection, data, left
        )

    def switched(self, response: Response, rest: bytes) -> None:
        """See :class:`origin.Taker`."""
        try:
            verdict = None if self.origin is OWN else self._shared.steering.after(self, response)
        except Exception as error:  # noqa: BLE001  # told to the client, and logged
            self._fail(fault_of(error))
            return

        def switch() -> None:
            path = self.path
            if path is None:
                return
            self.path = None
            self._free()
            self._side.write(write_answer(response.line, response.lines, _UPGRADE))
            self._shared.counters.upgrades += 1
            self._side.switch(path.give_up(), rest)

        if verdict is None:
            switch()
        else:
            self._ask(verdict, switch)

    def lost(self, error: PathError, *, stale: bool) -> None:
        """See :class:`origin.Taker`."""
        self.path = None
        upload, undecided = self._upload, self._undecided
        if upload is not None:
            upload.stop()
        if self._answered:
            self._free()
            self._side.upload_unwanted()
        elif self.begun:
            self._shared.counters.aborted += 1
            self._side.abort()
        elif undecided is not None:
            undecided.error = error
            if upload is not None:
                self._side.body_wanted(upload.is_wanted(deciding=True))
        elif stale and self._may_retry():
            self._retried = True
            self._shared.counters.retried += 1
            self._shared.pool.drop_idle(self.origin, self.identified)
            self._acquire()
        else:
            self._fail(error)

    def origin_writable(self, writable: bool) -> None:
        """See :class:`origin.Taker`."""
        upload, path = self._upload, self.path
        if upload is None or path is None:
            return
        if writable:
            self._send_on(path)
        else:
            self._side.body_wanted(self.wants_body())

    # -- the answer ------------------------------------------------------------------------------

    def _may_retry(self) -> bool:
        """All of the request is here still, and doing it twice is doing it once."""
        return self.request.method in _IDEMPOTENT and self.repeatable and not self._retried

    def _pass_on(self, response: Response, content: bytes, done: bool) -> None:
        request, side = self.request, self._side
        keep = self._keep = request.keep_alive and not side.closing
        more = b"" if keep else _CLOSE
        if response.length == UNTIL_CLOSE:
            if not request.http10:
                self._rechunk = True
                more = _CHUNKED + more
                content = (write_chunk(content) if content else b"") + (LAST_CHUNK if done else b"")
        elif request.http10 and b"transfer-encoding" in response.noted:
            drop_fields(response, {b"transfer-encoding"})
        self.begun = True
        if self.hold and self._upload is not None:
            self._upload.settle()
        self._shared.counters.passed_on += 1
        side.write(write_answer(response.line, response.lines, more, content))
        if done:
            self._answer_done()

    def _pass_on_held(self) -> None:
        undecided, self._undecided = self._undecided, None
        if undecided is None:
            return
        upload, path = self._upload, self.path
        if path is None:
            if undecided.error is not None and not undecided.whole:
                self._fail(undecided.error)  # nothing was passed on, and nothing whole can be
                return
            if upload is not None and not upload.done:
                self.request.keep_alive = False  # the rest of the request has nowhere to go
        else:
            path.unhold(reading=not self._side.write_paused)
        self._pass_on(undecided.response, b"".join(undecided.pieces), undecided.whole)
        if upload is not None and self.path is not None:
            self._side.watch_body(self)

    def _answer_done(self) -> None:
        self._answered = True
        upload = self._upload
        if upload is None or upload.done:
            self._over()
        elif self.path is not None:
            # The app answered before it had the whole body: what still comes could be read as a new
            # request (request smuggling), so the connection is not used again.
            self.path.retire()
        else:
            self._free()
            self._side.upload_unwanted()

    def _over(self) -> None:
        path, self.path = self.path, None
        side, upload = self._side, self._upload
        if path is not None:
            if self.hold and upload is not None and not upload.sent:
                path.discard()  # it answered without waiting for what is kept here
            else:
                path.release()
                if path.bound and path.state == IDLE:
                    side.keep_bound(path)
        if self.hold:
            self._free()
        side.finished(self._keep)

    def _free(self) -> None:
        """Nothing of the request's body is needed any more."""
        if self.hold and self._upload is not None:
            self._upload.close()

    # -- replies instead of an answer ------------------------------------------------------------

    def _ask(self, verdict: Verdict, otherwise: Callable[[], None]) -> None:
        task = self._task = self._shared.spawn(self._decide(verdict, otherwise))
        if isinstance(verdict, Coroutine):
            # A task that is cancelled before its first step never gets to awaiting this.
            task.add_done_callback(lambda _: verdict.close())

    async def _decide(self, verdict: Verdict, otherwise: Callable[[], None]) -> None:
        try:
            reply = await outcome(verdict)
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
            self._leave_path()
            self._free()
            self._shared.counters.replied += 1
            self._side.reply(self.request, reply)

    def _repeat(self) -> None:
        """Send the request again; the answer to it so far is nobody's."""
        if not self.repeatable or self.repeated >= _REPEATS:
            self._fail(PathError("a request cannot be sent again", error="proxy_internal_error"))
            return
        self.repeated += 1
        self._shared.counters.repeated += 1
        self._retried = False
        self._leave_path()
        self._side.body_wanted(False)  # until there is a connection for it
        self._acquire()

    def _leave_path(self) -> None:
        """The answer, if there is one, is not wanted."""
        self._undecided = None
        path, self.path = self.path, None
        if self._upload is not None:
            # Nobody knows how much of the body the app has read: not good for another request.
            self._upload.stop()
            if path is not None:
                path.discard()
        elif path is not None:
            path.drain()

    def _fail(self, error: PathError) -> None:
        path, self.path = self.path, None
        if path is not None:
            path.discard()
        self._undecided = None
        self._free()
        if self._task is not None:
            self._task.cancel()  # one request has one answer
            self._task = None
        self._side.reply(self.request, self._shared.failure(self, error))
