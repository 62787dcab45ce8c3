"""What the factory says of a key ring; the clients that it makes are seen with the adapters."""

from __future__ import annotations

import logging

import pytest

from iam_auth_proxy.errors import (
    AccessDenied,
    AwsUnavailable,
    ConfigError,
    IamAuthError,
    RecordUnusable,
    WrongKey,
)
from iam_auth_proxy.keys import rotation
from iam_auth_proxy.keys.live import LiveRings, WatchedRings
from iam_auth_proxy.keys.ringstore import RingStore
from iam_auth_proxy.protocol.keyring import StaticRings
from iam_auth_proxy.protocol.lifecycle import Policy
from iam_auth_proxy.server import factory
from iam_auth_proxy.server.rings import GateRings
from iam_auth_proxy.server.settings import load
from tests.server.conftest import KEY, NOW, ORIGIN
from tests.support.memory_store import MemoryKms, MemoryObjects, ring_store

PLACE = "s3://bucket/prefix/ring"


class Rig:
    """A ring in memory, in place of S3, and what was asked for."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.objects, self.kms, self.now = MemoryObjects(), MemoryKms(), NOW
        self.ring = ring_store(self.objects, self.kms)
        self.asked: list[tuple[str, list[str]]] = []
        self.watched: list[WatchedRings] = []

        def open_rings(place: str, keys: list[str], **more: object) -> WatchedRings:
            self.asked.append((place, keys))
            watched = Watched(self.open, place, clock=lambda: self.now)
            self.watched.append(watched)
            return watched

        monkeypatch.setattr(rotation, "open_rings", open_rings)

    def open(self) -> RingStore:
        return ring_store(self.objects, self.kms)

    def rings(self, **settings: object) -> GateRings:
        given = {"kms_key": KEY, "keyring": PLACE, "origins": [ORIGIN]} | settings
        return factory.rings(load(given), None)


class Watched(WatchedRings):
    """Without its thread: the test ticks."""

    def _start(self) -> None:
        pass


@pytest.fixture
def rig(monkeypatch: pytest.MonkeyPatch) -> Rig:
    return Rig(monkeypatch)


def test_the_ring_is_opened_with_the_key_of_the_proofs_unless_said(rig: Rig) -> None:
    rig.rings()
    rig.rings(keyring_kms_keys=["alias/ring", KEY])
    assert rig.asked == [(PLACE, [KEY]), (PLACE, ["alias/ring", KEY])]


def test_every_change_is_said_once(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "iam_auth_proxy.server.factory")
    policy = Policy()
    old = rig.ring.create(policy, NOW).ring.primary(NOW).id
    rings = rig.rings()
    rings.start(NOW)
    (watched,) = rig.watched

    def tick(now: float) -> list[str]:
        caplog.clear()
        rig.now = now
        watched.tick()
        watched.tick()
        return caplog.messages

    assert tick(NOW) == []
    new = rig.ring.rotate(NOW).ring.signers[-1].id
    assert tick(NOW + policy.poll) == [f"key {new} is accepted from now on"]
    signs = NOW + policy.propagation
    assert tick(signs) == [f"key {new} signs from now on, in place of {old}"]
    assert tick(signs + policy.poll) == []
    rig.ring.disable([old], signs)
    said = f"key {old} is accepted no more: what it signed is refused"
    assert tick(signs + 2 * policy.poll) == [said]


@pytest.mark.parametrize(("max_session", "warned"), [("12h", 0), ("13h", 1)])
def test_sessions_that_outlast_the_ring_are_said(
    rig: Rig, caplog: pytest.LogCaptureFixture, max_session: str, warned: int
) -> None:
    rig.ring.create(Policy(max_session=12 * 3600), NOW)
    rings = rig.rings(max_session=max_session)
    rings.start(NOW)
    assert rings.ready(NOW)
    said = [line for line in caplog.messages if "--max-session" in line]
    assert len(said) == warned
    rings.close()


def test_rings_that_are_given(rig: Rig) -> None:
    """Watched ones are started and ended; of a ring that never changes nothing is read again."""
    rig.ring.create(Policy(), NOW)
    in_force = load({"kms_key": KEY, "origins": [ORIGIN]}, rings=True)
    watched = Watched(rig.open, PLACE, clock=lambda: NOW)
    rings = factory.rings(in_force, watched)
    assert not rings.ready(NOW)
    rings.start(NOW)
    assert rings.ready(NOW)
    assert rings.may_reread(NOW)
    rings.close()
    assert watched.tick() is None
    fixed = StaticRings(rings.at(NOW))
    assert not factory.rings(in_force, fixed).may_reread(NOW)
    assert factory.rings(in_force, LiveRings(rig.open, PLACE)).may_reread(NOW)
    assert rig.asked == []


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (AwsUnavailable("down"), ""),
        (WrongKey("sealed under K", remedy="--kms-key K"), "K. If that key is to be trusted, add"),
        (RecordUnusable("changed", remedy="Restore it."), "cannot be used: changed. Restore it."),
        (AccessDenied("no", action="kms:Decrypt"), "the key ring cannot be used: no"),
    ],
)
def test_what_stops_the_start_of_an_app(rig: Rig, error: IamAuthError, said: str) -> None:
    """What waiting does not mend, with what to do about it in terms of the settings."""

    def fail() -> RingStore:
        raise error

    rings = factory.rings(
        load({"kms_key": KEY, "origins": [ORIGIN]}, rings=True), Watched(fail, PLACE)
    )
    if not said:
        rings.start(NOW)
        return
    with pytest.raises(ConfigError) as raised:
        rings.start(NOW)
    (problem,) = raised.value.problems
    assert problem.place == PLACE
    assert said in problem.text
    assert "--kms-key" not in problem.text
