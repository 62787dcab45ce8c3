"""The page where a request stops."""

from __future__ import annotations

import json
from html.parser import HTMLParser

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from iam_auth_proxy.proxy.pages.stop import Stop
from iam_auth_proxy.relay.exchange import Reply

EVIL = "<script>alert('1')</script>\"'&"
PLANTED = Stop(403, EVIL, EVIL, EVIL, EVIL)


def field(reply: Reply, name: bytes) -> bytes:
    (value,) = [value for key, value in reply.headers if key == name]
    return value


@pytest.mark.parametrize(
    ("accept", "media"),
    [
        (b"text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", b"text/html"),
        (b"TEXT/HTML", b"text/html"),
        (b"application/json, text/html", b"application/json"),
        (b"text/plain, text/html", b"text/plain"),
        (b"application/json", b"application/json"),
        (b"text/html;q=0, application/json", b"application/json"),
        (b"*/*", b"text/plain"),
        (b"", b"text/plain"),
        (b"image/png", b"text/plain"),
        (b"\xff\x00<script>", b"text/plain"),
    ],
)
def test_accept(accept: bytes, media: bytes) -> None:
    reply = PLANTED.reply(accept)
    assert field(reply, b"Content-Type") == media + b"; charset=utf-8"


@pytest.mark.parametrize("accept", [b"text/html", b"application/json", b"text/plain"])
def test_guards(accept: bytes) -> None:
    """security.md: pages that we serve under an app's origin."""
    reply = PLANTED.reply(accept, headers=((b"Retry-After", b"5"),))
    assert field(reply, b"Content-Security-Policy") == (
        b"default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'; sandbox"
    )
    assert field(reply, b"X-Content-Type-Options") == b"nosniff"
    assert field(reply, b"Cache-Control") == b"no-store"
    assert field(reply, b"Referrer-Policy") == b"no-referrer"
    assert field(reply, b"Vary") == b"Accept"
    assert field(reply, b"Retry-After") == b"5"
    assert not [name for name, _ in reply.headers if name.lower().startswith(b"access-control")]


def test_guards_of_a_page_with_a_link() -> None:
    """It may say that its link is its own, and nothing more."""
    reply = Stop(403, "No.", "x", link="http://wiki.localhost/").reply(b"text/html")
    assert field(reply, b"Content-Security-Policy") == (
        b"default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'; "
        b"sandbox allow-same-origin"
    )
    assert field(reply, b"X-Content-Type-Options") == b"nosniff"
    assert field(reply, b"Cache-Control") == b"no-store"
    assert field(reply, b"Referrer-Policy") == b"same-origin"
    assert field(reply, b"Cross-Origin-Opener-Policy") == b"same-origin"


def test_html_escapes_whatever_it_shows() -> None:
    page = PLANTED.reply(b"text/html").body.decode()
    assert page.count("&lt;script&gt;") == 5, "title, heading, remedy, code, origin"
    assert "<script" not in page


class Tags(HTMLParser):
    """The elements and attributes of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.found: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found |= {tag, *(name for name, _ in attrs)}


_ELEMENTS = "html head meta title style body main h1 p pre footer strong code"
OURS = {*_ELEMENTS.split(" "), "lang", "charset", "name", "content"}
TEXT = st.text(st.characters(codec="utf-8")) | st.sampled_from([EVIL, "]]>", "<!--", "</title><a"])


@given(TEXT, TEXT, TEXT, TEXT)
@settings(max_examples=50)
def test_no_value_becomes_an_element(happened: str, code: str, remedy: str, origin: str) -> None:
    tags = Tags()
    tags.feed(Stop(403, happened, code, remedy, origin).reply(b"text/html").body.decode())
    assert tags.found <= OURS


@pytest.mark.parametrize(
    ("remedy", "words", "command"),
    [
        ("Run: aws sso login --profile dev", "Run:", "aws sso login --profile dev"),
        (
            "If you know this site, restart with: iam-auth-proxy --trust http://a.test",
            "If you know this site, restart with:",
            "iam-auth-proxy --trust http://a.test",
        ),
        ("Set the clock, for example with: timedatectl set-ntp true", "Set", "timedatectl"),
        ("Start it, for example with: ssh -D 8081 BASTION", "Start it", "ssh -D 8081 BASTION"),
        ("Tell the app's owner.", "Tell the app&#39;s owner.", ""),
        ("Nothing: awsome", "Nothing: awsome", ""),
    ],
)
def test_a_command_is_set_as_code(remedy: str, words: str, command: str) -> None:
    page = Stop(403, "x", "x", remedy).reply(b"text/html").body.decode()
    assert f"<p>{words}" in page
    assert (f"<pre>{command}" in page) if command else ("<pre>" not in page)


def test_json() -> None:
    body = PLANTED.reply(b"application/json").body
    assert json.loads(body) == {"error": EVIL, "message": EVIL, "remedy": EVIL}
    assert body.isascii()


def test_text_without_a_remedy() -> None:
    assert Stop(400, "No.", "no").reply(b"").body == b"iam-auth-proxy: No.   [no]\n"
    assert Stop(400, "No.", "no", "Go.").reply(b"").body == b"iam-auth-proxy: No.\n  Go.   [no]\n"


MEDIA = ("text/html", "application/json", "text/plain")


@given(st.binary(max_size=60))
def test_any_accept_has_one_of_three_answers(accept: bytes) -> None:
    reply = Stop(403, "code", "It happened.", "Do this.").reply(accept)
    assert dict(reply.headers)[b"Content-Type"] in {
        f"{media}; charset=utf-8".encode() for media in MEDIA
    }


@given(
    st.sampled_from(MEDIA),
    st.lists(st.sampled_from(("image/png", "audio/ogg", "application/x-thing")), max_size=3),
    st.booleans(),
)
def test_the_only_one_of_ours_that_is_asked_for_is_it(
    media: str, others: list[str], upper: bool
) -> None:
    accept = ", ".join([*others, media])
    reply = Stop(403, "code", "It happened.", "Do this.").reply(
        (accept.upper() if upper else accept).encode()
    )
    assert dict(reply.headers)[b"Content-Type"] == f"{media}; charset=utf-8".encode()
