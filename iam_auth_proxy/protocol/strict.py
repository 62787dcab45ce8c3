"""The two encodings everything here is wrapped in, read strictly.

Lax decoders accept many spellings of one value, and two ends that differ in what they accept can be
played against each other. Each function accepts one spelling, or says what is wrong.
"""

from __future__ import annotations

import base64
import binascii
import json
from typing import Any

from iam_auth_proxy.errors import Malformed


def decode_base64(text: str, what: str, *, urlsafe: bool = False) -> bytes:
    """Standard base64 with its padding, or with ``urlsafe`` RFC 4648 section 5 without padding.

    What comes out, encoded again, is ``text``: no line breaks, no stray bits in the last character.

    :raises Malformed: otherwise; the message begins with ``what``.
    """
    padded = text + "=" * (-len(text) % 4) if urlsafe else text
    altchars = b"-_" if urlsafe else None
    try:
        data = base64.b64decode(padded, altchars=altchars, validate=True)
    except (binascii.Error, ValueError) as error:
        raise Malformed(f"{what} is not base64") from error
    if encode_base64(data, urlsafe=urlsafe) != text:
        raise Malformed(f"{what} is not base64 in its one spelling")
    return data


def encode_base64(data: bytes, *, urlsafe: bool = False) -> str:
    """What :func:`decode_base64` reads."""
    if urlsafe:
        return base64.urlsafe_b64encode(data).decode("ascii").rstrip("=")
    return base64.b64encode(data).decode("ascii")


def loads_object(data: bytes, what: str, *, at_most: int) -> dict[str, Any]:
    """A JSON object (RFC 8259) as UTF-8: no repeated keys, no NaN, no lone surrogates.

    :param at_most: how many bytes ``data`` may have.
    :raises Malformed: otherwise; the message begins with ``what``.
    """
    if len(data) > at_most:
        raise Malformed(f"{what} is over {at_most} bytes")
    try:
        text = data.decode("utf-8")
        value = json.loads(text, object_pairs_hook=_no_repeats, parse_constant=_no_constant)
        # A lone surrogate (written \ud800) is a str in Python that no encoder takes later.
        json.dumps(value, ensure_ascii=False).encode("utf-8")
    except (ValueError, RecursionError) as error:
        raise Malformed(f"{what} is not JSON: {error}") from error
    if not isinstance(value, dict):
        raise Malformed(f"{what} is not a JSON object")
    return value


def _no_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        raise ValueError("a key is repeated")
    return value


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not a JSON value")
