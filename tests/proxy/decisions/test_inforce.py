"""What follows from the rules of trust."""

from __future__ import annotations

from dataclasses import replace

from iam_auth_proxy.config import TrustRule, parse_trust
from iam_auth_proxy.config.values import ClientCertificate
from iam_auth_proxy.names import parse_origin
from iam_auth_proxy.proxy.decisions.inforce import InForce, Reach
from iam_auth_proxy.relay.tls import ClientIdentity

WIKI, DOCS = parse_origin("https://wiki.internal"), parse_origin("https://docs.internal")


def rule(origin: str, **more: object) -> TrustRule:
    return replace(parse_trust(origin), **more)  # type: ignore[arg-type]  # passed on


def test_what_comes_to_the_proxy() -> None:
    rules = [
        rule("http://app.test", via="b"),
        rule("http://d.test:81", via="direct"),
        rule("https://*.corp.example"),
    ]
    assert {*InForce.of(rules, ["b"]).reaches()} == {
        Reach("http", "app.test", 80, routed=True),
        Reach("http", "d.test", 81),
        Reach("https", "corp.example", 443, wildcard=True),
    }


def test_a_route_that_nobody_defined_is_kept_and_trusts_nobody() -> None:
    found = InForce.of([rule("http://app.test", via="gone"), rule("http://other.test")], ["b"])
    assert [str(each) for each, _ in found.merged] == ["http://other.test"]
    assert {each.host for each in found.routed} == {"app.test", "other.test"}


def test_aliases_and_certificates() -> None:
    mine = ClientCertificate("/me.pem", "/me.key")
    found = InForce.of(
        [
            rule(str(WIKI), https="alias", alias="w", client=mine),
            rule(str(DOCS), https="alias"),
            rule("https://*.corp.example", client=mine),
        ],
        [],
    )
    assert found.aliases == {"w": WIKI, "docs": DOCS}
    assert found.clients == {WIKI: ClientIdentity("/me.pem", "/me.key")}
    assert found.adds == {WIKI}


def test_nothing_follows_from_nothing() -> None:
    assert InForce.of([], []) == InForce((), {}, {}, frozenset(), ())
