"""The nonce of a bound sign-in, and the cookie that says to whom it was given (section 3).

A nonce is ``KEYID.PAYLOAD.MAC``: the id of the ring's key that signed it, base64url of the payload,
and HMAC-SHA256 over both. The payload is the second it was issued, the epoch of the salt in its
challenge (8 bytes each, big-endian), 16 random bytes and the origin as text. Nothing in it is
secret; that it is new, timed and for one origin is what it is for. It has one spelling, so that
whoever spends it may remember its text.

The cookie holds the same text. A page that posts a nonce which it fetched itself has no such cookie
in the victim's browser; the proxy takes it from the very answer that it answers, sends it back once
and shows it to nobody.
"""

from __future__ import annotations

import hmac
import re
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from iam_auth_proxy.errors import (
    BadChallenge,
    BadNonce,
    Expired,
    Malformed,
    NonceKeyUnknown,
    WrongOrigin,
)
from iam_auth_proxy.names import Origin, parse_origin
from iam_auth_proxy.protocol.cookies import cookie_name as _cookie_name
from iam_auth_proxy.protocol.keyring import KeyRing, KeyVersion, derive
from iam_auth_proxy.protocol.strict import decode_base64, encode_base64

MAX_AGE: Final = 300
"""Seconds from the challenge to the hand-over."""

SKEW: Final = 60
"""Seconds that the clocks of two workers may differ: a nonce is not refused for being new."""

RANDOM_BYTES: Final = 16
"""How many random bytes :func:`issue` takes: 128 bits."""

COOKIE: Final = "iam_auth_nonce"

_PURPOSE = "nonce"
_GRAMMAR = re.compile(r"[A-Za-z0-9._-]{22,512}", re.ASCII)
_NONCE = re.compile(
    r"(?P<signed>(?P<key>[0-9a-f]{1,64})\.(?P<payload>[A-Za-z0-9_-]+))\.(?P<mac>[A-Za-z0-9_-]{43})",
    re.ASCII,
)
_NUMBERS = struct.Struct(">QQ")
_ORIGIN_AT = _NUMBERS.size + RANDOM_BYTES


@dataclass(frozen=True, slots=True)
class Nonce:
    """What a nonce says.

    :param origin: the server's own, for the request that it answered with this nonce.
    :param epoch: of the salt in the challenge's encryption context.
    :param issued: seconds since the epoch.
    :param key: the version that signed it.
    """

    origin: Origin
    epoch: int
    issued: int
    key: KeyVersion

    @property
    def until(self) -> int:
        """From when on no worker accepts it, so that nobody need remember it was spent."""
        return self.issued + MAX_AGE + SKEW + 1


def check_nonce(text: str) -> str:
    """``text``, unchanged, if it is in the grammar that both ends know of a nonce.

    What is inside is its server's own business: only :func:`open_` looks at it.

    :raises Malformed: otherwise.
    """
    if not _GRAMMAR.fullmatch(text):
        raise Malformed("the nonce is not 22 to 512 of the characters A-Z a-z 0-9 . _ -")
    return text


def issue(ring: KeyRing, origin: Origin, epoch: int, now: float, random: bytes) -> str:
    """A nonce for one sign-in at ``origin``, signed with the ring's primary key.

    :param epoch: of the salt, not negative.
    :param random: :data:`RANDOM_BYTES` of them, fresh.
    :raises ValueError: another number of them.
    """
    if len(random) != RANDOM_BYTES:
        raise ValueError(f"a nonce takes {RANDOM_BYTES} random bytes")
    payload = _NUMBERS.pack(int(now), epoch) + random + str(origin).encode("ascii")
    signed = f"{ring.primary.id}.{encode_base64(payload, urlsafe=True)}"
    return check_nonce(f"{signed}.{encode_base64(_mac(ring.primary, signed), urlsafe=True)}")


def open_(text: str, ring: KeyRing, *, origin: Origin, now: float) -> Nonce:
    """What a nonce says, if it was issued for ``origin`` and is not too old.

    That it was not spent, and that whoever brings it has its cookie, is the caller's to check.

    :raises BadNonce: it is not of ours, or it is from the future.
    :raises NonceKeyUnknown: it is of a key that is not in the ring.
    :raises WrongOrigin: it is for another origin.
    :raises Expired: it is older than :data:`MAX_AGE`.
    """
    nonce = _read(text, ring)
    if nonce.origin != origin:
        raise WrongOrigin(f"the nonce is for {nonce.origin}, not for {origin}")
    if nonce.issued > now + SKEW:
        raise BadNonce("the nonce is from the future")
    if now - nonce.issued > MAX_AGE:
        raise Expired(f"the nonce is older than {MAX_AGE} s")
    return nonce


def _read(text: str, ring: KeyRing) -> Nonce:
    match = _NONCE.fullmatch(text) if _GRAMMAR.fullmatch(text) else None
    if match is None:
        raise BadNonce("the nonce is not of ours")
    version = ring.get(match["key"])
    if version is None:
        raise NonceKeyUnknown(f"the nonce's key {match['key']} is not in the ring")
    try:
        mac = decode_base64(match["mac"], "the nonce's signature", urlsafe=True)
        if not hmac.compare_digest(mac, _mac(version, match["signed"])):
            raise BadNonce("the nonce does not verify")
        payload = decode_base64(match["payload"], "the nonce's payload", urlsafe=True)
        issued, epoch = _NUMBERS.unpack_from(payload)
        origin = parse_origin(payload[_ORIGIN_AT:].decode("ascii"))
    except (Malformed, struct.error, UnicodeDecodeError) as error:
        raise BadNonce(f"the nonce does not verify: {error}") from error
    return Nonce(origin, epoch, issued, version)


def _mac(version: KeyVersion, signed: str) -> bytes:
    return hmac.digest(derive(_PURPOSE, version), signed.encode("ascii"), "sha256")


# -- the cookie ------------------------------------------------------------------------------------

# Of any port, and in any case: browsers compare the prefix without regard to case, and a cookie
# that only looks like ours is none that a browser needs.
_SET_COOKIE = re.compile(
    rb"[ \t]*(?:__Host-)?" + COOKIE.encode("ascii") + rb"(?:-[0-9]{1,5})?[ \t]*=.*",
    re.ASCII | re.IGNORECASE | re.DOTALL,
)


def cookie_name(origin: Origin) -> str:
    """The name of an origin's nonce cookie, made as that of its session cookie."""
    return _cookie_name(origin, COOKIE)


def write_cookie(origin: Origin, nonce: str) -> str:
    """The value of the Set-Cookie field beside a bound challenge."""
    secure = "; Secure" if origin.scheme == "https" else ""
    attributes = f"Path=/; HttpOnly; SameSite=Lax; Max-Age={MAX_AGE}{secure}"
    return f"{cookie_name(origin)}={check_nonce(nonce)}; {attributes}"


def read_set_cookie(headers: Sequence[tuple[bytes, bytes]], origin: Origin) -> str | None:
    """The nonce in the cookie that an answer of ``origin`` sets; None where it sets none.

    :raises BadChallenge: there are several, or it holds no nonce.
    """
    name = cookie_name(origin)
    found: list[str] = []
    for field, value in headers:
        if field.lower() != b"set-cookie":
            continue
        pair = value.decode("latin-1").partition(";")[0]
        key, separator, text = pair.partition("=")
        if separator and key.strip(" \t") == name:
            found.append(text.strip(" \t"))
    if len(found) > 1:
        raise BadChallenge(f"the cookie {name} is set several times")
    try:
        return check_nonce(found[0]) if found else None
    except Malformed as error:
        raise BadChallenge(f"the cookie {name}: {error}") from error


def is_nonce_cookie(set_cookie_value: bytes) -> bool:
    """Whether a Set-Cookie field sets a nonce cookie: the proxy never relays one to a browser."""
    return _SET_COOKIE.fullmatch(set_cookie_value) is not None
