"""One timer for every deadline.

A timer per request costs more than parsing the request. So each connection keeps the time it is due
in a plain attribute, and one sweep looks at them all; a deadline is met within one sweep interval.
"""

from __future__ import annotations

import asyncio
import math
from typing import Final, Protocol

NEVER: Final = math.inf


class Watched(Protocol):
    """Something with a deadline.

    :ivar due: loop time from which :meth:`overdue` is called; ``NEVER`` for none.
    """

    due: float

    def overdue(self) -> None:
        """The deadline passed: set another or end."""
        ...


class Sweep:
    """Loop time to the precision of a sweep, and the connections it watches.

    The timer runs only while something is watched, so an idle proxy does not wake up.

    :param interval: seconds between sweeps.
    """

    __slots__ = ("_handle", "_interval", "_loop", "_watched", "now")

    def __init__(self, interval: float) -> None:
        self._interval = interval
        self._loop: asyncio.AbstractEventLoop | None = None
        self._handle: asyncio.TimerHandle | None = None
        self._watched: set[Watched] = set()
        self.now = 0.0

    def __len__(self) -> int:
        return len(self._watched)

    def watch(self, watched: Watched) -> None:
        """Watches from now on; ``now`` is exact when this returns."""
        loop = self._loop
        if loop is None:
            loop = self._loop = asyncio.get_running_loop()
        self._watched.add(watched)
        self.now = loop.time()
        if self._handle is None:
            self._handle = loop.call_later(self._interval, self._sweep)

    def forget(self, watched: Watched) -> None:
        """Stops watching."""
        self._watched.discard(watched)

    def stop(self) -> None:
        """End the timer."""
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None

    def _sweep(self) -> None:
        if not self._watched or self._loop is None:
            self._handle = None
            return
        now = self.now = self._loop.time()
        self._handle = self._loop.call_later(self._interval, self._sweep)
        for watched in [one for one in self._watched if one.due <= now]:
            if watched.due <= now:  # one may end another, as the two ends of a tunnel do
                watched.overdue()
