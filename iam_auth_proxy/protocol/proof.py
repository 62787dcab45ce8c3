"""What proves an identity (steps 5, 6 and 12), strongest first.

A **signed identity**: SigV4 over a GetCallerIdentity that names one origin and one nonce. It says
only what the server cannot know; ``protocol/signed_identity.py`` has the request::

    {"type":"signed-identity","date":"20240125T120000Z","access_key_id":"ASIA...",
     "session_token":"...","signature":"64 hexadecimal digits"}

**Session credentials**, as the original serialises them::

    {"AccessKeyId":"ASIA...","Expiration":"2024-01-25T12:00:00Z","SecretAccessKey":"...","SessionToken":"..."}

The Go original marshals the STS answer, so the keys are in alphabetical order and the time is RFC
3339 with as many fractional digits as are needed (Go's time.RFC3339Nano).
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta, timezone
from enum import StrEnum
from typing import Any, Final

from iam_auth_proxy.errors import Expired, Malformed, WeakProof
from iam_auth_proxy.protocol.strict import loads_object

MAX_LIFE: Final = 3600
"""Seconds. The proxies ask GetSessionToken for 900; credentials that live on are not for this."""

SKEW: Final = 60
"""Seconds that our clock and AWS's may differ."""

MAX_DRIFT: Final = 300
"""Seconds that a signed identity's date may be off either way; STS itself allows 900."""

MAX_PROOF: Final = 9216
"""Bytes. A session token may have 4,096 characters since 2026-09, and JSON may escape each."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_KEYS = ("AccessKeyId", "Expiration", "SecretAccessKey", "SessionToken")

# STS API reference, Credentials: AccessKeyId is [\w]{16,128}; of the others AWS says to assume
# nothing, so they are whatever a header field can carry.
_ACCESS_KEY_ID = re.compile(r"[A-Z0-9]{16,128}", re.ASCII)
_SECRET = re.compile(r"[!-~]{16,256}", re.ASCII)
_SESSION_TOKEN = re.compile(r"[!-~]{1,4096}", re.ASCII)
_SIGNATURE = re.compile(r"[0-9a-f]{64}", re.ASCII)
_DATE = re.compile(r"[0-9]{8}T[0-9]{6}Z", re.ASCII)
_TIME = re.compile(
    r"(?P<second>[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2})(?:\.[0-9]{1,9})?"
    r"(?:Z|(?P<sign>[+-])(?P<hours>[01][0-9]|2[0-3]):(?P<minutes>[0-5][0-9]))",
    re.ASCII,
)


class ProofKind(StrEnum):
    """The kinds, strongest first; the value is the name on the wire."""

    SIGNED_IDENTITY = "signed-identity"
    SESSION_CREDENTIALS = "session-credentials"


@dataclass(frozen=True, slots=True)
class SessionCredentials:
    """Temporary credentials of GetSessionToken.

    :param expiration: seconds since the epoch; a fraction that AWS sent is cut off.
    """

    access_key_id: str
    secret_access_key: str = field(repr=False)
    session_token: str = field(repr=False)
    expiration: int

    def dumps(self) -> bytes:
        """The JSON that KMS Encrypt seals, byte for byte as the Go original writes it.

        :raises Malformed: the expiration is not in the years 1 to 9999.
        """
        values = (
            self.access_key_id,
            _write_time(self.expiration),
            self.secret_access_key,
            self.session_token,
        )
        return json.dumps(dict(zip(_KEYS, values, strict=True)), separators=(",", ":")).encode()

    def check(self, now: float, skew: float = SKEW) -> None:
        """Whether a server should take these as a proof, by ``now`` on its own clock.

        :param skew: seconds by which the expiration may exceed the longest life.
        :raises WeakProof: long-term credentials, or ones that live longer than an hour.
        :raises Expired: their time is over.
        """
        if not self.access_key_id.startswith("ASIA") or not self.session_token:
            raise WeakProof("these are not temporary credentials")
        if self.expiration <= now:
            raise Expired("the session credentials have expired")
        if self.expiration > now + MAX_LIFE + skew:
            raise WeakProof("the session credentials live longer than an hour")


def loads(data: bytes) -> SessionCredentials:
    """What :meth:`SessionCredentials.dumps` writes, and every spelling of it that Go would write.

    :raises WeakProof: there is no session token: these are long-term credentials.
    :raises Malformed: anything else that is not in the grammar.
    """
    value = loads_object(data, "the proof", at_most=MAX_PROOF)
    if value.keys() - set(_KEYS):
        raise Malformed("the proof has an unknown key")
    if value.get("SessionToken") in (None, ""):
        raise WeakProof("the proof has no session token")
    if value.keys() != set(_KEYS):
        raise Malformed("the proof lacks a key")
    return SessionCredentials(
        access_key_id=_match(_ACCESS_KEY_ID, value["AccessKeyId"], "AccessKeyId"),
        secret_access_key=_match(_SECRET, value["SecretAccessKey"], "SecretAccessKey"),
        session_token=_match(_SESSION_TOKEN, value["SessionToken"], "SessionToken"),
        expiration=_read_time(value["Expiration"]),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class SignedIdentity:
    """The variable parts of a signed GetCallerIdentity. Of no use for anything else.

    :param date: X-Amz-Date, ``YYYYMMDDTHHMMSSZ``.
    :param session_token: empty for long-term credentials.
    :param signature: 64 hexadecimal digits, lower case.
    :raises Malformed: any of them is outside its grammar.
    """

    date: str
    access_key_id: str
    session_token: str = field(default="", repr=False)
    signature: str = field(repr=False)

    def __post_init__(self) -> None:
        _match(_DATE, self.date, "date")
        self._time()
        _match(_ACCESS_KEY_ID, self.access_key_id, "access_key_id")
        if self.session_token != "":
            _match(_SESSION_TOKEN, self.session_token, "session_token")
        _match(_SIGNATURE, self.signature, "signature")

    def dumps(self) -> bytes:
        """The JSON that the envelope seals, compact, its keys in the order above."""
        value = {"type": ProofKind.SIGNED_IDENTITY.value} | {
            name: getattr(self, name) for name in _SIGNED_KEYS
        }
        return json.dumps(value, separators=(",", ":")).encode("ascii")

    def check(self, now: float) -> None:
        """Whether it was signed about now, by the server's own clock.

        :raises Expired: the date is more than :data:`MAX_DRIFT` off, either way.
        """
        off = now - self._time()
        if abs(off) > MAX_DRIFT:
            side = "old" if off > 0 else "ahead"
            raise Expired(f"the signed identity is {abs(off):.0f} s {side}; {MAX_DRIFT} s may be")

    def _time(self) -> float:
        try:
            moment = datetime.strptime(self.date, "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
        except ValueError as error:
            raise Malformed("the proof's date is not a time") from error
        return moment.timestamp()


_SIGNED_KEYS = ("date", "access_key_id", "session_token", "signature")


def load_proof(data: bytes, kind: ProofKind) -> SessionCredentials | SignedIdentity:
    """The proof in an opened envelope.

    :param kind: what the encryption context says; a proof of another type is none.
    :raises WeakProof: session credentials without a session token.
    :raises Malformed: another type, or anything else that is not in the grammar.
    """
    if kind is ProofKind.SESSION_CREDENTIALS:
        return loads(data)
    value = loads_object(data, "the proof", at_most=MAX_PROOF)
    if value.keys() != {"type", *_SIGNED_KEYS} or value["type"] != kind:
        raise Malformed("the proof is not a signed identity, or lacks a key, or has an unknown one")
    del value["type"]
    return SignedIdentity(**value)


def _match(pattern: re.Pattern[str], value: Any, name: str) -> str:
    if not isinstance(value, str) or not pattern.fullmatch(value):
        raise Malformed(f"the proof's {name} is outside its grammar")
    return value


def _write_time(seconds: int) -> str:
    try:
        moment = _EPOCH + timedelta(seconds=seconds)
    except OverflowError as error:
        raise Malformed("the expiration is not a time") from error
    return moment.replace(tzinfo=None).isoformat() + "Z"


def _read_time(value: Any) -> int:
    match = _TIME.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        raise Malformed("the proof's Expiration is not an RFC 3339 time")
    offset = timedelta(hours=int(match["hours"] or 0), minutes=int(match["minutes"] or 0))
    zone = timezone(-offset if match["sign"] == "-" else offset)
    try:
        moment = datetime.fromisoformat(match["second"]).replace(tzinfo=zone)
    except ValueError as error:
        raise Malformed("the proof's Expiration is not a time") from error
    return (moment - _EPOCH) // timedelta(seconds=1)
