"""The interfaces through which everyone else sees AWS. Synchronous, as boto3 is.

Errors of every method: :class:`~iam_auth_proxy.errors.AwsError` and its subclasses where AWS said
no, :class:`~iam_auth_proxy.errors.AwsUnavailable` where it did not answer. No botocore exception
comes through.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import BinaryIO, Final, Protocol

from iam_auth_proxy.names import KeyArn, Origin
from iam_auth_proxy.protocol.proof import SessionCredentials, SignedIdentity
from iam_auth_proxy.protocol.signed_identity import StsRequest


@dataclass(frozen=True, slots=True)
class CallerIdentity:
    """GetCallerIdentity's answer."""

    account: str
    arn: str
    user_id: str


@dataclass(frozen=True, slots=True)
class Seen:
    """Who somebody was found to be, and until when the credentials last.

    :ivar expires: seconds since the epoch; None: they last, or nobody says for how long.
    """

    identity: CallerIdentity
    expires: float | None = None


@dataclass(frozen=True, slots=True)
class ClientSettings:
    """How AWS is asked. Each login has clients of its own, made with all of this.

    :ivar connect_timeout: seconds, as ``read_timeout``.
    :ivar connections: how many stay open to one host.
    :ivar kms_endpoint: the URL of another KMS; empty: AWS's own, or the one of the configuration.
    :ivar keys: access key id, secret access key and session token (or empty) to sign with, in place
        of what boto3 finds.
    """

    connect_timeout: float = 5.0
    read_timeout: float = 10.0
    connections: int = 16
    kms_endpoint: str = ""
    keys: tuple[str, str, str] | None = field(default=None, repr=False)


AS_USUAL: Final = ClientSettings()


@dataclass(frozen=True, slots=True)
class Encrypted:
    """KMS Encrypt's answer: the blob, and the ARN of the key that was really used."""

    ciphertext: bytes = field(repr=False)
    key_arn: str


@dataclass(frozen=True, slots=True)
class Decrypted:
    """KMS Decrypt's answer."""

    plaintext: bytes = field(repr=False)
    key_arn: str


class Kms(Protocol):
    """KMS as one identity. A key given by ARN is used in the ARN's region."""

    def encrypt(self, key: str, plaintext: bytes, context: Mapping[str, str]) -> Encrypted:
        """Encrypt up to 4096 bytes. ``key``: any of KMS's four spellings."""
        ...

    def decrypt(self, key: str, ciphertext: bytes, context: Mapping[str, str]) -> Decrypted:
        """Decrypt; ``key`` is always named (IncorrectKeyException otherwise)."""
        ...

    def key_arn(self, key: str) -> str:
        """DescribeKey: the key ARN behind any spelling."""
        ...


@dataclass(frozen=True, slots=True)
class StoredObject:
    """An object as it was read. Whoever asked for it closes ``body``.

    :ivar body: at its start; can be read again from there.
    :ivar size: bytes of the whole object.
    :ivar tag: changes whenever the object does.
    """

    body: BinaryIO = field(repr=False)
    size: int
    tag: str


class ObjectStore(Protocol):
    """Objects under keys such as ``web/db``: S3, or a local folder. Safe to use from any thread.

    A write is done whole or not at all, and never over something unseen. Errors of every method
    besides its own: :class:`~iam_auth_proxy.errors.StoreUnavailable` where a folder fails, and
    those of AWS.
    """

    def read(self, key: str, at_most: int | None = None) -> StoredObject:
        """The object, or its first ``at_most`` bytes.

        :raises NoSuchObject: there is none.
        """
        ...

    def create(self, key: str, body: BinaryIO) -> None:
        """Write an object that is not there yet. ``body`` is at its start, and can be read again.

        :raises ObjectChanged: there is one; perhaps this very one, whose answer was lost.
        """
        ...

    def replace(self, key: str, body: BinaryIO, tag: str) -> None:
        """Write an object over the one that has this tag.

        :raises ObjectChanged: it is another one now, or gone; or this very one, as above.
        """
        ...

    def delete(self, key: str) -> None:
        """Remove an object, if it is there."""
        ...

    def keys(self, prefix: str) -> list[str]:
        """The keys that begin so, in the order of their bytes."""
        ...


class Sts(Protocol):
    """STS as the server uses it."""

    def caller_identity(self, credentials: SessionCredentials | None = None) -> CallerIdentity:
        """GetCallerIdentity with these credentials; with our own where none are given."""
        ...

    def check_signed_identity(self, request: StsRequest) -> CallerIdentity:
        """Send the rebuilt request; gives whom STS takes its signer for.

        STS is asked under the request's own host name, by https, unless another endpoint is
        configured for it. Nothing is followed, 64 KiB are read at most, and 10 s are all it takes.

        :raises AwsError: STS says no: a signature over another request or of another key, a session
            that has ended (:class:`~iam_auth_proxy.errors.LoginNeeded`), a date that is too far off
            (:class:`~iam_auth_proxy.errors.ClockSkew`).
        :raises AwsUnavailable: STS is busy or does not answer; or what answers is not STS.
        """
        ...


class Principal(Protocol):
    """The person on whose behalf the proxy signs in; caches, and refreshes ahead of expiry.

    ``now`` is wall-clock time in seconds since the epoch: expiry is checked at use, since timers
    do not run while a laptop sleeps.
    """

    def identity(self, now: float) -> CallerIdentity:
        """Who Encrypt runs as: the base identity, or the assumed or MFA one."""
        ...

    def seen(self) -> Seen | None:
        """What :meth:`identity` said last; None: nobody asked yet. Asks nothing."""
        ...

    def sign_identity(self, key: KeyArn, origin: Origin, nonce: str, now: float) -> SignedIdentity:
        """A GetCallerIdentity as :meth:`identity`, for nobody but this origin, once. Asks nothing.

        Encrypt first and sign then: credentials that AWS has ended are found out by Encrypt, which
        gets new ones, while a signature with the old ones would pass here and fail there.

        :param key: in whose region the app asks STS.
        :raises AwsError: the credentials are of no form that AWS gives.
        """
        ...

    def session_credentials(self, now: float) -> SessionCredentials:
        """Credentials (900 s) that a legacy app may see; those of :meth:`session_identity`.

        GetSessionToken's, of the base identity. Where that is a session itself (role, SSO,
        federation) GetSessionToken is never called: then they are those of the configured login
        role, with a session policy that denies everything.

        :raises NoSessionCredentials: the base identity is a session, and there is no login role.
        :raises MfaNeeded: a code has to be entered first.
        """
        ...

    def session_identity(self, now: float) -> CallerIdentity:
        """Who a legacy app would see: the owner of :meth:`session_credentials`.

        :raises NoSessionCredentials: as there.
        """
        ...

    def encrypt(
        self, key: str, plaintext: bytes, context: Mapping[str, str], now: float
    ) -> Encrypted:
        """KMS Encrypt as :meth:`identity`."""
        ...

    def enter_mfa(self, code: str) -> None:
        """Begin an MFA session with this code.

        :raises MfaRefused: wrong serial or code.
        """
        ...

    def forget(self) -> None:
        """Drop everything cached; the next use builds a fresh session."""
        ...


class Principals(Protocol):
    """The people behind the profiles. Safe to use from any thread."""

    def of(self, profile: str = "") -> Principal:
        """Who signs in with this profile; the same object each time.

        Asks AWS nothing, and does not look whether there is such a profile.

        :param profile: empty for the configured one, with its role and MFA device; another profile
            stands for itself alone.
        """
        ...

    def forget(self) -> None:
        """Let all of them drop what is cached."""
        ...
