"""A request's body, kept so that it can be sent again: in memory first, then in a private file.

The file has no name from the start and is its owner's alone; closing it is the end of it. It is
written and read in line: a read of a client is a copy into the page cache, well under a
millisecond, which is less than handing it to a thread and back costs.
"""

from __future__ import annotations

import logging
import os
import tempfile
from typing import IO

from iam_auth_proxy.errors import PathError
from iam_auth_proxy.relay.limits import Limits

log = logging.getLogger(__name__)


class Room:
    """What all requests together keep now, in bytes, and how much they may."""

    __slots__ = ("filed", "limits", "memory")

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.memory = 0
        self.filed = 0


class KeptBody:
    """The bytes of one body as they came, framing included.

    :ivar size: of what is kept.
    :ivar full: no more is to be added.
    """

    __slots__ = ("_file", "_filed", "_memory", "_room", "_tail", "full", "size")

    def __init__(self, room: Room) -> None:
        self._room = room
        self._memory = bytearray()
        self._file: IO[bytes] | None = None
        self._filed = 0
        self._tail = b""  # what there was no place for
        self.size = 0
        self.full = False

    def append(self, data: bytes) -> None:
        """Keep this too. What there is no place for is kept all the same, and ``full`` is set."""
        room, limits = self._room, self._room.limits
        added = len(data)
        self.size += added
        if (
            self._file is None
            and len(self._memory) < limits.replay_memory
            and room.memory < limits.replay_all_memory
            and not self._tail
        ):
            self._memory += data
            room.memory += added
        elif self.full or room.filed >= limits.replay_all_files or not self._write(data):
            self._tail += data
            self.full = True
        if self.size >= limits.replay_file:
            self.full = True

    def _write(self, data: bytes) -> bool:
        try:
            if self._file is None:
                self._file = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115  # see close()
            written = os.pwrite(self._file.fileno(), data, self._filed)
        except OSError as error:
            log.warning("a request's body cannot be kept", extra={"detail": str(error)})
            return False
        if written < len(data):
            return False  # the disk is full; what is behind _filed is not there
        self._filed += written
        self._room.filed += written
        return True

    def read(self, at: int, size: int) -> bytes:
        """At least one and at most ``size`` bytes from this position, which is before the end.

        :raises PathError: the file cannot be read.
        """
        if at < len(self._memory):
            return bytes(memoryview(self._memory)[at : at + size])
        at -= len(self._memory)
        if at < self._filed and self._file is not None:
            try:
                data = os.pread(self._file.fileno(), min(size, self._filed - at), at)
            except OSError as error:
                raise _unreadable(str(error)) from error
            if not data:
                raise _unreadable("it is shorter than it was")
            return data
        return self._tail[at - self._filed : at - self._filed + size]

    def close(self) -> None:
        """Drops what was kept."""
        self._room.memory -= len(self._memory)
        self._room.filed -= self._filed
        self._memory = bytearray()
        self._tail = b""
        self._filed = 0
        if self._file is not None:
            self._file.close()
            self._file = None


def _unreadable(detail: str) -> PathError:
    return PathError(
        f"a request's body cannot be read back: {detail}",
        error="proxy_internal_error",
        public="The request could not be sent again.",
    )
