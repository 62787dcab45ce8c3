"""Per client, then for all together."""

from __future__ import annotations

import pytest

from iam_auth_proxy.server.limits import SignInLimits


def limits(**change: float) -> SignInLimits:
    given = {"client_rate": 1, "client_burst": 3, "global_rate": 2, "global_burst": 5} | change
    return SignInLimits(**given)  # type: ignore[arg-type]  # clients is an int


def test_a_burst_and_then_a_rate() -> None:
    limit = limits()
    assert [limit.admit("a", 0) for _ in range(4)] == [0, 0, 0, 1]
    assert limit.admit("a", 0.5) == 0.5
    assert limit.admit("a", 1) == 0
    assert limit.admit("a", 1) == 1


def test_who_floods_takes_little_from_the_others() -> None:
    limit = limits()
    for _ in range(100):
        limit.admit("a", 0)
    assert [limit.admit("b", 0) for _ in range(3)] == [0, 0, 0.5]


def test_a_clock_set_back_does_no_harm() -> None:
    limit = limits()
    for _ in range(3):
        limit.admit("a", 1000)
    assert limit.admit("a", 0) == 1
    assert limit.admit("a", 1) == 0


def test_the_number_of_clients_kept_is_bounded() -> None:
    limit = limits(clients=2, global_burst=100)
    for client in "abcd":
        limit.admit(client, 0)
    assert len(limit._buckets) == 2


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("2001:db8::1", "2001:db8::ffff", True),
        ("2001:db8::1", "2001:db8:0:1::1", False),
        ("192.0.2.1", "192.0.2.2", False),
        ("192.0.2.1", "::ffff:192.0.2.1", True),
        ("", "", True),
    ],
)
def test_who_is_one_client(one: str, other: str, same: bool) -> None:
    limit = limits(client_burst=1, global_burst=100)
    assert limit.admit(one, 0) == 0
    assert (limit.admit(other, 0) > 0) is same
