"""A rolling rotation: four real servers, one stored ring, and a client that never stops asking.

The servers are processes of ``server_example`` that share nothing but a folder; keys are rotated
and disabled by the command. Nothing is refused over a rotation; what a disabled key signed is
refused everywhere within the poll interval. And moving over to such a ring.
"""

from __future__ import annotations

import contextlib
import itertools
import re
import secrets
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from iam_auth_proxy.keys.rotation import open_ring
from iam_auth_proxy.local_aws import LocalAws
from iam_auth_proxy.local_aws.ready import Ready, make_ready
from iam_auth_proxy.protocol.lifecycle import Policy
from iam_auth_proxy.proxy.signin.handover import AGAIN
from tests.e2e.conftest import APP, USER_ARN
from tests.server.boundproxy import BoundProxy
from tests.server.originalproxy import Browser, OriginalProxy
from tests.support.processes import PATIENCE, Child, base_env

pytestmark = pytest.mark.e2e

SERVERS = 4
POLL = 1
"""Seconds. What is asserted of it allows for a machine that is busy with other tests."""
LATE = 9.0


@dataclass
class Server:
    """One of the processes."""

    child: Child
    port: int

    def get(self, target: str, cookie: str = "") -> tuple[int, str]:
        """Status and body."""
        jar = {"iam-auth": cookie} if cookie else {}
        answer = Browser(self.port, cookies=jar).get(target)
        return answer.status, answer.text


@dataclass
class Fleet:
    """The servers and their ring."""

    aws: LocalAws
    ready: Ready
    folder: Path
    stack: contextlib.ExitStack
    servers: list[Server] = field(default_factory=list)
    first: str = ""

    @property
    def place(self) -> str:
        return f"file:{self.folder}/ring"

    def start(self, number: int, **settings: str) -> list[Server]:
        """So many more servers, side by side; on the ring, unless it is said with what else."""
        settings = settings or {"IAM_AUTH_KEYRING": self.place}
        env = base_env(
            **self.aws.env, **self.ready.server.env, **settings,
            AWS_ACCOUNT_ID=self.aws.account, KMS_KEY_ID=self.ready.key.arn, IAM_AUTH_ORIGINS=APP,
            IAM_AUTH_MAX_SESSION="1h", PORT="0",
        )  # fmt: skip
        argv = [sys.executable, "-m", "server_example"]
        children = [self.stack.enter_context(Child(argv, env)) for _ in range(number)]
        started = []
        for child in children:
            port = int(child.wait_for(r"listening on http://127\.0\.0\.1:(\d+)")[1])
            started.append(Server(child, port))
        self.servers += started
        return started

    def keyring(self, verb: str, *args: str, **more: str) -> str:
        """The key that ``iam-auth-proxy keyring`` speaks of first: the one that is new there."""
        argv = [sys.executable, "-m", "iam_auth_proxy", "keyring", verb, self.place, *args]
        env = base_env(**{**self.aws.env, **self.ready.root.env, **more})
        done = subprocess.run(
            [*argv, "--kms-key", self.ready.key.arn],
            capture_output=True, text=True, env=env, check=False, timeout=60,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        found = re.search(r"\b[0-9a-f]{12}\b", done.stderr)
        assert found is not None, done.stderr
        return found[0]

    def sign_in(self, begun: Server, ended: Server) -> tuple[str, list[str]]:
        """The session cookie of a sign-in that began at one server and ended at another.

        And why there is none, as the answer says.
        """
        refused = Browser(begun.port).get("/check")
        assert refused.status == 401, refused
        browser = Browser(ended.port)
        answer = BoundProxy(self.aws, self.ready.user).post(browser, refused, "/check")
        return browser.cookies.get("iam-auth", ""), answer.all("Iam-Auth-Error")


@pytest.fixture
def fleet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Fleet]:
    """A ring, and no server yet."""
    with LocalAws() as aws, contextlib.ExitStack() as stack:
        fleet = Fleet(aws, make_ready(aws), tmp_path / "store", stack)
        fleet.folder.mkdir(mode=0o700)
        for name, value in {**aws.env, **fleet.ready.root.env}.items():
            monkeypatch.setenv(name, value)
        # Made here, since the command takes no zero: one clock, and a quick store.
        policy = Policy(poll=POLL, max_session=3600, skew=0, read=0, outage=1)
        made = open_ring(fleet.place, [fleet.ready.key.arn]).create(policy, time.time())
        fleet.first = made.ring.versions[0].id
        yield fleet
        for server in fleet.servers:
            assert "Traceback" not in server.child.output


class Load:
    """People who ask all servers in turn, and now and then somebody who signs in anew.

    :ivar refused: every answer that was no 200, of a session that should hold.
    :ivar served: how many were.
    :ivar disabling: whether some servers may not know yet that a key is disabled. Until then their
        nonces and salts may be refused by those who know; our proxy starts such a sign-in again.
    """

    def __init__(self, fleet: Fleet) -> None:
        self.fleet = fleet
        self.changed = threading.Condition()
        self.sessions: list[str] = []
        self.signed: dict[int, str] = {}
        self.refused: list[object] = []
        self.served = 0
        self.disabling = False
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._ask), threading.Thread(target=self._sign_in)]

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(PATIENCE)

    def wait_until_all_sign_with(self, key: str) -> None:
        """Until each server gave somebody a cookie of that key."""
        with self.changed:
            done = self.changed.wait_for(
                lambda: self.refused or set(self.signed.values()) == {key}, PATIENCE
            )
            assert done, (key, self.signed)

    def wait_until_all_sign_in_again(self) -> None:
        """Until a further sign-in ended at each server."""
        with self.changed:
            key, self.signed = next(iter(self.signed.values())), {}
            ports = {server.port for server in self.fleet.servers}
            assert self.changed.wait_for(
                lambda: self.refused or self.signed.keys() == ports, PATIENCE
            )
            assert set(self.signed.values()) <= {key}

    def go_on(self, rounds: int = 2) -> None:
        """Until every session was served so often by each server."""
        with self.changed:
            until = self.served + rounds * SERVERS * len(self.sessions)
            assert self.changed.wait_for(lambda: self.refused or self.served >= until, PATIENCE)

    def drop(self, key: str) -> list[str]:
        """Ask no more with cookies of that key; they are given back."""
        with self.changed:
            dropped = [cookie for cookie in self.sessions if cookie.startswith(key)]
            self.sessions = [cookie for cookie in self.sessions if cookie not in dropped]
        self.go_on(1)  # what was under way
        return dropped

    def _ask(self) -> None:
        for server in itertools.cycle(self.fleet.servers):
            with self.changed:
                sessions = list(self.sessions)
            for cookie in sessions:
                answer = server.get("/check", cookie)
                with self.changed:
                    if answer[0] == 200:
                        self.served += 1
                    elif cookie in self.sessions:
                        self.refused.append((server.port, cookie, answer))
                    self.changed.notify_all()
            if self._stop.wait(0.01):  # the servers have other things to do as well
                return

    def _sign_in(self) -> None:
        servers = self.fleet.servers
        for number in itertools.count():
            ended, begun = servers[number % SERVERS], servers[(number + number // 4) % SERVERS]
            disabling = self.disabling
            cookie, reasons = self.fleet.sign_in(begun, ended)
            with self.changed:
                if cookie:
                    key = self.signed[ended.port] = cookie.partition(".")[0]
                    if sum(each.startswith(key) for each in self.sessions) < SERVERS:
                        self.sessions.append(cookie)
                elif not disabling or reasons[0] not in AGAIN:
                    self.refused.append((begun.port, ended.port, reasons))
                self.changed.notify_all()
            # Sign-ins of one client are limited, and requests should have their turns as well.
            if self._stop.wait(0.1):
                return


def said(fleet: Fleet, pattern: str) -> None:
    """Wait until each server has said so."""
    for server in fleet.servers:
        server.child.wait_for(pattern)


def times_said(fleet: Fleet, text: str) -> list[int]:
    return [server.child.output.count(text) for server in fleet.servers]


def test_a_rolling_rotation(fleet: Fleet) -> None:
    fleet.start(SERVERS)
    old = fleet.first
    with Load(fleet) as load:
        load.wait_until_all_sign_with(old)
        load.go_on()

        # Rotation: nobody is refused, nobody is signed out.
        new = fleet.keyring("rotate")
        load.wait_until_all_sign_with(new)
        load.go_on()
        assert not load.refused
        said(fleet, f"key {new} signs from now on, in place of {old}")

        # The store is down for a while: the last good ring serves on.
        away = fleet.folder.with_name("away")
        fleet.folder.rename(away)
        said(fleet, r"ERROR iam_auth_proxy\.keys\.live")
        load.go_on()
        for server in fleet.servers:
            status, text = server.get("/healthz")
            assert (status, text.partition("\n")[0]) == (200, "ok")
            assert "The key ring cannot be read" in text
        away.rename(fleet.folder)
        said(fleet, "can be read again")
        assert [server.get("/healthz") for server in fleet.servers] == [(200, "ok\n")] * SERVERS
        assert not load.refused

        # A key is disabled: what it signed is refused everywhere, and no other session is.
        stolen = load.drop(old)
        assert stolen
        for server in fleet.servers:
            assert server.get("/check", stolen[0])[0] == 200
        load.disabling = True
        fleet.keyring("disable", old)
        disabled = time.monotonic()
        waiting = set(range(SERVERS))
        while waiting:
            assert time.monotonic() < disabled + POLL + LATE, f"{waiting} accept a disabled key"
            for number in sorted(waiting):
                status, _ = fleet.servers[number].get("/check", stolen[0])
                assert status in (200, 401)
                if status == 401:
                    waiting.remove(number)
        for server in fleet.servers:
            assert [server.get("/check", each)[0] for each in stolen] == [401] * len(stolen)
        load.disabling = False
        load.wait_until_all_sign_in_again()
        load.go_on()
        assert not load.refused
    for text in (
        f"key {new} signs from now on",
        f"key {old} is accepted no more",
        "ERROR iam_auth_proxy.keys.live",
        "can be read again",
    ):
        assert times_said(fleet, text) == [1] * SERVERS, (text, fleet.servers[0].child.output)


def test_moving_over_from_a_secret_key(fleet: Fleet) -> None:
    """A server with the original's variables is replaced by one with a ring, amid sign-ins."""
    today = {"SECRET_KEY": secrets.token_urlsafe(32), "KMS_SALT": "pepper"}
    (old,) = fleet.start(1, **today)
    cookie, _ = fleet.sign_in(old, old)
    bound, user = BoundProxy(fleet.aws, fleet.ready.user), fleet.ready.user
    begun = Browser(old.port).get("/check")
    under_way = OriginalProxy(fleet.aws, user).location(Browser(old.port).get("/check"), "/check")

    imported = fleet.keyring("import", "--from-env", "SECRET_KEY,KMS_SALT", **today)
    assert cookie.startswith(imported)
    (new,) = fleet.start(1)
    assert new.get("/check", cookie) == (200, f"ok {USER_ARN}\n")
    browser = Browser(new.port)
    assert bound.post(browser, begun, "/check").status == 303
    assert browser.cookies["iam-auth"].startswith(fleet.first)
    browser = Browser(new.port)
    assert browser.get(under_way.removeprefix("//app.test")).status == 302
    assert browser.get("/check").status == 200
