"""The salt of the legacy context, by the clock."""

from __future__ import annotations

import re

from iam_auth_proxy.protocol import salt
from iam_auth_proxy.protocol.keyring import KeyVersion

ONE = KeyVersion.of(b"one")
DAY = 86_400


def test_is_known_to_old_and_new_releases() -> None:
    """Workers of two releases run side by side while one replaces the other."""
    epoch = 1_700_000_000 // DAY
    assert salt.salt_of(ONE, epoch, DAY) == "kAH9_2IZ_h9VDaMQYH-rOBAOXqm3ys6X"
    assert salt.salt_of(ONE, epoch - 1, DAY) == "YFG-q9xG7Dve40jVU3FUC0I12DTjWB_D"


def test_is_the_same_for_every_worker() -> None:
    assert salt.salt_of(ONE, 7) == salt.salt_of(KeyVersion.of(b"one", created=5), 7, 900)


def test_says_nothing_of_other_epochs_periods_or_keys() -> None:
    found = {
        salt.salt_of(ONE, 10),
        salt.salt_of(ONE, 9),
        salt.salt_of(ONE, 10, DAY),
        salt.salt_of(KeyVersion.of(b"two"), 10),
    }
    assert len(found) == 4
    assert all(re.fullmatch(r"[A-Za-z0-9_-]{32}", text) for text in found)


def test_the_context_is_the_seeds() -> None:
    assert salt.context("x") == {"salt": "x"}
