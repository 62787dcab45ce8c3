"""One command behind a private proxy: real programs, without a cookie jar, just work."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from iam_auth_proxy import policies
from iam_auth_proxy.local_aws import Keys
from iam_auth_proxy.names import parse_origin
from iam_auth_proxy.proxy.https.ca import Authorities
from tests.e2e.conftest import APP, USER_ARN, Stack
from tests.support.processes import Child, base_env

pytestmark = pytest.mark.e2e

EXEC = [sys.executable, "-m", "iam_auth_proxy", "exec"]
URL = f"{APP}/check"
URLLIB = f"import urllib.request; print(urllib.request.urlopen({URL!r}).read().decode())"


def flags(stack: Stack) -> list[str]:
    return ["--trust", APP, "--connect-to", f"app.test:80:127.0.0.1:{stack.app_port}"]


def run(
    stack: Stack, *command: str, more: tuple[str, ...] = (), keys: Keys | None = None
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*EXEC, *flags(stack), *more, "--", *command],
        env=stack.env(keys),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize(
    "command",
    [
        ("curl", "-sS", URL),
        ("wget", "-q", "-O", "-", URL),
        (sys.executable, "-c", URLLIB),
        ("curl", "-sS", URL, URL, URL),
        ("sh", "-c", f"curl -sS {URL} && wget -q -O - {URL}"),
    ],
    ids=["curl", "wget", "urllib", "curl thrice", "two programs"],
)
def test_programs_without_a_cookie_jar_just_work(stack: Stack, command: tuple[str, ...]) -> None:
    asked = len([call for call in stack.aws.calls if call.action == "Encrypt"])
    done = run(stack, *command)
    assert done.returncode == 0, done.stderr
    urls = max(1, " ".join(command).count(f" {URL}"))
    assert done.stdout.count(f"ok {USER_ARN}") == urls
    assert done.stderr == ""
    now = len([call for call in stack.aws.calls if call.action == "Encrypt"])
    assert now - asked == 1, "the session is held for all that the command does"


def test_a_body_is_sent_again(stack: Stack, tmp_path: Path) -> None:
    body = tmp_path / "body"
    body.write_bytes(os.urandom(20 * 2**20))
    digest = hashlib.sha256(body.read_bytes()).hexdigest()
    done = run(stack, "curl", "-sS", "--data-binary", f"@{body}", f"{APP}/form")
    assert done.stdout == f"{20 * 2**20} bytes\nsha256 {digest}\n", done.stderr


def test_the_page_of_a_denied_encrypt_holds_the_policy(stack: Stack) -> None:
    keys = stack.aws.user("mallory").keys()
    done = run(stack, "curl", "-sS", "-H", "Accept: application/json", URL, keys=keys)
    document = json.loads(done.stdout)
    assert document["error"] == "access-denied"
    assert document["policy"] == policies.user(parse_origin(APP), stack.ready.key.arn)
    allowed = stack.aws.user("alice", policies=[document["policy"]]).keys()
    done = run(stack, "curl", "-sS", URL, keys=allowed)
    assert done.stdout == "ok arn:aws:iam::111122223333:user/alice\n", "it was all that was missing"


def test_the_secret_is_in_the_environment_alone(stack: Stack) -> None:
    script = "echo $http_proxy $HTTP_PROXY $https_proxy $HTTPS_PROXY; ps -eww -o args"
    more = ("--log-level", "debug", "--log-format", "json")
    done = run(stack, "sh", "-c", script, more=more)
    first, *listing = done.stdout.splitlines()
    urls = first.split()
    assert len(urls) == 4
    assert len(set(urls)) == 1
    assert urls[0].startswith("http://x:")
    secret = urls[0].removeprefix("http://x:").partition("@")[0]
    assert len(secret) >= 32
    assert "iam_auth_proxy" in "\n".join(listing)
    assert secret not in "\n".join(listing)
    assert secret not in done.stderr


def test_nobody_else_gets_in(stack: Stack) -> None:
    script = f"curl -s -o /dev/null -w '%{{http_code}}' -x \"http://x:y@${{http_proxy#*@}}\" {URL}"
    done = run(stack, "sh", "-c", script)
    assert done.stdout == "407"


def test_no_proxy_stays_and_names_this_machine_too(stack: Stack) -> None:
    env = stack.env() | {"no_proxy": "elsewhere.test", "HTTP_PROXY": "http://corporate:3128"}
    argv = [*EXEC, *flags(stack), "sh", "-c", "echo $no_proxy $HTTP_PROXY"]
    done = subprocess.run(argv, env=env, capture_output=True, text=True, check=True)
    assert done.stdout.startswith("elsewhere.test,localhost,127.0.0.1,::1 http://x:")
    argv[-1:] = ["echo no:$no_proxy"]
    argv[len(EXEC) : len(EXEC)] = ["--allow-target", "localhost:3000"]
    done = subprocess.run(argv, env=stack.env(), capture_output=True, text=True, check=True)
    assert done.stdout == "no:\n", "an app of this machine goes through the proxy"


@pytest.mark.parametrize(
    ("command", "status"),
    [
        (("sh", "-c", "exit 7"), 7),
        (("sh", "-c", "kill -9 $$"), 137),
        (("no-such-command",), 127),
        (("/etc/passwd",), 126),
    ],
)
def test_it_ends_as_the_command_does(stack: Stack, command: tuple[str, ...], status: int) -> None:
    done = run(stack, *command)
    assert done.returncode == status
    assert (f"exec: {command[0]}: " in done.stderr) == (status in (126, 127))


@pytest.mark.parametrize(
    "argv",
    [
        ["--nosuch"],
        [],
        ["--trust", "nonsense", "true"],
        ["--socks-proxy", "user@127.0.0.1:1", "true"],
    ],
)
def test_what_is_not_the_commands_fault_is_125(argv: list[str]) -> None:
    done = subprocess.run(
        [*EXEC, *argv],
        env=base_env(HOME="/nonexistent"),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 125, done.stderr
    assert done.stderr.startswith("iam-auth-proxy: ")


def test_who_has_no_credentials_is_told_in_the_answer(stack: Stack) -> None:
    env = base_env(**stack.aws.env)
    argv = [*EXEC, *flags(stack), "--", "curl", "-sS", URL]
    done = subprocess.run(argv, env=env, capture_output=True, text=True, check=False)
    assert "[login-needed]" in done.stdout


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_signals_are_passed_on(stack: Stack, number: signal.Signals) -> None:
    name = number.name.removeprefix("SIG")
    script = f"trap 'echo got {name}; exit 5' {name}; echo ready; while :; do sleep 0.05; done"
    # No shell traps what was ignored when it began, as SIGINT is for a job in the background.
    start = f"import os, signal, sys; signal.signal({number}, signal.SIG_DFL)"
    wrapper = [sys.executable, "-c", f"{start}; os.execv(sys.executable, sys.argv[1:])"]
    with Child([*wrapper, *EXEC, *flags(stack), "sh", "-c", script], stack.env()) as child:
        child.wait_for("ready")
        os.kill(child.process.pid, number)
        child.wait_for(f"got {name}")
        assert child.process.wait(20) == 5


def test_it_trusts_the_local_ca_where_an_app_is_intercepted(stack: Stack) -> None:
    env = stack.env()
    argv = [*EXEC, "--", "sh", "-c", 'echo "${SSL_CERT_FILE-none}"']
    folder = Path(env["XDG_DATA_HOME"], "iam-auth-proxy", "ca")
    file = Path(env["XDG_CONFIG_HOME"], "iam-auth-proxy", "config.toml")

    def told() -> str:
        done = subprocess.run(argv, env=env, capture_output=True, text=True, timeout=60, check=True)
        return done.stdout.strip()

    Authorities(folder).add("wiki.test", time.time())
    assert told() == "none", "nothing is intercepted"
    file.parent.mkdir(parents=True)
    file.write_text('[[app]]\norigin = "https://wiki.test"\nhttps = "intercept"\n')
    bundle = Path(told())
    assert bundle.parent == folder
    assert Authorities(folder).root("wiki.test").pem in bundle.read_text()
    Authorities(folder).remove("wiki.test")
    assert told() == "none", "there is no CA"
