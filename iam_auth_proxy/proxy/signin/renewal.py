"""When a session is renewed ahead of its end. Pure.

Near the end of a session the next request of its client begins another sign-in, which nobody waits
for. A client that asks for nothing gets nothing: its session just ends. Whoever fails to be renewed
signs in at the next challenge, as everybody does.
"""

from __future__ import annotations

from typing import Final

SHARE: Final = 0.1
"""Of a session's life, how much is left when it is renewed, within these seconds:"""
AT_LEAST: Final = 60.0
AT_MOST: Final = 600.0

TRIES: Final = 2
RETRY_AFTER: Final = 60.0
"""Seconds from a renewal that failed to the next."""


class Due:
    """When one session is to be renewed, and how often that was tried.

    :ivar at: seconds since the epoch.
    :param expires: the session's end, likewise; ``life``: its whole life in seconds.
    """

    __slots__ = ("_tries", "_under_way", "at")

    def __init__(self, expires: float, life: float) -> None:
        self.at = expires - min(max(life * SHARE, AT_LEAST), AT_MOST, life / 2)
        self._tries = TRIES
        self._under_way = False

    def is_due(self, now: float) -> bool:
        """Whether a request that comes now begins a renewal."""
        return now >= self.at and self._tries > 0 and not self._under_way

    def begin(self) -> None:
        """Notes that a renewal is under way: there is never a second one beside it."""
        self._tries -= 1
        self._under_way = True

    def failed(self, now: float) -> None:
        """Notes that the renewal failed."""
        self.at = now + RETRY_AFTER
        self._under_way = False
