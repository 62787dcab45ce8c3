"""CONNECT to an upstream HTTP proxy, from the client's side (RFC 9110 section 9.3.6).

Written here because what a proxy answers is read to the byte: bytes of an eager server that come
with the answer belong to the tunnel, and an answer may come in pieces.
"""

from __future__ import annotations

import asyncio
import base64
import re
import socket
from typing import Final

from iam_auth_proxy.relay.via import Via

_MAX_ANSWER_HEAD: Final = 16 * 1024
_MAX_INTERIM: Final = 8
_STATUS_LINE = re.compile(rb"HTTP/1\.[0-9] ([1-9][0-9]{2})(?: [^\r\n]*)?\r?\n", re.ASCII)
_HEAD_END = re.compile(rb"\r?\n\r?\n")


def parse_connect_answer(head: bytes) -> int:
    """The status of a whole answer head to CONNECT; its fields are of no interest to us.

    :raises ValueError: not an HTTP/1 answer.
    """
    match = _STATUS_LINE.match(head)
    if match is None:
        raise ValueError("the answer to CONNECT is not HTTP/1")
    return int(match[1])


async def http_connect(sock: socket.socket, authority: str, via: Via) -> int:
    """CONNECT over ``sock``; what follows the answer's head stays in the socket, unread.

    :returns: the status.
    :raises ValueError: the answer is not HTTP, or over its bounds. EOFError: it ended early.
    """
    lines = [f"CONNECT {authority} HTTP/1.1", f"Host: {authority}"]
    if via.user:
        pair = base64.b64encode(f"{via.user}:{via.password}".encode()).decode()
        lines.append(f"Proxy-Authorization: Basic {pair}")
    request = "\r\n".join([*lines, "", ""]).encode("ascii")
    await asyncio.get_running_loop().sock_sendall(sock, request)
    for _ in range(_MAX_INTERIM):
        status = parse_connect_answer(await _read_head(sock))
        if status >= 200:
            return status
    raise ValueError("too many interim answers to CONNECT")


async def _read_head(sock: socket.socket) -> bytes:
    """One head, to the byte: an eager server's first words may be right behind it.

    The loop waits for a first byte; what else has come is looked at before it is taken.
    """
    loop = asyncio.get_running_loop()
    head = bytearray()
    while len(head) <= _MAX_ANSWER_HEAD:
        first = await loop.sock_recv(sock, 1)
        if not first:
            raise EOFError("closed before the end of the answer to CONNECT")
        head += first
        if _HEAD_END.search(head, max(0, len(head) - 4)):
            return bytes(head)
        try:
            waiting = sock.recv(_MAX_ANSWER_HEAD, socket.MSG_PEEK)
        except BlockingIOError:
            continue
        end = _HEAD_END.search(head + waiting, max(0, len(head) - 3))
        take = end.end() - len(head) if end else len(waiting)
        head += sock.recv(take)
        if end:
            return bytes(head)
    raise ValueError("the answer to CONNECT is too long")
