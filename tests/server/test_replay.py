"""What was spent stays spent until it has expired, whatever else is spent meanwhile."""

from __future__ import annotations

import threading
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from iam_auth_proxy.server.replay import MemoryReplay, StoreFull


def test_once() -> None:
    store = MemoryReplay()
    assert not store.seen(b"a", 0)
    assert store.spend(b"a", until=10, now=0)
    assert store.seen(b"a", 9)
    assert not store.spend(b"a", until=20, now=9)
    assert not store.seen(b"a", 10)
    assert store.spend(b"a", until=20, now=10)


def test_it_is_bounded_and_refuses_rather_than_forgets() -> None:
    store = MemoryReplay(limit=2)
    assert store.spend(b"a", until=10, now=0)
    assert store.spend(b"b", until=20, now=0)
    with pytest.raises(StoreFull):
        store.spend(b"c", until=30, now=0)
    assert store.spend(b"c", until=30, now=10)
    assert len(store) == 2


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(1, 9)), max_size=40))
def test_as_a_plain_dictionary_would(steps: list[tuple[int, int]]) -> None:
    store, plain = MemoryReplay(), dict[int, int]()
    for now, (digest, life) in enumerate(steps):
        fresh = plain.get(digest, 0) <= now
        assert store.spend(bytes([digest]), until=now + life, now=now) is fresh
        if fresh:
            plain[digest] = now + life


def test_of_many_threads_one_wins() -> None:
    store, start, won = MemoryReplay(), threading.Barrier(8), list[bool]()

    def spend() -> None:
        start.wait(5)
        won.append(store.spend(b"a", until=10, now=0))

    threads = [threading.Thread(target=spend) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(5)
    assert sorted(won) == [False] * 7 + [True]


def test_of_two_between_look_and_leap_one_wins() -> None:
    """Threads rarely change places there, so both are made to stop there."""
    meet = threading.Barrier(2)

    class Slow(dict[bytes, float]):
        def __contains__(self, key: object) -> bool:
            found = super().__contains__(key)
            with suppress(threading.BrokenBarrierError):
                meet.wait(0.2)  # in vain, where only one at a time may look
            return found

    store, won = MemoryReplay(), list[bool]()
    store._spent = Slow()
    threads = [
        threading.Thread(target=lambda: won.append(store.spend(b"a", until=10, now=0)))
        for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(5)
    assert sorted(won) == [False, True]


def test_a_clock_that_is_set_back_makes_nothing_good_again() -> None:
    store = MemoryReplay()
    assert store.spend(b"a", until=300, now=0)
    assert store.spend(b"b", until=90_300, now=90_000)  # a day ahead: "a" is forgotten
    assert not store.spend(b"a", until=300, now=1)
    assert store.spend(b"c", until=301, now=1)
