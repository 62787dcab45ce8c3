"""Which key signs, and which verify.

A ring is never a bare list: libraries disagree on whether the first or the last of a list signs.
A ring has one primary version, which signs, and versions that are accepted besides. Whoever reads a
signed value finds the key by the id inside it and tries no other.

A ring is what holds at one moment. Where keys rotate, :class:`Rings` gives the ring of any moment:
whoever signs or verifies asks for it once per request, and cannot tell the two apart.
"""

from __future__ import annotations

import hmac
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Final, Protocol, Self

from iam_auth_proxy.errors import Malformed

MIN_SECRET: Final = 32
"""Characters. 32 hexadecimal digits are 128 bits."""

SECRET_COMMAND: Final = "python3 -c 'import secrets; print(secrets.token_urlsafe(32))'"  # noqa: S105 - makes one
"""Prints a good secret."""

_MIN_DISTINCT = 8
# Of six letters at least: a random secret holds one of them less than once in a million.
_PLACEHOLDERS = (
    "changeme", "change-me", "change_me", "change me", "replaceme", "replace-me", "replace_me",
    "secret", "password", "passwort", "passphrase", "random string", "random-string",
    "random_string", "randomstring", "insecure", "example", "placeholder", "default", "your-key",
    "your_key", "yourkey", "qwerty", "letmein", "development", "supersecure",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class KeyVersion:
    """One key. ``id`` names it in public; ``material`` never leaves the process.

    :param created: seconds since the epoch, 0 where nobody knows.
    """

    id: str
    material: bytes = field(repr=False)
    created: int = 0

    @classmethod
    def of(cls, material: bytes, created: int = 0) -> Self:
        """A version whose id is derived from its material, one way."""
        return cls(_hkdf(material, b"iam-auth key id", 6).hex(), material, created)


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyRing:
    """``primary`` signs; ``primary`` and ``also_accepted`` verify.

    :param salts: fixed salts of legacy contexts that are still accepted; none is given out.
    :raises Malformed: two versions of one id.
    """

    primary: KeyVersion
    also_accepted: tuple[KeyVersion, ...] = ()
    salts: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if len({version.id for version in self.versions}) != len(self.versions):
            raise Malformed("the key ring has two versions of one id")

    @classmethod
    def from_secret(cls, secret: str) -> Self:
        """A ring of one version, from the operator's secret.

        :raises Malformed: :func:`check_secret` refuses it.
        """
        reason = check_secret(secret)
        if reason is not None:
            raise Malformed(f"the secret {reason}")
        return cls(primary=KeyVersion.of(secret.encode("utf-8", "surrogatepass")))

    @property
    def versions(self) -> tuple[KeyVersion, ...]:
        """All of them, the primary first."""
        return (self.primary, *self.also_accepted)

    def get(self, id: str) -> KeyVersion | None:
        """The version of that id, if it is accepted."""
        for version in self.versions:
            if version.id == id:
                return version
        return None


@dataclass(frozen=True, slots=True)
class Health:
    """Whether the ring is fresh.

    :param ok: the last reading of the store was good and is recent.
    :param read_at: when the last good reading was, in seconds since the epoch.
    :param problem: one public sentence; empty where ``ok``.
    """

    ok: bool
    read_at: float
    problem: str = ""


class Rings(Protocol):
    """The key ring of every moment. All three are safe from any thread; ``now`` is in seconds."""

    def at(self, now: float) -> KeyRing:
        """What signs and verifies at ``now``: from memory, cheap enough for every request.

        A moment of the past gives what held then, as far as its keys are still there.

        :raises StoreUnavailable: nothing was read yet; :meth:`reread` reads.
        """

    def reread(self, now: float) -> bool:
        """Read the store again because a key id was not known; True where the ring changed.

        It may block. It reads at most once per few seconds, so unknown ids cannot be used to burn
        reads, and it raises nothing where the store is down: the last good ring stays.
        """

    def health(self, now: float) -> Health:
        """Whether the ring is fresh, for the health page."""


@dataclass(frozen=True, slots=True)
class StaticRings:
    """The rings of keys that never rotate: one ring, at every moment."""

    ring: KeyRing

    def at(self, now: float) -> KeyRing:
        return self.ring

    def reread(self, now: float) -> bool:
        return False

    def health(self, now: float) -> Health:
        return Health(ok=True, read_at=now)


def derive(purpose: str, version: KeyVersion) -> bytes:
    """32 bytes for one purpose; what is derived for another says nothing about them."""
    return _hkdf(version.material, b"iam-auth " + purpose.encode("utf-8"), 32)


def _hkdf(material: bytes, info: bytes, length: int) -> bytes:
    """HKDF-SHA256 (RFC 5869) without a salt, for at most one block of 32 bytes.

    The standard library's hmac does; cryptography costs 27 ms to import.
    """
    extracted = hmac.digest(bytes(32), material, "sha256")
    return hmac.digest(extracted, info + b"\x01", "sha256")[:length]


def check_secret(text: str) -> str | None:
    """Why ``text`` is too weak to sign with, to follow the name of the setting; None if it is good.

    It finds what people type and paste. It cannot find a secret that was published.
    """
    folded = text.casefold()
    if text != text.strip():
        return "begins or ends with white space"
    if folded.startswith("<") and folded.endswith(">"):
        return "is a placeholder"
    word = next((word for word in _PLACEHOLDERS if word in folded), None)
    if word is not None:
        return f"looks like a placeholder: it contains {word!r}"
    if len(text) < MIN_SECRET:
        return f"has {len(text)} characters; it needs at least {MIN_SECRET}"
    if len(set(text)) < _MIN_DISTINCT:
        return f"has only {len(set(text))} different characters"
    if text in (text + text)[1:-1]:
        return "repeats a shorter text"
    steps = sum(abs(ord(left) - ord(right)) <= 1 for left, right in pairwise(text))
    if steps * 2 > len(text):
        return "counts through the alphabet"
    return None
