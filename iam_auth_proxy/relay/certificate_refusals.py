"""Clients that refuse the local CA's certificates, remembered for a while. Pure.

A program that pins its server, or that nobody told of the local CA, ends the handshake when it sees
our certificate. Such a client is remembered by origin and ClientHello, and its further connections
are tunnelled unread for a while: it then checks the app's own certificate, by its own rules.

What a page can do with this: have its browser give connections up, so that the browser is taken for
such a client. So an alert about our certificate counts at once, which no page can cause where the
browser takes it; a connection that merely closes counts when it is the second in a row, and never
again once a request of such a client has been seen inside. And all that a page could win is that
nobody is signed in to that app for a few minutes.
"""

from __future__ import annotations

from typing import Final

from iam_auth_proxy.names import Origin

REMEMBERED: Final = 300.0
"""Seconds for which a client that refused is tunnelled."""
SOON: Final = 2.0
"""Seconds within which a connection that closes without a word may be a refusal."""
IN_A_ROW: Final = 60.0
"""Seconds between two such."""
MOST: Final = 1024
"""Clients of each kind; the oldest are forgotten first."""

Key = tuple[Origin, str]
"""An origin, and the fingerprint of a ClientHello."""


class Refusals:
    """Which clients refused our certificate, which closed once, and which accepted it."""

    __slots__ = ("_closed", "_refused", "_spoke")

    def __init__(self) -> None:
        self._refused: dict[Key, float] = {}
        self._closed: dict[Key, float] = {}
        self._spoke: dict[Key, float] = {}

    def __len__(self) -> int:
        return len(self._refused) + len(self._closed) + len(self._spoke)

    def holds(self, key: Key, now: float) -> bool:
        """Whether this client is to be tunnelled."""
        until = self._refused.get(key)
        if until is None:
            return False
        if until <= now:
            del self._refused[key]
            return False
        return True

    def refused(self, key: Key, now: float) -> None:
        """A client sent an alert about our certificate."""
        self._spoke.pop(key, None)
        self._closed.pop(key, None)
        _put(self._refused, key, now + REMEMBERED)

    def closed(self, key: Key, now: float) -> bool:
        """It closed where others speak; whether that is taken for a refusal."""
        if key in self._spoke:
            return False
        before = self._closed.pop(key, None)
        if before is not None and now - before <= IN_A_ROW:
            self.refused(key, now)
            return True
        _put(self._closed, key, now)
        return False

    def spoke(self, key: Key, now: float) -> None:
        """A request of it came: it takes our certificates."""
        self._closed.pop(key, None)
        if key not in self._spoke:
            _put(self._spoke, key, now)


def _put(known: dict[Key, float], key: Key, time: float) -> None:
    known.pop(key, None)
    known[key] = time
    if len(known) > MOST:
        del known[next(iter(known))]
