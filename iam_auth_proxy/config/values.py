"""The grammars of configuration values that are not names on the wire."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field

from iam_auth_proxy.errors import Malformed
from iam_auth_proxy.names import (
    DEFAULT_PORTS,
    Origin,
    parse_host,
    parse_key_arn,
    parse_origin,
    parse_port,
)

_DURATION = re.compile(r"(?:[0-9]+(?:\.[0-9]+)?(?:h|ms|m|s))+", re.ASCII)
_DURATION_PART = re.compile(r"([0-9]+(?:\.[0-9]+)?)(h|ms|m|s)", re.ASCII)
_SECONDS = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 0.001}


def parse_duration(text: str) -> float:
    """Seconds from Go's duration syntax: ``1h``, ``90m``, ``1h30m``, ``45s``.

    :raises Malformed: anything else, and zero.
    """
    if not _DURATION.fullmatch(text):
        raise Malformed("not a duration such as 1h, 90m or 1h30m")
    seconds = sum(float(n) * _SECONDS[unit] for n, unit in _DURATION_PART.findall(text))
    if seconds <= 0:
        raise Malformed("a duration is longer than nothing")
    return seconds


@dataclass(frozen=True, slots=True)
class Bind:
    """Where to listen: ``hosts`` and ``port``, or the path of a unix socket.

    ``widened`` is the text of a bind such as ``:8080``, which other programs read as "all
    interfaces" and which means loopback here.
    """

    hosts: tuple[str, ...] = ()
    port: int = 0
    path: str = ""
    widened: str = ""


def parse_bind(text: str) -> Bind:
    """``:PORT`` (loopback), ``ADDRESS:PORT`` or ``unix:PATH``.

    :raises Malformed: a name instead of an address, a bad port, or an address that is not loopback:
        whoever reaches the port acts as the person, so that needs client authentication.
    """
    if text.startswith("unix:"):
        if not text[5:].startswith("/"):
            raise Malformed("unix: needs an absolute path")
        return Bind(path=text[5:])
    host, separator, port_text = text.rpartition(":")
    if not separator:
        raise Malformed("write ADDRESS:PORT, :PORT or unix:PATH")
    port = 0 if port_text == "0" else parse_port(port_text)
    if host == "":
        return Bind(("127.0.0.1", "::1"), port, widened=text)
    address = parse_host(host[1:-1] if host.startswith("[") and host.endswith("]") else host)
    if address == "localhost":
        return Bind(("127.0.0.1", "::1"), port)
    if address != "::1" and not re.fullmatch(r"127(?:\.[0-9]{1,3}){3}", address, re.ASCII):
        raise Malformed(
            "only loopback addresses: whoever reaches the proxy acts as you, and this version has "
            f"no client authentication. Bind to 127.0.0.1:{port or 8080}"
        )
    return Bind((address,), port)


@dataclass(frozen=True, slots=True)
class TrustRule:
    """An origin whose challenges are answered. ``place`` says where that was written.

    ``wildcard``: ``host`` is what must follow at least one further label. ``keys`` are key ARNs;
    empty means that a key of the caller's own account is pinned at first use.
    """

    scheme: str
    host: str
    port: int
    keys: tuple[str, ...] = ()
    wildcard: bool = False
    place: str = field(default="", compare=False)

    def covers(self, origin: Origin) -> bool:
        """Whether the rule speaks of this origin."""
        if (self.scheme, self.port) != (origin.scheme, origin.port):
            return False
        if self.wildcard:
            return origin.host.endswith("." + self.host)
        return origin.host == self.host

    def __str__(self) -> str:
        host = f"*.{self.host}" if self.wildcard else self.host
        return str(Origin(self.scheme, host, self.port))


# Second-level labels under which country registries sell names: `*.co.uk` is anybody.
_REGISTRY_LABELS = frozenset({"ac", "co", "com", "edu", "go", "gov", "ne", "net", "or", "org"})


def parse_trust(text: str, keys: Iterable[str] = ()) -> TrustRule:
    """``ORIGIN[=KEY_ARN]``; the host may begin with ``*.`` if there is a key ARN.

    :raises Malformed: with the reason.
    """
    origin_text, separator, arn = text.partition("=")
    arns = tuple(str(parse_key_arn(key)) for key in ([arn] if separator else [*keys]))
    scheme, found, rest = origin_text.partition("://")
    if found and rest.startswith("*."):
        return _wildcard(scheme.lower(), rest[2:], arns)
    origin = parse_origin(origin_text.removesuffix("/"))
    if origin.host.endswith("."):
        raise Malformed("a host with a trailing dot is another origin; leave the dot out")
    return TrustRule(origin.scheme, origin.host, origin.port, arns)


def _wildcard(scheme: str, rest: str, keys: tuple[str, ...]) -> TrustRule:
    if scheme not in DEFAULT_PORTS:
        raise Malformed("an origin is http://HOST[:PORT] or https://HOST[:PORT]")
    origin = parse_origin(f"{scheme}://{rest.removesuffix('/')}")
    labels = origin.host.split(".")
    registry = len(labels) == 2 and len(labels[1]) == 2 and labels[0] in _REGISTRY_LABELS
    if origin.is_address or len(labels) < 2 or "" in labels or registry:
        raise Malformed("a wildcard needs a domain of your own, such as *.internal.example.com")
    if not keys:
        raise Malformed("a wildcard needs a key: write ORIGIN=KEY_ARN")
    return TrustRule(origin.scheme, origin.host, origin.port, keys, wildcard=True)
