"""The replay stores in a file: real processes race for one digest, crash, fork and lock it."""

from __future__ import annotations

import contextlib
import os
import re
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from iam_auth_proxy.errors import ConfigError, Malformed, StoreUnavailable
from iam_auth_proxy.server.replay import ReplayStore, StoreFull, check_place, open_stores
from iam_auth_proxy.server.replay_file import ReplayFile


@pytest.fixture
def path(tmp_path: Path) -> str:
    folder = tmp_path / "replay % ? # é"
    folder.mkdir(mode=0o700)
    return str(folder / "spent.db")


@pytest.fixture
def file(path: str) -> Iterator[ReplayFile]:
    file = ReplayFile(path, patience=0.05, limit=3)
    yield file
    file.close()


@pytest.fixture
def store(file: ReplayFile) -> ReplayStore:
    return file.store("proofs")


def test_once(store: ReplayStore) -> None:
    assert not store.seen(b"a", 0)
    assert store.spend(b"a", until=10, now=0)
    assert store.seen(b"a", 9)
    assert not store.spend(b"a", until=20, now=9)
    assert not store.seen(b"a", 10)
    assert store.spend(b"a", until=20, now=10)


def test_the_stores_of_a_file_are_apart(file: ReplayFile) -> None:
    assert file.store("proofs").spend(b"a", until=10, now=0)
    assert file.store("tries").spend(b"a", until=10, now=0)
    assert not file.store("sessions").seen(b"a", 0)


def test_it_is_bounded_and_refuses_rather_than_forgets(file: ReplayFile) -> None:
    store = file.store("proofs")
    for digest, until in ((b"a", 10), (b"b", 20), (b"c", 30)):
        assert store.spend(digest, until=until, now=0)
    with pytest.raises(StoreFull):
        store.spend(b"d", until=30, now=0)
    assert file.store("tries").spend(b"d", until=30, now=0)
    assert store.spend(b"d", until=30, now=10)
    assert len(store) == 3
    with pytest.raises(StoreFull):
        store.spend(b"e", until=30, now=10)


def test_a_clock_that_is_set_back_makes_nothing_good_again(store: ReplayStore) -> None:
    assert store.spend(b"a", until=300, now=0)
    assert store.spend(b"b", until=90_300, now=90_000)  # a day ahead: "a" is forgotten
    assert not store.spend(b"a", until=300, now=1)
    assert store.spend(b"c", until=301, now=1)


def test_it_survives_a_crash(path: str) -> None:
    """Of a process that is gone without closing anything."""
    code = (
        "import os, sys; from iam_auth_proxy.server.replay_file import ReplayFile\n"
        "assert ReplayFile(sys.argv[1]).store('proofs').spend(b'a', 10, 0); os._exit(9)"
    )
    done = subprocess.run([sys.executable, "-c", code, path], check=False)
    assert done.returncode == 9
    file = ReplayFile(path)
    assert not file.store("proofs").spend(b"a", until=10, now=1)
    file.close()


RACER = """
import sys
from iam_auth_proxy.server.replay_file import ReplayFile
print("ready", flush=True)
sys.stdin.readline()
store = ReplayFile(sys.argv[1], patience=30).store("proofs")
print(sum(store.spend(b"%d" % number, 10, 0) for number in range(40)), flush=True)
"""


def test_of_many_processes_one_wins(path: str) -> None:
    """They also create the file at once, which is what workers do that start together."""
    racers = [
        subprocess.Popen(
            [sys.executable, "-c", RACER, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        for _ in range(6)
    ]
    for racer in racers:
        assert racer.stdout is not None
        assert racer.stdout.readline() == b"ready\n"
    for racer in racers:
        assert racer.stdin is not None
        racer.stdin.write(b"\n")
        racer.stdin.flush()
    won = [int(racer.communicate(timeout=60)[0]) for racer in racers]
    assert sum(won) == 40
    assert all(racer.returncode == 0 for racer in racers)


def test_after_a_fork_both_go_on(file: ReplayFile) -> None:
    """A server that handles requests before it forks its workers."""
    store = file.store("proofs")
    assert store.spend(b"parent", until=10, now=0)
    inherited = file._opened
    child = os.fork()
    if child == 0:
        try:
            good = store.spend(b"child", until=10, now=0) and store.seen(b"parent", 0)
            good = good and inherited is not file._opened  # SQLite: never use, never close it
        finally:
            os._exit(0 if good else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert not store.spend(b"child", until=10, now=0)


def test_a_fork_that_closes_it_lets_go_of_its_own_alone(file: ReplayFile) -> None:
    store = file.store("proofs")
    assert store.spend(b"parent", until=10, now=0)
    inherited = file._opened
    assert inherited is not None
    child = os.fork()
    if child == 0:
        good = False
        try:
            file.close()
            inherited.reader.execute("SELECT 1")  # raises where it was closed
            good = store.seen(b"parent", 0)
        finally:
            os._exit(0 if good else 1)
    assert os.waitpid(child, 0)[1] == 0


def test_closed_it_is_opened_again_by_its_next_use(file: ReplayFile) -> None:
    store = file.store("proofs")
    for spent in (True, False):
        assert store.spend(b"a", until=10, now=0) is spent
        assert open_here(file.path)
        file.close()
        assert not open_here(file.path)
    file.close()


def open_here(path: str) -> list[str]:
    """What this process has open of it: the file, and SQLite's own beside it."""
    found = []
    for descriptor in os.listdir("/proc/self/fd"):
        with contextlib.suppress(FileNotFoundError):
            found.append(os.readlink(f"/proc/self/fd/{descriptor}"))
    return [one for one in found if one.startswith(path)]


def test_a_locked_file_is_an_outage_and_not_an_acceptance(file: ReplayFile) -> None:
    store = file.store("proofs")
    other = sqlite3.connect(file.path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(StoreUnavailable, match=r"spent\.db cannot be used: database is locked"):
        store.spend(b"a", until=10, now=0)
    assert not store.seen(b"a", 0)  # readers do not wait
    other.execute("ROLLBACK")
    other.close()
    assert store.spend(b"a", until=10, now=0)


def test_a_file_that_is_gone_or_broken_is_an_outage(file: ReplayFile) -> None:
    assert file.store("proofs").spend(b"a", until=10, now=0)
    file.close()
    Path(file.path).write_bytes(b"not a database" * 100)
    with pytest.raises(StoreUnavailable):
        file.store("proofs").spend(b"a", until=10, now=0)
    Path(file.path).unlink()
    with pytest.raises(StoreUnavailable):
        file.store("proofs").seen(b"a", 0)
    assert not Path(file.path).exists()


def test_a_failure_in_the_middle_leaves_nothing_behind(file: ReplayFile) -> None:
    class OnPurpose(Exception):
        pass

    def fail() -> None:
        with file.writer() as database:
            database.execute("INSERT INTO spent VALUES ('proofs', x'61', 10)")
            raise OnPurpose

    with pytest.raises(OnPurpose):
        fail()
    assert file.store("proofs").spend(b"a", until=10, now=0)


def test_everything_is_for_its_user_alone(file: ReplayFile) -> None:
    file.store("proofs").spend(b"a", until=10, now=0)
    names = os.listdir(os.path.dirname(file.path))
    assert sorted(names) == ["spent.db", "spent.db-shm", "spent.db-wal"]
    for name in names:
        mode = os.stat(os.path.join(os.path.dirname(file.path), name)).st_mode
        assert stat.S_IMODE(mode) == 0o600


@pytest.mark.parametrize("mode", [0o777, 0o770, 0o707])
def test_a_directory_that_others_can_write_is_refused(path: str, mode: int) -> None:
    folder = Path(path).parent
    folder.chmod(mode)
    with pytest.raises(ConfigError, match=rf"others .*Run: chmod go-w '{re.escape(str(folder))}'"):
        ReplayFile(path)
    folder.chmod(0o700)
    folder.parent.chmod(0o777)
    with pytest.raises(ConfigError, match="everybody can write to"):
        ReplayFile(path)


@pytest.mark.parametrize(
    ("above", "mode", "of_others"),
    [(0, 0o1777, False), (0, 0o777, True), (0, 0o755, True), (1, 0o777, True)],
)
def test_a_directory_that_is_shared_stays_as_it_is(
    path: str, monkeypatch: pytest.MonkeyPatch, above: int, mode: int, of_others: bool
) -> None:
    """What depends on /tmp, or on a directory of somebody else's, would break by a chmod."""
    folder = Path(path).parents[above]
    folder.chmod(mode)
    real = os.stat

    def stat_of(name: str) -> os.stat_result:
        found = real(name)
        owner = os.geteuid() + 1 if of_others and name == str(folder) else found.st_uid
        return os.stat_result((*found[:4], owner, *found[5:]))

    with monkeypatch.context() as patched:
        patched.setattr(os, "stat", stat_of)
        with pytest.raises(ConfigError, match=r"install -d -m 0700 -o \d+ /var/") as refused:
            ReplayFile(path)
    assert "chmod" not in str(refused.value)


def test_a_file_that_is_not_ours_alone_is_refused(path: str, tmp_path: Path) -> None:
    Path(path).touch(0o644)
    os.chmod(path, 0o640)
    with pytest.raises(ConfigError, match="chmod 600"):
        ReplayFile(path)
    Path(path).unlink()
    (tmp_path / "elsewhere").touch(0o600)
    os.symlink(tmp_path / "elsewhere", path)
    with pytest.raises(ConfigError, match="not a regular file"):
        ReplayFile(path)
    Path(path).unlink()
    os.mkfifo(path, 0o600)
    with pytest.raises(ConfigError, match="not a regular file"):
        ReplayFile(path)


def test_another_users_file_or_directory_is_refused(
    path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    ReplayFile(path)
    owner = os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: owner + 1)
    with pytest.raises(ConfigError, match="belongs to another user"):
        ReplayFile(path)


def test_what_cannot_be_opened_is_said_at_start(tmp_path: Path, path: str) -> None:
    with pytest.raises(ConfigError, match=r"cannot be used: .*No such file"):
        ReplayFile(str(tmp_path / "none" / "spent.db"))
    Path(path).write_bytes(b"not a database" * 100)
    os.chmod(path, 0o600)
    with pytest.raises(ConfigError, match="cannot be used: file is not a database"):
        ReplayFile(path)


@pytest.mark.parametrize("place", ["", "Memory", "file:", "file:x", "file:/a\nb", "redis://x"])
def test_other_places(place: str) -> None:
    with pytest.raises(Malformed):
        check_place(place)


def test_places(path: str) -> None:
    for place in ("memory", f"file:{path}"):
        stores = open_stores(check_place(place))
        assert stores.proofs.spend(b"a", until=10, now=0)
        assert stores.sessions.spend(b"a", until=10, now=0)
        assert not stores.proofs.spend(b"a", until=10, now=0)
        stores.close()
