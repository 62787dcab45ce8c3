"""A folder as an object store: rights, room, locks, and what killed writers leave."""

from __future__ import annotations

import errno
import io
import os
import threading
from pathlib import Path
from typing import Any

import pytest

from iam_auth_proxy import files
from iam_auth_proxy.errors import (
    ConfigError,
    Malformed,
    NoSuchObject,
    ObjectChanged,
    StoreUnavailable,
)
from iam_auth_proxy.keys import folder
from iam_auth_proxy.keys.folder import FolderObjects


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "store"


@pytest.fixture
def objects(root: Path) -> FolderObjects:
    return FolderObjects(root)


def read(objects: FolderObjects, key: str) -> bytes:
    with objects.read(key).body as body:
        return body.read()


def left(root: Path) -> list[str]:
    return sorted(path.name for path in root.rglob("*") if path.is_file())


def test_create_replace_delete(objects: FolderObjects, root: Path) -> None:
    assert objects.keys("") == []
    with pytest.raises(NoSuchObject):
        objects.read("a/b")
    objects.delete("a/b")
    objects.create("a/b", io.BytesIO(b"one"))
    with pytest.raises(ObjectChanged):
        objects.create("a/b", io.BytesIO(b"two"))
    stored = objects.read("a/b")
    stored.body.close()
    tag = stored.tag
    objects.replace("a/b", io.BytesIO(b"two"), tag)
    with pytest.raises(ObjectChanged):
        objects.replace("a/b", io.BytesIO(b"three"), tag)
    with pytest.raises(ObjectChanged):
        objects.replace("none", io.BytesIO(b"three"), tag)
    assert read(objects, "a/b") == b"two"
    part = objects.read("a/b", 2)
    with part.body:
        assert (part.body.read(), part.size) == (b"tw", 3)
    objects.create("a/c", io.BytesIO(b""))
    assert objects.keys("a/") == ["a/b", "a/c"]
    objects.delete("a/b")
    objects.delete("a/b")
    assert left(root) == [".lock", "c"]
    with pytest.raises(NoSuchObject):
        objects.read("a")  # a folder
    with pytest.raises(NoSuchObject):
        objects.read("a/c/d")


def test_nobody_else_may_read(objects: FolderObjects, root: Path) -> None:
    before = os.umask(0)
    try:
        objects.create("a/b/c", io.BytesIO(b"x"))
    finally:
        os.umask(before)
    modes = {path.name: path.stat().st_mode & 0o777 for path in [root, *root.rglob("*")]}
    assert modes == {"store": 0o700, "a": 0o700, "b": 0o700, "c": 0o600, ".lock": 0o600}


def test_a_folder_that_others_may_write_to(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root.mkdir()
    root.chmod(0o770)
    with pytest.raises(ConfigError, match="chmod go-w"):
        FolderObjects(root)
    root.chmod(0o755)
    FolderObjects(root)
    (root / "file").touch()
    with pytest.raises(ConfigError, match="not a folder"):
        FolderObjects(root / "file")
    os.chown(root, 12345, -1) if os.getuid() == 0 else monkeypatch.setattr(os, "getuid", lambda: 7)
    with pytest.raises(ConfigError, match="somebody else's"):
        FolderObjects(root)


def test_keys_lead_nowhere_else(objects: FolderObjects, root: Path, tmp_path: Path) -> None:
    (tmp_path / "outside").write_text("outside")
    for key in ("../outside", "/etc/passwd", "a//b", "", ".lock", "a/.b", "a\0b"):
        with pytest.raises(Malformed):
            objects.read(key)
        with pytest.raises(Malformed):
            objects.create(key, io.BytesIO(b"x"))
        with pytest.raises(Malformed):
            objects.delete(key)
    root.mkdir()
    (root / "link").symlink_to(tmp_path / "outside")
    with pytest.raises(StoreUnavailable):
        objects.read("link")


@pytest.mark.parametrize("step", ["fsync", "replace", "open", "mkdir"])
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO, errno.EROFS, errno.EACCES])
def test_a_disk_that_fails(
    objects: FolderObjects, root: Path, monkeypatch: pytest.MonkeyPatch, step: str, code: int
) -> None:
    """Nothing is written, nothing is left, and what was there is still there."""
    objects.create("a/b", io.BytesIO(b"one"))
    real = getattr(os, step)

    def fail(path: Any, *args: Any, **more: Any) -> Any:
        if step == "open" and "writing-" not in str(path):
            return real(path, *args, **more)
        raise OSError(code, os.strerror(code), "somewhere")

    with monkeypatch.context() as patch:
        patch.setattr(os, step, fail)
        with pytest.raises(StoreUnavailable) as caught:
            objects.create("new/b", io.BytesIO(b"two"))
    assert os.strerror(code) in str(caught.value)
    assert caught.value.exit_status == 6
    assert read(objects, "a/b") == b"one"
    assert objects.keys("") == ["a/b"]
    assert left(root) == [".lock", "b"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
def test_a_full_disk_is_found_out_while_writing(
    objects: FolderObjects, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The real error, of a real write: /dev/full has no room."""
    real = os.open

    def full(path: Any, flags: int, *args: Any, **more: Any) -> int:
        at_full = "writing-" in str(path) and flags & os.O_CREAT
        return real("/dev/full", os.O_WRONLY) if at_full else real(path, flags, *args, **more)

    monkeypatch.setattr(os, "open", full)
    with pytest.raises(StoreUnavailable, match="No space left"):
        objects.create("a", io.BytesIO(bytes(3 << 20)))
    monkeypatch.undo()
    assert objects.keys("") == []


def test_no_room_for_a_spool(objects: FolderObjects, monkeypatch: pytest.MonkeyPatch) -> None:
    objects.create("a", io.BytesIO(bytes(3 << 20)))

    class Full(io.BytesIO):
        def write(self, data: Any, /) -> int:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(folder, "spool", Full)
    with pytest.raises(StoreUnavailable, match="No space left") as caught:
        objects.read("a")
    assert "TMPDIR" in caught.value.remedy


def test_what_a_killed_writer_left_is_swept_up(objects: FolderObjects, root: Path) -> None:
    objects.create("a/b", io.BytesIO(b"one"))
    (root / "a" / ".writing-0123").write_bytes(b"half")
    assert objects.keys("") == ["a/b"]
    objects.create("a/c", io.BytesIO(b"two"))
    assert left(root) == [".lock", "b", "c"]


def test_what_a_living_writer_writes_is_not(objects: FolderObjects, root: Path) -> None:
    began, go_on = threading.Event(), threading.Event()

    class Slow(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            began.set()
            assert go_on.wait(10)
            return super().read(size)

    writer = threading.Thread(target=objects.create, args=("a/slow", Slow(b"slow")))
    writer.start()
    assert began.wait(10)
    objects.create("a/fast", io.BytesIO(b"fast"))  # is not held up, either
    assert read(objects, "a/fast") == b"fast"
    go_on.set()
    writer.join(10)
    assert read(objects, "a/slow") == b"slow"
    assert left(root) == [".lock", "fast", "slow"]


def test_of_many_writers_one_creates(objects: FolderObjects) -> None:
    done: list[int] = []
    start = threading.Barrier(8)

    def create(number: int) -> None:
        start.wait(10)
        try:
            objects.create("a", io.BytesIO(b"%d" % number))
        except ObjectChanged:
            return
        done.append(number)

    threads = [threading.Thread(target=create, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert len(done) == 1
    assert read(objects, "a") == b"%d" % done[0]


def test_a_lock_that_is_held_for_too_long(
    objects: FolderObjects, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    objects.create("a", io.BytesIO(b"one"))
    monkeypatch.setattr(files, "LOCK_WAIT", 0.05)
    with files.locked(root / ".lock"), pytest.raises(StoreUnavailable, match="locked"):
        objects.create("b", io.BytesIO(b"two"))
