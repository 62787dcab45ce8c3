"""Real components as child processes: started, awaited by what they say, and ended.

Nothing here sleeps: a component is ready when it has said so, or when its port answers.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import json
import os
import random
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
PATIENCE = 20.0


def program(name: str) -> str:
    """The path of a program that ``tests/components`` has made sure of."""
    path = shutil.which(name, path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")
    assert path is not None, f"{name} is missing: run sh tests/components"
    return path


def free_port() -> int:
    """A loopback port that is free now."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
        return port


def free_on_both() -> int:
    """A port that is free now on both loopback addresses.

    It is below those that systems give to connections, which others make at any moment.
    """
    while True:
        port = random.randrange(20_000, 32_000)
        with (
            contextlib.suppress(OSError),
            socket.create_server(("127.0.0.1", port)),
            socket.create_server(("::1", port), family=socket.AF_INET6),
        ):
            return port


class Child:
    """A child process whose output is kept, and can be waited for line by line."""

    def __init__(self, argv: Sequence[str], env: Mapping[str, str] | None = None, **options: Any):
        self.lines: list[str] = []
        self._condition = threading.Condition()
        self._ended = False
        self.process = subprocess.Popen(
            argv,
            env=dict(env) if env is not None else None,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd=ROOT,
            **options,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            with self._condition:
                self.lines.append(line.rstrip("\n"))
                self._condition.notify_all()
        with self._condition:
            self._ended = True
            self._condition.notify_all()

    def wait_for(self, pattern: str, *, after: int = 0, timeout: float = PATIENCE) -> re.Match[str]:
        """The first line from ``after`` on that holds the pattern; fails with all that was said."""
        found: re.Match[str] | None = None

        def seen() -> bool:
            nonlocal found
            for line in self.lines[after:]:
                found = re.search(pattern, line)
                if found:
                    return True
            return self._ended

        with self._condition:
            self._condition.wait_for(seen, timeout)
        assert found is not None, f"never said {pattern!r}:\n" + "\n".join(self.lines[-50:])
        return found

    @property
    def output(self) -> str:
        """All that was said so far."""
        with self._condition:
            return "\n".join(self.lines)

    def stop(self, timeout: float = PATIENCE) -> int:
        """SIGTERM, and its exit status; killed where it does not end in time."""
        if self.process.poll() is None:
            self.process.terminate()
        try:
            status = self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise AssertionError(f"did not end on SIGTERM:\n{self.output}") from None
        finally:
            self._reader.join(PATIENCE)
            assert self.process.stdout is not None
            self.process.stdout.close()
        return status

    def __enter__(self) -> Child:
        return self

    def __exit__(self, *exc: object) -> None:
        self.stop()


def children_of(pid: int) -> dict[int, str]:
    """The process ids of its children that are alive, and their names."""
    found = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            with contextlib.suppress(OSError):
                status = (folder / "status").read_text().splitlines()
                fields = dict(line.split(":\t", 1) for line in status if ":\t" in line)
                if fields["PPid"] == str(pid) and not fields["State"].startswith("Z"):
                    found[int(folder.name)] = fields["Name"]
    return found


@functools.cache
def _homes() -> Path:
    """Where the people of :func:`base_env` live; short, for the paths of sockets."""
    folder = Path(tempfile.mkdtemp(prefix="iap-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def base_env(**more: str) -> dict[str, str]:
    """An environment without anything of the person who runs the tests.

    Each one is a new person's: with a configuration, pins and running proxies of its own.
    """
    keep = ("PATH", "LANG", "TMPDIR", "COVERAGE_PROCESS_START")
    env = {name: os.environ[name] for name in keep if name in os.environ}
    home = Path(tempfile.mkdtemp(dir=_homes()))
    return (
        env
        | {"XDG_CONFIG_HOME": str(home / "config"), "XDG_RUNTIME_DIR": str(home)}
        | {"XDG_DATA_HOME": str(home / "data")}
        | {"AWS_EC2_METADATA_DISABLED": "true", "PYTHONUNBUFFERED": "1"}
        | more
    )


class Proxy(Child):
    """``iam-auth-proxy run`` on a free port, logging JSON."""

    def __init__(self, *flags: str, env: Mapping[str, str]):
        argv = [sys.executable, "-m", "iam_auth_proxy", "run", "--bind", "127.0.0.1:0"]
        super().__init__([*argv, "--log-format", "json", *flags], env)
        try:
            ready = json.loads(self.wait_for(r'^.*"message": ?"ready".*$')[0])
        except AssertionError:
            self.stop()
            raise
        self.address: str = ready["addresses"][0]
        self.url = f"http://{self.address}"
        self.port = int(self.address.rpartition(":")[2])

    def events(self, message: str, *, least: int = 1) -> list[dict[str, Any]]:
        """The log's objects with that message, once there are ``least`` of them.

        What the proxy said before it answered may come through the pipe after its answer.
        """
        found: list[dict[str, Any]] = []

        def enough() -> bool:
            found[:] = [each for each in map(_document, self.lines) if each["message"] == message]
            return len(found) >= least or self._ended

        with self._condition:
            self._condition.wait_for(enough, PATIENCE)
        return found


def _document(line: str) -> dict[str, Any]:
    """A line of the log; what is none has an empty message."""
    with contextlib.suppress(ValueError):
        document = json.loads(line)
        if isinstance(document, dict):
            return {"message": "", **document}
    return {"message": ""}


@contextlib.contextmanager
def nginx(config: str, folder: Path, port: int) -> Iterator[Child]:
    """nginx with ``config`` as its http block, once ``port`` answers."""
    folder.mkdir(parents=True, exist_ok=True)
    # Started by root, its workers would be another user, who cannot read a test's folder.
    user = "user root; " if os.getuid() == 0 else ""
    text = (
        f"{user}daemon off; worker_processes 1; error_log stderr warn;\n"
        f"pid {folder}/nginx.pid;\n"
        "events { worker_connections 4096; }\n"
        "http {\n"
        f"  access_log off; client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy;\n"
        f"  fastcgi_temp_path {folder}/f; uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;\n"
        f"{config}\n}}\n"
    )
    file = folder / "nginx.conf"
    file.write_text(text)
    with Child([program("nginx"), "-p", str(folder), "-c", str(file)]) as child:
        wait_for_port(port, child)
        yield child


def wait_for_port(port: int, child: Child) -> None:
    """Until somebody accepts on a loopback port; fails with the child's words if it ends."""
    deadline = threading.Event()
    for _ in range(int(PATIENCE / 0.05)):
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        assert child.process.poll() is None, child.output
        deadline.wait(0.05)  # a poll of the port: there is no event to wait for
    raise AssertionError(f"nobody listens on {port}:\n{child.output}")
