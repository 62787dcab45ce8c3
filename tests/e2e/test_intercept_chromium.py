"""An app on https whose TLS the proxy ends, in a browser that trusts the local CA."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import socket
import ssl
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import trustme
from playwright.sync_api import BrowserContext, BrowserType, Error, Page, sync_playwright

from tests.e2e.conftest import ARTIFACTS, USER_ARN, Stack, example
from tests.support.browser import FLAGS, through
from tests.support.intercepted import at_home, behind_tls, make_ca, trusting
from tests.support.processes import Proxy, base_env, free_port, program

pytestmark = pytest.mark.e2e

APP = "https://app.test"

# Connections that Chromium may open to a host before it has refused the first.
MOST_SOCKETS = 6
BYTES = bytes(range(256)) * 256 * 16 * 100  # what /download answers for 100 MiB


@dataclass
class Scene:
    """An app behind nginx, under a listed and an unlisted name; a proxy; a browser.

    :ivar theirs: the file of the authority that vouches for the app: a company's own.
    """

    stack: Stack
    port: int
    proxy: Proxy
    chromium: BrowserType
    context: BrowserContext
    ours: Path
    theirs: Path
    env: dict[str, str]
    flags: list[str]

    def leaf(self, host: str) -> bytes:
        """What nginx shows for a host, as DER."""
        context = ssl.create_default_context(cafile=self.theirs)
        with (
            socket.create_connection(("127.0.0.1", self.port), 10) as plain,
            context.wrap_socket(plain, server_hostname=host) as secured,
        ):
            return secured.getpeercert(binary_form=True) or b""

    @contextmanager
    def page(self) -> Iterator[Page]:
        page = self.context.new_page()
        try:
            yield page
        finally:
            page.close()
            self.context.clear_cookies()


def reach(port: int, *hosts: str) -> list[str]:
    return [f"--connect-to={host}:443:127.0.0.1:{port}" for host in hosts]


@pytest.fixture(scope="module")
def scene(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    with staged(stack, tmp_path_factory) as scene:
        yield scene


@contextmanager
def staged(stack: Stack, tmp_path_factory: pytest.TempPathFactory, *more: str) -> Iterator[Scene]:
    """The scene, whose proxy has further flags."""
    ARTIFACTS.mkdir(exist_ok=True)
    folder, home = tmp_path_factory.mktemp("tls"), tmp_path_factory.mktemp("home")
    port, authority = free_port(), trustme.CA()
    theirs = folder / "theirs.pem"
    authority.cert_pem.write_to_path(str(theirs))
    origins = {"IAM_AUTH_ORIGINS": f"{APP},https://other.test"}
    front = {"IAM_AUTH_TRUSTED_PROXIES": "127.0.0.1"}
    env = stack.env()
    ours = make_ca(env, "app.test")
    trusting(home, ours, theirs)
    flags = ["--intercept=app.test", f"--cacert={theirs}", *reach(port, "app.test", "other.test")]
    flags += more
    with (
        example(stack.aws, stack.ready, **origins, **front) as (app, app_port),
        behind_tls(folder, authority, {"app.test": app_port, "other.test": app_port}, port),
    ):
        proxy = Proxy(*flags, env=env)
        try:
            with (
                sync_playwright() as playwright,
                at_home(playwright.chromium, home, through(proxy.address)) as context,
            ):
                kind = playwright.chromium
                yield Scene(stack, port, proxy, kind, context, ours, theirs, env, flags)
            assert "Traceback" not in proxy.output + app.output
        finally:
            assert proxy.stop() == 0, proxy.output


@contextmanager
def security(page: Page) -> Iterator[dict[str, Any]]:
    """What the browser says of the connection of each document, by its URL, and of the tab.

    ``asks`` puts further questions.
    """
    session = page.context.new_cdp_session(page)
    found: dict[str, Any] = {"asks": session.send}

    def received(event: dict[str, Any]) -> None:
        if event["type"] == "Document":
            found[event["response"]["url"]] = event["response"]

    def changed(event: dict[str, Any]) -> None:
        found["tab"] = event["visibleSecurityState"]

    session.on("Network.responseReceived", received)
    session.on("Security.visibleSecurityStateChanged", changed)
    session.send("Network.enable")
    session.send("Security.enable")
    try:
        yield found
    finally:
        session.detach()


# -- at work ---------------------------------------------------------------------------------------


def test_a_browser_signs_in_and_works(scene: Scene) -> None:
    done = len(scene.proxy.events("signed in", least=0))
    with scene.page() as page, security(page) as seen:
        urls: list[str] = []
        page.on("request", lambda request: urls.append(request.url))
        page.goto(f"{APP}/")
        assert page.url == f"{APP}/"
        assert USER_ARN in page.inner_text("body")
        assert any("/auth?" in url for url in urls), "by the dance: the cookie is the browser's"
        assert not any("token=" in url for url in urls)
        assert page.evaluate("isSecureContext")
        connection = seen[f"{APP}/"]
        assert connection["securityState"] == "secure"
        assert connection["securityDetails"]["issuer"].startswith("app.test CA ")
        assert connection["securityDetails"]["protocol"] == "TLS 1.3"
        assert connection["protocol"] == "http/1.1"
        assert seen["tab"]["securityState"] == "secure"
        page.screenshot(path=ARTIFACTS / "intercepted.png")
        (cookie,) = page.context.cookies()
        assert cookie["name"] == "__Host-iam-auth"
        assert (cookie["secure"], cookie["httpOnly"], cookie["domain"]) == (True, True, "app.test")

        page.fill("#message", "hello from a browser")
        page.get_by_role("button", name="Send").click()
        page.wait_for_load_state()
        assert "bytes" in page.inner_text("body")
        assert page.url == f"{APP}/form"

        page.goto(f"{APP}/socket")  # wss
        page.get_by_text(f"hello {USER_ARN}").wait_for()
    assert len(scene.proxy.events("signed in", least=done + 1)) == done + 1


FETCH = "([url, options]) => fetch(url, options).then(answer => answer.text())"
SOCKET = """() => new Promise((done, failed) => {
    const socket = new WebSocket('wss://app.test/ws'), got = [];
    socket.onerror = () => failed(new Error('no socket'));
    socket.onopen = () => socket.send('echo');
    socket.onmessage = event => { got.push(event.data); if (got.length == 2) done(got) };
})"""
SUBMIT = """() => {
    const form = document.createElement('form');
    form.action = '/form'; form.method = 'post';
    form.innerHTML = '<input name=said value=hello>';
    document.body.append(form); form.submit();
}"""
DOWNLOAD = """async path => {
    const answer = await fetch(path), bytes = new Uint8Array(await answer.arrayBuffer());
    const digest = new Uint8Array(await crypto.subtle.digest('SHA-256', bytes));
    return [bytes.length, [...digest].map(byte => byte.toString(16).padStart(2, '0')).join('')];
}"""


@pytest.fixture
def work(scene: Scene, request: pytest.FixtureRequest) -> Iterator[Page]:
    """A page of the app, whose session the browser has lost: what it does next signs in."""
    with scene.page() as page:
        page.goto(f"{APP}/check?{request.node.name}")
        assert USER_ARN in page.inner_text("body")
        page.context.clear_cookies()
        yield page


def test_fetch(work: Page) -> None:
    assert USER_ARN in work.evaluate(FETCH, ["/check", {}])
    posted = work.evaluate(FETCH, ["/form", {"method": "POST", "body": "x" * 100_000}])
    assert posted.startswith("100000 bytes\n")


def test_a_form_post(work: Page) -> None:
    work.evaluate(SUBMIT)
    work.wait_for_url("**/form")
    assert "10 bytes" in work.inner_text("body")


def test_a_web_socket(work: Page) -> None:
    """With the cookie of a session that is over, as a page has that was open for long."""
    over: Any = {"name": "__Host-iam-auth", "value": "over", "secure": True, "sameSite": "Lax"}
    work.context.add_cookies([{**over, "url": APP}])
    assert work.evaluate(SOCKET) == [f"hello {USER_ARN}", "echo"]
    assert work.evaluate(SOCKET) == [f"hello {USER_ARN}", "echo"]


@pytest.mark.parametrize("chunked", ["", "&chunked=1"])
def test_a_hundred_megabytes(work: Page, chunked: str) -> None:
    size, digest = work.evaluate(DOWNLOAD, f"/download?size=100MiB{chunked}")
    assert (size, digest) == (100 << 20, hashlib.sha256(BYTES).hexdigest())


def test_a_host_that_is_not_listed_shows_its_own_certificate(scene: Scene) -> None:
    with scene.page() as page, security(page) as seen:
        answer = page.goto("https://other.test/")
        assert answer is not None
        assert answer.status == 401, "nobody signs in: the proxy sees nothing of it"
        connection = seen["https://other.test/"]
        assert connection["securityState"] == "secure"
        shown = seen["asks"]("Network.getCertificate", {"origin": "https://other.test"})
        shown = shown["tableNames"]
        assert base64.b64decode(shown[0]) == scene.leaf("other.test")
        assert connection["protocol"] == "h2", "byte for byte"
        assert "__Host-iam-auth" not in {cookie["name"] for cookie in page.context.cookies()}


def test_a_link_that_is_followed_signs_in_and_one_that_a_script_opens_does_not(
    scene: Scene,
) -> None:
    """Sec-Fetch-Site and Sec-Fetch-User say whose link it is, and whether somebody clicked."""
    link = f'<a href="{APP}/check?linked">there</a>'
    script = "<script>onload = () => setTimeout(() => document.links[0].click())</script>"

    def site(page: Page, body: str) -> None:
        page.route("https://other.test/", lambda route: route.fulfill(body=body))

    with scene.page() as page:
        done = len(scene.proxy.events("signed in", least=0))
        site(page, f"<!doctype html>{link}{script}")
        page.goto("https://other.test/", wait_until="commit")
        page.wait_for_url(f"{APP}/check?linked")
        assert USER_ARN not in page.inner_text("body")
        assert "__Host-iam-auth" not in {cookie["name"] for cookie in page.context.cookies()}
        assert len(scene.proxy.events("signed in", least=0)) == done
    with scene.page() as page:
        site(page, f"<!doctype html>{link}")
        page.goto("https://other.test/")
        page.click("a")
        page.wait_for_url(f"{APP}/check?linked")
        assert USER_ARN in page.inner_text("body")
        assert "__Host-iam-auth" in {cookie["name"] for cookie in page.context.cookies()}


# -- what goes wrong -------------------------------------------------------------------------------


def curl(scene: Scene, *args: str, authority: Path | None = None) -> subprocess.CompletedProcess:
    known = ["--cacert", str(authority)] if authority else []
    argv = [program("curl"), "-sS", "-m", "30", "-L", "-b", "", "-x", scene.proxy.url]
    return subprocess.run(
        [*argv, *known, *args], capture_output=True, text=True, env=base_env(), check=False
    )


def test_who_does_not_know_our_ca_is_tunnelled_and_told_why(scene: Scene) -> None:
    refused = curl(scene, f"{APP}/check", authority=scene.theirs)
    assert refused.returncode == 60, refused.stderr
    scene.proxy.wait_for("does not take our certificate for https://app.test")
    (event,) = [line for line in scene.proxy.lines if "does not take our certificate" in line]
    assert "iam-auth-proxy ca install" in event
    tunnelled = curl(scene, "-D", "-", f"{APP}/check", authority=scene.theirs)
    assert tunnelled.stdout.startswith("HTTP/1.1 200"), "the answer to CONNECT"
    assert " 401" in tunnelled.stdout
    assert f"ok {USER_ARN}" not in tunnelled.stdout


def test_a_browser_that_does_not_know_our_ca(scene: Scene, tmp_path: Path) -> None:
    """It warns, and then shows the app's own certificate.

    Not even that where it had connected ahead: then it is that connection which it refuses. And
    once more for each further one that it had opened before it refused the first.
    """
    home = trusting(tmp_path, scene.theirs)
    with at_home(scene.chromium, home, through(scene.proxy.address)) as context:
        page = context.new_page()
        with contextlib.suppress(Error):
            page.goto(f"{APP}/check")
        assert scene.proxy.wait_for("does not take our certificate")
        for _ in range(MOST_SOCKETS):
            with contextlib.suppress(Error):
                page.goto(f"{APP}/check")
                break
        with security(page) as seen:
            answer = page.goto(f"{APP}/check")
            assert answer is not None
            assert answer.status == 401
            assert seen[f"{APP}/check"]["securityState"] == "secure"
            shown = seen["asks"]("Network.getCertificate", {"origin": APP})["tableNames"]
            assert base64.b64decode(shown[0]) == scene.leaf("app.test")


def test_a_program_that_knows_our_ca(scene: Scene) -> None:
    done = curl(scene, "--http1.1", f"{APP}/check", authority=scene.ours)
    assert done.stdout == f"ok {USER_ARN}\n", done.stderr


def ours(scene: Scene, command: str, *args: str, **env: str) -> str:
    """The output of a command that runs a proxy of its own."""
    argv = [sys.executable, "-m", "iam_auth_proxy", command, *scene.flags, *args]
    full = {**scene.env, **env}
    done = subprocess.run(argv, env=full, capture_output=True, text=True, timeout=90, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


URLLIB = f"import urllib.request; print(urllib.request.urlopen('{APP}/check').read().decode())"


@pytest.mark.parametrize(
    "program_of_a_person",
    [
        ("curl", "-sS", f"{APP}/check"),
        (sys.executable, "-c", URLLIB),
    ],
    ids=["curl", "urllib"],
)
def test_programs_of_exec_need_nothing(scene: Scene, program_of_a_person: tuple[str, ...]) -> None:
    said = ours(scene, "exec", "--", *program_of_a_person)
    assert said.strip() == f"ok {USER_ARN}"


def test_the_browser_of_the_command_needs_nothing(scene: Scene, tmp_path: Path) -> None:
    bind = f"--bind=127.0.0.1:{free_port()}"
    dump = [*FLAGS, "--virtual-time-budget=10000", "--dump-dom"]
    said = ours(scene, "browser", bind, f"{APP}/check", "--", *dump, HOME=str(tmp_path))
    assert f"ok {USER_ARN}" in said


def test_an_app_that_is_not_who_it_says(scene: Scene, tmp_path: Path) -> None:
    """The page says why, and offers no way to go on."""
    flags = [*scene.flags, "--intercept=stranger.app.test", "--intercept=gone.app.test"]
    flags = [flag for flag in flags if not flag.startswith("--cacert")]
    flags += reach(scene.port, "stranger.app.test") + reach(free_port(), "gone.app.test")
    proxy = Proxy(*flags, env=scene.env)
    home = trusting(tmp_path, scene.ours)
    try:
        # By the proxy's own PAC, which names what is listed and nothing else.
        pac = f"--proxy-pac-url={proxy.url}/proxy.pac"
        with at_home(scene.chromium, home, pac) as context:
            page = context.new_page()
            with security(page) as seen:
                answer = page.goto(f"{APP}/check")
                assert answer is not None
                assert answer.status == 502
                assert answer.headers["proxy-status"] == (
                    "iam-auth-proxy; error=tls_certificate_error"
                )
                said = page.inner_text("body")
                assert "certificate" in said
                assert page.locator("a, button, input").count() == 0, "there is no way around it"
                page.screenshot(path=ARTIFACTS / "bad-certificate.png")
                assert seen[f"{APP}/check"]["securityState"] == "secure"
            answer = page.goto("https://stranger.app.test/")
            assert answer is not None
            assert answer.status == 502
            answer = page.goto("https://gone.app.test/")
            assert answer is not None
            assert answer.headers["proxy-status"].endswith("error=connection_refused")
            page.screenshot(path=ARTIFACTS / "intercepted-gone.png")
        assert "Traceback" not in proxy.output
    finally:
        assert proxy.stop() == 0


def test_a_listed_host_without_a_ca_is_said_at_start(scene: Scene) -> None:
    proxy = Proxy(
        f"--cacert={scene.theirs}",
        "--intercept=other.test",
        *reach(scene.port, "other.test"),
        env=scene.env,
    )
    try:
        proxy.wait_for("Run: iam-auth-proxy ca add other.test")
        argv = [program("curl"), "-sS", "-x", proxy.url, "--cacert", str(scene.theirs)]
        done = subprocess.run(
            [*argv, "https://other.test/check"], capture_output=True, env=base_env(), check=True
        )
        assert b"401" in done.stdout or done.stdout
        assert proxy.output.count("ca add other.test") == 1, "and not at each connection"
    finally:
        assert proxy.stop() == 0
