"""Helpers for asyncio transports, used on both sides of the relay."""

from __future__ import annotations

import asyncio
import socket
import struct
from typing import Final

# uvloop reads up to this much at once. A lower mark would stop and start the other side at every
# read of a long body; both sides together are bounded by two of these and one read.
_HIGH_WATER: Final = 256 * 1024
_RESET: Final = struct.pack("ii", 1, 0)  # struct linger: on, no time


def set_marks(transport: asyncio.Transport) -> None:
    """How much may wait to be sent before the other side is no longer read."""
    transport.set_write_buffer_limits(high=_HIGH_WATER)


def peer_name(transport: asyncio.BaseTransport) -> str:
    """``address:port``, an IPv6 address in brackets; ``unix:`` for a unix socket."""
    peer = transport.get_extra_info("peername")
    if not isinstance(peer, tuple):
        return "unix:"
    return f"[{peer[0]}]:{peer[1]}" if ":" in peer[0] else f"{peer[0]}:{peer[1]}"


def send_fin(transport: asyncio.Transport) -> bool:
    """Half-close. False: the other side is gone, unseen as yet; then so is the transport.

    asyncio's own raises there: the very write before it may have been answered with RST.
    """
    try:
        transport.write_eof()
    except OSError:
        transport.abort()
        return False
    return True


def reset(transport: asyncio.Transport) -> None:
    """Close with RST: to a client that reads until the close, FIN would be the end of an answer."""
    sock = transport.get_extra_info("socket")
    if sock is not None and sock.family in (socket.AF_INET, socket.AF_INET6):
        try:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        except OSError:
            pass  # already closed by the other side
    transport.abort()
