"""The units as systemd reads them: no warning, and how exposed the service is left."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

UNITS = Path(__file__).parents[2] / "systemd"
SERVICE, SOCKET = UNITS / "iam-auth-proxy.service", UNITS / "iam-auth-proxy.socket"

# systemd's own figure, 0 (nothing left) to 10; 1.7 when this was written. What is left over: it
# talks to networks, reads the home directory, and offline it is taken for root's.
EXPOSURE = 2.0


def analyze(tmp_path: Path, *args: str) -> subprocess.CompletedProcess[str]:
    program = shutil.which("systemd-analyze")
    assert program, "missing: Debian package systemd (tests/components)"
    return subprocess.run(
        [program, *args],
        env={**os.environ, "XDG_RUNTIME_DIR": str(tmp_path), "SYSTEMD_PAGER": ""},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def values(unit: Path, key: str) -> list[str]:
    return re.findall(rf"^{key}=(.*)$", unit.read_text(), re.MULTILINE)


@pytest.mark.parametrize("unit", [SERVICE, SOCKET], ids=lambda unit: unit.name)
def test_systemd_has_nothing_to_say(tmp_path: Path, unit: Path) -> None:
    # It exits 0 on an unknown key: what counts is that stderr is empty.
    answer = analyze(tmp_path, "verify", "--user", "--man=no", str(unit))
    assert (answer.returncode, answer.stderr) == (0, "")


def test_a_slip_would_be_seen(tmp_path: Path) -> None:
    broken = tmp_path / SERVICE.name
    broken.write_text(SERVICE.read_text().replace("NoNewPrivileges", "NoNewPriviliges"))
    shutil.copy(SOCKET, tmp_path)
    answer = analyze(tmp_path, "verify", "--user", "--man=no", str(broken))
    assert "NoNewPriviliges" in answer.stderr


def test_little_exposure_is_left(tmp_path: Path) -> None:
    threshold = f"--threshold={EXPOSURE * 10:.0f}"
    answer = analyze(tmp_path, "security", "--user", "--offline=yes", threshold, str(SERVICE))
    assert answer.returncode == 0, answer.stdout
    found = re.search(r"Overall exposure level for \S+: ([0-9.]+)", answer.stdout)
    assert found is not None
    assert float(found[1]) <= EXPOSURE


def test_the_socket_is_on_loopback_alone() -> None:
    assert values(SOCKET, "ListenStream") == ["127.0.0.1:8080", "[::1]:8080"]


def test_what_the_proxy_needs_is_left_to_it() -> None:
    assert values(SERVICE, "ReadWritePaths") == ["-%h/.aws", "-%E/iam-auth-proxy"]
    [families] = values(SERVICE, "RestrictAddressFamilies")
    assert families.split() == ["AF_UNIX", "AF_INET", "AF_INET6", "AF_NETLINK"]
    assert values(SERVICE, "PrivateUsers") == ["yes"], "without it the rest is dropped in silence"


def test_no_core_and_no_restart_that_changes_nothing() -> None:
    assert values(SERVICE, "LimitCORE") == ["0"]
    assert values(SERVICE, "RestartPreventExitStatus") == ["2"]
