"""Session credentials as a proof. The cases are data: tests/vectors/proofs.json."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from iam_auth_proxy.errors import Expired, IamAuthError, Malformed, WeakProof
from iam_auth_proxy.protocol import proof
from iam_auth_proxy.protocol.proof import SessionCredentials
from tests.support import vectors

NOON = 1_706_184_000  # 2024-01-25T12:00:00Z
CREDENTIALS = SessionCredentials("ASIAABCDEFGHIJKLMNOP", "s" * 40, "t" * 300, NOON)


def data_of(case: Any) -> bytes:
    return case["latin1"].encode("latin-1") if isinstance(case, dict) else case.encode()


@pytest.mark.parametrize("case", vectors.accepted("proofs"))
def test_is_read(case: dict[str, Any]) -> None:
    data = case.pop("json").encode()
    assert proof.loads(data) == SessionCredentials(**case)


@pytest.mark.parametrize(("case", "error"), vectors.refused("proofs"))
def test_is_refused(case: Any, error: str) -> None:
    expected = WeakProof if "session token" in error else Malformed
    with pytest.raises(expected, match=re.escape(error)):
        proof.loads(data_of(case))


def test_is_written_as_the_go_original_marshals_it() -> None:
    assert CREDENTIALS.dumps() == (
        b'{"AccessKeyId":"ASIAABCDEFGHIJKLMNOP","Expiration":"2024-01-25T12:00:00Z",'
        b'"SecretAccessKey":"' + b"s" * 40 + b'","SessionToken":"' + b"t" * 300 + b'"}'
    )


@pytest.mark.parametrize("expiration", [10**12, -(10**12), 10**30])
def test_a_time_beyond_the_calendar_is_not_written(expiration: int) -> None:
    with pytest.raises(Malformed, match="the expiration is not a time"):
        SessionCredentials("ASIAABCDEFGHIJKLMNOP", "s", "t", expiration).dumps()


@pytest.mark.parametrize("now", [NOON - 1, NOON - 900, NOON - 3600, NOON - 3660, NOON - 0.5])
def test_temporary_credentials_pass(now: float) -> None:
    CREDENTIALS.check(now)


@pytest.mark.parametrize("now", [NOON, NOON + 1, NOON + 0.5, NOON + 10**6])
def test_expired_ones_do_not(now: float) -> None:
    with pytest.raises(Expired):
        CREDENTIALS.check(now)


def test_ones_that_live_too_long_do_not() -> None:
    with pytest.raises(WeakProof, match="longer than an hour"):
        CREDENTIALS.check(NOON - 3661)
    with pytest.raises(WeakProof, match="longer than an hour"):
        CREDENTIALS.check(NOON - 3601, skew=0)
    CREDENTIALS.check(NOON - 3900, skew=300)


@pytest.mark.parametrize(
    ("access_key_id", "session_token"),
    [("AKIAABCDEFGHIJKLMNOP", "t"), ("ASIAABCDEFGHIJKLMNOP", ""), ("AROAABCDEFGHIJKLMNOP", "t")],
)
def test_long_term_ones_do_not(access_key_id: str, session_token: str) -> None:
    with pytest.raises(WeakProof, match="not temporary"):
        SessionCredentials(access_key_id, "s" * 40, session_token, NOON).check(NOON - 10)


def test_no_secret_is_in_the_repr_or_in_an_error() -> None:
    assert "sss" not in repr(CREDENTIALS)
    assert "ttt" not in repr(CREDENTIALS)
    with pytest.raises(Malformed) as caught:
        proof.loads(CREDENTIALS.dumps().replace(b"ASIA", b"asia") + b"sss")
    assert "sss" not in str(caught.value)
    assert "sss" not in str(caught.value.__cause__)


PRINTABLE = st.characters(min_codepoint=0x21, max_codepoint=0x7E)


@given(
    st.text("ABCXYZ0189", min_size=16, max_size=30),
    st.text(PRINTABLE, min_size=16, max_size=60),
    st.text(PRINTABLE, min_size=1, max_size=200),
    st.integers(-62135596800, 253402300799),
)
def test_what_is_written_is_read(key: str, secret: str, token: str, expiration: int) -> None:
    made = SessionCredentials(key, secret, token, expiration)
    assert proof.loads(made.dumps()) == made


@given(
    st.binary(max_size=60)
    | st.dictionaries(
        st.sampled_from(["AccessKeyId", "SecretAccessKey", "SessionToken", "Expiration", "x"]),
        st.none() | st.text(max_size=40) | st.integers() | st.floats() | st.lists(st.booleans()),
    ).map(lambda value: str(value).replace("'", '"').encode("utf-8", "replace"))
)
def test_nothing_but_our_errors(data: bytes) -> None:
    try:
        found = proof.loads(data)
    except IamAuthError:
        return
    assert proof.loads(found.dumps()) == found
