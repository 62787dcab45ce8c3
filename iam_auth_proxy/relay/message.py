"""Requests: what is taken, what is refused, what is passed on; and what answers share. Pure.

Where llhttp (through httptools) reads the field lines, strictly, it is fed one head at a time and
never a body. What it lets through and must not pass is checked here: the start line, HTTP versions,
the transfer codings, Host, hop-by-hop fields (RFC 9110 section 7.6.1, RFC 9112 sections 3, 6 and
9). Names and values are never changed, Host aside.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Final

from httptools import (
    HttpParserError,
    HttpParserInvalidMethodError,
    HttpParserUpgrade,
    HttpRequestParser,
)

from iam_auth_proxy.errors import Malformed
from iam_auth_proxy.names import Origin, parse_authority, parse_connect_target
from iam_auth_proxy.relay.exchange import RequestHead
from iam_auth_proxy.relay.fields import (
    COLON,
    HOP_BY_HOP,
    NAME,
    OF_REQUESTS,
    OWS,
    VALUE,
    Head,
    in_any_order,
    lines_but,
    lines_without,
    note_end,
    note_field,
)

# How the end of a body is known: a count from 0 up, or one of these.
CHUNKED: Final = -1
UNTIL_CLOSE: Final = -2

# The cdn-id of RFC 8586 by which the proxy knows requests that it sent itself.
CDN_ID: Final = b"iam-auth-proxy"

# ``Connection: content-length`` would take the framing away from whoever reads next, and
# ``Connection: origin`` the signs of a browser from what decides for whom the proxy speaks.
NEVER_NOMINATED: Final = frozenset(
    b"host content-length transfer-encoding trailer expect cdn-loop max-forwards "
    b"www-authenticate set-cookie origin referer user-agent upgrade-insecure-requests purpose "
    b"access-control-request-method".split()
)
_SIGNS_OF_BROWSERS: Final = b"sec-"

_LENGTH_DIGITS: Final = 15
# Numbers: looking for bytes in bytes with ``in`` tries for a number first, and that costs more.
_HASH, _SLASH = b"#/"
_LONGEST_HOST: Final = 300  # a name of 253, a port, and some white space
KEEP_ALIVE: Final = [b"keep-alive"]
# The target whole; of an absolute one besides its authority, and what comes behind that. Nothing is
# given back (``++``): a long target that is no good must not be tried in all ways to divide it.
_REQUEST_LINE = re.compile(
    rb"([!#$%&'*+.^_`|~0-9A-Za-z-]++) "
    rb"((?:[Hh][Tt][Tt][Pp]://([\x21\x22\x24-\x2e\x30-\x3e\x40-\x7e]*+))?([\x21-\x7e]*+)) "
    rb"HTTP/1\.([01])\r\n"
)
# What nearly every request is: as it is written here, and with one Host.
_OTHERS: Final = lines_without(
    OF_REQUESTS,
    b"Accept User-Agent Accept-Encoding Accept-Language Cookie Upgrade-Insecure-Requests "
    b"Content-Type Cache-Control",
)
_USUAL = re.compile(
    rb"(GET|HEAD|POST|PUT|PATCH|DELETE) "
    rb"((?:http://([0-9A-Za-z.:\[\]_-]++))?(/[\x21\x22\x24-\x7e]*+)) HTTP/1\.1\r\n"
    rb"%b(?i:host)%b(%b)\r\n%b%b\r\n"
    % (
        _OTHERS,
        COLON,
        VALUE,
        _OTHERS,
        in_any_order(
            rb"(?i:content-length): *+([0-9]{1,15})\r\n",
            rb"((?i:(?:proxy-)?connection: *+keep-alive)\r\n)",
            _OTHERS,
        ),
    )
)
_OTHER_VERSION = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+ [\x21-\x7e]+ HTTP/[0-9]\.[0-9]\r\n")
_TOKEN = re.compile(NAME)  # the same grammar: RFC 9110 section 5.6.2
_HOST = re.compile(rb"[A-Za-z0-9._~!$&'()*+,;=%:\[\]-]*")
_CONNECTION_AUTH = re.compile(rb"[ \t]*(?:ntlm|negotiate)(?:[ \t,]|$)", re.IGNORECASE)


class BadRequest(Malformed):
    """A request that the relay does not forward.

    :ivar http_status: 400, 405, 414, 421, 431, 501 or 505.
    """

    def __init__(self, http_status: int, reason: str) -> None:
        super().__init__(reason, public=reason)
        self.http_status = http_status


def connection_options(head: Head) -> set[bytes]:
    """The options of Connection and Proxy-Connection in lower case; b"" for malformed ones."""
    noted = head.noted
    lines = noted.get(b"connection", []) + noted.get(b"proxy-connection", [])
    parts = [part.strip(OWS).lower() for line in lines for part in line.split(b",")]
    # Empty list elements are allowed and mean nothing (RFC 9110 section 5.6.1.2).
    return {part if _TOKEN.fullmatch(part) else b"" for part in parts if part}


def _says_more_than_keep_alive(noted: dict[bytes, list[bytes]]) -> bool:
    """Whether Connection needs a closer look; nearly always it does not."""
    return (
        noted.get(b"connection", KEEP_ALIVE) != KEEP_ALIVE
        or noted.get(b"proxy-connection", KEEP_ALIVE) != KEEP_ALIVE
    )


def _names_a_sign(options: set[bytes]) -> bool:
    return any(option.startswith(_SIGNS_OF_BROWSERS) for option in options)


def drop_fields(head: Head, names: set[bytes]) -> None:
    """Take all fields of these lower-case names out."""
    head.headers = [field for field in head.headers if field[0].lower() not in names]


class Request(RequestHead):
    """A parsed request.

    :ivar length: of the body in bytes, or :data:`CHUNKED`.
    :ivar http10: the client speaks HTTP/1.0, and so gets no 1xx, no chunks and no second answer.
    :ivar keep_alive: the client's connection may carry another request after this one.
    :ivar trailers: the client takes trailers.
    :ivar authority: of an absolute-form http target; None: it has another form.
    :ivar rest: what comes behind that authority.
    """

    __slots__ = (
        "authority",
        "complete",
        "http10",
        "keep_alive",
        "length",
        "noted",
        "rest",
        "trailers",
    )

    def __init__(
        self,
        method: bytes,
        target: bytes,
        http10: bool,
        authority: bytes | None = None,
        rest: bytes = b"",
    ) -> None:
        self.method = method
        self.target = target
        self.authority = authority
        self.rest = rest
        self._headers = []
        self._lines = None
        self.noted: dict[bytes, list[bytes]] = {}
        self.complete = False
        self.http10 = http10
        self.keep_alive = not http10
        self.length = 0
        self.trailers = False
        self.websocket = False

    on_header = note_field
    on_headers_complete = note_end


# -- requests --------------------------------------------------------------------------------------


def parse_request(head: bytes) -> Request:
    """A request's head, from its first byte to its empty line.

    Hop-by-hop fields are out of ``headers``; Host and the target are as sent until :func:`route`.

    :raises BadRequest: outside the grammar, ambiguous, or asking for what is not done here.
    """
    return _usual_request(head) or read_fully(head)


def _usual_request(head: bytes) -> Request | None:
    """None: it is not a usual one; whether it is one at all is not said."""
    match = _USUAL.fullmatch(head)
    if match is None:
        return None
    method, target, authority, rest, host, length, _, _, late_length = match.groups()
    if not (host == authority or _is_host(host)):
        return None
    request = Request(method, target, False, authority, rest)
    request.lines = lines_but(head, match.end(2) + len(b" HTTP/1.1\r\n"), match, (7, 8))
    request.noted[b"host"] = [host]
    if length or late_length:
        request.length = int(length or late_length)
    return request


def read_fully(head: bytes) -> Request:
    """See :func:`parse_request`; field by field."""
    match = _REQUEST_LINE.match(head)
    if match is None or match.start(2) == match.end(2):
        if _OTHER_VERSION.match(head):
            raise BadRequest(505, "Only HTTP/1.1 and HTTP/1.0 are spoken here.")
        raise BadRequest(400, "The request line is malformed.")
    method, target, authority, rest, minor = match.groups()
    request = Request(method, target, minor == b"0", authority, rest)
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
    elif len(hosts) != 1 or not (hosts[0] == request.authority or _is_host(hosts[0])):
        raise BadRequest(400, "The request has no single, valid Host.")
    if len(request.noted) > 1 or hosts is None:
        _settle_request(request)
    return request


@lru_cache(maxsize=256)
def _is_host(value: bytes) -> bool:
    return len(value) <= _LONGEST_HOST and _HOST.fullmatch(value.strip(OWS)) is not None


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
        options = connection_options(request)
        if b"" in options or options & NEVER_NOMINATED or _names_a_sign(options):
            raise BadRequest(400, "Connection names what it may not.")
        if b"close" in options:
            request.keep_alive = False
        if b"upgrade" in options and b"upgrade" in noted:
            _settle_upgrade(request)
        nominated = options - HOP_BY_HOP - {b"close"}
        if nominated:
            drop_fields(request, nominated)
    if b"te" in noted:
        codings = b",".join(noted[b"te"]).lower().split(b",")
        request.trailers = any(coding.strip(OWS) == b"trailers" for coding in codings)
    if request.http10 and b"expect" in noted:
        drop_fields(request, {b"expect"})  # RFC 9110 section 10.1.1
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
        # To the byte: who does not strip white space takes "chunked " for another coding.
        if len(codings) != 1 or codings[0].lower() != b"chunked":
            raise BadRequest(501, "Only the transfer coding chunked is known here.")
        return CHUNKED
    if lengths is None:
        return 0
    length = parse_length(lengths)
    if length is None:
        raise BadRequest(400, "The request has no single, valid Content-Length.")
    return length


def parse_length(values: list[bytes]) -> int | None:
    """The only value of a numeric field; None if it is not one, or not a number."""
    value = values[0].strip(OWS)
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
        and protocols[0].strip(OWS).lower() == b"websocket"
    )


def _count_forward(request: Request) -> None:
    """Max-Forwards (RFC 9110 section 7.6.2); zero is for the caller to answer."""
    values = request.noted[b"max-forwards"]
    left = parse_length(values)
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
        and parse_length(values) == 0
    )


def is_own(request: Request) -> bool:
    """Origin-form: a page of the proxy's own, whatever Host says."""
    return request.target.startswith(b"/") and request.method != b"CONNECT"


def route(request: Request) -> Origin:
    """The origin an absolute-form request is for; its target becomes origin-form, Host is set.

    RFC 9112 sections 3.2.2 (what Host says is not looked at) and 3.2.4 (``OPTIONS *``).

    :raises BadRequest: not absolute-form, not http, userinfo, a fragment, no valid host.
    """
    authority, rest = request.authority, request.rest
    if _HASH in request.target:
        raise BadRequest(400, "A request target has no fragment.")
    if authority is None:
        if request.target[:8].lower() == b"https://":
            raise BadRequest(400, "Absolute-form takes http only; use CONNECT for https.")
        raise BadRequest(400, "The request target is not an http URL.")
    try:
        origin, host = _origin_and_host(authority)
    except Malformed as error:
        raise BadRequest(400, f"The URL's host is malformed: {error}.") from error
    if not rest:
        request.target = b"*" if request.method == b"OPTIONS" else b"/"
    elif rest[0] == _SLASH:
        request.target = rest
    else:  # a query and no path
        request.target = b"/" + rest
    hosts = request.noted.get(b"host")
    if hosts is None or hosts[0] != host:
        _set_host(request, host)
    return origin


def route_inside(request: Request, origin: Origin) -> None:
    """A request in a tunnel to this origin is for it and no other; Host is set.

    RFC 9112 section 3.2.1: origin-form, or ``OPTIONS *``. Host may leave the scheme's own port out
    (RFC 9110 section 4.2.3).

    :raises BadRequest: CONNECT, another form of target, a fragment, another host in Host.
    """
    target = request.target
    if request.method == b"CONNECT":
        raise BadRequest(405, "A tunnel has no CONNECT inside.")
    if not target.startswith(b"/") and (target != b"*" or request.method != b"OPTIONS"):
        raise BadRequest(421, "A request in this tunnel has a path for its target.")
    if _HASH in target:
        raise BadRequest(400, "A request target has no fragment.")
    hosts = request.noted.get(b"host")
    if hosts is not None:
        try:
            named, _ = _origin_and_host(hosts[0].strip(OWS), origin.scheme)
        except Malformed as error:
            raise BadRequest(400, f"The request's Host is malformed: {error}.") from error
        if named != origin:
            raise BadRequest(421, "This tunnel leads to another host.")
    _set_host(request, origin.authority.encode("ascii"))


def route_alias(request: Request, host: bytes, origin: Origin) -> bytes:
    """A request for an app that is known here by another name, ``host``; Host is set.

    :returns: the origin that the client asked for.
    :raises BadRequest: a fragment.
    """
    if _HASH in request.target:
        raise BadRequest(400, "A request target has no fragment.")
    drop_fields(request, {b"host"})
    request.headers.insert(0, (b"Host", origin.authority.encode("ascii")))
    return b"http://" + host.lower()


def _set_host(request: Request, host: bytes) -> None:
    if b"host" not in request.noted:
        request.headers.insert(0, (b"Host", host))
    else:
        request.headers = [
            (name, host if name.lower() == b"host" else value) for name, value in request.headers
        ]


@lru_cache(maxsize=1024)
def _origin_and_host(authority: bytes, scheme: str = "http") -> tuple[Origin, bytes]:
    origin = parse_authority(authority.decode("latin-1"), scheme)
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
        part.split(b";")[0].strip(OWS).lower() == CDN_ID
        for value in values
        for part in value.split(b",")
    )


def binds_connection(request: Request) -> bool:
    """Whether the request authenticates its connection, not itself (NTLM, Negotiate)."""
    values = request.noted.get(b"authorization")
    return values is not None and any(_CONNECTION_AUTH.match(value) for value in values)


def write_request(request: RequestHead, more: bytes = b"", content: bytes = b"") -> bytes:
    """A request as it goes to the origin.

    :param more: further field lines, each with its end.
    :param content: what there is of its body.
    """
    method, target, lines = request.method, request.target, request.lines
    return b"".join((method, b" ", target, b" HTTP/1.1\r\n", lines, more, b"\r\n", content))


def write_answer(line: bytes, lines: bytes, more: bytes = b"", content: bytes = b"") -> bytes:
    """An answer as it goes to the client, as :func:`write_request`.

    :param line: the status line without its end; ``lines``: the field lines, each with it.
    """
    return b"".join((line, b"\r\n", lines, more, b"\r\n", content))
