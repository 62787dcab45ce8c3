"""A bound sign-in's way through AWS, both ends: what it costs, and who comes out."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from iam_auth_proxy.aws.base import CallerIdentity
from iam_auth_proxy.aws.clients import make_clients
from iam_auth_proxy.aws.credentials import AwsPrincipal, CredentialSettings
from iam_auth_proxy.errors import CiphertextInvalid, LoginNeeded, StaleToken
from iam_auth_proxy.local_aws import Key, LocalAws, allow, trust
from iam_auth_proxy.names import KeyReference, Origin, parse_key_arn, parse_origin
from iam_auth_proxy.protocol.challenge import Bound, Challenge
from iam_auth_proxy.protocol.envelope import Envelope, bound_context, unseal
from iam_auth_proxy.protocol.proof import ProofKind, SessionCredentials, SignedIdentity, load_proof
from iam_auth_proxy.protocol.signed_identity import rebuild
from iam_auth_proxy.proxy.signin.sealing import Sealed, seal

ORIGIN = parse_origin("http://app.test")
OTHER = parse_origin("http://evil.example")
NONCE = "a-nonce-of-the-server.0123456789"
CONTEXT = {"salt": "c2FsdA=="}
KIND = ProofKind.SIGNED_IDENTITY

Profiles = Callable[..., None]


class Everyone:
    """A trust that lets everything through, and gives ``kind``."""

    def __init__(self, kind: ProofKind = KIND) -> None:
        self._kind = kind

    def choose(self, origin: Origin, challenge: Challenge) -> ProofKind:
        return self._kind

    def check_key(self, origin: Origin, key: KeyReference, account: str, kind: ProofKind) -> None:
        pass

    def check_path(self, origin: Origin, path: str) -> None:
        pass

    def check_used(self, origin: Origin, arn: str, account: str, kind: ProofKind) -> None:
        pass


@pytest.fixture
def key(aws: LocalAws) -> Key:
    return aws.key()


@pytest.fixture
def ann(aws: LocalAws, key: Key, profile: Profiles) -> str:
    """Ann signs in by SSO, with the longest token there is; gives her ARN."""
    aws.session_token_size = 4096
    policies = [allow("kms:Encrypt", resource=key.arn), allow("sts:AssumeRole")]
    session = aws.sso_role("Developer", "ann@example.com", policies=policies)
    profile("dev", session, region="eu-west-1")
    return session.arn


@pytest.fixture
def server(aws: LocalAws, key: Key, profile: Profiles) -> None:
    profile("app", aws.user("app", policies=[allow("kms:Decrypt", resource=key.arn)]).keys())


def make(who: AwsPrincipal, key: Key, kind: ProofKind = KIND, origin: Origin = ORIGIN) -> Sealed:
    challenge = Challenge(
        "111122223333", KeyReference(key.arn), CONTEXT, Bound(frozenset({kind}), NONCE)
    )
    return seal(who, Everyone(kind), origin, challenge, lambda account: (), time.time())


def open_(sealed: Sealed, key: Key, origin: Origin = ORIGIN, nonce: str = NONCE) -> CallerIdentity:
    """What the server does with it, for its own origin and nonce."""
    kms, sts = make_clients(profile="app", region_name="eu-west-1", environ={})
    assert isinstance(sealed.token, Envelope)
    context = bound_context(CONTEXT, origin, nonce, sealed.kind)
    data_key = kms.decrypt(key.arn, sealed.token.wrapped_key, context).plaintext
    proof = load_proof(unseal(sealed.token, data_key=data_key, context=context), sealed.kind)
    proof.check(time.time())
    if isinstance(proof, SignedIdentity):
        request = rebuild(proof, parse_key_arn(key.arn), origin, nonce)
        return sts.check_signed_identity(request)
    assert isinstance(proof, SessionCredentials)
    return sts.caller_identity(proof)


def test_a_warm_one_asks_aws_once_on_the_persons_side(
    aws: LocalAws, ann: str, server: None, key: Key
) -> None:
    who = AwsPrincipal(CredentialSettings(profile="dev"), {})
    assert open_(make(who, key), key).arn == ann
    aws.clear_calls()
    sealed = make(who, key)
    (call,) = aws.calls
    assert (call.action, call.principal) == ("Encrypt", ann)
    assert call.context == {
        **CONTEXT,
        "iam-auth-origin": str(ORIGIN),
        "iam-auth-nonce": NONCE,
        "iam-auth-proof": "signed-identity",
    }
    aws.clear_calls()
    assert open_(sealed, key).arn == ann
    assert [call.action for call in aws.calls] == ["Decrypt", "GetCallerIdentity"]


@pytest.mark.parametrize(
    ("origin", "nonce"), [(OTHER, NONCE), (ORIGIN, "another-nonce-of-the-server.0123")]
)
def test_it_opens_for_its_own_origin_and_nonce_alone(
    aws: LocalAws, ann: str, server: None, key: Key, origin: Origin, nonce: str
) -> None:
    sealed = make(AwsPrincipal(CredentialSettings(profile="dev"), {}), key)
    with pytest.raises((CiphertextInvalid, StaleToken)):
        open_(sealed, key, origin, nonce)


def test_a_hostile_app_cannot_pass_the_opened_proof_on(
    aws: LocalAws, ann: str, profile: Profiles, server: None, key: Key
) -> None:
    """evil.example opens what was sealed for it, and seals it anew for app.test."""
    sealed = make(AwsPrincipal(CredentialSettings(profile="dev"), {}), key, origin=OTHER)
    kms, sts = make_clients(profile="app", region_name="eu-west-1", environ={})
    assert isinstance(sealed.token, Envelope)
    context = bound_context(CONTEXT, OTHER, NONCE, KIND)
    data_key = kms.decrypt(key.arn, sealed.token.wrapped_key, context).plaintext
    proof = load_proof(unseal(sealed.token, data_key=data_key, context=context), KIND)
    assert isinstance(proof, SignedIdentity)
    arn = parse_key_arn(key.arn)
    assert sts.check_signed_identity(rebuild(proof, arn, OTHER, NONCE)).arn == ann
    with pytest.raises(LoginNeeded):
        sts.check_signed_identity(rebuild(proof, arn, ORIGIN, NONCE))


def test_bound_session_credentials_of_a_login_role(
    aws: LocalAws, ann: str, server: None, key: Key
) -> None:
    """A 4,096-byte token of theirs goes into the envelope, too."""
    role = aws.role("login", trust("111122223333"), policies=[allow("*")]).arn
    who = AwsPrincipal(CredentialSettings(profile="dev", login_role_arn=role), {})
    sealed = make(who, key, ProofKind.SESSION_CREDENTIALS)
    assert open_(sealed, key).arn.endswith(":assumed-role/login/ann@example.com")
    aws.clear_calls()
    make(who, key, ProofKind.SESSION_CREDENTIALS)
    assert [call.action for call in aws.calls] == ["Encrypt"]
