"""Connections to origins: kept, bounded, and shared out in the order in which they were asked for.

A request never queues behind a long answer: as many connections as there are requests are opened,
up to a bound that only protects this machine. What is bounded tightly is how many stay open idle.
Nothing here waits: who cannot be served at once is put into a queue and called when there is a
connection. A task runs only while an origin is dialled.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Final

from iam_auth_proxy.errors import PathError
from iam_auth_proxy.names import Origin
from iam_auth_proxy.relay.counters import Counters
from iam_auth_proxy.relay.deadlines import Sweep
from iam_auth_proxy.relay.exchange import Dialer
from iam_auth_proxy.relay.limits import Limits
from iam_auth_proxy.relay.origin import OriginConnection, Taker, closed_early

log = logging.getLogger(__name__)

# The proxy's own pages, as an origin that no URL can name.
OWN: Final = Origin("http", "", 0)

OwnPages = Callable[[], Awaitable[socket.socket]]


class Bucket:
    """The connections to one origin.

    :ivar identified: made with a client certificate, if there is one for the origin: for requests
        that may have it, and for no others.
    :ivar idle: the most recently used last, which is the next one taken.
    :ivar size: connections there are and connections being dialled.
    :ivar dialling: of these, the latter.
    """

    __slots__ = ("dialling", "identified", "idle", "origin", "pool", "size", "waiting")

    def __init__(self, pool: Pool, origin: Origin, identified: bool) -> None:
        self.pool = pool
        self.origin = origin
        self.identified = identified
        self.idle: list[OriginConnection] = []
        self.size = 0
        self.dialling = 0
        self.waiting: deque[Taker] = deque()

    def put(self, connection: OriginConnection) -> None:
        """A connection that is free: for whoever waits, or kept.

        What a crowd of requests needed beyond the usual goes soon, but not at once: under load the
        next request is microseconds away.
        """
        pool, idle = self.pool, self.idle
        if self.waiting:
            pool.hand_over(self, connection)
            return
        limits = pool.limits
        spare = len(idle) >= limits.kept_per_origin
        connection.due = pool.sweep.now + (limits.spare if spare else limits.idle_connection)
        idle.append(connection)
        if pool.waiting:
            pool.make_use_of_idle()


class Pool:
    """All connections to origins.

    :ivar waiting: requests that wait for a connection.
    :ivar sweep: the time.
    :param own: dials the proxy's own pages in process.
    """

    def __init__(
        self,
        dialer: Dialer,
        sweep: Sweep,
        limits: Limits,
        counters: Counters,
        own: OwnPages | None,
    ) -> None:
        self._dialer = dialer
        self.sweep = sweep
        self.limits = limits
        self._counters = counters
        self._own = own
        self._buckets: dict[tuple[Origin, bool], Bucket] = {}
        # A shortcut: id() of a bucket's own Origin object, which lives as long as the bucket.
        # Buckets of identified connections (with a client certificate) are not in it.
        self._by_id: dict[int, Bucket] = {}
        self._connections: set[OriginConnection] = set()
        self._dials: set[asyncio.Task[None]] = set()
        self._generation = 0
        self._size = 0
        self.waiting = 0

    def __len__(self) -> int:
        """Connections there are and connections being dialled."""
        return self._size

    @property
    def busy(self) -> int:
        """Connections that are in use."""
        return self._size - sum(len(bucket.idle) for bucket in self._buckets.values())

    def acquire(
        self, origin: Origin, taker: Taker, identified: bool = False
    ) -> OriginConnection | None:
        """A connection that is there; None: the taker is called when there is one, or none.

        :param identified: see :class:`Bucket`.
        :raises PathError: too many are waiting already.
        """
        # Nearly always the very object that made the bucket: hashing an Origin costs more.
        bucket = None if identified else self._by_id.get(id(origin))
        if bucket is None:
            bucket = self._bucket(origin, identified)
        idle = bucket.idle
        while idle:
            connection = idle.pop()
            if not connection.transport.is_closing():
                self._counters.reused += 1
                return connection
        if self.waiting >= self.limits.waiting:
            self._forget_empty(bucket)
            raise PathError(
                "too many requests wait for a connection",
                error="connection_limit_reached",
                status=503,
                public="Too many requests are waiting.",
                remedy="Try again in a few seconds.",
                for_anybody=True,
            )
        self.waiting += 1
        bucket.waiting.append(taker)
        self._grow(bucket)
        return None

    def _bucket(self, origin: Origin, identified: bool) -> Bucket:
        bucket = self._buckets.get((origin, identified))
        if bucket is None:
            bucket = self._buckets[origin, identified] = Bucket(self, origin, identified)
            if not identified:
                self._by_id[id(origin)] = bucket
        return bucket

    def cancel(self, origin: Origin, taker: Taker, identified: bool = False) -> None:
        """The taker no longer waits. A dial under way goes on: others may want its connection."""
        bucket = self._buckets.get((origin, identified))
        if bucket is not None and taker in bucket.waiting:
            bucket.waiting.remove(taker)
            self.waiting -= 1
            self._forget_empty(bucket)

    def _forget_empty(self, bucket: Bucket) -> None:
        """Any page can name origins without end: one that nobody reached takes no room."""
        key = bucket.origin, bucket.identified
        if not bucket.size and not bucket.waiting and self._buckets.get(key) is bucket:
            del self._buckets[key]
            if not bucket.identified:
                del self._by_id[id(bucket.origin)]

    def hand_over(self, bucket: Bucket, connection: OriginConnection) -> None:
        """A connection goes from one exchange to the next that waits for it."""
        self._counters.reused += 1
        self._assign(bucket, connection)

    def make_use_of_idle(self) -> None:
        """Others wait, and a connection that is idle now can make room for them."""
        for bucket in [one for one in self._buckets.values() if one.waiting]:
            self._grow(bucket)

    def remove(self, connection: OriginConnection) -> None:
        """A connection that closed or was given up."""
        self._connections.discard(connection)
        if connection in connection.bucket.idle:
            connection.bucket.idle.remove(connection)
        self._shrink(connection.bucket)

    def drop_idle(self, origin: Origin, identified: bool = False) -> None:
        """Close what is idle: one of them was found closed, so the others may well be."""
        bucket = self._buckets.get((origin, identified))
        for connection in list(bucket.idle) if bucket is not None else ():
            connection.discard()

    def retire(self) -> None:
        """No connection of now is used again: origins are reached in another way from now on."""
        self._generation += 1
        for connection in list(self._connections):
            connection.retire()

    async def close(self) -> None:
        """Close every connection, end every dial, and tell whoever waits."""
        for bucket in list(self._buckets.values()):
            while bucket.waiting:
                self.waiting -= 1
                bucket.waiting.popleft().unassigned(
                    PathError(
                        "the proxy ends",
                        error="proxy_internal_error",
                        status=503,
                        public="The proxy is stopping.",
                        remedy="Start it again, and open the page again.",
                        for_anybody=True,
                    )
                )
        for connection in list(self._connections):
            connection.discard()
        dials = list(self._dials)
        for dial in dials:
            dial.cancel()
        await asyncio.gather(*dials, return_exceptions=True)

    # -- growing and shrinking -------------------------------------------------------------------

    def _grow(self, bucket: Bucket) -> None:
        """Dial as far as somebody waits and the limits allow."""
        while bucket.dialling < len(bucket.waiting) and (
            self._size < self.limits.connections or self._make_room()
        ):
            bucket.size += 1
            bucket.dialling += 1
            self._size += 1
            dial = asyncio.get_running_loop().create_task(self._dial(bucket))
            self._dials.add(dial)
            dial.add_done_callback(self._dials.discard)

    def _make_room(self) -> bool:
        """Close the connection that has been idle for longest; False if all are in use."""
        oldest: OriginConnection | None = None
        for bucket in self._buckets.values():
            if bucket.idle and (oldest is None or bucket.idle[0].due < oldest.due):
                oldest = bucket.idle[0]
        if oldest is None:
            return False
        oldest.discard()
        return self._size < self.limits.connections

    def _shrink(self, bucket: Bucket) -> None:
        was_full = self._size >= self.limits.connections
        bucket.size -= 1
        self._size -= 1
        if bucket.waiting:
            self._grow(bucket)
        else:
            self._forget_empty(bucket)
        if was_full and self.waiting:
            self.make_use_of_idle()

    async def _dial(self, bucket: Bucket) -> None:
        generation = self._generation
        made: list[OriginConnection] = []

        def make() -> OriginConnection:
            made.append(OriginConnection(bucket, self.sweep, self.limits))
            return made[-1]

        try:
            await self._connect_or_say(bucket, make)
            if made[-1].transport.is_closing():
                raise closed_early(bucket.origin, made[-1].fault)
        except PathError as error:
            bucket.dialling -= 1
            if bucket.waiting:
                self.waiting -= 1
                bucket.waiting.popleft().unassigned(error)
            self._give_back(bucket, made)
        except asyncio.CancelledError:
            bucket.dialling -= 1
            self._give_back(bucket, made)
            raise
        else:
            bucket.dialling -= 1
            self._counters.dialled += 1
            self._connections.add(made[-1])
            if generation != self._generation:
                made[-1].discard()  # whoever waits for it has it dialled anew
            elif bucket.waiting:
                self._assign(bucket, made[-1])
            else:
                bucket.put(made[-1])

    def _give_back(self, bucket: Bucket, made: list[OriginConnection]) -> None:
        """The place of a dial that failed; a connection that got as far as being open has it."""
        if made and made[-1].opened:
            made[-1].discard()
        else:
            self._shrink(bucket)

    async def _connect_or_say(self, bucket: Bucket, make: Callable[[], OriginConnection]) -> None:
        """Whatever goes wrong is a PathError: requests wait for this dial, and must hear of it."""
        try:
            await self._connect(bucket, make)
        except PathError:
            raise
        except Exception as error:
            log.exception("a dial failed in a way that it must not")
            raise PathError(str(error), error="proxy_internal_error") from error

    async def _connect(self, bucket: Bucket, make: Callable[[], OriginConnection]) -> None:
        origin = bucket.origin
        if origin.scheme == "https":
            await self._dialer.secure(origin, make, identified=bucket.identified)
            return
        if origin is not OWN:
            await self._dialer.connect(origin, make)
            return
        if self._own is None:
            raise PathError("there are no pages of our own", error="destination_not_found")
        try:
            sock = await self._own()
            await asyncio.get_running_loop().create_connection(make, sock=sock)
        except OSError as error:
            raise PathError(
                f"our own pages: {error}", error="proxy_internal_error", status=503
            ) from error

    def _assign(self, bucket: Bucket, connection: OriginConnection) -> None:
        self.waiting -= 1
        bucket.waiting.popleft().assigned(connection)
