"""The rules of heads, and how they compare with another strict reader's."""

from __future__ import annotations

import asyncio
import json
import re
from pathlib import Path

import pytest
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.http_parser import (
    HttpRequestParser,
    HttpRequestParserPy,
    HttpResponseParser,
    HttpResponseParserPy,
)
from hypothesis import example, given, settings
from hypothesis import strategies as st

from iam_auth_proxy.errors import PathError
from iam_auth_proxy.relay.message import (
    BadRequest,
    binds_connection,
    is_own,
    parse_request,
    route,
    route_connect,
    went_through_us,
    write_request,
)
from iam_auth_proxy.relay.response import parse_response

VECTORS = json.loads((Path(__file__).parent.parent / "vectors" / "smuggling.json").read_text())


def request(lines: bytes, method: bytes = b"GET"):
    return parse_request(method + b" http://a/ HTTP/1.1\r\nHost: a\r\n" + lines + b"\r\n")


@pytest.mark.parametrize(
    ("lines", "keep"),
    [
        (b"", True),
        (b"Connection: keep-alive\r\n", True),
        (b"Connection: Close\r\n", False),
        (b"Connection: x\r\nconnection: y, close\r\n", False),
        (b"Proxy-Connection: close\r\n", False),
        (b"Proxy-Connection: Keep-Alive\r\n", True),
    ],
)
def test_whether_the_client_stays(lines, keep):
    assert request(lines).keep_alive is keep


def test_http_10_never_stays():
    assert not parse_request(b"GET http://a/ HTTP/1.0\r\nConnection: keep-alive\r\n\r\n").keep_alive


@pytest.mark.parametrize(
    ("lines", "websocket"),
    [
        (b"Connection: Upgrade\r\nUpgrade: WebSocket\r\n", True),
        (b"Connection: keep-alive, upgrade\r\nUpgrade: websocket\r\n", True),
        (b"Connection: Upgrade\r\nUpgrade: websocket, h2c\r\n", False),
        (b"Connection: Upgrade\r\nUpgrade: websocket\r\nUpgrade: h2c\r\n", False),
        (b"Connection: Upgrade\r\nUpgrade: tls\r\n", False),
        (b"Upgrade: websocket\r\n", False),
        (b"Connection: Upgrade\r\n", False),
    ],
)
def test_only_a_websocket_is_an_upgrade(lines, websocket):
    parsed = request(lines)
    assert parsed.websocket is websocket
    assert b"upgrade" not in write_request(parsed).lower()


@pytest.mark.parametrize(
    ("value", "ours"),
    [
        (b"iam-auth-proxy", True),
        (b"other, IAM-Auth-Proxy; v=1", True),
        (b"iam-auth-proxy-2, x-iam-auth-proxy", False),
        (b'other; by="iam-auth-proxy"', False),
    ],
)
def test_a_loop_is_seen(value, ours):
    assert went_through_us(request(b"CDN-Loop: " + value + b"\r\n")) is ours


@pytest.mark.parametrize(
    ("value", "binds"),
    [(b"NTLM TlRM", True), (b"negotiate YII=", True), (b"Bearer negotiate", False), (b"x", False)],
)
def test_authentication_of_the_connection_is_seen(value, binds):
    assert binds_connection(request(b"Authorization: " + value + b"\r\n")) is binds


def test_own_pages_are_asked_for_in_origin_form_alone():
    assert is_own(parse_request(b"GET /x HTTP/1.1\r\nHost: app.test\r\n\r\n"))
    assert not is_own(request(b""))


def test_connect_names_host_and_port():
    origin = route_connect(parse_request(b"CONNECT [::1]:443 HTTP/1.1\r\nHost: x\r\n\r\n"))
    assert (origin.host, origin.port) == ("::1", 443)


# -- properties ------------------------------------------------------------------------------------

token = st.text("abcXYZ019-_!~", min_size=1, max_size=12).map(str.encode)
value = st.binary(max_size=12).map(lambda raw: bytes(b for b in raw if b > 0x20 and b != 0x7F))
fields = st.lists(st.tuples(token.map(lambda name: b"X" + name), value), max_size=6)


@given(fields, st.text("/a%2?&=;:@", max_size=12).map(str.encode))
def test_what_is_read_is_written_as_it_came(lines, path):
    raw = b"".join(b"%b: %b\r\n" % line for line in lines)
    parsed = parse_request(
        b"PUT http://a.test/" + path + b" HTTP/1.1\r\nHost: a.test\r\n" + raw + b"\r\n"
    )
    route(parsed)
    assert (
        write_request(parsed) == b"PUT /" + path + b" HTTP/1.1\r\nHost: a.test\r\n" + raw + b"\r\n"
    )
    again = parse_request(write_request(parsed))
    assert (again.headers, again.length) == (parsed.headers, parsed.length)


pieces = (
    *(b"GET ", b"POST ", b"http://a/", b"/", b" HTTP/1.1", b" HTTP/1.0", b"\r\n", b"\n", b"\r"),
    *(b"Host: a\r\n", b"Content-Length: 3\r\n", b"Transfer-Encoding: chunked\r\n", b" ", b"\t"),
    *(b"Connection: ", b"close", b"upgrade", b",", b"Upgrade: websocket\r\n", b":", b"\x00"),
)
noise = st.lists(st.sampled_from(pieces), max_size=10).map(b"".join)
start = st.sampled_from(
    (b"", b"GET http://a/ HTTP/1.1\r\n", b"POST http://a/ HTTP/1.1\r\nHost: a\r\n")
)
heads = st.builds(lambda a, b: a + b, start, noise)
# Names that a reader may know of, and values that mean something to one of them.
names = st.sampled_from(
    (
        *(b"Sec-WebSocket-Key1", b"Sec-WebSocket-Key", b"Content-Encoding", b"Content-Type"),
        *(b"Content-Location", b"Content-Range", b"ETag", b"Max-Forwards", b"Server"),
        *(b"User-Agent", b"Connection", b"Upgrade", b"Content-Length", b"Transfer-Encoding"),
        *(b"Host", b"Expect", b"Trailer", b"TE", b"Cookie", b"Authorization", b"X-!#$%&'*+.^_`|~"),
    )
)
values = st.sampled_from(
    (
        *(b"", b"a", b"3", b"0", b"+3", b"3, 3", b"chunked", b"x, chunked", b"gzip", b"br, gzip"),
        *(b"close", b"upgrade", b"keep-alive", b"websocket", b"tcp", b"h2c", b"a:80", b"trailers"),
        *(b"100-continue", b"\xff", b"a\tb", b"\x01", b"\x7f", b'"'),
    )
)
named_lines = st.lists(
    st.builds(
        lambda name, before, value, after: name + b":" + before + value + after,
        names,
        st.sampled_from((b" ", b"", b"\t", b"  ")),
        values,
        st.sampled_from((b"", b" ")),
    ),
    max_size=4,
).map(b"\r\n".join)
BEGUN = b"GET http://a/ HTTP/1.1\r\nHost: a\r\n"
named_heads = st.one_of(heads, st.builds(lambda a, b: a + b, st.just(BEGUN), named_lines))


@given(st.one_of(heads, st.binary(max_size=80)))
@example(b"GET http://a/ HTTP/1.1\r\nHost: a\r\n\r\n")
@settings(max_examples=300)
def test_a_request_is_refused_or_well_formed(raw):
    head = raw + b"\r\n\r\n"
    head = head[: head.index(b"\r\n\r\n") + 4]
    try:
        parsed = parse_request(head)
        route(parsed)
    except BadRequest:
        return
    sent = write_request(parsed)
    assert re.fullmatch(rb"[A-Z-]+ [!-~]+ HTTP/1.1\r\n([!-9;-~]+:[^\r\n\0]*\r\n)*\r\n", sent)
    assert len(re.findall(rb"(?im)^host:", sent)) == 1
    assert len(re.findall(rb"(?im)^(?:content-length|transfer-encoding):", sent)) <= 1


# -- the other reader ------------------------------------------------------------------------------

# What we take and aiohttp's readers do not, by the vector's name, and why.
OLD_WEBSOCKET = (
    "of the handshake that RFC 6455 replaced, with eight bytes behind its head: nothing that is "
    "behind a head goes on before a 101, and the rest is for the other side to judge"
)
TWICE = (
    "RFC 9110 section 5.3 has it an error of the sender's. None of these fields says where a "
    "message ends or where it goes; those that do are refused here, too"
)
SPACE = (
    "RFC 9112 section 7.1.1 lets white space stand before ';'; the extension is passed on as it "
    "came and holds no line end"
)
OF_ALL = {"a field of an old WebSocket": OLD_WEBSOCKET, "a single field twice": TWICE}
TAKEN_HERE_ALONE = {
    "C": {**OF_ALL, "chunks with extension and trailer": SPACE},
    "Python": OF_ALL,
}
ANSWERS_TAKEN_HERE_ALONE = {"a field of an old WebSocket": OLD_WEBSOCKET}
# Heads in which one of these stands.
_OLD_WEBSOCKET = re.compile(rb"(?im)^sec-websocket-key1:")
_TWICE = re.compile(
    rb"(?ims)^(content-(?:location|range|type)|etag|max-forwards|server|user-agent):.*^\1:"
)


def aiohttp_takes(raw: bytes, parser_class: type, **options: bool) -> bool:
    loop = asyncio.new_event_loop()
    try:
        parser = parser_class(
            _Protocol(), loop, 2**16, max_line_size=8190, max_field_size=65536, **options
        )
        messages, _, _ = parser.feed_data(raw)
        return bool(messages) and all(body.exception() is None for _, body in messages)
    except HttpProcessingError:
        return False
    finally:
        loop.close()


class _Protocol:
    _reading_paused = False
    transport = None

    def pause_reading(self) -> None: ...

    def resume_reading(self, **_: object) -> None: ...


@pytest.mark.parametrize(
    ("reader", "parser"), [("C", HttpRequestParser), ("Python", HttpRequestParserPy)]
)
def test_what_aiohttp_refuses_is_refused_or_listed(reader, parser):
    alone = {
        case["name"]
        for case in VECTORS["accepted"]
        if not aiohttp_takes(case["send"].replace("%PORT%", "80").encode("latin-1"), parser)
    }
    assert alone == set(TAKEN_HERE_ALONE[reader])


@given(named_heads, st.sampled_from([HttpRequestParser, HttpRequestParserPy]))
@example(BEGUN + b"Sec-WebSocket-Key1: q", HttpRequestParser)
@example(BEGUN + b"ETag: a\r\nETag: b", HttpRequestParser)
@settings(max_examples=300)
def test_what_aiohttp_refuses_is_refused(raw, parser):
    head = raw.partition(b"\r\n\r\n")[0] + b"\r\n\r\n"
    try:
        route(parse_request(head))
    except BadRequest:
        return
    listed = _OLD_WEBSOCKET.search(head) or _TWICE.search(head)
    assert aiohttp_takes(head, parser) or listed, head


@pytest.mark.parametrize("parser", [HttpResponseParser, HttpResponseParserPy])
def test_answers_that_aiohttp_refuses_are_refused_or_listed(parser):
    alone = {
        case["name"]
        for case in VECTORS["answers_accepted"]
        if not aiohttp_takes(case["answer"].encode("latin-1"), parser, read_until_eof=True)
    }
    assert alone == set(ANSWERS_TAKEN_HERE_ALONE)


statuses = st.sampled_from(
    (b"200 OK", b"200", b"200 ", b"101 Switching", b"103 \xff", b"204 a\tb", b"304 No", b"599 x")
)


@given(
    st.sampled_from((b"HTTP/1.1 ", b"HTTP/1.0 ")),
    statuses,
    st.one_of(noise, named_lines),
    st.sampled_from((b"GET", b"HEAD")),
    st.sampled_from([HttpResponseParser, HttpResponseParserPy]),
)
@example(b"HTTP/1.1 ", b"200 OK", b"Sec-WebSocket-Key1: q", b"GET", HttpResponseParser)
@settings(max_examples=300)
def test_answers_that_aiohttp_refuses_are_refused(version, status, lines, method, parser):
    head = version + status + b"\r\n" + lines.partition(b"\r\n\r\n")[0] + b"\r\n\r\n"
    head = head[: head.index(b"\r\n\r\n") + 4]
    try:
        parse_response(head, method)
    except PathError:
        return
    taken = aiohttp_takes(head, parser, response_with_body=method != b"HEAD", read_until_eof=True)
    assert taken or _OLD_WEBSOCKET.search(head), head
