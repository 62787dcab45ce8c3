"""The /auth request. The cases are data: tests/vectors/handoffs.json; return_url has its own."""

from __future__ import annotations

import base64
import re
from urllib.parse import parse_qs, parse_qsl, urlencode

import pytest
from hypothesis import given
from hypothesis import strategies as st
from werkzeug.test import EnvironBuilder
from werkzeug.wrappers import Request

from iam_auth_proxy.errors import Malformed
from iam_auth_proxy.protocol import handoff
from iam_auth_proxy.protocol.handoff import Handoff
from tests.support import vectors

TOKEN = b"\xfb\xff\xfe" * 50
LEGACY = Handoff(TOKEN, "/private?x=1&q=a+b%20c")


@pytest.mark.parametrize("case", vectors.accepted("handoffs"))
def test_is_read(case: dict[str, str]) -> None:
    expected = Handoff(base64.b64decode(case["token"]), case["return_url"])
    assert handoff.parse(case["query"]) == expected


@pytest.mark.parametrize(("query", "error"), vectors.refused("handoffs"))
def test_is_refused(query: str, error: str) -> None:
    with pytest.raises(Malformed, match=re.escape(error)):
        handoff.parse(query)


def test_the_seeds_flask_server_reads_it_to_the_byte() -> None:
    target = handoff.write("/auth", LEGACY)
    environ = EnvironBuilder.from_environ(
        {
            **EnvironBuilder("/auth").get_environ(),
            "QUERY_STRING": target.partition("?")[2],
        }
    ).get_environ()
    arguments = Request(environ).args
    assert base64.b64decode(arguments["token"], validate=True) == TOKEN
    assert arguments["return_url"] == LEGACY.return_url


def test_what_the_go_original_writes_is_read() -> None:
    """url.Values.Encode: sorted by name, and escaped as urllib's quote_plus does."""
    values = [
        ("return_url", LEGACY.return_url),
        ("token", base64.b64encode(TOKEN).decode()),
    ]
    assert handoff.parse(urlencode(values)) == LEGACY


def test_what_is_written_needs_no_further_escaping() -> None:
    target = handoff.write("/auth", LEGACY)
    assert re.fullmatch(r"/auth\?token=[A-Za-z0-9%]+&return_url=[A-Za-z0-9%._~-]+", target)
    assert parse_qs(target.partition("?")[2], strict_parsing=True)["return_url"] == [
        LEGACY.return_url
    ]


def test_the_auth_path_is_the_apps_own() -> None:
    below = Handoff(b"x", "/iam/logout")
    assert handoff.parse(handoff.write("/auth", below).partition("?")[2]) == below
    with pytest.raises(Malformed, match="the sign-in itself"):
        handoff.write("/iam", below)
    with pytest.raises(Malformed, match="the sign-in itself"):
        handoff.parse("token=eA%3D%3D&return_url=/iam/logout", auth_path="/iam")


def test_the_longest_query_is_read() -> None:
    """Every character of both values at their limits escaped: nobody needs to, everybody may."""

    def escape(text: str) -> str:
        return "".join(f"%{ord(char):02X}" for char in text)

    longest = Handoff(bytes(6144), "/" + "a" * 2047)
    token = escape(base64.b64encode(longest.token).decode())
    query = f"token={token}&return_url={escape(longest.return_url)}"
    assert handoff.parse(query) == longest
    with pytest.raises(Malformed, match="the query is too long"):
        handoff.parse(query + "&")


@pytest.mark.parametrize(
    ("wrong", "error"),
    [
        (Handoff(b"", "/"), "the token is empty or too long"),
        (Handoff(bytes(6145), "/"), "the token is empty or too long"),
        (Handoff(b"x", "//evil.example"), "begins with two slashes"),
        (Handoff(b"x", "/auth"), "the sign-in itself"),
    ],
)
def test_what_would_be_refused_is_not_written(wrong: Handoff, error: str) -> None:
    with pytest.raises(Malformed, match=error):
        handoff.write("/auth", wrong)


def test_the_token_is_not_in_the_repr() -> None:
    assert repr(Handoff(b"sealed", "/")) == "Handoff(return_url='/')"


URLS = st.from_regex(re.compile(r"/[a-z0-9._~!$&'()*+,;=:@%/?-]{0,30}", re.ASCII), fullmatch=True)


@given(st.binary(min_size=1, max_size=300), URLS)
def test_what_is_written_is_read(token: bytes, return_url: str) -> None:
    try:
        target = handoff.write("/auth", Handoff(token, return_url))
    except Malformed:
        return
    path, _, query = target.partition("?")
    assert path == "/auth"
    assert handoff.parse(query) == Handoff(token, return_url)
    # and by a lax form decoder, as the original's server has one
    assert dict(parse_qsl(query)) == {
        "token": base64.b64encode(token).decode(),
        "return_url": return_url,
    }


PIECES = st.sampled_from(
    ["token", "return_url", "=", "&", "%", "%2f", "/", "+", "A", "==", "%00", "é", "\ud800", "x"]
)


@given(st.text(max_size=40) | st.lists(PIECES, max_size=12).map("".join))
def test_nothing_but_our_error(query: str) -> None:
    for candidate in (query, f"token=QUJD&return_url={query}", f"return_url=/&token={query}"):
        try:
            found = handoff.parse(candidate)
        except Malformed:
            continue
        assert handoff.parse(handoff.write("/auth", found).partition("?")[2]) == found
