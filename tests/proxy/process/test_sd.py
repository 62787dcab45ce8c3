"""sd_notify over real datagram sockets, socket activation by the real systemd-socket-activate."""

import asyncio
import contextlib
import json
import logging
import os
import shutil
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from iam_auth_proxy.errors import ConfigError
from iam_auth_proxy.proxy.process import sd

PID = os.getpid()


@pytest.fixture(params=["path", "abstract"])
def address(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A NOTIFY_SOCKET as systemd writes it."""
    if request.param == "path":
        return str(tmp_path / "notify")
    if sys.platform != "linux":
        pytest.skip("abstract sockets are Linux's")
    return f"@iam-auth-proxy-test-{uuid.uuid4().hex}"


@pytest.fixture
def systemd(address: str) -> Iterator[socket.socket]:
    """The receiving end."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as end:
        end.bind("\0" + address[1:] if address.startswith("@") else address)
        end.settimeout(5)
        yield end


def heard(end: socket.socket) -> str:
    return end.recv(4096).decode()


# -- sd_notify -------------------------------------------------------------------------------------


def test_each_state_is_one_datagram(address: str, systemd: socket.socket) -> None:
    notifier = sd.Notifier(address)
    assert notifier.ready()
    assert notifier.ready("serving 127.0.0.1:8080")
    assert notifier.reloading(123456)
    assert notifier.status("signed in as alice")
    assert notifier.alive()
    assert notifier.stopping()
    assert [heard(systemd) for _ in range(6)] == [
        "READY=1",
        "READY=1\nSTATUS=serving 127.0.0.1:8080",
        "RELOADING=1\nMONOTONIC_USEC=123456",
        "STATUS=signed in as alice",
        "WATCHDOG=1",
        "STOPPING=1",
    ]


def test_a_reload_is_stamped_with_the_monotonic_clock(address: str, systemd: socket.socket) -> None:
    before = time.monotonic_ns() // 1000
    assert sd.Notifier(address).reloading()
    stamp = int(heard(systemd).partition("MONOTONIC_USEC=")[2])
    assert before <= stamp <= time.monotonic_ns() // 1000


def test_a_status_cannot_say_anything_else(address: str, systemd: socket.socket) -> None:
    assert sd.Notifier(address).status("a\nMAINPID=1\r\n READY=1")
    assert heard(systemd) == "STATUS=a MAINPID=1 READY=1"


def test_without_systemd_nothing_happens() -> None:
    notifier = sd.Notifier.from_environ({"WATCHDOG_USEC": "1000000"}, PID)
    assert notifier.watchdog_interval is None
    assert not notifier.ready()
    assert not notifier.alive()


def test_a_dead_socket_is_logged_and_no_more(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert not sd.Notifier(str(tmp_path / "absent")).ready()
    assert caplog.messages == ["systemd could not be told"]


def test_a_full_socket_does_not_hold_the_loop(tmp_path: Path) -> None:
    path = str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as end:
        end.bind(path)
        notifier = sd.Notifier(path)
        sent = 0
        while notifier.alive():
            sent += 1
            assert sent < 100_000
        start = time.monotonic()
        assert not notifier.alive()
        assert time.monotonic() - start < 2


@pytest.mark.parametrize("name", ["vsock:2:1234", "relative"])
def test_another_kind_of_address_is_not_used(name: str, caplog: pytest.LogCaptureFixture) -> None:
    assert not sd.Notifier.from_environ({"NOTIFY_SOCKET": name}, PID).ready()
    assert len(caplog.messages) == 1


def test_the_variables_are_taken_from_children() -> None:
    environ = {"NOTIFY_SOCKET": "/x", "WATCHDOG_USEC": "1", "WATCHDOG_PID": "1", "PATH": "/bin"}
    sd.Notifier.from_environ(environ)
    assert environ == {"PATH": "/bin"}


@pytest.mark.parametrize(
    ("usec", "pid", "interval"),
    [
        ("30000000", str(PID), 15.0),
        ("30000000", "", 15.0),
        ("30000000", str(PID + 1), None),
        ("0", "", None),
        ("-5", "", None),
        ("٣", "", None),
        ("soon", "", None),
        ("", "", None),
    ],
    ids=range(8),
)
def test_the_watchdog_is_fed_twice_as_often_as_asked(
    usec: str, pid: str, interval: float | None
) -> None:
    environ = {"NOTIFY_SOCKET": "/x", "WATCHDOG_USEC": usec, "WATCHDOG_PID": pid}
    if not pid:
        del environ["WATCHDOG_PID"]
    assert sd.Notifier.from_environ(environ, PID).watchdog_interval == interval


async def test_the_watchdog_is_fed_from_the_loop(address: str, systemd: socket.socket) -> None:
    task = asyncio.create_task(sd.Notifier(address, 0.01).watchdog())
    for _ in range(3):
        assert await asyncio.to_thread(heard, systemd) == "WATCHDOG=1"
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


async def test_a_watchdog_that_nobody_asked_for_ends_at_once() -> None:
    await asyncio.wait_for(sd.Notifier("/x").watchdog(), 5)


# -- socket activation -----------------------------------------------------------------------------


def listener(host: str = "127.0.0.1", family: int = socket.AF_INET) -> socket.socket:
    made = socket.socket(family, socket.SOCK_STREAM)
    made.bind((host, 0))
    made.listen()
    return made


def handed_over(*sockets: socket.socket) -> tuple[dict[str, str], int]:
    """The environment, and the first of the descriptors in a row that hold these sockets."""
    # Above whatever is open here, such as connections that other tests left to the collector.
    first = max(int(name) for name in os.listdir("/proc/self/fd")) + 100
    for index, each in enumerate(sockets):
        os.dup2(each.fileno(), first + index, inheritable=True)
        each.close()
    return {"LISTEN_PID": str(PID), "LISTEN_FDS": str(len(sockets)), "LISTEN_FDNAMES": "x"}, first


def test_sockets_in_order_closed_to_children(tmp_path: Path) -> None:
    tcp, unix = listener(), socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    unix.bind(str(tmp_path / "p.sock"))
    unix.listen()
    where = tcp.getsockname()
    environ, first = handed_over(tcp, unix)
    environ["LISTEN_PIDFDID"] = "1"
    found = sd.listen_fds(environ, PID, first)
    assert [each.fileno() for each in found] == [first, first + 1]
    assert [each.family for each in found] == [socket.AF_INET, socket.AF_UNIX]
    assert found[0].getsockname() == where
    assert not any(each.get_inheritable() for each in found)
    assert environ == {}
    for each in found:
        each.close()


def test_ipv6_loopback_is_loopback() -> None:
    environ, first = handed_over(listener("::1", socket.AF_INET6))
    [found] = sd.listen_fds(environ, PID, first)
    found.close()


@pytest.mark.parametrize(
    "environ",
    [
        {},
        {"LISTEN_FDS": "1"},
        {"LISTEN_FDS": "1", "LISTEN_PID": str(PID + 1)},
        {"LISTEN_FDS": "", "LISTEN_PID": str(PID)},
        {"LISTEN_FDS": "0", "LISTEN_PID": str(PID)},
    ],
)
def test_what_is_not_meant_for_us(environ: dict[str, str]) -> None:
    assert sd.listen_fds(environ) == []
    assert environ == {}


@pytest.mark.parametrize("count", ["-1", "two", "٢", "99999"])
def test_no_number(count: str) -> None:
    with pytest.raises(ConfigError):
        sd.listen_fds({"LISTEN_FDS": count, "LISTEN_PID": str(PID)})


def bound(kind: int) -> socket.socket:
    made = socket.socket(socket.AF_INET, kind)
    made.bind(("127.0.0.1", 0))
    return made


@pytest.mark.parametrize(
    ("make", "said"),
    [
        pytest.param(lambda: listener("0.0.0.0"), "only loopback", id="every interface"),
        pytest.param(lambda: listener("::", socket.AF_INET6), "only loopback", id="and IPv6"),
        pytest.param(lambda: bound(socket.SOCK_STREAM), "ListenStream", id="not listening"),
        pytest.param(lambda: bound(socket.SOCK_DGRAM), "ListenStream", id="datagrams"),
    ],
)
def test_sockets_that_others_reach_or_that_serve_nothing(
    make: Callable[[], socket.socket], said: str
) -> None:
    environ, first = handed_over(listener(), make())
    with pytest.raises(ConfigError) as raised:
        sd.listen_fds(environ, PID, first)
    [problem] = raised.value.problems
    assert problem.place == f"LISTEN_FDS descriptor {first + 1}"
    assert said in problem.text
    for fd in (first, first + 1):
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(fd)


def test_what_is_no_socket_or_not_open(tmp_path: Path) -> None:
    environ, first = handed_over(listener())
    os.dup2(os.open(tmp_path, os.O_RDONLY), first + 1)
    environ["LISTEN_FDS"] = "3"
    with pytest.raises(ConfigError) as raised:
        sd.listen_fds(environ, PID, first)
    assert len(raised.value.problems) == 2
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(first + 1)


CHILD = """
import json, os, socket
from iam_auth_proxy.proxy.process import sd
found = sd.listen_fds(os.environ)
connection, _ = found[0].accept()
connection.sendall(json.dumps({
    "sockets": [each.getsockname() for each in found],
    "left": [name for name in os.environ if name.startswith("LISTEN")],
}).encode())
connection.close()
"""


def test_the_real_systemd_socket_activate(tmp_path: Path) -> None:
    activate = shutil.which("systemd-socket-activate")
    assert activate, "missing: Debian package systemd (tests/components)"
    path = str(tmp_path / "p.sock")
    with subprocess.Popen(
        [activate, f"--listen={path}", "--fdname=proxy", sys.executable, "-c", CHILD],
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stderr is not None
        assert "Listening on" in process.stderr.readline()
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
            client.settimeout(20)
            client.connect(path)
            said = json.loads(client.makefile().read())
        assert process.wait(20) == 0
    assert said == {"sockets": [path], "left": []}


def test_the_module_logs_under_its_own_name() -> None:
    assert sd.log is logging.getLogger("iam_auth_proxy.proxy.process.sd")
