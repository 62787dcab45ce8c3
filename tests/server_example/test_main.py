"""``python -m server_example`` with the original's environment, and a legacy sign-in at it."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from iam_auth_proxy.errors import ConfigError
from iam_auth_proxy.local_aws import LocalAws
from iam_auth_proxy.local_aws.ready import make_ready
from iam_auth_proxy.protocol.handoff import FORM_TYPE
from server_example.__main__ import Listen, make_gate, read_listen
from tests.server.boundproxy import FORM, BoundProxy
from tests.server.originalproxy import Browser, OriginalProxy

SECRET = "N5yhfMZ6m0lTqR2cWv8sJp3XbKdGzUeA9o7iQ1tB4nE"
ORIGINAL = {"AWS_ACCOUNT_ID": "111122223333", "SECRET_KEY": SECRET, "KMS_KEY_ID": "alias/example"}


def environment(more: dict[str, str]) -> dict[str, str]:
    return {"PATH": os.environ["PATH"], "AWS_EC2_METADATA_DISABLED": "true", **more}


@contextmanager
def running(more: dict[str, str]) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """The process and its port."""
    command = [sys.executable, "-m", "server_example"]
    with subprocess.Popen(
        command, env=environment(more), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            match = re.fullmatch(r"listening on http://127\.0\.0\.1:(\d+) for (.+)\n", line)
            assert match, line + (process.stderr.read() if process.stderr else "")
            yield process, int(match[1])
        finally:
            process.kill()


def test_a_sign_in_with_the_originals_environment(local_aws: LocalAws, tmp_path: Path) -> None:
    ready = make_ready(local_aws)
    secret = tmp_path / "secret"
    secret.write_text(SECRET + "\n")
    more = local_aws.env | ready.server.env | {
        "AWS_ACCOUNT_ID": ready.account, "KMS_KEY_ID": "alias/example", "KMS_SALT": "pepper",
        "SECRET_KEY_FILE": str(secret), "PORT": "0",
    }  # fmt: skip
    with running(more) as (process, port):
        browser = Browser(port)
        answer = OriginalProxy(local_aws, ready.user).open(browser, "/check")
        assert answer.text == "ok arn:aws:iam::111122223333:user/example-user\n"
        other = Browser(port, host="other.test").get("/")
        assert other.status == 401, "as with the original, any name will do"
        assert not other.all("Iam-Auth-Nonce")
        # A token as long as they get: the request line is longer than aiohttp's own limit.
        local_aws.session_token_size = 3800
        browser.cookies.clear()
        assert OriginalProxy(local_aws, ready.user).open(browser, "/check").status == 200
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=10)
        assert process.returncode == 0
    assert "Traceback" not in err
    assert SECRET not in out + err
    assert "token=" not in out + err


def test_what_is_malformed_is_a_line_of_the_log() -> None:
    """aiohttp reads requests before the gate does, and would print a traceback for each of these.

    One is refused in its head, one in its body, and one by what unpacks the body.
    """
    form = b"POST /auth HTTP/1.1\r\nHost: app.test\r\nContent-Type: %b\r\n" % FORM_TYPE.encode()
    more = ORIGINAL | {"IAM_AUTH_ORIGINS": "http://app.test", "PORT": "0"}
    with running(more) as (process, port):
        for request in (
            b"GET /\xff HTTP/1.1\r\nHost: app.test\r\n\r\n",
            form + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n",
            form + b"Content-Encoding: gzip\r\nContent-Length: 3\r\n\r\na=b",
        ):
            with socket.create_connection(("127.0.0.1", port), 10) as client:
                client.sendall(request)
                assert client.recv(65536).split(b" ", 2)[1] == b"400"
        process.send_signal(signal.SIGTERM)
        err = process.communicate(timeout=10)[1]
    assert "Traceback" not in err
    lines = [line for line in err.splitlines() if "aiohttp" in line]
    assert len(lines) == 3
    assert all(line.startswith("INFO aiohttp.server: a malformed request: ") for line in lines)


def test_two_workers_that_share_a_replay_file(local_aws: LocalAws, tmp_path: Path) -> None:
    """What one has seen is spent in the other, and a logout holds in both."""
    ready = make_ready(local_aws)
    tmp_path.chmod(0o700)
    more = local_aws.env | ready.server.env | {
        "AWS_ACCOUNT_ID": ready.account, "KMS_KEY_ID": ready.key.arn, "SECRET_KEY": SECRET,
        "PORT": "0", "IAM_AUTH_REPLAY": f"file:{tmp_path}/replay.db",
        "IAM_AUTH_ORIGINS": "http://app.test", "IAM_AUTH_PROOFS": "signed-identity",
    }  # fmt: skip
    with running(more) as (_, one), running(more) as (_, two):
        first, second = Browser(one), Browser(two)
        body, cookie = BoundProxy(local_aws, ready.user).form(first.get("/check"), "/check")
        name, _, value = cookie.partition("=")
        second.cookies = {name: value}
        assert second.send("POST", "/auth", FORM, body).status == 303
        first.cookies = {name: value}
        replayed = first.send("POST", "/auth", FORM, body)
        assert (replayed.status, replayed.all("Iam-Auth-Error")) == (403, ["replayed"])
        first.cookies = dict(second.cookies)
        assert first.get("/check").text == f"ok {ready.user.arn}\n"
        session = dict(second.cookies)
        assert first.send("POST", "/auth/logout", {"Origin": "http://app.test"}, b"").status == 200
        second.cookies = session
        assert second.get("/check").status == 401


def run(more: dict[str, str]) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "server_example"]
    return subprocess.run(
        command, env=environment(more), capture_output=True, text=True, timeout=20, check=False
    )


def test_every_problem_at_once_and_no_traceback() -> None:
    done = run({"SECRET_KEY": "changeme", "PORT": "http"})
    assert done.returncode == 2
    assert "SECRET_KEY: looks like a placeholder" in done.stderr
    assert "token_urlsafe" in done.stderr
    assert "KMS_KEY_ID: is needed" in done.stderr
    assert "PORT: not a port" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_port_that_is_taken() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        done = run(ORIGINAL | {"PORT": port})
    assert done.returncode == 1
    assert f"cannot listen on 127.0.0.1:{port}" in done.stderr
    assert "Traceback" not in done.stderr


def test_where_it_listens(tmp_path: Path) -> None:
    assert read_listen({}) == Listen("127.0.0.1", 8082)
    (tmp_path / "port").write_text("80\n")
    listen = {"PORT_FILE": str(tmp_path / "port"), "BIND": "127.0.0.2"}
    assert read_listen(listen) == Listen("127.0.0.2", 80)
    for text in ("http", "-1", "65536", "٨", "1.5", "8082\n", "9" * 5000):
        with pytest.raises(ConfigError, match="PORT: not a port"):
            read_listen({"PORT": text})


def test_what_it_is_called() -> None:
    assert make_gate(ORIGINAL).settings.origins == ()
    named = ORIGINAL | {"IAM_AUTH_ORIGINS": "http://a.test http://b.test"}
    assert len(make_gate(named).settings.origins) == 2
    with running(named | {"PORT": "0"}) as (_, port):
        assert Browser(port, host="b.test").get("/healthz").status == 200
        assert Browser(port, host="other.test").get("/").status == 421


def refused(more: dict[str, str]) -> tuple[int, str]:
    """How it ends that does not start: its status, and what it says last."""
    done = subprocess.run(
        [sys.executable, "-m", "server_example"],
        env=environment(more), capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert "Traceback" not in done.stderr
    return done.returncode, done.stderr.splitlines()[-1]


class TestKeyRing:
    """In place of the secret key; rotation itself is tests/e2e/test_rolling_rotation.py's."""

    def test_one_that_is_not_there(self, local_aws: LocalAws, tmp_path: Path) -> None:
        ready = make_ready(local_aws)
        (tmp_path / "store").mkdir(mode=0o700)
        place = f"file:{tmp_path}/store/ring"
        more = local_aws.env | ready.server.env | {
            "AWS_ACCOUNT_ID": ready.account, "KMS_KEY_ID": ready.key.arn, "IAM_AUTH_KEYRING": place,
        }  # fmt: skip
        assert refused(more) == (
            2,
            f"{place}: the key ring cannot be used: there is no key ring {place}. Make it: "
            f"iam-auth-proxy keyring new {place} --kms-key KEY",
        )

    def test_an_aws_that_is_silent(self, local_aws: LocalAws, tmp_path: Path) -> None:
        """The app starts, and says that it is not ready."""
        ready = make_ready(local_aws)
        folder = tmp_path / "store"
        folder.mkdir(mode=0o700)
        place, key = f"file:{folder}/ring", ready.key.arn
        made = subprocess.run(
            [sys.executable, "-m", "iam_auth_proxy", "keyring", "new", place, "--kms-key", key],
            env=environment(local_aws.env | ready.root.env), capture_output=True, text=True,
            timeout=60, check=False,
        )  # fmt: skip
        assert made.returncode == 0, made.stderr
        with socket.create_server(("127.0.0.1", 0)) as closed:
            silent = f"http://127.0.0.1:{closed.getsockname()[1]}"
        more = local_aws.env | ready.server.env | {
            "AWS_ACCOUNT_ID": ready.account, "KMS_KEY_ID": key, "IAM_AUTH_KEYRING": place,
            "AWS_ENDPOINT_URL_KMS": silent, "PORT": "0",
        }  # fmt: skip
        with running(more) as (process, port):
            health = Browser(port).get("/healthz")
            assert (health.status, health.text.partition("\n")[0]) == (503, "not ready")
            answer = Browser(port).get("/")
            assert (answer.status, answer.all("Iam-Auth-Error")) == (503, ["store-unavailable"])
            process.send_signal(signal.SIGTERM)
            assert "Traceback" not in process.communicate(timeout=10)[1]
