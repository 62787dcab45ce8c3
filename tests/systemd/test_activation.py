"""The real daemon as systemd starts it: its sockets, its states, its reload, its end."""

import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PATIENCE = 20.0


@pytest.fixture
def notified(tmp_path: Path) -> Iterator[socket.socket]:
    """systemd's end of the notification socket."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as end:
        end.bind(str(tmp_path / "notify"))
        end.settimeout(PATIENCE)
        yield end


@pytest.fixture
def listening(tmp_path: Path) -> str:
    return str(tmp_path / "proxy.sock")


@pytest.fixture
def activated(
    tmp_path: Path, notified: socket.socket, listening: str
) -> Iterator[subprocess.Popen[str]]:
    """The proxy behind systemd-socket-activate, which becomes it at the first connection."""
    activate = shutil.which("systemd-socket-activate")
    assert activate, "missing: Debian package systemd (tests/components)"
    command = [activate, f"--listen={listening}"]
    for name in ("XDG_CONFIG_HOME", "WATCHDOG_USEC", "NOTIFY_SOCKET", "HOME", "PATH"):
        command.append(f"--setenv={name}")
    environ = {
        **os.environ,
        "XDG_CONFIG_HOME": str(tmp_path),
        "NOTIFY_SOCKET": str(tmp_path / "notify"),
        "WATCHDOG_USEC": "200000",
    }
    with subprocess.Popen(
        [*command, sys.executable, "-m", "iam_auth_proxy", "--log-format", "json"],
        env=environ,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stderr is not None
        assert "Listening on" in process.stderr.readline()
        yield process
        process.kill()


def hear(end: socket.socket, wanted: str) -> str:
    """The next message that is ``wanted``; the watchdog's come in between."""
    for _ in range(1000):
        message = end.recv(4096).decode()
        if message.startswith(wanted):
            return message
    raise AssertionError(f"{wanted} was not said")


def ask(listening: str) -> bytes:
    """A request that needs no network: what the proxy itself answers."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        client.settimeout(PATIENCE)
        client.connect(listening)
        client.sendall(b"GET http://127.0.0.1:9/ HTTP/1.1\r\nHost: 127.0.0.1:9\r\n\r\n")
        return client.recv(4096)


def test_ready_answers_reloads_and_ends(
    tmp_path: Path, activated: subprocess.Popen[str], notified: socket.socket, listening: str
) -> None:
    # The connection that starts it is answered by it: 403, for loopback is not to be reached.
    assert ask(listening).startswith(b"HTTP/1.1 403 ")
    assert hear(notified, "READY=1")
    assert hear(notified, "WATCHDOG=1")

    (tmp_path / "iam-auth-proxy").mkdir()
    (tmp_path / "iam-auth-proxy" / "config.toml").write_text('trust = ["http://app.test"]\n')
    activated.send_signal(signal.SIGHUP)
    assert "MONOTONIC_USEC=" in hear(notified, "RELOADING=1")
    assert hear(notified, "READY=1")
    assert ask(listening).startswith(b"HTTP/1.1 403 ")

    activated.send_signal(signal.SIGTERM)
    assert hear(notified, "STOPPING=1")
    assert activated.wait(PATIENCE) == 0
    assert activated.stderr is not None
    log = activated.stderr.read()
    assert "Traceback" not in log
    assert '"configuration reloaded"' in log


def test_a_reload_that_fails_changes_nothing(
    tmp_path: Path, activated: subprocess.Popen[str], notified: socket.socket, listening: str
) -> None:
    assert ask(listening)
    assert hear(notified, "READY=1")
    (tmp_path / "iam-auth-proxy").mkdir()
    (tmp_path / "iam-auth-proxy" / "config.toml").write_text("regoin = 1\n")
    activated.send_signal(signal.SIGHUP)
    assert hear(notified, "RELOADING=1")
    assert hear(notified, "READY=1")
    assert ask(listening).startswith(b"HTTP/1.1 403 ")
    activated.send_signal(signal.SIGTERM)
    assert activated.wait(PATIENCE) == 0
    assert activated.stderr is not None
    assert "regoin is not an option; did you mean region?" in activated.stderr.read()


def test_a_socket_that_others_reach_is_refused(tmp_path: Path) -> None:
    with socket.socket() as listener, socket.socket() as other:
        listener.bind(("0.0.0.0", 0))
        listener.listen()
        assert other.fileno() > 3
        # As systemd does it: the variables name the process that will be the proxy.
        script = (
            f"import os; os.dup2({listener.fileno()}, 3);"
            "os.environ.update(LISTEN_FDS='1', LISTEN_PID=str(os.getpid()));"
            "os.execv(os.sys.executable, [os.sys.executable, '-m', 'iam_auth_proxy'])"
        )
        answer = subprocess.run(
            [sys.executable, "-c", script],
            env={**os.environ, "XDG_CONFIG_HOME": str(tmp_path)},
            pass_fds=[listener.fileno()],
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
    assert answer.returncode == 2
    assert "only loopback addresses" in answer.stderr
    assert "Traceback" not in answer.stderr
