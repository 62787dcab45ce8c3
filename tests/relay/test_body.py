"""However a counted body is cut into reads, it ends in the same place."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from iam_auth_proxy.relay.body import CountedBody


@given(st.integers(0, 30), st.lists(st.binary(min_size=1, max_size=20), max_size=5))
def test_a_counted_body_ends_where_its_length_says(length, reads):
    body, taken, data = CountedBody(length), b"", b"".join(reads)
    seen = 0
    for read in reads:
        if body.done:
            break
        taken += body.feed(read)
        seen += len(read)
    assert taken == data[: min(length, seen)]
    assert body.left == length - len(taken)
    assert body.done is (len(taken) == length)
    assert body.rest == (data[length:seen] if body.done else b"")
