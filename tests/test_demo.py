"""``make demo ONCE=1``: the demonstration signs in, tells every step, and ends."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.processes import ROOT, Child, base_env

pytestmark = pytest.mark.e2e

STEPS = "1 2 3 6-7 8 9 10 11-12 13-14 15 16 17 18 19 20"


def demo() -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-m", "iam_auth_proxy", "demo", "--once"]
    return subprocess.run(
        argv, cwd=ROOT, env=base_env(), capture_output=True, text=True, timeout=60, check=False
    )


def test_every_step_is_told_in_order_and_it_ends() -> None:
    done = demo()
    assert done.returncode == 0, done.stdout + done.stderr
    told = re.findall(r"^ +(\d+(?:-\d+)?)  (?:you|proxy|app) -> ", done.stdout, re.MULTILINE)
    assert " ".join(told) == STEPS
    assert "the app says: ok arn:aws:iam::111122223333:user/example-user" in done.stdout
    assert done.stderr == ""


def test_what_it_says_to_type_finds_its_proxy(tmp_path: Path) -> None:
    """In a terminal whose session has a folder for sockets."""
    env = base_env(HOME=str(tmp_path))
    argv = [sys.executable, "-m", "iam_auth_proxy", "demo"]
    with Child(argv, env=env) as child:
        child.wait_for("Ctrl-C ends it")
        told = re.search(
            r"^ +(\S+ -m iam_auth_proxy browser --bind .*)$", child.output, re.MULTILINE
        )
        assert told is not None, child.output
        command = shlex.split(told[1].replace(" --bind ", " --browser /bin/echo --bind "))
        said = subprocess.run(command, env=env, capture_output=True, text=True, timeout=60)
    assert said.stderr == ""
    assert said.returncode == 0
    assert f"--proxy-pac-url=http://{command[command.index('--bind') + 1]}/proxy.pac" in said.stdout


def test_it_finds_other_ports_when_the_usual_are_taken() -> None:
    import socket

    held = []
    for port in (8080, 8081, 8082):
        try:
            held.append(socket.create_server(("127.0.0.1", port)))
        except OSError:
            continue  # somebody else holds it: as good
    try:
        done = demo()
    finally:
        for each in held:
            each.close()
    assert done.returncode == 0, done.stdout + done.stderr
    assert not re.search(r"proxy +http://127\.0\.0\.1:8080 ", done.stdout)
