"""Which addresses the relay dials, and which names it lets others resolve. Pure.

A page in the browser can make this machine connect anywhere. So addresses that lead to services of
this machine, to a cloud's metadata service or to the proxy itself are refused: after
canonicalisation, and on the very address that is dialled, since a name may resolve to anything
(DNS rebinding). Private networks are where internal apps live; they are not refused.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Final

from iam_auth_proxy.errors import Malformed
from iam_auth_proxy.names import Origin, parse_host, parse_port

IPAddress = IPv4Address | IPv6Address
IPNetwork = IPv4Network | IPv6Network

# "This host" (RFC 1122 section 3.2.1.3); Linux connects any of it to loopback.
_THIS_HOST: Final = IPv4Network("0.0.0.0/8")

# Why each is refused is what the log and the page say: "ADDRESS is a loopback address".
_REFUSED: Final[tuple[tuple[IPNetwork, str], ...]] = tuple(
    (ip_network(network), reason)
    for network, reason in (
        (_THIS_HOST, "an unspecified address"),
        ("127.0.0.0/8", "a loopback address"),
        # AWS, GCP, Azure and most others keep instance credentials at 169.254.169.254.
        ("169.254.0.0/16", "a link-local address"),
        ("100.100.100.200/32", "a metadata address"),  # Alibaba Cloud
        ("168.63.129.16/32", "a metadata address"),  # Azure's WireServer
        ("192.0.0.192/32", "a metadata address"),  # Oracle Cloud
        ("::/128", "an unspecified address"),
        ("::1/128", "a loopback address"),
        ("fe80::/10", "a link-local address"),
        ("fd00:ec2::/32", "a metadata address"),  # AWS
        ("fd20:ce::254/128", "a metadata address"),  # Google Cloud
        ("fd00:c1::a9fe:a9fe/128", "a metadata address"),  # Oracle Cloud
        ("fd00:42::42/128", "a metadata address"),  # Scaleway
        ("fd00:a9fe:a9fe::1/128", "a metadata address"),  # Akamai (Linode)
        ("fd00:100::100:200/128", "a metadata address"),  # Alibaba Cloud
    )
)

_PRIVATE: Final = tuple(
    ip_network(network)
    for network in (
        "127.0.0.0/8",
        "10.0.0.0/8",
        "172.16.0.0/12",
        "192.168.0.0/16",
        "169.254.0.0/16",
        "100.64.0.0/10",  # shared address space (RFC 6598); also what overlay networks use
        "::1/128",
        "fc00::/7",
        "fe80::/10",
    )
)

_MAPPED: Final = IPv6Network("::ffff:0:0/96")  # RFC 4291 section 2.5.5.2
_TRANSLATED: Final = IPv6Network("::ffff:0:0:0/96")  # RFC 2765 section 2.1, deprecated
_COMPATIBLE: Final = IPv6Network("::/96")  # RFC 4291 section 2.5.5.1, deprecated
_NAT64: Final = IPv6Network("64:ff9b::/96")  # RFC 6052 section 2.1
_NAT64_LOCAL: Final = IPv6Network("64:ff9b:1::/48")  # RFC 8215
_SIXTOFOUR: Final = IPv6Network("2002::/16")  # RFC 3056 section 2
_TEREDO: Final = IPv6Network("2001::/32")  # RFC 4380 section 4

# Names that every machine's hosts file gives to loopback, and those of metadata services. Where
# names are resolved at the far end, these are the far machine's own.
_LOOPBACK_NAMES: Final = frozenset(
    {
        "localhost",
        "localhost4",
        "localhost6",
        "localhost.localdomain",
        "localhost4.localdomain4",
        "localhost6.localdomain6",
        "ip6-localhost",
        "ip6-loopback",
        "ipv6-localhost",
        "ipv6-loopback",
        "loopback",
    }
)
_METADATA_NAMES: Final = frozenset(
    {
        "metadata",
        "metadata.google.internal",
        "metadata.goog",
        "instance-data",
        "instance-data.ec2.internal",
    }
)
# RFC 6761, 6762, 8375 and ICANN's reservation of .internal: no public DNS answers for these, so
# nobody outside can make one of them point anywhere.
_RESERVED: Final = (".internal", ".local", ".lan", ".home.arpa", ".test")


def parse_address(host: str) -> IPAddress | None:
    """The address that a host in :func:`~iam_auth_proxy.names.parse_host`'s spelling is, or None.

    A resolver's answer may carry a zone (``fe80::1%eth0``), which is kept out of comparisons.
    """
    try:
        return ip_address(host.partition("%")[0])
    except ValueError:
        return None


def canonical(address: IPAddress) -> IPAddress:
    """The IPv4 address behind an IPv4-mapped one, since the kernel dials just that; or itself."""
    if isinstance(address, IPv6Address) and address in _MAPPED:
        return _last_four(address)
    return address


def embedded(address: IPv6Address) -> IPv4Address | None:
    """The IPv4 address that a translator or tunnel reaches for an IPv6 one, if any.

    A local-use NAT64 prefix shows no length; what is not in its /96 form reads as 0.0.0.0, so that
    a policy refuses it whole rather than guess where the IPv4 address stands.
    """
    if any(address in form for form in (_MAPPED, _NAT64, _COMPATIBLE, _TRANSLATED)):
        return _last_four(address)
    if address in _NAT64_LOCAL:
        form_96 = address.packed[8:12] == bytes(4)
        return _last_four(address) if form_96 else IPv4Address(0)
    if address in _SIXTOFOUR:
        return IPv4Address(address.packed[2:6])
    if address in _TEREDO:
        return IPv4Address(bytes(octet ^ 0xFF for octet in address.packed[12:]))
    return None


def _last_four(address: IPv6Address) -> IPv4Address:
    return IPv4Address(address.packed[12:])


def is_private(address: IPAddress) -> bool:
    """Loopback, link-local or a private network: where a loop through ourselves can arise."""
    address = canonical(address)
    return any(address in network for network in _PRIVATE)


# -- what may be dialled ---------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class AllowedTarget:
    """One entry of ``allow_targets``: a name or a network, at one port or at any (None)."""

    name: str
    network: IPNetwork | None
    port: int | None

    def covers(self, host: str, address: IPAddress | None, port: int) -> bool:
        """Whether a target is listed: under the name it was asked by, or by its address."""
        if self.port is not None and self.port != port:
            return False
        if self.network is None:
            return self.name == host
        return address is not None and address in self.network


_TARGET = re.compile(
    r"(?P<cidr>[0-9A-Fa-f:.]+/[0-9]{1,3})"
    r"|\[(?P<six>[0-9A-Fa-f:.]+)\](?::(?P<six_port>[0-9]+))?"
    r"|(?P<bare_six>[0-9A-Fa-f.]*:[0-9A-Fa-f.]*:[0-9A-Fa-f:.]*)"
    r"|(?P<host>[A-Za-z0-9_.-]+)(?::(?P<port>[0-9]+))?",
    re.ASCII,
)


def parse_target(text: str) -> AllowedTarget:
    """``HOST``, ``HOST:PORT`` (IPv6 in brackets where a port follows) or ``CIDR``.

    :raises Malformed: none of these; a CIDR with host bits set.
    """
    match = _TARGET.fullmatch(text)
    if match is None:
        raise Malformed("an allowed target is HOST, HOST:PORT or a network as ADDRESS/LENGTH")
    if match["cidr"]:
        try:
            return AllowedTarget("", ip_network(match["cidr"]), None)
        except ValueError as error:
            raise Malformed(f"not a network: {error}") from error
    host = parse_host(match["six"] or match["bare_six"] or match["host"])
    port = match["six_port"] or match["port"]
    address = parse_address(host)
    network = None if address is None else ip_network(canonical(address))
    return AllowedTarget(host, network, parse_port(port) if port else None)


def _never(address: IPAddress) -> bool:
    return False


class AddressPolicy:
    """What may be dialled.

    :param allow: targets that are reached although an address of theirs is refused.
    :param listeners: addresses and ports on which this process listens; looked at anew each time,
        since listeners come and go.
    :param is_own: whether an address is one of this machine's; asked only for the port of a
        listener on every address.
    """

    def __init__(
        self,
        allow: Iterable[AllowedTarget] = (),
        *,
        listeners: Collection[tuple[IPAddress, int]] = (),
        is_own: Callable[[IPAddress], bool] = _never,
    ) -> None:
        self._allow = tuple(allow)
        self._listeners = listeners
        self._is_own = is_own

    def allows_name(self, host: str, port: int) -> bool:
        """Whether this name itself is listed, whatever it resolves to."""
        return any(target.covers(host, None, port) for target in self._allow)

    def is_ourselves(self, address: IPAddress, port: int) -> bool:
        """Whether dialling would come back to this process. No list or mapping allows that."""
        address = canonical(address)
        return any(
            port == bound_port and self._reaches(address, canonical(bound))
            for bound, bound_port in self._listeners
        )

    def _reaches(self, address: IPAddress, bound: IPAddress) -> bool:
        if bound.is_unspecified:
            return _is_this_host(address) or address.is_loopback or self._is_own(address)
        return address == bound or (bound.is_loopback and _is_this_host(address))

    def refusal(self, host: str, address: IPAddress, port: int) -> str | None:
        """Why ``address`` is not dialled for the target ``host:port``; None if it is.

        :returns: the rest of the sentence "ADDRESS is …".
        """
        address = canonical(address)
        if self.is_ourselves(address, port):
            return "an address of this proxy"
        reason = refusal_of(address)
        if reason is None or any(target.covers(host, address, port) for target in self._allow):
            return None
        return reason


def _is_this_host(address: IPAddress) -> bool:
    return address.is_unspecified or address in _THIS_HOST


def refusal_of(address: IPAddress) -> str | None:
    """Why an address is refused unless listed, as "ADDRESS is …"; None if it is not."""
    for network, reason in _REFUSED:
        if address in network:
            return reason
    inner = embedded(address) if isinstance(address, IPv6Address) else None
    inner_reason = None if inner is None else refusal_of(inner)
    return None if inner_reason is None else f"{inner_reason} in another form"


# -- names that are resolved at the far end --------------------------------------------------------


def is_loopback_name(host: str) -> bool:
    """A name that means the resolving machine itself (RFC 6761 section 6.3 and hosts files)."""
    host = host.rstrip(".")
    return host in _LOOPBACK_NAMES or host.endswith(".localhost")


def cannot_be_public(host: str) -> bool:
    """Whether a name is one that only a private network has."""
    host = host.rstrip(".")
    if is_loopback_name(host) or parse_address(host) is not None:
        return False
    return "." not in host or host.endswith(_RESERVED)


def far_refusal(origin: Origin, *, plain: bool, trusted: Callable[[Origin], bool]) -> str | None:
    """Why a name is not handed to the far end of a tunnel for resolution; None if it is.

    We never see the address there, so the name decides. Loopback and metadata names never go. Over
    plain http a public name could be made to point at the far machine's own network (DNS
    rebinding), so it must be trusted or unable to be public; TLS protects by its certificate.

    :param plain: whether what follows is not TLS.
    :param trusted: whether the person listed this origin.
    :returns: the rest of the sentence "HOST is …".
    """
    host = origin.host.rstrip(".")
    if is_loopback_name(host):
        return "a loopback name"
    if host in _METADATA_NAMES:
        return "the name of a metadata service"
    if not plain or "." not in host or host.endswith(_RESERVED) or trusted(origin):
        return None
    return "a public name, reached without encryption through a tunnel that resolves it"
