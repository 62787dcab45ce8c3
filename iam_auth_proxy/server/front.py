"""What the browser calls this app, and who the client is, behind front ends or without one.

The scheme, host and address of a request are those of its own connection, unless the peer is a
trusted front end: then ``X-Forwarded-Proto``, ``-Host`` and ``-For`` say them.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from typing import Final

from iam_auth_proxy.errors import Malformed, Misdirected
from iam_auth_proxy.names import Origin, parse_authority
from iam_auth_proxy.server.facts import RequestFacts

UNIX: Final = "unix"
"""Stands for every peer without an address, among the trusted front ends."""

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


@dataclass(frozen=True, slots=True)
class Place:
    """Where a request came to, and from whom. ``client`` is an address, or empty."""

    origin: Origin
    client: str


class Front:
    """Locates requests.

    :param origins: what the app goes by. Empty: whatever scheme and Host say.
    :param trusted: networks of front ends, and :data:`UNIX`.
    """

    def __init__(self, origins: tuple[Origin, ...], trusted: tuple[Network | str, ...]) -> None:
        self._origins = frozenset(origins)
        self._networks = tuple(item for item in trusted if not isinstance(item, str))
        self._unix = UNIX in trusted

    def locate(self, facts: RequestFacts) -> Place:
        """The origin that the client asked for, and the client.

        :raises Malformed: no Host, several, or one outside the grammar; the same for what a trusted
            front end says.
        :raises Misdirected: the origin is not among the app's.
        """
        scheme, host, client = facts.scheme, _only(facts, "host"), facts.client
        if self._trusts(client):
            scheme = _only(facts, "x-forwarded-proto").lower() or scheme
            host = _only(facts, "x-forwarded-host") or host
            client = self._client(facts)
        if scheme not in ("http", "https"):
            raise Malformed("the scheme is neither http nor https")
        if not host:
            raise Malformed("the request has no Host")
        origin = parse_authority(host, scheme)
        if self._origins and origin not in self._origins:
            raise Misdirected(self._why(origin), public=f"This app does not go by {origin}.")
        address = _address(client)  # servers pass on what is none, as a front end said it
        return Place(origin, "" if address is None else str(address))

    def _why(self, origin: Origin) -> str:
        for other in self._origins:
            if other.authority == origin.authority:
                return (
                    f"{origin} is not among the origins, but {other} is: list the front end that "
                    "ends TLS in trusted_proxies, and let it send X-Forwarded-Proto"
                )
        listed = ", ".join(sorted(map(str, self._origins)))
        return f"{origin} is not among the origins, of which scheme and port are parts: {listed}"

    def _trusts(self, address: str) -> bool:
        if not address:
            return self._unix
        if not self._networks:
            return False
        ip = _address(address)
        return ip is not None and any(ip in network for network in self._networks)

    def _client(self, facts: RequestFacts) -> str:
        """The nearest address that is no front end of ours: what it says itself is hearsay."""
        client = facts.client
        hops = [hop.strip() for value in facts.all("x-forwarded-for") for hop in value.split(",")]
        for hop in reversed(hops):
            if not self._trusts(client):
                break
            ip = _address(hop)
            if ip is None:
                break
            client = str(ip)
        return client


def _only(facts: RequestFacts, name: str) -> str:
    values = facts.all(name)
    if len(values) > 1:
        raise Malformed(f"{name} is repeated")
    return values[0].strip() if values else ""


def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        ip = ipaddress.ip_address(text)
    except ValueError:
        return None
    if isinstance(ip, ipaddress.IPv6Address):
        # Without the zone (fe80::1%eth0): any text, with a meaning on one machine only.
        return ip.ipv4_mapped or ipaddress.IPv6Address(int(ip))
    return ip
