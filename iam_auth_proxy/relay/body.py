"""A counted request body (RFC 9112 section 6.2), read like a chunked one. Pure."""

from __future__ import annotations


class CountedBody:
    """Follows a body of known length through reads of any size.

    :ivar left: bytes to come.
    :ivar done: none are.
    :ivar rest: what came behind the body, once ``done``.
    """

    __slots__ = ("done", "left", "rest")

    def __init__(self, length: int) -> None:
        self.left = length
        self.done = length == 0
        self.rest = b""

    def feed(self, data: bytes) -> bytes:
        """The part of what was read that is the body's."""
        left = self.left = self.left - len(data)
        if left > 0:
            return data
        self.left = 0
        self.done = True
        if left:
            self.rest = data[left:]
            return data[:left]
        return data
