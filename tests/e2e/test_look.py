"""status, whoami and logout, beside running proxies."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e.conftest import APP, USER_ARN, Stack, curl
from tests.support.processes import Child, Proxy, base_env, program
from tests.support.users import NOBODY

pytestmark = pytest.mark.e2e

URL = f"{APP}/check"


def run(env: dict[str, str], *args: str, status: int = 0) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-m", "iam_auth_proxy", *args]
    done = subprocess.run(argv, env=env, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == status, done.stderr
    return done


def socket_of(env: dict[str, str], proxy: Proxy) -> Path:
    return Path(env["XDG_RUNTIME_DIR"], "iam-auth-proxy", f"control-{proxy.port}.sock")


def test_a_session_is_seen_ended_and_asked_for_again(stack: Stack) -> None:
    env = stack.env()
    with stack.proxy(env=env) as proxy:
        before = json.loads(run(env, "status", "--json").stdout)
        assert before["addresses"] == [proxy.address]
        assert before["identities"][0]["arn"] == "", "AWS was not asked yet"
        assert USER_ARN in curl(proxy, URL, cookies=False)
        document = json.loads(run(env, "status", "--json").stdout)
        assert document["identities"][0]["arn"] == USER_ARN
        [app], [session] = document["apps"], document["sessions"]
        assert (app["origin"], app["proofs"], app["sessions"]) == (APP, ["signed-identity"], 1)
        assert app["key"] == stack.ready.key.arn
        assert (session["origin"], session["entrance"]) == (APP, "local")
        assert session["identity"] == USER_ARN
        assert 0 < session["expires_in"] <= 12 * 3600
        assert document["counters"]["signins_completed"] == 1
        text = run(env, "status").stdout
        assert f"{APP} (local) as {USER_ARN}, 1" in text

        assert json.loads(run(env, "logout", APP, "--json").stdout) == {
            "origins": [APP],
            "ended": 1,
        }
        said = curl(proxy, URL, cookies=False)
        command = f"iam-auth-proxy logout --undo {APP}"
        assert command in said
        after = json.loads(run(env, "status", "--json").stdout)
        assert (after["sessions"], after["signed_out"]) == ([], [APP])
        assert after["errors"][-1]["code"] == "signed-out"
        run(env, *command.split()[1:])
        assert USER_ARN in curl(proxy, URL, cookies=False)

        run(env, "logout", "--all")
        assert "[signed-out]" in curl(proxy, URL, cookies=False)
        run(env, "logout", "--all", "--undo")
        assert USER_ARN in curl(proxy, URL, cookies=False)


def test_an_app_in_a_tunnel_is_called_so(stack: Stack) -> None:
    env = stack.env()
    with stack.proxy("--trust", "https://tunnel.test", env=env):
        said = run(env, "status").stdout.splitlines()
    apps = {line.split()[0]: line for line in reversed(said) if line.startswith("  http")}
    assert "a tunnel, not read: nobody is signed in there" in apps["https://tunnel.test"]
    assert "tunnel" not in apps[APP]


def test_what_flags_trust_is_listed_beside_what_is_written(stack: Stack) -> None:
    env = stack.env()
    run(env, "trust", "add", "http://written.test")
    with stack.proxy(env=env):
        lines = run(env, "trust", "list").stdout.splitlines()
    assert [line.split()[0] for line in lines] == ["http://written.test", APP]
    assert lines[1].endswith("the running proxy alone; see: iam-auth-proxy status")
    assert run(env, "trust", "list").stdout.splitlines() == [lines[0].rstrip()]


@pytest.mark.parametrize("is_running", [True, False])
def test_whoami(stack: Stack, is_running: bool) -> None:
    env = stack.env()
    flags = () if is_running else ("--trust", APP)
    proxy = Proxy("--trust", APP, env=env) if is_running else None
    try:
        done = run(env, "whoami", f"{APP}/some/page?x#y", *flags)
        assert done.stdout == f"{USER_ARN}\n"
        assert "proof signed-identity" in done.stderr
        document = json.loads(run(env, "whoami", "--json", "app.test", *flags).stdout)
        assert (document["origin"], document["account"]) == (APP, "111122223333")
        assert run(env, "whoami").stdout == f"{USER_ARN}\n"
        done = run(env, "whoami", "http://other.test", *flags, status=4)
        assert "iam-auth-proxy trust add http://other.test" in done.stderr
    finally:
        if proxy is not None:
            assert proxy.stop() == 0


@pytest.mark.parametrize("is_running", [True, False])
def test_whoami_without_credentials_or_without_aws(stack: Stack, is_running: bool) -> None:
    nobody = base_env(**stack.aws.env)
    offline = stack.env(AWS_ENDPOINT_URL="http://127.0.0.1:9", AWS_MAX_ATTEMPTS="1")
    for env, status in ((nobody, 3), (offline, 6)):
        proxy = Proxy(env=env) if is_running else None
        try:
            done = run(env, "whoami", status=status)
            assert "Traceback" not in done.stderr
        finally:
            if proxy is not None:
                proxy.stop()


@pytest.mark.parametrize("command", [["status"], ["logout", "--all"]])
def test_none_runs(command: list[str]) -> None:
    done = run(base_env(), *command, status=1)
    assert "no proxy is running" in done.stderr
    assert "Run: iam-auth-proxy" in done.stderr


@pytest.mark.parametrize("command", [["logout"], ["logout", "--all", APP], ["logout", "http://"]])
def test_where_must_be_said(command: list[str]) -> None:
    run(base_env(), *command, status=2)


def test_several_side_by_side(stack: Stack) -> None:
    env = stack.env()
    with stack.proxy(env=env) as first:
        with stack.proxy(env=env) as second:
            done = run(env, "status", status=1)
            assert first.address in done.stderr
            assert second.address in done.stderr
            for proxy in (first, second):
                text = run(env, "status", "--json", "--bind", proxy.address).stdout
                assert json.loads(text)["addresses"] == [proxy.address]
        assert json.loads(run(env, "status", "--json").stdout)["addresses"] == [first.address]
    assert not socket_of(env, first).exists()


def test_on_a_unix_socket(stack: Stack, tmp_path: Path) -> None:
    env, bind = stack.env(), f"unix:{tmp_path}/proxy.sock"
    with Child(
        [sys.executable, "-m", "iam_auth_proxy", "--bind", bind, "--log-format", "json"], env
    ) as child:
        child.wait_for('"ready"')
        text = run(env, "status", "--json", "--bind", bind).stdout
        assert json.loads(text)["addresses"] == [bind]


def test_a_killed_proxy_leaves_nothing_in_the_way(stack: Stack) -> None:
    env = stack.env()
    proxy = Proxy(env=env)
    proxy.process.send_signal(signal.SIGKILL)
    proxy.process.wait()
    assert socket_of(env, proxy).exists()
    run(env, "status", status=1)
    again = Child(
        [sys.executable, "-m", "iam_auth_proxy", "--bind", proxy.address, "--log-format", "json"],
        env,
    )
    with again:
        again.wait_for('"ready"')
        run(env, "status")
    proxy.stop()


def test_it_is_closed_to_others(stack: Stack) -> None:
    env = stack.env()
    with stack.proxy(env=env) as proxy:
        path = socket_of(env, proxy)
        assert path.parent.stat().st_mode & 0o777 == 0o700
        assert path.stat().st_mode & 0o777 == 0o600


def test_it_is_never_on_tcp(stack: Stack) -> None:
    with stack.proxy() as proxy:
        for path in ("/status", "/whoami", "/logout"):
            argv = [program("curl"), "-s", "-o", "/dev/null", "-w", "%{http_code}"]
            done = subprocess.run(
                [*argv, f"{proxy.url}{path}"], capture_output=True, text=True, check=False
            )
            assert done.stdout == "404"


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to be somebody else")
def test_another_user_is_sent_away(stack: Stack) -> None:
    env = stack.env()
    with stack.proxy(env=env) as proxy:
        path = socket_of(env, proxy)
        above = path.parents[2]
        for each in (path, path.parent, path.parents[1], above):
            each.chmod(0o777)
        argv = [program("curl"), "-s", "-w", "%{http_code}", "--unix-socket", str(path)]
        argv.append("http://localhost/status")
        mine = subprocess.run(argv, capture_output=True, text=True, check=False).stdout
        theirs = subprocess.run(
            argv, capture_output=True, text=True, check=False, user=NOBODY, group=NOBODY
        ).stdout
        above.chmod(0o700)
    assert mine.endswith("200")
    assert theirs.endswith("403")
    assert USER_ARN not in theirs


def test_a_folder_that_is_open_to_others_is_not_used(stack: Stack) -> None:
    env = stack.env()
    folder = Path(env["XDG_RUNTIME_DIR"], "iam-auth-proxy")
    folder.mkdir(mode=0o755)
    folder.chmod(0o777)
    with stack.proxy(env=env) as proxy:
        [event] = proxy.events("status, whoami and logout do not reach this proxy")
        assert "chmod 700" in event["error"]
        assert USER_ARN in curl(proxy, URL, cookies=False), "all else works"
        run(env, "status", status=1)
