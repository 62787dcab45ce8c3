"""The sockets that the proxy listens on: systemd's, or those that ``--bind`` names."""

from __future__ import annotations

import errno
import os
import socket
import stat
from collections.abc import Sequence
from ipaddress import ip_address
from pathlib import Path
from typing import Final

from iam_auth_proxy.config import Bind, parse_bind
from iam_auth_proxy.errors import CannotListen, ConfigError, Malformed, Problem

# A family or an address that this machine does not have; IPv6 is often switched off.
_ABSENT = (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT, errno.EPROTONOSUPPORT)

# What listens on every address of a family, and the one that this machine itself dials.
_ALL: Final = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104  # looked for, not bound


def listen(bind: Bind) -> list[socket.socket]:
    """Bound sockets, not yet listening; both loopback addresses for ``:PORT``, where there are two.

    :raises ConfigError: the address is in use or cannot be had.
    """
    if bind.path:
        return [_unix(bind.path)]
    sockets: list[socket.socket] = []
    port = bind.port
    for host in bind.hosts:
        try:
            sockets.append(bind_tcp(host, port))
        except OSError as error:
            if error.errno in _ABSENT and len(bind.hosts) > 1:
                continue
            for done in sockets:
                done.close()
            raise CannotListen([_problem(host, port, error)]) from error
        port = sockets[0].getsockname()[1]
    if not sockets:
        raise ConfigError([Problem("--bind", "this machine has no loopback address")])
    return sockets


def check_bind(text: str) -> None:
    """Whether ``--bind`` could be listened on; that it is in use, perhaps by a proxy, is no matter.

    :raises Malformed: it could not, and why.
    """
    bind = parse_bind(text)
    if bind.path:
        folder = Path(bind.path).parent
        if not os.access(folder, os.W_OK | os.X_OK):
            raise Malformed(f"{folder} is not a folder that can be written to")
    for host in bind.hosts:
        try:
            bind_tcp(host, bind.port).close()
        except OSError as error:
            if error.errno == errno.EADDRINUSE or (error.errno in _ABSENT and len(bind.hosts) > 1):
                continue
            raise Malformed(str(error.strerror)) from error


def bind_tcp(host: str, port: int, *, alone: bool = False) -> socket.socket:
    """One bound socket; IPv6 alone on an IPv6 address.

    :param alone: nobody else binds there meanwhile, though it does not listen.
    :raises OSError: the address cannot be had.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        if os.name == "posix" and not alone:
            # On Windows the same option would let another process take the port.
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        listener.bind((host, port))
        listener.setblocking(False)
    except OSError:
        listener.close()
        raise
    return listener


def hold_names(sockets: Sequence[socket.socket]) -> tuple[list[socket.socket], list[str]]:
    """Keeps others off the loopback addresses that ``localhost`` and what is under it lead to.

    Browsers try ``::1`` first and ``127.0.0.1`` then (RFC 6761 section 6.3 has both). A page of
    whoever listens at the one is of the same origin as an alias at the other, so that no other user
    of this machine may. A socket that is bound and does not listen refuses, as nobody would.

    :returns: such sockets, and ``HOST:PORT`` where another program listens already.
    """
    bound = {listener.getsockname()[:2] for listener in sockets if _is_tcp(listener)}
    ports = {listener.getsockname()[1] for listener in sockets if _is_tcp(listener)}
    held: list[socket.socket] = []
    taken: list[str] = []
    for port in sorted(ports):
        for every, host in _ALL.items():
            if (host, port) in bound or (every, port) in bound:
                continue
            try:
                held.append(bind_tcp(host, port, alone=True))
            except OSError as error:
                if error.errno not in _ABSENT:
                    taken.append(f"{_literal(host)}:{port}")
    return held, taken


def _is_tcp(listener: socket.socket) -> bool:
    return listener.family in (socket.AF_INET, socket.AF_INET6)


def _problem(host: str, port: int, error: OSError) -> Problem:
    where = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    if error.errno == errno.EADDRINUSE:
        text = f"{where} is in use; is iam-auth-proxy running already? If so, that one does"
        other = 8090 if port != 8090 else 8091
        return Problem("--bind", f"{text}; if not, say another port, such as --bind :{other}")
    return Problem("--bind", f"{where}: {error.strerror}")


def _unix(path: str) -> socket.socket:
    try:
        return bind_unix(path)
    except OSError as error:
        raise CannotListen([Problem("--bind", f"unix:{path}: {error.strerror}")]) from error


def bind_unix(path: str) -> socket.socket:
    """A bound socket at a path, for this user alone.

    :raises OSError: it cannot be had, or somebody listens there.
    """
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        _remove_stale(path)
        # The permissions are the access control, so they are right from the first moment on.
        before = os.umask(0o177)
        try:
            listener.bind(path)
        finally:
            os.umask(before)
        listener.setblocking(False)
    except OSError:
        listener.close()
        raise
    return listener


def _remove_stale(path: str) -> None:
    """A socket file that nobody listens on is left from a run that was killed.

    :raises OSError: somebody does listen there, or it is another kind of file.
    """
    try:
        mode = Path(path).lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise OSError(errno.EEXIST, "is there and is not a socket")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            Path(path).unlink()
            return
    raise OSError(errno.EADDRINUSE, "is in use; is iam-auth-proxy running already?")


def is_local(listener: socket.socket) -> bool:
    """Whether only this machine reaches a listener."""
    name = listener.getsockname()
    if not isinstance(name, tuple):
        return True
    address = ip_address(name[0].partition("%")[0])
    return (getattr(address, "ipv4_mapped", None) or address).is_loopback


def addresses(sockets: Sequence[socket.socket]) -> list[str]:
    """How people write them: ``127.0.0.1:8080``, ``[::1]:8080``, ``unix:/path``."""
    names: list[str] = []
    for listener in sockets:
        name = listener.getsockname()
        if isinstance(name, tuple):
            names.append(f"{_literal(name[0])}:{name[1]}")
        else:
            names.append(f"unix:{os.fsdecode(name)}")
    return names


def named(bind: Bind) -> list[str]:
    """The :func:`addresses` that a bind asks for."""
    if bind.path:
        return [f"unix:{bind.path}"]
    return [f"{_literal(host)}:{bind.port}" for host in bind.hosts]


def reachable(sockets: Sequence[socket.socket]) -> str:
    """``HOST:PORT`` at which a browser finds the proxy's own pages; empty where it cannot.

    Loopback where it is listened on: pages that ask the person something are for this machine.
    """
    tcp = [listener for listener in sockets if listener.family != socket.AF_UNIX]
    tcp.sort(key=lambda listener: (not is_local(listener), listener.getsockname()[0] not in _ALL))
    names = [listener.getsockname() for listener in tcp]
    return next((f"{_literal(_dialled(name[0]))}:{name[1]}" for name in names), "")


def _dialled(host: str) -> str:
    """The address by which this machine reaches a listener on ``host``."""
    return _ALL.get(host, host)


def _literal(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def own_hosts(sockets: Sequence[socket.socket]) -> frozenset[str]:
    """The values of Host under which the proxy's own pages may be asked for.

    Exact, ports included: a name that an attacker points at loopback (DNS rebinding) is not one.
    """
    hosts: set[str] = set()
    for listener in sockets:
        name = listener.getsockname()
        if isinstance(name, tuple):
            literals = {_literal(name[0]), _literal(_dialled(name[0])), "localhost"}
            hosts.update(f"{host}:{name[1]}" for host in literals)
            if name[1] == 80:
                hosts.update(literals)
        else:
            hosts.add("localhost")
    return frozenset(hosts)
