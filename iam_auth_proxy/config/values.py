"""The grammars of configuration values that are not names on the wire."""

from __future__ import annotations

import ipaddress
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Final

from iam_auth_proxy.config.domains import may_be_own, parse_domain
from iam_auth_proxy.errors import Malformed
from iam_auth_proxy.names import (
    DEFAULT_PORTS,
    Origin,
    is_account_id,
    parse_key_arn,
    parse_origin,
    parse_port,
)

# Go's time.ParseDuration, without a sign: "1h30m", "1.5h", ".5h", "90m".
_DURATION_PART = re.compile(r"([0-9]+(?:\.[0-9]*)?|\.[0-9]+)(h|ms|m|s|us|µs|μs|ns)")
_DURATION = re.compile(rf"(?:{_DURATION_PART.pattern})+")
_SECONDS = {
    "h": 3600.0,
    "m": 60.0,
    "s": 1.0,
    "ms": 1e-3,
    "us": 1e-6,
    "µs": 1e-6,  # U+00B5 and U+03BC: Go takes both
    "μs": 1e-6,
    "ns": 1e-9,
}
_LONGEST = 2**63 / 1e9  # what Go's int64 of nanoseconds holds, about 292 years
# GetSessionToken with an MFA code takes 900 to 129,600 s (STS API reference); AssumeRole, whose
# limit is the role's own and at most 43,200 s, is looked at where both flags are known.
_SESSION_BOUNDS = (900.0, 129_600.0)
MAX_ROLE_SESSION: Final = 43_200.0

# sockaddr_un.sun_path is 108 bytes on Linux and 104 on macOS, the closing NUL included.
_MAX_SOCKET_PATH = 103


def parse_duration(text: str) -> float:
    """Seconds from Go's duration syntax: ``1h``, ``90m``, ``1h30m``, ``45s``.

    :raises Malformed: anything else, a sign, zero, and more than Go can hold.
    """
    if not _DURATION.fullmatch(text):
        raise Malformed("not a duration such as 1h, 90m or 1h30m")
    seconds = sum(float(n) * _SECONDS[unit] for n, unit in _DURATION_PART.findall(text))
    if not 0 < seconds < _LONGEST:
        raise Malformed("a duration is longer than nothing and shorter than 292 years")
    return seconds


def parse_session_duration(text: str) -> float:
    """Seconds that a session of AWS may live: 15 minutes to 36 hours, whole seconds.

    :raises Malformed: otherwise.
    """
    seconds = parse_duration(text)
    shortest, longest = _SESSION_BOUNDS
    if not shortest <= seconds <= longest:
        raise Malformed("AWS gives sessions of 15m to 36h, and of at most 12h for a role")
    return float(round(seconds))


def parse_switch(text: str) -> bool:
    """``true`` or ``false``, in the spellings that people use for environment variables.

    :raises Malformed: anything else.
    """
    lowered = text.lower()
    if lowered in {"1", "true", "yes", "on"}:
        return True
    if lowered in {"0", "false", "no", "off"}:
        return False
    raise Malformed("write true or false")


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

    @property
    def is_local(self) -> bool:
        """Whether only this machine reaches it."""
        return all(ipaddress.ip_address(host).is_loopback for host in self.hosts)


_LOOPBACK = ("127.0.0.1", "::1")


def parse_bind(text: str) -> Bind:
    """``:PORT`` (loopback), ``ADDRESS:PORT``, ``[ADDRESS]:PORT`` or ``unix:PATH``.

    Port 0 is any free one.

    :raises Malformed: a name instead of an address, or a bad port.
    """
    if text.startswith("unix:"):
        return Bind(path=_socket_path(text[5:]))
    host, separator, port_text = text.rpartition(":")
    if not separator:
        raise Malformed("write ADDRESS:PORT, :PORT or unix:PATH")
    port = 0 if port_text == "0" else parse_port(port_text)
    if host == "":
        return Bind(_LOOPBACK, port, widened=text)
    if host.lower() == "localhost":
        return Bind(_LOOPBACK, port)
    bracketed = host.startswith("[") and host.endswith("]")
    try:
        address = ipaddress.ip_address(host[1:-1] if bracketed else host)
    except ValueError as error:
        raise Malformed("write an address, not a name, before the port") from error
    if bracketed != (address.version == 6):
        raise Malformed("an IPv6 address, and only that, stands in brackets: [::1]:8080")
    mapped = getattr(address, "ipv4_mapped", None)
    if mapped or address.is_multicast or address.is_link_local or "%" in host:
        raise Malformed("write an interface's own address, such as 127.0.0.1 or 192.168.1.5")
    return Bind((str(address),), port)


def _socket_path(path: str) -> str:
    if not path.startswith("/"):
        raise Malformed("unix: needs an absolute path")
    if len(os.fsencode(path)) > _MAX_SOCKET_PATH:
        raise Malformed(f"a socket's path has at most {_MAX_SOCKET_PATH} bytes")
    if not path.isprintable():  # it stands in a unit of systemd's, and on terminals
        raise Malformed("a socket's path has no line breaks or other control characters")
    return path


_SIZE = re.compile(r"([0-9]{1,12})(B|KiB|MiB|GiB)?", re.ASCII)
_BYTES = {None: 1, "B": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30}
_LARGEST = 2**40


def parse_size(text: str) -> int:
    """Bytes from ``64MiB``, ``512KiB``, ``0``.

    :raises Malformed: anything else, decimal units (nobody agrees on them), over 1 TiB.
    """
    match = _SIZE.fullmatch(text)
    if match is None:
        raise Malformed("not a size such as 64MiB, 512KiB or 0")
    size = int(match[1]) * _BYTES[match[2]]
    if size > _LARGEST:
        raise Malformed("a size is at most 1024GiB")
    return size


def parse_account(text: str) -> str:
    """An AWS account id.

    :raises Malformed: anything but 12 digits.
    """
    if not is_account_id(text):
        raise Malformed("not an AWS account id of 12 digits")
    return text


def parse_profile(text: str) -> str:
    """The name of an AWS profile: whatever a section of AWS's own files can be called.

    :raises Malformed: control characters, brackets, or over 128 characters.
    """
    if not text.isprintable() or len(text) > 128 or set(text) & set("[]"):
        raise Malformed("not the name of an AWS profile")
    return text


PROOFS: Final = ("signed-identity", "session-credentials")
"""The kinds of proof as people and the wire write them, the strongest first."""

DIRECT: Final = "direct"
"""The route of an app that is reached without an upstream proxy, ``--socks-proxy`` or not."""

_ROUTE = re.compile(r"[A-Za-z0-9_-]{1,64}", re.ASCII)


def parse_route(text: str) -> str:
    """The name of a ``[via.NAME]``, or ``direct``.

    :raises Malformed: other characters than letters, digits, ``-`` and ``_``.
    """
    if not _ROUTE.fullmatch(text):
        raise Malformed("a route's name is 1 to 64 letters, digits, '-' or '_'")
    return text


HTTPS: Final = ("alias", "intercept", "tunnel")
"""How an app on https is reached: under a name of ``.localhost`` on the proxy's own port, with its
TLS ended here, or (where nothing is said) through a tunnel, unread and without a sign-in."""

# A DNS label in the one spelling that a browser sends.
_LABEL = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?", re.ASCII)


def parse_alias(text: str) -> str:
    """The NAME of ``http://NAME.localhost:PORT/``.

    :raises Malformed: not one label of a host's name in lower case, or ``localhost`` itself.
    """
    if not _LABEL.fullmatch(text) or text == "localhost":
        raise Malformed("an alias is one label of a host's name: a-z, 0-9 and '-', at most 63")
    return text


_USERINFO = re.compile(r"^((?:[A-Za-z][A-Za-z0-9+.-]*://)?[^/@:]*):.*@", re.DOTALL)
_LONGEST_SHOWN = 200


def masked(text: str) -> str:
    """A text without a URL's password."""
    return _USERINFO.sub(r"\1:***@", text)


def shown(text: str) -> str:
    """A text as a problem quotes it: on one line, not endless, and without a URL's password."""
    whole = masked(text)
    return repr(whole if len(whole) <= _LONGEST_SHOWN else whole[:_LONGEST_SHOWN] + "…")


SOURCES: Final = ("system", "flag", "environment", "user", "store")
"""Where a rule can come from, in the order in which they count: the operator's word first."""


@dataclass(frozen=True, slots=True)
class ServiceTokenRule:
    """The service token that goes with the requests to an app.

    :ivar to: the audience.
    :ivar key: any of KMS's four spellings. What is no ARN is looked up as the person's own.
    :ivar type: "user" or "service"; empty: what the person's identity is.
    :ivar name: whom it is from; empty: the identity's own name.
    :ivar allow_http: it may be sent without encryption.
    """

    to: str
    key: str
    type: str = ""
    name: str = ""
    allow_http: bool = False


@dataclass(frozen=True, slots=True)
class ClientCertificate:
    """A client certificate with its chain, and its key: paths of PEM files, ``~`` expanded."""

    certificate: str
    key: str


@dataclass(frozen=True, slots=True)
class TrustRule:
    """An origin whose challenges are answered. ``place`` says where that was written.

    :ivar host: with ``wildcard``, what must follow at least one further label.
    :ivar keys: key ARNs. Empty: the first key is pinned when it is used.
    :ivar profile: the AWS profile of this app; empty: the default one.
    :ivar proofs: of :data:`PROOFS`; empty: what the settings say for all apps.
    :ivar via: the name of a route, :data:`DIRECT`, or empty: the default route.
    :ivar allow_from: origins whose pages may cause a sign-in here.
    :ivar https: of :data:`HTTPS`, for an https origin; empty: nothing is said, which is a tunnel.
    :ivar alias: the name that is wanted where ``https`` is "alias"; see :attr:`alias_name`.
    :ivar service_token: what the proxy adds to its requests, where it may.
    :ivar client: the certificate that the proxy shows it, where it may.
    :ivar source: one of :data:`SOURCES`.
    """

    scheme: str
    host: str
    port: int
    keys: tuple[str, ...] = ()
    wildcard: bool = False
    profile: str = ""
    proofs: tuple[str, ...] = ()
    via: str = ""
    allow_from: tuple[Origin, ...] = ()
    https: str = ""
    alias: str = ""
    service_token: ServiceTokenRule | None = None
    client: ClientCertificate | None = None
    source: str = "flag"
    place: str = field(default="", compare=False)

    def covers(self, origin: Origin) -> bool:
        """Whether the rule speaks of this origin."""
        if (self.scheme, self.port) != (origin.scheme, origin.port):
            return False
        if self.wildcard:
            return origin.host.endswith("." + self.host)
        return origin.host == self.host

    @property
    def is_read(self) -> bool:
        """Whether the proxy reads what is said to it, and so can sign in: not inside a tunnel."""
        return self.scheme == "http" or self.https in HTTPS[:2]

    @property
    def alias_name(self) -> str:
        """The name under ``.localhost``: the one that is wanted, or the host's first label.

        Empty where the app is not reached so.
        """
        return (self.alias or self.host.partition(".")[0]) if self.https == HTTPS[0] else ""

    def __str__(self) -> str:
        host = f"*.{self.host}" if self.wildcard else self.host
        return str(Origin(self.scheme, host, self.port))


def parse_trust(text: str, keys: Iterable[str] = ()) -> TrustRule:
    """``ORIGIN[=KEY_ARN]``; the host may begin with ``*.``.

    :param keys: further key ARNs, as ``kms_keys`` of an ``[[app]]`` lists them.
    :raises Malformed: with the reason.
    """
    origin_text, separator, arn = text.partition("=")
    given = [arn, *keys] if separator else [*keys]
    arns = tuple(dict.fromkeys(str(parse_key_arn(key)) for key in given))
    scheme, found, rest = origin_text.partition("://")
    if found and rest.startswith("*."):
        return _wildcard(scheme.lower(), rest[2:], arns)
    origin = parse_origin(origin_text.removesuffix("/"))
    if origin.host.endswith("."):
        raise Malformed("a host with a trailing dot is another origin; leave the dot out")
    return TrustRule(origin.scheme, origin.host, origin.port, arns)


_BASTION = re.compile(
    r"(?:[A-Za-z0-9_][A-Za-z0-9_.+-]*@)?(?:[A-Za-z0-9_][A-Za-z0-9_.-]*|[0-9A-Fa-f:]+)", re.ASCII
)
_MAX_BASTION: Final = 320


def parse_bastion(text: str) -> str:
    """``[USER@]HOST``, as ``ssh`` takes it, or a Host of ``ssh_config``.

    Neither begins with a dash, which would make it an option of ssh, nor holds what means something
    to a shell: ``ProxyCommand`` gives them to one.

    :raises Malformed: otherwise.
    """
    if len(text) > _MAX_BASTION or not _BASTION.fullmatch(text):
        raise Malformed("a bastion is [USER@]HOST, as ssh takes it; a port belongs to ssh_config")
    return text


def parse_alias_of(text: str) -> TrustRule:
    """``NAME=https://HOST[:PORT]``: an app that is listed, and reached under this name.

    :raises Malformed: with the reason.
    """
    name, separator, origin = text.partition("=")
    if not separator:
        raise Malformed("write NAME=https://HOST, such as wiki=https://wiki.internal")
    rule = parse_trust(origin)
    if rule.scheme != "https" or rule.wildcard or rule.keys:
        raise Malformed("an alias is of one https://HOST[:PORT] and no more")
    return replace(rule, https=HTTPS[0], alias=parse_alias(name))


def parse_intercept(text: str) -> TrustRule:
    """``HOST[:PORT]``: an app on https that is listed, and whose TLS is ended here.

    ``*.DOMAIN`` stands for the names below it. ``https://`` may stand before either.

    :raises Malformed: with the reason; also for a name that no local CA can speak for.
    """
    bare = text.removeprefix("https://")
    if "://" in bare or "=" in bare:
        raise Malformed("write HOST or HOST:PORT, such as grafana.internal")
    rule = replace(parse_trust(f"https://{bare}"), https=HTTPS[1])
    check_named_by_ca(rule)
    return rule


def check_named_by_ca(rule: TrustRule) -> None:
    """Whether there can be a local CA that names the host.

    :raises Malformed: there cannot, and why.
    """
    try:
        parse_domain(rule.host)
    except Malformed as error:
        raise Malformed(f"no local CA may name {rule.host}: {error}. An alias can do it") from None


def _wildcard(scheme: str, rest: str, keys: tuple[str, ...]) -> TrustRule:
    if scheme not in DEFAULT_PORTS:
        raise Malformed("an origin is http://HOST[:PORT] or https://HOST[:PORT]")
    origin = parse_origin(f"{scheme}://{rest.removesuffix('/')}")
    if not may_be_own(origin.host):
        raise Malformed("a wildcard needs a domain of your own, such as *.internal.example.com")
    return TrustRule(origin.scheme, origin.host, origin.port, keys, wildcard=True)
