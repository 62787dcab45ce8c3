"""What is remembered, and calls that are shared."""

from __future__ import annotations

import threading

import pytest

from iam_auth_proxy.errors import AwsUnavailable, IamAuthError
from iam_auth_proxy.tokens.cache import Flights, Lru


def test_the_least_recently_used_goes_first() -> None:
    lru: Lru[str, int] = Lru(2)
    for key, value in (("a", 1), ("b", 2)):
        lru.put(key, value)
    assert lru.get("a") == 1
    lru.put("c", 3)
    assert [lru.get(key) for key in "abc"] == [1, None, 3]
    lru.drop("a")
    lru.drop("never")
    assert len(lru) == 1


class Flight:
    """A call that is held until it is let go; and another thread that wants the same."""

    def __init__(self, flights: Flights[str, int], outcome: int | BaseException) -> None:
        self.flights = flights
        self._outcome = outcome
        self._begun, self.go = threading.Event(), threading.Event()
        self.leader = threading.Thread(target=self._lead)
        self.leader.start()
        assert self._begun.wait(10)

    def _lead(self) -> None:
        try:
            self.flights.share("x", self._call)
        except BaseException:  # noqa: BLE001  # the followers are what is looked at
            pass

    def _call(self) -> int:
        self._begun.set()
        assert self.go.wait(10)
        if isinstance(self._outcome, BaseException):
            raise self._outcome
        return self._outcome

    def follow(self) -> int:
        timer = threading.Timer(0.05, self.go.set)
        timer.start()
        try:
            return self.flights.share("x", self._never)
        finally:
            self.go.set()
            self.leader.join(10)
            timer.join(10)

    def _never(self) -> int:
        raise AssertionError("asked twice")


def test_the_followers_have_the_leaders_answer() -> None:
    assert Flight(Flights(), 7).follow() == 7
    with pytest.raises(IamAuthError, match="no way"):
        Flight(Flights(), IamAuthError("no way")).follow()


def test_a_leader_that_comes_to_no_answer() -> None:
    with pytest.raises(AwsUnavailable, match="came to no answer"):
        Flight(Flights(), KeyboardInterrupt()).follow()
    flight = Flight(Flights(patience=0.0), 7)
    with pytest.raises(AwsUnavailable, match="waits for the same"):
        flight.follow()


def test_the_next_one_asks_anew() -> None:
    flights: Flights[str, int] = Flights()
    assert [flights.share("x", lambda n=n: n) for n in (1, 2)] == [1, 2]
