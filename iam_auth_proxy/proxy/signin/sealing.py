"""Steps 4 to 7: who signs in, what proves it, and sealing that for the app's key. Blocks on AWS.

Nothing leaves before the realm and the key were checked, and KMS has said which key it used. What
is cached makes a warm sign-in one AWS call, Encrypt: a signed identity needs none to be made, and
session credentials are kept for most of their life.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final, Protocol

from iam_auth_proxy.aws.base import CallerIdentity, Encrypted, Principal
from iam_auth_proxy.errors import (
    BadChallenge,
    Malformed,
    NoSessionCredentials,
    WrongAccount,
    WrongKey,
)
from iam_auth_proxy.names import KeyArn, KeyReference, Origin, parse_key_arn
from iam_auth_proxy.protocol import envelope
from iam_auth_proxy.protocol.challenge import Bound, Challenge
from iam_auth_proxy.protocol.envelope import Envelope, bound_context
from iam_auth_proxy.protocol.proof import ProofKind
from iam_auth_proxy.proxy.decisions.rules import add_command

MAX_PLAINTEXT: Final = 4096
"""Bytes that KMS Encrypt takes (API reference, Plaintext). A session token alone may be as long."""

# Local profiles whose configuration names this account.
ProfilesFor = Callable[[str], tuple[str, ...]]


class KeyTrust(Protocol):
    """Which proof an origin may have, sealed for which key: what sealing asks of ``Trust``."""

    def choose(self, origin: Origin, challenge: Challenge) -> ProofKind:
        """The strongest proof that both sides allow.

        :raises WeakProof: there is none.
        """
        ...

    def check_key(self, origin: Origin, key: KeyReference, account: str, kind: ProofKind) -> None:
        """Before anything is sealed: may the challenge's key be used at all?"""
        ...

    def check_path(self, origin: Origin, path: str) -> None:
        """Before a token leaves: is this where the origin takes sign-ins?"""
        ...

    def check_used(self, origin: Origin, arn: str, account: str, kind: ProofKind) -> None:
        """Before a token leaves: is the key that KMS used the pinned one?"""
        ...


@dataclass(frozen=True, slots=True)
class Sealed:
    """A proof on its way to the app.

    :ivar token: KMS's ciphertext itself (the original protocol), or the envelope (bound).
    :ivar identity: whom the app will see.
    """

    token: bytes | Envelope = field(repr=False)
    kind: ProofKind
    identity: CallerIdentity
    key_arn: str


def seal(
    principal: Principal,
    trust: KeyTrust,
    origin: Origin,
    challenge: Challenge,
    profiles_for: ProfilesFor,
    now: float,
) -> Sealed:
    """The proof that ``challenge`` asks for, sealed.

    :param now: seconds since the epoch.
    :raises WrongAccount: the realm is another account than the caller's.
    :raises WeakProof: the proof that the person gives this origin is none that it takes.
    :raises WrongKey: the key is not one that may be used for this origin.
    :raises BadChallenge: a bound challenge whose key is not named by its ARN, or which wants the
        sign-in at another path than before.
    :raises NoSessionCredentials: there are none, or they are longer than Encrypt takes.
    :raises AwsError: AWS refused.
    :raises AwsUnavailable: AWS did not answer.
    """
    kind = trust.choose(origin, challenge)
    identity = principal.identity(now)  # also finds out whether the credentials are good
    if kind is ProofKind.SESSION_CREDENTIALS:
        identity = principal.session_identity(now)
    if identity.account != challenge.realm:
        raise _wrong_account(origin, challenge.realm, identity, profiles_for)
    trust.check_key(origin, challenge.key, identity.account, kind)
    bound = challenge.bound
    if bound is None:
        encrypted, token = _seal_legacy(principal, challenge, now)
    else:
        encrypted, token = _seal_bound(principal, origin, challenge, bound, kind, now)
    _check_answer(challenge.key, encrypted.key_arn)
    if bound is not None:
        trust.check_path(origin, bound.path)
    trust.check_used(origin, encrypted.key_arn, identity.account, kind)
    return Sealed(token, kind, identity, encrypted.key_arn)


def _seal_legacy(
    principal: Principal, challenge: Challenge, now: float
) -> tuple[Encrypted, bytes | Envelope]:
    plaintext = principal.session_credentials(now).dumps()
    if len(plaintext) > MAX_PLAINTEXT:
        raise NoSessionCredentials(
            f"the session's credentials are {len(plaintext)} bytes; Encrypt takes {MAX_PLAINTEXT}",
            public="Your AWS session is too long for this app's form of sign-in.",
            remedy="Ask your AWS administrator for fewer session tags, or use another profile.",
        )
    encrypted = principal.encrypt(challenge.key.text, plaintext, challenge.context, now)
    return encrypted, encrypted.ciphertext


def _seal_bound(
    principal: Principal,
    origin: Origin,
    challenge: Challenge,
    bound: Bound,
    kind: ProofKind,
    now: float,
) -> tuple[Encrypted, bytes | Envelope]:
    """Bound to the origin as the client asked for it, and to this challenge's nonce.

    Encrypt comes first: where AWS has ended the credentials, it is what finds out and gets others.
    """
    key = _key_arn(challenge.key)
    context: Mapping[str, str] = bound_context(challenge.context, origin, bound.nonce, kind)
    data_key, iv = os.urandom(envelope.DATA_KEY_BYTES), os.urandom(envelope.IV_BYTES)
    encrypted = principal.encrypt(challenge.key.text, data_key, context, now)
    if kind is ProofKind.SIGNED_IDENTITY:
        proof = principal.sign_identity(key, origin, bound.nonce, now).dumps()
    else:
        proof = principal.session_credentials(now).dumps()
    sealed = envelope.seal(proof, data_key=data_key, iv=iv, context=context)
    return encrypted, Envelope(encrypted.ciphertext, iv, sealed)


def _key_arn(key: KeyReference) -> KeyArn:
    try:
        return parse_key_arn(key.text)
    except Malformed as error:
        raise BadChallenge(f"a bound challenge names its key by {key.text}, not by ARN") from error


def _check_answer(key: KeyReference, used: str) -> None:
    """A key that was asked for by ARN is the one that was used, or nothing leaves."""
    try:
        wanted = str(parse_key_arn(key.text))
    except Malformed:
        return  # an alias or a bare id: whose ARN it stands for, trust decides
    if used != wanted:
        raise WrongKey(f"KMS sealed with {used} where {wanted} was asked for")


def _wrong_account(
    origin: Origin, realm: str, identity: CallerIdentity, profiles_for: ProfilesFor
) -> WrongAccount:
    profiles = profiles_for(realm)
    command = f"{add_command(origin)} --profile"
    if len(profiles) > 1:
        remedy = f"Profiles of that account: {', '.join(profiles)}. "
        remedy += f"Run: {command} {shlex.quote(profiles[0])}"
    elif profiles:
        remedy = f"Run: {command} {shlex.quote(profiles[0])}"
    else:
        remedy = f"With a profile of account {realm}, run: {command} NAME"
    return WrongAccount(
        f"{origin} wants account {realm}; {identity.arn} is of {identity.account}",
        public=f"The app wants an identity of AWS account {realm}; yours is of {identity.account}.",
        remedy=remedy,
    )
