"""Heads and framing of HTTP/1.1 messages: what is taken, what is refused, what is passed on. Pure.

llhttp (through httptools) reads the field lines, strictly; it is fed one head at a time and never a
body. What it lets through and must not pass is checked here: the start line, HTTP versions, the
status range, transfer codings, Host, hop-by-hop fields (RFC 9110 section 7.6.1, RFC 9112 sections
3, 6 and 9). Names and values are never changed, Host aside.
"""

from __future__ import annotations

import re
from functools import lru_cache
from http import HTTPStatus
from typing import Final, Protocol

from httptools import (
    HttpParserError,
    HttpParserInvalidMethodError,
    HttpParserUpgrade,
    HttpRequestParser,
    HttpResponseParser,
)

from iam_auth_proxy.errors import Malformed, PathError
from iam_auth_proxy.names import Origin, parse_authority, parse_connect_target
from iam_auth_proxy.relay.exchange import Headers, RequestHead, ResponseHead

# How the end of a body is known: a count from 0 up, or one of these.
CHUNKED: Final = -1
UNTIL_CLOSE: Final = -2

# The cdn-id of RFC 8586 by which the proxy knows requests that it sent itself.
CDN_ID: Final = b"iam-auth-proxy"

# Said about one connection, not about the message; TE and Upgrade are re-made where they go on.
_HOP_BY_HOP: Final = frozenset(
    b"connection proxy-connection keep-alive te upgrade http2-settings proxy-authorization "
    b"proxy-authenticate proxy-authentication-info".split()
)
# End-to-end fields that a rule below looks at.
_END_TO_END: Final = frozenset(
    b"host content-length transfer-encoding expect authorization www-authenticate cdn-loop "
    b"max-forwards".split()
)
_NOTED: Final = _HOP_BY_HOP | _END_TO_END
# Fields that no rule speaks of, as nearly everybody spells them: not looked at twice.
_COMMON: Final = frozenset(
    b"Accept Accept-Encoding Accept-Language Accept-Ranges Age Cache-Control Content-Encoding "
    b"Content-Type Cookie Date ETag Expires Last-Modified Location Origin Pragma Referer Server "
    b"Set-Cookie Upgrade-Insecure-Requests User-Agent Vary content-type date server".split()
)
# ``Connection: content-length`` would take the framing away from whoever reads next.
_NEVER_NOMINATED: Final = frozenset(
    b"host content-length transfer-encoding trailer expect cdn-loop max-forwards "
    b"www-authenticate set-cookie".split()
)

_OWS: Final = b" \t"
_LENGTH_DIGITS: Final = 15
_LONGEST_HOST: Final = 300  # a name of 253, a port, and some white space
_KEEP_ALIVE: Final = [b"keep-alive"]
_USUAL_STATUS_LINES: Final = {
    b"HTTP/1.1 %d %b" % (status, status.phrase.encode()): (status.value, status.phrase.encode())
    for status in HTTPStatus
}
_REQUEST_LINE = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+) ([\x21-\x7e]+) HTTP/1\.([01])\r\n")
_OTHER_VERSION = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+ [\x21-\x7e]+ HTTP/[0-9]\.[0-9]\r\n")
_STATUS_LINE = re.compile(rb"HTTP/1\.([01]) ([1-5][0-9][0-9])(?: ([\t\x20-\x7e\x80-\xff]*))?\r\n")
_TOKEN = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_HOST = re.compile(rb"[A-Za-z0-9._~!$&'()*+,;=%:\[\]-]*")
_CONNECTION_AUTH = re.compile(rb"[ \t]*(?:ntlm|negotiate)(?:[ \t,]|$)", re.IGNORECASE)
_ANY_CONNECTION_AUTH = re.compile(rb"(?:^|,)[ \t]*(?:ntlm|negotiate)(?:[ \t,]|$)", re.IGNORECASE)


class BadRequest(Malformed):
    """A request that the relay does not forward.

    :ivar http_status: 400, 405, 414, 431, 501 or 505.
    """

    def __init__(self, http_status: int, reason: str) -> None:
        super().__init__(reason, public=reason)
        self.http_status = http_status


def bad_answer(detail: str, error: str = "http_protocol_error") -> PathError:
    """An answer that is not HTTP/1.1 as RFC 9112 has it (RFC 9209 section 2.3.20 by default)."""
    return PathError(detail, error=error, public="The app's answer is not valid HTTP.")


class _Head(Protocol):
    """What requests and answers share; the functions below are methods of both."""

    headers: list[tuple[bytes, bytes]]
    noted: dict[bytes, list[bytes]]
    complete: bool


def _on_header(self: _Head, name: bytes, value: bytes) -> None:
    """httptools' callback: keeps end-to-end fields, notes those that rules speak of."""
    if name not in _COMMON:
        lower = name.lower()
        if lower in _NOTED:
            noted = self.noted
            if lower in noted:
                noted[lower].append(value)
            else:
                noted[lower] = [value]
            if lower in _HOP_BY_HOP:
                return
    self.headers.append((name, value))


def _on_headers_complete(self: _Head) -> None:
    self.complete = True


def _connection_options(head: _Head) -> set[bytes]:
    """The options of Connection and Proxy-Connection in lower case; b"" for malformed ones."""
    noted = head.noted
    lines = noted.get(b"connection", []) + noted.get(b"proxy-connection", [])
    parts = [part.strip(_OWS).lower() for line in lines for part in line.split(b",")]
    # Empty list elements are allowed and mean nothing (RFC 9110 section 5.6.1.2).
    return {part if _TOKEN.fullmatch(part) else b"" for part in parts if part}


def _says_more_than_keep_alive(noted: dict[bytes, list[bytes]]) -> bool:
    """Whether Connection needs a closer look; nearly always it does not."""
    return (
        noted.get(b"connection", _KEEP_ALIVE) != _KEEP_ALIVE
        or noted.get(b"proxy-connection", _KEEP_ALIVE) != _KEEP_ALIVE
    )


def _drop(head: _Head, names: set[bytes]) -> None:
    """Take all fields of these lower-case names out."""
    head.headers = [field for field in head.headers if field[0].lower() not in names]


class Request(RequestHead):
    """A parsed request.

    :ivar length: of the body in bytes, or :data:`CHUNKED`.
    :ivar http10: the client speaks HTTP/1.0, and so gets no 1xx, no chunks and no second answer.
    :ivar keep_alive: the client's connection may carry another request after this one.
    :ivar websocket: a WebSocket handshake (RFC 6455 section 4.1), the only Upgrade passed on.
    :ivar trailers: the client takes trailers.
    """

    __slots__ = (
        "complete",
        "http10",
        "keep_alive",
        "length",
        "noted",
        "trailers",
        "websocket",
    )

    def __init__(self, method: bytes, target: bytes, http10: bool) -> None:
        self.method = method
        self.target = target
        self.headers = []
        self.noted: dict[bytes, list[bytes]] = {}
        self.complete = False
        self.http10 = http10
        self.keep_alive = not http10
        self.length = 0
        self.trailers = False
        self.websocket = False

    on_header = _on_header
    on_headers_complete = _on_headers_complete


class Response(ResponseHead):
    """A parsed answer.

    :ivar length: of the body that follows in bytes, or :data:`CHUNKED` or :data:`UNTIL_CLOSE`.
    :ivar reusable: the origin's connection may carry another request after this answer.
    :ivar connection_bound: authentication by NTLM or Negotiate, which is the connection's.
    """

    __slots__ = ("complete", "connection_bound", "length", "noted", "reusable")

    def __init__(self, status: int, reason: bytes) -> None:
        self.status = status
        self.reason = reason
        self.headers = []
        self.noted: dict[bytes, list[bytes]] = {}
        self.complete = False
        self.length = 0
        self.reusable = True
        self.connection_bound = False

    on_header = _on_header
    on_headers_complete = _on_headers_complete


# -- requests --------------------------------------------------------------------------------------


def parse_request(head: bytes) -> Request:
    """A request's head, from its first byte to its empty line.

    Hop-by-hop fields are out of ``headers``; Host and the target are as sent until :func:`route`.

    :raises BadRequest: outside the grammar, ambiguous, or asking for what is not done here.
    """
    match = _REQUEST_LINE.match(head)
    if match is None:
        if _OTHER_VERSION.match(head):
            raise BadRequest(505, "Only HTTP/1.1 and HTTP/1.0 are spoken here.")
        raise BadRequest(400, "The request line is malformed.")
    method, target, minor = match.groups()
    request = Request(method, target, minor == b"0")
    try:
        HttpRequestParser(request).feed_data(head)
    except HttpParserUpgrade:
        pass  # CONNECT or Upgrade: the head alone was fed, and is complete
    except HttpParserInvalidMethodError as error:
        raise BadRequest(501, "This method is not known here.") from error
    except HttpParserError as error:
        raise _refusal_of(request, error) from error
    if not request.complete:
        raise BadRequest(400, "The request's head is malformed.")
    hosts = request.noted.get(b"host")
    if hosts is None:
        if not request.http10:
            raise BadRequest(400, "The request has no Host.")
    elif len(hosts) != 1 or len(hosts[0]) > _LONGEST_HOST or not _is_host(hosts[0]):
        raise BadRequest(400, "The request has no single, valid Host.")
    if len(request.noted) > 1 or hosts is None:
        _settle_request(request)
    return request


@lru_cache(maxsize=256)
def _is_host(value: bytes) -> bool:
    return _HOST.fullmatch(value.strip(_OWS)) is not None


def _refusal_of(request: Request, error: HttpParserError) -> BadRequest:
    """A coding that llhttp refuses is one that is not implemented; anything else is malformed."""
    codings = request.noted.get(b"transfer-encoding")
    if codings and request.complete and b"content-length" not in request.noted:
        return BadRequest(501, "Only the transfer coding chunked is known here.")
    return BadRequest(400, f"The request's head is malformed: {error}.")


def _settle_request(request: Request) -> None:
    noted = request.noted
    request.length = _request_length(request)
    if _says_more_than_keep_alive(noted):
        options = _connection_options(request)
        if b"" in options or options & _NEVER_NOMINATED:
            raise BadRequest(400, "Connection names what it may not.")
        if b"close" in options:
            request.keep_alive = False
        if b"upgrade" in options and b"upgrade" in noted:
            _settle_upgrade(request)
        nominated = options - _HOP_BY_HOP - {b"close"}
        if nominated:
            _drop(request, nominated)
    if b"te" in noted:
        codings = b",".join(noted[b"te"]).lower().split(b",")
        request.trailers = any(coding.strip(_OWS) == b"trailers" for coding in codings)
    if request.http10 and b"expect" in noted:
        _drop(request, {b"expect"})  # RFC 9110 section 10.1.1
    if b"max-forwards" in noted and request.method in (b"OPTIONS", b"TRACE"):
        _count_forward(request)


def _request_length(request: Request) -> int:
    """RFC 9112 section 6.3. Every doubt is a refusal: two readers could differ in it."""
    codings = request.noted.get(b"transfer-encoding")
    lengths = request.noted.get(b"content-length")
    if codings is not None:
        if lengths is not None:
            raise BadRequest(400, "The request has a Content-Length and a Transfer-Encoding.")
        if request.http10:
            raise BadRequest(400, "HTTP/1.0 knows no Transfer-Encoding.")
        if len(codings) != 1 or codings[0].strip(_OWS).lower() != b"chunked":
            raise BadRequest(501, "Only the transfer coding chunked is known here.")
        return CHUNKED
    if lengths is None:
        return 0
    length = _parse_length(lengths)
    if length is None:
        raise BadRequest(400, "The request has no single, valid Content-Length.")
    return length


def _parse_length(values: list[bytes]) -> int | None:
    value = values[0].strip(_OWS)
    if len(values) != 1 or not value.isdigit() or len(value) > _LENGTH_DIGITS:
        return None
    return int(value)


def _settle_upgrade(request: Request) -> None:
    if request.length:
        raise BadRequest(400, "An Upgrade with a body is not passed on.")
    protocols = request.noted[b"upgrade"]
    request.websocket = (
        request.method == b"GET"
        and not request.http10
        and len(protocols) == 1
        and protocols[0].strip(_OWS).lower() == b"websocket"
    )


def _count_forward(request: Request) -> None:
    """Max-Forwards (RFC 9110 section 7.6.2); zero is for the caller to answer."""
    values = request.noted[b"max-forwards"]
    left = _parse_length(values)
    if left is None:
        raise BadRequest(400, "Max-Forwards is not a number.")
    request.headers = [
        (name, b"%d" % (left - 1)) if left and name.lower() == b"max-forwards" else (name, value)
        for name, value in request.headers
    ]


def ends_here(request: Request) -> bool:
    """Whether Max-Forwards asks this proxy, and not the origin, to answer."""
    values = request.noted.get(b"max-forwards")
    return (
        values is not None
        and request.method in (b"OPTIONS", b"TRACE")
        and _parse_length(values) == 0
    )


def is_own(request: Request) -> bool:
    """Origin-form: a page of the proxy's own, whatever Host says."""
    return request.target.startswith(b"/") and request.method != b"CONNECT"


def route(request: Request) -> Origin:
    """The origin an absolute-form request is for; its target becomes origin-form, Host is set.

    RFC 9112 sections 3.2.2 (what Host says is not looked at) and 3.2.4 (``OPTIONS *``).

    :raises BadRequest: not absolute-form, not http, userinfo, a fragment, no valid host.
    """
    target = request.target
    if b"#" in target:
        raise BadRequest(400, "A request target has no fragment.")
    if not target.startswith(b"http://"):
        _check_scheme(target)
    authority, slash, path = target[7:].partition(b"/")
    if b"?" in authority:  # a query and no path
        authority, path = target[7:].split(b"?", 1)
        path = b"?" + path
    try:
        origin, host = _origin_and_host(authority)
    except Malformed as error:
        raise BadRequest(400, f"The URL's host is malformed: {error}.") from error
    if path or slash or request.method != b"OPTIONS":
        request.target = b"/" + path
    else:
        request.target = b"*"
    hosts = request.noted.get(b"host")
    if hosts is None:
        request.headers.insert(0, (b"Host", host))
    elif hosts[0] != host:
        request.headers = [
            (name, host if name.lower() == b"host" else value) for name, value in request.headers
        ]
    return origin


def _check_scheme(target: bytes) -> None:
    if target[:8].lower() == b"https://":
        raise BadRequest(400, "Absolute-form takes http only; use CONNECT for https.")
    if target[:7].lower() != b"http://":
        raise BadRequest(400, "The request target is not an http URL.")


@lru_cache(maxsize=1024)
def _origin_and_host(authority: bytes) -> tuple[Origin, bytes]:
    origin = parse_authority(authority.decode("latin-1"))
    return origin, origin.authority.encode("ascii")


def route_connect(request: Request) -> Origin:
    """The target of a CONNECT.

    :raises BadRequest: not ``host:port``, or with a body, which CONNECT does not have.
    """
    if request.length:
        raise BadRequest(400, "CONNECT has no body.")
    try:
        return parse_connect_target(request.target.decode("latin-1"))
    except Malformed as error:
        raise BadRequest(400, f"The target of CONNECT is malformed: {error}.") from error


def went_through_us(request: Request) -> bool:
    """Whether ``CDN-Loop`` (RFC 8586 section 2) names this proxy: the request went in a circle."""
    values = request.noted.get(b"cdn-loop")
    return values is not None and any(
        part.split(b";")[0].strip(_OWS).lower() == CDN_ID
        for value in values
        for part in value.split(b",")
    )


def binds_connection(request: Request) -> bool:
    """Whether the request authenticates its connection, not itself (NTLM, Negotiate)."""
    values = request.noted.get(b"authorization")
    return values is not None and any(_CONNECTION_AUTH.match(value) for value in values)


def write_request(request: RequestHead) -> bytes:
    """The head as it goes to the origin, without its last, empty line."""
    return b"%b %b HTTP/1.1\r\n" % (request.method, request.target) + write_fields(request.headers)


def write_fields(headers: Headers) -> bytes:
    """Field lines."""
    return b"\r\n".join([*map(b": ".join, headers), b""])


# -- answers ---------------------------------------------------------------------------------------


def parse_response(head: bytes, method: bytes) -> Response:
    """An answer's head to a request of this method, from its first byte to its empty line.

    :raises PathError: not an answer that could be passed on without a doubt.
    """
    usual = _USUAL_STATUS_LINES.get(head[: head.find(b"\r\n")])
    if usual is not None:
        http10 = False
        response = Response(*usual)
    else:
        match = _STATUS_LINE.match(head)
        if match is None:
            raise bad_answer("the answer's status line is malformed")
        minor, status, reason = match.groups()
        http10 = minor == b"0"
        response = Response(int(status), reason or b"")
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
    if b"connection" in noted and noted[b"connection"] != _KEEP_ALIVE:
        options = _connection_options(response)
        if b"close" in options:
            response.reusable = False
        nominated = options - _HOP_BY_HOP - _NEVER_NOMINATED - {b"close", b""}
        if nominated:
            _drop(response, nominated)
    if b"www-authenticate" in noted:
        response.connection_bound = any(
            _ANY_CONNECTION_AUTH.search(value) for value in noted[b"www-authenticate"]
        )
    length = response.length = _response_length(response, method, http10)
    if length == UNTIL_CLOSE:
        response.reusable = False


def _response_length(response: Response, method: bytes, http10: bool) -> int:
    """RFC 9112 section 6.3."""
    noted = response.noted
    codings = noted.get(b"transfer-encoding")
    lengths = noted.get(b"content-length")
    length = UNTIL_CLOSE
    if codings is not None:
        if http10 or lengths is not None:
            raise bad_answer("the answer's framing is ambiguous")
        if len(codings) != 1 or codings[0].strip(_OWS).lower() != b"chunked":
            raise bad_answer("unknown transfer coding", "http_response_transfer_coding")
        length = CHUNKED
    elif lengths is not None:
        parsed = _parse_length(lengths)
        if parsed is None:
            raise bad_answer("the answer has no single, valid Content-Length")
        length = parsed
    if response.status < 200 or response.status == 204:
        if codings is not None or lengths is not None:
            # They may not be there (RFC 9110 section 8.6), and a reader may believe them.
            _drop(response, {b"content-length", b"transfer-encoding"})
        return 0
    return 0 if response.status == 304 or method == b"HEAD" else length


def is_websocket(response: Response) -> bool:
    """Whether a 101 switches to what was asked for."""
    protocols = response.noted.get(b"upgrade", [])
    return (
        len(protocols) == 1
        and protocols[0].strip(_OWS).lower() == b"websocket"
        and b"upgrade" in _connection_options(response)
    )
