"""A real browser signs in, submits a form and opens a WebSocket."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.e2e.conftest import APP, ARTIFACTS, USER_ARN, Stack
from tests.support.browser import browser

pytestmark = pytest.mark.e2e


def test_a_browser_signs_in_and_works(stack: Stack, tmp_path: Path) -> None:
    ARTIFACTS.mkdir(exist_ok=True)
    with stack.proxy() as proxy, browser(proxy.address, tmp_path) as context:
        page = context.new_page()
        urls: list[str] = []
        page.on("request", lambda request: urls.append(request.url))
        page.goto(f"{APP}/")
        assert USER_ARN in page.inner_text("body")
        assert page.url == f"{APP}/"
        page.screenshot(path=ARTIFACTS / "signed-in.png")
        assert not any("token=" in url for url in urls)
        (cookie,) = [each for each in context.cookies() if each["name"] == "iam-auth"]
        assert cookie["httpOnly"]
        assert cookie["sameSite"] == "Lax"

        page.fill("#message", "hello from a browser")
        page.get_by_role("button", name="Send").click()
        page.wait_for_load_state()
        assert "bytes" in page.inner_text("body")
        page.screenshot(path=ARTIFACTS / "form.png")

        page.goto(f"{APP}/socket")
        page.get_by_text(f"hello {USER_ARN}").wait_for()
        page.screenshot(path=ARTIFACTS / "socket.png")
    assert len(proxy.events("signed in")) == 1


def test_a_stop_page_in_a_browser(stack: Stack, tmp_path: Path) -> None:
    """A stranger that challenges: the page that says how to trust it, light and dark."""
    from tests.support.legacy_app import LegacyApp

    with (
        LegacyApp(stack.aws, stack.ready.server, stack.ready.key.arn) as app,
        stack.proxy("--connect-to", f"stranger.test:80:127.0.0.1:{app.port}") as proxy,
        browser(proxy.address, tmp_path) as context,
    ):
        page = context.new_page()
        answer = page.goto("http://stranger.test/private")
        assert answer is not None
        assert answer.status == 403
        assert "iam-auth-proxy trust add http://stranger.test" in page.inner_text("pre")
        page.screenshot(path=ARTIFACTS / "not-trusted.png")
        page.emulate_media(color_scheme="dark")
        page.screenshot(path=ARTIFACTS / "not-trusted-dark.png")
        page.goto(f"{proxy.url.replace('127.0.0.1', 'nobody.test')}/")
        page.screenshot(path=ARTIFACTS / "not-found.png")
