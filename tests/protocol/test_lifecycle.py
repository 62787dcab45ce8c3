"""What follows from a policy, and which versions there can be."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from iam_auth_proxy.errors import Malformed
from iam_auth_proxy.protocol.keyring import KeyVersion
from iam_auth_proxy.protocol.lifecycle import MAX_LIVE, MAX_TIME, Policy, Version, over, started

MATERIAL = bytes(range(32))
VERSION = Version.made(MATERIAL, 1000, 2000)


class TestPolicy:
    def test_times_are_computed(self) -> None:
        policy = Policy(
            rotate_every=86_400, max_session=7200, poll=30, skew=60, read=10, outage=600
        )
        assert policy.propagation == 10 + 30 + 10 + 60 + 600
        assert policy.overlap == 7200 + 60

    def test_a_salt_outlives_a_short_session(self) -> None:
        """Tokens sealed for a salt open for two periods of 900 s."""
        assert Policy(max_session=60, skew=60).overlap == 1800 + 60

    @pytest.mark.parametrize(
        "given",
        [
            {"rotate_every": 0},
            {"max_session": 0},
            {"poll": 0},
            {"skew": -1},
            {"read": -1},
            {"outage": -1},
            {"rotate_every": 11 * 366 * 86_400},
        ],
    )
    def test_bounds(self, given: dict[str, int]) -> None:
        with pytest.raises(Malformed, match=f"{next(iter(given))} is out of bounds"):
            Policy(**given)

    def test_a_rotation_is_over_before_the_next(self) -> None:
        times = {"poll": 30, "read": 10, "skew": 60, "outage": 3600}
        with pytest.raises(Malformed, match="due before the one before it signs"):
            Policy(rotate_every=3710, max_session=60, **times)
        Policy(rotate_every=3711, max_session=60, **times)

    def test_versions_do_not_pile_up(self) -> None:
        with pytest.raises(Malformed, match="too many versions"):
            Policy(rotate_every=86_400, max_session=(MAX_LIVE - 1) * 86_400)


class TestVersion:
    def test_its_id_is_that_of_the_cookies(self) -> None:
        assert VERSION.id == KeyVersion.of(MATERIAL).id
        assert VERSION.key == KeyVersion(VERSION.id, MATERIAL, 1000)
        imported = replace(VERSION, activates=None, retires=3000, destroys=3000)
        assert imported.key == KeyVersion(VERSION.id, MATERIAL, 0)

    def test_its_material_is_not_in_the_repr(self) -> None:
        assert "material" not in repr(VERSION)

    @pytest.mark.parametrize(
        ("change", "reason"),
        [
            ({"id": "AB"}, "not 1 to 64 hexadecimal"),
            ({"id": ""}, "not 1 to 64 hexadecimal"),
            ({"id": "a" * 65}, "not 1 to 64 hexadecimal"),
            ({"id": "ab"}, "id is not that of its material"),
            ({"created": -1}, "a time of a key version"),
            ({"activates": MAX_TIME + 1}, "a time of a key version"),
            ({"activates": 999}, "activates before it is created"),
            ({"material": None}, "in use has no material"),
            ({"disabled": 1500}, "has its material still"),
            ({"material": bytes(31)}, "too short or too long"),
            ({"material": bytes(1025)}, "too short or too long"),
            ({"retires": 3000}, "only one of retirement and destruction"),
            ({"destroys": 3000}, "only one of retirement and destruction"),
            ({"activates": None}, "never retires"),
            ({"retires": 2000, "destroys": 3000}, "not in their order"),
            ({"retires": 3000, "destroys": 2999}, "not in their order"),
            ({"activates": None, "retires": 1000, "destroys": 1001}, "not in their order"),
        ],
    )
    def test_what_it_cannot_be(self, change: dict[str, Any], reason: str) -> None:
        with pytest.raises(Malformed, match=reason) as caught:
            replace(VERSION, **change)
        assert MATERIAL.hex() not in str(caught.value)

    def test_what_else_it_can_be(self) -> None:
        replace(VERSION, retires=2001, destroys=2001)
        replace(VERSION, activates=None, retires=1001, destroys=1001)
        replace(VERSION, material=None, disabled=1500)
        replace(VERSION, material=None, disabled=1500, activates=None)
        replace(VERSION, material=None, retires=3000, destroys=3000)


def test_seconds() -> None:
    assert (started(5.0), started(5.9), over(5.0), over(5.1)) == (5, 5, 5, 6)
