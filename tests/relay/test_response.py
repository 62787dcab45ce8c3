"""Where answers end, and what is not one."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from iam_auth_proxy.errors import PathError
from iam_auth_proxy.relay.message import CHUNKED, UNTIL_CLOSE
from iam_auth_proxy.relay.response import parse_response


def response(lines: bytes, status: bytes = b"200 OK", method: bytes = b"GET"):
    return parse_response(b"HTTP/1.1 " + status + b"\r\n" + lines + b"\r\n", method)


@pytest.mark.parametrize(
    ("status", "lines", "method", "length"),
    [
        (b"200 OK", b"Content-Length: 7\r\n", b"GET", 7),
        (b"200 OK", b"Content-Length: 7\r\n", b"HEAD", 0),
        (b"200 OK", b"Transfer-Encoding: chunked\r\n", b"HEAD", 0),
        (b"200 OK", b"Transfer-Encoding: CHUNKED \r\n", b"GET", CHUNKED),
        (b"200 OK", b"", b"GET", UNTIL_CLOSE),
        (b"200 OK", b"", b"HEAD", 0),
        (b"304 Not Modified", b"Content-Length: 7\r\n", b"GET", 0),
        (b"204 No Content", b"", b"GET", 0),
        (b"205 Reset", b"Content-Length: 0\r\n", b"GET", 0),
        (b"103 Early", b"", b"GET", 0),
    ],
)
def test_where_an_answer_ends(status, lines, method, length):
    assert response(lines, status, method).length == length


def test_a_close_delimited_answer_ends_its_connection():
    assert not response(b"").reusable
    assert response(b"Content-Length: 1\r\n").reusable


@pytest.mark.parametrize(
    ("challenge", "bound"),
    [(b"NTLM", True), (b"negotiate", True), (b"Bearer", False), (b"x-NTLM", False)],
)
def test_a_challenge_that_binds_the_connection_is_seen(challenge, bound):
    lines = b"WWW-Authenticate: Basic realm=x, " + challenge + b"\r\n"
    assert response(lines, b"401 No").connection_bound is bound


pieces = (
    *(b"Content-Length: 3\r\n", b"Transfer-Encoding: chunked\r\n", b"X: a\r\n", b"\r\n", b"\n"),
    *(b"Connection: ", b"close", b"upgrade", b",", b" ", b"\t", b":", b"\x00", b"\r", b"\xff"),
)
heads = st.lists(st.sampled_from(pieces), max_size=10).map(b"".join)


@given(st.one_of(heads, st.binary(max_size=80)), st.sampled_from([b"GET", b"HEAD"]))
def test_an_answer_is_refused_or_well_formed(raw, method):
    head = b"HTTP/1.1 200 " + raw.partition(b"\r\n\r\n")[0] + b"\r\n\r\n"
    try:
        parsed = parse_response(head, method)
    except PathError:
        return
    assert all(b"\r" not in v and b"\n" not in v and b"\0" not in v for _, v in parsed.headers)
