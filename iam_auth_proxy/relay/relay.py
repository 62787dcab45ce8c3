"""The relay as the rest of the proxy sees it: built once, one protocol per accepted connection."""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from dataclasses import replace

from iam_auth_proxy.errors import PathError
from iam_auth_proxy.names import Origin
from iam_auth_proxy.relay.client import ClientConnection
from iam_auth_proxy.relay.counters import Counters
from iam_auth_proxy.relay.deadlines import Sweep
from iam_auth_proxy.relay.exchange import (
    EVERYBODY,
    Dialer,
    Entrance,
    Fetched,
    RequestHead,
    Steering,
)
from iam_auth_proxy.relay.fetch import Fetch
from iam_auth_proxy.relay.limits import Limits
from iam_auth_proxy.relay.pool import OwnPages, Pool
from iam_auth_proxy.relay.shared import Registry, Shared


class Relay:
    """An HTTP/1.1 forward proxy.

    :param dialer: reaches origins.
    :param steering: decides about exchanges and writes the proxy's own answers.
    :param own: dials the proxy's own pages in process (one end of a ``socket.socketpair()``, the
        other being served); origin-form requests go there, and are refused with 421 without it.
    """

    def __init__(
        self,
        *,
        dialer: Dialer,
        steering: Steering,
        limits: Limits | None = None,
        own: OwnPages | None = None,
    ) -> None:
        limits = limits or Limits()
        self.limits = limits
        self.counters = Counters()
        # A second is fine for the defaults; tests with short deadlines get a finer sweep.
        self._sweep = Sweep(min(1.0, limits.shortest() / 4))
        self._pool = Pool(dialer, self._sweep, limits, self.counters, own)
        self._shared = Shared(
            dialer=dialer,
            steering=steering,
            limits=limits,
            counters=self.counters,
            sweep=self._sweep,
            pool=self._pool,
            has_own=own is not None,
        )

    def connection(
        self, server: Registry | None = None, entrance: Entrance = EVERYBODY
    ) -> ClientConnection:
        """The protocol for one accepted connection; ``server`` is told when it comes and goes."""
        return ClientConnection(self._shared, server, entrance)

    @property
    def clients(self) -> int:
        """Connections of clients that are open."""
        return len(self._shared.clients)

    @property
    def origins(self) -> int:
        """Connections to origins, tunnels aside, that are open or being dialled."""
        return len(self._pool)

    def retire_connections(self) -> None:
        """Reach origins anew from now on; exchanges under way end as they began."""
        self._pool.retire()

    def close_unlisted(self) -> None:
        """What is listed changed: nothing is read on that is not, but for exchanges under way."""
        for client in list(self._shared.clients):
            client.close_unlisted()

    def end_clients(self, entrances: Collection[Entrance]) -> int:
        """Close the connections that came in by these, tunnels and exchanges under way too.

        :returns: how many.
        """
        ended = [client for client in self._shared.clients if client.entrance in entrances]
        for client in ended:
            client.abort()
        return len(ended)

    def keep_bodies(self, size: int) -> None:
        """Keep at most so many bytes of a request's body to send it again; 0: none."""
        room = self._shared.room
        memory = min(size, self.limits.replay_memory)
        room.limits = replace(self.limits, replay_memory=memory, replay_file=size)

    async def fetch(
        self,
        origin: Origin,
        request: RequestHead,
        body: bytes = b"",
        *,
        limit: int,
        deadline: float,
        identified: bool = False,
    ) -> Fetched:
        """The whole answer to a request of the proxy's own; steering is not asked about it.

        Host and Content-Length are added where they are missing.

        :param limit: of the answer's content, bytes.
        :param deadline: seconds for all of it, dialling included.
        :param identified: a client certificate may be shown.
        :raises PathError: no whole answer in that time and size.
        """
        self.counters.fetched += 1
        fetch = Fetch(self._pool, origin, request, body, limit, identified)
        fetch.begin()
        try:
            return await asyncio.wait_for(fetch.result, deadline)
        except TimeoutError as error:
            raise PathError(
                f"{origin} did not answer within {deadline:g} s",
                error="http_response_timeout",
                status=504,
                public="The app did not answer in time.",
            ) from error
        finally:
            fetch.cancel()

    async def close(self) -> None:
        """Close every connection and end every task. Drain first: see ``ClientConnection``."""
        for client in list(self._shared.clients):
            client.abort()
        tasks = list(self._shared.tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._pool.close()
        self._sweep.stop()
        await asyncio.sleep(0)  # transports tell their protocols on the next turn of the loop
