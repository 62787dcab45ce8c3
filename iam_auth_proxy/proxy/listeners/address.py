"""A listener's address as commands and people write it: ``http://HOST:PORT`` or ``unix:PATH``."""

from __future__ import annotations

import shlex
from typing import Final

UNIX: Final = "unix:"


def curl(address: str, url: str) -> str:
    """The command that opens a URL through the proxy.

    Through a unix socket curl would ask the proxy for a page of its own, unless it is told to send
    the whole URL.
    """
    words = ["curl", "-x", address, url]
    if address.startswith(UNIX):
        words = ["curl", "--unix-socket", address.removeprefix(UNIX), "--request-target", url, url]
    return shlex.join(words)
