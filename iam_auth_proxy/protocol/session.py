"""The cookie that an app's visitor holds after a sign-in (steps 15 to 18).

A value is ``KEYID.CLAIMS.TIME.SIGNATURE``: the id of the key that signed it, base64url of a JSON
object, when it was written, and itsdangerous' HMAC-SHA256 over all of that. Nothing in it is
secret. TIME is renewed while the visitor is active, the claims stay as they were.

Where the keys rotate meanwhile, a further claim ``keys`` names those that signed the session's
cookie before: all of them have to be accepted. Whoever knows a key could otherwise make a session
with it, have it renewed with the next one, and keep it when the key is disabled. That ends no
session of others: a key is accepted for as long as what was begun with it may last.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import asdict, dataclass, field
from typing import Any, Final

from itsdangerous import BadSignature, TimestampSigner

from iam_auth_proxy.errors import BadSession, Expired, Malformed, SessionKeyUnknown
from iam_auth_proxy.protocol.identity import Kind
from iam_auth_proxy.protocol.keyring import KeyRing, KeyVersion, derive
from iam_auth_proxy.protocol.strict import decode_base64, encode_base64, loads_object

MAX_COOKIE: Final = 4000
"""Characters of the value: browsers drop a cookie of over 4,096 with its name (RFC 6265bis)."""

SKEW: Final = 60
"""Seconds that the clocks of two workers may differ: a session is not refused for being new."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """Who signed in where, and until when. All times are seconds since the epoch.

    :param id: of this sign-in, random; what a revocation names.
    :param origin: the only one that it is accepted for, as ``str(Origin)``.
    :param proof: how it was proved, e.g. ``session-credentials``.
    :param issued: the sign-in; ``expires``: the absolute end.
    :param renewed: when the cookie was last written; :func:`seal` says it anew.
    :param keys: the ids of the keys that have signed its cookie so far.
    """

    id: str
    origin: str
    arn: str
    user_id: str
    account: str
    partition: str
    kind: Kind
    proof: str
    issued: int
    expires: int
    renewed: int = 0
    keys: tuple[str, ...] = field(default=(), compare=False)  # how it came here, not what it is


_PURPOSE = "session cookie"
_B64 = r"[A-Za-z0-9_-]"
_KEY = r"[0-9a-f]{1,64}"
_VALUE = re.compile(
    rf"(?P<key>{_KEY})\.(?P<claims>{_B64}+)\.(?P<time>{_B64}{{0,11}})\.(?P<mac>{_B64}{{43}})",
    re.ASCII,
)
# The claims and their types; ``renewed`` is the signer's own time.
_CLAIMS: Final[dict[str, type]] = {
    "id": str, "origin": str, "arn": str, "user_id": str, "account": str, "partition": str,
    "kind": str, "proof": str, "issued": int, "expires": int,
}  # fmt: skip


def seal(session: Session, ring: KeyRing, now: float) -> str:
    """The cookie's value, written at ``now`` with the ring's primary key.

    :raises Malformed: it would be too long for a cookie.
    """
    claims = asdict(session)
    del claims["renewed"]
    claims["keys"] = [id for id in session.keys if id != ring.primary.id]
    if not claims["keys"]:
        del claims["keys"]
    payload = encode_base64(json.dumps(claims, separators=(",", ":")).encode(), urlsafe=True)
    value = _signer(ring.primary, int(now)).sign(f"{ring.primary.id}.{payload}").decode("ascii")
    if len(value) > MAX_COOKIE:
        raise Malformed("the session is too long for a cookie")
    return value


def open_(
    value: str, ring: KeyRing, *, origin: str, now: float, idle: float | None = None
) -> Session:
    """The session in a cookie's value, if it holds for ``origin`` at ``now``.

    :param idle: seconds that may pass since the cookie was last written; None: any.
    :raises BadSession: not ours, or for another origin.
    :raises SessionKeyUnknown: of a key that is not in the ring, or was before it was renewed.
    :raises Expired: it was idle for too long, or is over.
    """
    match = _VALUE.fullmatch(value) if len(value) <= MAX_COOKIE else None
    if match is None:
        raise BadSession("the session cookie is not of ours")
    version = _known(match["key"], ring)
    try:
        # itsdangerous decodes leniently: one signature would have four spellings.
        decode_base64(match["mac"], "the signature", urlsafe=True)
        signed, written = _signer(version, 0).unsign(value, return_timestamp=True)
        claims = _claims(signed.decode("ascii").partition(".")[2])
    except BadSignature as error:
        raise BadSession("the session cookie does not verify") from error
    except Malformed as error:
        raise BadSession(f"the session cookie does not verify: {error}") from error
    keys = tuple(dict.fromkeys((*claims.pop("keys", ()), version.id)))
    session = Session(**claims, renewed=int(written.timestamp()), keys=keys)
    _check(session, origin, now, idle)
    for id in keys:
        _known(id, ring)
    return session


def _known(id: str, ring: KeyRing) -> KeyVersion:
    version = ring.get(id)
    if version is None:
        raise SessionKeyUnknown(f"the session cookie's key {id} is not in the ring")
    return version


def _claims(payload: str) -> dict[str, Any]:
    data = decode_base64(payload, "the claims", urlsafe=True)
    claims = loads_object(data, "the claims", at_most=MAX_COOKIE)
    types = {name: type(value) for name, value in claims.items()}
    if types != _CLAIMS and types != _CLAIMS | {"keys": list}:
        raise Malformed("the claims are not those of a session")
    if not all(type(id) is str and re.fullmatch(_KEY, id) for id in claims.get("keys", ())):
        raise Malformed("the keys are not those of a session")
    try:
        return claims | {"kind": Kind(claims["kind"])}
    except ValueError as error:
        raise Malformed("the kind is unknown") from error


def _check(session: Session, origin: str, now: float, idle: float | None) -> None:
    if session.origin != origin:
        raise BadSession("the session is for another origin")
    if now >= session.expires:
        raise Expired("the session is over")
    if session.renewed > now + SKEW or session.issued > now + SKEW:
        raise BadSession("the session is from the future")
    if idle is not None and now - session.renewed > idle:
        raise Expired("the session was idle for too long")


class _Signer(TimestampSigner):
    """A TimestampSigner whose time is given."""

    now: int

    def get_timestamp(self) -> int:
        return self.now


def _signer(version: KeyVersion, now: int) -> _Signer:
    signer = _Signer(
        derive(_PURPOSE, version),
        salt=b"iam-auth session",
        key_derivation="hmac",
        digest_method=hashlib.sha256,
    )
    signer.now = now
    return signer
