"""``service``: what is written and run. The units themselves are tried in tests/systemd."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from iam_auth_proxy.cli.outcome import status_of
from iam_auth_proxy.cli.units import MARK, SERVICE, SOCKET, units
from iam_auth_proxy.config import Bind, parse_bind
from tests.support.processes import program

FAKE = """#!/bin/sh
# Stands in for a service manager, which nobody has in a test: notes what it is told.
case "$2" in show-environment) exit {probe};; esac
echo "$*" >> {log}
case "$*" in *{fails}*) exit 1;; esac
"""


@pytest.fixture
def told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return manager(tmp_path, monkeypatch)


def manager(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, probe: int = 0, fails: str = "never"
) -> Path:
    folder, log = tmp_path / "bin", tmp_path / "told"
    folder.mkdir(exist_ok=True)
    log.touch()
    script = folder / "systemctl"
    script.write_text(FAKE.format(probe=probe, log=log, fails=fails))
    script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    return log


def folder() -> Path:
    return Path(os.environ["XDG_CONFIG_HOME"], "systemd", "user")


def commands(told: Path) -> list[str]:
    said = told.read_text().splitlines()
    told.write_text("")
    return said


INSTALL = ["--user daemon-reload", f"--user enable --now {SOCKET}"]


def test_install_and_uninstall(told: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = sorted(folder().parent.parent.rglob("*"))
    assert status_of(["service", "install"]) == 0
    assert commands(told) == INSTALL
    said = capsys.readouterr().err
    for command in INSTALL:
        assert f"$ systemctl {command}" in said, "each is said"
    assert {path.name for path in folder().iterdir()} == {SERVICE, SOCKET}

    written = {path: path.read_text() for path in folder().iterdir()}
    assert status_of(["service", "install"]) == 0
    assert commands(told) == INSTALL, "again changes nothing, and stops nothing"
    assert {path: path.read_text() for path in folder().iterdir()} == written

    assert status_of(["service", "uninstall"]) == 0
    assert commands(told) == [f"--user disable --now {SOCKET} {SERVICE}", "--user daemon-reload"]
    left = [path for path in folder().parent.parent.rglob("*") if path.is_file()]
    assert left == [path for path in before if path.is_file()]
    assert status_of(["service", "uninstall"]) == 0
    assert commands(told) == []


def test_it_listens_where_the_configuration_says(
    told: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert status_of(["service", "install"]) == 0
    monkeypatch.setenv("IAM_AUTH_PROXY_BIND", "127.0.0.1:9090")
    commands(told)
    assert status_of(["service", "install"]) == 0
    assert commands(told) == [f"--user stop {SOCKET} {SERVICE}", *INSTALL]
    text = (folder() / SOCKET).read_text()
    assert re.findall(r"^ListenStream=.*$", text, re.MULTILINE) == ["ListenStream=127.0.0.1:9090"]


def test_what_others_wrote_stays(told: Path) -> None:
    folder().mkdir(parents=True)
    (folder() / SERVICE).write_text("[Service]\nExecStart=/mine\n")
    for command in ("install", "uninstall"):
        assert status_of(["service", command]) == 1
        assert commands(told) == []
    assert (folder() / SERVICE).read_text() == "[Service]\nExecStart=/mine\n"


def test_systemctl_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    manager(tmp_path, monkeypatch, fails="enable")
    assert status_of(["service", "install"]) == 1
    assert f"See: systemctl --user status {SOCKET}" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["install", "uninstall", "status"])
def test_no_manager(
    command: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    manager(tmp_path, monkeypatch, probe=1)
    assert status_of(["service", command]) == 1
    assert "no service manager of your login answers" in capsys.readouterr().err
    monkeypatch.setenv("PATH", str(tmp_path))
    assert status_of(["service", command]) == 1
    assert "there is no systemd here" in capsys.readouterr().err
    assert not folder().exists()


@pytest.mark.parametrize(
    ("command", "line"),
    [
        (["/usr/bin/iam-auth-proxy"], "/usr/bin/iam-auth-proxy"),
        (["/opt/a b/py", "-m", "iam_auth_proxy"], '"/opt/a b/py" -m iam_auth_proxy'),
        (["/opt/100%/py", "--config", 'a"$'], '/opt/100%%/py --config "a\\"$$"'),
    ],
)
def test_what_the_service_runs(command: list[str], line: str) -> None:
    text = units(command, parse_bind(":8080"))[SERVICE]
    assert f"\nExecStart={line}\n" in text
    assert text.startswith(MARK)


@pytest.mark.parametrize(
    ("bind", "lines"),
    [
        (parse_bind(":8080"), ["127.0.0.1:8080", "[::1]:8080"]),
        (parse_bind("[::1]:90"), ["[::1]:90"]),
        (Bind(path="/run/p.sock"), ["/run/p.sock"]),
    ],
)
def test_systemd_has_nothing_to_say(bind: Bind, lines: list[str], tmp_path: Path) -> None:
    made = units([shutil.which("env") or "", "true"], bind)
    for name, text in made.items():
        (tmp_path / name).write_text(text)
    assert re.findall(r"^ListenStream=(.*)$", made[SOCKET], re.MULTILINE) == lines
    assert ("SocketMode=0600" in made[SOCKET]) == bool(bind.path)
    argv = [program("systemd-analyze"), "verify", "--user", "--man=no", *made]
    environment = {**os.environ, "XDG_RUNTIME_DIR": str(tmp_path), "SYSTEMD_PAGER": ""}
    done = subprocess.run(
        argv, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
