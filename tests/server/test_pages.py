"""The gate's pages: three forms, no script, everything escaped."""

from __future__ import annotations

import base64
import hashlib
import html
import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from iam_auth_proxy.errors import WrongAccount
from iam_auth_proxy.names import parse_origin
from iam_auth_proxy.server import pages

APP = parse_origin("http://app.test")
CHROMIUM = "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,*/*;q=0.8"


@pytest.mark.parametrize(
    ("accept", "kind"),
    [
        (CHROMIUM, "text/html; charset=utf-8"),
        ("text/html;q=0, application/json", "application/json"),
        ("", "text/plain; charset=utf-8"),
    ],
)
def test_the_form_is_what_is_accepted(accept: str, kind: str) -> None:
    headers, _ = pages.render(pages.problem(WrongAccount("x")), accept)
    assert dict(headers)["Content-Type"] == kind


def test_the_page_for_people_without_the_proxy() -> None:
    page = pages.sign_in_needed(APP, "111122223333", "/a?b", "https://help.test/")
    for accept in ("text/html", "text/plain", "application/json"):
        headers, body = pages.render(page, accept)
        said = html.unescape(body.decode())
        assert "the help for this app says how" in said
        assert "pip install" not in said
        assert "iam-auth-proxy trust add http://app.test" in said
        assert "iam-auth-proxy browser 'http://app.test/a?b'" in said
        assert "127.0.0.1:8080/proxy.pac" in said
        assert "session-credentials" not in said
        assert "https://help.test/" in said
        assert "111122223333" in said
        assert dict(headers)["Cache-Control"] == "no-store"
    assert len(pages.render(page, "text/html")[1]) < 6000


def test_an_app_that_takes_session_credentials_alone_says_what_that_takes() -> None:
    page = pages.sign_in_needed(APP, "111122223333", "/", "", weakest=True)
    said = pages.render(page, "")[1].decode()
    assert "iam-auth-proxy trust add http://app.test --proof session-credentials\n" in said


def test_an_https_app_is_opened_by_its_alias() -> None:
    """Its 401 is not seen inside a tunnel."""
    page = pages.sign_in_needed(parse_origin("https://app.test"), "111122223333", "/a", "")
    said = pages.render(page, "")[1].decode()
    assert "iam-auth-proxy trust add https://app.test --https alias\n" in said
    assert "iam-auth-proxy browser https://app.test/a\n" in said
    assert "proxy.pac" not in said
    assert "exec" not in said


@given(st.text(max_size=80))
def test_a_target_is_shown_as_text_and_quoted_for_a_shell(target: str) -> None:
    page = pages.sign_in_needed(APP, "111122223333", target, "")
    body = pages.render(page, "text/html")[1].decode()
    assert len(re.findall(r"<(?!/)", body)) == _TAGS
    assert "<script" not in body


_TAGS = len(
    re.findall(
        r"<(?!/)",
        pages.render(pages.sign_in_needed(APP, "1" * 12, "/", ""), "text/html")[1].decode(),
    )
)


def test_a_target_cannot_end_the_quotes() -> None:
    page = pages.sign_in_needed(APP, "111122223333", "/';rm -rf ~;'", "")
    assert """'http://app.test/'"'"';rm -rf ~;'"'"''""" in pages.render(page, "")[1].decode()


def test_the_policy_allows_the_style_sheet_and_nothing_else() -> None:
    headers, body = pages.render(pages.problem(WrongAccount("x")), "text/html")
    policy = dict(headers)["Content-Security-Policy"]
    (style,) = re.findall(r"<style>(.*?)</style>", body.decode())
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    assert f"style-src 'sha256-{digest}'" in policy
    assert "default-src 'none'" in policy
    assert "frame-ancestors 'none'" in policy
    assert "style=" not in body.decode()
    assert "http" not in style


def test_a_problem_says_what_happened_what_to_do_and_its_code() -> None:
    page = pages.problem(WrongAccount("secret detail"), "https://help.test/")
    told = json.loads(pages.render(page, "application/json")[1])
    assert told["error"] == "wrong-account"
    assert told["title"] == "The app wants an identity of another AWS account"
    assert "secret detail" not in json.dumps(told)
