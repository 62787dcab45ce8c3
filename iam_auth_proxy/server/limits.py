"""How often sign-ins are tried, so that nobody burns the app's KMS quota.

Each client has a bucket, and all together have one. The client's is asked first: whoever floods
empties his own before he takes from everybody's.
"""

from __future__ import annotations

import ipaddress
import threading
from collections import OrderedDict


class Bucket:
    """A token bucket: ``burst`` at once, then ``rate`` a second."""

    __slots__ = ("_at", "_burst", "_level", "_rate")

    def __init__(self, rate: float, burst: float, now: float) -> None:
        self._rate, self._burst = rate, burst
        self._level, self._at = burst, now

    def wait(self, now: float) -> float:
        """Seconds until one can be taken; 0 where one can be now."""
        # A clock that was set back must not empty the bucket for ever.
        self._level = min(self._burst, self._level + max(0.0, now - self._at) * self._rate)
        self._at = now
        return 0.0 if self._level >= 1 else (1 - self._level) / self._rate

    def take(self) -> None:
        """Take one, after :meth:`wait` said 0."""
        self._level -= 1

    def give_back(self) -> None:
        """As if it had not been taken."""
        self._level = min(self._burst, self._level + 1)


class SignInLimits:
    """Per client, then global. ``now`` is in seconds; any steady clock will do.

    The buckets of the ``clients`` most recent clients are kept. An IPv6 client is its /64: that is
    what one subscriber gets.
    """

    def __init__(
        self,
        *,
        client_rate: float = 1.0,
        client_burst: float = 30.0,
        global_rate: float = 20.0,
        global_burst: float = 200.0,
        clients: int = 10_000,
    ) -> None:
        self._client_rate, self._client_burst = client_rate, client_burst
        self._global_rate, self._global_burst = global_rate, global_burst
        self._clients = clients
        self._buckets: OrderedDict[str, Bucket] = OrderedDict()
        self._everybody: Bucket | None = None
        self._lock = threading.Lock()

    def admit(self, client: str, now: float) -> float:
        """0 where this sign-in may be tried; otherwise the seconds to wait."""
        key = _subscriber(client)
        with self._lock:
            bucket = self._buckets.get(key)
            if bucket is None:
                bucket = self._buckets[key] = Bucket(self._client_rate, self._client_burst, now)
                if len(self._buckets) > self._clients:
                    self._buckets.popitem(last=False)
            self._buckets.move_to_end(key)
            if self._everybody is None:
                self._everybody = Bucket(self._global_rate, self._global_burst, now)
            wait = bucket.wait(now)
            if wait:
                return wait
            bucket.take()
            wait = self._everybody.wait(now)
            if not wait:
                self._everybody.take()
            return wait

    def give_back(self, client: str) -> None:
        """What was admitted turned out well, and does not count: for limits on failures."""
        with self._lock:
            bucket = self._buckets.get(_subscriber(client))
            if bucket is not None:
                bucket.give_back()
            if self._everybody is not None:
                self._everybody.give_back()


def _subscriber(client: str) -> str:
    try:
        address = ipaddress.ip_address(client)
    except ValueError:
        return client
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None:
            return str(address.ipv4_mapped)
        return str(ipaddress.ip_network((int(address) >> 64 << 64, 64)))
    return client
