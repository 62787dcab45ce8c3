"""The systemd units as ``service install`` writes them: the packaged ones, with what is ours. Pure.

What was changed by hand is told from what was written here by the first line alone, so changes
belong into drop-ins, which nothing here touches.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from importlib.resources import files
from typing import Final

from iam_auth_proxy.config import Bind

SERVICE: Final = "iam-auth-proxy.service"
SOCKET: Final = "iam-auth-proxy.socket"

MARK: Final = "# Written by: iam-auth-proxy service install. Change it with a drop-in.\n"


def units(command: Sequence[str], bind: Bind) -> dict[str, str]:
    """File name -> text.

    :param command: what the service runs; the first word is a path.
    :param bind: where it listens.
    """
    service, socket = packaged(SERVICE), packaged(SOCKET)
    start = " ".join(_word(word) for word in command)
    service = _replaced(service, "ExecStart", [start])
    socket = _replaced(socket, "ListenStream", _addresses(bind))
    if bind.path:
        socket = socket.replace("[Socket]\n", "[Socket]\nSocketMode=0600\n", 1)
    return {SERVICE: MARK + service, SOCKET: MARK + socket}


def packaged(name: str) -> str:
    """The unit as the package has it: a wheel holds them, a checkout has them at its top."""
    package = files("iam_auth_proxy")
    installed = package / "systemd" / name
    unit = installed if installed.is_file() else package / ".." / "systemd" / name
    return unit.read_text("utf-8")


def is_ours(text: str) -> bool:
    """Whether a unit file was written by ``service install``."""
    return text.startswith(MARK) or text in (packaged(SERVICE), packaged(SOCKET))


def _replaced(unit: str, key: str, values: Sequence[str]) -> str:
    lines = "\n".join(f"{key}={value}" for value in values)
    return re.sub(rf"(?:^{key}=.*\n)+", lambda _: lines + "\n", unit, count=1, flags=re.MULTILINE)


def _addresses(bind: Bind) -> list[str]:
    if bind.path:
        return [bind.path.replace("%", "%%")]
    return [
        f"[{host}]:{bind.port}" if ":" in host else f"{host}:{bind.port}" for host in bind.hosts
    ]


def _word(text: str) -> str:
    """A word of ExecStart= (systemd.service(5), systemd.syntax(7))."""
    text = text.replace("%", "%%")
    if re.fullmatch(r"[\w./%+:@-]+", text, re.ASCII):
        return text
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("$", "$$")
    return f'"{escaped}"'
