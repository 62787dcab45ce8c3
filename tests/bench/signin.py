"""Sign-ins, end to end: what they ask of AWS, and how long they take."""

from __future__ import annotations

import contextlib
import http.client
import secrets
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from threading import Barrier
from urllib.parse import urljoin

from iam_auth_proxy.local_aws import LocalAws
from iam_auth_proxy.local_aws.ready import Ready, make_ready
from tests.bench.contestants import Field, start
from tests.bench.figures import Figure, absolute
from tests.bench.machine import BenchError
from tests.bench.rows import AWS_CALLS, AWS_CALLS_50, SIGN_IN
from tests.bench.settings import Settings, say
from tests.support.processes import Child, base_env, free_port, wait_for_port

ORIGIN = "http://app.test"
PARALLEL = 50
AWS_DELAY = 0.05
"""Seconds that each call takes, what the embedded AWS needs for it among them."""


def measure(field: Field, settings: Settings) -> list[Figure]:
    """A cold sign-in fills the caches; then warm ones, each of a visitor without a cookie."""
    with _stage() as stage:
        stage.sign_in("/?cold")
        say(f"cold sign-in: {len(stage.calls())} AWS calls of the proxy")
        stage.aws.fault("*", delay=AWS_DELAY, times=None)
        times, calls = [], []
        for turn in range(settings.alternations):
            stage.aws.clear_calls()
            times.append(1000 * stage.sign_in(f"/?warm-{turn}"))
            calls.append(float(len(stage.calls())))
            say(f"warm sign-in: {times[-1]:.0f} ms, AWS: {', '.join(stage.calls())}")
        stage.aws.clear_calls()
        stage.sign_in_together(PARALLEL)
        say(f"{PARALLEL} parallel 401s, AWS: {', '.join(stage.calls())}")
        return [
            absolute(AWS_CALLS, calls),
            absolute(AWS_CALLS_50, [float(len(stage.calls()))]),
            absolute(SIGN_IN, times),
        ]


@dataclass(frozen=True, slots=True)
class _Stage:
    """The embedded AWS, the example app, and our proxy before it."""

    aws: LocalAws
    ready: Ready
    port: int

    def calls(self) -> list[str]:
        """The proxy's calls.

        The app's are made with its own key, but for the call that proves an identity: the user's
        key signs it, and the app sends it, once for each proof that it opens.
        """
        key = self.ready.user.access_key_id
        calls = [call.action for call in self.aws.calls if call.access_key_id == key]
        for call in self.aws.calls:
            if call.action == "Decrypt" and "GetCallerIdentity" in calls:
                calls.remove("GetCallerIdentity")
        return calls

    def sign_in(self, path: str, barrier: Barrier | None = None) -> float:
        """Seconds from the first request to the page, as curl with a cookie jar walks.

        :raises BenchError: it does not end with the page.
        """
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        url, cookie, walk = ORIGIN + path, "", []
        try:
            connection.connect()
            if barrier is not None:
                barrier.wait(30)
            begun = time.perf_counter()
            for _ in range(4):
                # As a browser asks for a page: a program's session would be held, and used again.
                page = {"Upgrade-Insecure-Requests": "1"}
                connection.request(
                    "GET", url, headers=page | ({"Cookie": cookie} if cookie else {})
                )
                answer = connection.getresponse()
                answer.read()
                walk.append(answer.status)
                if answer.status == 200:
                    return time.perf_counter() - begun
                cookie = (answer.getheader("Set-Cookie") or cookie).partition(";")[0]
                url = urljoin(url, answer.getheader("Location") or url)
        finally:
            connection.close()
        raise BenchError(f"the sign-in did not end with the page: {walk}")

    def sign_in_together(self, count: int) -> None:
        """So many at once, each at a URL of its own, as the parts of a page ask for them."""
        barrier = Barrier(count)
        with ThreadPoolExecutor(count) as pool:
            walks = [pool.submit(self.sign_in, f"/?part-{n}", barrier) for n in range(count)]
            for walk in walks:
                walk.result()


@contextlib.contextmanager
def _stage() -> Iterator[_Stage]:
    port = free_port()
    with LocalAws() as aws:
        ready = make_ready(aws)
        app = aws.env | ready.server.env
        app |= {"AWS_ACCOUNT_ID": ready.account, "KMS_KEY_ID": ready.key.arn, "PORT": str(port)}
        app |= {"SECRET_KEY": secrets.token_urlsafe(32), "IAM_AUTH_ORIGINS": ORIGIN}
        with Child([sys.executable, "-m", "server_example"], base_env(**app)) as server:
            wait_for_port(port, server)
            flags = ("--trust", ORIGIN, "--connect-to", f"app.test:80:127.0.0.1:{port}")
            proxy = start(*flags, env=aws.env | ready.user.env)
            with proxy:
                yield _Stage(aws, ready, proxy.port)
