"""One tree of errors.

Every error says whose fault it is (its class), how HTTP answers it (``status`` and ``code``), how a
command ends on it (``exit_status``), one sentence that may be shown to anybody (``public``), and
the one thing to do about it (``remedy``, a command or a short instruction). ``str(error)`` is the
detail for the log of the person or operator concerned; it never holds a secret.

Foreign exceptions become one of these once, at the edge where they arise (``aws/clients.py``,
``relay/dial.py``), with the cause kept.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar


class IamAuthError(Exception):
    """The root. ``detail`` is for the log, ``public`` for anybody, ``remedy`` for the person.

    :param detail: what happened, for the log.
    :param public: one sentence without names of users, profiles or paths; the class's if absent.
    :param remedy: the one thing to do; a command where there is one.
    """

    status: ClassVar[int] = 500
    code: ClassVar[str] = "internal"
    exit_status: ClassVar[int] = 1
    public_default: ClassVar[str] = "Something went wrong."
    remedy_default: ClassVar[str] = ""

    def __init__(self, detail: str = "", *, public: str = "", remedy: str = "") -> None:
        super().__init__(detail or public or self.public_default)
        self.public = public or self.public_default
        self.remedy = remedy or self.remedy_default


# -- what was said is not well formed -------------------------------------------------------------


class Malformed(IamAuthError):
    """Input that is outside its grammar. Nothing of it was used."""

    status = 400
    code = "malformed"
    public_default = "The request is malformed."


class Misdirected(Malformed):
    """A request for an origin that this app does not go by (RFC 9110 section 15.5.20)."""

    status = 421
    code = "wrong-origin"
    public_default = "This app does not go by that name."
    remedy_default = (
        "Open it by its own address, of which the scheme and the port are parts. Its owner lists "
        "those in IAM_AUTH_ORIGINS."
    )


class TooManyRequests(IamAuthError):
    """Asked too often. ``retry_after``: seconds."""

    status = 429
    code = "too-many-requests"
    public_default = "There were too many sign-ins."
    remedy_default = "Try again in a moment."

    def __init__(self, detail: str, *, retry_after: float) -> None:
        super().__init__(detail)
        self.retry_after = retry_after


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing wrong with the configuration: ``place`` is a flag, a variable or file:line."""

    place: str
    text: str

    def __str__(self) -> str:
        return f"{self.place}: {self.text}"


class ConfigError(IamAuthError):
    """The configuration cannot be used; all its problems at once."""

    code = "configuration"
    exit_status = 2
    public_default = "The configuration is not usable."

    def __init__(self, problems: Sequence[Problem]) -> None:
        super().__init__("\n".join(str(problem) for problem in problems))
        self.problems = tuple(problems)


# -- a refusal: asked, understood, and answered with no -------------------------------------------


class CannotListen(ConfigError):
    """What ``--bind`` asks for cannot be had: it is in use, or not this machine's."""


class Refused(IamAuthError):
    """Understood, and not allowed. ``code`` is one of protocol section 5's."""

    status = 403
    code = "not-allowed"
    public_default = "This is not allowed."


class NotTrusted(Refused):
    """A challenge of an origin, or with a key, that nobody told us to trust."""

    code = "not-trusted"
    exit_status = 4
    public_default = "This site asks for your AWS identity, and you have not trusted it."


class SignedOut(Refused):
    """The person signed out of this app, and has not said that they want in again."""

    code = "signed-out"
    exit_status = 4
    public_default = "You signed out of this app."


class WrongAccount(Refused):
    """The identity belongs to another account than the one asked for."""

    code = "wrong-account"
    public_default = "The app wants an identity of another AWS account."


class WrongKey(Refused):
    """A token sealed under another key, or a challenge whose key is not the pinned one."""

    code = "wrong-key"
    public_default = "The KMS key is not the expected one."


class KeyChanged(WrongKey):
    """An app asks for another key than the one that is pinned for it.

    :ivar old: the ARN that is pinned; ``new``: the one that the app asks for now.
    :ivar same_account: whether both are of one account. If so it may be a rollover; if not, it is
        an alarm.
    :ivar question: whether the confirm page may ask for it. Otherwise the command is the way out.
    """

    code = "key-changed"
    exit_status = 4
    public_default = "The app asks for another KMS key than before."

    def __init__(
        self, detail: str, *, old: str, new: str, same_account: bool, question: bool, remedy: str
    ) -> None:
        other = " It belongs to another AWS account than the key before."
        super().__init__(
            detail, public=self.public_default + ("" if same_account else other), remedy=remedy
        )
        self.old = old
        self.new = new
        self.same_account = same_account
        self.question = question


class StaleToken(Refused):
    """A token that does not open: context rotated, tampered with, or sealed elsewhere."""

    code = "stale-token"
    public_default = "This sign-in link is stale."
    remedy_default = "Open the page again."


class Replayed(Refused):
    """A proof that was used before."""

    code = "replayed"
    public_default = "This sign-in link was used before."
    remedy_default = "Open the page again."


class Expired(Refused):
    """A proof outside its time."""

    code = "expired"
    public_default = "This sign-in has expired."
    remedy_default = "Open the page again."


class BadNonce(Refused):
    """A nonce that this app did not give out, or not to whoever brings it."""

    code = "bad-nonce"
    public_default = "This sign-in was not started here."
    remedy_default = "Open the page again."


class NonceKeyUnknown(BadNonce):
    """It names a key that is not in the ring, which may be behind the ring of who gave it out."""


class WrongOrigin(Refused):
    """A proof that was made for another origin than the one it was brought to."""

    code = "wrong-origin"
    public_default = "This sign-in was made for another site."
    remedy_default = "Open the page again."


class ForeignPage(Refused):
    """A WebSocket that a page of another origin opens; the browser sends cookies along for it."""

    code = "foreign-page"
    public_default = "Only this app's own pages may open a WebSocket here."
    remedy_default = (
        "If it was one of them, let the app's owner list its address in origins (IAM_AUTH_ORIGINS)."
    )


class BadSession(Refused):
    """A session cookie that does not verify here: as good as none, and to be cleared."""

    status = 401
    code = "bad-session"
    public_default = "You are not signed in."


class SessionKeyUnknown(BadSession):
    """It names a key that is not in the ring, which may be behind the ring of who gave it out."""


class BadServiceToken(Refused):
    """A service token that is not accepted. Callers are told no more than that.

    :ivar field: what of it does not match: ``authorization`` ``username`` ``version`` ``user_type``
        ``from`` ``to`` ``context`` ``key`` ``token`` ``payload`` ``lifetime`` ``not_before``
        ``not_after``. It begins the detail, which is for the log; ``said`` is the rest of that.
    """

    code = "bad-token"
    public_default = "The service token is not accepted."
    remedy_default = "The app's log says which part of it does not match."

    def __init__(self, detail: str, *, field: str) -> None:
        super().__init__(f"{field}: {detail}")
        self.field = field
        self.said = detail


class Unnamed(Refused):
    """An identity without a name that service tokens could be from: SSO, federated, root."""

    code = "no-name"
    exit_status = 2
    public_default = "Your AWS identity has no name that service tokens know it by."


class WeakProof(Refused):
    """A proof of a kind that is not accepted here."""

    code = "weak-proof"
    public_default = "This kind of proof is not accepted here."


class BadChallenge(Refused):
    """The app's challenge cannot be answered: its fault, not the person's.

    The detail is about the app's own header fields, and what its owner needs: the page has it too.

    :param sent: what the app sent, in quotes: for the log alone, no page repeats it.
    """

    status = 502
    code = "bad-challenge"
    exit_status = 5
    public_default = "The app's sign-in challenge is malformed."
    remedy_default = "Tell the app's owner."

    def __init__(
        self, detail: str = "", *, public: str = "", remedy: str = "", sent: str = ""
    ) -> None:
        said = f"{self.public_default.rstrip('.')}: {detail}." if detail else ""
        detail += f": {sent}" if sent else ""
        super().__init__(detail, public=public or said, remedy=remedy)


class AppRefused(Refused):
    """The app did not accept the sign-in.

    :param app_code: the app's own code, one of protocol section 5's; empty where it said none.
    """

    status = 502
    code = "app-refused"
    exit_status = 5
    public_default = "The app refused the sign-in."

    def __init__(
        self, detail: str = "", *, public: str = "", remedy: str = "", app_code: str = ""
    ) -> None:
        super().__init__(detail, public=public, remedy=remedy)
        self.app_code = app_code
        # An answer with a code is about the person; others are the app's fault.
        self.app_status = 502 if app_code in ("", Misconfigured.code) else 403


# -- AWS -------------------------------------------------------------------------------------------


class AwsError(IamAuthError):
    """AWS answered, and the answer was no. Never an outage: that is :class:`AwsUnavailable`."""

    status = 403
    code = "aws-refused"
    public_default = "AWS refused the request."


class SettingRefused(AwsError):
    """AWS does not take what a setting of ours asks of it: a policy, a duration, a name."""

    code = "aws-settings"
    exit_status = 2
    public_default = "AWS does not accept a setting of this proxy."


class LoginNeeded(AwsError):
    """No usable AWS credentials: none found, expired, or an SSO session that ended."""

    code = "login-needed"
    exit_status = 3
    public_default = "There are no valid AWS credentials."
    remedy_default = "Sign in to AWS."


class NoCredentials(LoginNeeded):
    """Nothing gives any: no profile, no variable, no role of the machine."""


class NoProfile(LoginNeeded):
    """The profile that is named is not in the AWS configuration."""

    public_default = "The AWS profile does not exist."


class MfaNeeded(LoginNeeded):
    """A code of the MFA device is needed before AWS can be asked."""

    code = "mfa-needed"
    public_default = "AWS needs a code of your MFA device."

    def __init__(self, serial: str) -> None:
        super().__init__(
            f"no MFA session for {serial}",
            remedy="Type the code in the terminal where iam-auth-proxy runs, "
            "or restart it with --mfa-token-code.",
        )
        self.serial = serial


class MfaRefused(AwsError):
    """Wrong serial or code; codes work once."""

    code = "mfa-refused"
    exit_status = 3
    public_default = "AWS did not accept the MFA code."
    remedy_default = "Codes work once: wait for the next one, and check the serial number."


class NoSessionCredentials(AwsError):
    """Role, SSO and federated identities cannot call GetSessionToken."""

    code = "session-credentials"
    public_default = "This identity cannot sign in to an app that wants session credentials."


class ClockSkew(AwsError):
    """This machine's clock differs from AWS's by ``seconds`` (positive: ours is ahead)."""

    code = "clock-skew"
    public_default = "This machine's clock is wrong."
    remedy_default = "Set the clock, for example with: timedatectl set-ntp true"

    def __init__(self, detail: str, *, seconds: float | None = None) -> None:
        minutes = None if seconds is None else round(abs(seconds) / 60)
        side = "ahead of" if seconds is not None and seconds > 0 else "behind"
        off = "" if minutes is None else f" It is {minutes} min {side} AWS's clock."
        super().__init__(detail, public=self.public_default + off)
        self.seconds = seconds


class AccessDenied(AwsError):
    """IAM does not allow the action. ``action`` e.g. ``kms:Encrypt``; ``resource`` an ARN."""

    code = "access-denied"
    public_default = "Your AWS identity is not allowed to do this."

    def __init__(
        self, detail: str, *, action: str, resource: str = "", remedy: str = "", public: str = ""
    ) -> None:
        super().__init__(detail, public=public, remedy=remedy)
        self.action = action
        self.resource = resource


class KeyUnusable(AwsError):
    """The KMS key does not exist there, is disabled, or is being deleted."""

    code = "key-unusable"
    public_default = "The app's KMS key cannot be used."
    remedy_default = "Tell the app's owner."


class CiphertextInvalid(AwsError):
    """Decrypt refused the ciphertext: other context, other key, or tampered with."""

    code = "stale-token"
    public_default = "This sign-in link is stale."
    remedy_default = "Open the page again."


class CiphertextOfOtherKey(CiphertextInvalid):
    """Decrypt was told the key, and the ciphertext is not that key's."""


class AwsUnavailable(IamAuthError):
    """Throttled, unreachable, timing out or failing inside: try again, nobody said no."""

    status = 503
    code = "aws-unavailable"
    exit_status = 6
    public_default = "AWS did not answer."
    remedy_default = "Try again in a few seconds."


class Stopping(IamAuthError):
    """The proxy ends, and with it what a person was being asked."""

    status = 503
    code = "stopping"
    public_default = "The proxy is stopping."
    remedy_default = "Start it again, and open the page again."


class StoreUnavailable(IamAuthError):
    """What the server has to remember cannot be read or written: nobody said no."""

    status = 503
    code = "store-unavailable"
    exit_status = 6
    public_default = "This app cannot sign anybody in at the moment."
    remedy_default = "Try again in a few seconds, then tell the app's owner."


class Misconfigured(IamAuthError):
    """A server's own settings, AWS identity, key or clock are at fault: no waiting mends that, and
    no visitor.
    """

    status = 503
    code = "misconfigured"
    exit_status = 2
    public_default = "This app is not set up to check sign-ins."
    remedy_default = "Tell the app's owner: its log says what is wrong."


# -- stored secrets --------------------------------------------------------------------------------


class NoSuchObject(IamAuthError):
    """A store has nothing under that key."""

    status = 404
    code = "no-such-object"
    public_default = "There is no such object in the store."


class ObjectChanged(IamAuthError):
    """Something is stored there that was not expected: nothing was written."""

    status = 409
    code = "object-changed"
    public_default = "Somebody else wrote there meanwhile."


class NoSuchSecret(Refused):
    """No secret of that name, or no such version; or it was deleted."""

    status = 404
    code = "no-such-secret"
    public_default = "There is no such secret."


class VersionConflict(Refused):
    """The newest version is another than the writer expected: nothing was written."""

    status = 409
    code = "version-conflict"
    public_default = "Somebody else wrote this secret meanwhile."
    remedy_default = "Read it again, and then write."


class RecordUnusable(Refused):
    """A stored record that does not open here: changed, cut, or moved from elsewhere."""

    status = 503
    code = "record-unusable"
    public_default = "A stored secret does not open: it was changed, or does not belong there."
    remedy_default = "Restore it from an earlier version or a backup, or put it anew."


class NoSuchKey(Refused):
    """No key version of that id in the ring, or it is destroyed or disabled."""

    status = 404
    code = "no-such-key"
    public_default = "There is no such version in the key ring."


# -- the local CA ----------------------------------------------------------------------------------


class NoAuthority(IamAuthError):
    """No local CA can speak for a host: there is none, its time is over, or its files are unusable.

    ``remedy`` holds the command that changes that.
    """

    status = 502
    code = "no-ca"
    exit_status = 2
    public_default = "There is no local CA for this app."


# -- the path to the app --------------------------------------------------------------------------


class PathError(IamAuthError):
    """The path to the origin failed.

    :param error: the ``Proxy-Status`` error token (RFC 9209 section 2.3).
    :param for_anybody: ``remedy`` too names no user, tunnel or path, so that it may be shown under
        the name of an origin that nobody trusts, whose own scripts can read it. So is the class's.
    """

    status = 502
    code = "path"
    exit_status = 6
    public_default = "The app could not be reached."
    remedy_default = "Try again; if it stays so, tell the app's owner."

    def __init__(
        self,
        detail: str,
        *,
        error: str,
        status: int = 502,
        public: str = "",
        remedy: str = "",
        for_anybody: bool = False,
    ) -> None:
        super().__init__(detail, public=public, remedy=remedy)
        self.error = error
        self.for_anybody = for_anybody or not remedy
        # The class says 502; a timeout is 504 and a refused target 403.
        self.http_status = status
