"""A ring under a running server: what is read when, and what stays while the store is down."""

from __future__ import annotations

import gc
import logging
import os
import threading
from collections.abc import Iterator

import pytest

from iam_auth_proxy.errors import NoSuchSecret, StoreUnavailable
from iam_auth_proxy.keys.live import REREAD_EVERY, LiveRings, WatchedRings
from iam_auth_proxy.keys.ringstore import RingStore
from iam_auth_proxy.protocol.keyring import Health, KeyRing, Rings
from iam_auth_proxy.protocol.lifecycle import Policy
from tests.keys.conftest import NOW
from tests.support.forking import in_a_child
from tests.support.memory_store import MemoryObjects, ring_store

POLICY = Policy(poll=30, read=10, skew=60, outage=600)
WAIT = 30.0


@pytest.fixture
def objects() -> MemoryObjects:
    return MemoryObjects()


@pytest.fixture
def store(objects: MemoryObjects) -> RingStore:
    return ring_store(objects)


@pytest.fixture
def live(store: RingStore) -> LiveRings:
    store.create(POLICY, NOW)
    return LiveRings(lambda: store, "ring")


def unknown_to(live: LiveRings, ring: KeyRing, now: float) -> bool:
    return live.at(now).get(ring.primary.id) is None


class TestReading:
    def test_nothing_before_the_first_reading(self, live: LiveRings) -> None:
        rings: Rings = live
        with pytest.raises(StoreUnavailable, match="not been read yet"):
            rings.at(NOW)
        assert not live.policy
        assert rings.health(NOW) == Health(False, 0.0, "The key ring has not been read yet.")
        assert rings.reread(NOW)
        assert rings.at(NOW).primary
        assert live.policy == POLICY
        assert rings.health(NOW) == Health(True, NOW)

    def test_at_asks_nobody(self, live: LiveRings, objects: MemoryObjects) -> None:
        live.poll(NOW)
        calls = objects.calls
        assert live.at(NOW) is live.at(NOW + 1)
        live.health(NOW)
        assert objects.calls == calls

    def test_a_poll_is_one_call(
        self, live: LiveRings, objects: MemoryObjects, store: RingStore
    ) -> None:
        live.poll(NOW)
        calls = objects.calls
        assert not live.poll(NOW + 30)
        assert objects.calls == calls + 1
        store.rotate(NOW)
        assert live.poll(NOW + 60)

    def test_what_holds_follows_the_clock(self, live: LiveRings, store: RingStore) -> None:
        live.poll(NOW)
        before = live.at(NOW).primary
        new = store.rotate(NOW).ring.versions[1]
        live.poll(NOW)
        assert live.at(NOW).primary == before
        assert live.at(NOW).get(new.id) is not None
        assert new.activates is not None
        assert live.at(new.activates).primary.id == new.id
        assert live.at(new.activates - 1).primary == before


class TestUnknownIds:
    def test_one_reading_for_all_of_them(
        self, live: LiveRings, objects: MemoryObjects, store: RingStore
    ) -> None:
        live.poll(NOW)
        calls = objects.calls
        assert not live.reread(NOW)
        for _ in range(50):
            assert not live.reread(NOW + REREAD_EVERY - 0.1)
        assert objects.calls == calls + 1
        store.rotate(NOW)
        assert live.reread(NOW + REREAD_EVERY)

    def test_a_poll_before_it_does_not_count(self, live: LiveRings, store: RingStore) -> None:
        live.poll(NOW)
        primary = live.at(NOW).primary.id
        ring = store.disable([primary], NOW).ring
        assert live.reread(NOW + 0.1)
        assert live.at(NOW + 0.1).get(primary) is None
        assert not unknown_to(live, ring.at(NOW), NOW)

    def test_a_clock_that_was_set_back(self, live: LiveRings, store: RingStore) -> None:
        live.reread(NOW)
        store.rotate(NOW)
        assert live.reread(NOW - 3600)

    def test_who_comes_meanwhile_waits_for_the_reading(
        self, live: LiveRings, store: RingStore
    ) -> None:
        live.poll(NOW)
        store.rotate(NOW)
        latest, entered, go = store.latest, threading.Event(), threading.Event()

        def slow() -> int:
            entered.set()
            assert go.wait(WAIT)
            return latest()

        object.__setattr__(store, "latest", slow)
        found: list[bool] = []
        threads = [
            threading.Thread(target=lambda: found.append(live.reread(NOW))) for _ in range(4)
        ]
        for thread in threads:
            thread.start()
        assert entered.wait(WAIT)
        go.set()
        for thread in threads:
            thread.join()
        # Who came after it was read finds it in the ring, and then there is nothing to read.
        assert True in found
        assert store.load().number == 2


class TestTheStoreIsDown:
    def test_the_last_good_ring_stays(
        self, live: LiveRings, objects: MemoryObjects, caplog: pytest.LogCaptureFixture
    ) -> None:
        live.poll(NOW)
        ring, objects.down = live.at(NOW), True
        with caplog.at_level(logging.INFO):
            for second in range(0, 90, 30):
                assert not live.poll(NOW + 30 + second)
                assert not live.reread(NOW + 30 + second)
        assert live.at(NOW + 90) is ring
        health = live.health(NOW + 90)
        assert (health.ok, health.read_at) == (False, NOW)
        assert health.problem == (
            "The key ring cannot be read: AWS did not answer. "
            "It was last read at 2026-09-21T14:13:20Z."
        )
        assert len(caplog.records) == 1
        objects.down = False
        live.poll(NOW + 120)
        assert live.health(NOW + 120) == Health(True, NOW + 120)

    def test_from_the_start(self, live: LiveRings, objects: MemoryObjects) -> None:
        objects.down = True
        assert not live.reread(NOW)
        with pytest.raises(StoreUnavailable, match="AWS did not answer"):
            live.at(NOW)
        assert "AWS did not answer" in live.health(NOW).problem

    def test_nobody_reads(self, live: LiveRings) -> None:
        live.poll(NOW)
        assert live.health(NOW + 100).ok
        assert live.health(NOW + 101) == Health(
            False, NOW, "The key ring was last read at 2026-09-21T14:13:20Z."
        )

    def test_an_earlier_version_is_not_taken(
        self, live: LiveRings, objects: MemoryObjects, store: RingStore
    ) -> None:
        live.poll(NOW)
        lost = live.at(NOW).primary.id
        old = dict(objects.stored)
        store.disable([lost], NOW)
        live.poll(NOW)
        objects.stored = old
        assert not live.poll(NOW + 30)
        assert live.at(NOW + 30).get(lost) is None
        assert "set back" in live.health(NOW + 30).problem
        objects.stored = {}
        assert not live.poll(NOW + 60)
        assert live.at(NOW + 60).get(lost) is None
        assert "There is no such key ring" in live.health(NOW + 60).problem

    def test_what_is_made_of_an_earlier_version_is_not_taken(
        self,
        live: LiveRings,
        objects: MemoryObjects,
        store: RingStore,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        """Who rotates does not know that somebody set the store back, and gives new numbers."""
        lost = live.poll(NOW) and live.at(NOW).primary.id
        assert lost
        old = dict(objects.stored)
        store.disable([lost], NOW)
        live.poll(NOW)
        kept = live.at(NOW)
        objects.stored = old
        live.poll(NOW + 30)
        for step in range(2, 4):  # the number of what is held, and the next
            store.rotate(NOW + step * 10_000)
            assert not live.poll(NOW + step * 10_000)
            assert live.at(NOW + step * 10_000) == kept
            assert "that was disabled" in live.health(NOW + step * 10_000).problem
        assert f"keyring disable ring {lost} --kms-key" in caplog.text
        store.disable([lost], NOW + 40_000)
        assert live.poll(NOW + 40_000)
        assert live.health(NOW + 40_000).ok
        assert live.at(NOW + 40_000).primary.id == store.load().ring.primary(NOW + 40_000).id

    def test_another_version_of_the_same_number(
        self, live: LiveRings, objects: MemoryObjects, store: RingStore
    ) -> None:
        """Nothing was disabled; the store lost a rotation, and then somebody rotated."""
        live.poll(NOW)
        old = dict(objects.stored)
        store.rotate(NOW)
        live.poll(NOW)
        objects.stored = old
        assert not live.poll(NOW + 30)
        new = store.rotate(NOW + 40).ring.versions[-1]
        assert live.poll(NOW + 60)
        assert live.at(NOW + 60).get(new.id)
        assert live.health(NOW + 60).ok

    def test_a_ring_that_was_deleted(self, live: LiveRings, store: RingStore) -> None:
        live.poll(NOW)
        store._store.delete("ring", now=NOW)
        live.poll(NOW + 30)
        assert live.at(NOW + 30)
        assert live.health(NOW + 30).problem.startswith("The key ring cannot be read: There is no")


# -- the thread ------------------------------------------------------------------------------------


class Clock:
    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def watched(store: RingStore, clock: Clock) -> Iterator[WatchedRings]:
    store.create(POLICY, NOW)
    rings = WatchedRings(lambda: store, "ring", clock=clock)
    yield rings
    rings.close()


@pytest.fixture
def by_hand(watched: WatchedRings, monkeypatch: pytest.MonkeyPatch) -> WatchedRings:
    """Without a thread: the test ticks."""
    monkeypatch.setattr(WatchedRings, "_start", lambda self: None)
    return watched


def threads() -> list[threading.Thread]:
    return [each for each in threading.enumerate() if each.name == "keyring"]


class TestTicking:
    def test_it_polls_as_often_as_the_policy_says(
        self, by_hand: WatchedRings, objects: MemoryObjects, clock: Clock
    ) -> None:
        first = by_hand.tick()
        assert first is not None
        assert 0 < first <= 30
        calls = objects.calls
        clock.now += first
        assert by_hand.tick() == 30
        assert objects.calls == calls + 1
        clock.now += 29
        assert by_hand.tick() == 1
        assert objects.calls == calls + 1
        clock.now -= 3600  # set back
        by_hand.tick()
        assert objects.calls == calls + 2

    def test_workers_do_not_read_together(self, store: RingStore, clock: Clock) -> None:
        store.create(POLICY, NOW)
        waits = {WatchedRings(lambda: store, "ring", clock=clock).tick() for _ in range(10)}
        assert len(waits) > 5

    def test_more_often_and_never_less(
        self, store: RingStore, clock: Clock, by_hand: WatchedRings
    ) -> None:
        for given, every in ((5.0, 5.0), (3600.0, 30.0)):
            rings = WatchedRings(lambda: store, "ring", poll=given, clock=clock)
            rings.tick()
            clock.now += every
            assert rings.tick() == every

    def test_until_the_first_reading_it_tries_often(
        self, by_hand: WatchedRings, objects: MemoryObjects, clock: Clock
    ) -> None:
        objects.down = True
        assert by_hand.tick() == 2
        clock.now += 2
        assert by_hand.tick() == 2

    def test_it_wakes_for_what_begins_to_sign(
        self, by_hand: WatchedRings, store: RingStore, clock: Clock
    ) -> None:
        new = store.rotate(NOW).ring.versions[1]
        assert new.activates is not None
        told: list[tuple[str, str]] = []
        by_hand.on_rotation(lambda before, now: told.append((before.primary.id, now.primary.id)))
        by_hand.tick()
        clock.now = new.activates - 31
        by_hand.tick()
        clock.now += 20
        assert by_hand.tick() == 10
        clock.now += 11
        assert not told
        by_hand.tick()
        assert [each[1] for each in told] == [new.id]

    def test_what_holds_at_first_is_no_rotation_and_what_comes_then_is(
        self, by_hand: WatchedRings, store: RingStore
    ) -> None:
        told: list[int] = []
        by_hand.on_rotation(lambda before, now: told.append(len(now.versions)))
        by_hand.start()
        store.rotate(NOW)
        by_hand.tick()
        assert told == [2]

    @pytest.mark.parametrize("error", [ValueError("not today"), SystemExit("not today")])
    def test_a_callback_that_fails_stops_nobody(
        self,
        by_hand: WatchedRings,
        store: RingStore,
        caplog: pytest.LogCaptureFixture,
        clock: Clock,
        error: BaseException,
    ) -> None:
        """M10, M11: callbacks of the original hold a lock, and the first to fail ends it."""
        told: list[KeyRing] = []

        def fails(before: KeyRing, now: KeyRing) -> None:
            assert not by_hand._reading.locked()
            assert by_hand.at(clock.now) is now
            by_hand.reread(clock.now + 100)
            raise error

        by_hand.on_rotation(fails)
        by_hand.on_rotation(lambda before, now: told.append(now))
        by_hand.tick()
        store.rotate(NOW)
        clock.now += 30
        by_hand.tick()
        assert len(told) == 1
        assert "not today" in caplog.text

    def test_that_it_is_due_is_said_once(
        self,
        by_hand: WatchedRings,
        store: RingStore,
        clock: Clock,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        clock.now = store.load().ring.next_rotation
        by_hand.tick()
        clock.now += 30
        by_hand.tick()
        assert caplog.text.count("keyring rotate ring") == 1
        assert store.latest() == 1

    def test_one_of_several_workers_rotates(
        self, store: RingStore, clock: Clock, by_hand: WatchedRings
    ) -> None:
        clock.now = store.load().ring.next_rotation
        workers = [
            WatchedRings(lambda: store, "ring", clock=clock, auto_rotate=True) for _ in range(5)
        ]
        for worker in workers:
            worker.tick()
        assert store.latest() == 2
        clock.now += 30
        for worker in workers:
            worker.tick()
            assert len(worker.at(clock.now).versions) == 2

    def test_requests_do_not_wait_for_a_rotation(
        self,
        store: RingStore,
        clock: Clock,
        by_hand: WatchedRings,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        clock.now = store.load().ring.next_rotation
        rings = WatchedRings(lambda: store, "ring", clock=clock, auto_rotate=True)
        rotate, free = store.rotate, []

        def watching(now: float, *, if_due: bool = False) -> object:
            free.append(not rings._reading.locked())
            return rotate(now, if_due=if_due)

        monkeypatch.setattr(store, "rotate", watching)
        rings.tick()
        assert free == [True]
        assert len(rings.at(clock.now).versions) == 2

    def test_who_cannot_rotate_does_not_try_all_the_time(
        self,
        store: RingStore,
        clock: Clock,
        by_hand: WatchedRings,
        monkeypatch: pytest.MonkeyPatch,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        clock.now = store.load().ring.next_rotation
        rings = WatchedRings(lambda: store, "ring", clock=clock, auto_rotate=True)
        tried: list[float] = []

        def denied(now: float, *, if_due: bool = False) -> None:
            tried.append(now)
            raise StoreUnavailable("no room")

        monkeypatch.setattr(store, "rotate", denied)
        for _ in range(11):
            rings.tick()
            clock.now += 30
        assert len(tried) == 2
        assert "cannot be rotated: no room" in caplog.text
        assert rings.at(clock.now)
        clock.now -= 200  # set back; not before it is due
        for _ in range(2):
            rings.tick()
            clock.now += 30
        assert len(tried) == 3


class TestTheThread:
    def test_it_begins_with_the_first_use_and_ends_with_the_last(
        self, store: RingStore, watched: WatchedRings
    ) -> None:
        assert not threads()
        watched.health(NOW)
        (thread,) = threads()
        watched.health(NOW)
        watched.reread(NOW)
        assert threads() == [thread]
        watched.close()
        assert not threads()
        assert watched.at(NOW)
        assert not threads()

    def test_it_ends_when_nobody_holds_it(self, store: RingStore) -> None:
        store.create(Policy(poll=86_400), NOW)
        rings = WatchedRings(lambda: store, "ring").start()
        (thread,) = threads()
        del rings
        gc.collect()
        thread.join(WAIT)
        assert not thread.is_alive()

    def test_start_mends_what_was_wrong(self, store: RingStore, objects: MemoryObjects) -> None:
        store.create(POLICY, NOW)
        objects.down = True
        rings = WatchedRings(lambda: store, "ring", clock=lambda: NOW)
        assert not rings.health(NOW).ok
        rings.reread(NOW)
        assert "AWS did not answer" in rings.health(NOW).problem
        objects.down = False
        assert rings.start().health(NOW).ok
        rings.close()

    def test_start_says_what_is_wrong(self, objects: MemoryObjects) -> None:
        store = ring_store(objects)
        with pytest.raises(NoSuchSecret, match="no key ring"):
            WatchedRings(lambda: store, "ring").start()
        assert not threads()

    def test_it_reads_by_itself(self, store: RingStore) -> None:
        store.create(POLICY, NOW)
        rings = WatchedRings(lambda: store, "ring", poll=0.05).start()
        told = threading.Event()
        rings.on_rotation(lambda before, now: told.set())
        store.rotate(NOW)
        assert told.wait(WAIT)
        rings.close()

    def test_a_reading_that_fails_oddly_is_not_the_last(
        self, store: RingStore, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        store.create(POLICY, NOW)
        monkeypatch.setattr("iam_auth_proxy.keys.live._RETRY", 0.01)
        rings = WatchedRings(lambda: store, "ring", poll=0.05).start()
        latest, again = store.latest, threading.Event()

        def odd() -> int:
            if "odd" not in caplog.text:
                raise ZeroDivisionError("odd")
            again.set()
            return latest()

        monkeypatch.setattr(store, "latest", odd)
        assert again.wait(WAIT)
        rings.close()

    def test_no_more_threads(self, watched: WatchedRings, monkeypatch: pytest.MonkeyPatch) -> None:
        def no_more(self: threading.Thread) -> None:
            raise RuntimeError("can't start new thread")

        with monkeypatch.context() as patch:
            patch.setattr(threading.Thread, "start", no_more)
            watched.reread(NOW)
            assert watched.at(NOW)
        watched.at(NOW)
        assert threads()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
def test_a_server_may_fork(store: RingStore) -> None:
    """Its thread, its locks and its connections are the parent's; the ring is everybody's."""
    store.create(POLICY, NOW)
    opened: list[int] = []

    def open_() -> RingStore:
        opened.append(os.getpid())
        return store

    rings = WatchedRings(open_, "ring", poll=0.05).start()
    with rings._reading, rings._starting:  # as the thread may have it just then
        status = in_a_child(lambda: _in_the_child(rings, store, opened))
    assert status == 0
    assert opened == [os.getpid()]
    rings.close()


def _in_the_child(rings: WatchedRings, store: RingStore, opened: list[int]) -> None:
    assert not threads()
    told = threading.Event()
    rings.on_rotation(lambda before, now: told.set())
    assert rings.at(NOW)
    assert len(threads()) == 1
    store.rotate(NOW)
    assert told.wait(WAIT)
    assert opened[-1] == os.getpid()
    rings.close()
    assert not threads()
