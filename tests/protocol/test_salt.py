"""The salt of the legacy context, by the clock."""

from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st

from iam_auth_proxy.protocol import salt
from iam_auth_proxy.protocol.keyring import KeyRing, KeyVersion

RING = KeyRing(primary=KeyVersion.of(b"one"))
DAY = 86_400


def test_is_the_same_within_an_epoch_and_for_every_worker() -> None:
    other_worker = KeyRing(primary=KeyVersion.of(b"one"), also_accepted=(KeyVersion.of(b"x"),))
    assert salt.salts(RING, 10 * DAY, DAY) == salt.salts(other_worker, 11 * DAY - 0.001, DAY)


def test_is_known_to_old_and_new_releases() -> None:
    """Workers of two releases run side by side while one replaces the other."""
    assert salt.salts(RING, 1_700_000_000, DAY) == (
        "kAH9_2IZ_h9VDaMQYH-rOBAOXqm3ys6X",
        "YFG-q9xG7Dve40jVU3FUC0I12DTjWB_D",
    )


@given(st.floats(0, 1e11), st.integers(1, 10 * DAY))
def test_the_previous_one_is_the_current_one_of_an_epoch_ago(now: float, period: int) -> None:
    epoch = int(now // period)
    current, previous = salt.salts(RING, now, period)
    assert current != previous
    assert salt.salts(RING, (epoch + 1) * period, period)[1] == current


def test_says_nothing_of_other_epochs_periods_or_keys() -> None:
    found = {
        *salt.salts(RING, 10 * DAY, DAY),
        *salt.salts(RING, 20 * DAY, DAY),
        *salt.salts(RING, 10 * DAY, DAY // 2),
        *salt.salts(KeyRing(primary=KeyVersion.of(b"two")), 10 * DAY, DAY),
    }
    assert len(found) == 8
    assert all(re.fullmatch(r"[A-Za-z0-9_-]{32}", text) for text in found)


def test_the_context_is_the_seeds() -> None:
    assert salt.context("x") == {"salt": "x"}
