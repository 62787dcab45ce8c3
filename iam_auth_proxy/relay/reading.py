"""The heads of requests taken from what a client sent, within the limits. Pure."""

from __future__ import annotations

from typing import Final

from iam_auth_proxy.relay.body import CountedBody
from iam_auth_proxy.relay.chunked import ChunkScanner
from iam_auth_proxy.relay.limits import Limits
from iam_auth_proxy.relay.message import CHUNKED, BadRequest, Request, parse_request

HEAD_END: Final = b"\r\n\r\n"
_SHORTEST_FIELD: Final = len(b"a:\r\n")
_HTTP2: Final = b"PRI * HTTP/2"  # RFC 9113 section 3.4


def read_request(head: bytes, limits: Limits) -> Request:
    """A whole head, from its first byte to its empty line.

    :raises BadRequest: see :func:`message.parse_request`; too long a target, too many fields.
    """
    if (
        len(head) > _SHORTEST_FIELD * limits.fields
        and head.count(b"\r\n") - 2 > limits.fields  # the request line, and the empty one
    ):
        raise BadRequest(431, "The request has too many fields.")
    request = parse_request(head)
    if len(request.target) > limits.target:
        raise BadRequest(414, "The request target is too long.")
    return request


def check_beginning(data: bytes, limits: Limits) -> None:
    """What is there of a head that is not whole.

    :raises BadRequest: nothing that may come can make it one.
    """
    # The longest method that is known has 11 letters.
    if len(data) > limits.target + 16 and b"\r\n" not in data[: limits.target + 32]:
        raise BadRequest(414, "The request target is too long.")
    if len(data) >= limits.head:
        raise BadRequest(431, "The request's head is too long.")
    if data and not data[:1].isalpha() and data not in (b"\r", b"\r\n"):
        raise BadRequest(400, "This is not HTTP.")


def check_protocol(head: bytes) -> None:
    """What comes in a tunnel that is read: a client may mean it for another protocol.

    :raises BadRequest: HTTP/2; TLS is no head, and refused as that.
    """
    if head.startswith(_HTTP2):
        raise BadRequest(400, "This is HTTP/2, and only HTTP/1.1 is spoken here.")


def body_of(request: Request, limits: Limits) -> ChunkScanner | CountedBody:
    """Where the request's body, which it has, will end."""
    if request.length == CHUNKED:
        return ChunkScanner(limits.chunk_line, limits.trailers)
    return CountedBody(request.length)
