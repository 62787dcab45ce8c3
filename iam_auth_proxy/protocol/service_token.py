"""Service tokens (kmsauth): username, encryption context, payload, and how a request carries them.

A token proves that somebody could have KMS encrypt under a context that says from whom and for whom
it is; IAM policies say who may do so for which ``from``. The formats are those of python-kmsauth
0.6.3 and Confidant, to the byte:

=========  ========================================  ============================================
version    username                                  encryption context
=========  ========================================  ============================================
2          ``2/user/alice`` or ``2/service/name``    ``{"to", "from", "user_type"}``
1          ``name``, always a service's              ``{"to", "from"}``
=========  ========================================  ============================================

Both ends may agree on further pairs of the context. The plaintext is ``{"not_before": TIME,
"not_after": TIME}``, the token standard base64 of what KMS made of it. A request carries it with
its username in ``X-Auth-From`` and ``X-Auth-Token``, or as HTTP Basic.

Each spelling is accepted in one form only: the original's lenient ones (``02/user/alice``, base64
with line breaks) would be as many entries in a cache and as many calls of KMS.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from typing import Final

from iam_auth_proxy.errors import BadServiceToken, Malformed
from iam_auth_proxy.names import check_caller_name
from iam_auth_proxy.protocol.strict import decode_base64, encode_base64, loads_object

FROM_FIELD: Final = "X-Auth-From"
TOKEN_FIELD: Final = "X-Auth-Token"  # noqa: S105  # a field's name

VERSIONS: Final = (1, 2)

MAX_TOKEN: Final = 2048
"""Characters. Tokens have about 280."""

MAX_PAYLOAD: Final = 1024
MAX_CONTEXT_PAIRS: Final = 16
_MAX_CONTEXT_TEXT = 1024

_RESERVED = frozenset({"to", "from", "user_type"})

_USERNAME = re.compile(r"(?P<version>[^/]*)/(?P<type>[^/]*)/(?P<name>[^/]*)")
_NUMBER = re.compile(r"[1-9][0-9]{0,2}", re.ASCII)
_TIME = re.compile(r"[0-9]{8}T[0-9]{6}Z", re.ASCII)


class CallerType(StrEnum):
    """Whom a token is from: a person, or a program with an identity of its own."""

    USER = "user"
    SERVICE = "service"


def check_extra(extra: Mapping[str, str]) -> dict[str, str]:
    """Further pairs of the encryption context.

    KMS and IAM compare keys without case, so a key may not be one of ours in another case.

    :raises Malformed: too many or too long, not text, with control characters, or keys of ours.
    """
    if len(extra) > MAX_CONTEXT_PAIRS - len(_RESERVED):
        raise Malformed(f"more than {MAX_CONTEXT_PAIRS - len(_RESERVED)} further pairs of context")
    for key, value in extra.items():
        for text in (key, value):
            if not isinstance(text, str) or not 1 <= len(text) <= _MAX_CONTEXT_TEXT:
                raise Malformed(f"context is texts of 1 to {_MAX_CONTEXT_TEXT} characters")
            if not text.isprintable():
                raise Malformed("the context has a character that does not print")
        if key.casefold() in _RESERVED:
            raise Malformed(f"{key!r} is a part of every token's context, not of the further one")
    if len({key.casefold() for key in extra}) != len(extra):
        raise Malformed("the context has keys that differ by case only")
    return dict(extra)


# -- the username ----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Caller:
    """Whom a token is from. ``str()`` of it is the username.

    :raises Malformed: a name outside the grammar, an unknown version, or a user in version 1.
    """

    name: str
    type: CallerType = CallerType.SERVICE
    version: int = 2

    def __post_init__(self) -> None:
        check_caller_name(self.name)
        if self.version not in VERSIONS:
            raise Malformed(f"there is no version {self.version}: it is 1 or 2")
        if self.version == 1 and self.type is not CallerType.SERVICE:
            raise Malformed("version 1 is for services only")

    def __str__(self) -> str:
        return self.name if self.version == 1 else f"{self.version}/{self.type}/{self.name}"

    def context(self, to: str, extra: Mapping[str, str] | None = None) -> dict[str, str]:
        """The encryption context of this caller's tokens for ``to``.

        :param extra: further pairs that passed :func:`check_extra`.
        """
        pairs = {**(extra or {}), "to": to, "from": self.name}
        if self.version > 1:
            pairs["user_type"] = self.type.value
        return pairs


def parse_username(text: str) -> Caller:
    """The username in its one spelling.

    :raises BadServiceToken: otherwise; the field is ``version``, ``user_type``, ``from`` or, where
        it cannot be taken apart, ``username``.
    """
    if "/" not in text:
        return Caller(_from(text), CallerType.SERVICE, 1)
    match = _USERNAME.fullmatch(text)
    if match is None:
        raise BadServiceToken(
            "a username is 2/user/NAME or 2/service/NAME, and no NAME has a slash", field="username"
        )
    version = match["version"]
    if version not in ("1", "2"):
        if _NUMBER.fullmatch(version):
            said = f"there is no version {version} of service tokens (SigV4 is something else)"
        else:
            said = "a username begins with the version of the token: 2/user/NAME"
        raise BadServiceToken(said, field="version")
    if version == "1":
        raise BadServiceToken("in version 1 the username is the bare name", field="username")
    if match["type"] not in tuple(CallerType):
        raise BadServiceToken("a caller is a user or a service: 2/user/NAME", field="user_type")
    return Caller(_from(match["name"]), CallerType(match["type"]))


def _from(text: str) -> str:
    try:
        return check_caller_name(text)
    except Malformed as error:
        raise BadServiceToken(str(error), field="from") from error


# -- the payload -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Window:
    """When a token is valid: whole seconds since the epoch, both ends included."""

    not_before: int
    not_after: int

    @property
    def lifetime(self) -> int:
        """Seconds from the beginning to the end."""
        return self.not_after - self.not_before

    def check(self, now: float, *, max_lifetime: float, leeway: float) -> None:
        """Whether it holds at ``now``.

        :param max_lifetime: seconds that the whole window may be long.
        :param leeway: seconds by which the issuer's clock may differ from ours.
        :raises BadServiceToken: the field is ``lifetime``, ``not_before`` or ``not_after``.
        """
        if self.lifetime > max_lifetime:
            raise BadServiceToken(
                f"its window is {self.lifetime} s long; at most {max_lifetime:g} s are accepted",
                field="lifetime",
            )
        if now < self.not_before - leeway:
            raise BadServiceToken(
                f"it is valid in {self.not_before - now:.0f} s only: the clocks differ",
                field="not_before",
            )
        if now > self.not_after + leeway:
            raise BadServiceToken(f"it expired {now - self.not_after:.0f} s ago", field="not_after")


def write_payload(window: Window) -> bytes:
    """The plaintext of a token, with the original's spacing."""
    times = {
        "not_before": _write_time(window.not_before),
        "not_after": _write_time(window.not_after),
    }
    return json.dumps(times).encode("ascii")


def parse_payload(data: bytes) -> Window:
    """What :func:`write_payload` writes, with any JSON spacing.

    :raises BadServiceToken: otherwise; the field is ``payload``.
    """
    try:
        pairs = loads_object(data, "the payload", at_most=MAX_PAYLOAD)
    except Malformed as error:
        raise BadServiceToken(str(error), field="payload") from error
    if pairs.keys() != {"not_before", "not_after"}:
        raise BadServiceToken(
            "the payload is not exactly not_before and not_after", field="payload"
        )
    window = Window(_read_time(pairs["not_before"]), _read_time(pairs["not_after"]))
    if window.lifetime < 0:
        raise BadServiceToken("the payload's window ends before it begins", field="payload")
    return window


def _write_time(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y%m%dT%H%M%SZ").rjust(16, "0")


def _read_time(value: object) -> int:
    if not isinstance(value, str) or not _TIME.fullmatch(value):
        raise BadServiceToken("the payload has a time unlike 20261121T204802Z", field="payload")
    try:
        date, clock = value[:8], value[9:15]
        moment = datetime(
            int(date[:4]), int(date[4:6]), int(date[6:]),
            int(clock[:2]), int(clock[2:4]), int(clock[4:]), tzinfo=UTC,
        )  # fmt: skip
    except ValueError as error:
        raise BadServiceToken(
            "the payload has a time that no calendar has", field="payload"
        ) from error
    return int(moment.timestamp())


# -- the token -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ServiceToken:
    """A token with all that its bearer needs.

    :ivar text: the token itself. Whoever has it is the caller until the window ends.
    :ivar key_arn: the key that KMS says it used.
    """

    caller: Caller
    to: str
    window: Window
    text: str = field(repr=False)
    key_arn: str = ""

    def headers(self) -> dict[str, str]:
        """The fields that carry it; clients send them along on redirects to other hosts."""
        return {FROM_FIELD: str(self.caller), TOKEN_FIELD: self.text}

    def basic(self) -> str:
        """The value of an Authorization field; clients keep those to the host they are for."""
        pair = f"{self.caller}:{self.text}".encode("ascii")
        return f"Basic {encode_base64(pair)}"


def write_token(ciphertext: bytes) -> str:
    """What :func:`parse_token` reads."""
    return encode_base64(ciphertext)


def parse_token(text: str) -> bytes:
    """KMS's ciphertext, of which nothing is known yet.

    :raises BadServiceToken: not standard base64 in its one spelling, or too long; the field is
        ``token``.
    """
    if not text:
        raise BadServiceToken("the token is empty", field="token")
    if len(text) > MAX_TOKEN:
        raise BadServiceToken(f"the token has over {MAX_TOKEN} characters", field="token")
    if text[:2] in ("b'", 'b"'):
        raise BadServiceToken(
            "the token is the text of Python bytes, b'...': decode them first", field="token"
        )
    try:
        return decode_base64(text, "the token")
    except Malformed as error:
        raise BadServiceToken(str(error), field="token") from error


def parse_basic(value: str) -> tuple[str, str] | None:
    """Username and token of an Authorization field (RFC 7617); neither is checked.

    :return: None for another scheme, and for an empty username, which claims nothing.
    :raises BadServiceToken: Basic, and nothing that can be read; the field is ``authorization``.
    """
    scheme, _, pair = value.partition(" ")
    if scheme.lower() != "basic":
        return None
    try:
        text = decode_base64(pair, "what follows Basic").decode("ascii")
    except (Malformed, UnicodeDecodeError) as error:
        raise BadServiceToken(str(error), field="authorization") from error
    username, separator, token = text.partition(":")
    if not separator:
        raise BadServiceToken("Basic without a colon", field="authorization")
    return (username, token) if username else None
