"""Policy documents: what is understood, what is malformed, what is not emulated."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from iam_auth_proxy.local_aws import NotEmulated, PolicyError, allow, deny
from iam_auth_proxy.local_aws.policy import Kind, Verdict, evaluate, read_policy

KEY = "arn:aws:kms:eu-west-1:111122223333:key/abc"
ALICE = {"aws:username": ("alice",)}


def one(**statement: object) -> dict[str, object]:
    whole = {"Effect": "Allow", "Action": "kms:*", "Resource": "*", **statement}
    kept = {name: value for name, value in whole.items() if value is not None}
    return {"Version": "2012-10-17", "Statement": kept}


@pytest.mark.parametrize(
    ("document", "verdict"),
    [
        (allow("kms:Encrypt", resource=KEY), Verdict.ALLOW),
        (allow("kms:encrypt"), Verdict.ALLOW),
        (allow("KMS:Enc*"), Verdict.ALLOW),
        (allow("kms:Encryp?"), Verdict.ALLOW),
        (allow("*"), Verdict.ALLOW),
        (allow("kms:Decrypt", "kms:Encrypt"), Verdict.ALLOW),
        (allow("kms:Encrypt", resource=["arn:aws:s3:::x", KEY]), Verdict.ALLOW),
        (allow("kms:Encrypt", resource=KEY[:-1] + "?"), Verdict.ALLOW),
        (allow("kms:Encrypt", resource=KEY.upper()), Verdict.SILENT),
        (allow("kms:Encrypt", resource=KEY + "d"), Verdict.SILENT),
        (allow("kms:Encrypt", resource=KEY[:-1]), Verdict.SILENT),
        (allow("kms:Enc"), Verdict.SILENT),
        (allow("sts:Encrypt"), Verdict.SILENT),
        (deny("kms:Encrypt"), Verdict.DENY),
        (one(Action=None, NotAction="kms:Decrypt"), Verdict.ALLOW),
        (one(Action=None, NotAction=["kms:Encrypt", "s3:*"]), Verdict.SILENT),
        (one(Resource=None, NotResource="arn:aws:s3:::*"), Verdict.ALLOW),
        (one(Resource=None, NotResource=KEY), Verdict.SILENT),
        (one(Resource="arn:aws:kms:*:*:key/${aws:username}"), Verdict.SILENT),
        (one(Resource="${*}"), Verdict.SILENT),
    ],
)
def test_what_a_policy_says(document: dict[str, object], verdict: Verdict) -> None:
    assert evaluate([read_policy(document)], "kms:Encrypt", KEY, ALICE) is verdict


def test_a_deny_wins_wherever_it_stands() -> None:
    policies = [read_policy(allow("*")), read_policy(deny("kms:Encrypt"))]
    for order in (policies, policies[::-1]):
        assert evaluate(order, "kms:Encrypt", KEY, {}) is Verdict.DENY
        assert evaluate(order, "kms:Decrypt", KEY, {}) is Verdict.ALLOW
    assert evaluate([], "kms:Encrypt", KEY, {}) is Verdict.SILENT


def test_variables_are_filled_in_literally() -> None:
    policy = read_policy(allow("s3:*", resource="arn:aws:s3:::home/${aws:username}/*"))
    for name, path, verdict in (
        ("alice", "alice/x", Verdict.ALLOW),
        ("alice", "bob/x", Verdict.SILENT),
        ("*", "bob/x", Verdict.SILENT),
        ("a.b", "aXb/x", Verdict.SILENT),
    ):
        context = {"aws:username": (name,)}
        resource = f"arn:aws:s3:::home/{path}"
        assert evaluate([policy], "s3:GetObject", resource, context) is verdict
    assert evaluate([policy], "s3:GetObject", "arn:aws:s3:::home//x", {}) is Verdict.SILENT


@pytest.mark.parametrize(
    "document",
    [
        "",
        "[]",
        "null",
        {"Statement": []},
        {"Version": "2012-10-17"},
        {"Version": "2020-01-01", "Statement": one()["Statement"]},
        {**one(), "More": 1},
        {"Version": "2012-10-17", "Statement": "x"},
        one(Effect="allow"),
        one(Effect=None),
        one(Action=None),
        one(Action="kms"),
        one(Action=[]),
        one(Action=[1]),
        one(NotAction="kms:*"),
        one(Resource=None),
        one(Resource={}),
        one(NotResource="*"),
        one(Extra=1),
        one(Condition=[]),
        one(Condition={"StringEquals": "x"}),
        one(Condition={"StringEquals": {"aws:username": {}}}),
        one(Condition={"NumericEquals": {"aws:EpochTime": "x"}}),
        one(Condition={"IpAddress": {"aws:SourceIp": "x"}}),
        one(Condition={"DateLessThan": {"aws:CurrentTime": "x"}}),
        one(Principal="*"),
    ],
)
def test_malformed(document: Any) -> None:
    with pytest.raises(PolicyError):
        read_policy(document)


@pytest.mark.parametrize(
    "principal",
    ["x", {"AWS": "x"}, {"AWS": "arn:aws:iam::111122223333:user/*x\n"}, {"X": "y"}, {"AWS": []}],
)
def test_malformed_principals(principal: object) -> None:
    with pytest.raises(PolicyError):
        read_policy(one(Principal=principal), Kind.RESOURCE)


def test_principals_and_resources_belong_where_they_belong() -> None:
    with pytest.raises(PolicyError):
        read_policy(one(), Kind.RESOURCE)
    with pytest.raises(PolicyError):
        read_policy(one(Principal="*"), Kind.TRUST)
    trust = read_policy(one(Principal="*", Resource=None), Kind.TRUST)
    assert trust.principals == {"*"}


@pytest.mark.parametrize(
    "document",
    [
        one(Condition={"BinaryEquals": {"aws:username": "x"}}),
        one(Condition={"StringMatches": {"aws:username": "x"}}),
        one(Condition={"SomeValues:StringEquals": {"aws:username": "x"}}),
        one(Condition={"StringEquals": {"aws:PrincipalTag/team": "x"}}),
        one(Condition={"StringEquals": {"s3:prefix": "x"}}),
        one(Condition={"StringEquals": {"aws:username": "${aws:PrincipalTag/team}"}}),
        one(Resource="arn:aws:s3:::${aws:PrincipalTag/team}"),
        one(Resource="arn:aws:s3:::${aws:username, 'default'}"),
        one(NotPrincipal={"AWS": "*"}),
        {"Version": "2008-10-17", "Statement": one(Resource="${aws:username}")["Statement"]},
    ],
)
def test_what_is_not_emulated_raises(document: dict[str, object]) -> None:
    with pytest.raises(NotEmulated):
        read_policy(document)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=6,
)
elements = st.sampled_from(["Effect", "Action", "Resource", "Principal", "Condition", "Sid", "X"])


@given(statement=st.dictionaries(elements, json_values), kind=st.sampled_from(Kind))
@settings(max_examples=100)
def test_reading_never_raises_anything_else(statement: dict[str, Any], kind: Kind) -> None:
    whole = {"Effect": "Allow", "Action": "a:b", "Resource": "*", **statement}
    try:
        read_policy(json.dumps({"Version": "2012-10-17", "Statement": [whole]}), kind)
    except (PolicyError, NotEmulated):
        pass
