"""What another site's page makes a real browser send gets nothing added by the proxy.

Everything is done twice: in a browser that reaches the app directly, and in one that goes through
the proxy (by its PAC) with a session held there for programs. The app has to see the same requests,
to the byte. A session is valid, over or absent; its cookie says SameSite=Lax or does not say it.
"""

from __future__ import annotations

import base64
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
from aiohttp import web
from playwright.sync_api import Browser, Page

from iam_auth_proxy.testing import Cookie, signed_in
from tests.e2e.conftest import USER_ARN, Stack, curl
from tests.support import other_site
from tests.support.bound_app import Asked, BoundApp, in_thread
from tests.support.browser import another, launched
from tests.support.processes import Proxy

pytestmark = [pytest.mark.e2e, pytest.mark.usefixtures("aws_of_the_app")]

SECRET = "the secret of the app"
SIBLING = "sibling.victim.test"
"""The other site's page under a name of the app's own domain: to browsers the same site."""
GIF = base64.b64decode("R0lGODlhBwAFAIAAAP///wAAACH5BAAAAAAALAAAAAAHAAUAAAIHhI+py+1dAAA7")
HOUR = 3600.0

# A state's name, how old its session is (None: there is none), and what its cookie says.
# A page that needs no session, and asks for what does as soon as somebody shows it.
SHELL = """<!doctype html><link rel=icon href=data:,><script>
const base = location.hash.slice(1);
const text = answer => answer.ok ? answer.text() : '';
const socket = () => new Promise(done => {
  const socket = new WebSocket(location.origin.replace('http', 'ws') + base + 'websocket');
  socket.onmessage = event => done(event.data);
  socket.onclose = () => done('');
});
const asked = Promise.all([
  fetch(base + 'fetched').then(text, () => ''),
  fetch(base + 'posted', {method: 'POST', body: 'x'}).then(text, () => ''),
  new Promise(done => {
    const image = new Image();
    image.onload = () => done('size'); image.onerror = () => done('');
    image.src = base + 'img';
  }),
]).then(async all => [...all, await socket()]);
asked.then(all => parent.postMessage(all, '*'));
</script>"""

STATES: dict[str, tuple[float | None, dict[str, str]]] = {
    "lax": (0, {"sameSite": "Lax"}),
    "unsaid": (0, {}),
    "over-lax": (13 * HOUR, {"sameSite": "Lax"}),
    "over-unsaid": (13 * HOUR, {}),
    "absent": (None, {}),
}


def at(state: str) -> str:
    """Each state has an origin of its own: sign-ins of one are limited."""
    return f"http://{state}.victim.test"


Request = tuple[str, tuple[tuple[str, str], ...]]


@dataclass
class Victim:
    """An app that does something at every request that it lets in, and lets everybody read.

    :ivar effects: the method and target of each request that it carried out.
    """

    app: BoundApp
    effects: list[tuple[str, str]] = field(default_factory=list)
    sessions: dict[str, Cookie] = field(default_factory=dict)

    def session(self, state: str, age: float) -> Cookie:
        """The same for both browsers."""
        if state not in self.sessions:
            made = signed_in(self.app.gate, USER_ARN, origin=at(state), now=time.time() - age)
            self.sessions[state] = made
        return self.sessions[state]

    def seen(self, prefix: str) -> dict[str, list[Request]]:
        """What it was asked below a path, as it came, by target."""
        found: dict[str, list[Request]] = {}
        for asked in self.app.asked:
            if asked.target.startswith(prefix):
                target = asked.target.removeprefix(prefix)
                found.setdefault(target, []).append((asked.method, _comparable(asked)))
        return found


# Of one connection only; and the mark by which the proxy knows its own requests (RFC 8586).
PASSING = ("connection", "proxy-connection", "keep-alive", "upgrade", "sec-websocket-key")
OURS = ("cdn-loop", "iam-auth-proxy")


def _comparable(asked: Asked) -> tuple[tuple[str, str], ...]:
    """Its fields without those that say nothing about who asks for what."""
    fields = ((name.lower(), value) for name, value in asked.headers)
    return tuple(field for field in fields if field[0] not in PASSING and field != OURS)


@dataclass
class Scene:
    """Both browsers, and what is between one of them and the app."""

    stack: Stack
    victim: Victim
    proxy: Proxy
    direct: Browser
    proxied: Browser


@contextmanager
def victim(stack: Stack) -> Iterator[Victim]:
    found: list[Victim] = []

    def routes(application: web.Application) -> None:
        async def do(request: web.Request) -> web.StreamResponse:
            found[0].effects.append((request.method, request.path_qs))
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

        async def shell(request: web.Request) -> web.Response:
            return web.Response(text=SHELL, content_type="text/html")

        application.router.add_get("/shell", shell)
        application.router.add_route("*", "/{browser}/{state}/{name}", do)

    ready, origins = stack.ready, [at(state) for state in STATES]
    with in_thread(
        stack.aws,
        ready.server,
        ready.key.arn,
        "",
        routes=routes,
        origins=origins,
        public=["/shell"],
    ) as app:
        found.append(Victim(app))
        yield found[0]


@pytest.fixture(scope="module")
def scene(stack: Stack) -> Iterator[Scene]:
    with victim(stack) as app, other_site.other_site() as port:
        hosts = [at(state).removeprefix("http://") for state in STATES]
        flags = [f"--connect-to={host}:80:127.0.0.1:{app.app.port}" for host in hosts]
        flags += [f"--trust=http://{host}" for host in hosts]
        proxy = Proxy(*flags, env=stack.env())
        names = f"--host-resolver-rules=MAP {SIBLING} 127.0.0.1:{port}"
        names += f",MAP *.victim.test 127.0.0.1:{app.app.port}"
        names += f",MAP {other_site.HOST} 127.0.0.1:{port}"
        try:
            with (
                launched(names) as direct,
                another(
                    direct.browser_type, names, f"--proxy-pac-url={proxy.url}/proxy.pac"
                ) as proxied,
            ):
                yield Scene(stack, app, proxy, direct, proxied)
            assert "Traceback" not in proxy.output
        finally:
            assert proxy.stop() == 0, proxy.output


@contextmanager
def visiting(
    browser: Browser, victim: Victim, state: str, host: str = other_site.HOST
) -> Iterator[Page]:
    """A page of the other site, in a browser that may hold a session of the app."""
    age, said = STATES[state]
    context = browser.new_context()
    try:
        if age is not None:
            made = victim.session(state, age)
            cookie: Any = {"name": made.name, "value": made.value, "url": at(state), **said}
            context.add_cookies([cookie])
        page = context.new_page()
        page.goto(f"http://{host}/")
        yield page
    finally:
        context.close()


@dataclass
class Visit:
    """The other site's page in both browsers, in the same state."""

    state: str
    direct: Page
    proxied: Page

    def attack(self, name: str, kinds: tuple[str, ...]) -> dict[str, str]:
        """What the page could learn, by kind; the app sees it all below ``/NAME/STATE/``."""
        page: Page = getattr(self, name)
        url = f"{at(self.state)}/{name}/{self.state}/"
        learnt: dict[str, str] = page.evaluate("([kinds, url]) => attack(kinds, url)", [kinds, url])
        return learnt


@pytest.fixture(scope="module", params=STATES)
def visit(scene: Scene, request: pytest.FixtureRequest) -> Iterator[Visit]:
    """Shared by the tests below, of which the last one leaves the page."""
    state = request.param
    with (
        visiting(scene.direct, scene.victim, state) as direct,
        visiting(scene.proxied, scene.victim, state) as proxied,
    ):
        yield Visit(state, direct, proxied)


def readable(learnt: dict[str, str]) -> dict[str, str]:
    """What of it should not have been."""
    return {name: text for name, text in learnt.items() if SECRET in text or text == "size"}


def test_what_the_browser_withholds_is_not_added(scene: Scene, visit: Visit) -> None:
    kinds, state = other_site.WITHHELD, visit.state
    # A program signs in through the same proxy, and its session is held there.
    assert USER_ARN in curl(scene.proxy, f"{at(state)}/by-program", cookies=False)
    visit.attack("direct", kinds)
    calls, handed_over = len(scene.stack.aws.calls), len(scene.victim.app.handed_over)
    assert readable(visit.attack("proxied", kinds)) == {}
    assert carried_out(scene, state) == []
    seen, plain = (scene.victim.seen(f"/{name}/{state}/") for name in ("proxied", "direct"))
    assert {name: seen[name] for name in kinds if seen[name] != plain[name]} == {}
    assert len(scene.stack.aws.calls) == calls
    assert len(scene.victim.app.handed_over) == handed_over


def test_frames_get_no_session(scene: Scene, visit: Visit) -> None:
    """They look like pages and are sent through /auth: the browser takes no cookie there."""
    kinds, state = other_site.FRAMED, visit.state
    handed_over = len(scene.victim.app.handed_over)
    visit.attack("direct", kinds)
    assert readable(visit.attack("proxied", kinds)) == {}
    assert carried_out(scene, state) == []
    seen, plain = (scene.victim.seen(f"/{name}/{state}/") for name in ("proxied", "direct"))
    for name in (*kinds[:-1], f"{kinds[-1]}?a=b"):
        (as_it_is,) = plain[name]
        assert set(seen[name]) <= {as_it_is, without(as_it_is, "referer")}, name
    assert len(scene.victim.app.handed_over) - handed_over <= len(kinds)


def test_a_form_that_leaves_the_page(scene: Scene, visit: Visit) -> None:
    """A post is what the browser makes of it, and nothing more."""
    calls, state = len(scene.stack.aws.calls), visit.state
    for name, page in (("direct", visit.direct), ("proxied", visit.proxied)):
        url = f"{at(state)}/{name}/{state}/form"
        page.evaluate("url => leave(url, 'post')", url)
        page.wait_for_url(url)
    seen, plain = (scene.victim.seen(f"/{name}/{state}/") for name in ("proxied", "direct"))
    assert seen["form"] == plain["form"]
    # Chromium itself sends a cookie that is younger than two minutes and says nothing of SameSite.
    effects = [method for method, _ in carried_out(scene, state)]
    assert effects == (["POST", "POST"] if state == "unsaid" else [])
    assert len(scene.stack.aws.calls) == calls


def carried_out(scene: Scene, state: str) -> list[tuple[str, str]]:
    return [effect for effect in scene.victim.effects if f"/{state}/" in effect[1]]


SHOWN = """url => new Promise(done => {
  addEventListener('message', event => done(event.data));
  document.body.append(Object.assign(document.createElement('iframe'), {src: url}));
})"""


@pytest.mark.parametrize("state", ["lax", "over-lax", "absent"])
def test_the_apps_own_page_in_a_frame(scene: Scene, state: str) -> None:
    """What it asks for looks like its own wish; but the browser withholds the cookie there."""
    url = f"{at(state)}/shell#/framed/{state}/"
    with visiting(scene.proxied, scene.victim, state) as page:
        assert page.evaluate(SHOWN, url) == ["", "", "", ""]
    assert not [effect for effect in scene.victim.effects if effect[1].startswith("/framed/")]


def test_the_apps_own_page_by_itself(scene: Scene) -> None:
    """It needs no session, and what it asks for then begins one."""
    state = "absent"
    with visiting(scene.proxied, scene.victim, state) as page:
        page.goto(f"{at(state)}/shell#/itself/{state}/")
        learnt = page.evaluate("asked")
    assert [SECRET in text for text in learnt] == [True, True, False, True]
    assert learnt[2] == "size"
    effects = [effect for effect in scene.victim.effects if effect[1].startswith("/itself/")]
    assert sorted(method for method, _ in effects) == ["GET", "GET", "GET", "POST"]


def test_a_page_that_is_opened_from_elsewhere(scene: Scene) -> None:
    """A sign-in gives it what a session would have given it, and no more than the browser sends."""
    with visiting(scene.direct, scene.victim, "lax") as page:
        page.evaluate("url => leave(url, 'get')", at("lax") + "/direct/get/form")
        page.wait_for_url("**/form?a=b")
    with visiting(scene.proxied, scene.victim, "absent") as page:
        page.evaluate("url => leave(url, 'get')", at("absent") + "/proxied/get/form")
        page.wait_for_url("**/form?a=b")
        assert SECRET in page.content()
    (opened,) = scene.victim.seen("/direct/get/")["form?a=b"]
    challenged, repeated = scene.victim.seen("/proxied/get/")["form?a=b"]
    assert without(challenged, "host") == without(opened, "cookie", "host")
    assert without(repeated, "cookie", "host") == without(opened, "cookie", "referer", "host")


def without(request: Request, *names: str) -> Request:
    """What a redirect of ours takes away: it tells the browser not to say where it came from."""
    return request[0], tuple(field for field in request[1] if field[0] not in names)


@pytest.mark.parametrize("way", ["direct", "proxied"])
def test_no_page_of_the_same_site_opens_a_websocket(scene: Scene, way: str) -> None:
    """The browser sends the session along; the gate goes by Origin."""
    before = len(scene.victim.effects)
    url = f"{at('lax')}/{way}/beside/"
    with visiting(getattr(scene, way), scene.victim, "lax", SIBLING) as page:
        learnt = page.evaluate("url => attack(['websocket'], url)", url)
        assert learnt == {"websocket": ""}
        assert scene.victim.effects[before:] == []
        (asked,) = scene.victim.seen(f"/{way}/beside/")["websocket"]
        assert ("origin", f"http://{SIBLING}") in asked[1]
        assert any(name == "cookie" and value.startswith("iam-auth=") for name, value in asked[1])
        page.goto(at("lax") + f"/{way}/own/page")
        own = """url => new Promise(done => {
            const socket = new WebSocket(url);
            socket.onmessage = event => done(event.data);
            socket.onclose = () => done('');
        })"""
        assert page.evaluate(own, url.replace("http", "ws") + "websocket") == SECRET
