"""The interfaces through which everyone else sees AWS. Synchronous, as boto3 is.

Errors of every method: :class:`~iam_auth_proxy.errors.AwsError` and its subclasses where AWS said
no, :class:`~iam_auth_proxy.errors.AwsUnavailable` where it did not answer. No botocore exception
comes through.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from iam_auth_proxy.protocol.proof import SessionCredentials


@dataclass(frozen=True, slots=True)
class CallerIdentity:
    """GetCallerIdentity's answer."""

    account: str
    arn: str
    user_id: str


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


class Sts(Protocol):
    """STS as the server uses it."""

    def caller_identity(self, credentials: SessionCredentials | None = None) -> CallerIdentity:
        """GetCallerIdentity with these credentials; with our own where none are given."""
        ...


class Principal(Protocol):
    """The person on whose behalf the proxy signs in; caches, and refreshes ahead of expiry.

    ``now`` is wall-clock time in seconds since the epoch: expiry is checked at use, since timers
    do not run while a laptop sleeps.
    """

    def identity(self, now: float) -> CallerIdentity:
        """Who Encrypt runs as: the base identity, or the assumed or MFA one."""
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

    def enter_mfa(self, code: str, now: float) -> None:
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
