"""How the settings of service tokens are written; see :mod:`.readers`."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from iam_auth_proxy.config import parse_duration
from iam_auth_proxy.errors import Malformed
from iam_auth_proxy.names import KeyReference, check_audience
from iam_auth_proxy.protocol.service_token import (
    VERSIONS,
    CallerType,
    check_extra,
)
from iam_auth_proxy.server.access import ACCOUNT_LABEL
from iam_auth_proxy.server.readers import read_items, read_key, read_text

_MAX_WINDOW = 86400.0
_MAX_LEEWAY = 300.0
_MAX_SIZE = 1_000_000


def read_audience(value: object) -> str:
    """What tokens say in ``to``."""
    return check_audience(read_text(value))


def read_keys(value: object) -> tuple[KeyReference, ...]:
    """Keys, in any of KMS's four spellings."""
    return tuple(read_key(item) for item in read_items(value))


def read_scoped_keys(value: object) -> tuple[tuple[KeyReference, str], ...]:
    """``{"alias/sandbox-auth": "sandbox"}``: what each key stands for."""
    pairs = []
    for key, account in _read_object(value).items():
        if not isinstance(account, str) or not re.fullmatch(ACCOUNT_LABEL, account, re.ASCII):
            raise Malformed("an account is up to 64 letters, digits and _.-")
        pairs.append((read_key(key), account))
    return tuple(pairs)


def read_types(value: object) -> frozenset[CallerType]:
    """``user``, ``service``."""
    types = set()
    for item in read_items(value):
        text = read_text(item)
        if text not in tuple(CallerType):
            hint = ", without quotes" if text[:1] in ("'", '"') else ""
            raise Malformed(f"{text!r} is neither user nor service{hint}")
        types.add(CallerType(text))
    if not types:
        raise Malformed("is empty, so that nobody could come in; leave it out instead")
    return frozenset(types)


def read_version(value: object) -> int:
    """1 or 2. It has nothing to do with the version of AWS signatures."""
    number = value if isinstance(value, int) else read_text(value)
    for version in VERSIONS:
        if number in (version, str(version)) and not isinstance(number, bool):
            return version
    raise Malformed(f"there is no version {number} of service tokens: it is 1 or 2")


def read_lifetime(value: object) -> float:
    """Seconds; a text is a duration such as 1h, or a number of minutes, as Confidant has it."""
    if isinstance(value, str) and re.fullmatch(r"[0-9]{1,5}", value, re.ASCII):
        seconds = float(value) * 60
    else:
        seconds = _read_seconds(value)
    if not 60 <= seconds <= _MAX_WINDOW:
        raise Malformed("must be between 1m and 24h")
    return seconds


def read_leeway(value: object) -> float:
    """Seconds, up to five minutes."""
    seconds = _read_seconds(value)
    if not 0 <= seconds <= _MAX_LEEWAY:
        raise Malformed("must be at most 5m")
    return seconds


def read_context(value: object) -> Mapping[str, str]:
    """Further pairs of the encryption context."""
    return check_extra(_read_object(value))


def read_size(value: object) -> int:
    """How many."""
    if isinstance(value, str) and re.fullmatch(r"[0-9]{1,7}", value, re.ASCII):
        value = int(value)
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= _MAX_SIZE:
        raise Malformed(f"must be a number from 0 to {_MAX_SIZE}")
    return value


def _read_seconds(value: object) -> float:
    if isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    text = read_text(value)
    return 0.0 if text in ("0", "0s") else parse_duration(text)


def _read_object(value: object) -> dict[str, Any]:
    if isinstance(value, str):
        try:
            value = json.loads(value, object_pairs_hook=_no_repeats)
        except ValueError as error:
            raise Malformed(f"is not JSON: {error}") from error
    if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
        raise Malformed('must be an object, such as {"alias/sandbox": "sandbox"}')
    return dict(value)


def _no_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(dict(pairs)) != len(pairs):
        raise ValueError("a key is repeated")
    return dict(pairs)
