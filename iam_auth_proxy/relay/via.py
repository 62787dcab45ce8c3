"""What stands between us and an origin, as people write it: ``--socks-proxy``, ``--connect-to``.

Pure: text in, values out. :mod:`iam_auth_proxy.relay.dial` uses them.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from typing import Final, Protocol
from urllib.parse import unquote

from iam_auth_proxy.errors import Malformed
from iam_auth_proxy.names import Origin, parse_host, parse_port
from iam_auth_proxy.relay.addresses import is_loopback_name, parse_address

_FORM: Final = "[socks5h|socks5|socks4|http://][user@]host:port"
_VIA = re.compile(
    r"(?:(?P<scheme>[A-Za-z0-9+.-]+)://)?"
    r"(?:(?P<user>[^@/?#]*)@)?"
    r"(?:\[(?P<six>[0-9A-Fa-f:.]+)\]|(?P<host>[A-Za-z0-9_.-]+)):(?P<port>[0-9]+)",
    re.ASCII,
)
# RFC 1929 section 2: each length is one octet; python-socks sends ASCII.
_SOCKS5_LIMIT: Final = 255

_ARGV_REMEDY: Final = (
    "Leave the password out, and put it into the environment variable "
    "IAM_AUTH_PROXY_SOCKS_PASSWORD, or the name of a file that holds it into "
    "IAM_AUTH_PROXY_SOCKS_PASSWORD_FILE."
)


class Tunnel(Protocol):
    """What makes the way to an upstream proxy, and is the proxy's own to run: ``ssh -D``."""

    @property
    def name(self) -> str:
        """How it is written: ``ssh://[user@]host``."""
        ...

    @property
    def remedy(self) -> str:
        """What to do where it is down or not there yet."""
        ...

    async def open(self) -> tuple[str, int]:
        """The host and port of the proxy, which is there when this returns.

        :raises PathError: it cannot be had.
        """
        ...

    async def said(self, since: float) -> str:
        """What it said from that loop time on; empty: nothing."""
        ...


@dataclass(frozen=True, slots=True)
class Via:
    """An upstream proxy.

    :ivar scheme: ``socks5h``, ``socks5``, ``socks4`` or ``http`` (CONNECT).
    :ivar tunnel: what has to be there first, and says at which port; ``port`` is 0 then.
    """

    scheme: str
    host: str
    port: int
    user: str = ""
    password: str = field(default="", repr=False)
    tunnel: Tunnel | None = field(default=None, repr=False)

    @property
    def names_go_far(self) -> bool:
        """Whether the far end resolves names; only ``socks5`` has them resolved here."""
        return self.scheme != "socks5"

    @property
    def greets(self) -> bool:
        """Whether the proxy says something before it goes to an app (RFC 1928 section 3)."""
        return self.scheme in ("socks5h", "socks5")

    @property
    def needs_password(self) -> bool:
        """Whether a password has to be given before this can be used (RFC 1929)."""
        return self.scheme in ("socks5h", "socks5") and bool(self.user) and not self.password

    @property
    def is_local(self) -> bool:
        """Whether the proxy runs on this machine, as the near end of ``ssh -D`` does."""
        address = parse_address(self.host)
        return is_loopback_name(self.host) or (address is not None and address.is_loopback)

    @property
    def host_port(self) -> str:
        """Host and port as people write them; the tunnel's name where there is one."""
        if self.tunnel is not None:
            return self.tunnel.name
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    def with_password(self, password: str) -> Via:
        """The same proxy with its password.

        :raises Malformed: there is no user to go with it, or the scheme cannot carry it.
        """
        if not self.user:
            raise Malformed("a password without a user: write user@host:port")
        if self.scheme == "socks4":
            raise Malformed("SOCKS4 has no passwords: use socks5h://")
        if self.scheme != "http" and not _fits_socks5(password):
            raise Malformed("a SOCKS5 password is 1 to 255 ASCII characters")
        return replace(self, password=password)

    def __str__(self) -> str:
        if self.tunnel is not None:
            return self.tunnel.name
        return f"{self.scheme}://{self.host_port}"


def _fits_socks5(text: str) -> bool:
    return text.isascii() and 0 < len(text) <= _SOCKS5_LIMIT


def parse_via(text: str) -> Via:
    """``[socks5h|socks5|socks4|http://][user@]host:port``; without a scheme it is socks5h.

    The user may be percent-encoded. socks4 is SOCKS4a: names go to the far end.

    :raises Malformed: another form, or a password in it (its remedy says where that belongs).
    """
    match = _VIA.fullmatch(text)
    if match is None:
        # The text is not repeated in the error: it may hold a password.
        raise Malformed(f"an upstream proxy is {_FORM}")
    scheme = (match["scheme"] or "socks5h").lower()
    if scheme not in ("socks5h", "socks5", "socks4", "http"):
        raise Malformed(f"{scheme}:// is not one of socks5h, socks5, socks4 and http")
    raw_user = match["user"] or ""
    if ":" in raw_user:
        raise Malformed("a password does not belong on a command line", remedy=_ARGV_REMEDY)
    host, port = parse_host(match["six"] or match["host"]), parse_port(match["port"])
    return Via(scheme, host, port, _user(raw_user, scheme))


def _user(raw: str, scheme: str) -> str:
    user = unquote(raw)
    if not user:
        return ""
    if not user.isprintable():
        raise Malformed("the user of an upstream proxy holds control characters")
    if scheme == "http":
        if ":" in user:  # RFC 7617 section 2: it would end the user
            raise Malformed("the user of an HTTP proxy cannot hold a colon")
    elif not _fits_socks5(user):
        raise Malformed("the user of a SOCKS proxy is at most 255 ASCII characters")
    return user


# -- --connect-to ----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ConnectTo:
    """One ``--connect-to``: what is dialled in place of an origin's host and port.

    :ivar host: the host it applies to; empty for any.
    :ivar port: the port it applies to; None for any.
    :ivar to_host: dialled in place of the host; empty to keep it.
    :ivar to_port: dialled in place of the port; None to keep it.
    """

    host: str
    port: int | None
    to_host: str
    to_port: int | None

    def covers(self, origin: Origin) -> bool:
        """Whether this entry applies to ``origin``."""
        return self.host in ("", origin.host) and self.port in (None, origin.port)


_PART = r"\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9_.-]*"
_CONNECT_TO = re.compile(
    rf"(?P<host>{_PART}):(?P<port>[0-9]*):(?P<to_host>{_PART}):(?P<to_port>[0-9]*)", re.ASCII
)


def parse_connect_to(text: str) -> ConnectTo:
    """``HOST:PORT:ADDRESS:PORT`` as curl has it: an empty part means any, or the origin's own.

    :raises Malformed: another form; IPv6 addresses stand in brackets.
    """
    match = _CONNECT_TO.fullmatch(text)
    if match is None:
        raise Malformed("--connect-to is HOST:PORT:ADDRESS:PORT, IPv6 addresses in brackets")
    return ConnectTo(
        _part(match["host"]),
        parse_port(match["port"]) if match["port"] else None,
        _part(match["to_host"]),
        parse_port(match["to_port"]) if match["to_port"] else None,
    )


def _part(text: str) -> str:
    if not text:
        return ""
    host = parse_host(text.strip("[]"))
    if text.startswith("[") and ":" not in host:
        raise Malformed("only an IPv6 address stands in brackets")
    return host


# -- where an origin's connection goes -------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Target:
    """What is dialled for an origin.

    :ivar named: whether the person named this very host with ``--connect-to``: the list of refused
        addresses is not for that.
    """

    host: str
    port: int
    named: bool = False

    @property
    def host_port(self) -> str:
        """Host and port, IPv6 in brackets."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def target_of(origin: Origin, mappings: tuple[ConnectTo, ...]) -> Target:
    """The first mapping that covers the origin decides; without one it is the origin itself."""
    for mapping in mappings:
        if mapping.covers(origin):
            host, port = mapping.to_host or origin.host, mapping.to_port or origin.port
            return Target(host, port, named=bool(mapping.to_host))
    return Target(origin.host, origin.port)
