"""Every way into an app, in a real browser: asked on the proxy's own page, and then just there."""

from __future__ import annotations

import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect

from iam_auth_proxy.config.values import parse_trust
from iam_auth_proxy.local_aws import Keys, allow
from iam_auth_proxy.proxy.decisions.trust import Trust
from iam_auth_proxy.proxy.decisions.trustfile import TrustFile
from iam_auth_proxy.proxy.pages import pac
from tests.e2e.conftest import APP, ARTIFACTS, USER_ARN, Stack
from tests.support.bound_app import BoundApp, in_thread
from tests.support.browser import another, launched, through
from tests.support.processes import Proxy, free_port

pytestmark = [pytest.mark.e2e, pytest.mark.usefixtures("aws_of_the_app")]

# Hosts of one app, so that tests do not see what the others said.
HOSTS = ("app", "always", "once", "no", "front", "keyboard", "finger", "noscript", "left", "framed")


@dataclass
class Scene:
    """An app, a proxy that trusts some of its names alone, and a browser behind it.

    :ivar home: where the proxy writes what it is told to remember.
    :ivar moved_port: where nobody serves ``moved.test`` yet.
    """

    stack: Stack
    app: BoundApp
    proxy: Proxy
    browser: Browser
    home: Path
    moved_port: int

    @property
    def key(self) -> str:
        return self.stack.ready.key.arn

    @contextmanager
    def page(self, **options: object) -> Iterator[Page]:
        context: BrowserContext = self.browser.new_context(**options)  # type: ignore[arg-type]  # passed on
        try:
            yield context.new_page()
        finally:
            context.close()


@pytest.fixture(scope="module")
def scene(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    ARTIFACTS.mkdir(exist_ok=True)
    home = tmp_path_factory.mktemp("home")
    origins = [f"http://{host}.test" for host in HOSTS]
    moved_port = free_port()
    with serving(stack, origins) as app:
        ports = {f"{host}.test": app.port for host in HOSTS} | {"moved.test": moved_port}
        flags = [f"--connect-to={host}:80:127.0.0.1:{port}" for host, port in ports.items()]
        flags += [f"--trust=http://{host}.test" for host in ("app", "left", "moved")]
        proxy = Proxy(*flags, env=stack.env(XDG_CONFIG_HOME=str(home)))
        try:
            with launched(through(proxy.address)) as browser:
                yield Scene(stack, app, proxy, browser, home, moved_port)
            assert "Traceback" not in proxy.output
        finally:
            assert proxy.stop() == 0, proxy.output


@contextmanager
def serving(
    stack: Stack, origins: list[str], key: str = "", *, server: Keys | None = None, port: int = 0
) -> Iterator[BoundApp]:
    """The app under these names, in this process; with the stack's key unless said otherwise."""
    ready = stack.ready
    with in_thread(
        stack.aws,
        server or ready.server,
        key or ready.key.arn,
        APP,
        origins=origins,
        port=port,
    ) as app:
        yield app


def is_asked(page: Page, scene: Scene) -> None:
    page.wait_for_url(re.compile(rf"^{scene.proxy.url}/confirm/[A-Za-z0-9_-]{{22}}$"))
    page.mouse.move(2, 2)  # a yes takes no click before the pointer was there for a second


HIDDEN_FOR = """[...document.querySelectorAll('button:not([value=no])')]
    .map(button => getComputedStyle(button))
    .map(style => [style.animationName, style.animationDuration])"""


# -- first contact ---------------------------------------------------------------------------------


def test_first_contact_and_always(scene: Scene) -> None:
    calls, asked = len(scene.stack.aws.calls), len(scene.app.asked)
    with scene.page(viewport={"width": 900, "height": 860}) as page:
        page.goto("http://always.test/page?x=1")
        is_asked(page, scene)
        shown = page.inner_text("main")
        for said in ("http://always.test", "not encrypted", scene.key, "111122223333", USER_ARN):
            assert said in shown
        made = scene.stack.aws.calls[calls:]
        assert [call.action for call in made] == ["GetCallerIdentity"], "about ourselves, once"
        assert "always.test" not in str(made)
        assert [each.target for each in scene.app.asked[asked:]] == ["/page?x=1"]
        expect(page.get_by_role("button", name="No")).to_be_focused()
        # What says yes is hidden for a second, so that a hasty click meets nothing.
        assert page.evaluate(HIDDEN_FOR) == [["wait, come", "1s, 1s"]] * 2
        page.get_by_role("button", name="Yes, always").wait_for()
        page.screenshot(path=ARTIFACTS / "confirm.png")
        page.emulate_media(color_scheme="dark")
        page.screenshot(path=ARTIFACTS / "confirm-dark.png")
        page.set_viewport_size({"width": 360, "height": 800})
        page.screenshot(path=ARTIFACTS / "confirm-narrow.png", full_page=True)

        page.get_by_role("button", name="Yes, always").click()
        page.wait_for_url("http://always.test/page?x=1")
        assert page.inner_text("body") == f"GET 0 bytes of {USER_ARN}"
        (cookie,) = page.context.cookies()
        assert (cookie["name"], cookie["sameSite"], cookie["httpOnly"]) == ("iam-auth", "Lax", True)
    assert "http://always.test" in (scene.home / "iam-auth-proxy" / "trust.toml").read_text()
    with scene.page() as page:  # another browser is not asked
        page.goto("http://always.test/again")
        assert page.inner_text("body") == f"GET 0 bytes of {USER_ARN}"


def test_once(scene: Scene) -> None:
    with scene.page() as page:
        page.goto("http://once.test/")
        is_asked(page, scene)
        question = page.url
        page.get_by_role("button", name="Yes, until the proxy ends").click()
        page.wait_for_url("http://once.test/")
        assert page.inner_text("body") == f"GET 0 bytes of {USER_ARN}"
        assert not [name for name in written(scene) if "once.test" in name]
        answer = page.goto(question)
        assert answer is not None
        assert answer.status == 410, "an answer is given once"


def written(scene: Scene) -> list[str]:
    file = scene.home / "iam-auth-proxy" / "trust.toml"
    lines = file.read_text().splitlines() if file.exists() else []
    return [line for line in lines if line.startswith("origin")]


def test_a_hidden_frame_does_not_choose_where_a_yes_leads(scene: Scene) -> None:
    """Any site can have the question put first, and another page open behind the answer."""
    asked = len(scene.app.asked)
    with scene.page() as elsewhere, scene.page() as page:
        with elsewhere.expect_event("framenavigated", lambda frame: frame.parent_frame is not None):
            elsewhere.goto(
                "data:text/html,<iframe hidden src='http://framed.test/danger'></iframe>"
            )
        assert [each.target for each in scene.app.asked[asked:]] == ["/danger"]
        page.goto("http://framed.test/mine")
        is_asked(page, scene)
        page.get_by_role("button", name="Yes, until the proxy ends").click()
        page.wait_for_url("http://framed.test/mine")
        assert page.inner_text("body") == f"GET 0 bytes of {USER_ARN}"


def test_no(scene: Scene) -> None:
    calls = len(scene.stack.aws.calls)
    with scene.page(viewport={"width": 900, "height": 600}) as page:
        page.goto("http://no.test/")
        is_asked(page, scene)
        page.get_by_role("button", name="No").click()
        expect(page.get_by_role("heading")).to_contain_text("Nothing was sent to http://no.test")
        page.screenshot(path=ARTIFACTS / "answered-no.png")
        answer = page.goto("http://no.test/")
        assert answer is not None
        assert answer.status == 403
        assert "iam-auth-proxy trust add http://no.test" in page.inner_text("body")
        assert page.context.cookies() == []
    assert len(scene.stack.aws.calls) == calls


def test_a_click_that_was_meant_for_a_window_in_front(scene: Scene) -> None:
    """That window closes at its first click, and the second is the first that comes here."""
    with scene.page() as page:
        page.goto("http://front.test/")
        page.wait_for_url("**/confirm/*")
        yes = page.get_by_role("button", name="Yes, always")
        expect(yes).to_be_visible()
        where = yes.bounding_box()
        assert where is not None
        page.mouse.dblclick(where["x"] + 9, where["y"] + 9)
        expect(yes).to_be_visible()
        assert "/confirm/" in page.url
        assert not [name for name in written(scene) if "front.test" in name]
        yes.click()  # the pointer stayed
        page.wait_for_url("http://front.test/")


def test_by_keyboard_alone(scene: Scene) -> None:
    with scene.page() as page:
        page.goto("http://keyboard.test/")
        is_asked(page, scene)
        expect(page.get_by_role("button", name="Yes, always")).to_be_visible()
        page.keyboard.press("Tab")
        page.keyboard.press("Tab")
        expect(page.get_by_role("button", name="Yes, always")).to_be_focused()
        page.keyboard.press("Enter")
        page.wait_for_url("http://keyboard.test/")
        assert page.inner_text("body") == f"GET 0 bytes of {USER_ARN}"


def test_by_a_finger(scene: Scene) -> None:
    """The first tap is the pointer that comes, and the second is meant."""
    with scene.page(has_touch=True, is_mobile=True) as page:
        page.goto("http://finger.test/")
        page.wait_for_url("**/confirm/*")
        yes = page.get_by_role("button", name="Yes, always")
        expect(yes).to_be_visible()
        where = yes.bounding_box()
        assert where is not None
        page.touchscreen.tap(where["x"] + 9, where["y"] + 9)
        expect(yes).to_have_css("pointer-events", "auto")
        page.touchscreen.tap(where["x"] + 9, where["y"] + 9)
        page.wait_for_url("http://finger.test/")
        assert page.inner_text("body") == f"GET 0 bytes of {USER_ARN}"


def test_without_javascript(scene: Scene) -> None:
    with scene.page(java_script_enabled=False) as page:
        page.goto("http://noscript.test/")
        is_asked(page, scene)
        page.get_by_role("button", name="Yes, always").click()
        page.wait_for_url("http://noscript.test/")
        assert page.inner_text("body") == f"GET 0 bytes of {USER_ARN}"


# -- at work ---------------------------------------------------------------------------------------

FETCH = "([url, options]) => fetch(url, options).then(answer => answer.text())"
UPLOAD = """path => fetch(path, {method: 'POST', body: new Uint8Array(5e6).fill(7)})
    .then(answer => answer.text())"""
SUBMIT = """path => {
    const form = document.createElement('form');
    form.action = path; form.method = 'post';
    form.innerHTML = '<input name=said value=hello>';
    document.body.append(form); form.submit();
}"""
SOCKET = """path => new Promise((done, failed) => {
    const socket = new WebSocket('ws://app.test' + path), got = [];
    socket.onerror = () => failed(new Error('no socket'));
    socket.onopen = () => socket.send('echo');
    socket.onmessage = event => { got.push(event.data); if (got.length == 2) done(got) };
})"""


@pytest.fixture
def work(scene: Scene, request: pytest.FixtureRequest) -> Iterator[Page]:
    """A page of the app that the person is signed in to.

    Each has a URL of its own: several sign-ins for one within seconds are taken for a loop.
    """
    with scene.page() as page:
        page.goto(f"{APP}/{request.node.name}")
        assert page.inner_text("body") == f"GET 0 bytes of {USER_ARN}"
        yield page


@pytest.fixture
def expire(scene: Scene, work: Page) -> Iterator[set[str]]:
    """Paths whose next request finds its session over; it costs one sign-in at most."""
    before = len(scene.app.handed_over)
    yield scene.app.expired
    assert not scene.app.expired, "it was met"
    assert len(scene.app.handed_over) - before <= 1


def test_fetch_when_the_session_is_over(work: Page, expire: set[str]) -> None:
    expire.add("/data")
    assert work.evaluate(FETCH, ["/data", {}]) == f"GET 0 bytes of {USER_ARN}"
    assert work.evaluate(FETCH, ["/data", {}]) == f"GET 0 bytes of {USER_ARN}"


def test_five_megabytes_when_the_session_is_over(work: Page, expire: set[str]) -> None:
    expire.add("/upload")
    assert work.evaluate(UPLOAD, "/upload") == f"POST 5000000 bytes of {USER_ARN}"


def test_a_form_when_the_session_is_over(work: Page, expire: set[str]) -> None:
    expire.add("/form")
    work.evaluate(SUBMIT, "/form")
    work.wait_for_url("**/form")
    assert work.inner_text("body") == f"POST 10 bytes of {USER_ARN}"
    assert work.url == f"{APP}/form"


def test_a_socket_when_the_session_is_over(work: Page, expire: set[str]) -> None:
    expire.add("/ws")
    assert work.evaluate(SOCKET, "/ws") == [USER_ARN, "echo"]
    assert work.evaluate(SOCKET, "/ws") == [USER_ARN, "echo"]


def test_without_a_session_at_all(scene: Scene, work: Page) -> None:
    """The page is open, and its cookie was thrown away: the first thing that it fetches signs in.

    A socket does not: it would do so in a frame of another site, too.
    """
    work.context.clear_cookies()
    assert "no socket" in work.evaluate(f"path => ({SOCKET})(path).catch(String)", "/ws")
    assert work.context.cookies() == []
    assert work.evaluate(FETCH, ["/x", {"method": "PUT", "body": "1"}]).startswith("PUT 1 bytes")
    assert len(work.context.cookies()) == 1
    assert work.evaluate(SOCKET, "/ws") == [USER_ARN, "echo"]


# -- what has changed ------------------------------------------------------------------------------


def test_another_key_is_a_question(scene: Scene) -> None:
    aws, moved = scene.stack.aws, ["http://moved.test"]
    user = {"AWS": USER_ARN}
    statement = {"Effect": "Allow", "Principal": user, "Action": "kms:Encrypt", "Resource": "*"}
    root = {**statement, "Principal": {"AWS": aws.account}, "Action": "kms:*"}
    other = aws.key(policy={"Version": "2012-10-17", "Statement": [statement, root]})
    server = aws.user("moved", policies=[allow("kms:Decrypt", resource=other.arn)]).keys()
    with scene.page(viewport={"width": 900, "height": 800}) as page:
        with serving(scene.stack, moved, port=scene.moved_port):
            page.goto("http://moved.test/before")
            assert page.inner_text("body") == f"GET 0 bytes of {USER_ARN}"
        page.context.clear_cookies()
        with serving(scene.stack, moved, other.arn, server=server, port=scene.moved_port) as app:
            page.goto("http://moved.test/after")
            is_asked(page, scene)
            shown = page.inner_text("main")
            assert scene.key in shown
            assert other.arn in shown
            yes = page.get_by_role("button", name="Yes, the new key is right")
            yes.wait_for()
            page.screenshot(path=ARTIFACTS / "key-changed.png")
            assert not app.handed_over
            assert not [call for call in aws.calls if other.arn in str(call.parameters)]
            yes.click()
            page.wait_for_url("http://moved.test/after")
            assert page.inner_text("body") == f"GET 0 bytes of {USER_ARN}"


def test_signed_out_means_signed_out(scene: Scene) -> None:
    left = "http://left.test"
    with scene.page(viewport={"width": 900, "height": 700}) as page:
        page.goto(f"{left}/")
        assert page.inner_text("body") == f"GET 0 bytes of {USER_ARN}"
        leaving = page.context.new_page()
        leaving.goto(f"{left}/leaving")
        leaving.evaluate(SUBMIT, "/auth/logout")
        leaving.wait_for_url("**/auth/logout")
        assert page.context.cookies() == []
        before = len(scene.app.handed_over)
        # No script of the app's gets in again by itself,
        assert "signed out" in page.evaluate(FETCH, ["/data", {}])
        # and a page that is opened is a question first.
        page.goto(f"{left}/later")
        is_asked(page, scene)
        assert "You signed out" in page.inner_text("main")
        assert len(scene.app.handed_over) == before
        page.get_by_role("button", name="Sign in").wait_for()
        page.screenshot(path=ARTIFACTS / "sign-in-again.png")
        page.get_by_role("button", name="Sign in").click()
        page.wait_for_url(f"{left}/later")
        assert page.inner_text("body") == f"GET 0 bytes of {USER_ARN}"
        assert len(scene.app.handed_over) == before + 1


# -- the PAC ---------------------------------------------------------------------------------------


def test_the_pac_in_a_browser(scene: Scene) -> None:
    """Listed hosts come to the proxy, others do not, and what is trusted from now on counts."""
    home = {"XDG_CONFIG_HOME": str(scene.home)}
    with (
        direct() as (port, served),
        another(
            scene.browser.browser_type,
            f"--proxy-pac-url={scene.proxy.url}/proxy.pac",
            f"--host-resolver-rules=MAP *.test 127.0.0.1:{port}",
        ) as browser,
    ):
        page = browser.new_page()
        page.goto(f"{APP}/by-pac")
        assert page.inner_text("body") == f"GET 0 bytes of {USER_ARN}"
        page.goto("http://keyboard.test.test/")
        page.goto("http://other.test/")
        assert page.inner_text("body") == "direct"
        assert served == ["keyboard.test.test", "other.test"]

        page.goto("http://later.test/")
        assert served[-1] == "later.test"
        argv = [sys.executable, "-m", "iam_auth_proxy", "trust", "add", "http://later.test"]
        subprocess.run(argv, env=scene.stack.env(**home), check=True, capture_output=True)
        # A browser fetches the script anew at its start, when the network changes, and when told.
        page.goto("chrome://net-internals/#proxy")
        page.click("#proxy-view-reload-settings")
        answer = page.goto("http://later.test/")
        assert answer is not None
        assert answer.status == 502, "by the proxy, for which there is no such host"
        assert served[-1] == "later.test"
        assert served.count("later.test") == 1


# Apps: one on https, one by its address, two wildcards; and one that only has a route.
LISTED = (
    *("http://wiki.internal", "https://grafana.internal:8443", "http://[fd00::1]:81"),
    *("http://*.corp.example", "http://*.a.zone.example"),
)
ROUTED = "http://routed.internal"
TO_US = (
    *("wiki.internal", "grafana.internal", "[fd00::1]", "routed.internal"),
    *("a.corp.example", "b.a.corp.example", "corp.example.corp.example", "x.a.zone.example"),
)
PAST_US = (
    *("corp.example", "a.zone.example", "zone.example", "b.zone.example", "example", "internal"),
    *("xcorp.example", "a.xcorp.example", "x-corp.example", "aa.zone.example"),
    *("corp.example.evil.test", "a.corp.example.evil.test", "a.corp.example.x", "a.corp.examples"),
    *("x.wiki.internal", "xwiki.internal", "wiki.internal.evil.test", "wiki", "iki.internal"),
    *("x.routed.internal", "routed.internal.evil.test", "constructor", "[fd00::2]", "[fd00::1:1]"),
    *("other.test", "a-long-name-of-many-labels.that.nobody.listed.anywhere.test"),
)


def test_which_hosts_the_pac_sends_here(scene: Scene, tmp_path: Path) -> None:
    """By the browser's own evaluator: names under a wildcard, and none that looks like one."""
    store = TrustFile(tmp_path / "iam-auth-proxy" / "trust.toml")
    store.add(replace(parse_trust(ROUTED), via="gone"))
    # The proxy looks up no name: whatever comes to it finds nobody.
    flags = [f"--trust={app}" for app in LISTED] + [f"--connect-to=::127.0.0.1:{free_port()}"]
    proxy = Proxy(*flags, env=scene.stack.env(XDG_CONFIG_HOME=str(tmp_path)))
    try:
        with (
            direct() as (port, served),
            another(
                scene.browser.browser_type,
                f"--proxy-pac-url={proxy.url}/proxy.pac",
                f"--host-resolver-rules=MAP * 127.0.0.1:{port}, EXCLUDE 127.0.0.1",
            ) as browser,
        ):
            page = browser.new_page()
            found = {}
            for host in (*TO_US, *PAST_US):
                answer = page.goto(f"http://{host}/")
                found[host] = answer and answer.status
        assert found == dict.fromkeys(TO_US, 502) | dict.fromkeys(PAST_US, 200)
        assert served == list(PAST_US)
    finally:
        assert proxy.stop() == 0, proxy.output


def test_the_pac_however_a_host_is_spelled(scene: Scene) -> None:
    """Evaluators differ in brackets and in case, which Chromium's own never lets through."""
    trust = Trust([parse_trust(app) for app in LISTED])
    script = pac.script(trust.routes(), "127.0.0.1:8080")
    to_us = ("WIKI.internal", "A.Corp.EXAMPLE", "fd00::1", "[fd00::1]", "[FD00::1]")
    past_us = (
        *("CORP.example", "XCorp.Example", ".corp.example", "fd00::", "[fd00::1:1]"),
        *("", "__proto__", "hasOwnProperty", "toString", "0", "length"),
    )
    with scene.page() as page:
        said = page.evaluate(FIND_PROXY, [script, [*to_us, *past_us]])
    assert dict(said) == (
        dict.fromkeys(to_us, "PROXY 127.0.0.1:8080") | dict.fromkeys(past_us, "DIRECT")
    )


FIND_PROXY = """([script, hosts]) => {
    const find = new Function(script + '; return FindProxyForURL')();
    return hosts.map(host => [host, find('http://' + host + '/', host)]);
}"""


@contextmanager
def direct() -> Iterator[tuple[int, list[str]]]:
    """What a browser reaches without a proxy: a server's port, and the hosts it was asked for."""
    served: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.path != "/favicon.ico":
                served.append(str(self.headers["Host"]))
            self.send_response(200)
            self.send_header("Content-Length", "6")
            self.end_headers()
            self.wfile.write(b"direct")

        def log_message(self, format: str, *args: object) -> None:
            """Nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield server.server_address[1], served
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
