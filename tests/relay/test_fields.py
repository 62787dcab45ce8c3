"""The two ways to read a head: what the short one takes, the long one takes for the same."""

from __future__ import annotations

import json
import re

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from iam_auth_proxy.relay import message, response
from iam_auth_proxy.relay.fields import divide, join
from iam_auth_proxy.relay.message import Request, route
from iam_auth_proxy.relay.response import Response
from tests.support import vectors

NAMES = (
    *("Host", "Connection", "Proxy-Connection", "Content-Length", "Transfer-Encoding", "TE"),
    *("Keep-Alive", "Upgrade", "Expect", "Authorization", "WWW-Authenticate", "CDN-Loop"),
    *("Max-Forwards", "Proxy-Authorization", "HTTP2-Settings", "Accept", "Accept-Encoding"),
    *("User-Agent", "Cookie", "Content-Type", "Cache-Control", "Date", "ETag", "Most", "X"),
    *("Content-Encoding", "Contents", "Hosts", "T", "Sec-Fetch-Site"),
)
VALUES = (
    *("keep-alive", "Keep-Alive", "close", "chunked", "CHUNKED", "gzip", "3", "03", "0", "-1"),
    *("", "a", "a.test", "a.test:80", "A.test", "b c", "3 ", "chunked\t", "keep-alive, x", "h2c"),
    *("100-continue", "\xe4", "timeout=5", "\x00", "\x7f", "a\rb", "a\nb", "a\r\n b", "9" * 16),
)
# nginx takes a tab there for a part of the value.
NOT_A_SPACE = re.compile(rb"^[^:]*: *\t", re.MULTILINE)
SPACES = ("", " ", "  ", "\t", " \t ")
spelled = st.one_of(
    st.sampled_from(NAMES),
    st.sampled_from(NAMES).map(str.lower),
    st.sampled_from(NAMES).map(str.upper),
    st.sampled_from(NAMES).map(str.swapcase),
    st.sampled_from(("", "A b", "X ", " X", "\xe4", "(x)")),
)
lines = st.lists(
    st.builds(
        lambda name, space, value, end: f"{name}:{space}{value}{end}",
        spelled,
        st.sampled_from(SPACES),
        st.sampled_from(VALUES),
        st.sampled_from((*("\r\n",) * 12, "\n", "\r")),
    ),
    max_size=7,
).map("".join)
printable = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), max_size=6)
targets = st.one_of(
    st.sampled_from(("http://a.test/x?y", "/", "HTTP://a.test", "http://b c/", "*", "", "/\x7f")),
    printable,
    printable.map("/{}".format),
    printable.map("http://{}/".format),
    st.builds("http://a.test{}/{}".format, printable, printable),
)
request_lines = st.builds(
    "{} {} {}\r\n".format,
    st.sampled_from(("GET", "POST", "HEAD", "PUT", "CONNECT", "OPTIONS", "get", "PRI")),
    targets,
    st.sampled_from((*("HTTP/1.1",) * 5, "HTTP/1.0", "HTTP/2.0", "http/1.1")),
)
status_lines = st.sampled_from(
    (
        *("HTTP/1.1 200 OK", "HTTP/1.1 404 Not Found", "HTTP/1.1 500 Internal Server Error"),
        *("HTTP/1.1 204 No Content", "HTTP/1.1 304 Not Modified", "HTTP/1.1 100 Continue"),
        *("HTTP/1.1 101 Switching Protocols", "HTTP/1.0 200 OK", "HTTP/1.1 200", "HTTP/1.1 99 x"),
    )
).map("{}\r\n".format)


def whole(start: str, fields: str) -> bytes:
    """As a connection cuts it out: up to and with the first empty line."""
    data = f"{start}{fields}\r\n\r\n".encode("latin-1")
    return data[: data.index(b"\r\n\r\n") + 4]


def same_request(head: bytes) -> Request | None:
    """What the short way takes of it, if it does, compared with the long way."""
    short = message._usual_request(head)
    if short is None:
        return None
    full = message.read_fully(head)
    for name in ("method", "target", "authority", "rest", "http10", "keep_alive", "length"):
        assert getattr(short, name) == getattr(full, name), name
    assert (short.trailers, short.websocket) == (full.trailers, full.websocket)
    ruled = {"host": full.noted[b"host"]}
    assert short.noted == {name.encode(): values for name, values in ruled.items()}
    about_it = {b"content-length", b"connection", b"proxy-connection"}
    assert {*full.noted} <= {b"host", *about_it}
    assert not NOT_A_SPACE.search(short.lines)
    assert short.headers == full.headers
    return full


def same_response(head: bytes, method: bytes) -> Response | None:
    """See :func:`same_request`."""
    short = response._usual_response(head, method)
    if short is None:
        return None
    full = response.read_fully(head, method)
    for name in ("status", "line", "length", "reusable", "connection_bound"):
        assert getattr(short, name) == getattr(full, name), name
    assert {*full.noted} <= {
        *(b"content-length", b"transfer-encoding", b"connection", b"keep-alive"),
        *(b"host", b"expect", b"authorization", b"cdn-loop", b"max-forwards"),  # of requests
    }
    of_framing = full.noted.get(b"transfer-encoding")
    assert short.noted.get(b"transfer-encoding") == of_framing
    assert not NOT_A_SPACE.search(short.lines)
    assert short.headers == full.headers
    return full


@given(st.builds(whole, request_lines, lines))
@example(whole("GET http://a.test/ HTTP/1.1\r\n", "Host: a.test\r\nConnection: keep-alive\r\n"))
@example(whole("GET http://a.test/ HTTP/1.1\r\n", "Host: a.test\r\nHost: a.test\r\n"))
@example(whole("GET / HTTP/1.1\r\n", "Host: a\r\nContent-Length: 3\r\nContent-Length: 3\r\n"))
@settings(max_examples=1000, deadline=None)
def test_requests_are_read_alike(head):
    same_request(head)


@given(st.builds(whole, status_lines, lines), st.sampled_from((b"GET", b"HEAD", b"POST")))
@settings(max_examples=1000, deadline=None)
def test_answers_are_read_alike(head, method):
    same_response(head, method)


CORPUS = json.loads((vectors.FOLDER / "smuggling.json").read_text("utf-8"))


@pytest.mark.parametrize("kind", ["accepted", "refused", "answers_accepted", "answers_refused"])
def test_the_hostile_corpus_is_read_alike(kind):
    short = 0
    for case in CORPUS[kind]:
        data = case.get("send", case.get("answer", "")).replace("%PORT%", "80").encode("latin-1")
        data += b"\r\n\r\n"
        head = data[: data.index(b"\r\n\r\n") + 4]
        read = same_request(head) if "send" in case else same_response(head, b"GET")
        short += read is not None
    assert short or kind == "answers_refused"


@pytest.mark.parametrize(
    "fields",
    [
        "Host: a.test\r\n",
        "Accept: */*\r\nHost: a.test:80\r\nProxy-Connection: Keep-Alive\r\n",
        "host: a.test\r\nCONTENT-LENGTH:3\r\nCookie: a=b\r\nconnection:  keep-alive\r\nX:\r\n",
        "Host: a.test\r\nConnection: keep-alive\r\nContent-Length: 3\r\nX: \xe4 \r\n",
    ],
)
@pytest.mark.parametrize("target", ["http://a.test/x?y", "/x", "http://[::1]:80/"])
def test_usual_requests_are_read_the_short_way(target, fields):
    full = same_request(whole(f"POST {target} HTTP/1.1\r\n", fields))
    assert full is not None
    assert full.length == (3 if "3" in fields else 0)


@pytest.mark.parametrize(
    "fields",
    [
        *("", "Date: x\r\nContent-Length: 3\r\n", "transfer-encoding: Chunked\r\nX:y\r\n"),
        "Content-Length: 3\r\nConnection: keep-alive\r\nKeep-Alive: timeout=5\r\nETag: x\r\n",
        "Keep-Alive: max=5\r\nConnection: Keep-Alive\r\nContent-Type: a\r\nContent-Length: 3\r\n",
    ],
)
@pytest.mark.parametrize("method", [b"GET", b"HEAD"])
def test_usual_answers_are_read_the_short_way(method, fields):
    full = same_response(whole("HTTP/1.1 404 Not Found\r\n", fields), method)
    assert full is not None
    assert not {b"connection", b"keep-alive"} & {name.lower() for name, _ in full.headers}


@pytest.mark.parametrize(
    "fields",
    [
        *("Host:\ta\r\n", "Host: a\r\nX: \ty\r\n", "Host: a\r\nContent-Length:\t3\r\n"),
        *("", "Host: a b\r\n", "Host: a\r\nHost: a\r\n", " X: a\r\nHost: a\r\n"),
        "Host: a\r\nConnection: keep-alive\r\nProxy-Connection: keep-alive\r\n",
        "Host: a\r\nContent-Length: 3\r\nConnection: keep-alive\r\nContent-Length: 3\r\n",
        *(
            f"Host: a\r\n{line}\r\n"
            for line in (
                *("Transfer-Encoding: chunked", "TE: trailers", "Expect: 100-continue"),
                *("Upgrade: x", "Authorization: x", "CDN-Loop: x", "Max-Forwards: 1"),
                *("Connection: close", "Connection: keep-alive, x", "Proxy-Authorization: x"),
                *("Content-Length: 3 ", "Content-Length: 3,3", "Content-Length: -3"),
                *("X : y", "X: a\nb", "X: a\rb", " X: a", "X", ": a", "X: \x7f", "X: a\r\n b"),
            )
        ),
    ],
)
def test_others_are_left_to_the_long_way(fields):
    assert message._usual_request(whole("GET / HTTP/1.1\r\n", fields)) is None


@pytest.mark.parametrize(
    "fields",
    [
        "Content-Length: 3\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked\r\nConnection: keep-alive\r\nContent-Length: 3\r\n",
        "Content-Length: 3\r\nContent-Length: 3\r\n",
        "WWW-Authenticate: NTLM\r\n",
        "Transfer-Encoding:\tchunked\r\n",
        "Content-Length:\t3\r\n",
        "X:\ty\r\n",
        "Connection: close\r\n",
        "Upgrade: h2c\r\n",
        "X: a\r\n b\r\n",
    ],
)
def test_other_answers_are_left_to_the_long_way(fields):
    assert response._usual_response(whole("HTTP/1.1 200 OK\r\n", fields), b"GET") is None


def test_field_lines_are_divided_and_joined():
    raw = b"A: b\r\nC:d \r\nE:\r\nF: \t g:h\r\n"
    fields = [(b"A", b"b"), (b"C", b"d "), (b"E", b""), (b"F", b"g:h")]
    assert divide(raw) == fields
    assert divide(join(fields)) == fields
    assert (divide(b""), join([])) == ([], b"")


def test_what_is_changed_is_passed_on():
    head = whole("GET http://a.test/ HTTP/1.1\r\n", "host:a.test\r\nX:y\r\n")
    request = message.parse_request(head)
    route(request)
    assert message.write_request(request) == b"GET / HTTP/1.1\r\nhost:a.test\r\nX:y\r\n\r\n"
    request.headers.append((b"Z", b"z"))
    assert message.write_request(request).endswith(b"\r\nX: y\r\nZ: z\r\n\r\n")
    request.headers = []
    assert message.write_request(request) == b"GET / HTTP/1.1\r\n\r\n"
