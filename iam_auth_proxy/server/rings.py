"""When a gate waits for its key ring to be read: at first, and for an id that it does not know.

Everything else is from memory. A request waits only in :meth:`.gate.Gate.check_online`, and not for
long: ids can be made up by anybody, and stores can hang.
"""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Callable
from typing import Final

from iam_auth_proxy.errors import AwsUnavailable, StoreUnavailable
from iam_auth_proxy.protocol.keyring import Health, KeyRing, Rings

GAP: Final = 3.0
"""Seconds from one reading for the sake of requests to the next, whoever asks."""

PATIENCE: Final = 2.0
"""Seconds that requests wait for a reading that another began."""


class GateRings:
    """:class:`~iam_auth_proxy.protocol.keyring.Rings`, and when requests may wait for them.

    :param rotates: whether an id that is not in the ring may come to be.
    :param start: reads the ring and begins to watch it, for the start of an app.
    :param close: ends that.
    :param ready: is called once, when the ring was first read.
    """

    def __init__(
        self,
        rings: Rings,
        *,
        rotates: bool,
        start: Callable[[], object] | None = None,
        close: Callable[[], object] | None = None,
        ready: Callable[[], object] | None = None,
    ) -> None:
        self.rotates: Final = rotates
        self._rings = rings
        self._start = start
        self._close = close
        self._tell_ready = ready
        self._ready = False
        self._read_at = float("-inf")
        self._begin_anew()
        _ALL.add(self)

    def _begin_anew(self) -> None:
        """For this process: what a thread of another one was about is not waited for."""
        self._lock = threading.Lock()
        self._reading: _Reading | None = None

    def at(self, now: float) -> KeyRing:
        """What signs and verifies at ``now``.

        :raises StoreUnavailable: the ring was never read.
        """
        return self._rings.at(now)

    def health(self, now: float) -> Health:
        """Whether the ring is fresh."""
        return self._rings.health(now)

    def ready(self, now: float) -> bool:
        """Whether :meth:`at` answers. Once it did, it always does."""
        if not self._ready:
            try:
                self._rings.at(now)
            except StoreUnavailable:
                return False
            with self._lock:
                first, self._ready = not self._ready, True
            if first and self._tell_ready is not None:
                self._tell_ready()
        return True

    def wait(self, now: float) -> None:
        """Read the ring, where it was never read. Blocks.

        :raises StoreUnavailable: it still was not.
        """
        if not self.ready(now):
            self.reread(now)
            self._rings.at(now)

    def start(self, now: float) -> None:
        """The same at the start of an app, which need not wait for what mends itself.

        :raises ConfigError: no waiting mends it.
        """
        if self._start is None:
            return
        try:
            self._start()
        except (AwsUnavailable, StoreUnavailable):
            self.health(now)  # asks for it to be tried again, and logged
        self.ready(now)

    def close(self) -> None:
        """Follow the store no longer; what was read last goes on to be used."""
        if self._close is not None:
            self._close()

    def may_reread(self, now: float) -> bool:
        """Whether an unknown id is worth :meth:`reread`. It costs nothing to ask."""
        if not self.rotates:
            return False
        reading = self._reading
        if reading is not None:  # that one will do, unless it takes too long
            return reading.began <= now < reading.began + PATIENCE
        return not self._read_at <= now < self._read_at + GAP

    def reread(self, now: float) -> bool:
        """Read the store again; True where the ring changed. Blocks, and raises nothing.

        One request reads, and those that come meanwhile wait for it, but not for long: where the
        store hangs, they are answered by the ring that is there.
        """
        with self._lock:
            if not self.may_reread(now):
                return False
            reading = self._reading
            mine = reading is None
            if reading is None:
                reading = self._reading = _Reading(now)
        if not mine:
            reading.done.wait(PATIENCE)
            return reading.changed
        try:
            reading.changed = self._rings.reread(now)
        finally:
            with self._lock:
                self._read_at, self._reading = now, None
            reading.done.set()
        return reading.changed


class _Reading:
    """One reading that is under way."""

    __slots__ = ("began", "changed", "done")

    def __init__(self, began: float) -> None:
        self.began = began
        self.changed = False
        self.done = threading.Event()


_ALL: weakref.WeakSet[GateRings] = weakref.WeakSet()


def _after_fork() -> None:
    for rings in list(_ALL):
        rings._begin_anew()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
