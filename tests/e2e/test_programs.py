"""Programs just work: curl and wget, and Python's clients, with bodies and without a cookie jar."""

from __future__ import annotations

import asyncio
import hashlib
import re
import subprocess
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import pytest
import requests

from iam_auth_proxy.local_aws import Keys, allow, trust
from tests.e2e.conftest import APP, USER_ARN, Stack, curl
from tests.support.bound_app import BoundApp, in_thread
from tests.support.legacy_app import LegacyApp
from tests.support.processes import Proxy, base_env, free_port, nginx, program

pytestmark = [pytest.mark.e2e, pytest.mark.usefixtures("aws_of_the_app")]

BIG = 20_000_000
# Sign-ins of one origin are limited, so that each test has one of its own.
HOSTS = ("post", "put", "expect", "no-expect", "chunked", "too-big", "front", "wget", "python")
TOO_BIG = 66 << 20


@dataclass
class Scene:
    """An app and a proxy that trusts it."""

    stack: Stack
    app: BoundApp
    proxy: Proxy


@pytest.fixture(scope="module")
def scene(stack: Stack) -> Iterator[Scene]:
    ready = stack.ready
    origins = [f"http://{host}.test" for host in HOSTS]
    with in_thread(stack.aws, ready.server, ready.key.arn, "", origins=origins) as app:
        flags = [f"--trust={origin}" for origin in origins]
        flags += [f"--connect-to={host}.test:80:127.0.0.1:{app.port}" for host in HOSTS]
        proxy = Proxy(*flags, env=stack.env())
        try:
            yield Scene(stack, app, proxy)
            assert "Traceback" not in proxy.output
        finally:
            assert proxy.stop() == 0, proxy.output


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder: Path = tmp_path_factory.mktemp("files")
    (folder / "big").write_bytes(hashlib.shake_128(b"big").digest(BIG))
    with (folder / "too-big").open("wb") as file:
        file.truncate(TOO_BIG)
    return folder


def statuses(shown: str) -> list[str]:
    return [each for each in re.findall(r"^HTTP/1\.1 (\d+)", shown, re.MULTILINE) if each != "100"]


# -- curl and wget ---------------------------------------------------------------------------------

SENDS = {
    "post": ["-X", "POST", "--data-binary", "@{files}/big"],
    "put": ["-T", "{files}/big"],
    "expect": ["-H", "Expect: 100-continue", "--data-binary", "@{files}/big"],
    "no-expect": ["-H", "Expect:", "--data-binary", "@{files}/big"],
    "chunked": ["-H", "Transfer-Encoding: chunked", "--data-binary", "@{files}/big"],
}


@pytest.mark.parametrize("over", [False, True], ids=["in-session", "session-over"])
@pytest.mark.parametrize("how", SENDS)
def test_curl_sends_twenty_megabytes(scene: Scene, files: Path, how: str, over: bool) -> None:
    path = f"/{how}-{over}"
    if over:
        scene.app.expired.add(path)
    args = [arg.format(files=files) for arg in SENDS[how]]
    shown = curl(scene.proxy, *args, "-D", "-", f"http://{how}.test{path}", cookies=False)
    assert statuses(shown) == ["200"]
    method = "PUT" if how == "put" else "POST"
    assert f"{method} {BIG} bytes of {USER_ARN}" in shown
    assert not scene.app.expired


def test_a_body_of_any_size_where_the_app_says_no_at_once(scene: Scene, files: Path) -> None:
    """What has not been taken from the client yet needs no room."""
    scene.app.expired.add("/x")
    shown = curl(
        scene.proxy, "-T", f"{files}/too-big", "-D", "-", "http://too-big.test/x", cookies=False
    )
    assert statuses(shown) == ["200"]
    assert f"PUT {TOO_BIG} bytes of {USER_ARN}" in shown


def test_a_body_too_big_to_be_kept_is_sent_again(scene: Scene, files: Path, tmp_path: Path) -> None:
    """A front end reads the whole of it before it asks the app, so the client says it twice."""
    port = free_port()
    config = f"""
      server {{
        listen 127.0.0.1:{port}; client_max_body_size 0;
        location / {{
          proxy_pass http://127.0.0.1:{scene.app.port}; proxy_set_header Host $host;
        }}
      }}"""
    flags = ["--trust=http://front.test", f"--connect-to=front.test:80:127.0.0.1:{port}"]
    with nginx(config, tmp_path, port), scene.stack.proxy(*flags) as proxy:
        shown = curl(
            proxy, "-T", f"{files}/too-big", "-D", "-", "http://front.test/y", cookies=False
        )
    assert statuses(shown) == ["307", "200"]
    assert f"PUT {TOO_BIG} bytes of {USER_ARN}" in shown


def test_wget(scene: Scene, files: Path) -> None:
    env = base_env(http_proxy=scene.proxy.url)
    for over in ("/wget", ""):
        scene.app.expired |= {over} - {""}
        argv = [program("wget"), "-q", "-O", "-", "http://wget.test/wget"]
        done = subprocess.run(argv, env=env, capture_output=True, text=True, check=True)
        assert done.stdout == f"GET 0 bytes of {USER_ARN}"
    scene.app.expired.add("/wget-post")
    argv = [
        program("wget"),
        "-q",
        "-O",
        "-",
        f"--post-file={files}/big",
        "http://wget.test/wget-post",
    ]
    done = subprocess.run(argv, env=env, capture_output=True, text=True, check=True)
    assert done.stdout == f"POST {BIG} bytes of {USER_ARN}"


# -- Python ----------------------------------------------------------------------------------------


def by_urllib(proxy: str, url: str, body: bytes | None) -> str:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({"http": proxy}))
    with opener.open(urllib.request.Request(url, body), timeout=30) as answer:
        return str(answer.read().decode())


def by_requests(proxy: str, url: str, body: bytes | None) -> str:
    method = "GET" if body is None else "POST"
    proxies = {"http": proxy}
    return requests.request(method, url, data=body, proxies=proxies, timeout=30).text


def by_aiohttp(proxy: str, url: str, body: bytes | None) -> str:
    async def ask() -> str:
        method = "GET" if body is None else "POST"
        async with (
            aiohttp.ClientSession() as session,
            session.request(method, url, data=body, proxy=proxy) as answer,
        ):
            return await answer.text()

    return asyncio.run(ask())


@pytest.mark.parametrize("ask", [by_urllib, by_requests, by_aiohttp])
def test_python(scene: Scene, ask: Callable[[str, str, bytes | None], str]) -> None:
    url = f"http://python.test/{ask.__name__}"
    for body in (None, bytes(1_000_000)):
        for over in (True, False):
            if over:
                scene.app.expired.add(f"/{ask.__name__}")
            text = ask(scene.proxy.url, url, body)
            sent = "GET 0" if body is None else f"POST {len(body)}"
            assert text == f"{sent} bytes of {USER_ARN}"
    assert not scene.app.expired


# -- whose credentials cannot make others ----------------------------------------------------------


@pytest.fixture(scope="module")
def session(stack: Stack) -> Keys:
    """Somebody who signs in by SSO, with the longest token that STS hands out."""
    before, stack.aws.session_token_size = stack.aws.session_token_size, 4096
    policies = [allow("kms:Encrypt", resource=stack.ready.key.arn), allow("sts:AssumeRole")]
    session = stack.aws.sso_role("Developer", "ann@example.com", policies=policies)
    assert len(session.session_token) == 4096
    stack.aws.session_token_size = before
    return session


def test_a_session_signs_in(stack: Stack, session: Keys) -> None:
    with stack.proxy(env=stack.env(session)) as proxy:
        assert curl(proxy, f"{APP}/check", cookies=False) == f"ok {session.arn}\n"


def test_an_original_app_takes_no_session(stack: Stack, session: Keys) -> None:
    """GetSessionToken is for users: the page says so, and what the app's owner can do."""
    ready, before = stack.ready, len(stack.aws.calls)
    with LegacyApp(stack.aws, ready.server, ready.key.arn) as app:
        flags = ["--trust=http://original.test", "--proof=session-credentials"]
        flags += [f"--connect-to=original.test:80:127.0.0.1:{app.port}"]
        with stack.proxy(*flags, env=stack.env(session)) as proxy:
            shown = curl(proxy, "-D", "-", "http://original.test/", cookies=False)
            assert statuses(shown) == ["403"]
            assert "[session-credentials]" in shown
            assert "IAM_AUTH_ORIGINS" in shown
    actions = {call.action for call in stack.aws.calls[before:]}
    assert "GetSessionToken" not in actions
    assert not any(target.startswith("/auth") for target in app.asked)


def test_unless_there_is_a_role_for_it(stack: Stack, session: Keys) -> None:
    """Its sessions may do nothing at all but say whose they are."""
    ready = stack.ready
    role = stack.aws.role("Login", trust(stack.aws.account), policies=[allow("*")])
    with LegacyApp(stack.aws, ready.server, ready.key.arn) as app:
        flags = ["--trust=http://original.test", "--proof=session-credentials"]
        flags += [f"--login-role-arn={role.arn}"]
        flags += [f"--connect-to=original.test:80:127.0.0.1:{app.port}"]
        with stack.proxy(*flags, env=stack.env(session)) as proxy:
            shown = curl(proxy, "http://original.test/", cookies=False)
    assert re.fullmatch(r"you are arn:aws:sts::111122223333:assumed-role/Login/\S+", shown)
