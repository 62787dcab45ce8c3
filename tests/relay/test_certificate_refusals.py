"""Which clients do not take our certificates."""

from __future__ import annotations

from iam_auth_proxy.names import Origin
from iam_auth_proxy.relay.certificate_refusals import IN_A_ROW, MOST, REMEMBERED, Refusals

APP = Origin("https", "app.test", 443)
KEY = (APP, "hello")


def test_an_alert_counts_at_once_and_for_a_while() -> None:
    known = Refusals()
    known.refused(KEY, 100)
    assert known.holds(KEY, 100 + REMEMBERED - 1)
    assert not known.holds((APP, "another client"), 100)
    assert not known.holds((Origin("https", "app.test", 8443), "hello"), 100)
    assert not known.holds(KEY, 100 + REMEMBERED)
    assert len(known) == 0


def test_the_second_close_in_a_row_counts() -> None:
    known = Refusals()
    assert not known.closed(KEY, 100)
    assert not known.holds(KEY, 100)
    assert known.closed(KEY, 100 + IN_A_ROW)
    assert known.holds(KEY, 100 + IN_A_ROW)


def test_closes_that_are_far_apart_do_not() -> None:
    known = Refusals()
    for count in range(5):
        assert not known.closed(KEY, count * (IN_A_ROW + 1))


def test_who_spoke_may_close() -> None:
    known = Refusals()
    known.closed(KEY, 1)
    known.spoke(KEY, 2)
    for now in range(3, 10):
        assert not known.closed(KEY, now)
    known.refused(KEY, 10)  # and says no all the same: the CA was taken back
    assert known.holds(KEY, 10)


def test_hosts_and_clients_without_end_take_no_room_without_end() -> None:
    known = Refusals()
    for number in range(3 * MOST):
        known.refused((APP, f"r{number}"), 0)
        known.closed((APP, f"c{number}"), 0)
        known.spoke((APP, f"s{number}"), 0)
    assert len(known) == 3 * MOST
    assert known.holds((APP, f"r{3 * MOST - 1}"), 1)
    assert not known.holds((APP, "r0"), 1)
