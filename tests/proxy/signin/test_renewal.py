"""When a session is renewed ahead."""

from __future__ import annotations

import pytest

from iam_auth_proxy.proxy.signin.renewal import RETRY_AFTER, TRIES, Due


@pytest.mark.parametrize(
    ("life", "left"),
    [(43200.0, 600.0), (3600.0, 360.0), (600.0, 60.0), (300.0, 60.0), (100.0, 50.0), (0.0, 0.0)],
)
def test_how_much_is_left_then(life: float, left: float) -> None:
    due = Due(1e9, life)
    assert due.at == 1e9 - left
    assert not due.is_due(due.at - 1)
    assert due.is_due(due.at)


def test_one_at_a_time_and_no_more_than_twice() -> None:
    due, now = Due(1000.0, 1000.0), 900.0
    for _ in range(TRIES):
        assert due.is_due(now)
        due.begin()
        assert not due.is_due(1e12), "while one is under way"
        due.failed(now)
        assert not due.is_due(now + RETRY_AFTER - 1)
        now += RETRY_AFTER
    assert TRIES == 2
    assert not due.is_due(1e12)
