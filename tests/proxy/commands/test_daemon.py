"""The daemon as a process: systemd, signals, terminals, and the end of it."""

from __future__ import annotations

import asyncio
import http.client
import io
import json
import re
import resource
import shlex
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from iam_auth_proxy import config
from iam_auth_proxy.local_aws import allow
from iam_auth_proxy.local_aws.resources import Mfa
from iam_auth_proxy.proxy.commands import daemon
from iam_auth_proxy.proxy.listeners import address
from iam_auth_proxy.proxy.process import serve
from tests.proxy.conftest import APP, Person
from tests.support.legacy_app import LegacyApp
from tests.support.processes import (
    PATIENCE,
    Child,
    Proxy,
    base_env,
    free_port,
    program,
)
from tests.support.terminal import Terminal
from tests.support.users import NOBODY, Stranger

RUN = [sys.executable, "-m", "iam_auth_proxy", "run"]
# An app of the original protocol wants more than is given by default.
LEGACY = ("--proof", "session-credentials")
WORDS = 'proofs = ["session-credentials"]\n'


def env(tmp_path: Path, **more: str) -> dict[str, str]:
    """Nobody's environment: no credentials, no configuration."""
    return base_env(HOME=str(tmp_path), XDG_CONFIG_HOME=str(tmp_path / "config"), **more)


@contextmanager
def proxy(*flags: str, env: dict[str, str], status: int = 0) -> Iterator[Proxy]:
    running = Proxy(*flags, env=env)
    try:
        yield running
    finally:
        assert running.stop() == status, running.output
        assert "Traceback" not in running.output


def ask(port: int, target: str = "/healthz", timeout: float = 20.0) -> tuple[int, str]:
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=timeout)) as connection:
        host = {} if target.startswith("/") else {"Host": target.split("/")[2]}
        page = {"User-Agent": "tests/1", "Upgrade-Insecure-Requests": "1"}  # as a browser asks
        connection.request("GET", target, headers={**page, **host})
        answer = connection.getresponse()
        return answer.status, answer.read().decode()


# -- systemd ---------------------------------------------------------------------------------------


class Manager:
    """The datagram socket of a service manager."""

    def __init__(self, tmp_path: Path) -> None:
        self.path = str(tmp_path / "notify")
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(self.path)
        self._socket.settimeout(20)

    def told(self) -> list[str]:
        """The next datagram."""
        return self._socket.recv(4096).decode().split("\n")

    def close(self) -> None:
        self._socket.close()


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[Manager]:
    with closing(Manager(tmp_path)) as manager:
        yield manager


def test_systemd_is_told(tmp_path: Path, manager: Manager) -> None:
    port = free_port()
    argv = [*RUN, "--bind", f"127.0.0.1:{port}"]
    with Child(argv, env(tmp_path, NOTIFY_SOCKET=manager.path)) as child:
        assert manager.told() == ["READY=1"]
        socket.create_connection(("127.0.0.1", port), 5).close()  # it listens already
        child.process.send_signal(signal.SIGHUP)
        reloading = manager.told()
        assert reloading[0] == "RELOADING=1"
        assert re.fullmatch(r"MONOTONIC_USEC=[0-9]+", reloading[1])
        assert manager.told() == ["READY=1"]
        child.process.terminate()
        assert manager.told() == ["STOPPING=1"]
        assert child.process.wait(PATIENCE) == 0  # another SIGTERM would find nobody to handle it


def test_the_watchdog_is_fed(tmp_path: Path, manager: Manager) -> None:
    fed = env(tmp_path, NOTIFY_SOCKET=manager.path, WATCHDOG_USEC="100000")
    with proxy("--trust", "https://tunnel.test", env=fed) as running:
        running.wait_for("a tunnel, not read: nobody is signed in there")
        told = [manager.told()[0] for _ in range(4)]
    assert told == ["READY=1", "WATCHDOG=1", "WATCHDOG=1", "WATCHDOG=1"]


def test_socket_activation(tmp_path: Path) -> None:
    port = free_port()
    variables = [f"-E{name}={value}" for name, value in env(tmp_path).items()]
    argv = [program("systemd-socket-activate"), "-l", f"127.0.0.1:{port}", *variables, *RUN]
    with Child(argv, env(tmp_path)) as child:
        child.wait_for("Listening on")
        assert ask(port) == (200, "ok\n"), child.output
        ready = json.loads(child.wait_for(r'\{.*"ready".*\}')[0])
        assert ready["addresses"] == [f"127.0.0.1:{port}"], "and no other"
        assert "bind is not looked at" not in child.output
        # systemd-socket-activate has become the proxy, which ends as always.
        assert child.stop() == 0
        assert "Traceback" not in child.output


# -- SIGTERM ---------------------------------------------------------------------------------------


class SlowApp:
    """Begins an answer of ten bytes, and ends it when it is told to."""

    def __init__(self) -> None:
        self.begun = threading.Event()
        self.go = threading.Event()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        try:
            connection, _ = self._listener.accept()
        except OSError:  # closed: nobody came
            return
        with connection:
            connection.recv(65536)
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nfirst")
            self.begun.set()
            self.go.wait(30)
            connection.sendall(b" last")

    def close(self) -> None:
        self.go.set()
        self._listener.shutdown(socket.SHUT_RDWR)  # wakes who waits for a connection
        self._thread.join(10)
        self._listener.close()


@pytest.fixture
def slow() -> Iterator[SlowApp]:
    with closing(SlowApp()) as app:
        yield app


def test_sigterm_drains(tmp_path: Path, slow: SlowApp) -> None:
    with proxy("--connect-to", f"slow.test:80:127.0.0.1:{slow.port}", env=env(tmp_path)) as running:
        answers: list[tuple[int, str]] = []
        client = threading.Thread(
            target=lambda: answers.append(ask(running.port, "http://slow.test/"))
        )
        idle = socket.create_connection(("127.0.0.1", running.port), 10)
        client.start()
        assert slow.begun.wait(10)
        running.process.terminate()
        assert idle.recv(1) == b"", "an idle connection closes at once"
        idle.close()
        with pytest.raises(OSError):
            socket.create_connection(("127.0.0.1", running.port), 5)
        assert running.process.poll() is None, "it waits for the exchange under way"
        slow.go.set()
        client.join(10)
        assert answers == [(200, "first last")]
        assert running.process.wait(10) == 0


def test_asked_twice_it_does_not_wait(tmp_path: Path, slow: SlowApp) -> None:
    with proxy("--connect-to", f"slow.test:80:127.0.0.1:{slow.port}", env=env(tmp_path)) as running:
        client = socket.create_connection(("127.0.0.1", running.port), 10)
        client.sendall(b"GET http://slow.test/ HTTP/1.1\r\nHost: x\r\n\r\n")
        assert slow.begun.wait(10)
        running.process.terminate()
        running.wait_for('"stopping"')
        begun = time.monotonic()
        running.process.terminate()
        assert running.process.wait(10) == 0
        assert time.monotonic() - begun < serve.DRAIN / 2
        with pytest.raises(ConnectionResetError):  # never presented as whole
            read_to_end(client)
        client.close()


def read_to_end(client: socket.socket) -> None:
    while client.recv(65536):
        pass


async def test_a_stuck_exchange_ends_within_the_bound(
    slow: SlowApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serve, "DRAIN", 0.3)
    port = free_port()
    mapped = f"slow.test:80:127.0.0.1:{slow.port}"
    given = config.load({"bind": f"127.0.0.1:{port}", "connect-to": [mapped]}, {}, [])
    running = daemon.Daemon(given, lambda: given, {}, io.StringIO())
    ended = asyncio.create_task(running.main())
    loop = asyncio.get_running_loop()
    try:
        while True:
            try:
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
                break
            except ConnectionRefusedError:
                await asyncio.sleep(0.01)
        writer.write(b"GET http://slow.test/ HTTP/1.1\r\nHost: x\r\n\r\n")
        await asyncio.to_thread(slow.begun.wait, 10)
        begun = loop.time()
        running._stop.set()
        assert await asyncio.wait_for(ended, 5) == 0
        assert 0.2 < loop.time() - begun < 3
        with pytest.raises(ConnectionResetError):
            await reader.read(-1)
        writer.close()
    finally:
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            loop.remove_signal_handler(number)


def test_a_sign_in_under_way_ends_with_the_daemon(tmp_path: Path, person: Person) -> None:
    with LegacyApp(person.aws, person.server, person.key.arn) as app:
        fault = person.aws.fault("sts", "GetCallerIdentity", delay=1.0)
        variables = env(tmp_path) | person.aws.env | person.keys.env
        mapped = f"legacy.test:80:127.0.0.1:{app.port}"
        with proxy("--trust", APP, *LEGACY, "--connect-to", mapped, env=variables) as running:
            client = socket.create_connection(("127.0.0.1", running.port), 10)
            client.sendall(f"GET {APP}/ HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            wait_until(lambda: fault.hits == 1)
            running.process.terminate()
            running.process.terminate()
            assert running.process.wait(10) == 0
            client.close()


def wait_until(condition: Callable[[], bool]) -> None:
    for _ in range(2000):
        if condition():
            return
        time.sleep(0.005)  # nothing announces it
    raise AssertionError("did not happen")


# -- SIGHUP ----------------------------------------------------------------------------------------


def test_sighup_reads_the_configuration_again(tmp_path: Path, person: Person) -> None:
    file = tmp_path / "config.toml"
    file.write_text("")
    with LegacyApp(person.aws, person.server, person.key.arn) as app:
        variables = env(tmp_path) | person.aws.env | person.keys.env
        mapped = f"legacy.test:80:127.0.0.1:{app.port}"
        with proxy("--config", str(file), "--connect-to", mapped, env=variables) as running:
            assert ask(running.port, f"{APP}/a")[0] == 403

            file.write_text(f'log_level = "debug"\n[[app]]\norigin = "{APP}"\n{WORDS}')
            reload(running, "configuration reloaded")
            assert ask(running.port, f"{APP}/a")[0] == 302
            assert running.events("configuration reloaded")[0]["files"] == [str(file)]

            said = len(running.lines)
            file.write_text('log_level = "loud"\nnonsense = 1\n[[app]]\norigin = "ftp://x"\n')
            running.process.send_signal(signal.SIGHUP)
            for problem in ("loud", "nonsense", "ftp://x"):
                running.wait_for(f"configuration not reloaded.*{problem}", after=said)
            assert ask(running.port, f"{APP}/b")[0] == 302, "the old one stays"

            file.write_text(f'socks_proxy = "127.0.0.1:1"\n[[app]]\norigin = "{APP}"\n')
            reload(running, "configuration reloaded")
            status, page = ask(running.port, f"{APP}/a")
            assert (status, "The tunnel is down" in page) == (502, True)

            file.write_text('bind = "127.0.0.1:1"\n')
            running.process.send_signal(signal.SIGHUP)


def reload(running: Proxy, said: str) -> None:
    before = len(running.lines)
    running.process.send_signal(signal.SIGHUP)
    running.wait_for(said, after=before)


# -- a start that fails ----------------------------------------------------------------------------


def failed(tmp_path: Path, *flags: str, **more: str) -> str:
    done = subprocess.run(
        [*RUN, *flags], env=env(tmp_path, **more), capture_output=True, text=True, timeout=30
    )
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    return done.stderr


def test_a_port_in_use(tmp_path: Path) -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as taken:
        port = taken.getsockname()[1]
        said = failed(tmp_path, "--bind", f"127.0.0.1:{port}")
    assert f"--bind: 127.0.0.1:{port} is in use; is iam-auth-proxy running already?" in said


@pytest.mark.skipif(not Path("/proc/self/limits").exists(), reason="limits are read from /proc")
def test_no_core_of_it_is_written(tmp_path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_CORE)
    resource.setrlimit(resource.RLIMIT_CORE, (hard, hard))  # what it is started with
    try:
        with proxy(env=env(tmp_path)) as running:
            limits = Path(f"/proc/{running.process.pid}/limits").read_text()
    finally:
        resource.setrlimit(resource.RLIMIT_CORE, (soft, hard))
    (line,) = (line for line in limits.splitlines() if line.startswith("Max core file size"))
    assert line.split()[4] == "0"


def test_a_unix_socket_comes_and_goes(tmp_path: Path) -> None:
    path = tmp_path / "proxy.sock"
    with Child([*RUN, "--bind", f"unix:{path}"], env(tmp_path)) as child:
        child.wait_for('"ready"')
        assert path.stat().st_mode & 0o777 == 0o600
        said = failed(tmp_path, "--bind", f"unix:{path}")
        assert "is in use" in said
        assert child.stop() == 0
    assert not path.exists()


def test_sockets_that_others_can_reach_are_refused(tmp_path: Path) -> None:
    """A shell script that passes a listener on every address as systemd would."""
    script = (
        "import os, socket, sys\n"
        "s = socket.create_server(('0.0.0.0', 0))\n"
        "os.dup2(s.fileno(), 3); os.set_inheritable(3, True)\n"
        "os.environ.update(LISTEN_FDS='1', LISTEN_PID=str(os.getpid()))\n"
        "os.execv(sys.executable, [sys.executable, '-m', 'iam_auth_proxy', 'run'])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        env=env(tmp_path),
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert done.returncode == 2
    assert "only loopback addresses" in done.stderr


def test_sockets_that_are_not_there(tmp_path: Path) -> None:
    """The event loop's own descriptors must not be taken for them."""
    script = (
        "import os, sys; os.environ.update(LISTEN_FDS='2', LISTEN_PID=str(os.getpid())); "
        "os.execv(sys.executable, [sys.executable, '-m', 'iam_auth_proxy', 'run'])"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        env=env(tmp_path),
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert done.returncode == 2, done.stderr
    assert "LISTEN_FDS: descriptor 3: Bad file descriptor" in done.stderr


# -- who may use it --------------------------------------------------------------------------------

ASKED = "http://slow.test/"


def mapped(slow: SlowApp) -> list[str]:
    return ["--connect-to", f"slow.test:80:127.0.0.1:{slow.port}"]


def curl(*argv: str) -> str:
    return subprocess.run(
        [program("curl"), "-s", "-m", "20", "-w", " %{http_code}", *argv],
        capture_output=True,
        text=True,
    ).stdout


STEAL = "s.sendall(b'GET http://slow.test/ HTTP/1.1\\r\\nHost: slow.test\\r\\n\\r\\n'); s.recv(1)"


def test_another_user_gets_nothing(tmp_path: Path, slow: SlowApp) -> None:
    with proxy(*mapped(slow), env=env(tmp_path)) as running:
        Stranger(running.address, STEAL).close()
        running.wait_for("another user's connection was closed")
        assert running.events("another user's connection was closed")[0]["uid"] == NOBODY
        assert "iam_auth_proxy_strangers_total 1\n" in ask(running.port, "/metrics")[1]
        assert not slow.begun.is_set()


def test_another_user_gets_nothing_from_systemds_sockets(tmp_path: Path, slow: SlowApp) -> None:
    port = free_port()
    variables = [f"-E{name}={value}" for name, value in env(tmp_path).items()]
    where = ["-l", f"127.0.0.1:{port}", "-l", f"[::1]:{port}"]
    argv = [program("systemd-socket-activate"), *where, *variables, *RUN, *mapped(slow)]
    with Child(argv, env(tmp_path)) as child:
        child.wait_for(r"Listening on \[::1\]")
        for host in ("127.0.0.1", "::1"):
            Stranger(f"{host}:{port}", STEAL).close()
        child.wait_for("another user's connection was closed")
        wait_until(lambda: "strangers_total 2\n" in ask(port, "/metrics")[1])
        assert not slow.begun.is_set()


def test_other_users_may_be_allowed(tmp_path: Path, slow: SlowApp) -> None:
    with proxy("--allow-other-users", *mapped(slow), env=env(tmp_path)) as running:
        said = running.events("everyone who connects acts as you")
        assert said[0]["who"] == "every user of this machine (--allow-other-users)"
        slow.go.set()
        Stranger(running.address, STEAL).close()
        assert slow.begun.is_set()


def test_through_a_unix_socket(tmp_path: Path, slow: SlowApp) -> None:
    """curl gets the own pages there, and apps by the command that a person is told."""
    path = tmp_path / "proxy.sock"
    slow.go.set()
    with Child([*RUN, "--bind", f"unix:{path}", *mapped(slow)], env(tmp_path)) as child:
        child.wait_for('"ready"')
        pages = ("--unix-socket", str(path))
        assert curl(*pages, "http://localhost/healthz") == "ok\n 200"
        assert curl(*pages, "http://evil.test/healthz").endswith(" 421")
        told = shlex.split(address.curl(f"unix:{path}", "http://slow.test/"))
        assert curl(*told[1:]) == "first last 200"
        # Root opens any file, and so does whoever is let into the folder and given the file.
        path.chmod(0o666)
        for folder in (tmp_path, *tmp_path.parents):
            if not folder.stat().st_mode & stat.S_IXOTH:
                folder.chmod(0o755)
        Stranger(str(path), STEAL).close()
        child.wait_for("another user's connection was closed")


def test_whoever_has_a_password(tmp_path: Path, slow: SlowApp) -> None:
    users = tmp_path / "users"
    made = subprocess.run(
        [sys.executable, "-m", "iam_auth_proxy", "client-auth", "add", str(users), "ann"],
        env=env(tmp_path),
        input="\n",
        capture_output=True,
        text=True,
    )
    assert made.returncode == 0, made.stderr
    password = made.stdout.strip()
    port = free_port()
    flags = ["--bind", f"0.0.0.0:{port}", "--client-auth", str(users)]
    slow.go.set()
    with Child([*RUN, *flags, *mapped(slow)], env(tmp_path)) as child:
        child.wait_for('"everyone who connects acts as you".*in plain')
        child.wait_for('"ready"')
        where = f"127.0.0.1:{port}"
        assert curl("-x", where, ASKED).endswith(" 407")
        assert curl("-x", f"http://ann:guess@{where}", ASKED).endswith(" 407")
        assert curl(f"http://{where}/metrics").endswith(" 401")
        assert not slow.begun.is_set()
        assert curl("-x", f"http://ann:{password}@{where}", ASKED) == "first last 200"
        assert password not in child.output
    said = failed(tmp_path, "--bind", f"0.0.0.0:{port}")
    assert "add --client-auth FILE" in said


# -- what a start loads ----------------------------------------------------------------------------

_LOADED = """
import logging, os, signal, sys
class AtReady(logging.Handler):
    def emit(self, record):
        if record.getMessage() == "ready":
            print(" ".join(sorted(sys.modules)), flush=True)
            os.kill(os.getpid(), signal.SIGTERM)
logging.getLogger("iam_auth_proxy.proxy.commands.daemon").addHandler(AtReady())
from iam_auth_proxy.cli import main
main(["run", "--bind", "127.0.0.1:0", "--trust", "http://app.test", "--log-format", "json"])
"""


def test_a_start_loads_only_what_it_needs(tmp_path: Path) -> None:
    """design.md: ready in 350 ms. What is needed later is loaded when it is."""
    done = subprocess.run(
        [sys.executable, "-c", _LOADED],
        env=env(tmp_path),
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert done.returncode == 0, done.stderr
    loaded = set(done.stdout.split())
    assert {"httptools", "uvloop", "iam_auth_proxy.relay.client"} <= loaded
    later = {
        "aiohttp",
        "boto3",
        "botocore",
        "cryptography",
        "difflib",
        "itsdangerous",
        "jinja2",
        "moto",
        "tomllib",
        "urllib3",
        "xml.etree",
        "iam_auth_proxy.aws.person",
        "iam_auth_proxy.demo",
        "iam_auth_proxy.local_aws",
        "iam_auth_proxy.server",
    }
    assert not later & loaded


# -- a terminal ------------------------------------------------------------------------------------


@contextmanager
def terminal(*flags: str, env: dict[str, str]) -> Iterator[Terminal]:
    shown = Terminal([*RUN, "--bind", "127.0.0.1:0", *flags], env | {"TERM": "dumb"})
    try:
        yield shown
    finally:
        shown.close()
        assert "Traceback" not in shown.output


def port_of(shown: Terminal) -> int:
    return int(shown.wait_for(r"Listening on 127\.0\.0\.1:([0-9]+)")[1])


def test_three_lines_and_ctrl_c(tmp_path: Path, person: Person) -> None:
    variables = env(tmp_path) | person.aws.env | person.keys.env
    with terminal("--trust", APP, *LEGACY, env=variables) as shown:
        port = port_of(shown)
        shown.wait_for("Next: ")
        shown.wait_for(r"/\n")
        lines = shown.output.splitlines()
        assert lines == [
            f"Listening on 127.0.0.1:{port}",
            f"Signing in as {person.keys.arn}",
            f"Next: iam-auth-proxy browser {APP}/  or  curl -x 127.0.0.1:{port} {APP}/",
        ]
        shown.type("\x03")
        assert shown.wait() == 0
        assert "stopping" in shown.output


def test_quiet(tmp_path: Path) -> None:
    port = free_port()
    with terminal("--quiet", "--bind", f"127.0.0.1:{port}", env=env(tmp_path)) as shown:
        wait_until(lambda: _listens(port))
        assert ask(port)[0] == 200
        shown.type("\x03")
        assert shown.wait() == 0
        assert shown.output.strip() in ("", "^C")


def _listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
    except OSError:
        return False
    return True


def test_a_closed_terminal_ends_the_proxy(tmp_path: Path) -> None:
    """SIGHUP means two things; a proxy that acts as a person does not outlive their window."""
    with terminal("--trust", APP, *LEGACY, env=env(tmp_path)) as shown:
        shown.wait_for("Next: ")
        shown.hang_up()
        assert shown.wait() == 0


@contextmanager
def asked_for_a_code(
    tmp_path: Path, person: Person
) -> Iterator[tuple[Terminal, int, Mfa, Callable[[], tuple[int, str]]]]:
    """A proxy that asks its terminal, since somebody opens an app: its terminal, its port, the
    device, and what gives status and text of the app's page, in the end."""
    user = person.aws.user("mia", policies=[allow("kms:Encrypt", resource=person.key.arn)])
    device = user.mfa()
    variables = env(tmp_path) | person.aws.env | user.keys().env
    with LegacyApp(person.aws, person.server, person.key.arn) as app:
        flags = ["--mfa-serial-number", device.serial]
        flags += ["--connect-to", f"legacy.test:80:127.0.0.1:{app.port}"]
        with terminal("--trust", APP, *LEGACY, *flags, env=variables) as shown:
            port = port_of(shown)
            shown.wait_for("Nobody to sign in as yet: AWS needs a code of your MFA device")
            answers: list[tuple[int, str]] = []
            client = threading.Thread(target=lambda: answers.append(ask(port, f"{APP}/a")))
            client.start()
            shown.wait_for(f"MFA code for {re.escape(device.serial)}: ")

            def answer() -> tuple[int, str]:
                client.join(20)
                (only,) = answers
                return only

            yield shown, port, device, answer


def test_a_stop_takes_back_the_question_for_a_code(tmp_path: Path, person: Person) -> None:
    with asked_for_a_code(tmp_path, person) as (shown, _, _, answer):
        begun = time.monotonic()
        shown.type("\x03")
        assert shown.wait() == 0
        assert time.monotonic() - begun < serve.DRAIN / 2
        status, text = answer()
    assert status == 503
    assert "The proxy is stopping." in text


def test_mfa_on_the_terminal(tmp_path: Path, person: Person) -> None:
    with asked_for_a_code(tmp_path, person) as (shown, port, device, answer):
        assert ask(port) == (200, "ok\n"), "other requests go on meanwhile"
        shown.type("12345\n")
        shown.wait_for("A code has six digits: ")
        shown.type(f"{device.code()}\n")
        assert answer()[0] == 302
        shown.type("\x03")
        assert shown.wait() == 0


def test_a_bind_beside_socket_activation_is_told(tmp_path: Path) -> None:
    port, other = free_port(), free_port()
    variables = [f"-E{name}={value}" for name, value in env(tmp_path).items()]
    run = [*RUN, "--bind", f"127.0.0.1:{other}"]
    argv = [program("systemd-socket-activate"), "-l", f"127.0.0.1:{port}", *variables, *run]
    with Child(argv, env(tmp_path)) as child:
        child.wait_for("Listening on")
        assert ask(port) == (200, "ok\n"), child.output
        child.wait_for("bind is not looked at: systemd holds the sockets")
        assert child.stop() == 0


def test_a_reload_compares_the_bind_with_the_one_in_use(caplog: pytest.LogCaptureFixture) -> None:
    class Parts:
        def apply(self, settings: config.Settings) -> None:
            pass

    binds = [":8090", ":8080"]

    def reload() -> config.Settings:
        return config.load({"bind": binds.pop(0)}, {}, [])

    given = config.load({"bind": ":8080"}, {}, [])
    running = daemon.Daemon(given, reload, {}, io.StringIO())
    for said in (1, 0):
        caplog.clear()
        running._apply(Parts())  # type: ignore[arg-type]  # as much of them as it takes
        assert caplog.text.count("a changed bind needs a restart") == said


# -- what runs besides -----------------------------------------------------------------------------


def test_a_task_that_fails_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        settings = config.load({}, {}, [])
        running = daemon.Daemon(settings, lambda: settings, {}, io.StringIO())

        async def fail() -> None:
            raise RuntimeError("nobody thought of this")

        running._spawn(fail())
        await asyncio.gather(*running._background, return_exceptions=True)

    asyncio.run(main())
    (failed,) = [record for record in caplog.records if record.levelname == "ERROR"]
    assert failed.message == "a task in the background failed"
