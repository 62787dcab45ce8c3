"""How often."""

from __future__ import annotations

import pytest

from iam_auth_proxy.errors import TooManyRequests
from iam_auth_proxy.names import Origin
from iam_auth_proxy.proxy.limits import Pace

A, B = Origin("http", "a.test", 80), Origin("http", "b.test", 80)


def test_ten_in_a_row_and_then_one_in_three_seconds() -> None:
    pace = Pace()
    for _ in range(10):
        pace.take(A, 100.0)
    for now, wait in ((100.0, 3.0), (102.0, 1.0), (102.9, 0.1)):
        with pytest.raises(TooManyRequests) as caught:
            pace.take(A, now)
        assert caught.value.retry_after == pytest.approx(wait)
    pace.take(B, 102.0)
    pace.take(A, 103.0)
    with pytest.raises(TooManyRequests):
        pace.take(A, 103.0)


def test_a_rest_fills_it_and_no_more() -> None:
    pace = Pace(burst=2, refill=1.0)
    for now in (0.0, 100.0, 100.0):
        pace.take(A, now)
    with pytest.raises(TooManyRequests):
        pace.take(A, 100.0)


def test_it_stays_small() -> None:
    pace = Pace(burst=1, limit=2)
    for port in range(1, 5):
        pace.take(Origin("http", "a.test", port), 0.0)
    assert len(pace._full_at) == 2
