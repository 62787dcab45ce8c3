"""The side that faces the app: one connection, one answer after the other.

A connection knows where its answer's body ends and never takes a byte for more than it is: an
answer that stops early is reported as lost, bytes that nobody asked for end the connection, and a
connection whose framing was in doubt is never used again.
"""

from __future__ import annotations

import asyncio
import os
import ssl
from typing import TYPE_CHECKING, Final, Protocol, cast

from iam_auth_proxy.errors import PathError
from iam_auth_proxy.names import Origin
from iam_auth_proxy.relay import tls_failures
from iam_auth_proxy.relay.addresses import is_private, parse_address
from iam_auth_proxy.relay.chunked import ChunkError, ChunkScanner
from iam_auth_proxy.relay.deadlines import NEVER, Sweep
from iam_auth_proxy.relay.limits import Limits
from iam_auth_proxy.relay.message import CDN_ID, CHUNKED
from iam_auth_proxy.relay.response import Response, bad_answer, is_websocket, parse_response
from iam_auth_proxy.relay.splice import LONG, Splice
from iam_auth_proxy.relay.tls import ended_well, is_tls
from iam_auth_proxy.relay.transports import set_marks

if TYPE_CHECKING:
    from iam_auth_proxy.relay.pool import Bucket

_HEAD_END: Final = b"\r\n\r\n"
_SHORTEST_FIELD: Final = len(b"a:\r\n")
_LOOP_MARK: Final = b"CDN-Loop: %b\r\n" % CDN_ID

# IDLE: in the pool or about to be. HEAD: a request was sent. COUNTED, CHUNKS, UNTIL_EOF: in the
# body. DONE: the answer is whole. SWITCHED: after a 101, bytes belong to others. GONE: closed.
IDLE, HEAD, COUNTED, CHUNKS, UNTIL_EOF, DONE, SWITCHED, GONE = range(8)


class Taker(Protocol):
    """Who sent the request and gets the answer.

    :ivar decode: wants the content of a chunked answer rather than its chunks.
    """

    decode: bool

    def assigned(self, connection: OriginConnection) -> None:
        """The pool has a connection for the request."""
        ...

    def unassigned(self, error: PathError) -> None:
        """The pool cannot get one."""
        ...

    def informed(self, response: Response) -> None:
        """A 1xx other than 101."""
        ...

    def answered(self, response: Response, content: bytes, done: bool) -> None:
        """The final answer's head, and what came of its body together with it."""
        ...

    def content(self, data: bytes, done: bool) -> None:
        """More of the body."""
        ...

    def splice(self, connection: OriginConnection, data: bytes, left: int) -> Splice | None:
        """Have ``data`` and the ``left`` rest of a counted body moved as they are.

        None: they come by :meth:`content`.
        """
        ...

    def switched(self, response: Response, rest: bytes) -> None:
        """A 101 to a WebSocket handshake; the connection is the taker's, and is paused."""
        ...

    def lost(self, error: PathError, *, stale: bool) -> None:
        """The connection ended before the exchange did.

        :param stale: it came from the pool and gave not one byte: probably it had been closed
            before the request arrived.
        """
        ...

    def origin_writable(self, writable: bool) -> None:
        """The connection takes more of the request, or has enough for now."""
        ...


class OriginConnection(asyncio.Protocol):
    """A connection to one origin.

    :ivar due: see :class:`deadlines.Watched`.
    :ivar fault: what ended it, where the system or TLS says so.
    :ivar mark: field lines that every request on it carries, each with its end.
    :ivar opened: there is a transport; with TLS only after the handshake.
    :ivar bound: authenticated as a connection, so it stays with the client it was used for.
    :ivar reused: it has carried a request before this one.
    :ivar write_paused: the transport has enough to send.
    """

    __slots__ = (
        "_begun",
        "_drain_left",
        "_held",
        "_informed",
        "_left",
        "_limits",
        "_method",
        "_read_paused",
        "_reusable",
        "_scanner",
        "_splice",
        "_sweep",
        "_websocket",
        "bound",
        "bucket",
        "due",
        "fault",
        "mark",
        "opened",
        "reused",
        "state",
        "taker",
        "transport",
        "write_paused",
    )

    transport: asyncio.Transport

    def __init__(self, bucket: Bucket, sweep: Sweep, limits: Limits) -> None:
        self.bucket = bucket
        self._sweep = sweep
        self._limits = limits
        self.state = IDLE
        self.due = NEVER
        self.taker: Taker | None = None
        self.fault: Exception | None = None
        self.mark = b""
        self.opened = False
        self.bound = False
        self.reused = False
        self.write_paused = False
        self._begun = False
        self._drain_left = 0
        self._held = b""
        self._informed = 0
        self._left = 0
        self._method = b""
        self._read_paused = False
        self._reusable = True
        self._scanner: ChunkScanner | None = None
        self._splice: Splice | None = None
        self._websocket = False

    # -- asyncio ---------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.opened = True
        set_marks(self.transport)
        peer = transport.get_extra_info("peername")
        if isinstance(peer, tuple):
            address = parse_address(str(peer[0]))
            if address is not None and is_private(address):
                # The loop mark goes to private addresses only: nothing else can lead back to this
                # proxy, and nobody else needs to know of it.
                self.mark = _LOOP_MARK
        self._sweep.watch(self)

    def data_received(self, data: bytes) -> None:
        state = self.state
        if state == HEAD:
            self._read_head(data)
        elif state == COUNTED:
            self.due = self._sweep.now + self._limits.idle_body
            self._left -= len(data)
            if self._left > 0:
                if self._left < LONG or not self._to_splice(data):
                    self._pass(data, False)
            else:
                if self._left < 0:
                    data = data[: self._left]
                    self._reusable = False
                self._complete()
                self._pass(data, True)
        elif state == CHUNKS:
            self.due = self._sweep.now + self._limits.idle_body
            try:
                data = self._scan(data)
            except ChunkError as error:
                self._fail(bad_answer(f"the answer's chunks are malformed: {error}"))
            else:
                self._pass(data, self.state == DONE)
        elif state == UNTIL_EOF:
            self.due = self._sweep.now + self._limits.idle_body
            self._pass(data, False)
        elif state == IDLE:
            self.discard()  # nothing was asked
        else:
            self._reusable = False

    def eof_received(self) -> None:
        if self.state == UNTIL_EOF and ended_well(self.transport):
            self._complete()
            self._pass(b"", True)
        else:
            self._ended(None)

    def connection_lost(self, exc: Exception | None) -> None:
        self.fault = exc
        if exc is not None and self.state == HEAD and self.taker is not None:
            self._take_last_words()
        self._ended(exc)
        taker = self.taker
        if self.state == DONE and taker is not None:
            # The answer is whole; the rest of the request has nowhere to go.
            self._leave()
            taker.lost(_terminated("the app closed the connection", exc), stale=False)
        self._leave()

    def pause_writing(self) -> None:
        self.write_paused = True
        if self.taker is not None:
            self.taker.origin_writable(False)

    def resume_writing(self) -> None:
        self.write_paused = False
        if self.taker is not None:
            self.taker.origin_writable(True)

    # -- for the taker ---------------------------------------------------------------------------

    def send(
        self, taker: Taker, method: bytes, data: bytes, *, whole: bool, websocket: bool = False
    ) -> None:
        """A request of this method, the rest of whose body the taker writes to the transport.

        :param whole: there is no such rest.
        """
        self.taker = taker
        self.state = HEAD
        self.due = self._sweep.now + self._limits.answer_head if whole else NEVER
        self._method = method
        self._websocket = websocket
        self._begun = False
        self._informed = 0
        self.transport.write(data)

    def request_sent(self) -> None:
        """The rest is written, too; from now on the answer is waited for."""
        if self.state == HEAD:
            self.due = self._sweep.now + self._limits.answer_head

    def release(self) -> None:
        """The exchange is over: back to the pool, or closed where it may not be used again."""
        self.taker = None
        if self.state != DONE or not self._reusable or self.transport.is_closing():
            self.discard()
            return
        self.state = IDLE
        self.reused = True
        if self._read_paused:
            self.resume_reading()
        if self.bound:
            self.due = self._sweep.now + self._limits.idle_connection
        else:
            self.bucket.put(self)

    def drain(self) -> None:
        """The rest of the answer is not wanted: read it if it is short, else close."""
        self.taker = None
        if self.bound:
            self.discard()  # whom it was authenticated for does not take it back
        elif self.state == DONE:
            self.release()
        elif self.state in (COUNTED, CHUNKS) and self._left <= self._limits.discard:
            self._drain_left = self._limits.discard
            self.due = self._sweep.now + self._limits.idle_body
            self.resume_reading()
        else:
            self.discard()

    def discard(self) -> None:
        """Close at once, whatever is under way. The taker is not told."""
        if self.state != GONE:
            self._leave()
            self.transport.abort()

    def retire(self) -> None:
        """No further request goes over it: it closes, now or when its exchange is over."""
        self._reusable = False
        if self.state == IDLE:
            self.discard()

    def hold(self) -> None:
        """The answer waits for a decision: read no more of it, and count no time."""
        self.due = NEVER
        self.pause_reading()

    def unhold(self, *, reading: bool) -> None:
        """The answer goes on."""
        if self.state in (COUNTED, CHUNKS, UNTIL_EOF):
            self.due = self._sweep.now + self._limits.idle_body
            if reading:
                self.resume_reading()

    def pause_reading(self) -> None:
        """Leave the rest of the answer where it is for now."""
        self._read_paused = True
        self.transport.pause_reading()

    def resume_reading(self) -> None:
        """Go on reading."""
        self._read_paused = False
        if self._splice is None:
            self.transport.resume_reading()

    def give_up(self) -> asyncio.Transport:
        """After a 101: the transport, which is no longer the pool's."""
        self._leave()
        return self.transport

    def overdue(self) -> None:
        """See :class:`deadlines.Watched`."""
        if self.state == IDLE or self.taker is None:
            self.discard()
        elif self.state == HEAD:
            self._fail(
                PathError(
                    "the app did not answer in time",
                    error="http_response_timeout",
                    status=504,
                    public="The app did not answer in time.",
                )
            )
        else:
            self._fail(
                PathError(
                    "the answer's body stood still",
                    error="connection_read_timeout",
                    status=504,
                    public="The app's answer stood still.",
                )
            )

    # -- reading ---------------------------------------------------------------------------------

    def _read_head(self, data: bytes) -> None:
        if self._held:
            data = self._held + data
            self._held = b""
        self._begun = True
        limits = self._limits
        end = data.find(_HEAD_END, 0, limits.head) + 4
        if end < 4:
            if len(data) >= limits.head:
                self._fail(bad_answer("head too long", "http_response_header_section_size"))
            else:
                self._held = data
            return
        try:
            head = data[:end]
            if end > _SHORTEST_FIELD * limits.fields and head.count(b"\r\n") - 2 > limits.fields:
                raise bad_answer("too many fields", "http_response_header_section_size")
            response = parse_response(head, self._method)
            data = data[end:]
            if response.status < 200:
                self._inform(response, data)
                return
            data = self._read_first(response, data)
        except PathError as error:
            self._fail(error)
        except ChunkError as error:
            self._fail(bad_answer(f"the answer's chunks are malformed: {error}"))
        else:
            if self.taker is not None:
                self.taker.answered(response, data, self.state == DONE)

    def _inform(self, response: Response, rest: bytes) -> None:
        taker = self.taker
        self._informed += 1
        if taker is None or self._informed > self._limits.informational:
            raise bad_answer("too many informational answers")
        if response.status != 101:
            taker.informed(response)
            if rest and self.state == HEAD and self.taker is taker:
                self._read_head(rest)  # no deeper than so many are let pass
            return
        if not self._websocket or not is_websocket(response):
            raise bad_answer("a 101 that nobody asked for", "http_upgrade_failed")
        self.state = SWITCHED
        self.due = NEVER
        self.transport.pause_reading()
        taker.switched(response, rest)

    def _read_first(self, response: Response, rest: bytes) -> bytes:
        """Enter the body; what is here of it."""
        length = response.length
        self._reusable = response.reusable
        self.bound = self.bound or response.connection_bound
        if length >= 0:
            left = self._left = length - len(rest)
            if left > 0:
                self.state = COUNTED
                self.due = self._sweep.now + self._limits.idle_body
                return rest
            self.state = DONE
            self.due = NEVER
            if left < 0:
                self._reusable = False
                return rest[:length]
            return rest
        self.due = self._sweep.now + self._limits.idle_body
        if length == CHUNKED:
            self.state = CHUNKS
            self._left = 0
            self._scanner = ChunkScanner(self._limits.chunk_line, self._limits.trailers)
            return self._scan(rest)
        self.state = UNTIL_EOF
        return rest

    def _scan(self, data: bytes) -> bytes:
        scanner = self._scanner
        assert scanner is not None  # in state CHUNKS there is one
        content: list[bytes] | None = None
        if self.taker is not None and self.taker.decode:
            content = []
        passed = scanner.feed(data, content)
        if scanner.done:
            if scanner.rest:
                self._reusable = False
            self._complete()
        return passed if content is None else b"".join(content)

    def _complete(self) -> None:
        self.state = DONE
        self.due = NEVER
        self._scanner = None

    def _pass(self, data: bytes, done: bool) -> None:
        if self.taker is not None:
            if data or done:
                self.taker.content(data, done)
        elif done:
            self.release()
        else:
            self._drain_left -= len(data)
            if self._drain_left < 0:
                self.discard()

    # -- splice.Owner ----------------------------------------------------------------------------

    def spliced(self, count: int) -> None:
        """See :class:`splice.Owner`."""
        self.due = self._sweep.now + self._limits.idle_body
        self._left -= count

    def splice_ended(self, error: OSError | None) -> None:
        """See :class:`splice.Owner`."""
        self._splice = None
        if error is not None:
            self._ended(error)
            return
        self.resume_reading()
        if not self._left:
            self._complete()
            self._pass(b"", True)

    def _to_splice(self, data: bytes) -> bool:
        """Whether ``data`` and what comes after it needs to be read no more."""
        if self.taker is not None:
            self._splice = self.taker.splice(self, data, self._left)
        if self._splice is None:
            return False
        self._left += len(data)  # it is not passed on yet
        return True

    # -- ends ------------------------------------------------------------------------------------

    def _ended(self, exc: Exception | None) -> None:
        """No more of the answer will come."""
        self._reusable = False
        if self.state == HEAD and not self._begun:
            if isinstance(exc, ssl.SSLError):
                self._fail(tls_failures.spoken(self.bucket.origin, exc))
            else:
                self._fail(_terminated("the app closed the connection without an answer", exc))
        elif self.state in (HEAD, COUNTED, CHUNKS, UNTIL_EOF, SWITCHED):
            detail = "the app closed the connection in the middle of its answer"
            self._fail(
                PathError(
                    detail,
                    error="http_response_incomplete",
                    public="The app closed the connection in the middle of its answer.",
                )
            )
        elif self.state == IDLE:
            self.discard()

    def _fail(self, error: PathError) -> None:
        taker = self.taker
        stale = self.reused and not self._begun and error.error == "connection_terminated"
        self.discard()
        if taker is not None:
            taker.lost(error, stale=stale)

    def _take_last_words(self) -> None:
        """An app may answer before it has read all of a request, and close: that is a reset.

        Writing to it fails then while its answer, which came first, has not been read.
        """
        if is_tls(self.transport):
            return  # what is in the socket are records
        sock = self.transport.get_extra_info("socket")
        try:
            data = os.read(sock.fileno(), self._limits.head) if sock is not None else b""
        except OSError:
            return  # nothing came
        if data:
            self.data_received(data)

    def _leave(self) -> None:
        """Out of the pool and off the sweep, once."""
        if self.state != GONE:
            self.state = GONE
            self.taker = None
            if self._splice is not None:
                self._splice.stop()
            self._sweep.forget(self)
            self.bucket.pool.remove(self)


def closed_early(origin: Origin, fault: Exception | None) -> PathError:
    """A new connection that was closed before anything was sent over it."""
    if isinstance(fault, ssl.SSLError):
        return tls_failures.spoken(origin, fault)
    return _terminated("closed as soon as opened", fault)


def _terminated(detail: str, exc: Exception | None) -> PathError:
    error = PathError(
        detail,
        error="connection_terminated",
        public="The app closed the connection without an answer.",
    )
    error.__cause__ = exc
    return error
