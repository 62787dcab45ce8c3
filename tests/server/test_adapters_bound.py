"""Bound sign-ins at every framework, over real HTTP and with the embedded AWS."""

from __future__ import annotations

import logging
import socket
import time
from collections.abc import Iterator

import pytest

from iam_auth_proxy.local_aws import LocalAws
from iam_auth_proxy.local_aws.policy import allow, trust
from iam_auth_proxy.local_aws.ready import Ready, make_ready
from iam_auth_proxy.protocol.handoff import MAX_FORM
from iam_auth_proxy.protocol.proof import ProofKind
from iam_auth_proxy.server import Gate, mount
from tests.server.apps import FRAMEWORKS
from tests.server.boundproxy import FORM, BoundProxy
from tests.server.conftest import SECRET
from tests.server.originalproxy import Browser

ANN = "arn:aws:iam::111122223333:user/example-user"


@pytest.fixture
def ready(local_aws: LocalAws, monkeypatch: pytest.MonkeyPatch) -> Ready:
    """A server that runs as ``example-server``."""
    ready = make_ready(local_aws)
    for name, value in (local_aws.env | ready.server.env).items():
        monkeypatch.setenv(name, value)
    return ready


@pytest.fixture
def proxy(local_aws: LocalAws, ready: Ready) -> BoundProxy:
    return BoundProxy(local_aws, ready.user)


@pytest.fixture(params=FRAMEWORKS)
def browser(request: pytest.FixtureRequest, ready: Ready) -> Iterator[Browser]:
    """At the app of each framework, whose gate takes the signed identity alone."""
    make_app, serve = FRAMEWORKS[request.param]
    gate = Gate(
        kms_key=ready.key.arn, secret_key=SECRET, accounts=[ready.account],
        origins=["http://app.test"], public=["/healthz", "/public-me"],
    )  # fmt: skip
    with serve(make_app(gate)) as port:
        yield Browser(port)


def test_a_sign_in(browser: Browser, proxy: BoundProxy, local_aws: LocalAws) -> None:
    local_aws.session_token_size = 3800
    answer = proxy.open(browser, "/?x=1&y=%2F")
    assert (answer.status, answer.text) == (200, ANN)
    assert "iam-auth" in browser.cookies
    asked = [(call.action, str(call.principal)) for call in local_aws.calls]
    assert [action for action, _ in asked] == ["Encrypt", "Decrypt", "GetCallerIdentity"]
    assert "example-server" in asked[1][1]
    assert "example-user" in asked[2][1]


def test_what_it_takes_of_a_role(browser: Browser, proxy: BoundProxy, local_aws: LocalAws) -> None:
    """Whoever cannot have session credentials: a role, with a session token of any length."""
    local_aws.session_token_size = 4096
    may = allow("kms:Encrypt")
    role = local_aws.role("deploy", trust("arn:aws:iam::111122223333:root"), policies=[may])
    proxy.keys = role.session("ann")
    answer = proxy.open(browser, "/")
    assert answer.text == "arn:aws:sts::111122223333:assumed-role/deploy/ann"


def test_it_works_once_and_only_with_its_cookie(browser: Browser, proxy: BoundProxy) -> None:
    refused = browser.get("/")
    body, cookie = proxy.form(refused, "/")
    browser.cookies.clear()
    answer = browser.send("POST", "/auth", FORM, body)
    assert (answer.status, answer.all("Iam-Auth-Error")) == (403, ["bad-nonce"])
    name, _, value = cookie.partition("=")
    for status in (303, 403):
        browser.cookies = {name: value}
        assert browser.send("POST", "/auth", FORM, body).status == status


def test_a_body_in_chunks(
    browser: Browser, proxy: BoundProxy, request: pytest.FixtureRequest
) -> None:
    if "django" in request.node.name:
        pytest.skip("the standard library's WSGI server does not read such bodies")
    body, cookie = proxy.form(browser.get("/"), "/")
    name, _, value = cookie.partition("=")
    browser.cookies = {name: value}
    pieces = iter([body[:7], body[7:900], body[900:]])
    assert browser.send("POST", "/auth", FORM, pieces).status == 303


@pytest.mark.parametrize("size", [0, 1, MAX_FORM, MAX_FORM + 1, 1_000_000])
def test_bodies_that_are_no_form(browser: Browser, size: int, local_aws: LocalAws) -> None:
    """Of a long one no more is read than tells that it is too long."""
    for body in (b"x" * size, iter([b"x" * size])):
        try:
            answer = browser.send("POST", "/auth", FORM, body)
        except (BrokenPipeError, ConnectionResetError):
            # A server may close on what it did not read.
            assert size == 1_000_000 or not isinstance(body, bytes)
        else:
            assert (answer.status, answer.all("Iam-Auth-Error")) == (400, ["malformed"])
    assert local_aws.calls == []


def test_a_body_that_ends_early(browser: Browser, proxy: BoundProxy) -> None:
    body, cookie = proxy.form(browser.get("/"), "/")
    head = (
        f"POST /auth HTTP/1.1\r\nHost: app.test\r\nCookie: {cookie}\r\n"
        f"Content-Type: {FORM['Content-Type']}\r\nContent-Length: {len(body) + 2}\r\n\r\n"
    )
    with socket.create_connection(("127.0.0.1", browser.port), timeout=10) as client:
        client.sendall(head.encode() + body)
        client.shutdown(socket.SHUT_WR)
        answer = client.recv(4096)
    assert b" 303 " not in answer
    # It was not spent by that.
    name, _, value = cookie.partition("=")
    browser.cookies = {name: value}
    assert browser.send("POST", "/auth", FORM, body).status == 303


def test_whoever_leaves_within_a_body(
    browser: Browser, caplog: pytest.LogCaptureFixture, request: pytest.FixtureRequest
) -> None:
    """No traceback in the app's log: anybody can do it as often as he likes."""
    head = (
        "POST /auth HTTP/1.1\r\nHost: app.test\r\n"
        f"Content-Type: {FORM['Content-Type']}\r\nContent-Length: 100\r\n\r\ntoken="
    )
    with socket.create_connection(("127.0.0.1", browser.port), timeout=10) as client:
        client.sendall(head.encode())
        if "django" not in request.node.name:  # which serves one after the other
            # An answer to another shows that the first request has been begun.
            assert browser.get("/").status == 401
    assert browser.get("/").status == 401
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


def test_a_body_that_does_not_come(
    browser: Browser,
    proxy: BoundProxy,
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
) -> None:
    if "flask" in request.node.name or "django" in request.node.name:
        pytest.skip("a WSGI server's own matter")
    monkeypatch.setattr(mount, "BODY_DEADLINE", 0.1)
    head = (
        "POST /auth HTTP/1.1\r\nHost: app.test\r\n"
        f"Content-Type: {FORM['Content-Type']}\r\nContent-Length: 100\r\n\r\ntoken="
    )
    with socket.create_connection(("127.0.0.1", browser.port), timeout=10) as client:
        client.sendall(head.encode())
        started = time.monotonic()
        assert b" 400 " in client.recv(4096).split(b"\r\n")[0] + b" "
        assert time.monotonic() - started < 5


def test_the_apps_own_bodies_are_the_apps(browser: Browser, proxy: BoundProxy) -> None:
    proxy.open(browser, "/")
    for target in ("/size", "/size?x=/auth"):
        answer = browser.send("POST", target, FORM, b"x" * 300_000)
        assert answer.text == "300000"
    assert browser.send("POST", "/auth/", FORM, b"x").status in (404, 405)


def test_from_another_site(browser: Browser, proxy: BoundProxy, local_aws: LocalAws) -> None:
    body, cookie = proxy.form(browser.get("/"), "/")
    name, _, value = cookie.partition("=")
    for foreign in ({"Origin": "http://evil.test"}, {"Sec-Fetch-Site": "cross-site"}):
        browser.cookies = {name: value}
        answer = browser.send("POST", "/auth", FORM | foreign, body)
        assert (answer.status, answer.all("Iam-Auth-Error")) == (403, ["wrong-origin"])
    assert [call.action for call in local_aws.calls] == ["Encrypt"]


def test_a_token_in_a_url_is_not_taken(browser: Browser, proxy: BoundProxy) -> None:
    answer = browser.get("/auth?token=QUFB&return_url=%2F")
    assert (answer.status, answer.all("Iam-Auth-Error")) == (403, ["weak-proof"])
    proxy.kind = ProofKind.SESSION_CREDENTIALS
    answer = proxy.post(browser, browser.get("/"))
    assert (answer.status, answer.all("Iam-Auth-Error")) == (403, ["weak-proof"])


@pytest.mark.parametrize(("service", "action"), [("kms", "Decrypt"), ("sts", "GetCallerIdentity")])
def test_aws_failing_is_503_and_spends_nothing(
    browser: Browser, proxy: BoundProxy, local_aws: LocalAws, service: str, action: str
) -> None:
    body, cookie = proxy.form(browser.get("/"), "/")
    name, _, value = cookie.partition("=")
    browser.cookies = {name: value}
    local_aws.fault(service, action, times=None, body=b"<html>oops", status=502)
    answer = browser.send("POST", "/auth", FORM, body)
    assert (answer.status, answer.all("Iam-Auth-Error")) == (503, ["aws-unavailable"])
    local_aws.clear_faults()
    browser.cookies = {name: value}
    assert browser.send("POST", "/auth", FORM, body).status == 303
