"""How often."""

from __future__ import annotations

import pytest

from iam_auth_proxy.errors import TooManyRequests
from iam_auth_proxy.names import Origin
from iam_auth_proxy.proxy.decisions.limits import Pace, likeness
from iam_auth_proxy.relay.exchange import RequestHead

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


def test_names_under_wildcards_share_one_bucket_besides_their_own() -> None:
    pace = Pace()
    names = [Origin("http", f"{number}.evil.test", 80) for number in range(40)]
    for name in names[:30]:
        pace.take(name, 100.0, wildcard=True)
    for now, wait in ((100.0, 1.0), (100.9, 0.1)):
        with pytest.raises(TooManyRequests) as caught:
            pace.take(names[30], now, wildcard=True)
        assert caught.value.retry_after == pytest.approx(wait)
    pace.take(A, 100.9)  # named: others do not use up its sign-ins
    pace.take(names[30], 101.0, wildcard=True)
    with pytest.raises(TooManyRequests):
        pace.take(names[31], 101.0, wildcard=True)


def test_what_its_own_bucket_refuses_takes_nothing_from_the_shared_one() -> None:
    pace = Pace(burst=1, refill=1000.0)
    pace.take(A, 0.0, wildcard=True)
    for _ in range(40):
        with pytest.raises(TooManyRequests):
            pace.take(A, 0.0, wildcard=True)
    pace.take(B, 0.0, wildcard=True)


def test_what_is_the_same_request() -> None:
    def request(*headers: tuple[bytes, bytes], method: bytes = b"GET") -> RequestHead:
        return RequestHead(method, b"/graphql", list(headers))

    host, cookie = (b"Host", b"a.test"), (b"cookie", b"seen=1")
    assert likeness(request(host)) == likeness(request(host, cookie))
    others = [request(), request(host, method=b"HEAD"), request(host, (b"Content-Length", b"5"))]
    others += [RequestHead(b"GET", b"/", [host]), request((b"Host", b"b.test"))]
    assert len({likeness(each) for each in [*others, request(host)]}) == 6
