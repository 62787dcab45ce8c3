"""What the relay counted since it started. Plain integers, read when somebody asks."""

from __future__ import annotations


class Counters:
    """Adding one to an attribute is all that the hot path pays.

    :ivar refused: status -> requests answered with it because they were not fit to be forwarded.
    :ivar failed: RFC 9209 error token -> exchanges that the path failed.
    """

    __slots__ = (
        "abandoned",
        "aborted",
        "accepted",
        "dialled",
        "expired",
        "failed",
        "fetched",
        "over_limit",
        "passed_on",
        "refused",
        "repeated",
        "replied",
        "requests",
        "retried",
        "reused",
        "strangers",
        "tls_ended",
        "tls_failed",
        "tls_refused",
        "tunnels",
        "tunnels_read",
        "unauthenticated",
        "upgrades",
    )

    def __init__(self) -> None:
        self.accepted = 0  # client connections
        self.strangers = 0  # client connections closed at once: their entrance does not admit them
        self.over_limit = 0  # client connections answered with 503 at once
        self.requests = 0  # heads understood, CONNECT included
        self.unauthenticated = 0  # requests without the credentials that their entrance asks for
        self.passed_on = 0  # final answers of origins passed on
        self.replied = 0  # answers made here that steering decided on
        self.repeated = 0  # requests sent again because steering said so
        self.abandoned = 0  # exchanges whose client was gone before its answer was whole
        self.aborted = 0  # answers cut off because the origin's was, or stood still
        self.expired = 0  # connections whose deadline passed
        self.dialled = 0  # connections to origins
        self.reused = 0  # requests sent over a connection of the pool
        self.retried = 0  # requests sent again because a pooled connection was stale
        self.fetched = 0  # the proxy's own requests
        self.tls_ended = 0  # CONNECT whose TLS was ended here
        self.tls_failed = 0  # CONNECT where that did not come about
        self.tls_refused = 0  # clients that do not take our certificate
        self.tunnels = 0  # CONNECT, passed unread
        self.tunnels_read = 0  # CONNECT whose requests are read
        self.upgrades = 0  # WebSocket
        self.refused: dict[int, int] = {}
        self.failed: dict[str, int] = {}

    def count_refused(self, status: int) -> None:
        """One more request refused with this status."""
        self.refused[status] = self.refused.get(status, 0) + 1

    def count_failed(self, error: str) -> None:
        """One more exchange that failed with this RFC 9209 error token."""
        self.failed[error] = self.failed.get(error, 0) + 1

    def snapshot(self) -> dict[str, int | dict[int, int] | dict[str, int]]:
        """All counters by name, those by status and token as dictionaries of their own."""
        values: dict[str, int | dict[int, int] | dict[str, int]] = {}
        for name in self.__slots__:
            value = getattr(self, name)
            values[name] = dict(value) if isinstance(value, dict) else value
        return values
