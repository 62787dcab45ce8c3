"""What a service says to systemd, and the sockets that it gets from it. No library needed.

sd_notify(3), sd_watchdog_enabled(3), sd_listen_fds(3): datagrams on ``$NOTIFY_SOCKET``, and file
descriptors from 3 on. The variables are taken out of the environment, so that no child of ours
speaks in our name or adopts our descriptors.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
import time
from collections.abc import MutableMapping
from typing import Final

from iam_auth_proxy.errors import ConfigError, Problem
from iam_auth_proxy.proxy.listeners.listen import is_local

log = logging.getLogger(__name__)

FIRST_FD: Final = 3
# Seconds that a full notification socket may hold us up: it is the event loop that waits.
_PATIENCE = 0.2


class Notifier:
    """Tells systemd how the service is. Without ``$NOTIFY_SOCKET`` every method does nothing.

    Each returns whether the datagram was sent; a failure is logged and changes nothing else.

    :ivar watchdog_interval: seconds between two calls of :meth:`alive`, half of what systemd
        allows, as sd_watchdog_enabled(3) advises; None where it does not watch us.
    """

    def __init__(self, address: str = "", watchdog_interval: float | None = None) -> None:
        self._address = address
        self.watchdog_interval = watchdog_interval if address else None

    @classmethod
    def from_environ(cls, environ: MutableMapping[str, str], pid: int | None = None) -> Notifier:
        """Takes ``NOTIFY_SOCKET``, ``WATCHDOG_USEC`` and ``WATCHDOG_PID`` out of ``environ``."""
        address = environ.pop("NOTIFY_SOCKET", "")
        usec = environ.pop("WATCHDOG_USEC", "")
        watched = environ.pop("WATCHDOG_PID", "")
        if address and address[0] not in "/@":
            log.warning("NOTIFY_SOCKET is neither a path nor an abstract name; not used")
            address = ""
        interval = None
        if (
            usec.isascii()
            and usec.isdigit()
            and int(usec)
            and watched in ("", str(pid or os.getpid()))
        ):
            interval = int(usec) / 2e6
        return cls(address, interval)

    def ready(self, status: str = "") -> bool:
        """Start-up, or a reload, is over."""
        return self._send("READY=1", status)

    def stopping(self, status: str = "") -> bool:
        """The service has begun to end."""
        return self._send("STOPPING=1", status)

    def reloading(self, monotonic_usec: int | None = None) -> bool:
        """A reload has begun, at this time of CLOCK_MONOTONIC (now); :meth:`ready` ends it."""
        if monotonic_usec is None:
            monotonic_usec = time.monotonic_ns() // 1000
        return self._send(f"RELOADING=1\nMONOTONIC_USEC={monotonic_usec}")

    def alive(self) -> bool:
        """Still alive: feeds the watchdog once."""
        return self._send("WATCHDOG=1")

    async def watchdog(self) -> None:
        """Feeds the watchdog until cancelled, from the event loop: a stuck loop is not alive."""
        while self.watchdog_interval is not None:
            self.alive()
            await asyncio.sleep(self.watchdog_interval)

    def status(self, text: str) -> bool:
        """One line for ``systemctl status``."""
        return self._send("", text)

    def _send(self, state: str, status: str = "") -> bool:
        if not self._address:
            return False
        # A line feed would start another assignment.
        lines = [state] if state else []
        if status:
            lines.append("STATUS=" + " ".join(status.split()))
        # The kernel's name of an abstract socket begins with NUL (unix(7)).
        address = "\0" + self._address[1:] if self._address[0] == "@" else self._address
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
                channel.settimeout(_PATIENCE)
                channel.sendto("\n".join(lines).encode(), address)
        except OSError as error:
            log.warning("systemd could not be told", extra={"state": state, "error": str(error)})
            return False
        return True


def listen_fds(
    environ: MutableMapping[str, str],
    pid: int | None = None,
    first: int = FIRST_FD,
    *,
    reachable: bool = False,
) -> list[socket.socket]:
    """The sockets of socket activation, in the unit's order; none if they are not meant for us.

    Takes ``LISTEN_PID``, ``LISTEN_FDS``, ``LISTEN_FDNAMES`` and ``LISTEN_PIDFDID`` out of
    ``environ`` and closes the descriptors to children.

    :param reachable: other machines may reach them.
    :raises ConfigError: what came is not listening stream sockets on loopback or on a path. (A
        socket unit can be told to listen anywhere, and whoever reaches the proxy acts as the
        person.) The descriptors are closed then.
    """
    meant = environ.pop("LISTEN_PID", "")
    count = environ.pop("LISTEN_FDS", "")
    for variable in ("LISTEN_FDNAMES", "LISTEN_PIDFDID"):
        environ.pop(variable, None)
    if not count or meant != str(pid or os.getpid()):
        return []
    if not (count.isascii() and count.isdigit() and int(count) <= 1024):
        raise ConfigError([Problem("LISTEN_FDS", f"{count[:20]!r} is not a number of sockets")])
    found: list[socket.socket] = []
    problems: list[Problem] = []
    for fd in range(first, first + int(count)):
        try:
            os.set_inheritable(fd, False)
            found.append(socket.socket(fileno=fd))
        except OSError as error:
            problems.append(Problem("LISTEN_FDS", f"descriptor {fd}: {error.strerror}"))
            with contextlib.suppress(OSError):  # it may not be open at all
                os.close(fd)
            continue
        problems += _unfit(fd, found[-1], reachable)
    if problems:
        for each in found:
            each.close()
        raise ConfigError(problems)
    return found


def _unfit(fd: int, listener: socket.socket, reachable: bool) -> list[Problem]:
    """Why a socket is none that we may serve on; nothing if it is."""
    place = f"LISTEN_FDS descriptor {fd}"
    listens = listener.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
    served = listener.family in (socket.AF_UNIX, socket.AF_INET, socket.AF_INET6)
    if not served or listener.type != socket.SOCK_STREAM or not listens:
        return [Problem(place, "is not a listening TCP or unix socket; use ListenStream=")]
    if listener.family == socket.AF_UNIX or reachable:
        return []
    if not is_local(listener):
        return [
            Problem(
                place,
                f"listens on {listener.getsockname()[0]}: only loopback addresses, since whoever "
                "reaches the proxy acts as you. Write ListenStream=127.0.0.1:8080, or set "
                "--client-auth",
            )
        ]
    return []
