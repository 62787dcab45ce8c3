"""Single use: what was spent is remembered until it would have expired anyway.

Nonces and legacy tokens are spent when their proof held, tries with a nonce are counted by spending
one of a few per nonce, and sessions are spent by a logout. All of that is one operation, insert if
absent, on one of three stores. They are either in a process's memory, or in a file that all workers
of one host share (:mod:`~iam_auth_proxy.server.replay_file`).
"""

from __future__ import annotations

import hashlib
import heapq
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Protocol

from iam_auth_proxy.errors import Malformed
from iam_auth_proxy.protocol import nonce, proof

MEMORY: Final = "memory"
FILE: Final = "file:"

LIMIT: Final = 100_000
"""Digests in one store. At the gate's rate limits one worker comes to 6,000 in five minutes."""

LONGEST: Final = float(proof.MAX_LIFE + proof.SKEW)
"""Seconds from now to the end of any proof that is good now."""

LONGEST_NONCE: Final = float(nonce.MAX_AGE + 2 * nonce.SKEW + 1)
"""The same of a nonce."""


class ReplayStore(Protocol):
    """Remembers digests. ``now`` and ``until`` are seconds since the epoch.

    Every method raises :class:`~iam_auth_proxy.errors.StoreUnavailable` where the store cannot be
    read or written: then nobody knows whether a proof was used.
    """

    def seen(self, digest: bytes, now: float) -> bool:
        """Whether it is spent; changes nothing."""
        ...

    def spend(self, digest: bytes, until: float, now: float) -> bool:
        """Insert if absent; whether it was absent.

        What ends before something that is forgotten already is never taken for absent, though it is
        remembered: a clock that was set back must not make a spent proof good again. What was
        forgotten by a clock that was far ahead counts no further than a proof that is good now can
        reach, or nobody could sign in until that time came.

        :raises StoreFull: it can hold no more: nothing that is still good is forgotten for it.
        """
        ...


class StoreFull(Exception):
    """The store holds as many unexpired digests as it may."""


@dataclass(frozen=True, slots=True)
class Stores:
    """What one app remembers. Apart, so that none of them can crowd out another."""

    proofs: ReplayStore
    tries: ReplayStore
    sessions: ReplayStore
    close: Callable[[], object] = lambda: None
    """Lets go of what they keep open; the next use opens it again."""


def check_place(text: str) -> str:
    """``text``, if it is ``memory`` or ``file:`` and an absolute path.

    :raises Malformed: otherwise.
    """
    if text != MEMORY and not (text.startswith(FILE + "/") and text.isprintable()):
        raise Malformed(f"must be {MEMORY}, or {FILE} and an absolute path")
    return text


def open_stores(place: str) -> Stores:
    """The stores at a place that :func:`check_place` accepts.

    :raises ConfigError: the file cannot be used, or others could write to it.
    """
    if place == MEMORY:
        return Stores(MemoryReplay(), MemoryReplay(longest=LONGEST_NONCE), MemoryReplay())
    # sqlite3 is loaded by those who use it.
    from iam_auth_proxy.server.replay_file import ReplayFile

    file = ReplayFile(place.removeprefix(FILE))
    tries = file.store("tries", LONGEST_NONCE)
    return Stores(file.store("proofs"), tries, file.store("sessions"), file.close)


def digest(kind: str, text: str) -> bytes:
    """What a nonce, a try or a session id is remembered by: it may be in a file for a while."""
    return hashlib.sha256(f"{kind}\0{text}".encode()).digest()


class MemoryReplay:
    """One process's memory. Several workers need a store that they share.

    At most ``limit`` digests are held. A full store refuses: forgetting one early would let its
    token be used again.
    """

    def __init__(self, limit: int = LIMIT, longest: float = LONGEST) -> None:
        self._limit = limit
        self._longest = longest
        self._spent: dict[bytes, float] = {}
        self._by_end: list[tuple[float, bytes]] = []
        self._forgotten = 0.0
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
                end, gone = heapq.heappop(self._by_end)
                self._forgotten = max(self._forgotten, end)
                del self._spent[gone]
            self._forgotten = min(self._forgotten, now + self._longest)
            if digest in self._spent or until <= now:
                return False
            if len(self._spent) >= self._limit:
                raise StoreFull(f"{self._limit} are remembered")
            self._spent[digest] = until
            heapq.heappush(self._by_end, (until, digest))
            return until > self._forgotten

    def __len__(self) -> int:
        return len(self._spent)
