"""How OpenSSH is started for a tunnel: its words, its leash, and whether it could ask anybody."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from typing import Final

_OPTIONS: Final = (
    "ExitOnForwardFailure=yes",
    "ServerAliveInterval=15",
    "ServerAliveCountMax=3",
    "ConnectTimeout=30",
    # A connection that is shared would take the port with it, and outlive this process.
    "ControlMaster=no",
    "ControlPath=none",
    "PermitLocalCommand=no",
)

# Runs between us and ssh, and becomes it. Where we are killed, nobody is left to end it: so the
# kernel is asked to (prctl(2), PR_SET_PDEATHSIG = 1). Ctrl-C reaches it too, being of our group for
# the terminal's sake, and is ours to act on, so that what is under way can end.
_LEASH: Final = """
import os, signal, sys
signal.signal(signal.SIGINT, signal.SIG_IGN)
if sys.platform == "linux":
    try:
        import ctypes
        ctypes.CDLL(None).prctl(1, int(signal.SIGTERM), 0, 0, 0)
    except (ImportError, MemoryError, OSError):
        pass  # a sandbox, such as systemd's, which ends ssh itself
if os.getppid() != int(sys.argv[1]):
    sys.exit(1)
try:
    os.execvp(sys.argv[2], sys.argv[2:])
except OSError as error:
    sys.exit(f"{sys.argv[2]}: {error.strerror}")
"""


def argv(command: Sequence[str], host: str, place: tuple[str, int], *, batch: bool) -> list[str]:
    """What is executed.

    :param command: ``ssh`` and its first options.
    :param host: as ``ssh`` takes it.
    :param place: address and port where it is to speak SOCKS.
    :param batch: it asks nothing, and ends where it would have to.
    """
    address, port = place
    leash = [sys.executable, "-I", "-S", "-c", _LEASH, str(os.getpid())]
    words = [*leash, *command, "-N", "-T", "-D", f"{address}:{port}"]
    for option in (*_OPTIONS, *(["BatchMode=yes"] if batch else [])):
        words += ["-o", option]
    return [*words, "--", host]


def can_ask() -> bool:
    """Whether ssh could ask somebody: we are in the foreground of a terminal."""
    try:
        terminal = os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY)
    except OSError:
        return False
    try:
        return os.tcgetpgrp(terminal) == os.getpgrp()
    except OSError:
        return False
    finally:
        os.close(terminal)


def has_askpass(environ: Mapping[str, str]) -> bool:
    """Whether ssh has a window to ask in (ssh(1), SSH_ASKPASS)."""
    shown = environ.get("DISPLAY") or environ.get("WAYLAND_DISPLAY")
    return bool(environ.get("SSH_ASKPASS") and (shown or environ.get("SSH_ASKPASS_REQUIRE")))
