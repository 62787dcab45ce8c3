"""Single use: what was spent is remembered until it would have expired anyway."""

from __future__ import annotations

import heapq
import threading
from typing import Protocol


class ReplayStore(Protocol):
    """Remembers digests. ``now`` and ``until`` are seconds since the epoch."""

    def seen(self, digest: bytes, now: float) -> bool:
        """Whether it is spent; changes nothing."""
        ...

    def spend(self, digest: bytes, until: float, now: float) -> bool:
        """Insert if absent; whether it was absent.

        :raises StoreFull: it can hold no more: nothing that is still good is forgotten for it.
        """
        ...


class StoreFull(Exception):
    """The store holds as many unexpired digests as it may."""


class MemoryReplay:
    """One process's memory. Several workers need a store that they share.

    At most ``limit`` digests are held. A full store refuses: forgetting one early would let its
    token be used again. Only proofs that held are spent, so filling it takes that many sign-ins.
    """

    def __init__(self, limit: int = 100_000) -> None:
        self._limit = limit
        self._spent: dict[bytes, float] = {}
        self._by_end: list[tuple[float, bytes]] = []
        self._lock = threading.Lock()

    def seen(self, digest: bytes, now: float) -> bool:
        """Whether it is spent; changes nothing."""
        until = self._spent.get(digest)
        return until is not None and until > now

    def spend(self, digest: bytes, until: float, now: float) -> bool:
        """Insert if absent; whether it was absent.

        :raises StoreFull: at the limit.
        """
        with self._lock:
            while self._by_end and self._by_end[0][0] <= now:
                del self._spent[heapq.heappop(self._by_end)[1]]
            if digest in self._spent:
                return False
            if len(self._spent) >= self._limit:
                raise StoreFull(f"{self._limit} sign-ins are remembered")
            self._spent[digest] = until
            heapq.heappush(self._by_end, (until, digest))
            return True

    def __len__(self) -> int:
        return len(self._spent)
