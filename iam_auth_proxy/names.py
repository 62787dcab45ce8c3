"""Names on the wire: origins and KMS keys (docs/protocol.md, section 2), and of service tokens whom
they are from and for (section 6).

Both ends of the protocol, the relay and the configuration read names through this one module, so
that proxy, server and browser agree on them to the byte. Every grammar is an ASCII fullmatch.

Browsers serialise hosts as the WHATWG URL standard says; so does this module: lower-case A-labels,
dotted-decimal IPv4 (any other spelling of an address is refused rather than converted, since a
resolver might read it as an address after we compared it as a name), bracketed and compressed IPv6
in hexadecimal, also for mapped addresses.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from iam_auth_proxy.errors import Malformed

DEFAULT_PORTS: Final = {"http": 80, "https": 443}

_LABEL = r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?"
_NAME = re.compile(rf"{_LABEL}(?:\.{_LABEL})*\.?", re.ASCII)
_OCTET = r"(?:25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])"
_IPV4 = re.compile(rf"{_OCTET}(?:\.{_OCTET}){{3}}", re.ASCII)
_NUMERIC_LABEL = re.compile(r"[0-9]+|0x[0-9a-f]*", re.ASCII)
_PORT = re.compile(r"[0-9]{1,5}", re.ASCII)
_AUTHORITY = re.compile(
    r"(?P<host>\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9_.-]+)(?::(?P<port>[0-9]*))?", re.ASCII
)
_MAX_HOST = 253


@dataclass(frozen=True, slots=True, order=True)
class Origin:
    """Scheme, host and port of a URL as the client asked for it; never a resolved address.

    ``host`` is lower case; IPv6 is without its brackets. ``str(origin)`` is the serialisation that
    browsers send in ``Origin``.
    """

    scheme: str
    host: str
    port: int

    @property
    def authority(self) -> str:
        """What belongs into ``Host``: the port only where it is not the scheme's default."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == DEFAULT_PORTS[self.scheme] else f"{host}:{self.port}"

    @property
    def host_port(self) -> str:
        """Host and port, always both: the form of a CONNECT target."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"

    @property
    def is_address(self) -> bool:
        """Whether the host is an IP address rather than a name."""
        return ":" in self.host or _IPV4.fullmatch(self.host) is not None

    def __str__(self) -> str:
        return f"{self.scheme}://{self.authority}"


def parse_host(text: str) -> str:
    """A host in its one spelling; IPv6 comes and goes without brackets.

    :raises Malformed: empty, not ASCII, over 253 characters, an empty label, a label over 63, a
        number that is not dotted-decimal IPv4, an IPv6 zone.
    """
    if not text.isascii():
        raise Malformed("host is not ASCII")
    host = text.lower()
    if ":" in host:
        return _ipv6(host)
    if len(host.rstrip(".")) > _MAX_HOST or not _NAME.fullmatch(host):
        raise Malformed("host is not a name of letters, digits, '-' and '_'")
    last = host.rstrip(".").rpartition(".")[2]
    if _NUMERIC_LABEL.fullmatch(last) and not _IPV4.fullmatch(host):
        raise Malformed("host ends in a number but is not a dotted-decimal IPv4 address")
    return host


def _ipv6(text: str) -> str:
    try:
        address = ipaddress.IPv6Address(text)
    except ValueError as error:
        raise Malformed("host is not an IPv6 address") from error
    if address.scope_id is not None:
        raise Malformed("an IPv6 address with a zone is not a name on the wire")
    groups = [f"{int.from_bytes(address.packed[i : i + 2], 'big'):x}" for i in range(0, 16, 2)]
    return _compress(groups)


def _compress(groups: list[str]) -> str:
    """RFC 5952 section 4.2: the longest run of at least two zero groups, the first of equals."""
    best_start, best_length, start = 0, 0, None
    for index, group in enumerate([*groups, "end"]):
        if group == "0":
            start = index if start is None else start
        elif start is not None:
            if index - start > best_length:
                best_start, best_length = start, index - start
            start = None
    if best_length < 2:
        return ":".join(groups)
    return ":".join(groups[:best_start]) + "::" + ":".join(groups[best_start + best_length :])


def parse_port(text: str) -> int:
    """A port from 1 to 65535.

    :raises Malformed: otherwise.
    """
    if not _PORT.fullmatch(text) or not 1 <= int(text) <= 65535:
        raise Malformed("port is not a number from 1 to 65535")
    return int(text)


@lru_cache(maxsize=4096)
def parse_authority(text: str, scheme: str = "http") -> Origin:
    """``host[:port]`` of a URL with that scheme (an empty port is the default, RFC 3986 3.2.3).

    :raises Malformed: userinfo, an empty host, port 0, or a host outside :func:`parse_host`.
    """
    match = _AUTHORITY.fullmatch(text)
    if match is None:
        raise Malformed("authority is not host or host:port")
    host = match["host"]
    if host.startswith("["):
        host = host[1:-1]
        if ":" not in host:
            raise Malformed("only an IPv6 address stands in brackets")
    port = parse_port(match["port"]) if match["port"] else DEFAULT_PORTS[scheme]
    return Origin(scheme, parse_host(host), port)


@lru_cache(maxsize=4096)
def parse_connect_target(text: str, scheme: str = "https") -> Origin:
    """The target of CONNECT: ``host:port``, both there (RFC 9110 section 9.3.6).

    :raises Malformed: otherwise.
    """
    match = _AUTHORITY.fullmatch(text)
    if match is None or not match["port"]:
        raise Malformed("CONNECT needs host:port")
    return parse_authority(text, scheme)


def parse_origin(text: str) -> Origin:
    """An origin as people and browsers write it: ``scheme://host[:port]`` and nothing after it.

    :raises Malformed: another scheme than http and https, a path (a lone ``/`` included), a query,
        userinfo, or an authority outside :func:`parse_authority`.
    """
    scheme, separator, authority = text.partition("://")
    scheme = scheme.lower()
    if not separator or scheme not in DEFAULT_PORTS:
        raise Malformed("an origin is http://HOST[:PORT] or https://HOST[:PORT]")
    if re.search("[/?#]", authority):
        raise Malformed("an origin is http://HOST[:PORT] with no path after it")
    return parse_authority(authority, scheme)


# -- KMS keys --------------------------------------------------------------------------------------

# Partition -> (its regions, its DNS suffix), as in botocore's partitions.json; a test compares.
PARTITIONS: Final = {
    "aws": (r"(?:us|eu|ap|sa|ca|me|af|il|mx)-\w+-\d+", "amazonaws.com"),
    "aws-cn": (r"cn-\w+-\d+", "amazonaws.com.cn"),
    "aws-us-gov": (r"us-gov-\w+-\d+", "amazonaws.com"),
    "aws-iso": (r"us-iso-\w+-\d+", "c2s.ic.gov"),
    "aws-iso-b": (r"us-isob-\w+-\d+", "sc2s.sgov.gov"),
    "aws-iso-e": (r"eu-isoe-\w+-\d+", "cloud.adc-e.uk"),
    "aws-iso-f": (r"us-isof-\w+-\d+", "csp.hci.ic.gov"),
    "aws-eusc": (r"eusc-(?:de)-\w+-\d+", "amazonaws.eu"),
}
_PARTITION_REGIONS = {
    name: re.compile(regions, re.ASCII) for name, (regions, _) in PARTITIONS.items()
}

_KEY_ARN = re.compile(
    r"arn:(?P<partition>[a-z-]{3,16}):kms:(?P<region>[a-z0-9-]{3,32}):(?P<account>[0-9]{12})"
    r":(?P<kind>key|alias)/(?P<name>[A-Za-z0-9/_-]{1,256})",
    re.ASCII,
)
_KEY_ID = re.compile(
    r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}|mrk-[0-9a-f]{32}", re.ASCII
)
_ALIAS = re.compile(r"alias/[A-Za-z0-9/_-]{1,250}", re.ASCII)
_ACCOUNT = re.compile(r"[0-9]{12}", re.ASCII)


def is_account_id(text: str) -> bool:
    """Twelve ASCII digits."""
    return _ACCOUNT.fullmatch(text) is not None


@dataclass(frozen=True, slots=True)
class KeyArn:
    """``arn:PARTITION:kms:REGION:ACCOUNT:key/ID``, taken apart."""

    partition: str
    region: str
    account: str
    key_id: str

    def __str__(self) -> str:
        return f"arn:{self.partition}:kms:{self.region}:{self.account}:key/{self.key_id}"


def parse_key_arn(text: str) -> KeyArn:
    """A key ARN by fullmatch, its partition and region known.

    :raises Malformed: an alias ARN, a bare id or alias, or anything else.
    """
    match = _KEY_ARN.fullmatch(text)
    if match is None or match["kind"] != "key" or not _KEY_ID.fullmatch(match["name"]):
        raise Malformed("not a KMS key ARN")
    if not region_belongs(match["partition"], match["region"]):
        raise Malformed("the key ARN names an unknown partition or region")
    return KeyArn(match["partition"], match["region"], match["account"], match["name"])


def sts_host(key: KeyArn) -> str:
    """The STS endpoint of the key's region: ``sts.REGION.SUFFIX``, never the global one.

    Made of the key's names alone, of which partition and region are known; so no host that came
    from outside is ever asked whether somebody is who he says.

    :raises Malformed: the key has an unknown partition or region.
    """
    if not region_belongs(key.partition, key.region):
        raise Malformed("the key names an unknown partition or region")
    return f"sts.{key.region}.{PARTITIONS[key.partition][1]}"


def region_belongs(partition: str, region: str) -> bool:
    """Whether ``region`` has the form of a region of ``partition``."""
    regions = _PARTITION_REGIONS.get(partition)
    return regions is not None and regions.fullmatch(region) is not None


@dataclass(frozen=True, slots=True)
class KeyReference:
    """Any of KMS's four spellings of a key: key ARN, alias ARN, key id, alias.

    ``region`` and ``account`` are empty for the two that do not say them.
    """

    text: str
    partition: str = ""
    region: str = ""
    account: str = ""

    def __str__(self) -> str:
        return self.text


def parse_key_reference(text: str) -> KeyReference:
    """One of KMS's four spellings of a key.

    :raises Malformed: none of them.
    """
    match = _KEY_ARN.fullmatch(text)
    if match is not None:
        if match["kind"] == "key":
            arn = parse_key_arn(text)
            return KeyReference(text, arn.partition, arn.region, arn.account)
        if not region_belongs(match["partition"], match["region"]):
            raise Malformed("the alias ARN names an unknown partition or region")
        return KeyReference(text, match["partition"], match["region"], match["account"])
    if _KEY_ID.fullmatch(text) or _ALIAS.fullmatch(text):
        return KeyReference(text)
    raise Malformed("not a KMS key: a key ARN, alias ARN, key id or alias/NAME")


# -- service tokens --------------------------------------------------------------------------------

MAX_CALLER: Final = 128
"""Characters. An IAM user's or role's name has at most 64."""

# What IAM allows in the names of users and roles: nothing that separates, quotes or marks up.
_CALLER = re.compile(rf"[A-Za-z0-9_+=,.@-]{{1,{MAX_CALLER}}}", re.ASCII)
_AUDIENCE = re.compile(r"[\x21-\x7e]{1,256}", re.ASCII)


def check_caller_name(text: str) -> str:
    """A name as IAM writes them, for ``from``.

    :raises Malformed: it is none.
    """
    if not _CALLER.fullmatch(text):
        raise Malformed(
            f"{text[:MAX_CALLER]!r} is not a name of up to {MAX_CALLER} letters, digits and _+=,.@-"
        )
    return text


def check_audience(text: str) -> str:
    """A name for ``to``: visible ASCII.

    :raises Malformed: it is none.
    """
    if not _AUDIENCE.fullmatch(text):
        raise Malformed("an audience is 1 to 256 visible ASCII characters")
    return text
