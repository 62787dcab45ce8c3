"""What programs ask for without the proxy: this machine's own names, which it would refuse. Pure.

The proxy leads nobody to loopback unless it is told to (``--allow-target``), so a program that has
a database here would lose it. ``no_proxy`` knows no ports, so where one app of this machine goes
through the proxy, all of them do.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from ipaddress import ip_network
from typing import Final

from iam_auth_proxy.relay.addresses import (
    AllowedTarget,
    is_loopback_name,
    parse_address,
    parse_target,
)

VARIABLES: Final = ("no_proxy", "NO_PROXY")
_LOCAL: Final = ("localhost", "127.0.0.1", "::1")
_LOOPBACK: Final = (ip_network("127.0.0.0/8"), ip_network("::1/128"))


def exports(
    environ: Mapping[str, str],
    hosts: Iterable[str],
    allowed: Iterable[str],
    *,
    aliases: bool = False,
) -> dict[str, str]:
    """The variables that change: what is there already, and then this machine.

    :param hosts: of the apps that are listed.
    :param allowed: the targets of ``--allow-target``.
    :param aliases: whether apps go by names under ``.localhost``, which ``localhost`` covers.
    """
    names = _past(hosts, allowed, aliases=aliases)
    if not names:
        return {}
    either = next((text for name in VARIABLES if (text := environ.get(name))), "")
    return {name: _with(environ.get(name) or either, names) for name in VARIABLES}


def in_the_way(
    environ: Mapping[str, str],
    hosts: Iterable[str],
    allowed: Iterable[str],
    *,
    aliases: bool = False,
) -> list[str]:
    """The names of this machine that are there already, though apps go by them.

    A shell has them that was set up before such an app was listed, or the person put them there
    himself: nobody else takes them out. Arguments as of :func:`exports`.
    """
    names = _past(hosts, allowed, aliases=aliases)
    there = {word for name in VARIABLES for word in _words(environ.get(name, ""))}
    return [name for name in _LOCAL if name in there and name not in names]


def _past(hosts: Iterable[str], allowed: Iterable[str], *, aliases: bool) -> list[str]:
    """The names of this machine that go past the proxy."""
    if any(is_local(host) for host in hosts) or any(_leads_here(text) for text in allowed):
        return []
    return [name for name in _LOCAL if not (aliases and name == "localhost")]


def _with(text: str, names: Collection[str]) -> str:
    given = _words(text)
    if "*" in given:
        return text
    return ",".join([*given, *(name for name in names if name not in given)])


def _words(text: str) -> list[str]:
    return [word.strip() for word in text.split(",") if word.strip()]


def is_local(host: str) -> bool:
    """Whether a host is this machine by its spelling."""
    address = parse_address(host)
    return is_loopback_name(host) or (address is not None and address.is_loopback)


def _leads_here(text: str) -> bool:
    target: AllowedTarget = parse_target(text)
    if target.network is None:
        return is_local(target.name)
    return any(
        network.version == target.network.version and network.overlaps(target.network)
        for network in _LOOPBACK
    )
