"""Apps that ask for a client certificate, intercepted, in a real browser: for whom it is shown.

Two apps behind real TLS, each with a gate: ``strict`` refuses every connection without one,
``asks`` takes both. Pages of another site, and of the same site, try whatever a page can.
"""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import trustme
from aiohttp import web
from aiohttp.typedefs import Handler
from playwright.sync_api import BrowserContext, Page, sync_playwright

from tests.e2e.conftest import ARTIFACTS, USER_ARN, Stack
from tests.support import other_site
from tests.support.bound_app import BoundApp, in_thread
from tests.support.browser import through
from tests.support.intercepted import at_home, make_ca, trusting
from tests.support.processes import Proxy
from tests.support.tls_peers import authority_file, key_pair, server_context

pytestmark = [pytest.mark.e2e, pytest.mark.usefixtures("aws_of_the_app")]

SECRET = "the secret of the app"
SIBLING = "https://sibling.corp.test/"
"""Of the same site as the apps."""


@dataclass
class App:
    """One of the apps.

    :ivar shown: (method and target, whether a client certificate came with its connection).
    """

    name: str
    shown: list[tuple[str, bool]] = field(default_factory=list)
    app: BoundApp | None = None

    @property
    def reach(self) -> str:
        """The flag that leads the proxy to it."""
        assert self.app is not None
        return f"--connect-to={self.host}:443:127.0.0.1:{self.app.port}"

    @property
    def host(self) -> str:
        return f"{self.name}.corp.test"

    def url(self, path: str) -> str:
        return f"https://{self.host}{path}"

    def of(self, mark: str) -> list[tuple[str, bool]]:
        """Those whose target has the mark in it."""
        return [each for each in self.shown if mark in each[0]]


@dataclass
class Scene:
    """Everything."""

    strict: App
    asks: App
    context: BrowserContext
    proxy: Proxy

    @contextmanager
    def page(self) -> Iterator[Page]:
        page = self.context.new_page()
        page.route(SIBLING, lambda route: route.fulfill(body=other_site.PAGE))
        try:
            yield page
        finally:
            page.close()
            self.context.clear_cookies()


def routes_of(app: App) -> Any:
    @web.middleware
    async def look(request: web.Request, handler: Handler) -> web.StreamResponse:
        assert request.transport is not None
        shown = bool(request.transport.get_extra_info("peercert"))
        app.shown.append((f"{request.method} {request.path_qs}", shown))
        return await handler(request)

    async def do(request: web.Request) -> web.StreamResponse:
        open_to_all = {"Access-Control-Allow-Origin": "*", "Cache-Control": "no-store"}
        text = f"window.stolen = '{SECRET}'"
        return web.Response(text=text, content_type="text/html", headers=open_to_all)

    def add(application: web.Application) -> None:
        application.middlewares.insert(0, look)
        application.router.add_route("*", "/do/{name:.*}", do)

    return add


@pytest.fixture(scope="module")
def scene(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    ARTIFACTS.mkdir(exist_ok=True)
    folder, home = tmp_path_factory.mktemp("tls"), tmp_path_factory.mktemp("home")
    authority, env, ready = trustme.CA(), stack.env(), stack.ready
    theirs = authority_file(authority, folder)
    mine = key_pair(authority.issue_cert("me@corp.test", common_name="me"), folder)
    apps = {"strict": ssl.CERT_REQUIRED, "asks": ssl.CERT_OPTIONAL}
    config = f'cacert = "{theirs}"\n'
    with ExitStack() as exits:
        found = []
        for name, mode in apps.items():
            app = App(name)
            tls = server_context(authority.issue_cert(app.host))
            tls.verify_mode = mode
            tls.load_verify_locations(theirs)
            serving = in_thread(
                stack.aws, ready.server, ready.key.arn, app.url(""), tls=tls, routes=routes_of(app)
            )
            app.app = exits.enter_context(serving)
            found.append(app)
            config += f'[[app]]\norigin = "{app.url("")}"\nhttps = "intercept"\n'
            config += f'client_cert = "{mine[0]}"\nclient_key = "{mine[1]}"\n'
        ours = make_ca(env, "corp.test")
        trusting(home, ours, Path(theirs))
        (folder / "config.toml").write_text(config)
        flags = [app.reach for app in found]
        proxy = Proxy("--config", str(folder / "config.toml"), *flags, env=env)
        try:
            port = exits.enter_context(other_site.other_site())
            names = f"--host-resolver-rules=MAP {other_site.HOST} 127.0.0.1:{port}"
            pac = through(proxy.address, *(app.host for app in found))
            playwright = exits.enter_context(sync_playwright())
            browser = exits.enter_context(at_home(playwright.chromium, home, names, pac))
            yield Scene(*found, browser, proxy)
            assert "Traceback" not in proxy.output
        finally:
            assert proxy.stop() == 0, proxy.output


# -- the person, and the app's own pages -----------------------------------------------------------

SOCKET = """() => new Promise((done, failed) => {
    const socket = new WebSocket('wss://' + location.host + '/ws');
    socket.onerror = () => failed(new Error('no socket'));
    socket.onmessage = event => done(event.data);
})"""


def test_an_app_that_insists_opens_and_works(scene: Scene) -> None:
    strict, text = scene.strict, f"GET 0 bytes of {USER_ARN}"
    with scene.page() as page:
        answer = page.goto(strict.url("/a?typed"))
        assert answer is not None
        assert (answer.status, page.url) == (200, strict.url("/a?typed"))
        assert page.inner_text("body") == text
        assert "__Host-iam-auth" in {cookie["name"] for cookie in page.context.cookies()}
        assert page.evaluate("fetch('/a?fetched').then(answer => answer.text())") == text
        assert page.evaluate(SOCKET) == USER_ARN
        page.evaluate("() => { location.href = '/a?own' }")
        page.wait_for_url(strict.url("/a?own"))
        assert page.inner_text("body") == text
        page.reload()
        assert page.inner_text("body") == text
    assert all(shown for _, shown in strict.shown)


@pytest.mark.parametrize("place", [f"http://{other_site.HOST}/", SIBLING], ids=["site", "sibling"])
def test_a_link_that_is_clicked(scene: Scene, place: str) -> None:
    """As a cookie with SameSite=Lax would go along, and signed in the same way."""
    mark = f"clicked-{len(place)}"
    with scene.page() as page:
        page.goto(place)
        page.set_content(f'<a href="{scene.strict.url(f"/a?{mark}")}">there</a>')
        page.click("a")
        page.wait_for_url(scene.strict.url(f"/a?{mark}"))
        assert page.inner_text("body") == f"GET 0 bytes of {USER_ARN}"
    assert scene.strict.of(mark) == [(f"GET /a?{mark}", True)] * 2


# -- everybody else --------------------------------------------------------------------------------


def led(page: Page, place: str, url: str, method: str) -> None:
    """A form of that page is sent off by its script; what a test evaluates counts as a click."""
    script = f"<script>onload = () => setTimeout(() => leave('{url}', '{method}'))</script>"
    page.route(place + "leave", lambda route: route.fulfill(body=other_site.PAGE + script))
    page.goto(place + "leave", wait_until="commit")
    page.wait_for_url(f"{url}*")
    page.unroute(place + "leave")


@pytest.mark.parametrize("signed_in", [False, True], ids=["signed-out", "signed-in"])
@pytest.mark.parametrize("place", [f"http://{other_site.HOST}/", SIBLING], ids=["site", "sibling"])
def test_what_another_page_asks_for_has_none(scene: Scene, place: str, signed_in: bool) -> None:
    mark = f"{'in' if signed_in else 'out'}-{len(place)}-"
    kinds = tuple(
        kind for kind in (*other_site.WITHHELD, *other_site.FRAMED) if kind not in LEFT_OUT
    )
    with scene.page() as page:
        for app in (scene.asks, scene.strict):
            if signed_in:  # connections with a certificate are there, idle
                page.goto(app.url("/a"))
            page.goto(place)
            learnt = page.evaluate(
                "([kinds, url]) => attack(kinds, url)", [kinds, app.url(f"/do/{mark}")]
            )
            assert {*learnt} == {*kinds}
            if app is scene.strict or not signed_in:
                assert not any(SECRET in said for said in learnt.values())
            for method in ("post", "get"):
                led(page, place, app.url(f"/do/{mark}form"), method)
    asked = scene.asks.of(mark)
    assert len({what for what, _ in asked}) >= len(kinds), "it is there to be asked"
    assert not any(shown for _, shown in asked)
    assert scene.strict.of(mark) == []


LEFT_OUT = ("prefetch",)  # of a failure nobody tells the page


def test_what_a_script_leads_to_opens_by_a_click(scene: Scene) -> None:
    url = scene.strict.url("/do/led")
    with scene.page() as page:
        page.goto(scene.strict.url("/a"))
        led(page, f"http://{other_site.HOST}/", url, "get")
        said = page.inner_text("main")
        assert "your client certificate was not shown" in said
        assert "Open it only if you meant to" in said
        assert scene.strict.of("led") == []
        page.get_by_role("link").wait_for()
        page.screenshot(path=ARTIFACTS / "certificate-led-here.png")
        page.mouse.move(2, 2)  # it takes no click before the pointer was there for a second
        page.get_by_role("link").click()
        page.get_by_text("stolen").wait_for()
    assert scene.strict.of("led") == [("GET /do/led?a=b", True)]


def test_no_frame_shows_that_page(scene: Scene) -> None:
    with scene.page() as page:
        page.goto(f"http://{other_site.HOST}/")
        page.evaluate("url => loaded(make('iframe'), url)", scene.strict.url("/do/framed"))
        assert "Open it only if" not in page.frames[-1].content()
    assert scene.strict.of("framed") == []
