"""The whole thing, for real: embedded AWS, example app and proxy as processes of their own."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from iam_auth_proxy.local_aws import Keys, LocalAws
from iam_auth_proxy.local_aws.ready import Ready, make_ready
from tests.support.processes import Child, Proxy, base_env, program

APP = "http://app.test"
USER_ARN = "arn:aws:iam::111122223333:user/example-user"
ARTIFACTS = Path(__file__).parent / "artifacts"


@dataclass
class Stack:
    """An embedded AWS with an app behind it; proxies are started by the tests."""

    aws: LocalAws
    ready: Ready
    app: Child
    app_port: int

    def env(self, keys: Keys | None = None, **more: str) -> dict[str, str]:
        """The environment of a person of this AWS, the ready user unless said otherwise."""
        return base_env(**{**self.aws.env, **(keys or self.ready.user).env, **more})

    @contextlib.contextmanager
    def proxy(self, *flags: str, env: dict[str, str] | None = None) -> Iterator[Proxy]:
        """A proxy that trusts the app and finds it."""
        found = ["--trust", APP, "--connect-to", f"app.test:80:127.0.0.1:{self.app_port}"]
        proxy = Proxy(*found, *flags, env=env or self.env())
        try:
            yield proxy
            assert "Traceback" not in proxy.output
        finally:
            assert proxy.stop() == 0, proxy.output


@contextlib.contextmanager
def example(aws: LocalAws, ready: Ready, **env: str) -> Iterator[tuple[Child, int]]:
    """The example app on a free port."""
    settings = {
        "AWS_ACCOUNT_ID": aws.account,
        "KMS_KEY_ID": ready.key.arn,
        "SECRET_KEY": "6f1ed002ab5595859014ebf0951522d9a0a1b2c3d4e5f60718293a4b5c6d7e8f",
        "IAM_AUTH_ORIGINS": APP,
        "PORT": "0",
    }
    full = base_env(**{**aws.env, **ready.server.env, **settings, **env})
    with Child([sys.executable, "-m", "server_example"], full) as app:
        yield app, int(app.wait_for(r"listening on http://127\.0\.0\.1:(\d+)")[1])


@pytest.fixture(scope="module")
def stack() -> Iterator[Stack]:
    with LocalAws() as aws:
        ready = make_ready(aws)
        with example(aws, ready) as (app, port):
            yield Stack(aws, ready, app, port)
            assert "Traceback" not in app.output


def curl(proxy: Proxy, *args: str, status: int = 0, cookies: bool = True) -> str:
    """curl's output; it follows redirects and keeps cookies for the length of the command."""
    jar = ["-b", ""] if cookies else []
    argv = [program("curl"), "-sS", "-L", *jar, "-m", "30", "-x", proxy.url, *args]
    done = subprocess.run(argv, capture_output=True, text=True, env=base_env(), check=False)
    assert done.returncode == status, done.stderr + proxy.output
    return done.stdout


@pytest.fixture
def aws_of_the_app(stack: Stack, clean_environment: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """For apps that run in this process, and have its AWS settings."""
    for name, value in stack.aws.env.items():
        monkeypatch.setenv(name, value)
