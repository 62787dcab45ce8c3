"""No core, and descriptors enough; and a command has the limits that it would have had."""

from __future__ import annotations

import resource
import subprocess
import sys
from pathlib import Path

import pytest

from iam_auth_proxy.proxy.commands import children
from iam_auth_proxy.proxy.process import rlimits
from tests.support.processes import base_env, free_port

PROGRAM = [sys.executable, "-m", "iam_auth_proxy"]
# What a person's shell may have: cores as large as may be, and few descriptors.
SHELL = ["sh", "-c", 'ulimit -S -c "$(ulimit -H -c)"; ulimit -S -n 512; exec "$@"', "sh"]
# The parent has the command's limits for as long as it starts it, and tells nobody when it is done.
STARTING = "grep -q 'open files *512 ' /proc/$PPID/limits"
STARTED = f"for i in $(seq 200); do {STARTING} || break; sleep 0.05; done"
LIMITS = f"{STARTED}; cat /proc/$PPID/limits; echo; cat /proc/self/limits"
STORE = ["--store", "unused", "--kms-key", "alias/unused"]
CORE, FILES = "Max core file size", "Max open files"

pytestmark = pytest.mark.skipif(
    not Path("/proc/self/limits").exists(), reason="limits are read from /proc"
)


def soft(limits: str, name: str) -> str:
    (line,) = (line for line in limits.splitlines() if line.startswith(name))
    return line.removeprefix(name).split()[0]


def hard(limits: str, name: str) -> str:
    (line,) = (line for line in limits.splitlines() if line.startswith(name))
    return line.removeprefix(name).split()[1]


@pytest.mark.parametrize("command", ["exec", "browser", "secret exec"])
def test_of_a_proxy_for_one_command_and_of_the_command(tmp_path: Path, command: str) -> None:
    shown = tmp_path / "limits"
    browser = tmp_path / "chromium"
    browser.write_text(f"#!/bin/sh\n{{ {LIMITS}; }} > {shown}\n")
    browser.chmod(0o755)
    how = {
        "exec": ["exec", "--", str(browser)],
        "browser": ["browser", "--browser", str(browser), "--bind", f"127.0.0.1:{free_port()}"],
        "secret exec": ["secret", "exec", *STORE, "--", str(browser)],
    }
    env = base_env(HOME=str(tmp_path))
    subprocess.run([*SHELL, *PROGRAM, *how[command]], env=env, timeout=60, check=True)
    ours, theirs = shown.read_text().split("\n\n")
    assert (soft(ours, CORE), soft(theirs, CORE)) == ("0", hard(theirs, CORE))
    assert soft(theirs, FILES) == "512"
    assert int(soft(ours, FILES)) == min(int(hard(ours, FILES)), 65_536)
    assert hard(ours, FILES) == hard(theirs, FILES)


async def test_our_own_come_back_where_a_command_cannot_be_started() -> None:
    before = rlimits.Before({resource.RLIMIT_NOFILE: 256})
    ours = resource.getrlimit(resource.RLIMIT_NOFILE)
    with pytest.raises(children.CannotRun):
        await children.run(["/nonexistent"], {}, before)
    assert resource.getrlimit(resource.RLIMIT_NOFILE) == ours


def test_a_limit_that_cannot_be_set_is_said(caplog: pytest.LogCaptureFixture) -> None:
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    with rlimits.Before({resource.RLIMIT_NOFILE: most + 1}).restored():
        pass
    assert "a limit of this process stays as it is" in caplog.text
