"""One-time tickets, which stand for a token in the browser's URL bar.

A ticket is the proxy's own and never reaches the app. It is good once, for one origin, one client
and one return_url, for :data:`LIFE` seconds; stolen from a history or a log it is worth nothing.
"""

from __future__ import annotations

import re
import secrets
from collections import OrderedDict
from dataclasses import dataclass
from typing import Final, Generic, TypeVar
from urllib.parse import parse_qsl, quote

from iam_auth_proxy.errors import Malformed
from iam_auth_proxy.names import Origin
from iam_auth_proxy.protocol.handoff import check_return_url

LIFE: Final = 60.0
TICKET: Final = b"ticket="
"""In the target of every request with a ticket, and of few others."""

_TICKET = re.compile(r"[A-Za-z0-9_-]{22}", re.ASCII)

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class TicketUrl:
    """What ``/auth?return_url=…&ticket=…`` says, or another path where the app signs in there."""

    ticket: str
    return_url: str


def write_url(auth_path: str, url: TicketUrl) -> str:
    """The Location of the redirect, a path on the app's own origin."""
    return f"{auth_path}?return_url={quote(url.return_url, safe='')}&ticket={url.ticket}"


def parse_url(target: bytes, auth_path: str) -> TicketUrl | None:
    """The ticket's URL; None where the target is another, such as the app's own ``auth_path``."""
    path, separator, query = target.decode("latin-1").partition("?")
    if path != auth_path or not separator:
        return None
    try:
        pairs = parse_qsl(query, keep_blank_values=True, strict_parsing=True, max_num_fields=2)
        fields = dict(pairs)
        if len(pairs) != 2 or fields.keys() != {"return_url", "ticket"}:
            return None
        if not _TICKET.fullmatch(fields["ticket"]):
            return None
        return TicketUrl(
            fields["ticket"], check_return_url(fields["return_url"], auth_path=auth_path)
        )
    except (ValueError, Malformed):
        return None


@dataclass(frozen=True, slots=True)
class _Issued(Generic[T]):
    origin: Origin
    client: str
    return_url: str
    expires: float
    grant: T


class Tickets(Generic[T]):
    """The tickets not yet redeemed; the oldest give way to new ones beyond ``limit``."""

    def __init__(self, limit: int = 4096) -> None:
        self._limit = limit
        self._issued: OrderedDict[str, _Issued[T]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._issued)

    def issue(self, origin: Origin, client: str, return_url: str, grant: T, now: float) -> str:
        """A fresh ticket of 128 random bits; ``now`` is monotonic, in seconds."""
        while self._issued and (
            len(self._issued) >= self._limit or next(iter(self._issued.values())).expires <= now
        ):
            self._issued.popitem(last=False)
        ticket = secrets.token_urlsafe(16)
        self._issued[ticket] = _Issued(origin, client, return_url, now + LIFE, grant)
        return ticket

    def redeem(self, url: TicketUrl, origin: Origin, client: str, now: float) -> T | None:
        """What the ticket stands for; None where it is unknown, spent, late or somebody else's.

        It is spent by being shown, also wrongly: a guess must not get a second try.
        """
        issued = self._issued.pop(url.ticket, None)
        if issued is None or issued.expires <= now:
            return None
        shown = (origin, client, url.return_url)
        return issued.grant if shown == (issued.origin, issued.client, issued.return_url) else None
