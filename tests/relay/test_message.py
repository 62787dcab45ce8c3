"""The rules of heads, and how they compare with another strict reader's."""

from __future__ import annotations

import asyncio
import json
import re
from pathlib import Path

import pytest
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.http_parser import HttpRequestParser, HttpRequestParserPy
from hypothesis import example, given, settings
from hypothesis import strategies as st

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
TAKEN_HERE_ALONE = {
    "C": {
        "chunks with extension and trailer": "RFC 9112 section 7.1.1 lets white space stand before "
        "';'; the extension is passed on as it came and holds no line end",
    },
    "Python": {},
}


def aiohttp_takes(raw: bytes, parser_class: type) -> bool:
    loop = asyncio.new_event_loop()
    try:
        parser = parser_class(_Protocol(), loop, 2**16, max_line_size=8190, max_field_size=65536)
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


@given(heads)
@settings(max_examples=300)
def test_what_aiohttp_refuses_is_refused(raw):
    head = raw.partition(b"\r\n\r\n")[0] + b"\r\n\r\n"
    try:
        route(parse_request(head))
    except BadRequest:
        return
    assert aiohttp_takes(head, HttpRequestParser), head
