"""What STS says of the caller. The cases are data: tests/vectors/identities.json."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from iam_auth_proxy.errors import Malformed
from iam_auth_proxy.names import PARTITIONS
from iam_auth_proxy.protocol import identity
from iam_auth_proxy.protocol.identity import Identity, Kind
from tests.support import vectors


@pytest.mark.parametrize("case", vectors.accepted("identities"))
def test_is_taken_apart(case: dict[str, str]) -> None:
    expected = Identity(**{**case, "kind": Kind(case["kind"])})
    assert identity.parse(case["arn"], case["user_id"]) == expected


@pytest.mark.parametrize(("case", "error"), vectors.refused("identities"))
def test_is_refused(case: dict[str, str], error: str) -> None:
    with pytest.raises(Malformed, match=re.escape(error)):
        identity.parse(case["arn"], case["user_id"])


@pytest.mark.parametrize(
    ("arn", "user_id", "unique_id"),
    [
        ("assumed-role/Dev/alice", "AROAABCDEFGHIJKLMNOP:alice", "AROAABCDEFGHIJKLMNOP"),
        ("federated-user/bob", "123456789012:bob", "123456789012:bob"),
    ],
)
def test_the_principals_own_id_is_without_the_session(
    arn: str, user_id: str, unique_id: str
) -> None:
    parsed = identity.parse(f"arn:aws:sts::123456789012:{arn}", user_id)
    assert parsed.unique_id == unique_id


def test_one_permission_set_cannot_be_taken_for_another() -> None:
    """Set names may hold underscores and hexadecimal: the last 17 characters are the suffix."""
    arn = "arn:aws:sts::123456789012:assumed-role/AWSReservedSSO_Admin_0123456789abcdef_%s/al"
    parsed = identity.parse(arn % ("f" * 16), "AROAABCDEFGHIJKLMNOP:al")
    assert parsed.name == "Admin_0123456789abcdef"


NAMES = st.from_regex(re.compile(r"[A-Za-z0-9_+=,.@-]{2,32}", re.ASCII), fullmatch=True)


@given(st.sampled_from(sorted(PARTITIONS)), NAMES, NAMES)
def test_role_and_session_come_apart_where_they_were_joined(
    partition: str, role: str, session: str
) -> None:
    arn = f"arn:{partition}:sts::123456789012:assumed-role/{role}/{session}"
    parsed = identity.parse(arn, f"AROAABCDEFGHIJKLMNOP:{session}")
    assert (parsed.arn, parsed.partition, parsed.session_name) == (arn, partition, session)
    assert parsed.name == role


@given(
    st.text(max_size=60) | st.from_regex(r"arn:aws:(iam|sts)::[0-9]{12}:.{0,40}"),
    st.text(max_size=30) | st.from_regex(r"(AIDA|AROA)[A-Z0-9]{16}(:.{0,10})?"),
)
def test_nothing_but_our_error(arn: str, user_id: str) -> None:
    try:
        parsed = identity.parse(arn, user_id)
    except Malformed:
        return
    assert (parsed.arn, parsed.user_id) == (arn, user_id)
    assert arn.isascii()
    assert parsed.account in arn
