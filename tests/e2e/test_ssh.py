"""Sign-in through a real SOCKS tunnel: ``ssh -D`` to an sshd on loopback."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.conftest import APP, ARTIFACTS, USER_ARN, Stack, curl
from tests.support.bastion import Bastion
from tests.support.browser import browser
from tests.support.processes import free_port

pytestmark = pytest.mark.e2e


@pytest.fixture
def bastion(tmp_path: Path) -> Iterator[Bastion]:
    found = Bastion(tmp_path)
    yield found
    found.stop()


def test_sign_in_through_ssh_and_a_tunnel_that_dies_and_comes_back(
    stack: Stack, bastion: Bastion
) -> None:
    port = free_port()
    with stack.proxy("--socks-proxy", f"127.0.0.1:{port}") as proxy:
        down = curl(proxy, "-D", "-", f"{APP}/check")
        assert "502" in down.splitlines()[0]
        assert "Proxy-Status: iam-auth-proxy; error=" in down
        assert f"127.0.0.1:{port}" in down, "the page names the tunnel"
        assert "ssh" in down, "and what to do"
        with bastion.tunnel(port):
            assert f"ok {USER_ARN}" in curl(proxy, f"{APP}/check")
        assert "502" in curl(proxy, "-D", "-", f"{APP}/check").splitlines()[0]
        with bastion.tunnel(port):
            assert f"ok {USER_ARN}" in curl(proxy, f"{APP}/check")


# What Chromium sends along when a page is opened.
PAGE = (
    *("-H", "Accept: text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"),
    *("-H", "Upgrade-Insecure-Requests: 1"),
)


def test_curl_with_a_cookie_jar_signs_in_through_ssh(stack: Stack, bastion: Bastion) -> None:
    port = free_port()
    with bastion.tunnel(port), stack.proxy("--socks-proxy", f"127.0.0.1:{port}") as proxy:
        shown = curl(proxy, *PAGE, "-D", "-", f"{APP}/check")
    assert re.findall(r"^HTTP/1\.1 (\d+)", shown, re.MULTILINE) == ["302", "303", "200"]
    assert f"ok {USER_ARN}" in shown
    assert "token=" not in shown


def test_a_browser_signs_in_and_works_through_ssh(
    stack: Stack, bastion: Bastion, tmp_path: Path
) -> None:
    ARTIFACTS.mkdir(exist_ok=True)
    port = free_port()
    with (
        stack.proxy("--socks-proxy", f"127.0.0.1:{port}") as proxy,
        browser(proxy.address, tmp_path / "profile") as context,
    ):
        page = context.new_page()
        with bastion.tunnel(port):
            statuses: list[int] = []
            page.on("response", lambda response: statuses.append(response.status))
            page.goto(f"{APP}/")
            assert statuses[:3] == [302, 303, 200]
            assert USER_ARN in page.inner_text("#arn")
            assert page.url == f"{APP}/"
            page.screenshot(path=ARTIFACTS / "signed-in-ssh.png")

            page.fill("#message", "hello through a tunnel")
            page.get_by_role("button", name="Send").click()
            page.wait_for_url(f"{APP}/form")
            sent = hashlib.sha256(b"message=hello+through+a+tunnel").hexdigest()
            assert sent in page.inner_text("body")

            page.goto(f"{APP}/socket")
            page.get_by_text(f"hello {USER_ARN}").wait_for()
            page.fill("#message", "and back")
            page.get_by_role("button", name="Say").click()
            page.get_by_text("and back").wait_for()
        answer = page.goto(f"{APP}/")
        assert answer is not None
        assert answer.status == 502, "there was no other way"
    assert len(proxy.events("signed in")) == 1


def test_the_tunnel_is_up_but_the_app_is_not(stack: Stack, bastion: Bastion) -> None:
    port, nobody = free_port(), free_port()
    flags = ["--socks-proxy", f"127.0.0.1:{port}", "--trust", "http://down.test"]
    flags += ["--connect-to", f"down.test:80:127.0.0.1:{nobody}"]
    with bastion.tunnel(port), stack.proxy(*flags) as proxy:
        shown = curl(proxy, "-D", "-", "http://down.test/")
        assert "502" in shown.splitlines()[0]
        assert "the tunnel is up" in shown.lower()
