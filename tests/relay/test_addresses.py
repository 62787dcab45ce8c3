"""Which addresses are dialled. The cases are data: tests/vectors/addresses.json."""

from __future__ import annotations

import json
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from iam_auth_proxy.errors import Malformed
from iam_auth_proxy.names import Origin
from iam_auth_proxy.relay.addresses import (
    AddressPolicy,
    canonical,
    far_refusal,
    is_private,
    parse_address,
    parse_target,
    refusal_of,
)

VECTORS = json.loads((Path(__file__).parents[1] / "vectors" / "addresses.json").read_text())


def address(text: str) -> IPv4Address | IPv6Address:
    parsed = parse_address(text)
    assert parsed is not None
    return parsed


@pytest.mark.parametrize("case", VECTORS["addresses"], ids=lambda case: case["address"])
def test_address_vectors(case: dict[str, Any]) -> None:
    assert AddressPolicy().refusal("app.test", address(case["address"]), 80) == case["refused"]


@pytest.mark.parametrize("case", VECTORS["far_names"], ids=lambda case: json.dumps(case))
def test_names_for_the_far_end(case: dict[str, Any]) -> None:
    origin = Origin("http" if case["plain"] else "https", case["host"], 80)
    asked: list[Origin] = []

    def trusted(of: Origin) -> bool:
        asked.append(of)
        return bool(case["trusted"])

    assert far_refusal(origin, plain=case["plain"], trusted=trusted) == case["refused"]
    assert set(asked) <= {origin}


class TestAllowedTargets:
    @pytest.mark.parametrize(
        ("entry", "host", "at", "port", "allowed"),
        [
            ("app.test", "app.test", "127.0.0.1", 80, True),
            ("APP.test", "app.test", "127.0.0.1", 8080, True),
            ("app.test:80", "app.test", "127.0.0.1", 80, True),
            ("app.test:80", "app.test", "127.0.0.1", 81, False),
            ("app.test", "evil.test", "127.0.0.1", 80, False),
            ("app.test", "x.app.test", "127.0.0.1", 80, False),
            ("127.0.0.1", "app.test", "127.0.0.1", 80, True),
            ("127.0.0.1", "app.test", "::ffff:127.0.0.1", 80, True),
            ("127.0.0.1", "app.test", "127.0.0.2", 80, False),
            ("127.0.0.1", "app.test", "0.0.0.0", 80, False),
            ("127.0.0.1:8000", "127.0.0.1", "127.0.0.1", 8000, True),
            ("127.0.0.1:8000", "127.0.0.1", "127.0.0.1", 8001, False),
            ("127.0.0.0/8", "app.test", "127.9.9.9", 80, True),
            ("127.0.0.0/8", "app.test", "169.254.169.254", 80, False),
            ("127.0.0.0/8", "app.test", "64:ff9b::127.0.0.1", 80, False),
            ("::1", "app.test", "::1", 80, True),
            ("[::1]", "app.test", "::1", 80, True),
            ("[::1]:8080", "app.test", "::1", 8080, True),
            ("[::1]:8080", "app.test", "::1", 80, False),
            ("[::ffff:127.0.0.1]", "app.test", "127.0.0.1", 80, True),
            ("fe80::/10", "app.test", "fe80::1%eth0", 80, True),
            ("fd00:ec2::/32", "app.test", "fd00:ec2::254", 80, True),
        ],
    )
    def test_lists(self, entry: str, host: str, at: str, port: int, allowed: bool) -> None:
        policy = AddressPolicy([parse_target(entry)])
        assert (policy.refusal(host, address(at), port) is None) is allowed

    @pytest.mark.parametrize(
        ("text", "why"),
        [
            ("", "an allowed target is"),
            ("*", "an allowed target is"),
            ("http://app.test", "an allowed target is"),
            ("app.test:", "an allowed target is"),
            ("app.test:x", "an allowed target is"),
            ("app.test:0", "port"),
            ("app.test:65536", "port"),
            ("127.0.0.1/8", "not a network"),
            ("127.0.0.0/33", "not a network"),
            ("127.1", "number"),
            ("0x7f000001", "number"),
            ("fe80::1%eth0", "an allowed target is"),
            ("[app.test]:80", "an allowed target is"),
            ("app .test", "an allowed target is"),
            ("app.test\n", "an allowed target is"),
            ("bücher.test", "an allowed target is"),
            ("::g", "an allowed target is"),
            ("1:2:3", "not an IPv6 address"),
        ],
    )
    def test_refuses_with_the_reason(self, text: str, why: str) -> None:
        with pytest.raises(Malformed, match=why):
            parse_target(text)

    @given(st.text(max_size=40))
    def test_any_text_parses_or_is_malformed(self, text: str) -> None:
        try:
            target = parse_target(text)
        except Malformed:
            return
        assert target.network is not None or target.name == text.lower().partition(":")[0]

    def test_a_name_is_listed_whatever_it_resolves_to(self) -> None:
        policy = AddressPolicy([parse_target("app.test:80"), parse_target("127.0.0.1")])
        assert policy.allows_name("app.test", 80)
        assert not policy.allows_name("app.test", 81)
        assert not policy.allows_name("127.0.0.1.test", 80)


class TestOurselves:
    OWN = "an address of this proxy"

    def test_a_listener_is_refused_even_where_its_address_is_listed(self) -> None:
        policy = AddressPolicy(
            [parse_target("127.0.0.0/8"), parse_target("::1")],
            listeners=[(ip_address("127.0.0.1"), 8080), (ip_address("::1"), 8080)],
        )
        for loop in ("127.0.0.1", "::1", "::ffff:127.0.0.1", "0.0.0.0", "0.0.0.7", "::"):
            assert policy.refusal("app.test", address(loop), 8080) == self.OWN
        # Another address of the loopback network, and another port, are other services.
        assert policy.refusal("app.test", address("127.0.0.2"), 8080) is None
        assert policy.refusal("app.test", address("127.0.0.1"), 8081) is None

    def test_a_listener_on_every_address_is_refused_on_each_of_this_machines(self) -> None:
        mine = address("192.168.1.7")
        asked: list[object] = []

        def is_own(candidate: object) -> bool:
            asked.append(candidate)
            return candidate == mine

        policy = AddressPolicy(
            [parse_target("127.0.0.1")], listeners=[(ip_address("0.0.0.0"), 8080)], is_own=is_own
        )
        assert policy.refusal("app.test", mine, 8080) == self.OWN
        assert policy.refusal("app.test", address("::ffff:192.168.1.7"), 8080) == self.OWN
        assert policy.refusal("app.test", address("192.168.1.8"), 8080) is None
        assert policy.refusal("app.test", address("127.0.0.1"), 8080) == self.OWN
        asked.clear()
        assert policy.refusal("app.test", mine, 80) is None
        assert asked == []

    def test_a_listener_on_one_address_leaves_the_others(self) -> None:
        policy = AddressPolicy(listeners=[(ip_address("192.168.1.7"), 8080)])
        assert policy.is_ourselves(address("192.168.1.7"), 8080)
        assert not policy.is_ourselves(address("192.168.1.8"), 8080)
        assert not policy.is_ourselves(address("0.0.0.0"), 8080)


@pytest.mark.parametrize(
    ("text", "private"),
    [
        ("127.0.0.1", True),
        ("10.1.2.3", True),
        ("172.31.255.255", True),
        ("172.32.0.0", False),
        ("192.168.0.1", True),
        ("100.64.0.1", True),
        ("100.128.0.0", False),
        ("169.254.1.1", True),
        ("::1", True),
        ("fd00::1", True),
        ("fe80::1%eth0", True),
        ("::ffff:10.0.0.1", True),
        ("::ffff:8.8.8.8", False),
        ("8.8.8.8", False),
        ("192.0.2.1", False),
        ("2600::1", False),
    ],
)
def test_private_networks(text: str, private: bool) -> None:
    assert is_private(address(text)) is private


@given(st.ip_addresses(v=4))
def test_a_mapped_address_is_judged_as_the_one_it_reaches(four: IPv4Address) -> None:
    mapped = IPv6Address(b"\0" * 10 + b"\xff\xff" + four.packed)
    assert canonical(mapped) == four
    assert AddressPolicy().refusal("x", mapped, 1) == refusal_of(four)


@given(st.ip_addresses())
def test_every_address_gets_an_answer(any_address: IPv4Address | IPv6Address) -> None:
    assert is_private(any_address) in (True, False)
    assert refusal_of(any_address) in (None, refusal_of(canonical(any_address)))


def test_names_are_not_addresses() -> None:
    assert parse_address("app.test") is None
