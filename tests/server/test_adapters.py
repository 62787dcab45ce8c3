"""Every framework, mounted as the documentation says, over real HTTP and with the embedded AWS."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from iam_auth_proxy.local_aws import LocalAws
from iam_auth_proxy.local_aws.ready import Ready, make_ready
from iam_auth_proxy.server import Gate
from tests.server.apps import FRAMEWORKS
from tests.server.conftest import SECRET
from tests.server.originalproxy import Browser, OriginalProxy


@pytest.fixture
def ready(local_aws: LocalAws, monkeypatch: pytest.MonkeyPatch) -> Ready:
    """The original's environment, for a server that runs as ``example-server``."""
    ready = make_ready(local_aws)
    environ = local_aws.env | ready.server.env | {
        "AWS_ACCOUNT_ID": ready.account,
        "KMS_KEY_ID": ready.key.arn,
        "KMS_SALT": "pepper",
        "SECRET_KEY": SECRET,
    }  # fmt: skip
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    return ready


@pytest.fixture
def proxy(local_aws: LocalAws, ready: Ready) -> OriginalProxy:
    return OriginalProxy(local_aws, ready.user)


@pytest.fixture(params=FRAMEWORKS)
def browser(request: pytest.FixtureRequest, ready: Ready) -> Iterator[Browser]:
    """At the app of each framework."""
    make_app, serve = FRAMEWORKS[request.param]
    with serve(make_app(Gate.from_env(public=["/healthz", "/public-me"]))) as port:
        yield Browser(port)


ANN = "arn:aws:iam::111122223333:user/example-user"


def test_the_originals_sign_in(browser: Browser, proxy: OriginalProxy, local_aws: LocalAws) -> None:
    answer = proxy.open(browser, "/?x=1&y=%2F")
    assert (answer.status, answer.text) == (200, ANN)
    server = [call.action for call in local_aws.calls if "example-server" in str(call.principal)]
    assert server == ["Decrypt"]


def test_what_a_client_says_of_itself_does_not_reach_the_app(
    browser: Browser, proxy: OriginalProxy
) -> None:
    claims = {
        "Remote-User": "evil", "REMOTE_USER": "evil", "Remote_User": "evil",
        "X-Forwarded-User": "evil", "X_Remote_User": "evil", "X-Kept": "kept",
        "X-Forwarded-Client-Cert": "evil", "X-SSL-Client-S-DN": "evil", "OIDC_CLAIM_sub": "evil",
    }  # fmt: skip
    public = browser.send("GET", "/healthz", claims)
    assert public.status == 200
    assert "evil" not in public.text
    proxy.open(browser, "/")
    assert browser.send("GET", "/", claims).text == ANN
    told = browser.send("GET", "/headers", claims).text
    assert "evil" not in told
    assert "x-kept: kept" in told


def test_bodies_and_streams_pass(browser: Browser, proxy: OriginalProxy) -> None:
    assert browser.send("POST", "/size", body=b"x" * 300_000).status == 401
    proxy.open(browser, "/")
    claims = {"Remote-User": "evil"}
    assert browser.send("POST", "/size", claims, body=b"x" * 3_000_000).text == "3000000"
    assert browser.get("/stream").body == b"x" * 3000
    found = browser.get("/found")
    assert (found.status, found.all("Location")) == (302, ["/elsewhere"])
    assert browser.get("/missing").status == 404
    assert browser.send("HEAD", "/stream").status in (200, 405)


def test_whoami_and_logout(browser: Browser, proxy: OriginalProxy) -> None:
    assert browser.get("/auth/whoami").status == 401
    proxy.open(browser, "/")
    assert json.loads(browser.get("/auth/whoami").text)["arn"] == ANN
    assert browser.send("POST", "/auth/logout", {"Origin": "http://evil.test"}, b"").status == 403
    out = browser.send("POST", "/auth/logout", {"Origin": "http://app.test"}, b"")
    assert (out.status, out.all("Iam-Auth-Signed-Out")) == (200, ["1"])
    assert browser.cookies.get("iam-auth") is None
    assert browser.get("/").status == 401


def test_the_401_is_a_page_for_browsers(browser: Browser) -> None:
    answer = browser.get("/", accept="text/html,*/*;q=0.8")
    assert answer.status == 401
    assert answer.all("Content-Type") == ["text/html; charset=utf-8"]
    assert "iam-auth-proxy trust add http://app.test" in answer.text
    assert len(answer.all("WWW-Authenticate")) == 1
    head = browser.send("HEAD", "/", {"Accept": "text/html"})
    assert (head.status, head.body) == (401, b"")


def test_a_token_in_the_wrong_hands(browser: Browser, proxy: OriginalProxy) -> None:
    """Replayed, tampered with, malformed, and at another host's name."""
    location = proxy.location(browser.get("/"), "/").removeprefix("//app.test")
    assert browser.get(location).status == 302
    browser.cookies.clear()
    again = browser.get(location)
    assert (again.status, again.all("Iam-Auth-Error")) == (403, ["replayed"])
    assert not again.all("WWW-Authenticate")
    other = proxy.location(browser.get("/"), "/").removeprefix("//app.test")
    head, _, rest = other.rpartition("token=")
    flipped = head + "token=" + ("B" if rest[60] == "A" else "A").join((rest[:60], rest[61:]))
    bent = browser.get(flipped)
    assert bent.status in (400, 403)
    for target in ("/auth?token=x&return_url=/", "/auth?x", "/auth?token=%00&return_url=//evil"):
        assert browser.get(target).status == 400
    assert not browser.cookies


def test_aws_failing_is_503_and_not_a_refusal(
    browser: Browser, proxy: OriginalProxy, local_aws: LocalAws
) -> None:
    location = proxy.location(browser.get("/"), "/").removeprefix("//app.test")
    for code, says, retry in (
        ("ThrottlingException", "aws-unavailable", ["5"]),
        ("DisabledException", "misconfigured", []),
    ):
        local_aws.fault("kms", "Decrypt", code=code, times=None)
        answer = browser.get(location)
        assert (answer.status, answer.all("Iam-Auth-Error")) == (503, [says])
        assert answer.all("Retry-After") == retry
        local_aws.clear_faults()
    assert browser.get(location).status == 302


def test_a_renewed_cookie_goes_along(
    browser: Browser, proxy: OriginalProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    import iam_auth_proxy.server.sessions as sessions

    proxy.open(browser, "/")
    assert browser.get("/").all("Set-Cookie") == []
    monkeypatch.setattr(sessions, "RENEWAL", -1.0)
    for target in ("/", "/found", "/missing", "/auth/whoami"):
        answer = browser.get(target)
        (cookie,) = answer.all("Set-Cookie")
        assert cookie.startswith("iam-auth=")
        assert answer.all("Cache-Control")[0] in ("private", "private, no-store", "no-store")


def test_a_shared_cache_hands_no_session_to_others(
    browser: Browser, proxy: OriginalProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that stores answers with cookies: those that it may store have none."""
    import iam_auth_proxy.server.sessions as sessions

    proxy.open(browser, "/")
    monkeypatch.setattr(sessions, "RENEWAL", -1.0)
    public = browser.get("/cached?public,max-age=60")
    assert public.status == 200
    assert public.all("Set-Cookie") == []
    assert public.all("Cache-Control") == ["public,max-age=60"]
    asked_again = browser.get("/cached?no-cache")
    assert len(asked_again.all("Set-Cookie")) == 1
    assert asked_again.all("Cache-Control") == ["private, no-cache"]
    own = browser.get("/cached?no-store")
    assert len(own.all("Set-Cookie")) == 1
    assert own.all("Cache-Control") == ["no-store"]
