"""When a gate waits for its key ring, and when it does not."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest

from iam_auth_proxy.errors import (
    AwsUnavailable,
    IamAuthError,
    NoSuchSecret,
    RecordUnusable,
    StoreUnavailable,
)
from iam_auth_proxy.protocol.keyring import Health, KeyRing, KeyVersion, StaticRings
from iam_auth_proxy.server import rings as module
from iam_auth_proxy.server.rings import GAP, PATIENCE, GateRings
from tests.server.conftest import NOW

RING = KeyRing(primary=KeyVersion.of(b"one"))
PROMPTLY = 10.0


@dataclass
class Stored:
    """Rings of a store: ``there`` is what it has, ``ring`` what was read of it."""

    there: KeyRing | None = None
    ring: KeyRing | None = None
    reads: int = 0
    asked_for_health: int = 0
    before_reading: Callable[[], None] = field(default=lambda: None)

    def at(self, now: float) -> KeyRing:
        if self.ring is None:
            raise StoreUnavailable("not read yet")
        return self.ring

    def reread(self, now: float) -> bool:
        self.reads += 1
        self.before_reading()
        before, self.ring = self.ring, self.there or self.ring
        return self.ring != before

    def health(self, now: float) -> Health:
        self.asked_for_health += 1
        return Health(self.ring is not None, now if self.ring else 0.0)


def rings(stored: Stored) -> GateRings:
    return GateRings(stored, rotates=True)


class TestFirstReading:
    def test_is_ready_once_it_was_read(self) -> None:
        stored = Stored()
        made = rings(stored)
        assert not made.ready(NOW)
        with pytest.raises(StoreUnavailable):
            made.at(NOW)
        stored.there = RING
        made.wait(NOW)
        assert made.ready(NOW)
        assert made.at(NOW) is RING
        made.wait(NOW)
        assert stored.reads == 1

    def test_a_flood_of_requests_is_no_flood_of_readings(self) -> None:
        stored = Stored()
        made = rings(stored)
        for offset in range(20):
            with pytest.raises(StoreUnavailable):
                made.wait(NOW + offset * GAP / 10)
        assert stored.reads == 2

    @pytest.mark.parametrize("error", [AwsUnavailable("down"), StoreUnavailable("down")])
    def test_a_start_does_not_wait_for_what_mends_itself(self, error: IamAuthError) -> None:
        stored = Stored()
        GateRings(stored, rotates=True, start=raises(error)).start(NOW)
        assert stored.asked_for_health == 1  # which has it tried again

    @pytest.mark.parametrize("error", [NoSuchSecret("x"), RecordUnusable("x")])
    def test_a_start_fails_where_waiting_does_not_help(self, error: IamAuthError) -> None:
        with pytest.raises(type(error)):
            GateRings(Stored(), rotates=True, start=raises(error)).start(NOW)

    def test_it_is_said_once_that_it_was_read(self) -> None:
        stored, said = Stored(), list[str]()
        made = GateRings(stored, rotates=True, ready=lambda: said.append("read"))
        assert not made.ready(NOW)
        stored.there = RING
        made.wait(NOW)
        assert made.ready(NOW)
        assert made.ready(NOW)
        assert said == ["read"]

    def test_what_needs_no_start_starts(self) -> None:
        made = GateRings(StaticRings(RING), rotates=False)
        made.start(NOW)
        made.close()
        assert made.health(NOW).ok


def raises(error: Exception) -> Callable[[], None]:
    def fail() -> None:
        raise error

    return fail


class TestReading:
    def test_says_whether_it_changed(self) -> None:
        stored = Stored(ring=RING)
        made = rings(stored)
        assert not made.reread(NOW)
        stored.there = KeyRing(primary=KeyVersion.of(b"two"))
        assert made.reread(NOW + GAP)
        assert made.at(NOW).primary.id == KeyVersion.of(b"two").id

    def test_made_up_ids_burn_no_readings(self) -> None:
        stored = Stored(ring=RING)
        made = rings(stored)
        for offset in range(100):
            now = NOW + offset * GAP / 10
            if made.may_reread(now):
                made.reread(now)
            made.reread(now)
        assert stored.reads == 10

    def test_a_clock_that_was_set_back_does_not_end_it(self) -> None:
        stored = Stored(ring=RING)
        made = rings(stored)
        made.reread(NOW)
        assert not made.may_reread(NOW + GAP / 2)
        assert made.may_reread(NOW - 86_400)

    def test_keys_that_do_not_rotate_are_not_read_again(self) -> None:
        stored = Stored(ring=RING)
        made = GateRings(stored, rotates=False)
        assert not made.may_reread(NOW)
        assert not made.reread(NOW)
        assert stored.reads == 0

    def test_requests_that_come_meanwhile_have_its_answer(self) -> None:
        begun, may_end = threading.Event(), threading.Event()

        def slowly() -> None:
            begun.set()
            assert may_end.wait(PROMPTLY)

        new = KeyRing(primary=KeyVersion.of(b"two"))
        stored = Stored(ring=RING, there=new, before_reading=slowly)
        made = rings(stored)
        answers: list[bool] = []
        threads = [
            threading.Thread(target=lambda: answers.append(made.reread(NOW))) for _ in range(4)
        ]
        threads[0].start()
        assert begun.wait(PROMPTLY)
        assert made.may_reread(NOW)
        for thread in threads[1:]:
            thread.start()
        may_end.set()
        for thread in threads:
            thread.join(PROMPTLY)
        assert stored.reads == 1
        assert made.at(NOW) is new
        assert answers.count(True) >= 1  # who came after its end has nothing new to hear

    def test_nobody_waits_long_for_a_store_that_hangs(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        begun, may_end = threading.Event(), threading.Event()

        def hangs() -> None:
            begun.set()
            assert may_end.wait(PROMPTLY)

        made = rings(Stored(ring=RING, before_reading=hangs))
        thread = threading.Thread(target=made.reread, args=(NOW,))
        thread.start()
        try:
            assert begun.wait(PROMPTLY)
            # Who comes later than that does not wait at all ...
            assert not made.may_reread(NOW + PATIENCE)
            assert not made.reread(NOW + PATIENCE)
            # ... and who comes at once does not wait for longer.
            monkeypatch.setattr(module, "PATIENCE", 0.01)
            assert not made.reread(NOW)
            assert thread.is_alive()
        finally:
            may_end.set()
            thread.join(PROMPTLY)

    def test_a_reading_that_fails_is_over(self) -> None:
        made = rings(Stored(ring=RING, before_reading=raises(RuntimeError("a bug"))))
        with pytest.raises(RuntimeError):
            made.reread(NOW)
        assert made.may_reread(NOW + GAP)

    @pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
    @pytest.mark.filterwarnings("ignore:This process.*is multi-threaded:DeprecationWarning")
    def test_a_child_reads_though_its_parent_was_reading(self) -> None:
        """Nothing of that reading ever comes to the child: neither its end, nor the lock."""
        begun, may_end = threading.Event(), threading.Event()

        def slowly() -> None:
            begun.set()
            assert may_end.wait(PROMPTLY)

        stored = Stored(ring=RING, before_reading=slowly)
        made = rings(stored)
        thread = threading.Thread(target=made.reread, args=(NOW,))
        thread.start()
        try:
            assert begun.wait(PROMPTLY)
            with made._lock:
                child = os.fork()
                if child == 0:
                    stored.before_reading = lambda: None
                    free = made._lock.acquire(timeout=1)
                    if free:
                        made._lock.release()
                        made.reread(NOW + GAP)
                    os._exit(0 if stored.reads == 2 else 1)
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        finally:
            may_end.set()
            thread.join(PROMPTLY)
