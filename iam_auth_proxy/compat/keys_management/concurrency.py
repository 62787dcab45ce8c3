"""The original's locks. They are accepted and not used: every key has a lock of its own, which its
callbacks do not hold."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from enum import Enum
from typing import Any


class EnvironemtType(Enum):
    """Who else is there. It makes no difference here."""

    SINGLE = 1
    MULTITHREADED = 2
    MULTIPROCESS = 3


class Synchronizer:
    """A lock for reading and for writing."""

    @contextmanager
    def read(self) -> Iterator[bool]:
        """Hold it for reading."""
        held = self.acquire_read()
        try:
            yield held
        finally:
            self.release_read()

    @contextmanager
    def write(self) -> Iterator[bool]:
        """Hold it for writing."""
        held = self.acquire_write()
        try:
            yield held
        finally:
            self.release_write()

    def acquire_read(self) -> bool:
        raise NotImplementedError

    def release_read(self) -> None:
        raise NotImplementedError

    def acquire_write(self) -> bool:
        raise NotImplementedError

    def release_write(self) -> None:
        raise NotImplementedError

    def is_locked_read(self) -> bool:
        raise NotImplementedError

    def is_locked_write(self) -> bool:
        raise NotImplementedError


class DefaultSynchronizer(Synchronizer):
    """One lock for both, which a thread that holds it may take again.

    :param lock: has ``acquire`` and ``release``.
    """

    def __init__(self, lock: Any = None) -> None:
        self._lock = threading.RLock() if lock is None else lock
        self._held = 0

    def acquire_write(self) -> bool:
        held = bool(self._lock.acquire())
        self._held += held
        return held

    def release_write(self) -> None:
        self._held -= 1
        self._lock.release()

    def is_locked_write(self) -> bool:
        return self._held > 0

    acquire_read = acquire_write
    release_read = release_write
    is_locked_read = is_locked_write


class SynchronizerFactory:
    """Makes locks."""

    def create(self) -> Synchronizer:
        raise NotImplementedError

    def __call__(self) -> Synchronizer:
        return self.create()


class DefaultSynchronizerFactory(SynchronizerFactory):
    """Makes :class:`DefaultSynchronizer`."""

    def __init__(self, environemt_type: EnvironemtType = EnvironemtType.SINGLE) -> None:
        self.environemt_type = environemt_type

    def create(self) -> Synchronizer:
        return DefaultSynchronizer()
