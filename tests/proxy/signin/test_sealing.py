"""What is sealed, for whom and to what; by the real AWS client where AWS need not lie."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, field

import pytest

from iam_auth_proxy.aws.base import CallerIdentity, Encrypted
from iam_auth_proxy.aws.credentials import AwsPrincipals, CredentialSettings
from iam_auth_proxy.config.values import parse_trust
from iam_auth_proxy.errors import BadChallenge, IamAuthError, WeakProof, WrongAccount, WrongKey
from iam_auth_proxy.names import KeyArn, Origin, parse_key_reference, parse_origin
from iam_auth_proxy.protocol import envelope
from iam_auth_proxy.protocol.challenge import Bound, Challenge
from iam_auth_proxy.protocol.envelope import Envelope
from iam_auth_proxy.protocol.proof import (
    ProofKind,
    SessionCredentials,
    SignedIdentity,
    load_proof,
)
from iam_auth_proxy.proxy.decisions.rules import STRENGTH
from iam_auth_proxy.proxy.decisions.trust import Trust
from iam_auth_proxy.proxy.signin.sealing import Sealed, seal
from tests.proxy.conftest import Person

ACCOUNT = "111122223333"
KEY = f"arn:aws:kms:eu-west-1:{ACCOUNT}:key/1234abcd-12ab-34cd-56ef-1234567890ab"
OTHER = KEY.replace("1234abcd", "9999abcd")
APP = parse_origin("http://app.test")
NONCE = "n" * 22
NOW = 1_795_000_000.0


def challenge(
    *kinds: ProofKind, key: str = KEY, path: str = "/auth", realm: str = ACCOUNT, nonce: str = NONCE
) -> Challenge:
    bound = Bound(frozenset(kinds), nonce, path) if kinds else None
    return Challenge(realm, parse_key_reference(key), {"salt": "s"}, bound)


@dataclass
class Hostile:
    """A principal whose AWS says what the test wants; what it was asked is kept."""

    used: str = KEY
    account: str = ACCOUNT
    asked: list[str] = field(default_factory=list)
    plaintexts: list[bytes] = field(default_factory=list)
    contexts: list[dict[str, str]] = field(default_factory=list)

    def identity(self, now: float) -> CallerIdentity:
        return CallerIdentity(self.account, f"arn:aws:iam::{self.account}:user/ann", "AIDA")

    session_identity = identity

    def session_credentials(self, now: float) -> SessionCredentials:
        self.asked.append("session-credentials")
        return SessionCredentials("A" * 20, "s" * 40, "t" * 100, int(now) + 900)

    def sign_identity(self, key: KeyArn, origin: Origin, nonce: str, now: float) -> SignedIdentity:
        self.asked.append(f"signed-identity {key} {origin} {nonce}")
        return SignedIdentity(date="20261122T000000Z", access_key_id="A" * 20, signature="0" * 64)

    def encrypt(
        self, key: str, plaintext: bytes, context: Mapping[str, str], now: float
    ) -> Encrypted:
        self.asked.append("encrypt")
        self.plaintexts.append(plaintext)
        self.contexts.append(dict(context))
        return Encrypted(b"wrapped", self.used)

    def enter_mfa(self, code: str) -> None:
        raise AssertionError

    def forget(self) -> None:
        raise AssertionError

    def known(self) -> CallerIdentity | None:
        return None


def sealed(person: Hostile, asks: Challenge, trust: Trust | None = None) -> Sealed:
    trusted = trust or Trust([parse_trust(str(APP))], proofs=STRENGTH)
    return seal(person, trusted, APP, asks, lambda account: (), NOW)  # type: ignore[arg-type]  # all that sealing asks of it


def test_the_strongest_proof_by_our_own_order() -> None:
    both = (ProofKind.SESSION_CREDENTIALS, ProofKind.SIGNED_IDENTITY)
    person = Hostile()
    assert sealed(person, challenge(*both)).kind is ProofKind.SIGNED_IDENTITY
    assert person.asked == ["encrypt", f"signed-identity {KEY} {APP} {NONCE}"]
    only = challenge(ProofKind.SESSION_CREDENTIALS)
    assert sealed(person, only).kind is ProofKind.SESSION_CREDENTIALS


def test_what_encrypt_is_given_is_a_key_and_what_it_is_for() -> None:
    person = Hostile()
    tokens = [sealed(person, challenge(ProofKind.SIGNED_IDENTITY)).token for _ in range(2)]
    assert [len(plaintext) for plaintext in person.plaintexts] == [32, 32]
    assert person.plaintexts[0] != person.plaintexts[1]
    expected = {
        "salt": "s",
        "iam-auth-origin": "http://app.test",
        "iam-auth-nonce": NONCE,
        "iam-auth-proof": "signed-identity",
    }
    assert person.contexts == [expected, expected]
    for token, data_key in zip(tokens, person.plaintexts, strict=True):
        assert isinstance(token, Envelope)
        opened = envelope.unseal(token, data_key=data_key, context=expected)
        assert isinstance(load_proof(opened, ProofKind.SIGNED_IDENTITY), SignedIdentity)
    first, second = tokens
    assert isinstance(first, Envelope)
    assert isinstance(second, Envelope)
    assert first.iv != second.iv


@pytest.mark.parametrize("kinds", [(), (ProofKind.SIGNED_IDENTITY,)], ids=["legacy", "bound"])
def test_nothing_leaves_under_another_key_than_the_one_asked_for(
    kinds: tuple[ProofKind, ...],
) -> None:
    class Anything(Trust):
        """Would take any key: what is tested is the answer's own check."""

        def check_used(self, *args: object, **more: object) -> None:
            pass

    lenient = Anything([parse_trust(str(APP))], proofs=STRENGTH)
    with pytest.raises(WrongKey):
        sealed(Hostile(used=OTHER), challenge(*kinds), lenient)
    with pytest.raises(WrongKey):
        sealed(Hostile(used=OTHER), challenge(*kinds))


def test_an_alias_is_what_kms_says_it_is() -> None:
    alias = f"arn:aws:kms:eu-west-1:{ACCOUNT}:alias/app"
    trust = Trust([parse_trust(f"{APP}={KEY}")], proofs=STRENGTH)
    assert sealed(Hostile(), challenge(key=alias), trust).key_arn == KEY
    with pytest.raises(WrongKey):
        sealed(Hostile(used=OTHER), challenge(key=alias), trust)


def test_another_path_than_before() -> None:
    trust = Trust([parse_trust(str(APP))])
    sealed(Hostile(), challenge(ProofKind.SIGNED_IDENTITY), trust)
    with pytest.raises(BadChallenge, match="/elsewhere"):
        sealed(Hostile(), challenge(ProofKind.SIGNED_IDENTITY, path="/elsewhere"), trust)


@pytest.mark.parametrize(
    ("asks", "error"),
    [
        (challenge(), WeakProof),
        (challenge(ProofKind.SESSION_CREDENTIALS), WeakProof),
        (challenge(ProofKind.SIGNED_IDENTITY, realm="222222222222"), WrongAccount),
    ],
    ids=["original", "greedy", "another account"],
)
def test_no_aws_call_for_what_is_refused(asks: Challenge, error: type[IamAuthError]) -> None:
    person = Hostile()
    with pytest.raises(error):
        sealed(person, asks, Trust([parse_trust(str(APP))]))
    assert not person.asked


def test_stripping_the_proofs_is_no_way_down() -> None:
    """A bound app's challenge without Iam-Auth-Proofs, where the person gave both."""
    trust = Trust([parse_trust(str(APP))], proofs=STRENGTH)
    sealed(Hostile(), challenge(*STRENGTH), trust)
    for stripped in (challenge(), challenge(ProofKind.SESSION_CREDENTIALS)):
        person = Hostile()
        with pytest.raises(WeakProof):
            sealed(person, stripped, trust)
        assert not person.asked


def test_a_session_token_of_4096_bytes_is_no_limit(person: Person) -> None:
    person.aws.session_token_size = 4096
    asks = challenge(ProofKind.SESSION_CREDENTIALS, key=person.key.arn, realm=person.aws.account)
    principal = AwsPrincipals(CredentialSettings()).of()
    trust = Trust([parse_trust(str(APP))], proofs=STRENGTH)
    made = seal(principal, trust, APP, asks, lambda account: (), time.time())
    assert isinstance(made.token, Envelope)
    assert len(json.dumps(made.token.dumps())) > 5000
    (call,) = [call for call in person.own_calls() if call.action == "Encrypt"]
    assert call.context["iam-auth-proof"] == "session-credentials"
