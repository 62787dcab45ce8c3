"""How the settings' values are written: a text (environment), or the Python value in its place.

Each function raises :class:`~iam_auth_proxy.errors.Malformed`, whose message follows the name of
the setting.
"""

from __future__ import annotations

import datetime
import ipaddress
import re
from collections.abc import Callable, Iterable

from iam_auth_proxy.config import parse_duration
from iam_auth_proxy.errors import ConfigError, Malformed
from iam_auth_proxy.names import (
    KeyReference,
    Origin,
    is_account_id,
    parse_key_reference,
    parse_origin,
)
from iam_auth_proxy.protocol.handoff import check_auth_path
from iam_auth_proxy.protocol.keyring import SECRET_COMMAND, check_secret
from iam_auth_proxy.protocol.nonce import is_nonce_cookie
from iam_auth_proxy.protocol.proof import ProofKind
from iam_auth_proxy.server.front import UNIX, Network
from iam_auth_proxy.server.replay import check_place


def read_text(value: object) -> str:
    """A text as it is."""
    if not isinstance(value, str):
        raise Malformed("must be a string")
    return value


def read_items(value: object) -> tuple[object, ...]:
    """A list: in a text, separated by commas or white space."""
    if isinstance(value, str):
        return tuple(part for part in re.split(r"[\s,]+", value) if part)
    if isinstance(value, Iterable):
        return tuple(value)
    raise Malformed("must be a list")


def read_accounts(value: object) -> tuple[str, ...]:
    """AWS account ids."""
    accounts = tuple(read_text(item) for item in read_items(value))
    for account in accounts:
        if not is_account_id(account):
            raise Malformed(f"{account!r} is not an account id of twelve digits")
    return accounts


def read_origins(value: object) -> tuple[Origin, ...]:
    """What browsers call the app."""
    origins = tuple(
        item if isinstance(item, Origin) else parse_origin(read_text(item))
        for item in read_items(value)
    )
    if not origins:
        raise Malformed("is empty, so that any Host would do; name what browsers call this app")
    for origin in origins:
        if origin.host.endswith("."):
            raise Malformed(f"{origin} is another origin than the one without the trailing dot")
    return origins


def read_proofs(value: object) -> frozenset[ProofKind]:
    """Kinds of proof."""
    kinds = ", ".join(ProofKind)
    try:
        proofs = frozenset(ProofKind(read_text(item)) for item in read_items(value))
    except ValueError as error:
        raise Malformed(f"must be of {kinds}") from error
    if not proofs:
        raise Malformed(f"is empty, so that nobody could sign in; name some of {kinds}")
    return proofs


def read_networks(value: object) -> tuple[Network | str, ...]:
    """Addresses, networks and ``unix``."""
    networks: list[Network | str] = []
    for item in read_items(value):
        if item == UNIX:
            networks.append(UNIX)
            continue
        try:
            networks.append(ipaddress.ip_network(read_text(item)))
        except ValueError as error:
            raise Malformed(f"{item!r} is not an IP address, a network or {UNIX!r}") from error
    return tuple(networks)


def read_boolean(value: object) -> bool:
    """``true`` or ``false``, and what else people write."""
    if isinstance(value, bool):
        return value
    words = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}
    try:
        return words[read_text(value).lower()]
    except KeyError:
        raise Malformed("must be true or false") from None


def read_duration(value: object) -> float:
    """Seconds, from a minute to 30 days; a text such as ``1h30m``."""
    seconds = _seconds(value)
    if not 60 <= seconds <= 30 * 86400:
        raise Malformed("must be between 1m and 720h")
    return seconds


def read_poll(value: object) -> float:
    """Seconds, from one to an hour."""
    seconds = _seconds(value)
    if not 1 <= seconds <= 3600:
        raise Malformed("must be between 1s and 1h")
    return seconds


def _seconds(value: object) -> float:
    if isinstance(value, datetime.timedelta):
        return value.total_seconds()
    if isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    return parse_duration(read_text(value))


def read_instant(value: object) -> float:
    """Seconds since the epoch, or an ISO 8601 instant with its offset."""
    if isinstance(value, datetime.datetime):
        moment = value
    elif isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    elif re.fullmatch(r"[0-9]{1,12}", read_text(value), re.ASCII):
        return float(read_text(value))
    else:
        try:
            moment = datetime.datetime.fromisoformat(read_text(value))
        except ValueError as error:
            raise Malformed("not an instant such as 2026-11-21T08:00:00Z") from error
    if moment.tzinfo is None:
        raise Malformed("the instant needs its offset, for example a Z at its end")
    return moment.timestamp()


def matching(pattern: str, complaint: str) -> Callable[[object], str]:
    """A reader of texts that match, ASCII only."""
    grammar = re.compile(pattern, re.ASCII)

    def check(value: object) -> str:
        text = read_text(value)
        if not grammar.fullmatch(text):
            raise Malformed(complaint)
        return text

    return check


_COOKIE_NAME = matching(r"(?!__)[A-Za-z0-9_-]{1,64}", "must be letters, digits, - and _")


def read_cookie_name(value: object) -> str:
    """A name that is not a nonce cookie's: the proxy relays none of those to the browser."""
    name = _COOKIE_NAME(value)
    if is_nonce_cookie(f"{name}=".encode("ascii")):
        raise Malformed(f"{name} is what the cookie of a sign-in's nonce is called")
    return name


def read_secret(value: object) -> str:
    """A secret that is none of those that people type and paste."""
    text = read_text(value)
    weakness = check_secret(text)
    if weakness is not None:
        raise Malformed(f"{weakness}. Make a good one with: {SECRET_COMMAND}")
    return text


def read_ring(value: object) -> str:
    """Where a key ring is stored."""
    from iam_auth_proxy.keys.rotation import parse_ring_place  # brings cryptography: 30 ms

    text = read_text(value)
    try:
        parse_ring_place(text)
    except ConfigError as error:
        raise Malformed("; ".join(problem.text for problem in error.problems)) from error
    return text


def read_key(value: object) -> KeyReference:
    """Any of KMS's four spellings."""
    return value if isinstance(value, KeyReference) else parse_key_reference(read_text(value))


def read_place(value: object) -> str:
    """Where a replay store is."""
    return check_place(read_text(value))


def read_path(value: object) -> str:
    """Where the gate's own pages are."""
    return check_auth_path(read_text(value))
