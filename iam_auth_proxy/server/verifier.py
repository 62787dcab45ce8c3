"""From a proof to an identity: KMS opens it, STS says whose it is (steps 11 to 14).

What both protocols share; ``bound`` and ``legacy`` are the two of them.

Everything here blocks. What AWS answers is either a refusal of this proof (``Refused``, 403), or no
answer to it: AWS is silent (``AwsUnavailable``, 503), or our own credentials, key or clock are at
fault (``Misconfigured``, 503 as well: nobody said no to the person, and the operator finds the
reason in the log).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from iam_auth_proxy.aws.base import CallerIdentity, Kms, Sts
from iam_auth_proxy.errors import (
    AccessDenied,
    AwsError,
    AwsUnavailable,
    CiphertextInvalid,
    ClockSkew,
    Expired,
    LoginNeeded,
    Malformed,
    Refused,
    Replayed,
    StaleToken,
    TooManyRequests,
    WrongKey,
)
from iam_auth_proxy.protocol import identity as identities
from iam_auth_proxy.protocol.identity import Identity
from iam_auth_proxy.protocol.proof import ProofKind
from iam_auth_proxy.server import own
from iam_auth_proxy.server.access import Allowed
from iam_auth_proxy.server.home import Home
from iam_auth_proxy.server.replay import ReplayStore, StoreFull

log = logging.getLogger(__name__)

_FULL_FOR = 60.0
_OF_CIPHERTEXT = "ciphertext refers to"


@dataclass(frozen=True, slots=True)
class Proved:
    """A proof that held. ``digest`` names it until ``until``, when it is of no use any more."""

    identity: Identity
    kind: ProofKind
    digest: bytes
    until: float


def spend(store: ReplayStore, digest: bytes, until: float, now: float) -> bool:
    """Insert if absent; whether it was absent.

    :raises TooManyRequests: the store is full.
    """
    try:
        return store.spend(digest, until, now)
    except StoreFull as error:
        raise TooManyRequests(
            f"the replay store is full: {error}", retry_after=_FULL_FOR
        ) from error


def spend_proof(store: ReplayStore, proved: Proved, now: float) -> None:
    """Take a proof that held for used.

    :raises Replayed: it was already; of two at once, one is.
    """
    if not spend(store, proved.digest, proved.until, now):
        raise Replayed("the proof was used before")


class Verifier:
    """Asks AWS. All errors are in terms of the person's sign-in; see the module."""

    def __init__(self, aws: Callable[[], tuple[Kms, Sts]], allowed: Allowed) -> None:
        self._aws = aws
        self._allowed = allowed

    def decrypt(self, home: Home, ciphertext: bytes, context: Mapping[str, str]) -> bytes:
        """KMS Decrypt with our key named, and its answer's key compared.

        :raises StaleToken: it is not sealed with this context.
        :raises WrongKey: it is sealed under another key.
        :raises AwsUnavailable: it could not be opened.
        :raises Misconfigured: the same, and our identity, key or clock is at fault.
        """
        key = str(home.key)
        try:
            opened = self._aws()[0].decrypt(key, ciphertext, context)
        except CiphertextInvalid as error:
            raise StaleToken(f"KMS does not open the token: {error}") from error
        except (AwsError, AwsUnavailable) as error:
            # AccessDenied too: as the key is named, it is about our right to that one. Of a token
            # that is sealed under another key KMS says IncorrectKeyException, or, where it does not
            # know that key, this; our own right may be meant as well, so the log says it.
            wrong = own.fault(error, "a sign-in cannot be opened")
            if isinstance(error, AccessDenied) and _OF_CIPHERTEXT in str(error):
                raise WrongKey(f"KMS denies Decrypt: {error}") from error
            raise wrong from error
        if opened.key_arn != key:
            raise WrongKey(f"the token is sealed under {opened.key_arn}")
        return opened.plaintext

    def identify(
        self, ask: Callable[[Sts], CallerIdentity], home: Home, proof: ProofKind
    ) -> Identity:
        """Whom STS names, if that one may come in.

        :param ask: makes the call with which STS checks the proof.
        :raises Refused: STS refuses the proof, or its identity may not come in.
        :raises AwsUnavailable: it could not be checked.
        :raises Misconfigured: the same, and our clock is at fault.
        """
        identity = self._whose(ask)
        home.check(identity)
        if not admits(self._allowed, identity, proof.value):
            raise Refused(f"{identity.arn} is not allowed here")
        return identity

    def _whose(self, ask: Callable[[Sts], CallerIdentity]) -> Identity:
        sts = self._aws()[1]  # Decrypt has been asked: there are such clients
        try:
            caller = ask(sts)
        except LoginNeeded as error:
            raise Expired(
                f"STS does not accept the credentials: {error}",
                public="AWS does not accept these credentials any more.",
            ) from error
        except ClockSkew as error:
            raise own.fault(error, "a sign-in cannot be checked") from error
        except AwsError as error:
            raise Refused(f"STS refuses the credentials: {error}") from error
        try:
            identity = identities.parse(caller.arn, caller.user_id)
        except Malformed as error:
            raise Refused(f"{caller.arn!r} with {caller.user_id!r}: {error}") from error
        if identity.account != caller.account:
            raise Refused(f"STS names account {caller.account} with {caller.arn}")
        return identity


def admits(allowed: Allowed, identity: Identity, proof: str) -> bool:
    """Whether the rules let the identity in; the app's function failing is a no."""
    try:
        return allowed(identity, proof)
    except Exception:  # the app's own code: whatever it raises, nobody comes in by it
        log.exception("the function given as allow= failed for %s", identity.arn)
        return False
