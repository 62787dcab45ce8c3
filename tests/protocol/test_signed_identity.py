"""The request of a signed identity. The cases are data: tests/vectors/sts_requests.json."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qsl

import botocore.auth
import pytest
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from hypothesis import given
from hypothesis import strategies as st

from iam_auth_proxy.errors import Malformed
from iam_auth_proxy.names import KeyArn, Origin, parse_key_arn, parse_origin, sts_host
from iam_auth_proxy.protocol import signed_identity
from iam_auth_proxy.protocol.proof import SignedIdentity
from tests.support import vectors

KEY = parse_key_arn("arn:aws:kms:eu-west-1:123456789012:key/12345678-90ab-cdef-1234-567890abcdef")
ORIGIN = parse_origin("https://app.test")
NONCE = "n" * 22
PROOF = SignedIdentity(
    date="20261122T021500Z", access_key_id="AKIAABCDEFGHIJKLMNOP", signature="0" * 64
)


def botocore_url(
    proof: SignedIdentity, secret: str, key: KeyArn, origin: Origin, nonce: str
) -> str:
    """The URL that botocore's query signer makes, at the proof's time."""
    url = f"https://{sts_host(key)}/?Action=GetCallerIdentity&Version=2011-06-15"
    headers = {"x-iam-auth-origin": str(origin), "x-iam-auth-nonce": nonce}
    signing = AWSRequest("GET", url, headers=headers)
    credentials = Credentials(proof.access_key_id, secret, proof.session_token or None)
    signer = botocore.auth.SigV4QueryAuth(
        credentials, signed_identity.SERVICE, key.region, signed_identity.EXPIRES
    )
    with pytest.MonkeyPatch.context() as patch:
        moment = datetime.strptime(proof.date, "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
        patch.setattr(botocore.auth, "get_current_datetime", lambda: moment)
        signer.add_auth(signing)
    return str(signing.url)


@pytest.mark.parametrize("case", vectors.accepted("sts_requests"))
def test_is_rebuilt_as_botocore_signed_it(case: dict[str, Any]) -> None:
    key, origin = parse_key_arn(case["key"]), parse_origin(case["origin"])
    proof = SignedIdentity(**case["proof"])
    request = signed_identity.rebuild(proof, key, origin, case["nonce"])
    assert (request.host, request.target) == (case["host"], case["target"])
    assert request.headers == (
        ("host", case["host"]),
        ("x-iam-auth-nonce", case["nonce"]),
        ("x-iam-auth-origin", case["origin"]),
        ("accept", "application/json"),
    )
    assert botocore_url(proof, case["secret"], key, origin, case["nonce"]) == request.url


def test_its_query_is_the_one_of_the_protocol_and_nothing_else() -> None:
    with_token = replace(PROOF, session_token="t")
    names = [
        "Action", "Version", "X-Amz-Algorithm", "X-Amz-Credential", "X-Amz-Date",
        "X-Amz-Expires", "X-Amz-SignedHeaders", "X-Amz-Security-Token", "X-Amz-Signature",
    ]  # fmt: skip
    for proof, expected in (
        (with_token, names),
        (PROOF, [name for name in names if name != "X-Amz-Security-Token"]),
    ):
        query = signed_identity.rebuild(proof, KEY, ORIGIN, NONCE).target.removeprefix("/?")
        assert [name for name, _ in parse_qsl(query, strict_parsing=True)] == expected


def test_both_bindings_are_under_the_signature() -> None:
    """STS ignores every header that SignedHeaders does not name."""
    request = signed_identity.rebuild(PROOF, KEY, ORIGIN, NONCE)
    assert "X-Amz-SignedHeaders=host%3Bx-iam-auth-nonce%3Bx-iam-auth-origin&" in request.target
    signed = [name for name, _ in request.headers if name != "accept"]
    assert signed == signed_identity.SIGNED_HEADERS.split(";")


@pytest.mark.parametrize("nonce", ["", "short", "n" * 22 + "\r\nX: y", "n" * 513])
def test_a_header_is_not_made_of_what_is_no_nonce(nonce: str) -> None:
    with pytest.raises(Malformed, match="the nonce is not"):
        signed_identity.rebuild(PROOF, KEY, ORIGIN, nonce)


@pytest.mark.parametrize(
    ("partition", "region"),
    [("aws", "cn-north-1"), ("aws-x", "eu-west-1"), ("aws", "evil.example/#-1"), ("", "")],
)
def test_no_host_is_made_of_an_unknown_region(partition: str, region: str) -> None:
    strange = KeyArn(partition, region, "123456789012", KEY.key_id)
    with pytest.raises(Malformed, match="unknown partition or region"):
        signed_identity.rebuild(PROOF, strange, ORIGIN, NONCE)


def test_no_secret_is_in_the_repr() -> None:
    proof = replace(PROOF, session_token="planted", signature="5ec3e7" + "0" * 58)
    shown = repr(signed_identity.rebuild(proof, KEY, ORIGIN, NONCE))
    assert "planted" not in shown
    assert "5ec3e7" not in shown


@given(
    st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), max_size=80),
    st.text("ABCXYZ0189", min_size=16, max_size=30),
    st.datetimes(datetime(2000, 1, 1), datetime(2100, 1, 1)),
    st.sampled_from([ORIGIN, parse_origin("http://[fd00::1]:8080")]),
    st.from_regex(r"[A-Za-z0-9._-]{22,60}", fullmatch=True),
)
def test_what_botocore_signs_is_rebuilt(
    token: str, key_id: str, moment: datetime, origin: Origin, nonce: str
) -> None:
    proof = replace(
        PROOF,
        date=moment.strftime("%Y%m%dT%H%M%SZ"),
        access_key_id=key_id,
        session_token=token,
    )
    url = botocore_url(proof, "s" * 40, KEY, origin, nonce)
    signed = replace(proof, signature=url.rpartition("=")[2])
    assert signed_identity.rebuild(signed, KEY, origin, nonce).url == url
