"""Attacks on both ends together, with real components: rows of docs/security.md."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlencode

import pytest
from playwright.sync_api import Browser, Page

from iam_auth_proxy.local_aws import allow
from tests.e2e.conftest import APP, USER_ARN, Stack, curl
from tests.support import other_site
from tests.support.browser import launched, through
from tests.support.processes import Proxy, free_port, nginx

pytestmark = pytest.mark.e2e

EVIL = "http://evil.test"


def statuses(shown: str) -> list[str]:
    return re.findall(r"^HTTP/1\.1 (\d+)", shown, re.MULTILINE)


def ask_app(
    stack: Stack, method: str, path: str, body: str = "", **fields: str
) -> tuple[int, dict[str, str], str]:
    """The app itself, by somebody who has no proxy."""
    connection = HTTPConnection("127.0.0.1", stack.app_port, timeout=20)
    named = {name.replace("_", "-"): value for name, value in fields.items()}
    if body:
        named["Content-Type"] = "application/x-www-form-urlencoded"
    connection.request(method, path, body or None, {"Host": "app.test", **named})
    answer = connection.getresponse()
    text = answer.read().decode()
    connection.close()
    return answer.status, {name.lower(): value for name, value in answer.getheaders()}, text


# -- another site in the middle --------------------------------------------------------------------


@contextmanager
def middleman(stack: Stack) -> Iterator[tuple[int, list[dict[str, str]]]]:
    """A site that passes the app's own challenges on, and keeps what it is handed over."""
    caught: list[dict[str, str]] = []
    challenge = ("www-authenticate", "set-cookie")

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, fields, _ = ask_app(stack, "GET", "/check")
            self.send_response(status)
            for name, value in fields.items():
                if name in challenge or name.startswith("iam-auth-"):
                    self.send_header(name, value)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"])).decode()
            form = {name: values[0] for name, values in parse_qs(body).items()}
            caught.append({**form, "cookie": str(self.headers["Cookie"])})
            self.send_response(403)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            """Nothing."""

    with serving(Handler) as port:
        yield port, caught


@contextmanager
def serving(handler: type[BaseHTTPRequestHandler]) -> Iterator[int]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.mark.parametrize("proof", ["signed-identity", "session-credentials"])
def test_a_relayed_challenge_opens_nothing(stack: Stack, proof: str) -> None:
    """The person trusts the site in the middle, even with more than the signed identity."""
    with middleman(stack) as (port, caught):
        flags = [
            f"--trust={EVIL}",
            f"--proof={proof}",
            f"--connect-to=evil.test:80:127.0.0.1:{port}",
        ]
        with stack.proxy(*flags) as proxy:
            curl(proxy, f"{EVIL}/", cookies=False)
    (form,) = caught
    cookie = form.pop("cookie")
    assert form["proof"] == proof
    calls = len(stack.aws.calls)
    status, fields, text = ask_app(stack, "POST", "/auth", urlencode(form), Cookie=cookie)
    assert status == 403
    assert fields["iam-auth-error"] in ("wrong-origin", "stale-token")
    assert "iam-auth=" not in fields.get("set-cookie", "")
    assert USER_ARN not in text
    # What was sealed names the other origin, so that it does not open for this one.
    answered = [(call.action, call.code) for call in stack.aws.calls[calls:]]
    assert answered == [("Decrypt", "InvalidCiphertextException")]
    sealed = [call.context for call in stack.aws.calls[:calls] if call.action == "Encrypt"][-1]
    assert (sealed["iam-auth-origin"], sealed["iam-auth-proof"]) == (EVIL, proof)
    assert sealed["iam-auth-nonce"] == form["nonce"]


@pytest.mark.parametrize(
    ("hidden", "status", "code"),
    [
        (("Iam-Auth-Proofs", "Iam-Auth-Nonce", "Iam-Auth-Path"), "403", "weak-proof"),
        (("Iam-Auth-Proofs",), "502", "bad-challenge"),
        (("Iam-Auth-Nonce",), "502", "bad-challenge"),
    ],
)
def test_nothing_is_gained_by_stripping(
    stack: Stack, tmp_path: Path, hidden: tuple[str, ...], status: str, code: str
) -> None:
    """Somebody on the path takes the extension out of the challenge."""
    port, calls = free_port(), len(stack.aws.calls)
    hide = "".join(f"proxy_hide_header {name}; " for name in hidden)
    config = f"""
      server {{
        listen 127.0.0.1:{port};
        location / {{
          proxy_pass http://127.0.0.1:{stack.app_port}; proxy_set_header Host $host; {hide}
        }}
      }}"""
    with nginx(config, tmp_path, port):
        found = ["--trust", APP, "--connect-to", f"app.test:80:127.0.0.1:{port}"]
        proxy = Proxy(*found, env=stack.env())
        try:
            shown = curl(proxy, "-D", "-", f"{APP}/check", cookies=False)
        finally:
            assert proxy.stop() == 0
    assert statuses(shown) == [status]
    assert f"[{code}]" in shown
    assert "Encrypt" not in [call.action for call in stack.aws.calls[calls:]]


# -- another site in the browser -------------------------------------------------------------------


@dataclass
class Scene:
    """A browser in which another site's page is open, behind a proxy that trusts the app."""

    stack: Stack
    proxy: Proxy
    page: Page

    @property
    def cookies(self) -> list[str]:
        return [str(cookie["name"]) for cookie in self.page.context.cookies()]


STRANGER = "http://stranger.test"


@pytest.fixture(scope="module")
def browser(stack: Stack) -> Iterator[tuple[Proxy, Browser]]:
    with other_site.other_site() as port, middleman(stack) as (stranger, _):
        # The attacker's names may lead to this machine, too.
        names = f"MAP {other_site.HOST} 127.0.0.1:{port},MAP rebound.test 127.0.0.1"
        with (
            stack.proxy(f"--connect-to=stranger.test:80:127.0.0.1:{stranger}") as proxy,
            launched(
                through(proxy.address, "app.test", "stranger.test"),
                f"--host-resolver-rules={names}",
            ) as found,
        ):
            yield proxy, found


@pytest.fixture
def scene(stack: Stack, browser: tuple[Proxy, Browser]) -> Iterator[Scene]:
    proxy, found = browser
    # An attacker's page has no policy that holds it back.
    context = found.new_context(bypass_csp=True)
    page = context.new_page()
    yield Scene(stack, proxy, page)
    context.close()


PAGES = ("/", "/proxy.pac", "/metrics", "/confirm/AAAAAAAAAAAAAAAAAAAAAA")


def test_no_page_reads_the_proxys_own(scene: Scene) -> None:
    """As a script, a style, a frame or by fetch: not even what any local program may read."""
    scene.page.goto(f"http://{other_site.HOST}/")
    kinds = ["fetch-cors", "fetch-omit", "xhr", "script"]
    for path in PAGES:
        learnt = scene.page.evaluate(
            "([kinds, url]) => Promise.all(kinds.map(kind => KINDS[kind](url)))",
            [kinds, scene.proxy.url + path],
        )
        assert learnt == [""] * len(kinds), path
    assert scene.page.evaluate("typeof FindProxyForURL") == "undefined"
    answer = scene.page.goto(f"{scene.proxy.url}/metrics")
    assert answer is not None
    assert answer.ok, "what was withheld is there"


@pytest.mark.parametrize("host", ["rebound.test", "[::ffff:127.0.0.1]"])
def test_no_other_name_leads_to_them(scene: Scene, host: str) -> None:
    """Rebinding: the attacker's own origin turns out to be the proxy."""
    for path in PAGES:
        answer = scene.page.goto(f"http://{host}:{scene.proxy.port}{path}")
        assert answer is not None
        assert answer.status == 421
    read = "path => fetch(path).then(answer => answer.status)"
    assert [scene.page.evaluate(read, path) for path in PAGES] == [421] * len(PAGES)


def test_no_other_page_answers_a_question(scene: Scene) -> None:
    """Not even one that knows its address and its token."""
    scene.page.goto(f"{STRANGER}/")
    scene.page.wait_for_url("**/confirm/*")
    question = scene.page.url
    token = scene.page.locator("input[name=token]").get_attribute("value")

    scene.page.goto(f"http://{other_site.HOST}/")
    scene.page.evaluate(
        """([url, token]) => {
            const form = make('form', {action: url, method: 'post'});
            form.innerHTML = '<input name=token><input name=choice value=always>';
            form.token.value = token;
            document.body.append(form); form.submit();
        }""",
        [question, token],
    )
    scene.page.wait_for_url(question)
    assert "did not come from the page itself" in scene.page.inner_text("body")

    scene.page.goto(f"http://{other_site.HOST}/")
    with scene.page.expect_event("framenavigated", lambda frame: bool(frame.url)) as navigated:
        scene.page.evaluate("url => KINDS.iframe(url)", question)
    assert navigated.value.url.startswith("chrome-error:"), "it cannot be framed"

    scene.page.goto(f"http://{other_site.HOST}/")
    with scene.page.expect_popup() as opened:
        scene.page.evaluate("url => { window.opened = open(url) }", question)
    opened.value.wait_for_load_state()
    assert scene.page.evaluate("window.opened.closed"), "who opened it has lost it"
    assert opened.value.locator("input[name=token]").get_attribute("value") == token, "still open"
    # (Whom the app would see, the page itself may still be asking.)
    stranger = [call.context.get("iam-auth-origin") for call in scene.stack.aws.calls]
    assert STRANGER not in stranger, "nothing was sealed for it"


def test_nobody_is_signed_in_as_somebody_else(scene: Scene) -> None:
    """Login CSRF: the attacker's own hand-over, good as gold, sent by the victim's browser."""
    stack = scene.stack
    mallory = stack.aws.user("mallory", policies=[allow("kms:Encrypt", resource="*")]).keys()
    with middleman(stack) as (port, caught):
        proxy = Proxy(
            f"--trust={APP}", f"--connect-to=app.test:80:127.0.0.1:{port}", env=stack.env(mallory)
        )
        try:
            curl(proxy, f"{APP}/", cookies=False)
        finally:
            assert proxy.stop() == 0
    (form,) = caught
    name, _, value = form.pop("cookie").partition("=")
    # Let the attacker even plant the nonce's cookie, as a neighbour on plain http might.
    scene.page.context.add_cookies([{"name": name, "value": value, "url": APP}])
    scene.page.goto(f"http://{other_site.HOST}/")
    with scene.page.expect_response(f"{APP}/auth") as answered:
        scene.page.evaluate(
            """([url, fields]) => {
                const form = make('form', {action: url, method: 'post'});
                for (const [name, value] of Object.entries(fields))
                  form.append(make('input', {name, value}));
                document.body.append(form); form.submit();
            }""",
            [f"{APP}/auth", form],
        )
    scene.page.wait_for_url(f"{APP}/auth")
    assert answered.value.status == 403
    assert "iam-auth" not in scene.cookies
    scene.page.goto(f"{APP}/check")
    assert scene.page.inner_text("body").strip() == f"ok {USER_ARN}"
    # It was good, and nobody had spent it.
    status, fields, _ = ask_app(stack, "POST", "/auth", urlencode(form), Cookie=f"{name}={value}")
    assert status == 303
    assert "iam-auth=" in fields["set-cookie"]
