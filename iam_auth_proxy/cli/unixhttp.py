"""HTTP over a unix socket, to a process of this user's. Loaded only where a proxy is asked."""

from __future__ import annotations

import os
import socket
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Final

from iam_auth_proxy.proxy.listeners.peers import unix_owner

__all__ = ["Connection", "HTTPException"]

PATIENCE: Final = 45.0
"""Seconds: longer than a proxy waits for AWS."""


class Connection(HTTPConnection):
    """A connection to the socket at ``path``; refused where another user listens there."""

    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=PATIENCE)
        self._path = path

    def connect(self) -> None:
        """See the base class."""
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(PATIENCE)
        self.sock.connect(str(self._path))
        if unix_owner(self.sock) not in (None, os.geteuid()):
            self.sock.close()
            raise ConnectionRefusedError
