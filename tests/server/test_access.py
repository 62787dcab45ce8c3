"""Rules on identities."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from iam_auth_proxy.errors import Malformed
from iam_auth_proxy.protocol.identity import Identity, parse
from iam_auth_proxy.server.access import Allowed, parse_rule, parse_rules

A = "111122223333"
ANN = parse(f"arn:aws:iam::{A}:user/team/ann", "AIDA12345678901234567")
DEPLOY = parse(f"arn:aws:sts::{A}:assumed-role/deploy/ann", "AROA12345678901234567:ann")
ADMIN = parse(
    f"arn:aws:sts::{A}:assumed-role/AWSReservedSSO_Admin_0123456789abcdef/ann@x.org",
    "AROA99999999999999999:ann@x.org",
)
FEDERATED = parse(f"arn:aws:sts::{A}:federated-user/ann", f"{A}:ann")
ROOT = parse(f"arn:aws:iam::{A}:root", A)
EVERYBODY = (ANN, DEPLOY, ADMIN, FEDERATED, ROOT)


@pytest.mark.parametrize(
    ("rules", "who"),
    [
        ("user", [ANN]),
        ("user:ann", [ANN]),
        ("user:Ann", []),
        ("user:bob", []),
        ("role:deploy", [DEPLOY]),
        ("role:ann", []),
        ("role", [DEPLOY]),
        ("role:AWSReservedSSO_Admin_0123456789abcdef", []),
        ("sso:Admin", [ADMIN]),
        ("sso:Admi", []),
        ("sso", [ADMIN]),
        ("federated:ann", [FEDERATED]),
        ("root", [ROOT]),
        (f"{A}/user:ann role", [ANN, DEPLOY]),
        ("999999999999/user:ann", []),
        ("id:AIDA12345678901234567", [ANN]),
        ("id:AROA12345678901234567", [DEPLOY]),
    ],
)
def test_of_whom_rules_speak(rules: str, who: list[Identity]) -> None:
    allowed = parse_rules(rules)
    assert [identity for identity in EVERYBODY if allowed(identity)] == who


@pytest.mark.parametrize(
    ("rule", "error"),
    [
        ("signed-identity:service:ci", "comes with a service token"),
        ("service-token:user:ann", "is not a rule"),
        ("sandbox/user:ann", "not an account id"),
        ("user:" + "a" * 65, "more than 64"),
        ("sand box/service", "is not a rule"),
        ("a/b/service:ci", "is not a rule"),
        ("service:" + "a" * 129, "is not a rule"),
    ],
)
def test_rules_about_tokens_and_proofs_that_cannot_be(rule: str, error: str) -> None:
    with pytest.raises(Malformed, match=error):
        parse_rule(rule)


def test_a_rule_may_ask_for_the_proof() -> None:
    allowed = parse_rules(["signed-identity:id:AIDA12345678901234567", "session-credentials:role"])
    assert allowed(ANN, "signed-identity")
    assert not allowed(ANN, "session-credentials")
    assert not allowed(ANN)
    assert allowed(DEPLOY, "session-credentials")


def test_by_default_neither_root_nor_federated() -> None:
    assert [identity for identity in EVERYBODY if Allowed()(identity)] == [ANN, DEPLOY, ADMIN]


def test_a_function_is_not_asked_about_root_and_federated() -> None:
    asked = []
    allowed = parse_rules(lambda identity: asked.append(identity) or True)
    assert (
        [identity for identity in EVERYBODY if allowed(identity)] == asked == [ANN, DEPLOY, ADMIN]
    )


@pytest.mark.parametrize(
    "text",
    ["", "*", "user:*", "user:", "user:a/b", "ann", "root:x", "arn:aws:iam::111122223333:user/ann",
     "11112222333/user", "USER", "user:ann\n", "id:ASIA12345678901234567", "id:AIDA*",
     "session:ann"],
)  # fmt: skip
def test_refused(text: str) -> None:
    with pytest.raises(Malformed):
        parse_rule(text)


@given(st.text(max_size=40))
def test_any_text_is_a_rule_or_refused(text: str) -> None:
    try:
        rule = parse_rule(text)
    except Malformed:
        return
    assert rule.kind is not None or rule.unique_id
