"""``browser``: real Chromium with a profile of its own, and a proxy for as long as it is open."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from iam_auth_proxy.proxy.https.ca import Authorities
from tests.e2e.conftest import APP, USER_ARN, Stack
from tests.support.browser import FLAGS
from tests.support.processes import free_port
from tests.support.thief import Thief, dns, serving

pytestmark = pytest.mark.e2e

ARGV = [sys.executable, "-m", "iam_auth_proxy", "browser"]
# No flag may take the place of the profile's or the PAC's.
DUMP = [*FLAGS, "--virtual-time-budget=10000", "--dump-dom"]


def run(
    env: dict[str, str], *args: str, status: int = 0, timeout: float = 60
) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [*ARGV, *args], env=env, capture_output=True, text=True, timeout=timeout, check=False
    )
    assert done.returncode == status, done.stderr
    return done


def flags(stack: Stack) -> list[str]:
    found = f"app.test:80:127.0.0.1:{stack.app_port}"
    return ["--connect-to", found, "--bind", f"127.0.0.1:{free_port()}"]


def test_it_signs_in_with_a_proxy_of_its_own(stack: Stack) -> None:
    env = stack.env()
    args = [*flags(stack), "--trust", APP, f"{APP}/check", "--", *DUMP]
    done = run(env, *args)
    assert f"ok {USER_ARN}" in done.stdout, done.stderr
    profile = Path(env["XDG_DATA_HOME"], "iam-auth-proxy", "browser-chromium")
    assert profile.stat().st_mode & 0o777 == 0o700
    assert (profile / "Default").is_dir()
    assert not list(Path(env["XDG_RUNTIME_DIR"], "iam-auth-proxy").iterdir()), "it has ended"


def test_it_uses_the_proxy_that_runs(stack: Stack) -> None:
    env = stack.env()
    with stack.proxy(env=env) as proxy:
        done = run(env, f"{APP}/check", "--", *DUMP)
        assert f"ok {USER_ARN}" in done.stdout, done.stderr
        assert len(proxy.events("signed in")) == 1
        run(env, "--trust", "http://b.test", APP, status=2)


def test_an_app_that_nobody_trusts_is_asked_about(stack: Stack) -> None:
    done = run(stack.env(), *flags(stack), f"{APP}/check", "--", *DUMP)
    assert "once" in done.stdout.lower(), done.stderr
    assert APP in done.stdout
    assert stack.ready.key.arn in done.stdout


def test_firefox_is_told_by_its_preferences(stack: Stack, tmp_path: Path) -> None:
    firefox = tmp_path / "firefox"
    firefox.write_text('#!/bin/sh\nprintf "%s\\n" "$@"; cat "$3/user.js"; exit 4\n')
    firefox.chmod(0o755)
    port = free_port()
    args = ["--browser", str(firefox), "--bind", f"127.0.0.1:{port}", "app.test/x", "--", "-P"]
    lines = run(stack.env(), *args, status=4).stdout.splitlines()
    assert lines[:2] == ["-no-remote", "-profile"]
    assert lines[3:5] == ["-P", "http://app.test/x"]
    assert 'user_pref("network.proxy.type", 2);' in lines
    pac = f"http://127.0.0.1:{port}/proxy.pac"
    assert f'user_pref("network.proxy.autoconfig_url", "{pac}");' in lines
    assert 'user_pref("network.proxy.failover_direct", false);' in lines


def test_what_cannot_be_started(stack: Stack) -> None:
    done = run(stack.env(), "--browser", "/nonexistent", status=2)
    assert "--browser PATH" in done.stderr
    run(stack.env(), "ftp://x", status=2)


def test_a_port_that_is_anothers(stack: Stack) -> None:
    """Whoever holds the port could serve a PAC of its own: it is not taken for the proxy."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        bind = f"127.0.0.1:{other.getsockname()[1]}"
        done = run(stack.env(), "--bind", bind, status=2)
    assert "is in use" in done.stderr


def test_it_trusts_the_local_ca_and_no_other_browser_does(stack: Stack, tmp_path: Path) -> None:
    home = tmp_path / "home"
    (home / ".config").mkdir(parents=True)
    env = {**stack.env(), "HOME": str(home)}
    authorities = Authorities(Path(env["XDG_DATA_HOME"], "iam-auth-proxy", "ca"))
    authorities.add("app.test", time.time())
    chain = Thief(authorities.file("app.test")).writes(tmp_path, [dns("app.test")])
    with serving(chain, b"it is trusted") as port:
        near = ["--connect-to", f"app.test:{port}:127.0.0.1:{port}"]
        args = [*near, "--bind", f"127.0.0.1:{free_port()}", f"https://app.test:{port}/", "--"]
        assert "it is trusted" in run(env, *args, *DUMP).stdout
        assert {path.name for path in home.iterdir()} <= {".config", ".cache"}
        authorities.remove("app.test")
        assert "it is trusted" not in run(env, *args, *DUMP).stdout, "nor for longer than that"
