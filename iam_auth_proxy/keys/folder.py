"""A local folder as :class:`~iam_auth_proxy.aws.base.ObjectStore`.

Files are 0600 in folders of 0700. A write goes to a temporary file, which is synced and then
renamed under the folder's lock: whoever is killed in between leaves the old state or the new one,
and at most a temporary file, which the next writer sweeps up. The lock is the kernel's and the
folder's own, so this is for the processes of one machine.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Final

from iam_auth_proxy.aws.base import StoredObject
from iam_auth_proxy.errors import (
    ConfigError,
    Malformed,
    NoSuchObject,
    ObjectChanged,
    Problem,
    StoreUnavailable,
)
from iam_auth_proxy.files import locked, no_room, spool, sync_folder

_LOCK: Final = ".lock"
_TEMPORARY: Final = ".writing-"
_CHUNK: Final = 1 << 20
_OPEN: Final = os.O_CLOEXEC | getattr(os, "O_NOFOLLOW", 0)


class FolderObjects:
    """The objects of a folder; it is made at the first write.

    :raises ConfigError: it is no folder, or somebody else could write into it.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        _check_root(root)

    def read(self, key: str, at_most: int | None = None) -> StoredObject:
        body = spool()
        try:
            size, tag = self._copy(self._path(key), body, at_most)
        except (FileNotFoundError, NotADirectoryError) as error:
            body.close()
            raise NoSuchObject(key) from error
        except BaseException:
            body.close()
            raise
        body.seek(0)
        return StoredObject(body, size, tag)

    def create(self, key: str, body: BinaryIO) -> None:
        self._write(key, body, None)

    def replace(self, key: str, body: BinaryIO, tag: str) -> None:
        self._write(key, body, tag)

    def delete(self, key: str) -> None:
        path = self._path(key)
        with self._exclusive():
            try:
                path.unlink(missing_ok=True)
                sync_folder(path.parent)
            except FileNotFoundError:
                return  # not even its folder
            except OSError as error:
                raise _failed(path, error) from error

    def keys(self, prefix: str) -> list[str]:
        found: list[str] = []

        def fail(error: OSError) -> None:
            if not isinstance(error, FileNotFoundError | NotADirectoryError):
                raise _failed(self._root, error) from error

        above = prefix.rpartition("/")[0]
        top = self._path(above) if above else self._root
        for folder, folders, names in os.walk(top, onerror=fail):
            folders[:] = [name for name in folders if not name.startswith(".")]
            place = Path(folder).relative_to(self._root).as_posix()
            start = "" if place == "." else f"{place}/"
            found += [start + name for name in names if not name.startswith(".")]
        return sorted(
            (key for key in found if key.startswith(prefix)), key=lambda key: key.encode()
        )

    # -- steps -------------------------------------------------------------------------------------

    def _path(self, key: str) -> Path:
        """Where an object lives; a name never leads out of the root.

        :raises Malformed: a part of the key is empty, or begins with a dot.
        """
        parts = key.split("/")
        if any(not part or part.startswith(".") or "\0" in part for part in parts):
            raise Malformed(f"{key!r} is no key of an object")
        return self._root.joinpath(*parts)

    def _copy(self, path: Path, into: BinaryIO, at_most: int | None) -> tuple[int, str]:
        """The file into ``into``; its size and tag, which for a part of it says nothing."""
        try:
            descriptor = os.open(path, os.O_RDONLY | _OPEN)
        except (FileNotFoundError, NotADirectoryError):
            raise
        except OSError as error:
            raise _failed(path, error) from error
        digest = hashlib.sha256()
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            raise FileNotFoundError(path)
        with os.fdopen(descriptor, "rb") as file:
            size = os.fstat(descriptor).st_size
            left = size if at_most is None else min(at_most, size)
            while left > 0:
                try:
                    chunk = file.read(min(left, _CHUNK))
                except OSError as error:
                    raise _failed(path, error) from error
                if not chunk:
                    break
                digest.update(chunk)
                left -= len(chunk)
                try:
                    into.write(chunk)
                except OSError as error:
                    raise no_room(error) from error
        return size, digest.hexdigest()

    def _write(self, key: str, body: BinaryIO, tag: str | None) -> None:
        path = self._path(key)
        try:
            self._make_folders(path.parent)
            with self._temporary(path.parent, body) as fresh, self._exclusive():
                if self._tag(path) != tag:
                    raise ObjectChanged(key)
                os.replace(fresh, path)
                sync_folder(path.parent)
        except OSError as error:
            raise _failed(path, error) from error

    def _tag(self, path: Path) -> str | None:
        body = spool()
        try:
            return self._copy(path, body, None)[1]
        except FileNotFoundError:
            return None
        finally:
            body.close()

    def _make_folders(self, folder: Path) -> None:
        """Down to ``folder``, each 0700 and synced: a file is lost with a folder that is lost."""
        missing = [each for each in (folder, *folder.parents) if not each.exists()]
        for each in reversed(missing):
            each.mkdir(mode=0o700, exist_ok=True)
            sync_folder(each.parent)

    @contextlib.contextmanager
    def _temporary(self, folder: Path, body: BinaryIO) -> Iterator[Path]:
        """``body`` in a file beside its place, synced; removed at the end if it is still there.

        It is held locked for as long as it is written, which tells it from one whose writer died.
        """
        with self._exclusive():
            _sweep(folder)
            fresh = folder / f"{_TEMPORARY}{secrets.token_hex(8)}"
            descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | _OPEN, 0o600)
            held = _hold(descriptor)
        try:
            with os.fdopen(descriptor, "wb") as file:
                assert held  # nobody else knows its name yet
                body.seek(0)
                shutil.copyfileobj(body, file, _CHUNK)
                file.flush()
                os.fsync(file.fileno())
                yield fresh
        finally:
            fresh.unlink(missing_ok=True)

    @contextlib.contextmanager
    def _exclusive(self) -> Iterator[None]:
        with contextlib.ExitStack() as stack:
            try:
                self._make_folders(self._root)
                stack.enter_context(locked(self._root / _LOCK))
            except ConfigError as error:
                raise _busy(self._root) from error
            except OSError as error:
                raise _failed(self._root, error) from error
            yield


def _hold(descriptor: int) -> bool:
    """Lock a file for as long as it is open; False: somebody else holds it."""
    try:
        import fcntl
    except ImportError:  # Windows: there is no telling
        return True
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _sweep(folder: Path) -> None:
    """Remove what writers left that were killed. The folder's lock is held."""
    for path in folder.glob(f"{_TEMPORARY}*"):
        try:
            descriptor = os.open(path, os.O_RDONLY | _OPEN)
        except OSError:
            continue  # it is gone already
        try:
            if _hold(descriptor):
                path.unlink(missing_ok=True)
        finally:
            os.close(descriptor)


def _check_root(root: Path) -> None:
    try:
        facts = root.stat()
    except FileNotFoundError:
        return
    except OSError as error:
        raise _failed(root, error) from error
    if not stat.S_ISDIR(facts.st_mode):
        raise ConfigError([Problem(str(root), "the secret store is not a folder")])
    if hasattr(os, "getuid") and facts.st_uid not in {0, os.getuid()}:
        raise ConfigError([Problem(str(root), "the folder of the secret store is somebody else's")])
    if os.name == "posix" and facts.st_mode & 0o022:
        text = f"others may write into the secret store; run: chmod go-w {root}"
        raise ConfigError([Problem(str(root), text)])


def _failed(path: Path, error: OSError) -> StoreUnavailable:
    return StoreUnavailable(
        f"{path}: {error.strerror or error}",
        public="The secret store's folder cannot be read or written.",
        remedy="See to the disk (space, permissions), and try again.",
    )


def _busy(root: Path) -> StoreUnavailable:
    return StoreUnavailable(
        f"{root}: another process has held it locked for some time",
        public="Another process is writing to the secret store.",
        remedy="Try again in a few seconds.",
    )
