"""One-time tickets."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from iam_auth_proxy.names import parse_origin
from iam_auth_proxy.proxy.signin.tickets import LIFE, Tickets, TicketUrl, parse_url, write_url

APP = parse_origin("http://app.test")
OTHER = parse_origin("http://other.test")


def issued() -> tuple[Tickets[str], TicketUrl]:
    tickets: Tickets[str] = Tickets()
    return tickets, TicketUrl(tickets.issue(APP, "curl", "/x?y=1", "grant", 100.0), "/x?y=1")


def test_good_once() -> None:
    tickets, url = issued()
    assert tickets.redeem(url, APP, "curl", 101.0) == "grant"
    assert tickets.redeem(url, APP, "curl", 101.0) is None


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"origin": OTHER}, "another origin"),
        ({"client": "wget"}, "another client"),
        ({"return_url": "/z"}, "another URL"),
        ({"now": 100.0 + LIFE}, "too late"),
    ],
)
def test_bound_to_what_it_was_issued_for(change: dict[str, object], why: str) -> None:
    tickets, url = issued()
    shown = {"origin": APP, "client": "curl", "return_url": url.return_url, "now": 101.0} | change
    other = TicketUrl(url.ticket, str(shown["return_url"]))
    redeemed = tickets.redeem(
        other, shown["origin"], str(shown["client"]), float(str(shown["now"]))
    )  # type: ignore[arg-type]  # why: one of the values is an Origin
    assert redeemed is None, why
    assert tickets.redeem(url, APP, "curl", 101.0) is None, "a wrong guess spends it"


def test_unguessable_and_different() -> None:
    tickets: Tickets[int] = Tickets()
    seen = {tickets.issue(APP, "", "/", n, 0.0) for n in range(1000)}
    assert len(seen) == 1000
    assert {len(ticket) for ticket in seen} == {22}


def test_bounded() -> None:
    tickets: Tickets[int] = Tickets(limit=3)
    urls = [TicketUrl(tickets.issue(APP, "", "/", n, 0.0), "/") for n in range(5)]
    assert len(tickets) == 3
    assert [tickets.redeem(url, APP, "", 1.0) for url in urls] == [None, None, 2, 3, 4]
    tickets.issue(APP, "", "/", 0, 0.0)
    tickets.issue(APP, "", "/", 1, LIFE + 1)
    assert len(tickets) == 1, "the late ones go when a new one comes"


@given(st.sampled_from(["/", "/a?b=c&d=%20", "/x?next=//y&ticket=1", "/%E2%82%AC"]))
def test_url_round_trip(return_url: str) -> None:
    url = TicketUrl("A" * 22, return_url)
    assert parse_url(write_url("/auth", url).encode(), "/auth") == url


@pytest.mark.parametrize(
    "target",
    [
        b"/auth",
        b"/auth?",
        b"/auth?token=x&return_url=/",
        b"/auth?return_url=%2F",
        b"/auth?return_url=%2F&ticket=short",
        b"/auth?return_url=%2F&ticket=" + b"A" * 23,
        b"/auth?return_url=%2F&ticket=" + b"A" * 22 + b"&x=1",
        b"/auth?return_url=%2F&ticket=" + b"A" * 22 + b"&ticket=" + b"A" * 22,
        b"/auth?ticket=" + b"A" * 22 + b"&ticket=" + b"A" * 22,
        b"/auth?return_url=%2F%2Fevil.example&ticket=" + b"A" * 22,
        b"/auth?return_url=http%3A%2F%2Fevil.example&ticket=" + b"A" * 22,
        b"/auth?return_url=%2F%0d%0aX:1&ticket=" + b"A" * 22,
        b"/auth/?return_url=%2F&ticket=" + b"A" * 22,
        b"/x?return_url=%2F&ticket=" + b"A" * 22,
    ],
)
def test_what_is_not_a_tickets_url_is_the_apps(target: bytes) -> None:
    assert parse_url(target, "/auth") is None


@given(st.binary(max_size=200))
def test_any_query_is_read_without_failing(query: bytes) -> None:
    parse_url(b"/auth?" + query, "/auth")
