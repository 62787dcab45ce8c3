"""The proofs. The cases are data: tests/vectors/proofs.json and signed_identities.json."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from iam_auth_proxy.errors import Expired, IamAuthError, Malformed, WeakProof
from iam_auth_proxy.protocol import proof
from iam_auth_proxy.protocol.proof import ProofKind, SessionCredentials, SignedIdentity, load_proof
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


# -- the signed identity ---------------------------------------------------------------------------

SIGNED = SignedIdentity(
    date="20240125T120000Z",
    access_key_id="ASIAABCDEFGHIJKLMNOP",
    session_token="t" * 300,
    signature="5ec3e7" + "0" * 58,
)


class TestSignedIdentity:
    @pytest.mark.parametrize("case", vectors.accepted("signed_identities"))
    def test_is_read(self, case: dict[str, Any]) -> None:
        data = case.pop("json").encode()
        found = load_proof(data, ProofKind.SIGNED_IDENTITY)
        assert found == SignedIdentity(**case)
        assert load_proof(found.dumps(), ProofKind.SIGNED_IDENTITY) == found

    @pytest.mark.parametrize(("case", "error"), vectors.refused("signed_identities"))
    def test_is_refused(self, case: str, error: str) -> None:
        with pytest.raises(Malformed, match=re.escape(error)):
            load_proof(case.encode(), ProofKind.SIGNED_IDENTITY)

    def test_is_written_with_its_type_first(self) -> None:
        assert SIGNED.dumps() == (
            b'{"type":"signed-identity","date":"20240125T120000Z",'
            b'"access_key_id":"ASIAABCDEFGHIJKLMNOP","session_token":"' + b"t" * 300 + b'",'
            b'"signature":"5ec3e7' + b"0" * 58 + b'"}'
        )

    @pytest.mark.parametrize("now", [NOON, NOON + 300, NOON - 300, NOON + 0.5])
    def test_signed_about_now_passes(self, now: float) -> None:
        SIGNED.check(now)

    @pytest.mark.parametrize(
        ("now", "side"), [(NOON + 300.5, "old"), (NOON + 900, "old"), (NOON - 301, "ahead")]
    )
    def test_signed_at_another_time_does_not(self, now: float, side: str) -> None:
        """STS itself would take the second, for it allows 15 minutes."""
        with pytest.raises(Expired, match=side):
            SIGNED.check(now)

    @pytest.mark.parametrize(
        "change",
        [{"date": "x"}, {"access_key_id": "a/b"}, {"session_token": " "}, {"signature": "0"}],
    )
    def test_one_that_nobody_could_read_cannot_be_made(self, change: dict[str, str]) -> None:
        with pytest.raises(Malformed, match="outside its grammar"):
            replace(SIGNED, **change)

    def test_no_secret_is_in_the_repr_or_in_an_error(self) -> None:
        assert "ttt" not in repr(SIGNED)
        assert "5ec3e7" not in repr(SIGNED)
        wrong = SIGNED.dumps().replace(b"5ec3e7", b"5EC3E7")
        with pytest.raises(Malformed) as caught:
            load_proof(wrong, ProofKind.SIGNED_IDENTITY)
        assert "EC3E7" not in str(caught.value)


class TestLoadProof:
    """The type inside is the one that the encryption context says, or it is no proof."""

    def test_reads_session_credentials_as_the_seed_has_them(self) -> None:
        found = load_proof(CREDENTIALS.dumps(), ProofKind.SESSION_CREDENTIALS)
        assert found == CREDENTIALS

    def test_one_kind_is_not_taken_for_another(self) -> None:
        with pytest.raises(Malformed, match="not a signed identity"):
            load_proof(CREDENTIALS.dumps(), ProofKind.SIGNED_IDENTITY)
        with pytest.raises(Malformed, match="unknown key"):
            load_proof(SIGNED.dumps(), ProofKind.SESSION_CREDENTIALS)
        typed = json.loads(CREDENTIALS.dumps()) | {"type": "session-credentials"}
        with pytest.raises(Malformed, match="unknown key"):
            load_proof(json.dumps(typed).encode(), ProofKind.SESSION_CREDENTIALS)

    def test_the_longest_of_each_kind_is_read(self) -> None:
        """A session token has 4,096 characters at most, each of which JSON may escape."""
        longest = SessionCredentials("A" * 128, '"' * 256, '"' * 4096, NOON)
        assert load_proof(longest.dumps(), ProofKind.SESSION_CREDENTIALS) == longest
        signed = replace(SIGNED, access_key_id="A" * 128, session_token="\\" * 4096)
        assert load_proof(signed.dumps(), ProofKind.SIGNED_IDENTITY) == signed

    def test_the_kinds_are_in_the_order_of_their_strength(self) -> None:
        assert list(ProofKind) == ["signed-identity", "session-credentials"]


@given(
    st.datetimes(),
    st.text("ABCXYZ0189", min_size=16, max_size=30),
    st.text(PRINTABLE, max_size=200),
    st.text("0123456789abcdef", min_size=64, max_size=64),
)
def test_a_signed_identity_that_is_written_is_read(
    moment: Any, key: str, token: str, signature: str
) -> None:
    date = f"{moment:%m%dT%H%M%SZ}"
    made = SignedIdentity(
        date=f"{moment.year:04}{date}",
        access_key_id=key,
        session_token=token,
        signature=signature,
    )
    assert load_proof(made.dumps(), ProofKind.SIGNED_IDENTITY) == made


@given(
    st.binary(max_size=60)
    | st.fixed_dictionaries(
        {"type": st.sampled_from(["signed-identity", "x", None])},
        optional={
            name: st.none() | st.text(max_size=20) | st.integers() | st.just(value)
            for name, value in json.loads(SIGNED.dumps()).items()
            if name != "type"
        },
    ).map(lambda value: json.dumps(value).encode())
)
def test_nothing_but_our_errors_for_either_kind(data: bytes) -> None:
    for kind in ProofKind:
        try:
            found = load_proof(data, kind)
        except IamAuthError:
            continue
        assert load_proof(found.dumps(), kind) == found
