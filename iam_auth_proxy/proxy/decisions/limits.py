"""How often the proxy signs in: never in a circle, and not faster than a person would. Pure."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from typing import Final

from iam_auth_proxy.errors import TooManyRequests
from iam_auth_proxy.names import Origin
from iam_auth_proxy.relay.exchange import RequestHead

SIGN_INS: Final = 10
"""Sign-ins of one origin in a row."""
REFILL: Final = 3.0
"""Seconds until there is one more."""
WILDCARDS_SIGN_INS: Final = 30
"""Sign-ins in a row of all origins together that are trusted by wildcards."""
WILDCARDS_REFILL: Final = 1.0
"""Seconds until there is one more of those."""


class Loops:
    """Breaks a client out of signing in again and again at one URL.

    :param turns: sign-ins of one client at one URL that are allowed in ``seconds``.
    """

    def __init__(self, turns: int = 3, seconds: float = 10.0, limit: int = 1024) -> None:
        self._turns = turns
        self._seconds = seconds
        self._limit = limit
        self._seen: OrderedDict[tuple[str, Origin, bytes], list[float]] = OrderedDict()

    def turn(self, key: tuple[str, Origin, bytes], now: float) -> bool:
        """Counts one sign-in, and says whether it was one too many."""
        times = [time for time in self._seen.pop(key, []) if now - time < self._seconds]
        if len(times) >= self._turns:
            self._seen[key] = times
            return True
        self._seen[key] = [*times, now]
        while len(self._seen) > self._limit:
            self._seen.popitem(last=False)
        return False


def likeness(request: RequestHead) -> bytes:
    """Equal for a request and the same one that a redirect leads to.

    A page may ask one URL for many things at a time (GraphQL does), and each is a request of its
    own. Cookies tell nothing: an app that refuses may set one each time.
    """
    digest = hashlib.blake2b(request.method, digest_size=16)
    for name, value in request.headers:
        if name.lower() != b"cookie":
            digest.update(b"\n%b:%b" % (name, value))
    return request.target + b" " + digest.digest()


class Pace:
    """A token bucket for each origin: an app, or its pages, cannot make us call AWS without end.

    Whoever owns a domain has names in it without end, each with a bucket. So what is trusted by a
    wildcard draws on one more, which is theirs together; apps that are named do not.

    :param burst: sign-ins in a row; ``refill``: seconds for one more.
    """

    def __init__(self, burst: int = SIGN_INS, refill: float = REFILL, limit: int = 1024) -> None:
        self._burst = burst
        self._refill = refill
        self._limit = limit
        # Origin -> the monotonic time at which its token bucket is full again; the last used last.
        self._full_at: OrderedDict[Origin, float] = OrderedDict()
        self._wildcards_full_at = 0.0

    def take(self, origin: Origin, now: float, *, wildcard: bool = False) -> None:
        """One sign-in.

        :param wildcard: the origin is trusted by a wildcard alone.
        :raises TooManyRequests: the bucket is empty.
        """
        full_at = max(self._full_at.pop(origin, now), now) + self._refill
        shared = max(self._wildcards_full_at, now) + WILDCARDS_REFILL
        wait = full_at - (now + self._burst * self._refill)
        if wildcard:
            wait = max(wait, shared - (now + WILDCARDS_SIGN_INS * WILDCARDS_REFILL))
        if wait > 0:
            self._full_at[origin] = full_at - self._refill
            raise TooManyRequests(f"sign-ins at {origin} come too fast", retry_after=wait)
        if wildcard:
            self._wildcards_full_at = shared
        self._full_at[origin] = full_at
        while len(self._full_at) > self._limit:
            self._full_at.popitem(last=False)
