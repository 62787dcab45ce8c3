"""The receiver of the downloads, the same for everybody: a blocking socket and one buffer.

It takes 256 MiB as fast as a buffered protocol on uvloop does, and faster than curl.
"""

from __future__ import annotations

import re
import socket
import time
from typing import Final

from tests.bench.machine import BenchError

_BUFFER: Final = 1024 * 1024
_TIMEOUT: Final = 60.0
_LAST_CHUNK: Final = b"0\r\n\r\n"


def download(port: int, target: str, host: str, *, size: int, tunnel: bool = False) -> float:
    """Seconds from the request to the last byte of the answer's body.

    :param size: of the body without its framing, which is checked.
    :param tunnel: CONNECT to ``host`` first, which is not counted.
    :raises BenchError: another answer than that.
    """
    try:
        with socket.create_connection(("127.0.0.1", port), _TIMEOUT) as sock:
            if tunnel:
                sock.sendall(f"CONNECT {host} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode("ascii"))
                head, rest = _head(sock)
                if rest:
                    raise BenchError(f"bytes behind the answer to CONNECT: {head!r}")
            request = f"GET {target} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode("ascii")
            begun = time.perf_counter()
            sock.sendall(request)
            head, rest = _head(sock)
            length = re.search(rb"\r\ncontent-length: *([0-9]+)\r\n", head, re.IGNORECASE)
            if length is None:
                _read_chunked(sock, rest, size)
            elif int(length[1]) == size:
                _read_counted(sock, size - len(rest))
            else:
                raise BenchError(f"not the blob: {head!r}")
            return time.perf_counter() - begun
    except OSError as error:
        raise BenchError(f"the download ended early: {error}") from error


def _head(sock: socket.socket) -> tuple[bytes, bytes]:
    """A head of status 200, and what came behind it."""
    data = b""
    while b"\r\n\r\n" not in data:
        more = sock.recv(65536)
        if not more:
            raise BenchError(f"closed in the head: {data!r}")
        data += more
    head, _, rest = data.partition(b"\r\n\r\n")
    if head.split(b" ", 2)[1] != b"200":
        raise BenchError(f"not a success: {head!r}")
    return head + b"\r\n", rest


def _read_counted(sock: socket.socket, left: int) -> None:
    buffer = memoryview(bytearray(_BUFFER))
    while left:
        count = sock.recv_into(buffer[: min(left, _BUFFER)])
        if not count:
            raise BenchError(f"closed with {left} bytes missing")
        left -= count


def _read_chunked(sock: socket.socket, rest: bytes, size: int) -> None:
    """Up to the last chunk. The chunks are not taken apart: their content has no line breaks."""
    buffer = bytearray(_BUFFER)
    total, tail = len(rest), rest[-len(_LAST_CHUNK) :]
    while tail != _LAST_CHUNK:
        count = sock.recv_into(buffer)
        if not count:
            raise BenchError(f"closed after {total} bytes without the last chunk")
        total += count
        tail = (tail + buffer[max(0, count - len(_LAST_CHUNK)) : count])[-len(_LAST_CHUNK) :]
    if not size < total < size * 1.1:
        raise BenchError(f"{total} bytes are not the blob and its framing")
