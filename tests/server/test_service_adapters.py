"""Service tokens at every framework, with the embedded AWS and over real HTTP."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator

import pytest

from iam_auth_proxy.aws.clients import make_clients
from iam_auth_proxy.local_aws import LocalAws
from iam_auth_proxy.local_aws.ready import Ready, make_ready
from iam_auth_proxy.protocol.service_token import Caller, ServiceToken
from iam_auth_proxy.server import Gate
from iam_auth_proxy.tokens.issuer import Issuer
from tests.server.apps import FRAMEWORKS
from tests.server.conftest import SECRET
from tests.server.originalproxy import Browser


@pytest.fixture
def ready(local_aws: LocalAws, monkeypatch: pytest.MonkeyPatch) -> Ready:
    """Confidant's environment, for a server that runs as ``example-server``."""
    ready = make_ready(local_aws)
    environ = local_aws.env | ready.root.env | {
        "AWS_ACCOUNT_ID": ready.account, "KMS_KEY_ID": ready.key.arn, "SECRET_KEY": SECRET,
        "AUTH_CONTEXT": "app", "AUTH_KEY": "alias/example",
    }  # fmt: skip
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    return ready


@pytest.fixture(params=FRAMEWORKS)
def browser(request: pytest.FixtureRequest, ready: Ready) -> Iterator[Browser]:
    make_app, serve = FRAMEWORKS[request.param]
    with serve(make_app(Gate.from_env(public=["/healthz"]))) as port:
        yield Browser(port)


def token(ready: Ready, to: str = "app") -> ServiceToken:
    return Issuer(make_clients()[0], ready.key.arn, Caller("ci"), to).issue(time.time())


def test_a_program_comes_in(browser: Browser, ready: Ready, local_aws: LocalAws) -> None:
    good = token(ready)
    local_aws.clear_calls()
    for headers in (good.headers(), {"Authorization": good.basic()}):
        answer = browser.send("GET", "/", headers)
        assert (answer.status, answer.text) == (200, "kmsauth:service/ci")
        assert not any("iam-auth" in cookie for cookie in answer.all("Set-Cookie"))
    assert [call.action for call in local_aws.calls].count("Decrypt") == 1
    who = json.loads(browser.send("GET", "/auth/whoami", good.headers()).text)
    assert (who["kind"], who["name"], who["proof"]) == ("service", "ci", "service-token")
    assert browser.send("POST", "/size", good.headers(), body=b"x" * 100_000).text == "100000"


def test_its_credentials_do_not_reach_the_app(browser: Browser, ready: Ready) -> None:
    good = token(ready)
    for headers in (good.headers(), {"Authorization": good.basic()}):
        told = browser.send("GET", "/headers", headers | {"X-Kept": "kept"}).text.lower()
        assert "x-kept: kept" in told
        assert "x-auth" not in told
        assert "basic" not in told
    public = browser.send("GET", "/healthz", good.headers() | {"X-Forwarded-User": "x"})
    assert "ci" not in public.text


def test_a_bad_one_is_403_and_no_challenge(browser: Browser, ready: Ready) -> None:
    for headers in (
        token(ready, "other").headers(),
        {"X-Auth-From": "2/service/a/b", "X-Auth-Token": "x"},
        {"Authorization": "Basic ???"},
    ):
        answer = browser.send("GET", "/", headers)
        assert (answer.status, answer.all("Iam-Auth-Error")) == (403, ["bad-token"])
        assert not answer.all("WWW-Authenticate")


def test_aws_away_is_503(browser: Browser, ready: Ready, local_aws: LocalAws) -> None:
    good = token(ready)
    local_aws.fault("kms", "Decrypt", code="ThrottlingException", times=None)
    assert browser.send("GET", "/", good.headers()).status == 503
