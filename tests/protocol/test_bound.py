"""The pieces of a bound sign-in, from one end to the other."""

from __future__ import annotations

import botocore.auth
import pytest
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from iam_auth_proxy.errors import BadNonce, Expired, StaleToken, WrongOrigin
from iam_auth_proxy.names import parse_key_arn, parse_origin
from iam_auth_proxy.protocol import envelope, handoff, nonce, signed_identity
from iam_auth_proxy.protocol.keyring import KeyRing
from iam_auth_proxy.protocol.proof import ProofKind, SignedIdentity, load_proof

KEY = parse_key_arn("arn:aws:kms:eu-west-1:123456789012:key/12345678-90ab-cdef-1234-567890abcdef")
ORIGIN = parse_origin("https://app.test")
RING = KeyRing.from_secret("oL1d8xKq0VbTz4LrYw7PmC3sHd6GkE9b")
NOW = 1_790_000_000


def sign(token: str) -> tuple[str, SignedIdentity, str]:
    text = nonce.issue(RING, ORIGIN, 3, NOW, bytes(16))
    unsigned = signed_identity.unsigned(KEY, ORIGIN, text)
    request = AWSRequest("GET", unsigned.url, headers=dict(unsigned.headers))
    signer = botocore.auth.SigV4QueryAuth(
        Credentials("ASIAABCDEFGHIJKLMNOP", "s" * 40, token or None), "sts", KEY.region, 300
    )
    signer.add_auth(request)
    made = SignedIdentity(
        date=request.context["timestamp"],
        access_key_id="ASIAABCDEFGHIJKLMNOP",
        session_token=token,
        signature=request.url.rpartition("=")[2],
    )
    return request.url, made, text


@pytest.mark.parametrize("token", ["", "x/+=" * 1024])
def test_all(token: str) -> None:
    url, made, text = sign(token)
    assert signed_identity.rebuild(made, KEY, ORIGIN, text).url == url
    assert load_proof(made.dumps(), ProofKind.SIGNED_IDENTITY) == made
    context = envelope.bound_context({"salt": "x"}, ORIGIN, text, ProofKind.SIGNED_IDENTITY)
    sealed = envelope.seal(made.dumps(), data_key=bytes(32), iv=bytes(12), context=context)
    whole = envelope.Envelope(b"w" * 180, bytes(12), sealed)
    assert envelope.loads(whole.dumps()) == whole
    assert envelope.unseal(whole, data_key=bytes(32), context=context) == made.dumps()
    with pytest.raises(StaleToken):
        envelope.unseal(whole, data_key=bytes(32), context=context | {"salt": "y"})
    form = handoff.BoundHandoff(whole, "/a?b=c+d", text, ProofKind.SIGNED_IDENTITY)
    assert handoff.parse_form(handoff.write_form(form)) == form
    assert nonce.open_(text, RING, origin=ORIGIN, now=NOW + 300).epoch == 3
    with pytest.raises(Expired):
        nonce.open_(text, RING, origin=ORIGIN, now=NOW + 301)
    with pytest.raises(WrongOrigin):
        nonce.open_(text, RING, origin=parse_origin("https://app.test:8443"), now=NOW)
    with pytest.raises(BadNonce):
        nonce.open_(text[:-1] + "-", RING, origin=ORIGIN, now=NOW)
    cookie = nonce.write_cookie(ORIGIN, text)
    assert nonce.is_nonce_cookie(cookie.encode())
    assert nonce.read_set_cookie([(b"Set-Cookie", cookie.encode())], ORIGIN) == text
