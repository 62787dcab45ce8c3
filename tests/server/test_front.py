"""Where a request came to, with and without front ends."""

from __future__ import annotations

import ipaddress

import pytest

from iam_auth_proxy.errors import Malformed, Misdirected
from iam_auth_proxy.names import parse_origin
from iam_auth_proxy.server.front import Front
from tests.server.conftest import request

FORWARDED = {
    "x-forwarded-proto": "https",
    "x-forwarded-host": "app.test",
    "x-forwarded-for": "198.51.100.7",
}


def front(*trusted: str, origins: tuple[str, ...] = ()) -> Front:
    networks = [item if item == "unix" else ipaddress.ip_network(item) for item in trusted]
    return Front(tuple(parse_origin(origin) for origin in origins), tuple(networks))


@pytest.mark.parametrize("trusted", [(), ("10.0.0.0/8",), ("unix",)])
def test_a_stranger_says_nothing_about_itself(trusted: tuple[str, ...]) -> None:
    place = front(*trusted).locate(request(host="direct.test", headers=FORWARDED))
    assert (str(place.origin), place.client) == ("http://direct.test", "192.0.2.1")


@pytest.mark.parametrize(
    ("trusted", "client"),
    [("10.0.0.0/8", "10.1.2.3"), ("unix", ""), ("10.0.0.0/8", "::ffff:10.1.2.3")],
)
def test_a_trusted_front_end_is_believed(trusted: str, client: str) -> None:
    place = front(trusted).locate(request(host="inner", client=client, headers=FORWARDED))
    assert (str(place.origin), place.client) == ("https://app.test", "198.51.100.7")


def test_a_front_end_that_says_nothing() -> None:
    place = front("10.0.0.0/8").locate(request(client="10.1.2.3"))
    assert (str(place.origin), place.client) == ("http://app.test", "10.1.2.3")


@pytest.mark.parametrize(
    ("hops", "client"),
    [
        (["6.6.6.6, 198.51.100.7"], "198.51.100.7"),
        (["6.6.6.6", "198.51.100.7, 10.9.9.9"], "198.51.100.7"),
        (["198.51.100.7, rubbish"], "10.1.2.3"),
        (["10.4.4.4, 10.9.9.9"], "10.4.4.4"),
        ([""], "10.1.2.3"),
    ],
)
def test_the_client_is_the_nearest_stranger(hops: list[str], client: str) -> None:
    headers = [("x-forwarded-for", hop) for hop in hops]
    place = front("10.0.0.0/8").locate(request(client="10.1.2.3", headers=headers))
    assert place.client == client


@pytest.mark.parametrize(
    "headers",
    [
        [("x-forwarded-proto", "https, http")],
        [("x-forwarded-proto", "https"), ("x-forwarded-proto", "https")],
        [("x-forwarded-proto", "ftp")],
        [("x-forwarded-host", "a.test, b.test")],
        [("x-forwarded-host", "a@b")],
        [("host", "second.test")],
    ],
)
def test_ambiguous_is_malformed(headers: list[tuple[str, str]]) -> None:
    with pytest.raises(Malformed):
        front("10.0.0.0/8").locate(request(client="10.1.2.3", headers=headers))


def test_origins_are_compared_whole() -> None:
    listed = front(origins=("https://app.test",))
    with pytest.raises(Misdirected, match="X-Forwarded-Proto"):
        listed.locate(request())
    with pytest.raises(Misdirected, match=r"^http://evil\.test is .*: https://app\.test$"):
        listed.locate(request(host="evil.test"))
    assert (
        str(listed.locate(request(scheme="https", host="APP.test:443")).origin)
        == "https://app.test"
    )
