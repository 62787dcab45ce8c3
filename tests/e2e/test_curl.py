"""curl signs in: two redirects, then the ARN."""

from __future__ import annotations

import re

import pytest

from tests.e2e.conftest import APP, USER_ARN, Stack, curl

pytestmark = pytest.mark.e2e


def test_curl_with_a_cookie_jar_signs_in(stack: Stack) -> None:
    with stack.proxy() as proxy:
        shown = curl(proxy, "-D", "-", f"{APP}/check")
        heads = re.findall(r"^HTTP/1\.1 (\d+)", shown, re.MULTILINE)
        assert heads == ["302", "302", "200"]
        assert f"ok {USER_ARN}" in shown
        assert "token=" not in shown, "no token in any URL that the client sees"
        again = curl(proxy, f"{APP}/check")
        assert f"ok {USER_ARN}" in again
        assert len(proxy.events("signed in")) == 2


def test_the_originals_form_puts_the_token_in_the_url(stack: Stack) -> None:
    with stack.proxy("--sign-in", "redirect") as proxy:
        shown = curl(proxy, "-D", "-", f"{APP}/check?x=1")
        locations = re.findall(r"^[Ll]ocation: (.+?)\r?$", shown, re.MULTILINE)
        assert locations[0].startswith("//app.test/auth?")
        assert "token=" in locations[0]
        assert locations[1] == "/check?x=1"
        assert f"ok {USER_ARN}" in shown


def test_a_client_without_cookies_gets_an_explanation_not_a_loop(stack: Stack) -> None:
    with stack.proxy() as proxy:
        shown = curl(proxy, "--max-redirs", "20", "-D", "-", f"{APP}/check", cookies=False)
        assert re.findall(r"^HTTP/1\.1 (\d+)", shown, re.MULTILINE)[-1] == "401"
        assert "must keep cookies" in shown


def test_a_post_without_a_session_is_not_lost_in_a_redirect(stack: Stack) -> None:
    with stack.proxy() as proxy:
        shown = curl(proxy, "-D", "-", "--data", "a=b", f"{APP}/form")
        assert re.findall(r"^HTTP/1\.1 (\d+)", shown, re.MULTILINE) == ["403"]
        assert "nothing was sent" in shown
