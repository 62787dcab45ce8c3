"""Ends of connections that asyncio has no word for."""

from __future__ import annotations

import asyncio
import socket
import struct


def vanish(writer: asyncio.StreamWriter) -> None:
    """As a process that is killed with bytes unread: a reset, which is no half-close."""
    sock = writer.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
