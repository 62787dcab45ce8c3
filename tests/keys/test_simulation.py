"""32 workers under load, in simulated time: rotations, skewed clocks, a store that fails.

What runs is the product: each worker's ring as a server has it (without its thread: the simulation
wakes it), a real secret store over objects in memory, real cookies. Time, load and accidents are
made up from a seed. Then the same with one thing shortened, which has to be seen.
"""

from __future__ import annotations

import heapq
import itertools
import random
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import pytest

from iam_auth_proxy.errors import BadSession, Expired
from iam_auth_proxy.keys.live import WatchedRings
from iam_auth_proxy.keys.ringstore import RingStore
from iam_auth_proxy.protocol import session
from iam_auth_proxy.protocol.identity import Kind
from iam_auth_proxy.protocol.keyring import KeyRing, KeyVersion
from iam_auth_proxy.protocol.lifecycle import Policy, Version
from iam_auth_proxy.protocol.session import Session
from tests.keys.conftest import NOW
from tests.support.memory_store import MemoryKms, MemoryObjects, ring_store

ORIGIN = "http://app.test"
POLICY = Policy(rotate_every=5400, max_session=3600, poll=30, skew=60, read=10, outage=600)
HOURS = 5
WORKERS = 32
FEWER = 10  # where something is to be seen


@dataclass
class World:
    """Everything that happens, by one true clock."""

    workers: int = WORKERS
    requests: int = 14_000
    policy: Policy = POLICY
    skew: float = POLICY.skew
    outage: float = POLICY.outage
    slowest_rotates: bool = False
    now: float = NOW
    newest: str = ""
    found: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self.dice = random.Random(1)
        self.objects = MemoryObjects()
        kms = MemoryKms()
        self.store = ring_store(self.objects, kms)
        self.store.create(self.policy, NOW)
        self.all = [Worker(self, ring_store(self.objects, kms)) for _ in range(self.workers)]
        if self.slowest_rotates:
            slowest = min(self.all, key=lambda worker: worker.skew)
            for worker in self.all:
                worker.rings._auto_rotate = worker is slowest
        self.known: dict[str, tuple[Version, KeyVersion]] = {}
        self.sessions: list[tuple[str, int]] = []
        self._order = itertools.count()
        self._events: list[tuple[float, int, Callable[[], None]]] = []

    def at(self, time: float, do: Callable[[], None]) -> None:
        heapq.heappush(self._events, (time, next(self._order), do))

    def run(self) -> Counter[str]:
        end = NOW + HOURS * 3600
        for worker in self.all:
            worker.wake()
        for number in range(self.requests):
            self.at(NOW + number * (end - NOW) / self.requests + 1, self.request)
        for minute in range(10, HOURS * 60, 10):
            self.at(NOW + minute * 60, self.try_what_has_retired)
        self.at(NOW + 30 * 60, self.fail)
        self.at(NOW + 1, self.look_at_the_record)
        while self._events and self._events[0][0] < end:
            self.now, _, do = heapq.heappop(self._events)
            do()
        return self.found

    # -- accidents ---------------------------------------------------------------------------------

    def fail(self) -> None:
        """The store is down for as long as it may be."""
        if not self.objects.down and self.outage:
            self.found["outages"] += 1
            self.objects.down = True
            self.at(self.now + self.outage, self.mend)

    def mend(self) -> None:
        self.objects.down = False

    def look_at_the_record(self) -> None:
        """As soon as there is a new version, the store fails: nobody else has read of it yet."""
        self.at(self.now + 1, self.look_at_the_record)
        if max(self.objects.stored) == self.newest or self.objects.down:
            return
        self.newest = max(self.objects.stored)
        for version in self.store.load().ring.versions:
            if version.material is not None:
                if version.id not in self.known:
                    self.found["versions"] += 1
                    if self.known:
                        self.at(self.now, self.fail)
                self.known[version.id] = version, version.key

    # -- load --------------------------------------------------------------------------------------

    def request(self) -> None:
        """Somebody signs in, or comes back with a cookie; each time to any of the workers."""
        worker = self.dice.choice(self.all)
        if not self.sessions or self.dice.random() < 0.2:
            self.sessions.append(worker.sign_in())
            self.found["signed in"] += 1
            self.at(self.now + 0.1, lambda: self.come_back(len(self.sessions) - 1))
        else:
            self.come_back(self.dice.randrange(len(self.sessions)))

    def come_back(self, number: int) -> None:
        worker = self.dice.choice(self.all)
        cookie, expires = self.sessions[number]
        if worker.clock() >= expires:
            self.sessions.pop(number)
            self.found["over"] += 1
        elif worker.accepts(cookie):
            self.found["accepted"] += 1
        else:
            self.sessions.pop(number)
            self.found["refused"] += 1

    def try_what_has_retired(self) -> None:
        """Whoever has a retired key signs with it what he likes."""
        for version, key in self.known.values():
            if version.retires is None or self.now < version.retires + self.skew:
                continue
            forged = session.seal(_session(int(self.now)), KeyRing(primary=key), self.now)
            for worker in self.all:
                self.found["tried"] += 1
                if worker.accepts(forged):
                    self.found["retired accepted"] += 1


class Worker:
    def __init__(self, world: World, store: RingStore) -> None:
        self.world = world
        self.skew = world.dice.uniform(-world.skew / 2, world.skew / 2)
        self.rings = WatchedRings(lambda: store, "ring", clock=self.clock, auto_rotate=True)

    def clock(self) -> float:
        return self.world.now + self.skew

    def wake(self) -> None:
        wait = self.rings.tick()
        assert wait is not None
        late = self.world.dice.uniform(0, POLICY.read / 2)  # twice where it wakes in between
        self.world.at(self.world.now + wait + late, self.wake)

    def sign_in(self) -> tuple[str, int]:
        made = _session(int(self.clock()))
        cookie = session.seal(made, self.rings.at(self.clock()), self.clock())
        return cookie, made.expires

    def accepts(self, cookie: str) -> bool:
        """As the gate does: an id that is not known is worth a reading."""
        if self._opens(cookie):
            return True
        if not self.rings.reread(self.clock()) or not self._opens(cookie):
            return False
        self.world.found["accepted late"] += 1
        return True

    def _opens(self, cookie: str) -> bool:
        now = self.clock()
        try:
            session.open_(cookie, self.rings.at(now), origin=ORIGIN, now=now)
        except (BadSession, Expired):
            return False
        return True


def _session(now: int) -> Session:
    return Session(
        id="a", origin=ORIGIN, arn="arn:aws:iam::111122223333:user/ann", user_id="AIDA",
        account="111122223333", partition="aws", kind=Kind.USER, proof="signed-identity",
        issued=now, expires=now + POLICY.max_session,
    )  # fmt: skip


@pytest.fixture(autouse=True)
def by_hand(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No threads, no log, and the phases of the workers are from a seed, too."""
    monkeypatch.setattr("iam_auth_proxy.keys.live.log.disabled", True)
    monkeypatch.setattr(WatchedRings, "_start", lambda self: None)
    state = random.getstate()
    random.seed(1)
    yield
    random.setstate(state)


@pytest.mark.parametrize("slowest_rotates", [False, True])
def test_nobody_is_refused_and_nothing_retired_is_accepted(slowest_rotates: bool) -> None:
    """With any worker rotating, which the clocks that are ahead do, and with the one behind all."""
    found = World(slowest_rotates=slowest_rotates).run()
    assert found["versions"] >= 4
    assert found["outages"] >= 4
    assert found["accepted"] > 10_000
    assert found["signed in"] > 2000
    assert found["tried"] > 500
    assert found["refused"] == 0
    assert found["retired accepted"] == 0
    # Nobody waited either: who verifies has a key before anybody signs with it.
    assert found["accepted late"] == 0


# -- what would be seen ----------------------------------------------------------------------------


def test_an_outage_that_was_not_reckoned_with() -> None:
    policy = Policy(rotate_every=5400, max_session=3600, poll=30, skew=60, read=10, outage=0)
    assert World(FEWER, 5000, policy).run()["refused"] > 0


@pytest.mark.parametrize(
    ("workers", "requests", "outage", "seen"),
    [(FEWER, 4000, 600.0, "refused"), (WORKERS, 9000, 0.0, "accepted late")],
)
def test_a_version_that_signs_as_soon_as_it_is_published(
    monkeypatch: pytest.MonkeyPatch, workers: int, requests: int, outage: float, seen: str
) -> None:
    """Where the store answers, only the reading for an unknown id saves who has not read of it."""
    monkeypatch.setattr(Policy, "propagation", 0)
    world = World(workers, requests, outage=outage, slowest_rotates=True)
    assert world.run()[seen] > 0


def test_an_overlap_that_is_shorter_than_a_session(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Policy, "overlap", POLICY.max_session * 3 // 4)
    assert World(FEWER, 2000).run()["refused"] > 0


def test_clocks_that_are_further_apart_than_was_said() -> None:
    policy = Policy(rotate_every=5400, max_session=3600, poll=30, skew=0, read=10, outage=0)
    world = World(FEWER, 9000, policy, skew=110.0, outage=0, slowest_rotates=True)
    assert world.run()["accepted late"] > 0


def test_versions_that_never_retire(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Version, "ends", lambda self, now: False)
    assert World(FEWER, 2000).run()["retired accepted"] > 0
