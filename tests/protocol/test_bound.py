"""A bound sign-in with the wire's pieces alone: what each binding is there for.

The two halves are joined in memory. KMS is a dict here, which is what it is to the protocol: it
opens what it wrapped, with the same context. STS is botocore's signer over the rebuilt request.
What the gate and the proxy do around these pieces has tests of its own.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping

import botocore.auth
import pytest
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from iam_auth_proxy.aws.signing import sign_identity
from iam_auth_proxy.errors import IamAuthError, StaleToken, WrongOrigin
from iam_auth_proxy.names import Origin, parse_key_arn, parse_key_reference, parse_origin
from iam_auth_proxy.protocol import challenge, envelope, handoff, nonce, signed_identity
from iam_auth_proxy.protocol.challenge import Bound, Challenge
from iam_auth_proxy.protocol.envelope import Envelope
from iam_auth_proxy.protocol.handoff import BoundHandoff
from iam_auth_proxy.protocol.keyring import KeyRing
from iam_auth_proxy.protocol.proof import ProofKind, SignedIdentity, load_proof

NOW = 1_790_000_000
RING = KeyRing.from_secret("oL1d8xKq0VbTz4LrYw7PmC3sHd6GkE9b")
KEY = parse_key_arn("arn:aws:kms:eu-west-1:123456789012:key/12345678-90ab-cdef-1234-567890abcdef")
APP = parse_origin("https://app.test")
EVIL = parse_origin("https://evil.test")
ALICE = Credentials("ASIAABCDEFGHIJKLMNOP", "alice's secret", "token/+=")
SIGNED = ProofKind.SIGNED_IDENTITY

Headers = list[tuple[bytes, bytes]]


class Kms:
    """Encrypt and Decrypt with an encryption context, under one key."""

    def __init__(self) -> None:
        self._wrapped: dict[bytes, tuple[bytes, dict[str, str]]] = {}

    def encrypt(self, plaintext: bytes, context: Mapping[str, str]) -> bytes:
        ciphertext = secrets.token_bytes(180)
        self._wrapped[ciphertext] = plaintext, dict(context)
        return ciphertext

    def decrypt(self, ciphertext: bytes, context: Mapping[str, str]) -> bytes:
        plaintext, sealed_for = self._wrapped[ciphertext]
        if sealed_for != context:
            raise StaleToken("InvalidCiphertextException")
        return plaintext


def server_challenges(origin: Origin) -> Headers:
    text = nonce.issue(RING, origin, 3, NOW, secrets.token_bytes(16))
    bound = Bound(frozenset(ProofKind), text)
    asked = Challenge("123456789012", parse_key_reference(str(KEY)), {"salt": "s"}, bound)
    fields = [*challenge.write(asked), ("Set-Cookie", nonce.write_cookie(origin, text))]
    return [(name.encode(), value.encode()) for name, value in fields]


def proxy_answers(headers: Headers, origin: Origin, kms: Kms) -> bytes:
    """The form that the proxy posts to ``origin``, from which these header fields came."""
    asked = challenge.parse(headers)
    assert asked is not None
    assert asked.bound is not None
    made = sign_identity(ALICE, KEY, origin, asked.bound.nonce, NOW + 1)
    context = envelope.bound_context(asked.context, origin, asked.bound.nonce, SIGNED)
    return form_of(made.dumps(), context, asked.bound.nonce, kms)


def form_of(proof: bytes, context: Mapping[str, str], text: str, kms: Kms) -> bytes:
    data_key, iv = secrets.token_bytes(32), secrets.token_bytes(12)
    sealed = envelope.seal(proof, data_key=data_key, iv=iv, context=context)
    token = Envelope(kms.encrypt(data_key, context), iv, sealed)
    return handoff.write_form(BoundHandoff(token, "/private?x=1", text, SIGNED))


def server_opens(form: bytes, origin: Origin, kms: Kms) -> tuple[SignedIdentity, BoundHandoff]:
    """The proof in a form that was posted to ``origin``; STS has not been asked yet."""
    posted = handoff.parse_form(form)
    nonce.open_(posted.nonce, RING, origin=origin, now=NOW + 2)
    context = envelope.bound_context({"salt": "s"}, origin, posted.nonce, posted.proof)
    data_key = kms.decrypt(posted.token.wrapped_key, context)
    opened = envelope.unseal(posted.token, data_key=data_key, context=context)
    proof = load_proof(opened, posted.proof)
    assert isinstance(proof, SignedIdentity)
    proof.check(NOW + 2)
    return proof, posted


def sts_says(proof: SignedIdentity, origin: Origin, text: str) -> bool:
    """Whether the request that the server rebuilds is one that Alice signed."""
    request = signed_identity.rebuild(proof, KEY, origin, text)
    url = request.url.rpartition("&X-Amz-Signature=")[0]
    headers = {name: value for name, value in request.headers if name != "accept"}
    signed = AWSRequest("GET", url, headers=headers)
    signed.context["timestamp"] = proof.date
    auth = botocore.auth.SigV4Auth(ALICE, "sts", KEY.region)
    text = auth.string_to_sign(signed, auth.canonical_request(signed))
    return bool(auth.signature(text, signed) == proof.signature)


def test_a_sign_in_holds() -> None:
    kms = Kms()
    headers = server_challenges(APP)
    proof, posted = server_opens(proxy_answers(headers, APP, kms), APP, kms)
    assert nonce.read_set_cookie(headers, APP) == posted.nonce
    assert sts_says(proof, APP, posted.nonce)
    assert posted.return_url == "/private?x=1"


def test_a_site_that_passes_on_the_apps_challenge_gets_nothing_that_the_app_opens() -> None:
    """The proxy says where it was asked: in the context, and in what it signs."""
    kms = Kms()
    form = proxy_answers(server_challenges(APP), EVIL, kms)
    with pytest.raises(StaleToken, match="InvalidCiphertext"):
        server_opens(form, APP, kms)


def test_a_site_that_opened_a_proof_cannot_use_it_at_another() -> None:
    """It may encrypt with the app's key and asked with the app's nonce; the signature tells."""
    kms, evils = Kms(), Kms()
    headers = server_challenges(APP)
    asked = challenge.parse(headers)
    assert asked is not None
    assert asked.bound is not None
    text = asked.bound.nonce
    stolen = handoff.parse_form(proxy_answers(headers, EVIL, evils)).token
    context = envelope.bound_context({"salt": "s"}, EVIL, text, SIGNED)
    data_key = evils.decrypt(stolen.wrapped_key, context)
    proof = envelope.unseal(stolen, data_key=data_key, context=context)
    context = envelope.bound_context({"salt": "s"}, APP, text, SIGNED)
    opened, posted = server_opens(form_of(proof, context, text, kms), APP, kms)
    assert not sts_says(opened, APP, posted.nonce)
    assert sts_says(opened, EVIL, posted.nonce)


def test_a_proof_is_for_one_nonce() -> None:
    kms = Kms()
    proof, posted = server_opens(proxy_answers(server_challenges(APP), APP, kms), APP, kms)
    fresh = nonce.issue(RING, APP, 3, NOW, bytes(16))
    context = envelope.bound_context({"salt": "s"}, APP, fresh, SIGNED)
    again, reposted = server_opens(form_of(proof.dumps(), context, fresh, kms), APP, kms)
    assert not sts_says(again, APP, reposted.nonce)
    assert sts_says(again, APP, posted.nonce)


def test_a_nonce_of_another_origin_of_the_same_server_is_refused_before_any_decrypt() -> None:
    form = proxy_answers(server_challenges(parse_origin("https://app.test:8443")), APP, Kms())
    with pytest.raises(WrongOrigin):
        server_opens(form, APP, Kms())  # this KMS knows no key: it would fail otherwise


def test_a_proof_of_another_kind_than_the_context_says_is_none() -> None:
    kms = Kms()
    form = proxy_answers(server_challenges(APP), APP, kms)
    weaker = form.replace(b"proof=signed-identity", b"proof=session-credentials")
    with pytest.raises(IamAuthError, match="InvalidCiphertext"):
        server_opens(weaker, APP, kms)
