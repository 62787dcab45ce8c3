"""What holds at each moment of a ring's life, and that there is always exactly one primary."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from iam_auth_proxy.errors import Malformed, NoSuchKey
from iam_auth_proxy.protocol.keyring import KeyRing, KeyVersion
from iam_auth_proxy.protocol.lifecycle import Policy, State, Version
from iam_auth_proxy.protocol.ring_record import dumps, loads
from iam_auth_proxy.protocol.stored_ring import (
    KEPT,
    MAX_ADDED,
    MAX_SALTS,
    MAX_VERSIONS,
    Salt,
    StoredRing,
    Timeline,
)

POLICY = Policy(rotate_every=10_000, max_session=2000, poll=30, skew=60, read=10, outage=100)
NOW = 100_000
SIGNS = NOW + POLICY.propagation  # of what is rotated at NOW
RETIRES = SIGNS + POLICY.overlap  # of what was before that


def material(number: int) -> bytes:
    return number.to_bytes(32, "big")


def id_of(number: int) -> str:
    return KeyVersion.of(material(number)).id


ONE = StoredRing.begun(POLICY, material(1), 1000.7)
TWO = ONE.rotated(material(2), NOW - 0.5)


def ids(ring: KeyRing) -> tuple[str, set[str]]:
    return ring.primary.id, {each.id for each in ring.also_accepted}


def states(stored: StoredRing, now: float) -> list[State]:
    return [stored.state(each, now) for each in stored.versions]


class TestAtAMoment:
    def test_the_first_signs_at_once_and_for_every_clock(self) -> None:
        for now in (0, 999, 1000, 1001, 10**9):
            assert ids(ONE.at(now)) == (id_of(1), set())
            assert states(ONE, now) == [State.PRIMARY]

    @pytest.mark.parametrize(
        ("now", "expected"),
        [
            (NOW, [State.PRIMARY, State.PENDING]),
            (SIGNS - 0.1, [State.PRIMARY, State.PENDING]),
            (SIGNS, [State.VERIFY_ONLY, State.PRIMARY]),
            (RETIRES - 0.1, [State.VERIFY_ONLY, State.PRIMARY]),
            (RETIRES, [State.RETIRED, State.PRIMARY]),
            (10**9, [State.RETIRED, State.PRIMARY]),
        ],
    )
    def test_a_rotation(self, now: float, expected: list[State]) -> None:
        assert states(TWO, now) == expected
        primary = id_of(1) if expected[0] is State.PRIMARY else id_of(2)
        accepted = {id_of(2)} if expected[0] is State.RETIRED else {id_of(1), id_of(2)}
        assert ids(TWO.at(now)) == (primary, accepted - {primary})

    def test_a_salt_until_its_time(self) -> None:
        stored = ONE.imported(None, "salty", NOW, 500)
        until = NOW + 500 + POLICY.overlap
        assert stored.at(until - 1).salts == ("salty",)
        assert stored.at(until).salts == ()

    @given(st.integers(0, 2 * RETIRES), st.booleans())
    def test_a_timeline_is_the_same(self, now: int, half: bool) -> None:
        stored = TWO.imported(material(9), "salty", NOW + 20, 500)
        timeline, moment = Timeline(stored), now + half / 2
        assert timeline.at(moment) == stored.at(moment)
        following = timeline.next(moment)
        if following is not None:
            assert following > moment
            assert timeline.at(moment) is timeline.at(following - 0.1)

    def test_a_timeline_has_an_end(self) -> None:
        timeline = Timeline(TWO)
        assert timeline.next(SIGNS) == RETIRES
        assert timeline.next(RETIRES) is None


class TestRotating:
    def test_what_is_pending_is_not_overtaken(self) -> None:
        assert TWO.rotated(material(3), NOW + 5) is TWO
        assert TWO.pending(NOW) == TWO.versions[1]
        assert TWO.pending(SIGNS) is None

    def test_when_it_is_due(self) -> None:
        due = 1000 + POLICY.rotate_every - POLICY.propagation
        assert ONE.next_rotation == due
        assert not ONE.due(due - 1)
        assert ONE.due(due)
        assert not TWO.due(SIGNS - 1)

    def test_what_is_over_is_destroyed_at_the_next_writing(self) -> None:
        last = RETIRES + POLICY.skew
        before = TWO.rotated(material(3), last - 1)
        assert before.versions[0].material is not None
        after = TWO.rotated(material(3), last)
        assert after.versions[0].material is None
        assert states(after, last)[0] is State.DESTROYED
        for now in range(last - POLICY.skew, last + 10_000, 500):
            assert ids(after.at(now)) == ids(replace(after, versions=before.versions).at(now)) or (
                now >= last
            )

    def test_by_a_clock_that_is_behind(self) -> None:
        behind = ONE.rotated(material(2), 10.0)
        assert behind.versions[1].activates == 1000 + POLICY.propagation
        assert behind.at(1000).primary.id == id_of(1)

    def test_names_are_kept_for_a_while(self) -> None:
        stored = ONE
        for number in range(2, 2 * KEPT + 10):
            stored = stored.rotated(material(number), number * 100_000)
        assert len(stored.versions) == KEPT + 2
        assert stored.versions[-1].id == id_of(number)


class TestRoom:
    """A ring that is as full as it gets: rotated by hand whenever it could be."""

    POLICY = replace(POLICY, max_session=300_000)

    def full(self) -> tuple[StoredRing, int]:
        stored, now = StoredRing.begun(self.POLICY, material(1), NOW), NOW
        for number in range(2, MAX_VERSIONS + 2):
            try:
                stored = stored.rotated(material(number), now)
            except Malformed:
                return stored, now
            now = stored.signers[-1].activates or 0
        raise AssertionError("it never was")

    def test_there_is_an_end(self) -> None:
        stored, now = self.full()
        assert len(stored.versions) == MAX_ADDED
        for add in (
            lambda: stored.rotated(material(100), now),
            lambda: stored.imported(material(100), "", now, 1),
        ):
            with pytest.raises(Malformed, match="no room for more") as full:
                add()
            assert full.value.public == "The key ring has no room for another version."

    @pytest.mark.parametrize("many", [1, 2, 30, MAX_ADDED])
    def test_any_can_be_disabled(self, many: int) -> None:
        """Emergencies do not wait for what retires."""
        stored, now = self.full()
        empty = stored
        for number in range(KEPT):  # as many names as are kept
            empty = empty.disabled([empty.primary(now).id], material(200 + number), now)
        for ring in (stored, empty):
            ids = [each.id for each in ring.signers[-many:]]
            after = ring.disabled(ids, material(300), now + 1)
            assert after.primary(now + 1).key == KeyVersion.of(material(300), now + 1)
            assert not set(ids) & {each.id for each in after.at(now + 1).versions}
            assert loads(dumps(after)) == after

    def test_it_goes_on_once_there_is_room(self) -> None:
        stored, now = self.full()
        later = now + 400 * 86_400
        assert stored.rotated(material(100), later).pending(later)
        assert stored.imported(material(100), "", later, 1).get(id_of(100))

    def test_salts_go_as_they_end(self) -> None:
        stored = ONE
        for number in range(MAX_SALTS):
            stored = stored.imported(None, f"salt {number}", NOW, 1)
        with pytest.raises(Malformed, match="too many salts") as full:
            stored.imported(None, "another", NOW, 1)
        assert full.value.public == "The key ring has no room for another salt."
        later = NOW + POLICY.overlap + 1
        assert [each.salt for each in stored.imported(None, "x", later, 1).salts] == ["x"]


class TestDisabling:
    def test_the_primary_has_a_successor_at_once(self) -> None:
        stored = ONE.disabled([id_of(1)], material(2), NOW)
        assert states(stored, NOW) == [State.DISABLED, State.PRIMARY]
        assert stored.versions[0].material is None
        for now in (0, NOW - 30, NOW, RETIRES):
            assert ids(stored.at(now)) == (id_of(2), set())

    def test_what_is_pending_comes_early(self) -> None:
        stored = TWO.disabled([id_of(1)], material(3), NOW + 20)
        assert states(stored, NOW + 20) == [State.DISABLED, State.PRIMARY]
        assert stored.versions[1].activates == NOW + 20

    def test_what_is_pending_never_comes(self) -> None:
        stored = TWO.disabled([id_of(2)], material(3), NOW + 20)
        assert states(stored, RETIRES) == [State.PRIMARY, State.DISABLED]
        assert stored.due(NOW + 20)
        assert stored.versions[0].retires is None

    def test_what_verifies_only(self) -> None:
        stored = TWO.disabled([id_of(1)], material(3), SIGNS + 5)
        assert ids(stored.at(SIGNS + 5)) == (id_of(2), set())
        assert len(stored.versions) == 2

    def test_all_of_them(self) -> None:
        stored = TWO.disabled([id_of(1), id_of(2)], material(3), NOW + 20)
        assert states(stored, NOW + 20) == [State.DISABLED, State.DISABLED, State.PRIMARY]
        for now in (NOW, SIGNS, 10**9):
            assert ids(stored.at(now)) == (id_of(3), set())

    def test_what_is_before_it_does_not_sign_again(self) -> None:
        """By a clock that is behind, too: what it signed would outlast it."""
        stored = TWO.disabled([id_of(2)], material(3), SIGNS + 50)
        assert ids(stored.at(SIGNS + 10)) == (id_of(3), {id_of(1)})

    def test_by_a_clock_to_which_two_are_still_to_come(self) -> None:
        three = TWO.rotated(material(3), SIGNS)
        stored = three.disabled([id_of(1)], material(4), NOW + 5)
        assert [each.activates for each in stored.versions[1:]] == [SIGNS, SIGNS + 1]
        assert ids(stored.at(NOW + 5)) == (id_of(2), {id_of(3)})
        assert ids(stored.at(SIGNS + 1)) == (id_of(3), {id_of(2)})

    def test_in_the_second_in_which_it_was_made(self) -> None:
        stored = ONE.disabled([id_of(1)], material(2), NOW).disabled([id_of(2)], material(3), NOW)
        assert ids(stored.at(NOW)) == (id_of(3), set())
        verifying = TWO.disabled([id_of(2)], material(3), SIGNS).disabled(
            [id_of(3)], material(4), SIGNS
        )
        assert ids(verifying.at(SIGNS)) == (id_of(4), {id_of(1)})

    @pytest.mark.parametrize("number", [1, 7])
    def test_what_is_not_there(self, number: int) -> None:
        stored = ONE.disabled([id_of(1)], material(2), NOW)
        with pytest.raises(NoSuchKey, match=id_of(number)):
            stored.disabled([id_of(number)], material(3), NOW)


class TestAnotherPolicy:
    LONGER = replace(POLICY, max_session=5000)

    def test_what_signs_verifies_for_longer(self) -> None:
        stored = TWO.under(self.LONGER, NOW)
        assert stored.policy == self.LONGER
        first, second = stored.versions
        assert first.retires == SIGNS + self.LONGER.overlap
        assert first.destroys == first.retires + POLICY.skew
        assert second == TWO.versions[1]
        assert ONE.under(self.LONGER, NOW).versions == ONE.versions

    def test_what_does_not_sign_any_more_is_as_before(self) -> None:
        assert TWO.under(self.LONGER, SIGNS).versions == TWO.versions

    def test_nothing_verifies_for_less(self) -> None:
        assert TWO.under(replace(POLICY, max_session=1), NOW).versions == TWO.versions


class TestImporting:
    UNTIL = NOW + 500 + POLICY.overlap

    def test_it_verifies_and_never_signs(self) -> None:
        stored = ONE.imported(material(9), "salty", NOW, 500)
        assert states(stored, NOW) == [State.PRIMARY, State.VERIFY_ONLY]
        assert ids(stored.at(self.UNTIL - 1)) == (id_of(1), {id_of(9)})
        assert ids(stored.at(self.UNTIL)) == (id_of(1), set())
        rotated = stored.rotated(material(2), NOW)
        assert rotated.at(SIGNS).primary.id == id_of(2)

    def test_again_is_for_longer(self) -> None:
        stored = ONE.imported(material(9), "salty", NOW, 500)
        longer = stored.imported(material(9), "salty", NOW + 100, 500)
        assert len(longer.versions) == 2
        assert longer.versions[1].retires == self.UNTIL + 100
        assert longer.salts == (Salt("salty", self.UNTIL + 100),)

    def test_what_signs_goes_on_to(self) -> None:
        assert ONE.imported(material(1), "", NOW, 500) == ONE

    def test_what_was_disabled_does_not_come_back(self) -> None:
        stored = ONE.disabled([id_of(1)], material(2), NOW)
        with pytest.raises(NoSuchKey, match="disabled"):
            stored.imported(material(1), "", NOW, 500)

    def test_what_is_over_is_dropped(self) -> None:
        stored = ONE.imported(material(9), "salty", NOW, 500)
        later = stored.rotated(material(2), self.UNTIL + POLICY.skew)
        assert later.salts == ()
        assert later.versions[1].material is None


class TestValidation:
    FIRST, SECOND = TWO.versions

    @pytest.mark.parametrize(
        ("change", "reason"),
        [
            ({"versions": ()}, "no version, or too many"),
            ({"versions": (FIRST,) * (MAX_VERSIONS + 1)}, "no version, or too many"),
            (
                {"salts": tuple(Salt(str(each), 5) for each in range(MAX_SALTS + 1))},
                "too many versions or salts",
            ),
            ({"versions": (FIRST, SECOND, SECOND)}, "two versions of one id"),
            ({"salts": (Salt("a", 1), Salt("a", 2))}, "one salt twice"),
            ({"versions": (FIRST,)}, "the newest alone has no retirement"),
            (
                {"versions": (replace(FIRST, retires=None, destroys=None), SECOND)},
                "the newest alone has no retirement",
            ),
            (
                {"versions": (FIRST, Version.made(material(2), 1000, 1000))},
                "two versions of the key ring activate at once",
            ),
            (
                {"versions": (replace(FIRST, material=None),)},
                "newest version of the key ring does not sign",
            ),
            (
                {"versions": (FIRST, replace(SECOND, material=None, disabled=NOW))},
                "newest version of the key ring does not sign",
            ),
        ],
    )
    def test_what_it_cannot_be(self, change: dict[str, Any], reason: str) -> None:
        with pytest.raises(Malformed, match=reason):
            replace(TWO, **change)

    @pytest.mark.parametrize(
        ("salt", "until"), [("", 5), ("ä", 5), ("x" * 1025, 5), ("x\n", 5), ("x", -1)]
    )
    def test_salts(self, salt: str, until: int) -> None:
        with pytest.raises(Malformed, match="salt"):
            Salt(salt, until)


# -- whatever happens ------------------------------------------------------------------------------

HALF = POLICY.skew / 2
STEPS = st.lists(
    st.tuples(
        st.integers(0, 6000),  # seconds since the step before
        st.sampled_from(["rotate", "rotate", "rotate", "disable", "disable-primary", "import"]),
        st.integers(0, 63),
        st.floats(-HALF, HALF),  # the operator's clock
    ),
    max_size=12,
)
SKEWS = st.floats(-HALF, HALF)


def lives(steps: list[tuple[int, str, int, float]]) -> list[tuple[float, StoredRing]]:
    """From when on each record is the newest, in true time."""
    true, stored = 50_000.0, StoredRing.begun(POLICY, material(1), 50_000)
    found = [(true, stored)]
    for number, (wait, what, which, skew) in enumerate(steps, 2):
        true += wait
        now = true + skew
        if what == "rotate":
            stored = stored.rotated(material(number), now)
        elif what == "import":
            stored = stored.imported(material(1000 + number), "", now, 3000)
        else:
            there = [each for each in stored.versions if each.material is not None]
            chosen = there[which % len(there)]
            if what == "disable-primary":
                chosen = stored.primary(now)
            stored = stored.disabled([chosen.id], material(number), now)
        found.append((true, stored))
    return found


@settings(max_examples=150)
@given(STEPS, SKEWS, SKEWS, st.floats(0, 0.999), st.integers(0, POLICY.poll + POLICY.read))
def test_what_one_signs_another_verifies(
    steps: list[tuple[int, str, int, float]],
    signer: float,
    verifier: float,
    age: float,
    lag: int,
) -> None:
    """For as long as a session may last; each by its own clock, and its own last reading.

    What was disabled meanwhile is refused, and nothing that has retired ever verifies.
    """
    found = lives(steps)
    begin, end = found[0][0], found[-1][0] + RETIRES - NOW

    def record(true: float) -> StoredRing:
        return next(stored for since, stored in reversed(found) if since <= max(true, begin))

    true = begin
    while true < end:
        signing = record(true - lag)
        key = signing.at(true + signer).primary
        # For as long as the verifier's clock has not come to its end.
        later = true + age * (POLICY.max_session + signer - verifier)
        # One who has not read of a key that signs at once reads again: see keys.live.
        verifying = record(later)
        by_his_clock = verifying.at(later + verifier)
        gone = [each.id for each in verifying.versions if each.disabled is not None]
        assert by_his_clock.get(key.id) is not None or key.id in gone
        if lag < POLICY.poll + POLICY.read and not any(each[1] != "rotate" for each in steps):
            assert record(later - lag).at(later + verifier).get(key.id) is not None
        for each in verifying.versions:
            if each.disabled is not None or each.ends(later + verifier):
                assert by_his_clock.get(each.id) is None
        true += 337


@given(STEPS, st.floats(0, 200_000))
def test_there_is_always_one_primary(steps: list[tuple[int, str, int, float]], now: float) -> None:
    for _, stored in lives(steps):
        found = states(stored, now)
        assert found.count(State.PRIMARY) == 1
        primary = stored.versions[found.index(State.PRIMARY)]
        assert stored.at(now).primary == primary.key
        accepted = {State.PRIMARY, State.PENDING, State.VERIFY_ONLY}
        assert {each.id for each in stored.at(now).versions} == {
            each.id for each, state in zip(stored.versions, found, strict=True) if state in accepted
        }
