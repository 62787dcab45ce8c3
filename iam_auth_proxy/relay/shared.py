"""What all connections of one relay share."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from http import HTTPStatus
from typing import Any, Protocol

from iam_auth_proxy.errors import PathError
from iam_auth_proxy.relay.certificate_refusals import Refusals
from iam_auth_proxy.relay.counters import Counters
from iam_auth_proxy.relay.deadlines import Sweep
from iam_auth_proxy.relay.exchange import Dialer, Entrance, Exchange, Reply, Steering
from iam_auth_proxy.relay.fields import join
from iam_auth_proxy.relay.kept import Room
from iam_auth_proxy.relay.limits import Limits
from iam_auth_proxy.relay.message import CDN_ID, write_answer
from iam_auth_proxy.relay.pool import Pool
from iam_auth_proxy.relay.splice import Splicer

log = logging.getLogger(__name__)


class Registry(Protocol):
    """A server that counts its connections, such as ``aiohttp.web.Server``.

    It may call ``close()`` and ``await shutdown(timeout)`` of the connections it was told of.
    ``handler`` is such a connection; aiohttp's annotations ask for one of its own.
    """

    def connection_made(self, handler: Any, transport: asyncio.Transport) -> None:
        """A client connected."""
        ...

    def connection_lost(self, handler: Any, exc: BaseException | None = None) -> None:
        """The client is gone."""
        ...


class Client(Protocol):
    """The methods of a client's connection that the relay as a whole calls."""

    entrance: Entrance

    def abort(self) -> None:
        """Close now."""
        ...

    def close_unlisted(self) -> None:
        """Close, where TLS is ended here and nobody lists that host for it any more."""
        ...


class Shared:
    """The parts that were built once. ``clients`` are the connections of clients there are."""

    __slots__ = (
        "clients",
        "counters",
        "dialer",
        "has_own",
        "limits",
        "pool",
        "refusals",
        "room",
        "splicer",
        "steering",
        "sweep",
        "tasks",
    )

    def __init__(
        self,
        *,
        dialer: Dialer,
        steering: Steering,
        limits: Limits,
        counters: Counters,
        sweep: Sweep,
        pool: Pool,
        has_own: bool,
    ) -> None:
        self.dialer = dialer
        self.steering = steering
        self.limits = limits
        self.counters = counters
        self.sweep = sweep
        self.pool = pool
        self.refusals = Refusals()
        self.room = Room(limits)
        self.splicer = Splicer(sweep)
        self.has_own = has_own
        self.clients: set[Client] = set()
        self.tasks: set[asyncio.Task[None]] = set()

    def spawn(self, work: Coroutine[object, object, None]) -> asyncio.Task[None]:
        """A task that is kept until it ends, and ends with the relay."""
        task = asyncio.get_running_loop().create_task(work)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)
        return task

    def failure(self, exchange: Exchange, error: PathError) -> Reply:
        """The page for a path that failed; it is counted."""
        self.counters.count_failed(error.error)
        try:
            page = self.steering.failed(exchange, error)
        except Exception as fault:  # noqa: BLE001  # logged, and answered
            error = internal(fault, "the page for a failure")
            page = Reply(error.http_status, (), error.public.encode())
        return Reply(page.status, (*page.headers, proxy_status(error.error)), page.body)


def internal(fault: BaseException, doing: str) -> PathError:
    """A fault of this program, logged: whoever waits for an answer gets one all the same."""
    log.error("%s failed", doing, exc_info=fault)
    return PathError(
        f"{doing}: {type(fault).__name__}",
        error="proxy_internal_error",
        public="The proxy failed in handling this request.",
        remedy="Try again; the proxy's log says what it was.",
        for_anybody=True,
    )


def proxy_status(error: str) -> tuple[bytes, bytes]:
    """The ``Proxy-Status`` field (RFC 9209) for an error token."""
    return b"Proxy-Status", b"%b; error=%b" % (CDN_ID, error.encode("ascii"))


def write_reply(reply: Reply, method: bytes, *, close: bool) -> bytes:
    """A reply to a request of this method: head, and body where there may be one."""
    try:
        phrase = HTTPStatus(reply.status).phrase
    except ValueError:
        phrase = "Unknown"
    line = b"HTTP/1.1 %d %b" % (reply.status, phrase.encode("ascii"))
    bodiless = reply.status in (204, 304)
    more = b"" if bodiless else b"Content-Length: %d\r\n" % len(reply.body)
    if close:
        more += b"Connection: close\r\n"
    body = b"" if bodiless or method == b"HEAD" else reply.body
    return write_answer(line, join(reply.headers), more, body)
