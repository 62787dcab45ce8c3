"""Apps on https under names of .localhost, in a real browser: its own pages, and everybody else's.

Two apps behind real TLS, of an authority that only ``--cacert`` knows, each with a gate; one proxy.
The browser is given nothing: no proxy, no PAC, no authority.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import trustme
from aiohttp import web
from playwright.sync_api import Browser, Page, expect

from iam_auth_proxy.proxy.https.aliases import address_of
from tests.e2e.conftest import ARTIFACTS, USER_ARN, Stack
from tests.support import other_site
from tests.support.bound_app import BoundApp, in_thread
from tests.support.browser import FLAGS, launched
from tests.support.processes import Proxy, free_port, program
from tests.support.tls_peers import authority_file, server_context
from tests.support.upstreams import Socks5

pytestmark = [pytest.mark.e2e, pytest.mark.usefixtures("aws_of_the_app")]

SECRET = "the secret of the app"
SESSION = "__Host-iam-auth"
GIF = base64.b64decode("R0lGODlhBwAFAIAAAP///wAAACH5BAAAAAAALAAAAAAHAAUAAAIHhI+py+1dAAA7")
BIG = hashlib.sha256(b"big").digest() * (1 << 18)
WORKER = """
oninstall = () => skipWaiting();
onactivate = event => event.waitUntil(clients.claim());
onfetch = event => {
  const path = new URL(event.request.url).pathname;
  if (path.startsWith('/by-worker/'))
    event.respondWith(fetch('/a?by=worker').then(answer => answer.text())
      .then(text => new Response('worker: ' + text)));
};
"""


@dataclass
class Wiki:
    """One of the apps.

    :ivar effects: method and path of each request that it carried out.
    """

    name: str
    app: BoundApp
    effects: list[tuple[str, str]]

    @property
    def host(self) -> str:
        return f"{self.name}.corp.test"

    def seen(self, path: str) -> list[tuple[str, ...]]:
        """The cookies' names that came with each request for a path."""
        return [
            tuple(pair.split("=")[0] for value in each.all("Cookie") for pair in value.split("; "))
            for each in self.app.asked
            if each.target == path
        ]


@dataclass
class Scene:
    """Everything."""

    stack: Stack
    wiki: Wiki
    docs: Wiki
    proxy: Proxy
    browser: Browser
    other_port: int
    flags: list[str]
    env: dict[str, str]

    def url(self, app: Wiki, path: str = "/") -> str:
        return f"http://{app.name}.localhost:{self.proxy.port}{path}"

    @contextmanager
    def page(self, **options: Any) -> Iterator[Page]:
        """A page of a fresh profile."""
        context = self.browser.new_context(accept_downloads=True, **options)
        try:
            yield context.new_page()
        finally:
            context.close()


def routes_of(effects: list[tuple[str, str]], host: str) -> object:
    ended = asyncio.Event()

    async def page(request: web.Request) -> web.Response:
        answer = web.Response(text="<body>home", content_type="text/html")
        answer.headers.add("Set-Cookie", "__Host-own=1; Path=/; Secure; HttpOnly; SameSite=Strict")
        answer.headers.add("Set-Cookie", "wide=1; Domain=corp.test; Path=/; Secure")
        answer.headers.add("Set-Cookie", "shared=1; Domain=localhost; Path=/")
        answer.headers["Strict-Transport-Security"] = "max-age=31536000; includeSubDomains"
        answer.headers["Content-Security-Policy"] = (
            f"default-src https://{host}; connect-src https://{host} wss://{host}; "
            "script-src 'unsafe-inline' 'unsafe-eval' https:; upgrade-insecure-requests"
        )
        return answer

    async def away(request: web.Request) -> web.Response:
        raise web.HTTPFound(f"https://{host}/a?by=redirect")

    async def worker(request: web.Request) -> web.Response:
        return web.Response(text=WORKER, content_type="text/javascript")

    async def big(request: web.Request) -> web.StreamResponse:
        part = request.http_range
        headers = {"Content-Disposition": "attachment; filename=big", "Accept-Ranges": "bytes"}
        if part.start is None and part.stop is None:
            return web.Response(body=BIG, headers=headers)
        return web.Response(status=206, body=BIG[part.start : part.stop], headers=headers)

    async def events(request: web.Request) -> web.StreamResponse:
        stream = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await stream.prepare(request)
        await stream.write(b"data: first\n\n")
        await ended.wait()
        return stream

    async def do(request: web.Request) -> web.StreamResponse:
        effects.append((request.method, request.path_qs))
        name = request.match_info["name"]
        if name == "websocket":
            socket = web.WebSocketResponse()
            await socket.prepare(request)
            await socket.send_str(SECRET)
            return socket
        open_to_all = {"Access-Control-Allow-Origin": "*", "Cache-Control": "no-store"}
        if name.startswith("img"):
            return web.Response(body=GIF, content_type="image/gif", headers=open_to_all)
        kind = {"script": "javascript", "style": "css"}.get(name, "html")
        text = f"window.stolen = '{SECRET}'"
        return web.Response(text=text, content_type=f"text/{kind}", headers=open_to_all)

    def add(application: web.Application) -> None:
        async def end(application: web.Application) -> None:
            ended.set()

        application.on_shutdown.append(end)
        application.router.add_get("/home", page)
        application.router.add_get("/away", away)
        application.router.add_get("/worker.js", worker)
        application.router.add_get("/big", big)
        application.router.add_get("/events", events)
        application.router.add_route("*", "/do/{name:.*}", do)

    return add


@pytest.fixture(scope="module")
def scene(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    ARTIFACTS.mkdir(exist_ok=True)
    authority, folder = trustme.CA(), tmp_path_factory.mktemp("authority")
    ready = stack.ready
    with ExitStack() as exits:
        found = []
        for name in ("wiki", "docs"):
            host, effects = f"{name}.corp.test", list[tuple[str, str]]()
            app = exits.enter_context(
                in_thread(
                    stack.aws,
                    ready.server,
                    ready.key.arn,
                    f"https://{host}",
                    tls=server_context(authority.issue_cert(host)),
                    routes=routes_of(effects, host),
                )
            )
            found.append(Wiki(name, app, effects))
        flags = ["--cacert", authority_file(authority, folder), f"--alias-port={free_port()}"]
        for each in found:
            flags += [f"--alias={each.name}=https://{each.host}"]
            flags += [f"--connect-to={each.host}:443:127.0.0.1:{each.app.port}"]
        env = stack.env()
        proxy = Proxy(*flags, env=env)
        try:
            port = exits.enter_context(other_site.other_site())
            rules = f"--host-resolver-rules=MAP {other_site.HOST} 127.0.0.1:{port}"
            browser = exits.enter_context(launched(rules))
            yield Scene(stack, *found, proxy, browser, port, flags, env)
            assert "Traceback" not in proxy.output
        finally:
            assert proxy.stop() == 0, proxy.output


@contextmanager
def in_loop(upstream: Socks5) -> Iterator[Socks5]:
    """It serves on a loop of its own."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        asyncio.run_coroutine_threadsafe(upstream.__aenter__(), loop).result(20)
        yield upstream
        done = upstream.__aexit__(None, None, None)
        asyncio.run_coroutine_threadsafe(done, loop).result(20)
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


# -- the app's own pages ---------------------------------------------------------------------------


def test_it_is_just_there(scene: Scene) -> None:
    with scene.page() as page:
        answer = page.goto(scene.url(scene.wiki, "/a?x=1"))
        assert answer is not None
        assert (answer.status, page.url) == (200, scene.url(scene.wiki, "/a?x=1"))
        assert page.inner_text("body") == f"GET 0 bytes of {USER_ARN}"
        assert page.evaluate("isSecureContext")
        assert page.context.cookies() == []
        posted = page.evaluate("fetch('/b', {method: 'POST', body: 'xyz'}).then(a => a.text())")
        assert posted == f"POST 3 bytes of {USER_ARN}"
    (sent,) = [each for each in scene.wiki.app.asked if each.target == "/b"]
    assert sent.all("Origin") == ["https://wiki.corp.test"]
    assert sent.all("Referer") == ["https://wiki.corp.test/a?x=1"]
    assert sent.all("Host") == ["wiki.corp.test"]


def test_cookies_of_every_kind_and_the_session_of_none(scene: Scene) -> None:
    with scene.page() as page:
        page.goto(scene.url(scene.wiki, "/home"))
        page.goto(scene.url(scene.wiki, "/a?after"))
        kept = {(each["name"], each["domain"]): each for each in page.context.cookies()}
        assert {*kept} == {("__Host-own", "wiki.localhost"), ("wide", "wiki.localhost")}
        own = kept["__Host-own", "wiki.localhost"]
        assert (own["secure"], own["httpOnly"], own["sameSite"]) == (True, True, "Strict")
        assert page.evaluate("document.cookie") == "wide=1"
    assert scene.wiki.seen("/a?after") == [("__Host-own", "wide", SESSION)]


def test_a_policy_and_a_redirect_in_the_apps_own_name(scene: Scene) -> None:
    with scene.page() as page:
        page.goto(scene.url(scene.wiki, "/home"))
        text = page.evaluate("fetch('/a?by=fetch').then(answer => answer.text())")
        assert text == f"GET 0 bytes of {USER_ARN}"
        page.goto(scene.url(scene.wiki, "/away"))
        assert page.url == scene.url(scene.wiki, "/a?by=redirect")
        assert USER_ARN in page.inner_text("body")


def test_a_service_worker(scene: Scene) -> None:
    with scene.page() as page:
        page.goto(scene.url(scene.wiki, "/a"))
        said = page.evaluate(
            """async () => {
              await navigator.serviceWorker.register('/worker.js');
              await navigator.serviceWorker.ready;
              while (!navigator.serviceWorker.controller)
                await new Promise(done =>
                  navigator.serviceWorker.addEventListener('controllerchange', done));
              return (await fetch('/by-worker/x')).text();
            }"""
        )
        assert said == f"worker: GET 0 bytes of {USER_ARN}"


def test_a_websocket_and_a_stream(scene: Scene) -> None:
    with scene.page() as page:
        page.goto(scene.url(scene.wiki, "/home"))
        said = page.evaluate(
            """() => new Promise((done, failed) => {
              const socket = new WebSocket('ws://' + location.host + '/ws'), heard = [];
              socket.onopen = () => socket.send('ping');
              socket.onmessage = event => {
                heard.push(event.data);
                if (heard.length == 2) { socket.close(); done(heard) }
              };
              socket.onerror = () => failed('no socket');
            })"""
        )
        assert said == [USER_ARN, "ping"]
        first = page.evaluate(
            """() => new Promise((done, failed) => {
              const source = new EventSource('/events');
              source.onmessage = event => { source.close(); done(event.data) };
              source.onerror = () => failed('no stream');
            })"""
        )
        assert first == "first", "before the answer ended"


def test_a_download_and_a_part_of_it(scene: Scene, tmp_path: Path) -> None:
    with scene.page() as page:
        page.goto(scene.url(scene.wiki, "/a"))
        with page.expect_download() as download:
            page.evaluate("void (location.href = '/big')")
        download.value.save_as(tmp_path / "big")
        part = page.evaluate(
            """fetch('/big', {headers: {Range: 'bytes=5-9'}})
                .then(async a => [a.status, (await a.arrayBuffer()).byteLength])"""
        )
        assert part == [206, 5]
    assert (tmp_path / "big").read_bytes() == BIG


def test_two_apps_see_nothing_of_each_other(scene: Scene) -> None:
    with scene.page() as page:
        page.goto(scene.url(scene.wiki, "/home"))
        page.evaluate("localStorage.setItem('own', 'wiki')")
        page.goto(scene.url(scene.docs, "/a?alone"))
        assert USER_ARN in page.inner_text("body")
        assert page.evaluate("document.cookie") == ""
        assert page.evaluate("localStorage.getItem('own')") is None
        before = len(scene.wiki.app.asked)
        read = page.evaluate(
            "url => fetch(url, {credentials: 'include'}).then(a => a.text(), () => 'no')",
            scene.url(scene.wiki, "/do/cross"),
        )
        assert read == "no"
        assert len(scene.wiki.app.asked) == before
    assert scene.docs.seen("/a?alone")[-1] == (SESSION,)
    sessions = [
        value
        for app in (scene.wiki, scene.docs)
        for each in app.app.asked[-1:]
        for value in each.all("Cookie")
    ]
    assert len({*sessions}) == 2


def test_a_logout_and_the_way_back(scene: Scene) -> None:
    with scene.page() as page:
        page.goto(scene.url(scene.docs, "/a"))
        page.evaluate("fetch('/auth/logout', {method: 'POST'})")
        page.goto(scene.url(scene.docs, "/a?again"))
        assert page.url.startswith(f"{scene.proxy.url}/confirm/")
        assert "https://docs.corp.test" in page.inner_text("main")
        page.mouse.move(2, 2)
        page.get_by_role("button", name="Sign in").click()
        page.wait_for_url(scene.url(scene.docs, "/a?again"))
        assert page.inner_text("body") == f"GET 0 bytes of {USER_ARN}"


# -- everybody else's ------------------------------------------------------------------------------


def hostile(scene: Scene) -> dict[str, str]:
    """The same page from another site, another port of localhost, of this very name, and beside."""
    port = scene.other_port
    return {
        "site": f"http://{other_site.HOST}/",
        "localhost": f"http://localhost:{port}/",
        "same-name": f"http://wiki.localhost:{port}/",
        "beside": f"http://evil.localhost:{port}/",
    }


@pytest.mark.parametrize("place", ["site", "localhost", "same-name", "beside"])
def test_no_other_page_does_or_reads_anything(scene: Scene, place: str) -> None:
    kinds = (*other_site.WITHHELD, *other_site.FRAMED)
    with scene.page() as page:
        page.goto(scene.url(scene.wiki, "/home"))
        page.goto(hostile(scene)[place])
        asked, calls = len(scene.wiki.app.asked), len(scene.stack.aws.calls)
        learnt = page.evaluate(
            "([kinds, url]) => attack(kinds, url)",
            [kinds, scene.url(scene.wiki, f"/do/{place}-")],
        )
        assert {*learnt} == {*kinds}
        read = {name: text for name, text in learnt.items() if SECRET in text or text == "size"}
        assert read == {}
        for method in ("post", "get"):
            page.goto(hostile(scene)[place])
            url = scene.url(scene.wiki, f"/do/{place}-form")
            page.evaluate("([url, method]) => leave(url, method)", [url, method])
            page.wait_for_url(f"{url}*")
            assert "cross-site" in page.inner_text("body")
        assert [each for each in scene.wiki.effects if place in each[1]] == []
        reached = scene.wiki.app.asked[asked:]
        assert [each.target for each in reached if place in each.target] == []
        own = {dict(each.headers).get("sec-fetch-site") for each in reached}
        assert own <= {"same-origin", "none"}, "what the app's own page was still doing"
        assert len(scene.stack.aws.calls) == calls


def test_what_another_page_led_to_opens_by_a_click(scene: Scene) -> None:
    with scene.page() as page:
        page.goto(hostile(scene)["site"])
        url = scene.url(scene.wiki, "/do/clicked")
        page.evaluate("url => leave(url, 'get')", url)
        page.wait_for_url(f"{url}*")
        assert scene.wiki.seen("/do/clicked?a=b") == []
        page.get_by_role("link").wait_for()
        page.screenshot(path=ARTIFACTS / "alias-led-here.png")
        page.mouse.move(2, 2)  # it takes no click before the pointer was there for a second
        page.get_by_role("link").click()
        page.get_by_text("stolen").wait_for()
    assert ("GET", "/do/clicked?a=b") in scene.wiki.effects


def test_a_click_that_was_meant_for_a_window_in_front(scene: Scene) -> None:
    """That window closes at its first click, and the second is the first that comes here."""
    with scene.page() as page:
        page.goto(hostile(scene)["site"])
        url = scene.url(scene.wiki, "/do/front")
        page.evaluate("url => leave(url, 'get')", url)
        page.wait_for_url(f"{url}*")
        link = page.get_by_role("link")
        link.wait_for()
        where = link.bounding_box()
        assert where is not None
        page.mouse.dblclick(where["x"] + 9, where["y"] + 9)
        expect(page.get_by_text("Did you mean to open this?")).to_be_visible()
        assert scene.wiki.seen("/do/front?a=b") == []
        link.click()  # the pointer stayed
        page.get_by_text("stolen").wait_for()
    assert ("GET", "/do/front?a=b") in scene.wiki.effects


def test_a_finger_opens_it_too(scene: Scene) -> None:
    with scene.page(has_touch=True, is_mobile=True) as page:
        page.goto(hostile(scene)["site"])
        url = scene.url(scene.wiki, "/do/touched")
        page.evaluate("url => leave(url, 'get')", url)
        page.wait_for_url(f"{url}*")
        page.get_by_role("link").wait_for()
        page.get_by_role("link").tap()
        page.get_by_text("stolen").wait_for()


def test_the_apps_own_page_does_and_reads_all_of_it(scene: Scene) -> None:
    """What the test above would show if nothing stood in the way."""
    with scene.page() as page:
        page.goto(scene.url(scene.wiki, "/a"))
        page.evaluate(f"() => {{ {other_site.SCRIPT} Object.assign(window, {{attack}}) }}")
        kinds = [kind for kind in other_site.WITHHELD if kind not in ("prefetch", "video")]
        learnt = page.evaluate(
            "([kinds, url]) => attack(kinds, url)", [kinds, scene.url(scene.wiki, "/do/own-")]
        )
    done = {path.partition("own-")[2] for _, path in scene.wiki.effects if "own-" in path}
    assert {*kinds} <= done
    assert any(SECRET in text for text in learnt.values())


def test_an_address_of_its_own(scene: Scene) -> None:
    """For a browser that does not find names under .localhost."""
    port = next(flag for flag in scene.flags if "alias-port" in flag).partition("=")[2]
    wiki, docs = (f"http://{address_of(each)}:{port}" for each in ("wiki", "docs"))
    with scene.page() as page:
        page.goto(f"{wiki}/home")
        page.goto(f"{wiki}/away")
        assert page.url == f"{wiki}/a?by=redirect"
        kept = {(each["name"], each["domain"]) for each in page.context.cookies()}
        assert kept == {("__Host-own", address_of("wiki")), ("wide", address_of("wiki"))}
        page.goto(f"{docs}/a?addressed")
        assert USER_ARN in page.inner_text("body")
        url = f"{wiki}/do/addressed"
        assert page.evaluate("url => fetch(url).then(a => a.text(), () => 'no')", url) == "no"
    assert scene.docs.seen("/a?addressed")[-1] == (SESSION,)
    assert scene.wiki.seen("/do/addressed") == []


def test_programs(scene: Scene) -> None:
    """curl at the proxy's port, in a shell that points to the proxy, and by ``exec``."""
    quiet = [program("curl"), "-sS", "-m", "30"]
    flags = [flag for flag in scene.flags if not flag.startswith("--alias-port")]
    own = [sys.executable, "-m", "iam_auth_proxy", "exec", *flags, "--", *quiet]
    url = scene.url(scene.wiki, "/a?by=curl")
    for argv in ([*quiet, url], [*quiet, "-x", scene.proxy.url, url], [*own, "wiki.localhost/a"]):
        done = subprocess.run(argv, capture_output=True, text=True, env=scene.stack.env())
        assert done.stdout == f"GET 0 bytes of {USER_ARN}", done.stderr


def test_commands_name_it(scene: Scene) -> None:
    env, wiki = scene.env, scene.url(scene.wiki, "")

    def run(*args: str) -> str:
        argv = [sys.executable, "-m", "iam_auth_proxy", *args]
        done = subprocess.run(argv, capture_output=True, text=True, env=env, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout + done.stderr

    address = scene.flags[2].partition("=")[2]
    assert f"open {wiki}/ or http://{address_of('wiki')}:{address}/" in run("status")
    for name in ("https://wiki.corp.test/x", f"{wiki}/x", f"http://{address_of('wiki')}:{address}"):
        said = json.loads(run("whoami", "--json", name))
        assert (said["origin"], said["alias"]) == ("https://wiki.corp.test", wiki)
    assert f"open {wiki}/" in run("whoami", wiki)
    flags = [*FLAGS, "--virtual-time-budget=10000", "--dump-dom"]
    assert f"GET 0 bytes of {USER_ARN}" in run(
        "browser", "https://wiki.corp.test/a?by=command", "--", *flags
    )
    assert scene.wiki.seen("/a?by=command")[-1] == (SESSION,)
    assert "signed out of https://wiki.corp.test" in run("logout", wiki)
    run("logout", "--undo", wiki)


def test_through_socks(scene: Scene) -> None:
    """Names are looked up at the far end, where they lead to the app, and TLS goes all the way."""
    names = {each.host: ("127.0.0.1", each.app.port) for each in (scene.wiki, scene.docs)}
    with in_loop(Socks5(names=names)) as far:
        left_out = ("--connect-to", "--alias-port")
        flags = [flag for flag in scene.flags if not flag.startswith(left_out)]
        proxy = Proxy(*flags, f"--socks-proxy=127.0.0.1:{far.port}", env=scene.stack.env())
        try:
            with scene.page() as page:
                page.goto(f"http://wiki.localhost:{proxy.port}/a?by=socks")
                assert page.inner_text("body") == f"GET 0 bytes of {USER_ARN}"
            assert {*far.asked} == {("wiki.corp.test", 443)}
        finally:
            assert proxy.stop() == 0, proxy.output


def test_no_frame_shows_the_page_that_a_click_opens(scene: Scene) -> None:
    with scene.page() as page:
        page.goto(hostile(scene)["site"])
        page.evaluate("url => loaded(make('iframe'), url)", scene.url(scene.wiki, "/do/framed"))
        frame = page.frames[-1]
        assert "Open it only if" not in frame.content()
