"""A key ring in a store: changed by compare-and-swap, and destroyed when it is time."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Any

import pytest

from iam_auth_proxy.errors import (
    AwsUnavailable,
    NoSuchKey,
    NoSuchSecret,
    RecordUnusable,
    VersionConflict,
)
from iam_auth_proxy.keys.ringstore import RingStore, Stored
from iam_auth_proxy.keys.secrets import SecretStore
from iam_auth_proxy.protocol.lifecycle import Policy, State
from tests.keys.conftest import NOW
from tests.support.memory_store import KEY, MemoryKms, MemoryObjects

POLICY = Policy()
DESTROYED = POLICY.propagation + POLICY.overlap + POLICY.skew + 1


@pytest.fixture
def objects() -> MemoryObjects:
    return MemoryObjects()


@pytest.fixture
def secrets(objects: MemoryObjects) -> SecretStore:
    return SecretStore(objects, MemoryKms(), [KEY], "s3://bucket/prefix")


@pytest.fixture
def rings(secrets: SecretStore) -> RingStore:
    return RingStore(secrets, "ring")


def meanwhile(rings: RingStore, do: Callable[[], object]) -> None:
    """Have somebody else do that between the reading and the writing of the next change."""
    put: Any = rings._store.put

    def racing(*args: object, **more: object) -> object:
        object.__setattr__(rings._store, "put", put)  # once
        do()
        return put(*args, **more)

    object.__setattr__(rings._store, "put", racing)


def before_writing(objects: MemoryObjects, do: Callable[[], object]) -> None:
    """The same at the last moment: the store has seen by then that the number is free."""
    create = objects.create

    def racing(key: str, body: Any) -> None:
        object.__setattr__(objects, "create", create)  # once
        do()
        create(key, body)

    object.__setattr__(objects, "create", racing)


class TestOnAStore:
    """The real store, in a folder and in S3."""

    def test_its_whole_life(self, store: SecretStore) -> None:
        rings = RingStore(store, "ring")
        assert rings.latest() == 0
        created = rings.create(POLICY, NOW)
        assert (created.number, created.changed) == (1, True)
        assert rings.load() == Stored(created.ring, 1)
        first = created.ring.versions[0].id
        rotated = rings.rotate(NOW + 10)
        assert (rotated.number, rotated.changed, rotated.raced) == (2, True, False)
        assert rings.load().ring == rotated.ring
        again = rings.rotate(NOW + 20)
        assert (again.number, again.changed) == (2, False)
        disabled = rings.disable([first], NOW + 30).ring
        assert disabled.versions[0].material is None
        assert disabled.state(disabled.versions[1], NOW + 30) is State.PRIMARY
        imported = rings.imported(b"s" * 40, "a salt", NOW + 40, 3600)
        assert rings.load() == Stored(imported.ring, 4)
        assert [each.version for each in store.history("ring")] == [4]

    def test_its_place(self, store: SecretStore) -> None:
        assert RingStore(store, "ring").place == "s3://bucket/prefix/ring"


class TestRacing:
    def test_two_rotations_are_one(self, rings: RingStore) -> None:
        rings.create(POLICY, NOW)
        meanwhile(rings, lambda: rings.rotate(NOW))
        lost = rings.rotate(NOW)
        assert (lost.number, lost.changed, lost.raced) == (2, False, True)
        assert len(lost.ring.versions) == 2

    def test_both_changes_are_made(self, rings: RingStore) -> None:
        rings.create(POLICY, NOW)
        meanwhile(rings, lambda: rings.imported(b"s" * 40, "", NOW, 3600))
        rotated = rings.rotate(NOW)
        assert (rotated.number, rotated.changed, rotated.raced) == (3, True, True)
        assert len(rotated.ring.versions) == 3

    @pytest.mark.parametrize("change", ["rotate", "disable", "import", "policy"])
    def test_a_number_that_is_free_again(
        self, rings: RingStore, objects: MemoryObjects, change: str
    ) -> None:
        """Others took it, went on, and removed it for the key that it held: so is what is written
        under it, which nobody would ever read."""
        rings.create(POLICY, NOW)
        first = rings.load().ring.versions[0].id
        rings.imported(b"s" * 40, "", NOW, 3600)
        secret = rings.load().ring.versions[1].id

        def others() -> None:
            rings.change_policy({"outage": 50}, NOW)
            rings.disable([secret], NOW)
            assert len(objects.stored) == 1

        before_writing(objects, others)
        made = {
            "rotate": lambda: rings.rotate(NOW),
            "disable": lambda: rings.disable([first, secret], NOW),
            "import": lambda: rings.imported(b"t" * 40, "", NOW, 3600),
            "policy": lambda: rings.change_policy({"skew": 5}, NOW),
        }[change]()
        assert (made.number, made.changed, made.raced) == (5, True, True)
        assert len(objects.stored) == 1
        ring = rings.load().ring
        assert ring == made.ring
        assert (ring.policy.outage, ring.get(secret).material) == (50, None)
        assert {
            "rotate": ring.pending(NOW) is not None,
            "disable": ring.get(first).material is None,
            "import": len(ring.versions) == 3,
            "policy": ring.policy.skew == 5,
        }[change]

    @pytest.mark.parametrize("change", ["rotate", "disable"])
    def test_who_is_followed_at_once_has_made_his_change(
        self, rings: RingStore, change: str
    ) -> None:
        """It looks the same, and is not made twice."""
        rings.create(POLICY, NOW)
        first = rings.load().ring.versions[0].id
        latest, asked = rings.latest, iter(range(9))

        def followed() -> int:
            if next(asked) == 1:  # after the writing
                object.__setattr__(rings, "latest", latest)
                rings.imported(b"s" * 40, "", NOW, 3600)
            return latest()

        object.__setattr__(rings, "latest", followed)
        made = rings.rotate(NOW) if change == "rotate" else rings.disable([first], NOW)
        assert (made.number, made.changed, made.raced) == (3, True, True)
        assert len(made.ring.versions) == 3
        assert rings.load().ring == made.ring

    def test_two_who_begin(self, rings: RingStore) -> None:
        meanwhile(rings, lambda: rings.create(POLICY, NOW))
        with pytest.raises(VersionConflict):
            rings.create(POLICY, NOW)
        assert rings.load().number == 1

    def test_threads(self, rings: RingStore) -> None:
        """Each of them disables a version that it imported: nothing is lost, nothing twice."""
        rings.create(POLICY, NOW)
        problems: list[Exception] = []

        def work(number: int) -> None:
            try:
                rings.imported(str(number).rjust(40, "s").encode(), "", NOW, 3600)
            except Exception as error:  # noqa: BLE001  # looked at below
                problems.append(error)

        threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not problems
        assert (rings.load().number, len(rings.load().ring.versions)) == (7, 7)

    def test_who_always_loses_gives_up(self, rings: RingStore) -> None:
        rings.create(POLICY, NOW)
        count = iter(range(100))

        def other() -> None:
            rings.imported(str(next(count)).rjust(40, "s").encode(), "", NOW, 3600)
            meanwhile(rings, other)

        meanwhile(rings, other)
        with pytest.raises(VersionConflict, match="8 times"):
            rings.rotate(NOW)

    def test_a_record_that_is_removed_while_it_is_read(
        self, rings: RingStore, secrets: SecretStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        rings.create(POLICY, NOW)
        get = secrets.get

        def late(name: str, version: int | None = None) -> object:
            monkeypatch.setattr(secrets, "get", get)
            rings.rotate(NOW)
            secrets.forget("ring", 2)
            return get(name, version)

        monkeypatch.setattr(secrets, "get", late)
        assert rings.load().number == 2


class TestDestruction:
    def test_earlier_records_go_with_it(self, rings: RingStore, objects: MemoryObjects) -> None:
        """They hold the material still."""
        rings.create(POLICY, NOW)
        rings.rotate(NOW)
        assert len(objects.stored) == 2
        rings.rotate(NOW + DESTROYED)
        assert list(objects.stored) == ["ring/@00000003"]
        first = rings.load().ring.versions[0]
        assert first.material is None

    def test_they_stay_where_nothing_is_destroyed(
        self, rings: RingStore, objects: MemoryObjects
    ) -> None:
        rings.create(POLICY, NOW)
        rings.rotate(NOW)
        rings.imported(b"s" * 40, "", NOW, 3600)
        assert len(objects.stored) == 3

    def test_who_was_killed_before_that_left_them_to_the_next(
        self, rings: RingStore, objects: MemoryObjects, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        lost = rings.create(POLICY, NOW).ring.versions[0].id
        with monkeypatch.context() as patch:
            patch.setattr(RingStore, "_forget", lambda self, number: None)
            rings.disable([lost], NOW)
        assert len(objects.stored) == 2
        rings.rotate(NOW)
        assert list(objects.stored) == ["ring/@00000003"]

    def test_that_it_cannot_be_is_said(
        self,
        rings: RingStore,
        objects: MemoryObjects,
        monkeypatch: pytest.MonkeyPatch,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        created = rings.create(POLICY, NOW)

        def denied(key: str) -> None:
            raise AwsUnavailable("no delete today")

        monkeypatch.setattr(objects, "delete", denied)
        with caplog.at_level(logging.WARNING):
            assert rings.disable([created.ring.versions[0].id], NOW).number == 2
        assert "before version 2" in caplog.text
        assert "no delete today" in caplog.text


class TestRefusals:
    def test_none_there(self, rings: RingStore, secrets: SecretStore) -> None:
        for call in (rings.load, lambda: rings.rotate(NOW), lambda: rings.disable(["ab"], NOW)):
            with pytest.raises(NoSuchSecret) as caught:
                call()
            assert "keyring new s3://bucket/prefix/ring" in caught.value.remedy
        rings.create(POLICY, NOW)
        secrets.delete("ring", now=NOW)
        with pytest.raises(NoSuchSecret, match="no key ring"):
            rings.load()
        assert rings.create(POLICY, NOW).number == 3

    def test_one_there(self, rings: RingStore) -> None:
        rings.create(POLICY, NOW)
        with pytest.raises(VersionConflict) as caught:
            rings.create(POLICY, NOW)
        assert "keyring list" in caught.value.remedy

    def test_no_ring(self, rings: RingStore, secrets: SecretStore) -> None:
        secrets.put("ring", b"a password", now=NOW)
        with pytest.raises(RecordUnusable) as caught:
            rings.load()
        assert "not a key ring" in caught.value.public
        assert "password" not in str(caught.value)

    def test_no_such_version(self, rings: RingStore) -> None:
        rings.create(POLICY, NOW)
        with pytest.raises(NoSuchKey):
            rings.disable(["ab"], NOW)
        assert rings.latest() == 1

    def test_nothing_is_written_before_it_is_due(self, rings: RingStore) -> None:
        due = rings.create(POLICY, NOW).ring.next_rotation
        assert not rings.rotate(due - 1, if_due=True).changed
        assert rings.rotate(due, if_due=True).changed
