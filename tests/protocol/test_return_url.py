"""The one rule for return_url. The cases are data: tests/vectors/return_url.json.

Besides the list, what the rule accepts is resolved here as browsers resolve a Location (WHATWG URL,
the relative states, for an http base), and must come out on the same host, unchanged.
"""

from __future__ import annotations

import re
from urllib.parse import unquote, urljoin, urlsplit

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from iam_auth_proxy.errors import Malformed
from iam_auth_proxy.protocol.handoff import check_return_url
from tests.support import vectors

BASE = "http://app.test/auth?token=x"


def resolve(location: str) -> tuple[str, str]:
    """Host and path-with-query that a browser asks for, at ``location`` from :data:`BASE`."""
    text = re.sub(r"[\t\n\r]", "", location.strip("".join(map(chr, range(0x21)))))
    if match := re.match(r"[A-Za-z][A-Za-z0-9+.-]*:", text):
        return match[0], text
    text = text.partition("#")[0]
    path, mark, query = text.partition("?")
    path = path.replace("\\", "/")
    if path.startswith("//"):
        return path.lstrip("/").partition("/")[0], text
    resolved: list[str] = []
    for segment in path.split("/"):
        plain = re.sub("%2e", ".", segment, flags=re.IGNORECASE)
        if plain == "..":
            del resolved[1:][-1:]
        elif plain != ".":
            resolved.append(segment)
    return "app.test", "/".join(resolved) + mark + query


@pytest.mark.parametrize("text", vectors.accepted("return_url"))
def test_is_accepted_as_it_is(text: str) -> None:
    assert check_return_url(text) == text


@pytest.mark.parametrize("text", vectors.accepted("return_url"))
def test_what_is_accepted_stays_on_this_host(text: str) -> None:
    assert resolve(text) == ("app.test", text)
    assert urlsplit(urljoin(BASE, text)).netloc == "app.test"


@pytest.mark.parametrize(("text", "error"), vectors.refused("return_url"))
def test_is_refused(text: str, error: str) -> None:
    with pytest.raises(Malformed, match=re.escape(error)):
        check_return_url(text)


def test_the_corpus_is_large() -> None:
    assert len(vectors.refused("return_url")) > 300


@pytest.mark.parametrize(
    ("text", "auth_path"),
    [
        ("/iam/sign-in", "/iam/sign-in"),
        ("/iam//sign-in/logout", "/iam/sign-in"),
        ("/IAM/Sign-In", "/iam/sign-in"),
        ("/iam/sign-in", "/IAM/sign-in"),
        ("/iam%2fsign-in", "/iam/sign-in"),
        ("/iam;x/sign-in;y", "/iam/sign-in"),
    ],
)
def test_the_auth_path_is_the_apps_own(text: str, auth_path: str) -> None:
    with pytest.raises(Malformed, match="the sign-in itself"):
        check_return_url(text, auth_path=auth_path)


def test_another_apps_auth_path_is_a_path() -> None:
    assert check_return_url("/auth/logout", auth_path="/iam") == "/auth/logout"
    assert check_return_url("/iam", auth_path="/iam/sign-in") == "/iam"


# What is dangerous, and what may stand beside it.
PARTS = st.one_of(
    st.sampled_from("/\\.;?#@:%a\t\n\r \0\u00e9\u2028\uff0f"),
    st.sampled_from(["..", "%2f", "%5C", "%2e", "%25", "%09", "%0a", "%20", "%00", "%c0%af"]),
    st.sampled_from(["auth", "%61uth", "AUTH", "logout", "evil.example", "http:", "%e2%80%a8"]),
)


@settings(max_examples=400)
@given(st.lists(PARTS, max_size=8).map("".join) | st.text(max_size=20))
@example("/%2e%2e//evil.example")
def test_whatever_is_accepted_is_safe(text: str) -> None:
    for candidate in (text, "/" + text):
        try:
            accepted = check_return_url(candidate)
        except Malformed:
            continue
        assert accepted == candidate
        assert accepted.isascii()
        assert resolve(accepted) == ("app.test", accepted)
        path = accepted.partition("?")[0]
        for _ in range(4):  # as many servers as like may decode it
            assert re.match(r"/\s*[/\\]", path) is None
            assert not {".", ".."} & set(re.split(r"[/\\]", path))
            assert re.match(r"/+auth(?![^/\\;])", path, re.IGNORECASE) is None
            path = unquote(path)
