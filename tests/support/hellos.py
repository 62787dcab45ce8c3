"""ClientHellos, as bytes: those of this Python, and ones that are put together field by field."""

from __future__ import annotations

import ssl


def hello_of(context: ssl.SSLContext, host: str | None) -> bytes:
    """What a client with this context would send first."""
    sent = ssl.MemoryBIO()
    client = context.wrap_bio(ssl.MemoryBIO(), sent, server_hostname=host)
    try:
        client.do_handshake()
    except ssl.SSLWantReadError:
        pass  # there is no server
    return sent.read()


def block(size: int, data: bytes) -> bytes:
    return len(data).to_bytes(size, "big") + data


def server_name(host: bytes) -> tuple[int, bytes]:
    return 0, block(2, b"\x00" + block(2, host))


def protocols(*names: bytes) -> tuple[int, bytes]:
    return 16, block(2, b"".join(block(1, name) for name in names))


def versions(*numbers: int) -> tuple[int, bytes]:
    return 43, block(1, b"".join(number.to_bytes(2, "big") for number in numbers))


def client_hello(
    *extensions: tuple[int, bytes],
    version: int = 0x0303,
    ciphers: tuple[int, ...] = (0x1301, 0x1302, 0xC02B),
    random: bytes = bytes(32),
    session: bytes = b"",
) -> bytes:
    """The handshake message, without its record."""
    body = version.to_bytes(2, "big") + random + block(1, session)
    body += block(2, b"".join(number.to_bytes(2, "big") for number in ciphers)) + block(1, b"\0")
    if extensions:
        body += block(
            2, b"".join(kind.to_bytes(2, "big") + block(2, data) for kind, data in extensions)
        )
    return b"\x01" + block(3, body)


def records(message: bytes, size: int = 2**14) -> bytes:
    """The message in records of at most so many bytes."""
    pieces = [message[at : at + size] for at in range(0, len(message), size)]
    return b"".join(b"\x16\x03\x01" + block(2, piece) for piece in pieces)
