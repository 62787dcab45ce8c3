"""Key rings that rotate under running servers.

:class:`LiveRings` holds the last good record of a ring and reads it again when told so; it has
neither a thread nor a clock of its own. :class:`WatchedRings` is the same with a thread that reads
once per poll interval. Nothing here talks to other workers: what they agree on is in the record,
and in the clock.
"""

from __future__ import annotations

import logging
import os
import random
import threading
import time
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final, Self

from iam_auth_proxy.errors import IamAuthError, RecordUnusable, StoreUnavailable
from iam_auth_proxy.keys.ringstore import RingStore, Stored
from iam_auth_proxy.protocol.keyring import Health, KeyRing
from iam_auth_proxy.protocol.lifecycle import Policy
from iam_auth_proxy.protocol.stored_ring import Timeline

log = logging.getLogger(__name__)

REREAD_EVERY: Final = 3.0
"""Seconds between readings for the sake of unknown key ids."""

_RETRY: Final = 2.0
"""Seconds between readings until the first one succeeds."""
_READING_TAKES: Final = 20.0
_ROTATE_AGAIN: Final = 300.0
_SHORTEST_WAIT: Final = 0.05

OnRotation = Callable[[KeyRing, KeyRing], None]
"""Called with the ring before and the ring now, in a thread of its own and outside all locks."""


@dataclass(frozen=True, slots=True)
class _Held:
    """The last good record. Replaced as a whole: whoever has one needs no lock."""

    stored: Stored
    timeline: Timeline


class LiveRings:
    """Implements :class:`~iam_auth_proxy.protocol.keyring.Rings`; safe from any thread.

    :param open_store: opens the store, once per process: its connections do not survive a fork.
    :param place: what people call the ring, for the log.
    """

    def __init__(self, open_store: Callable[[], RingStore], place: str) -> None:
        self.place = place
        self._open = open_store
        self._store: RingStore | None = None
        self._held: _Held | None = None
        self._read_at = 0.0
        self._problem = ""
        self._reread_at = float("-inf")
        self._set_back = False
        self._reading = threading.Lock()

    @property
    def policy(self) -> Policy | None:
        """The policy of the last good record; None: nothing was read yet."""
        held = self._held
        return None if held is None else held.stored.ring.policy

    def at(self, now: float) -> KeyRing:
        """What holds at ``now``, by the last good record.

        :raises StoreUnavailable: nothing was read yet; :meth:`reread` reads.
        """
        held = self._held
        if held is None:
            raise StoreUnavailable(self._problem or f"{self.place} has not been read yet")
        return held.timeline.at(now)

    def reread(self, now: float) -> bool:
        """Read the store again, at most once per :data:`REREAD_EVERY`; whether the ring changed.

        Whoever comes while somebody reads waits for that. The store being down is no error.
        """
        before = self._held
        if not self._reading.acquire(timeout=_READING_TAKES):
            return False
        try:
            if self._held is not before:
                return True
            if 0 <= now - self._reread_at < REREAD_EVERY:
                return False
            self._reread_at = now
            self._read(now)
            return self._held is not before
        finally:
            self._reading.release()

    def poll(self, now: float) -> bool:
        """Read the store again; whether the ring changed. The store being down is no error."""
        with self._reading:
            before = self._held
            self._read(now)
            return self._held is not before

    def health(self, now: float) -> Health:
        """Whether the ring is fresh: the last reading was good, and is not long ago."""
        held, problem, read_at = self._held, self._problem, self._read_at
        if held is None:
            return Health(False, 0.0, problem or "The key ring has not been read yet.")
        if problem:
            return Health(False, read_at, f"{problem} It was last read at {_instant(read_at)}.")
        policy = held.stored.ring.policy
        if now - read_at > 3 * policy.poll + policy.read:
            return Health(False, read_at, f"The key ring was last read at {_instant(read_at)}.")
        return Health(True, read_at)

    # -- reading, under the lock -------------------------------------------------------------------

    def _opened(self) -> RingStore:
        if self._store is None:
            self._store = self._open()
        return self._store

    def _read(self, now: float) -> None:
        """Take what is new; keep what was good where that fails."""
        try:
            self._take(self._opened(), now)
        except IamAuthError as error:
            problem = f"The key ring cannot be read: {error.public}"
            if problem != self._problem:
                log.error("%s: %s [%s]", self.place, error, error.code)
            self._problem = problem
        else:
            problem, self._problem = self._problem, ""
            if problem:
                log.info("%s can be read again", self.place)

    def _take(self, store: RingStore, now: float) -> None:
        held, number = self._held, store.latest()
        if held is None or number != held.stored.number or self._set_back:
            # The store went back (a backup was restored, say): the number that is held may be given
            # to another record later, so the newest one is loaded even if the numbers agree again.
            self._set_back |= held is not None and number < held.stored.number
            stored = store.load()
            if held is not None:
                self._check_follows(held.stored, stored)
            self._set_back = False
            self._held = _Held(stored, Timeline(stored.ring))
            log.info("%s: version %d", self.place, stored.number)
        self._read_at = now

    def _check_follows(self, held: Stored, stored: Stored) -> None:
        """A store that was set back would bring back what was disabled since.

        So would whoever changes it then, without knowing.

        :raises RecordUnusable: it does.
        """
        if stored.number < held.number:
            raise RecordUnusable(
                f"{self.place} is at version {stored.number}, and was at a later one before",
                public="The key ring was set back to an earlier version, which is not used.",
                remedy="Write it as a new version, or restart the app.",
            )
        disabled = {each.id for each in held.ring.versions if each.disabled is not None}
        again = [each.id for each in stored.ring.versions if each.material and each.id in disabled]
        if again:
            raise RecordUnusable(
                f"{self.place} version {stored.number} has keys that were disabled before. "
                f"Run: iam-auth-proxy keyring disable {self.place} {' '.join(again)} --kms-key KEY",
                public="The key ring has a key again that was disabled, so it is not used.",
                remedy=f"Disable it again: iam-auth-proxy keyring disable {self.place} "
                f"{' '.join(again)} --kms-key KEY",
            )


class WatchedRings(LiveRings):
    """Live rings with a thread that reads them once per poll interval.

    The thread begins with the first use in a process, so that a server may fork after it has made
    this; the ring itself comes over a fork. It ends with :meth:`close`, or when nobody holds this
    any more.

    :param poll: seconds between readings; never more than the ring's policy says.
    :param clock: seconds since the epoch.
    :param auto_rotate: rotate when it is due. Of several workers one does.
    """

    def __init__(
        self,
        open_store: Callable[[], RingStore],
        place: str,
        *,
        poll: float | None = None,
        clock: Callable[[], float] = time.time,
        auto_rotate: bool = False,
    ) -> None:
        super().__init__(open_store, place)
        self._poll_every = poll
        self._clock = clock
        self._auto_rotate = auto_rotate
        self._callbacks: list[OnRotation] = []
        self._told: KeyRing | None = None
        self._polled_at: float | None = None
        self._failed_at = float("-inf")  # to rotate
        self._overdue = 0
        self._closed = False
        self._begin_anew()
        _ALL.add(self)

    def _begin_anew(self) -> None:
        """For this process: no thread, no lock and no connection of another one."""
        self._reading = threading.Lock()
        self._starting = threading.Lock()
        self._wake = threading.Event()
        self._thread: threading.Thread | None = None
        self._store = None
        self._polled_at = None
        weakref.finalize(self, self._wake.set)

    # -- for whoever signs and verifies ------------------------------------------------------------

    def at(self, now: float) -> KeyRing:
        if self._thread is None:
            self._start()
        return super().at(now)

    def reread(self, now: float) -> bool:
        changed = super().reread(now)
        if self._thread is None:
            self._start()
        elif changed:
            self._wake.set()
        return changed

    def health(self, now: float) -> Health:
        if self._thread is None:
            self._start()
        return super().health(now)

    # -- for whoever runs the server ---------------------------------------------------------------

    def on_rotation(self, callback: OnRotation) -> None:
        """Have it called in this worker whenever another ring holds: published, signing, retired.

        What it raises is logged; the others are called all the same.
        """
        self._callbacks.append(callback)

    def start(self) -> Self:
        """Read the ring now, and begin to watch it.

        :raises NoSuchSecret: there is none, and whatever else :meth:`RingStore.load` raises.
        """
        with self._reading:
            self._take(self._opened(), self._clock())
            self._problem = ""
        self._start()
        return self

    def close(self) -> None:
        """End the thread. What was read last goes on to be used."""
        self._closed = True
        self._wake.set()
        thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join(_READING_TAKES)

    def _take(self, store: RingStore, now: float) -> None:
        super()._take(store, now)
        if self._told is None and self._held is not None:
            self._told = self._held.timeline.at(now)  # what holds at first is no rotation

    # -- the thread --------------------------------------------------------------------------------

    def _start(self) -> None:
        with self._starting:
            if self._thread is not None or self._closed:
                return
            thread = threading.Thread(
                target=_watch, args=(weakref.ref(self), self._wake), name="keyring", daemon=True
            )
            try:
                thread.start()
            except RuntimeError as error:  # no more threads: the next request tries again
                log.error("%s is not watched: %s", self.place, error)
                return
            self._thread = thread

    def tick(self) -> float | None:
        """What the thread does when it wakes; how many seconds until it should again.

        None: never, this is closed.
        """
        if self._closed:
            return None
        now = self._clock()
        every = self._interval()
        if self._polled_at is None or not 0 <= now - self._polled_at < every:
            first = self._polled_at is None
            self.poll(now)
            every = self._interval()
            # Workers that were started together do not read together.
            self._polled_at = now - random.random() * every if first and self._held else now  # noqa: S311 - not a secret
            self._see_to_rotation(now)
        self._tell(now)
        return self._wait(now, every)

    def _interval(self) -> float:
        policy = self.policy
        if policy is None:
            return _RETRY
        # The policy's interval is a limit: read less often, and a key starts signing unnoticed.
        return policy.poll if self._poll_every is None else min(self._poll_every, policy.poll)

    def _wait(self, now: float, every: float) -> float:
        assert self._polled_at is not None
        until = self._polled_at + every
        held = self._held
        change = None if held is None else held.timeline.next(now)
        return max(_SHORTEST_WAIT, min(until, until if change is None else change) - now)

    def _tell(self, now: float) -> None:
        held, before = self._held, self._told
        if held is None or before is None:
            return
        ring = self._told = held.timeline.at(now)
        if before == ring:
            return
        for callback in tuple(self._callbacks):
            try:
                callback(before, ring)
            except (Exception, SystemExit):
                # A callback is the app's code; its failure must not end the thread.
                log.exception("%s: a callback on rotation failed", self.place)

    def _see_to_rotation(self, now: float) -> None:
        held = self._held
        if held is None or self._problem or not held.stored.ring.due(now):
            return
        if self._auto_rotate:
            self._rotate(now)
        elif self._overdue != held.stored.number:
            self._overdue = held.stored.number
            log.warning(
                "%s is due for rotation since %s: iam-auth-proxy keyring rotate %s --kms-key KEY",
                self.place, _instant(held.stored.ring.next_rotation), self.place,
            )  # fmt: skip

    def _rotate(self, now: float) -> None:
        if 0 <= now - self._failed_at < _ROTATE_AGAIN:
            return
        try:
            with self._reading:
                store = self._opened()
            # Requests need not wait for the writing.
            store.rotate(now, if_due=True)
            self.poll(now)
        except IamAuthError as error:
            self._failed_at = now
            log.error("%s cannot be rotated: %s [%s]", self.place, error, error.code)


def _watch(ref: weakref.ref[WatchedRings], wake: threading.Event) -> None:
    wait: float | None = 0.0
    while wait is not None:
        wake.wait(wait)
        wake.clear()
        rings = ref()
        if rings is None:
            return
        try:
            wait = rings.tick()
        except Exception:  # whatever that is, the ring goes on being watched
            log.exception("%s: a reading failed", rings.place)
            wait = _RETRY
        del rings


_ALL: weakref.WeakSet[WatchedRings] = weakref.WeakSet()


def _after_fork() -> None:
    for rings in list(_ALL):
        rings._begin_anew()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def _instant(time: float) -> str:
    return f"{datetime.fromtimestamp(time, UTC):%Y-%m-%dT%H:%M:%SZ}"
