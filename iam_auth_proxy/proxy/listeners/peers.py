"""Whose process is at the other end of a connection from this machine. Linux only.

A port of loopback is open to every user of a machine, and whoever reaches the proxy acts as the
person. So each connection's owner is asked of the kernel when it has been accepted and before a
byte of it is read. For TCP the question is sock_diag(7): the one socket whose four addresses and
ports are those of our end, the other way round. For a unix socket it is ``SO_PEERCRED``.

Doubt is a refusal:

* A closed socket that still drains, one in TIME_WAIT and one in SYN_RECV show uid 0 and inode 0,
  whoever made them. So an entry counts only with an inode, and only in a state in which its owner
  can still send or has just stopped sending.
* The kernel finds a listener where it finds no connection, so the answer's own addresses are
  compared.
* A client that resets its connection frees its port, and the next one to get that port may be of
  the right user. So our end is looked at after the answer came: while it is connected, no other
  socket of this machine can have those four (the kernel would have reset ours first).
* A peer that is not of this machine, or whose packets a rule of the firewall rewrote, has no such
  socket here.
* In a user namespace every user but some is shown as the overflow uid. Where that is our own uid
  too, nobody can be told from others.

Root is refused like any other user (unless the proxy is root's): it gains nothing, since root can
read the person's credentials anyway, but programs that run as root and connect where others tell
them to, such as port forwarders, would lend their way in to everybody.

Measured in us a connection, our end's state included (2 busy cores, Linux 6.18, medians of 9,
three runs, 2026-11): sock_diag 5.4-8.8 with 1 connection open and 5.9-10 with 1,000; /proc
3,200-5,500 and 5,400-9,000, which is why it is read only where netlink is refused. Finding that out
takes 0.5 ms at the start.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final, Protocol

from iam_auth_proxy.errors import ConfigError, Problem

IS_CHECKED: Final = sys.platform == "linux"
"""Whether the owner of a connection can be told on this system."""

Endpoint = tuple[str, int]

# include/uapi/linux/{netlink,sock_diag,inet_diag}.h
_NETLINK_SOCK_DIAG: Final = 4
_SOCK_DIAG_BY_FAMILY: Final = 20
_NLM_F_REQUEST: Final = 1
_HEADER = struct.Struct("=IHHII")  # length, type, flags, sequence, port id
_QUESTION = struct.Struct("=BBBBI")  # family, protocol, extensions, padding, states
_PORTS = struct.Struct("!HH")
_LENGTH: Final = _HEADER.size + _QUESTION.size + 48
_ANY_SOCKET: Final = struct.pack("=III", 0, 0xFFFFFFFF, 0xFFFFFFFF)  # interface, cookie
# family, state, timer, retries, ports and addresses, interface and cookie, three counts, uid, inode
_ANSWER = struct.Struct("=BBBB36s12s5I")
_MAPPED: Final = bytes(10) + b"\xff\xff"
_FILL: Final = bytes(12)
# include/net/tcp_states.h
_LISTEN: Final = 10
_ESTABLISHED, _FIN_WAIT1, _FIN_WAIT2, _CLOSE_WAIT = 1, 4, 5, 8
_OWNED_STATES: Final = frozenset({_ESTABLISHED, _FIN_WAIT1, _FIN_WAIT2})
_OUR_STATES: Final = frozenset({_ESTABLISHED, _CLOSE_WAIT})
_CREDENTIALS = struct.Struct("=iII")  # struct ucred: pid, uid, gid

# The kernel answers before the question's system call returns; this is for one that does not.
_PATIENCE: Final = struct.pack("@ll", 0, 200_000)  # struct timeval: 0.2 s
_STALE_ANSWERS: Final = 8


class UidSource(Protocol):
    """Who owns a TCP socket of this machine."""

    def uid_of(self, own: Endpoint, far: Endpoint) -> int | None:
        """The owner of the socket at ``own`` that is connected to ``far``; None in any doubt."""
        ...

    def close(self) -> None:
        """Until the next question."""
        ...


class SockDiag:
    """Asks the kernel over one netlink socket, which is kept.

    :param open_socket: makes it.
    """

    def __init__(self, open_socket: Callable[[], socket.socket] | None = None) -> None:
        self._open = open_socket or _netlink
        self._socket: socket.socket | None = None
        self._sequence = 0

    def uid_of(self, own: Endpoint, far: Endpoint) -> int | None:
        """See :class:`UidSource`."""
        self._sequence = sequence = self._sequence % 0xFFFFFFFF + 1
        try:
            family, names = _names(own, far)
            if self._socket is None:
                self._socket = self._open()
            self._socket.sendto(
                _HEADER.pack(_LENGTH, _SOCK_DIAG_BY_FAMILY, _NLM_F_REQUEST, sequence, 0)
                + _QUESTION.pack(family, socket.IPPROTO_TCP, 0, 0, 0xFFFFFFFF)
                + names
                + _ANY_SOCKET,
                (0, 0),
            )
            for _ in range(_STALE_ANSWERS):
                answer, sender = self._socket.recvfrom(4096)
                if sender[0] == 0 and len(answer) >= _HEADER.size:
                    _, kind, _, answered, _ = _HEADER.unpack_from(answer)
                    if answered == sequence:
                        return _owner(kind, answer[_HEADER.size :], names)
        except OSError:
            pass  # an answer that did not come, or a socket that no longer works: in doubt, nobody
        self.close()
        return None

    def close(self) -> None:
        """See :class:`UidSource`."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None


def _netlink() -> socket.socket:
    channel = socket.socket(
        socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _NETLINK_SOCK_DIAG
    )
    channel.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, _PATIENCE)
    channel.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, _PATIENCE)
    return channel


def _packed(host: str) -> bytes:
    """4 or 16 bytes; an IPv4-mapped address as the IPv4 address that it is.

    :raises OSError: not an address.
    """
    if ":" not in host:
        return socket.inet_pton(socket.AF_INET, host)
    return _unmapped(socket.inet_pton(socket.AF_INET6, host.partition("%")[0]))


def _unmapped(address: bytes) -> bytes:
    return address[12:] if address.startswith(_MAPPED) else address


def _names(own: Endpoint, far: Endpoint) -> tuple[int, bytes]:
    """The family, and the ports and addresses of struct inet_diag_sockid."""
    source, target = _packed(own[0]), _packed(far[0])
    ports = _PORTS.pack(own[1], far[1])
    if len(source) == 4:
        return socket.AF_INET, ports + source + _FILL + target + _FILL
    return socket.AF_INET6, ports + source + target


def _owner(kind: int, body: bytes, names: bytes) -> int | None:
    """The uid in an answer, if it is about the very socket that was asked for."""
    if kind != _SOCK_DIAG_BY_FAMILY or len(body) < _ANSWER.size:
        return None
    family, state, _, _, found, _, _, _, _, uid, inode = _ANSWER.unpack_from(body)
    if family == socket.AF_INET6 and found != names:
        # A dual-stack socket: IPv6, with IPv4 addresses mapped into it.
        source, target = _unmapped(found[4:20]), _unmapped(found[20:36])
        found = found[:4] + source.ljust(16, b"\0") + target.ljust(16, b"\0")
    if found != names:
        return None
    return uid if state in _OWNED_STATES and inode else None


class ProcNet:
    """Reads ``/proc/net/tcp`` and ``tcp6`` (proc(5)), a hundred times slower than netlink."""

    def __init__(self, folder: Path = Path("/proc/net")) -> None:
        self._files = (folder / "tcp", folder / "tcp6")

    def uid_of(self, own: Endpoint, far: Endpoint) -> int | None:
        """See :class:`UidSource`."""
        # The table is not read in one piece: an entry can be missed while others come and go.
        for _ in range(2):
            for file in self._files:
                owner = self._look(file, own, far)
                if owner is not None:
                    return owner
        return None

    def close(self) -> None:
        """See :class:`UidSource`."""

    def _look(self, file: Path, own: Endpoint, far: Endpoint) -> int | None:
        wide = file.name == "tcp6"
        try:
            wanted = f" {_in_proc(own, wide)} {_in_proc(far, wide)} ".encode("ascii")
            text = file.read_bytes()
        except (OSError, ValueError):
            return None
        at = text.find(wanted)
        if at < 0:
            return None
        fields = text[at : text.find(b"\n", at)].split()
        # local, remote, state, queues, timer, retransmits, uid, timeout, inode
        try:
            state, uid, inode = int(fields[2], 16), int(fields[6]), int(fields[8])
        except (IndexError, ValueError):
            return None
        return uid if state in _OWNED_STATES and inode else None


def _in_proc(end: Endpoint, wide: bool) -> str:
    """``0100007F:1F90``: words of the address in this machine's order.

    :raises ValueError: an IPv6 address in the table of IPv4.
    """
    packed = _packed(end[0])
    if wide and len(packed) == 4:
        packed = _MAPPED + packed
    if not wide and len(packed) != 4:
        raise ValueError("not in this table")
    words = struct.unpack(f"={len(packed) // 4}I", packed)
    return "".join(f"{word:08X}" for word in words) + f":{end[1]:04X}"


def unix_owner(sock: socket.socket) -> int | None:
    """The uid at the other end of a unix socket; None where the system does not say (no Linux).

    :raises OSError: it is not connected.
    """
    if not IS_CHECKED:
        return None
    raw = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    return int(_CREDENTIALS.unpack(raw)[1])


class Peers:
    """Tells this user's connections from those of others.

    :param source: of the owners of TCP sockets.
    :param uid: the user whose connections are admitted.
    """

    def __init__(self, source: UidSource, uid: int) -> None:
        self._source = source
        self._uid = uid

    @classmethod
    def of_this_process(cls) -> Peers | None:
        """None where no system call tells whose a connection is (anything but Linux).

        :raises ConfigError: one should, and does not: a sandbox forbids it.
        """
        if not IS_CHECKED:
            return None
        uid = os.geteuid()
        for source in (SockDiag(), ProcNet()):
            knows = not _is_ambiguous(uid) and _knows_itself(source, uid)
            source.close()  # and opened again for the first connection
            if knows:
                return cls(source, uid)
        raise ConfigError([Problem("--allow-other-users", _BLIND)])

    def owner(self, sock: socket.socket, own: object, far: object) -> int | None:
        """The uid at the other end of an accepted connection; None in any doubt.

        :param own: as ``getsockname`` gives it; :param far: as ``getpeername`` does.
        """
        try:
            if sock.family == socket.AF_UNIX:
                return unix_owner(sock)
            if not (isinstance(own, tuple) and isinstance(far, tuple)):
                return None
            uid = self._source.uid_of(far[:2], own[:2])
            # The first byte of struct tcp_info is our end's state.
            state = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0]
        except (OSError, ValueError):
            return None
        return uid if state in _OUR_STATES else None

    def close(self) -> None:
        """What was opened."""
        self._source.close()

    def is_ours(self, uid: int | None) -> bool:
        """Whether the uid is that of the user who runs this; an unknown one is not."""
        return uid is not None and uid == self._uid


def listener_owner(host: str, port: int) -> int | None:
    """Whose the IPv4 socket is that listens there; None where there is none, or no telling.

    Reads a table of all sockets: not for every connection.
    """
    place = _in_proc((host, port), False)
    try:
        table = Path("/proc/self/net/tcp").read_text("ascii").splitlines()
    except OSError:
        return None
    for line in table:
        fields = line.split()
        if len(fields) > 7 and fields[1] == place and int(fields[3], 16) == _LISTEN:
            return int(fields[7])
    return None


_BLIND: Final = (
    "the kernel does not say who connects (netlink and /proc/net/tcp are both closed to this "
    "process), so other users of this machine could act as you. Open one of them, or listen on "
    "--bind unix:PATH with --allow-other-users"
)


def _is_ambiguous(uid: int) -> bool:
    """Whether others than this user are shown under its uid too (user_namespaces(7))."""
    try:
        overflow = int(Path("/proc/sys/kernel/overflowuid").read_text("ascii"))
        ids = Path("/proc/self/uid_map").read_text("ascii").split()
        everybody = ids == ["0", "0", "4294967295"]
    except (OSError, ValueError):
        overflow, everybody = 65534, False
    return uid == overflow and not everybody


def _knows_itself(source: UidSource, uid: int) -> bool:
    """Whether a source tells the owner of a connection that this process makes with itself."""
    for host, family in (("127.0.0.1", socket.AF_INET), ("::1", socket.AF_INET6)):
        try:
            with (
                socket.create_server((host, 0), family=family) as listener,
                socket.create_connection(listener.getsockname()[:2], 1.0) as near,
            ):
                own, far = near.getsockname()[:2], near.getpeername()[:2]
                return source.uid_of(own, far) == uid
        except OSError as error:
            if error.errno not in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT):
                return False
    return False
