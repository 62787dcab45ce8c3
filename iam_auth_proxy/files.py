"""Files that are changed under a lock, and replaced as a whole; and files without a name."""

from __future__ import annotations

import contextlib
import os
import stat
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Final, cast

from iam_auth_proxy.errors import ConfigError, Problem, StoreUnavailable

LOCK_WAIT: Final = 5.0
"""Seconds that a writer waits for another one."""

_NO_LINK: Final = getattr(os, "O_NOFOLLOW", 0)


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """One writer at a time. The lock is the kernel's: it ends with whoever held it.

    :raises ConfigError: somebody else held it for too long.
    """
    lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | _NO_LINK, 0o600)
    try:
        until = time.monotonic() + LOCK_WAIT
        while not _try_lock(lock):
            if time.monotonic() > until:
                text = "another process has held it locked for some time"
                raise ConfigError([Problem(str(path), text)])
            time.sleep(0.01)
        yield
    finally:
        os.close(lock)


def _try_lock(lock: int) -> bool:
    try:
        import fcntl
    except ImportError:  # Windows: the last writer wins
        return True
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def replace_file(path: Path, text: str) -> None:
    """The file is the old one or the new one, whatever happens in between."""
    fresh = path.with_name(f".{path.name}.new")
    fresh.unlink(missing_ok=True)  # of somebody who was stopped half-way; we hold the lock
    try:
        descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(fresh, path)
    except BaseException:
        fresh.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def sync_folder(path: Path) -> None:
    """What was renamed, linked or removed in a folder stays so when the power fails."""
    if hasattr(os, "O_DIRECTORY"):
        folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def read_own(path: Path, at_most: int) -> str | None:
    """The text of a file that says what to do or who to be; None: there is none.

    :param at_most: bytes.
    :raises ConfigError: it is somebody else's, could have been written by somebody else, or cannot
        be read.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | getattr(os, "O_NONBLOCK", 0))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise _unusable(path, error.strerror or str(error)) from error
    try:
        facts = os.fstat(descriptor)
        if not stat.S_ISREG(facts.st_mode):
            raise _unusable(path, "it is not a file")
        if not is_ours(facts) or not is_ours(path.lstat()):
            raise _unusable(path, "it is somebody else's, and so it is not used")
        if os.name == "posix" and facts.st_mode & 0o022:
            raise _unusable(path, f"others may write it; run: chmod go-w {path}")
        with open(descriptor, "rb", closefd=False) as file:
            data = file.read(at_most + 1)
    except OSError as error:
        raise _unusable(path, error.strerror or str(error)) from error
    finally:
        os.close(descriptor)
    try:
        if len(data) > at_most:
            raise ValueError("it is too long")
        return data.decode("utf-8")
    except ValueError as error:
        raise _unusable(path, f"it cannot be read: {error}") from error


def is_ours(facts: os.stat_result) -> bool:
    """Whether a file or folder belongs to the user who runs this."""
    return not hasattr(os, "getuid") or facts.st_uid == os.getuid()


def _unusable(path: Path, text: str) -> ConfigError:
    return ConfigError([Problem(str(path), text)])


IN_MEMORY: Final = 8 << 20
"""Bytes of a spool that are held in memory."""


def spool() -> BinaryIO:
    """A file without a name, for nobody else to open: in memory, or what is longer on disk."""
    return cast(BinaryIO, tempfile.SpooledTemporaryFile(IN_MEMORY))


def no_room(error: OSError) -> StoreUnavailable:
    """A spool cannot be written."""
    folder = tempfile.gettempdir()
    return StoreUnavailable(
        f"{folder}: {error.strerror or error}",
        public="There is no room for a temporary file.",
        remedy=f"Make room in {folder}, or set TMPDIR.",
    )
