"""Condition operators, one line each: what holds, and what does not."""

from __future__ import annotations

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from iam_auth_proxy.local_aws.conditions import matches, read_conditions
from iam_auth_proxy.local_aws.errors import NotEmulated, PolicyError

CONTEXT = {
    "aws:username": ("alice",),
    "aws:epochtime": ("1000",),
    "aws:currenttime": ("2026-06-01T00:00:00+00:00",),
    "aws:multifactorauthpresent": ("true",),
    "aws:sourceip": ("10.1.2.3",),
    "aws:principalarn": ("arn:aws:iam::111122223333:role/teams/dev",),
    "kms:encryptioncontextkeys": ("from", "to"),
}
MISSING = "kms:EncryptionContext:absent"


@pytest.mark.parametrize(
    ("operator", "key", "value", "holds"),
    [
        ("StringEquals", "aws:username", "alice", True),
        ("StringEquals", "AWS:UserName", ["bob", "alice"], True),
        ("StringEquals", "aws:username", "Alice", False),
        ("StringEquals", "aws:username", "al*", False),
        ("StringEquals", "aws:username", "${aws:username}", True),
        ("StringEquals", "aws:username", "${aws:userid}", False),
        ("StringEqualsIgnoreCase", "aws:username", "ALICE", True),
        ("StringNotEquals", "aws:username", ["bob", "carol"], True),
        ("StringNotEquals", "aws:username", ["bob", "alice"], False),
        ("StringNotEqualsIgnoreCase", "aws:username", "ALICE", False),
        ("StringLike", "aws:username", "al?c*", True),
        ("StringLike", "aws:username", "b*", False),
        ("StringNotLike", "aws:username", "b*", True),
        ("NumericEquals", "aws:EpochTime", 1000, True),
        ("NumericNotEquals", "aws:EpochTime", "1000.0", False),
        ("NumericLessThan", "aws:EpochTime", "1000", False),
        ("NumericLessThanEquals", "aws:EpochTime", "1000", True),
        ("NumericGreaterThan", "aws:EpochTime", "999", True),
        ("NumericGreaterThanEquals", "aws:EpochTime", "1001", False),
        ("NumericEquals", "aws:username", "1", False),
        ("DateLessThan", "aws:CurrentTime", "2026-06-02T00:00:00Z", True),
        ("DateGreaterThan", "aws:CurrentTime", "2026-06-02T00:00:00Z", False),
        ("DateEquals", "aws:CurrentTime", "2026-06-01", True),
        ("DateGreaterThan", "aws:EpochTime", "999", True),
        ("Bool", "aws:MultiFactorAuthPresent", "true", True),
        ("Bool", "aws:MultiFactorAuthPresent", True, True),
        ("Bool", "aws:MultiFactorAuthPresent", "false", False),
        ("IpAddress", "aws:SourceIp", "10.0.0.0/8", True),
        ("IpAddress", "aws:SourceIp", "192.168.0.0/16", False),
        ("NotIpAddress", "aws:SourceIp", ["10.0.0.0/8"], False),
        ("ArnLike", "aws:PrincipalArn", "arn:aws:iam::*:role/teams/*", True),
        ("ArnEquals", "aws:PrincipalArn", "arn:aws:iam::111122223333:role/*", True),
        ("ArnLike", "aws:PrincipalArn", "arn:aws:*:role/teams/dev", False),
        ("ArnNotLike", "aws:PrincipalArn", "arn:aws:iam::*:user/*", True),
        ("Null", MISSING, "true", True),
        ("Null", MISSING, "false", False),
        ("Null", "aws:username", "false", True),
        ("Null", "aws:username", "true", False),
        ("StringEquals", MISSING, "x", False),
        ("StringLike", MISSING, "*", False),
        ("StringNotEquals", MISSING, "x", True),
        ("StringEqualsIfExists", MISSING, "x", True),
        ("StringEqualsIfExists", "aws:username", "x", False),
        ("BoolIfExists", MISSING, "false", True),
        ("ForAllValues:StringEquals", "kms:EncryptionContextKeys", ["from", "to", "x"], True),
        ("ForAllValues:StringEquals", "kms:EncryptionContextKeys", ["from"], False),
        ("ForAllValues:StringEquals", MISSING, ["from"], True),
        ("ForAnyValue:StringEquals", "kms:EncryptionContextKeys", ["to"], True),
        ("ForAnyValue:StringEquals", "kms:EncryptionContextKeys", ["x"], False),
        ("ForAnyValue:StringNotEquals", MISSING, ["x"], False),
    ],
)
def test_operators(operator: str, key: str, value: object, holds: bool) -> None:
    (condition,) = read_conditions({operator: {key: value}})
    assert condition.holds(CONTEXT) is holds


def test_all_lines_must_hold() -> None:
    conditions = read_conditions(
        {
            "StringEquals": {"aws:username": "alice", "aws:SourceIp": "10.1.2.3"},
            "Bool": {"aws:MultiFactorAuthPresent": "true"},
        }
    )
    assert len(conditions) == 3
    assert all(condition.holds(CONTEXT) for condition in conditions)


@pytest.mark.parametrize(
    ("pattern", "value", "fits"),
    [
        ("a*", "a\nb", True),
        ("a.b", "aXb", False),
        ("${*}", "*", True),
        ("${*}", "x", False),
        ("${$}{x}", "${x}", True),
        ("a?", "a", False),
        ("", "", True),
    ],
)
def test_patterns(pattern: str, value: str, fits: bool) -> None:
    assert matches(pattern, value, {}) is fits


VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=12),
    st.sampled_from(
        (
            *("${aws:username}", "${x}", "${*}", "10.0.0.0/8", "10.0.0.0/99", "::/0", "true"),
            *("2026-06-01T00:00:00Z", "9999-12-31T23:59:59-23:59", "1e400", "1e30", "-1e30"),
        )
    ),
)
OPERATORS = st.one_of(
    st.text(max_size=12),
    st.builds(
        lambda quantifier, operator, suffix: quantifier + operator + suffix,
        st.sampled_from(("", "ForAnyValue:", "ForAllValues:", "x:")),
        st.sampled_from(
            (
                *("StringEquals", "StringNotLike", "NumericLessThan", "NumericEquals", "Bool"),
                *("DateGreaterThan", "DateEquals", "IpAddress", "NotIpAddress", "ArnLike", "Null"),
            )
        ),
        st.sampled_from(("", "IfExists")),
    ),
)
KEYS_ = st.one_of(st.text(max_size=8), st.sampled_from([*CONTEXT, MISSING]))
BLOCKS = st.dictionaries(
    OPERATORS,
    st.one_of(
        VALUES,
        st.dictionaries(KEYS_, st.one_of(VALUES, st.lists(VALUES, max_size=3)), max_size=3),
    ),
    max_size=2,
)


@given(st.one_of(VALUES, BLOCKS))
@example({"NumericEquals": {"aws:epochtime": ["1", "x"]}})
@example({"DateEquals": {"aws:currenttime": "9999-12-31T23:59:59-23:59"}})
@settings(max_examples=500)
def test_any_block_is_read_or_refused_and_what_is_read_can_be_asked(block: object) -> None:
    try:
        conditions = read_conditions(block)
    except (PolicyError, NotEmulated):
        return
    for condition in conditions:
        assert condition.holds(CONTEXT) in (True, False)
