"""Who is measured, started as child processes: our proxy and the others, and the origins."""

from __future__ import annotations

import contextlib
import functools
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.bench.chunked_origin import SIZE
from tests.bench.machine import BenchError, cores, on_core
from tests.bench.rows import DIRECT, NGINX, OURS, PROXY_PY, REFERENCE
from tests.support.processes import (
    ROOT,
    Child,
    Proxy,
    base_env,
    free_port,
    nginx,
    wait_for_port,
)

PROXY_PY_VERSION: Final = "2.4.10"
MITMPROXY_VERSION: Final = "11.0.2"
_ENV: Final = ROOT / ".venv-bench"

SUBJECTS: Final = ("daemon", "relay")
ANSWER: Final = 100
"""Bytes of the small answer."""

_PATIENT: Final = "keepalive_requests 1000000000; keepalive_timeout 300s;"


@dataclass(frozen=True, slots=True)
class Contestant:
    """Somebody who listens on a loopback port.

    :ivar forward: asked for whole URLs, as a forward proxy is; else for paths, as an origin is.
    :ivar pid: None for what is only ever a measure for others.
    """

    name: str
    port: int
    forward: bool
    pid: int | None = None

    def target(self, origin: int, path: str) -> str:
        """The request-target for a path of the origin on that port."""
        return f"http://127.0.0.1:{origin}{path}" if self.forward else path


class Field:
    """Origins and contestants, each started when it is first asked for and stopped at the end.

    Origins run on the first core, with the load; whoever is measured has the second for itself.

    :param subject: ``daemon``: our proxy as people run it; ``relay``: its relay alone.
    """

    def __init__(self, subject: str = "daemon") -> None:
        self.subject = subject
        self.load_core, self.core = cores()
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> Field:
        self._folder = Path(self._stack.enter_context(tempfile.TemporaryDirectory()))
        self._folder.chmod(0o755)  # nginx's worker is another user where we are root
        return self

    def __exit__(self, *exc: object) -> None:
        self._stack.close()

    def folder(self, name: str) -> Path:
        """A fresh folder, which is gone at the end."""
        found = Path(tempfile.mkdtemp(prefix=name, dir=self._folder))
        found.chmod(0o755)
        return found

    # -- origins -------------------------------------------------------------------------------

    @functools.cached_property
    def origin(self) -> int:
        """The port of nginx: ``/small`` is 100 bytes, ``/blob`` 256 MiB with Content-Length.

        Both are files, which is what nginx is commonly asked for. (An answer out of its
        configuration would be twice as fast, and nobody's origin.)
        """
        port = free_port()
        files = self._folder / "files"
        files.mkdir()
        (files / "small").write_bytes(b"x" * ANSWER)
        with (files / "blob").open("wb") as blob:
            blob.truncate(SIZE)
        config = f"""
            {_PATIENT} sendfile on; tcp_nopush on; default_type application/octet-stream;
            server {{
                listen 127.0.0.1:{port} backlog=2048;
                root {files};
            }}"""
        with on_core(self.load_core):
            self._stack.enter_context(nginx(config, self._folder / "origin", port))
        return port

    @functools.cached_property
    def chunked_origin(self) -> int:
        """The port of an origin that answers anything with 256 MiB in chunks."""
        with on_core(self.load_core):
            return _port(self._stack.enter_context(_module("tests.bench.chunked_origin")))

    # -- contestants ---------------------------------------------------------------------------

    @functools.cached_property
    def direct(self) -> Contestant:
        """Nobody in between."""
        return Contestant(DIRECT, self.origin, forward=False)

    @functools.cached_property
    def nginx(self) -> Contestant:
        """nginx in front of nginx: what a very good proxy costs."""
        port = free_port()
        config = f"""
            {_PATIENT}
            upstream origin {{
                server 127.0.0.1:{self.origin};
                keepalive 64; keepalive_requests 1000000000; keepalive_timeout 300s;
            }}
            server {{
                listen 127.0.0.1:{port} backlog=2048;
                location / {{
                    proxy_pass http://origin;
                    proxy_http_version 1.1;
                    proxy_set_header Connection "";
                }}
            }}"""
        with on_core(self.core):
            self._stack.enter_context(nginx(config, self._folder / "reverse", port))
        return Contestant(NGINX, port, forward=False)

    @functools.cached_property
    def proxy_py(self) -> Contestant:
        """proxy.py, one worker, without access log, in an environment of its own."""
        python = environment() / "python"
        port = free_port()
        argv = [str(python), "-m", "proxy", "--hostname", "127.0.0.1", "--port", str(port)]
        argv += ["--num-acceptors", "1", "--num-workers", "1", "--log-level", "ERROR"]
        with on_core(self.core):
            child = self._stack.enter_context(Child(argv, base_env(HOME=str(self._folder))))
        wait_for_port(port, child)
        return Contestant(PROXY_PY, port, forward=True)

    @functools.cached_property
    def ours(self) -> Contestant:
        """Our proxy, the same process for all rows to which its past does not matter."""
        return self._stack.enter_context(self.fresh())

    @contextlib.contextmanager
    def fresh(self) -> Iterator[Contestant]:
        """Our proxy with its defaults, every check on, and somebody whom it trusts."""
        with on_core(self.core):
            if self.subject == "relay":
                child = _module("tests.bench.relay_only")
            else:
                child = start("--trust", "http://app.test", "--allow-target", "127.0.0.1")
        with child:
            yield Contestant(OURS, _port(child), forward=True, pid=child.process.pid)

    @functools.cached_property
    def reference(self) -> Contestant:
        """A tunnel that does nothing but read and write."""
        with on_core(self.core):
            child = self._stack.enter_context(_module("tests.bench.reference_tunnel"))
        return Contestant(REFERENCE, _port(child), forward=True, pid=child.process.pid)


def _module(name: str) -> Child:
    """One of our own small programs."""
    return Child([sys.executable, "-m", name], base_env())


def _port(child: Child) -> int:
    """Where a child listens, once it has said so in our proxy's words."""
    ready = json.loads(child.wait_for(r'^.*"message": ?"ready".*$')[0])
    return int(ready["addresses"][0].rpartition(":")[2])


def start(*flags: str, env: Mapping[str, str] | None = None) -> Proxy:
    """Our proxy on a free port; ``env`` goes on top of an environment without anybody's own."""
    return Proxy(*flags, env=base_env(**(env or {})))


def environment() -> Path:
    """The programs of the others, whose pins fight ours, so they live apart; installed once."""
    programs = _ENV / "bin"
    wanted = [f"proxy.py=={PROXY_PY_VERSION}", f"mitmproxy=={MITMPROXY_VERSION}"]
    names, stamp = " ".join(wanted), _ENV / ".installed"
    if not (stamp.exists() and stamp.read_text() == names):
        print(f"bench: installing {names} into {_ENV.name}", file=sys.stderr)
        try:
            subprocess.run([sys.executable, "-m", "venv", str(_ENV)], check=True)
            pip = [str(programs / "python"), "-m", "pip", "install", "-q"]
            subprocess.run(
                [*pip, "--disable-pip-version-check", *wanted], check=True, stdout=sys.stderr
            )
        except subprocess.CalledProcessError as error:
            raise BenchError(f"{names} could not be installed") from error
        stamp.write_text(names)
    return programs
