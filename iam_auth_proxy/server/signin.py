"""From a token to an identity: KMS opens it, STS says whose it is (steps 11 to 14).

Everything here blocks. What AWS answers is either a refusal of this proof (``Refused``, 403), or no
answer to it, be it that AWS is silent or that our own credentials, key or clock are at fault
(``AwsUnavailable``, 503: nobody said no to the person, and the operator finds the reason in the
log).
"""

from __future__ import annotations

import hashlib
import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from iam_auth_proxy.aws.base import Kms, Sts
from iam_auth_proxy.errors import (
    AccessDenied,
    AwsError,
    AwsUnavailable,
    CiphertextInvalid,
    ClockSkew,
    Expired,
    IamAuthError,
    LoginNeeded,
    Malformed,
    Refused,
    StaleToken,
    WrongAccount,
    WrongKey,
)
from iam_auth_proxy.names import KeyArn, parse_key_arn
from iam_auth_proxy.protocol import identity as identities
from iam_auth_proxy.protocol import proof as proofs
from iam_auth_proxy.protocol import salt as salting
from iam_auth_proxy.protocol.identity import Identity
from iam_auth_proxy.protocol.keyring import KeyRing
from iam_auth_proxy.protocol.proof import SessionCredentials
from iam_auth_proxy.server.access import Allowed
from iam_auth_proxy.server.settings import Settings

log = logging.getLogger(__name__)

SALT_PERIOD: Final = 900
"""Seconds that a salt is given out; a token sealed with it opens for as long again after that."""

_RETRY_HOME = 5.0


def contexts(settings: Settings, ring: KeyRing, now: float) -> tuple[dict[str, str], ...]:
    """The encryption contexts that a token may be sealed with; the first is for new challenges."""
    if settings.salt:
        return (salting.context(settings.salt),)
    return tuple(salting.context(salt) for salt in salting.salts(ring, now, SALT_PERIOD))


# -- which key, whose accounts ---------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Home:
    """What challenges say: the key, and the accounts whose identities may come in."""

    key: KeyArn
    accounts: tuple[str, ...]

    def covers(self, identity: Identity) -> bool:
        """Whether partition and account are ours, exactly."""
        return identity.partition == self.key.partition and identity.account in self.accounts

    def check(self, identity: Identity) -> None:
        """:meth:`covers`, or else:

        :raises WrongAccount: the identity is of another.
        """
        if not self.covers(identity):
            raise WrongAccount(f"{identity.arn} is of another account or partition")


class Homing:
    """Finds :class:`Home`, once. A failure is remembered for a few seconds, so that a flood of
    requests does not become a flood of calls.
    """

    def __init__(self, settings: Settings, aws: Callable[[], tuple[Kms, Sts]]) -> None:
        self._settings = settings
        self._aws = aws
        self._lock = threading.Lock()
        self._failure: tuple[float, str] | None = None
        self.home: Home | None = None
        if settings.accounts:
            try:
                self.home = Home(parse_key_arn(str(settings.kms_key)), settings.accounts)
            except Malformed:
                pass  # an id, an alias or an alias ARN: AWS knows which key it is

    def covers(self, identity: Identity) -> bool:
        """Whether partition and account are ours, as far as that is known without asking AWS."""
        if self.home is not None:
            return self.home.covers(identity)
        partition, accounts = self._settings.kms_key.partition, self._settings.accounts
        return identity.partition == (partition or identity.partition) and (
            not accounts or identity.account in accounts
        )

    def find(self, now: float) -> Home:
        """The key's ARN and the accounts, asking AWS where the settings do not say them.

        Whoever waits while another asks has his answer, a failure too.

        :raises AwsUnavailable: AWS did not say, for whatever reason.
        """
        known = self._failure
        with self._lock:
            if self.home is not None:
                return self.home
            if self._failure is not None and self._failure is not known:
                raise AwsUnavailable(self._failure[1])
            if (
                self._failure is not None
                and self._failure[0] <= now < self._failure[0] + _RETRY_HOME
            ):
                raise AwsUnavailable(self._failure[1])
            try:
                self.home = self._ask()
            except (AwsError, AwsUnavailable, Malformed) as error:
                detail = f"the key {self._settings.kms_key} cannot be looked up: {error}"
                log.error("%s%s", detail, f" ({error.remedy})" if error.remedy else "")
                self._failure = now, detail
                raise AwsUnavailable(detail) from error
            return self.home

    def _ask(self) -> Home:
        kms, sts = self._aws()
        try:
            key = parse_key_arn(str(self._settings.kms_key))
        except Malformed:
            key = parse_key_arn(kms.key_arn(str(self._settings.kms_key)))
        accounts = self._settings.accounts or (sts.caller_identity().account,)
        return Home(key, accounts)


# -- the proof -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Proved:
    """A proof that held. ``digest`` names it until ``until``, when it is of no use any more."""

    identity: Identity
    digest: bytes
    until: float


def token_digest(token: bytes) -> bytes:
    """What a token is remembered by: its decoded bytes, of which there is one spelling."""
    return hashlib.sha256(token).digest()


class Verifier:
    """Checks proofs. All errors are in terms of the person's sign-in; see the module."""

    def __init__(
        self,
        aws: Callable[[], tuple[Kms, Sts]],
        contexts: Callable[[float], tuple[dict[str, str], ...]],
        allowed: Allowed,
    ) -> None:
        self._aws = aws
        self._contexts = contexts
        self._allowed = allowed

    def verify(self, token: bytes, home: Home, now: float) -> Proved:
        """Open the token and ask STS whose credentials are in it.

        :raises Refused: the proof is not good, or its identity may not come in.
        :raises Malformed: what was sealed is not a proof.
        :raises AwsUnavailable: it could not be checked.
        """
        kms, sts = self._aws()
        credentials = proofs.loads(self._open(kms, token, home, now))
        credentials.check(now)
        identity = self._whose(sts, credentials)
        home.check(identity)
        if not admits(self._allowed, identity):
            raise Refused(f"{identity.arn} is not allowed here")
        return Proved(identity, token_digest(token), float(credentials.expiration))

    def _open(self, kms: Kms, token: bytes, home: Home, now: float) -> bytes:
        key = str(home.key)
        for context in self._contexts(now):
            try:
                opened = kms.decrypt(key, token, context)
            except CiphertextInvalid:
                continue
            except AccessDenied as error:
                # KMS says the same of a token for a key that we cannot see, and of a missing right.
                log.error(
                    "KMS denies Decrypt. If it does so for every sign-in, the server's role lacks "
                    "kms:Decrypt on %s: %s", key, error,
                )  # fmt: skip
                raise WrongKey(f"KMS denies Decrypt: {error}") from error
            except AwsError as error:
                raise _ours(error, "Decrypt") from error
            if opened.key_arn != key:
                raise WrongKey(f"the token is sealed under {opened.key_arn}")
            return opened.plaintext
        raise StaleToken("no context of this or the last epoch opens the token")

    def _whose(self, sts: Sts, credentials: SessionCredentials) -> Identity:
        try:
            caller = sts.caller_identity(credentials)
        except LoginNeeded as error:
            raise Expired(
                f"STS does not accept the credentials: {error}",
                public="AWS does not accept these credentials any more.",
            ) from error
        except ClockSkew as error:
            raise _ours(error, "GetCallerIdentity") from error
        except AwsError as error:
            raise Refused(f"STS refuses the credentials: {error}") from error
        try:
            identity = identities.parse(caller.arn, caller.user_id)
        except Malformed as error:
            raise Refused(f"{caller.arn!r} with {caller.user_id!r}: {error}") from error
        if identity.account != caller.account:
            raise Refused(f"STS names account {caller.account} with {caller.arn}")
        return identity


def admits(allowed: Allowed, identity: Identity) -> bool:
    """Whether the rules let the identity in; the app's function failing is a no."""
    try:
        return allowed(identity)
    except Exception:  # the app's own code: whatever it raises, nobody comes in by it
        log.exception("the function given as allow= failed for %s", identity.arn)
        return False


def _ours(error: IamAuthError, call: str) -> AwsUnavailable:
    """An answer that is no fault of the person: our key, credentials or clock."""
    log.error("%s: %r%s", call, str(error), f" ({error.remedy})" if error.remedy else "")
    return AwsUnavailable(f"{call}: {error}")
