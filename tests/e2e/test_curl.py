"""curl signs in: two redirects, then the ARN."""

from __future__ import annotations

import re
import shutil
import subprocess
import urllib.request
from pathlib import Path

import pytest

from tests.e2e.conftest import APP, USER_ARN, Stack, curl
from tests.support.processes import base_env

pytestmark = pytest.mark.e2e


# What a browser says of a page that it loads, which is then sent through /auth.
PAGE = ("-H", "Upgrade-Insecure-Requests: 1")


def test_curl_with_a_cookie_jar_signs_in(stack: Stack) -> None:
    with stack.proxy() as proxy:
        shown = curl(proxy, *PAGE, "-D", "-", f"{APP}/check")
        heads = re.findall(r"^HTTP/1\.1 (\d+)", shown, re.MULTILINE)
        assert heads == ["302", "303", "200"]
        assert f"ok {USER_ARN}" in shown
        assert "token=" not in shown, "no token in any URL that the client sees"
        again = curl(proxy, *PAGE, f"{APP}/check")
        assert f"ok {USER_ARN}" in again
        assert len(proxy.events("signed in", least=2)) == 2


def test_programs_just_work(stack: Stack) -> None:
    with stack.proxy() as proxy:
        asked = [f"{APP}/check", f"{APP}/check"]
        for url in asked:
            shown = curl(proxy, "-D", "-", url, cookies=False)
            assert re.findall(r"^HTTP/1\.1 (\d+)", shown, re.MULTILINE) == ["200"]
            assert f"ok {USER_ARN}" in shown
        assert len(proxy.events("signed in")) == 1, "the session is held"
        assert proxy.events("signed in")[0]["proof"] == "signed-identity"


def test_the_proof_is_never_in_a_url(stack: Stack) -> None:
    with stack.proxy("--sign-in", "redirect") as proxy:
        shown = curl(proxy, *PAGE, "-D", "-", f"{APP}/check?x=1")
        assert "token=" not in shown
        assert f"ok {USER_ARN}" in shown


def test_a_page_without_cookies_gets_an_explanation_not_a_loop(stack: Stack) -> None:
    with stack.proxy() as proxy:
        shown = curl(proxy, *PAGE, "--max-redirs", "20", "-D", "-", f"{APP}/check", cookies=False)
        assert re.findall(r"^HTTP/1\.1 (\d+)", shown, re.MULTILINE)[-1] == "401"
        assert "must keep cookies" in shown


def test_a_large_post_survives_a_sign_in(stack: Stack, tmp_path: Path) -> None:
    body = tmp_path / "body"
    body.write_bytes(bytes(20_000_000))
    with stack.proxy() as proxy:
        for _ in range(2):
            shown = curl(
                proxy,
                *("-X", "POST", "--data-binary", f"@{body}", "-D", "-", f"{APP}/form"),
                cookies=False,
            )
            finals = [
                status
                for status in re.findall(r"^HTTP/1\.1 (\d+)", shown, re.MULTILINE)
                if status != "100"
            ]
            assert finals == ["200"]
            assert "20000000 bytes" in shown
        assert len(proxy.events("signed in")) == 1


def test_python_and_wget_are_programs_too(stack: Stack) -> None:
    with stack.proxy() as proxy:
        through = urllib.request.ProxyHandler({"http": proxy.url})
        opener = urllib.request.build_opener(through)
        for body in (None, b"a=b"):
            with opener.open(f"{APP}/form" if body else f"{APP}/check", body, timeout=30) as answer:
                assert answer.status == 200
        if wget := shutil.which("wget"):
            argv = [wget, "-q", "-O", "-", "-e", f"http_proxy={proxy.url}", f"{APP}/check"]
            done = subprocess.run(
                argv, capture_output=True, text=True, env=base_env(), check=True, timeout=30
            )
            assert f"ok {USER_ARN}" in done.stdout
        assert len(proxy.events("signed in")) == 1
