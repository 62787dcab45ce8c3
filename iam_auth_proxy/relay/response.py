"""Answers: what is taken of an origin, what is refused, and where the body ends. Pure.

What llhttp lets through and must not pass is checked here: the status line, the status range,
transfer codings, and framing that two readers could take for two things (RFC 9112 sections 4 and
6).
"""

from __future__ import annotations

import re
from http import HTTPStatus
from typing import Final

from httptools import HttpParserError, HttpParserUpgrade, HttpResponseParser

from iam_auth_proxy.errors import PathError
from iam_auth_proxy.relay.exchange import ResponseHead
from iam_auth_proxy.relay.fields import (
    HOP_BY_HOP,
    OF_ANSWERS,
    OWS,
    VALUE,
    in_any_order,
    lines_but,
    lines_without,
    note_end,
    note_field,
)
from iam_auth_proxy.relay.message import (
    CHUNKED,
    KEEP_ALIVE,
    NEVER_NOMINATED,
    UNTIL_CLOSE,
    connection_options,
    drop_fields,
    parse_length,
)

_STATUS_LINE = re.compile(rb"HTTP/1\.([01]) ([1-5][0-9][0-9])(?: ([\t\x20-\x7e\x80-\xff]*))?\r\n")
_ANY_CONNECTION_AUTH = re.compile(rb"(?:^|,)[ \t]*(?:ntlm|negotiate)(?:[ \t,]|$)", re.IGNORECASE)
# As most origins write them, of answers that have a body: passed on as they are.
_USUAL_STATUS_LINES: Final = {
    b"HTTP/1.1 %d %b" % (status, status.phrase.encode()): status.value
    for status in HTTPStatus
    if status >= 200 and status not in (204, 304)
}
# What follows then, nearly always.
_OTHERS: Final = lines_without(OF_ANSWERS, b"Content-Type Cache-Control Content-Encoding")
_USUAL = re.compile(
    rb"%b%b\r\n"
    % (
        _OTHERS,
        in_any_order(
            rb"(?:(?i:content-length): *+([0-9]{1,15})|"
            rb"(?i:transfer-encoding): *+((?i:chunked)))\r\n",
            rb"((?:(?i:keep-alive):%b\r\n)?+(?i:connection: *+keep-alive)\r\n"
            rb"(?:(?i:keep-alive):%b\r\n)?+)" % (VALUE, VALUE),
            _OTHERS,
        ),
    )
)


def bad_answer(detail: str, error: str = "http_protocol_error") -> PathError:
    """An answer that is not HTTP/1.1 as RFC 9112 has it (RFC 9209 section 2.3.20 by default)."""
    return PathError(
        detail,
        error=error,
        public="The app's answer is not valid HTTP.",
        remedy="Tell the app's owner; the proxy's log says what is wrong with it.",
        for_anybody=True,
    )


class Response(ResponseHead):
    """A parsed answer.

    :ivar length: of the body that follows in bytes, or :data:`CHUNKED` or :data:`UNTIL_CLOSE`.
    :ivar reusable: the origin's connection may carry another request after this answer.
    :ivar connection_bound: authentication by NTLM or Negotiate, which is the connection's.
    :ivar line: the status line as it goes to the client, without its end.
    """

    __slots__ = ("complete", "connection_bound", "length", "line", "noted", "reusable")

    def __init__(self, status: int, line: bytes) -> None:
        self.status = status
        self.line = line
        self._headers = []
        self._lines = None
        self.noted: dict[bytes, list[bytes]] = {}
        self.complete = False
        self.length = 0
        self.reusable = True
        self.connection_bound = False

    on_header = note_field
    on_headers_complete = note_end


def parse_response(head: bytes, method: bytes) -> Response:
    """An answer's head to a request of this method, from its first byte to its empty line.

    :raises PathError: not an answer that could be passed on without a doubt.
    """
    return _usual_response(head, method) or read_fully(head, method)


def _usual_response(head: bytes, method: bytes) -> Response | None:
    """None: it is not a usual one; whether it is one at all is not said."""
    end = head.find(b"\r\n")
    line = head[:end]
    status = _USUAL_STATUS_LINES.get(line)
    start = end + 2
    match = _USUAL.fullmatch(head, start) if status is not None else None
    if status is None or match is None:
        return None
    response = Response(status, line)
    response.lines = lines_but(head, start, match, (3, 4))
    length, chunked, _, _, late_length, late_chunked = match.groups()
    length, chunked = length or late_length, chunked or late_chunked
    if chunked is not None:
        response.noted[b"transfer-encoding"] = [chunked]
    if method == b"HEAD":
        pass  # there is no body, whatever its length is said to be
    elif length is not None:
        response.length = int(length)
    elif chunked is not None:
        response.length = CHUNKED
    else:
        response.length = UNTIL_CLOSE
        response.reusable = False
    return response


def read_fully(head: bytes, method: bytes) -> Response:
    """See :func:`parse_response`; field by field."""
    match = _STATUS_LINE.match(head)
    if match is None:
        raise bad_answer("the answer's status line is malformed")
    minor, status, reason = match.groups(b"")
    http10 = minor == b"0"
    response = Response(int(status), b"HTTP/1.1 %b %b" % (status, reason))
    try:
        HttpResponseParser(response).feed_data(head)
    except HttpParserUpgrade:
        pass
    except HttpParserError as error:
        # A 101 without Upgrade raises here, and is refused by whoever did not ask for one.
        if not (response.complete and response.status == 101):
            raise bad_answer(f"the answer's head is malformed: {error}") from error
    if not response.complete:
        raise bad_answer("the answer's head is malformed")
    _settle_response(response, method, http10)
    return response


def _settle_response(response: Response, method: bytes, http10: bool) -> None:
    noted = response.noted
    response.reusable = not http10
    if b"connection" in noted and noted[b"connection"] != KEEP_ALIVE:
        options = connection_options(response)
        if b"close" in options:
            response.reusable = False
        nominated = options - HOP_BY_HOP - NEVER_NOMINATED - {b"close", b""}
        if nominated:
            drop_fields(response, nominated)
    if b"www-authenticate" in noted:
        response.connection_bound = any(
            _ANY_CONNECTION_AUTH.search(value) for value in noted[b"www-authenticate"]
        )
    response.length = _response_length(response, method, http10)


def _response_length(response: Response, method: bytes, http10: bool) -> int:
    """RFC 9112 section 6.3."""
    noted, status = response.noted, response.status
    codings = noted.get(b"transfer-encoding")
    lengths = noted.get(b"content-length")
    length = UNTIL_CLOSE
    if codings is not None:
        if http10 or lengths is not None:
            raise bad_answer("the answer's framing is ambiguous")
        if len(codings) != 1 or codings[0].strip(OWS).lower() != b"chunked":
            raise bad_answer("unknown transfer coding", "http_response_transfer_coding")
        length = CHUNKED
    elif lengths is not None:
        stated = parse_length(lengths)
        if stated is None:
            raise bad_answer("the answer has no single, valid Content-Length")
        length = stated
    if status < 200 or status == 204:
        if codings is not None or lengths is not None:
            # Not allowed in these answers (RFC 9110 section 8.6), but a client might go by them.
            drop_fields(response, {b"content-length", b"transfer-encoding"})
        return 0
    if status == 304 or method == b"HEAD":
        return 0
    if length == UNTIL_CLOSE:
        response.reusable = False
    return length


def is_websocket(response: Response) -> bool:
    """Whether a 101 switches to what was asked for."""
    protocols = response.noted.get(b"upgrade", [])
    return (
        len(protocols) == 1
        and protocols[0].strip(OWS).lower() == b"websocket"
        and b"upgrade" in connection_options(response)
    )
