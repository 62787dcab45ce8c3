"""Writers that are killed (SIGKILL, real processes): the store is the old state or the new one."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from iam_auth_proxy.keys import build
from iam_auth_proxy.keys.ringstore import RingStore
from iam_auth_proxy.keys.secrets import SecretStore
from iam_auth_proxy.local_aws import LocalAws
from iam_auth_proxy.local_aws.resources import Key
from iam_auth_proxy.protocol.lifecycle import Policy
from tests.keys.conftest import NOW
from tests.support.killed import ROTATED_AT
from tests.support.processes import ROOT

OURS = ("keys/secrets.py", "keys/drafts.py", "keys/objects.py")
FOLDER = ("keys/folder.py", "iam_auth_proxy/files.py")
# http.client's lines are those between the head of a request, its body, and the answer.
S3 = (*OURS, "aws/objects.py", "http/client.py")


class Killer:
    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def __call__(self, number: int, what: str, name: str) -> bool:
        """Whether the child was killed at that line; False: it was done before."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{number} {what} {name}\n")
        self._process.stdin.flush()
        said = self._process.stdout.readline().strip()
        assert said in {"killed", "done"}, said
        return said == "killed"


@contextmanager
def killer(place: str, keys: str, modules: tuple[str, ...]) -> Iterator[Killer]:
    with subprocess.Popen(
        [sys.executable, "-m", "tests.support.killed", place, keys, *modules],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        yield Killer(process)
        assert process.stdin is not None
        process.stdin.close()


def kill_at_each_line(kill: Killer, store: SecretStore, step: int) -> tuple[int, int]:
    """How often the old version was left, and how often the new one."""
    old = new = 0
    for number in range(1, 5_000, step):
        # Of a secret of its own, since longer histories take more lines.
        name = f"s{number}-{step}/a"
        store.put(name, b"old", now=NOW)
        killed = kill(number, "PUT", name)
        after = store.get(name)
        if (after.version, after.value) == (1, b"old"):
            assert killed
            old += 1
        else:
            assert (after.version, after.value) == (2, b"new")
            new += 1
        assert [each.version for each in store.history(name)] == list(range(1, after.version + 1))
        assert store.put(name, b"next", now=NOW).version == after.version + 1
        if not killed:
            return old, new
    raise AssertionError("it is never done")


@pytest.mark.e2e
def test_a_put_into_a_folder(aws: LocalAws, key: Key, tmp_path: Path) -> None:
    place = str(tmp_path / "store")
    store = build.open_store(build.parse_place(place), [key.arn])
    with killer(place, key.arn, FOLDER) as kill:
        old, new = kill_at_each_line(kill, store, 1)
    assert old > 20
    assert new > 2
    with killer(place, key.arn, OURS) as kill:
        kill_at_each_line(kill, store, 17)
    # The next writer of a secret sweeps up what was left of it.
    assert not list((tmp_path / "store").rglob(".writing-*"))


@pytest.mark.e2e
def test_a_put_into_s3(aws: LocalAws, key: Key, bucket: Any) -> None:
    place = "s3://bucket/prefix"
    store = build.open_store(build.parse_place(place), [key.arn])
    with killer(place, key.arn, S3) as kill:
        # S3 changes at one request: some of the lines before it, during it and after it.
        old, new = kill_at_each_line(kill, store, 47)
    assert old > 20
    assert new > 2


@pytest.mark.e2e
def test_a_rewrap(aws: LocalAws, key: Key, tmp_path: Path) -> None:
    place = str(tmp_path / "store")
    other = aws.key()
    store = build.open_store(build.parse_place(place), [key.arn, other.arn])
    back = build.open_store(build.parse_place(place), [key.arn, other.arn])
    store.put("a", b"value", now=NOW)
    seen = set()
    with killer(place, f"{other.arn},{key.arn}", FOLDER) as kill:
        for number in range(1, 5_000, 3):  # it writes as a put does, which is killed at each line
            killed = kill(number, "REWRAP", "a")
            assert store.get("a").value == b"value"
            (version,) = store.history("a")
            seen.add(version.key)
            if not killed:
                break
            back.rewrap("a")
    assert seen == {key.arn, other.arn}


# -- rotations -------------------------------------------------------------------------------------

RING = ("keys/ringstore.py",)


def kill_rotations(kill: Killer, store: SecretStore, step: int, name: str) -> tuple[int, int]:
    """How often the old ring was left, and how often the new one; never neither, and no third.

    A rotation here destroys a version too, so that earlier records are removed after the writing.
    """
    old = new = 0
    policy = Policy()
    since = ROTATED_AT - 10 * policy.rotate_every
    for number in range(1, 20_000, step):
        rings = RingStore(store, f"{name}{number}/ring")
        rings.create(policy, since)
        before = rings.rotate(since + 10)
        killed = kill(number, "ROTATE", f"{name}{number}/ring")
        after = rings.load()
        primary = before.ring.at(ROTATED_AT).primary
        assert after.ring.at(ROTATED_AT).primary == primary
        if after.number == before.number:
            assert killed
            assert after.ring == before.ring
            old += 1
        else:
            assert after.number == before.number + 1
            first, second, third = after.ring.versions
            assert (first.material, second.key) == (None, primary)
            assert third == after.ring.pending(ROTATED_AT)
            new += 1
        # The next one goes on from there, and removes what held destroyed keys.
        following = rings.rotate(ROTATED_AT + policy.rotate_every)
        assert following.ring.versions[-1].created == ROTATED_AT + policy.rotate_every
        assert [each.version for each in store.history(f"{name}{number}/ring")] == [
            following.number
        ]
        if not killed:
            return old, new
    raise AssertionError("it is never done")


@pytest.mark.e2e
def test_a_rotation_in_a_folder(aws: LocalAws, key: Key, tmp_path: Path) -> None:
    place = str(tmp_path / "store")
    store = build.open_store(build.parse_place(place), [key.arn])
    with killer(place, key.arn, RING) as kill:
        old, new = kill_rotations(kill, store, 1, "a")
    assert old > 10
    assert new > 3
    with killer(place, key.arn, FOLDER) as kill:
        old, new = kill_rotations(kill, store, 19, "b")
    assert old > 5
    assert new > 3


@pytest.mark.e2e
def test_a_rotation_in_s3(aws: LocalAws, key: Key, bucket: Any) -> None:
    place = "s3://bucket/prefix"
    store = build.open_store(build.parse_place(place), [key.arn])
    with killer(place, key.arn, (*RING, *S3)) as kill:
        old, new = kill_rotations(kill, store, 331, "a")
    assert old > 5
    assert new > 3
