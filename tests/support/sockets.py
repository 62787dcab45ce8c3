"""Sockets: how many are open, and ends of connections that asyncio has no word for."""

from __future__ import annotations

import asyncio
import gc
import os
import socket
import struct


def sockets_open() -> int:
    """How many this process has open, those that nobody holds any more set aside."""
    gc.collect()
    count = 0
    for fd in os.listdir("/proc/self/fd"):
        try:
            count += os.readlink(f"/proc/self/fd/{fd}").startswith("socket:")
        except OSError:
            pass
    return count


def vanish(writer: asyncio.StreamWriter) -> None:
    """As a process that is killed with bytes unread: a reset, which is no half-close."""
    sock = writer.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
