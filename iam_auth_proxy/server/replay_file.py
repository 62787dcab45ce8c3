"""Replay stores in a file, shared by all workers of one host.

It is an SQLite database in WAL mode: writers queue for a moment, readers never wait, and what was
answered with "spent" survives a crash of the process and of the machine. WAL needs memory shared
between its users, so the file belongs on a local disk.

Whoever can write to the directory could put an empty file in its place, and every spent proof would
be good again. So the directory has to be the app's own.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import sqlite3
import stat
import tempfile
import threading
from collections.abc import Iterator
from typing import Final
from urllib.parse import quote

from iam_auth_proxy.errors import ConfigError, Problem, StoreUnavailable
from iam_auth_proxy.server.replay import LIMIT, LONGEST, StoreFull

PATIENCE: Final = 1.0
"""Seconds that a writer waits for another worker's, which is done within milliseconds."""

_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS spent (
    store TEXT NOT NULL, digest BLOB NOT NULL, until REAL NOT NULL, PRIMARY KEY (store, digest)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS spent_until ON spent (store, until);
CREATE TABLE IF NOT EXISTS forgotten (store TEXT PRIMARY KEY, until REAL NOT NULL) WITHOUT ROWID;
"""


class ReplayFile:
    """One file. Nothing of it is kept open until it is first used, so that a server may fork.

    :param path: created with mode 0600; the directory has to exist.
    :raises ConfigError: it is not private to this user, or cannot be written.
    """

    def __init__(self, path: str, *, patience: float = PATIENCE, limit: int = LIMIT) -> None:
        self.path: Final = path
        self.limit: Final = limit
        self._patience = patience
        self._opened: _Opened | None = None
        try:
            _check_folder(path)
            _create(path)
            _check_file(path)
            self._check_writable()
        except (OSError, sqlite3.Error) as error:
            raise _unusable(path, f"cannot be used: {error}") from error

    def store(self, name: str, longest: float = LONGEST) -> FileReplay:
        """One of the stores in it.

        :param longest: seconds from now to the end of anything in it that is good now.
        """
        return FileReplay(self, name, longest)

    @contextlib.contextmanager
    def reader(self) -> Iterator[sqlite3.Connection]:
        """A connection for one query.

        :raises StoreUnavailable: the query failed.
        """
        with self._translated():
            opened = self._open()
            with opened.reading:
                yield opened.reader

    @contextlib.contextmanager
    def writer(self) -> Iterator[sqlite3.Connection]:
        """A connection inside a transaction that nobody else writes beside; kept if all went well.

        :raises StoreUnavailable: the file is locked, full, or cannot be written.
        """
        with self._translated():
            opened = self._open()
            with opened.writing:
                opened.writer.execute("BEGIN IMMEDIATE")
                try:
                    yield opened.writer
                    opened.writer.execute("COMMIT")
                except BaseException:
                    if opened.writer.in_transaction:  # some failures have ended it already
                        opened.writer.execute("ROLLBACK")
                    raise

    def _check_writable(self) -> None:
        connection = _connect(self.path, self._patience)
        try:
            connection.executescript(f"BEGIN IMMEDIATE; {_SCHEMA} COMMIT;")
        finally:
            connection.close()

    def close(self) -> None:
        """Close the file; it is opened again by its next use."""
        opened, self._opened = self._of_this_process(), None
        if opened is not None:
            opened.close()

    def _open(self) -> _Opened:
        opened = self._of_this_process()
        if opened is None:
            opened = self._opened = _Opened(self.path, self._patience)
        return opened

    def _of_this_process(self) -> _Opened | None:
        opened = self._opened
        if opened is not None and opened.pid != os.getpid():
            # A connection that came over a fork may not even be closed here.
            _INHERITED.append(opened)
            return None
        return opened

    @contextlib.contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except (OSError, sqlite3.Error) as error:
            detail = f"nobody can sign in: the replay file {self.path} cannot be used: {error}"
            raise StoreUnavailable(detail) from error


class _Opened:
    """The connections of one process. Two, since a reader never has to wait for a writer."""

    def __init__(self, path: str, patience: float) -> None:
        self.pid = os.getpid()
        self.reading, self.writing = threading.Lock(), threading.Lock()
        self.writer = _connect(path, patience)
        self.reader = _connect(path, patience)

    def close(self) -> None:
        with self.reading, self.writing:
            self.reader.close()
            self.writer.close()


_INHERITED: Final[list[_Opened]] = []


def _connect(path: str, patience: float) -> sqlite3.Connection:
    # mode=rw: a file that was taken away is an error, and not an empty store.
    uri = f"file:{quote(path)}?mode=rw"
    connection = sqlite3.connect(
        uri, uri=True, timeout=patience, isolation_level=None, check_same_thread=False
    )
    try:
        (mode,) = connection.execute("PRAGMA journal_mode = WAL").fetchone()
        if mode != "wal":
            raise sqlite3.OperationalError(f"no WAL on this file system, only {mode}")
        connection.execute("PRAGMA synchronous = FULL")
    except sqlite3.Error:
        connection.close()
        raise
    return connection


class FileReplay:
    """One store of a file, with a :class:`~iam_auth_proxy.server.replay.ReplayStore`'s methods."""

    def __init__(self, file: ReplayFile, name: str, longest: float) -> None:
        self._file = file
        self._name = name
        self._longest = longest

    def seen(self, digest: bytes, now: float) -> bool:
        """Whether it is spent; changes nothing.

        :raises StoreUnavailable: the file cannot be read.
        """
        query = "SELECT 1 FROM spent WHERE store = ? AND digest = ? AND until > ?"
        with self._file.reader() as database:
            return database.execute(query, (self._name, digest, now)).fetchone() is not None

    def spend(self, digest: bytes, until: float, now: float) -> bool:
        """Insert if absent, in one transaction; whether it was absent.

        :raises StoreFull: at the limit.
        :raises StoreUnavailable: the file is locked, full, or cannot be written.
        """
        with self._file.writer() as database:
            forgotten = self._forget(database, now)
            held = "SELECT 1 FROM spent WHERE store = ? AND digest = ?"
            if until <= now or database.execute(held, (self._name, digest)).fetchone():
                return False
            if self._count(database) >= self._file.limit:
                raise StoreFull(f"{self._file.limit} are remembered")
            database.execute("INSERT INTO spent VALUES (?, ?, ?)", (self._name, digest, until))
        return until > forgotten

    def _forget(self, database: sqlite3.Connection, now: float) -> float:
        """Delete what has ended, and answer the latest end of all that ever was deleted, as far
        ahead as that can matter.
        """
        over = (self._name, now)
        (latest,) = database.execute(
            "SELECT max(until) FROM spent WHERE store = ? AND until <= ?", over
        ).fetchone()
        if latest is not None:
            database.execute("DELETE FROM spent WHERE store = ? AND until <= ?", over)
            database.execute(
                "INSERT INTO forgotten VALUES (?, ?) "
                "ON CONFLICT (store) DO UPDATE SET until = max(until, excluded.until)",
                (self._name, latest),
            )
        row = database.execute("SELECT until FROM forgotten WHERE store = ?", (self._name,))
        found = row.fetchone()
        forgotten, reach = float(found[0]) if found else 0.0, now + self._longest
        if forgotten > reach:
            database.execute("UPDATE forgotten SET until = ? WHERE store = ?", (reach, self._name))
        return min(forgotten, reach)

    def __len__(self) -> int:
        with self._file.reader() as database:
            return self._count(database)

    def _count(self, database: sqlite3.Connection) -> int:
        count = "SELECT count(*) FROM spent WHERE store = ?"
        return int(database.execute(count, (self._name,)).fetchone()[0])


# -- whose file it is ------------------------------------------------------------------------------


def _check_folder(path: str) -> None:
    folder = os.path.dirname(path)
    found = os.stat(folder)
    if found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise _unusable(path, f"others can write to {folder}. {_closing(folder, found, 'go-w')}")
    if found.st_uid not in (0, os.geteuid()):
        raise _unusable(path, f"{folder} belongs to another user. {_elsewhere()}")
    for parent in _parents(folder):
        above = os.stat(parent)
        if above.st_mode & stat.S_IWOTH and not above.st_mode & stat.S_ISVTX:
            text = f"everybody can write to {parent}. {_closing(parent, above, 'o-w')}"
            raise _unusable(path, text)


def _closing(folder: str, found: os.stat_result, change: str) -> str:
    """What to do about a folder that is open. One that is shared stays as it is: others need it."""
    if found.st_uid != os.geteuid() or found.st_mode & stat.S_ISVTX:
        return _elsewhere()
    return f"Run: chmod {change} {shlex.quote(folder)}"


def _elsewhere() -> str:
    return (
        "Give the file a directory of its own, such as the one of: "
        f"install -d -m 0700 -o {os.geteuid()} /var/lib/app/replay"
    )


def _create(path: str) -> None:
    """Make the file where there is none, at once in its final state.

    Workers start together, and turning an empty file into a database in WAL mode is nothing that
    several can do at the same time.
    """
    if os.path.lexists(path):
        return
    descriptor, draft = tempfile.mkstemp(dir=os.path.dirname(path), prefix=".iam-auth-replay-")
    os.close(descriptor)
    try:
        connection = _connect(draft, PATIENCE)
        connection.executescript(_SCHEMA)
        connection.close()
        with contextlib.suppress(FileExistsError):  # another worker's is as good
            os.link(draft, path)
    finally:
        os.unlink(draft)


def _check_file(path: str) -> None:
    # Not opened to be looked at: closing it again would drop the locks that this process may hold
    # on it by another gate (POSIX advisory locks belong to the process).
    found = os.lstat(path)
    if not stat.S_ISREG(found.st_mode):
        raise _unusable(path, "is not a regular file")
    if found.st_uid != os.geteuid():
        raise _unusable(path, "belongs to another user")
    if found.st_mode & 0o077:
        raise _unusable(path, f"others can read or write it. Run: chmod 600 {shlex.quote(path)}")


def _parents(folder: str) -> Iterator[str]:
    folder = os.path.realpath(folder)
    while folder != (parent := os.path.dirname(folder)):
        yield parent
        folder = parent


def _unusable(path: str, text: str) -> ConfigError:
    return ConfigError([Problem(f"replay file {path}", text)])
