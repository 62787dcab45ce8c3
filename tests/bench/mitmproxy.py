"""mitmproxy, in the environment that proxy.py lives in: its pins fight ours, too."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from tests.bench.contestants import Field, environment
from tests.bench.machine import on_core
from tests.support.processes import Child, base_env, free_port, wait_for_port


@contextlib.contextmanager
def mitmproxy(field: Field, authority: Path) -> Iterator[tuple[int, Path]]:
    """mitmdump without output: its port, and the file of its own CA."""
    folder, port = field.folder("mitmproxy"), free_port()
    options = {
        "confdir": folder,
        "ssl_verify_upstream_trusted_ca": authority,
        "connection_strategy": "lazy",
        "flow_detail": 0,
    }
    argv = [str(environment() / "mitmdump"), "-q", "-p", str(port), "--listen-host", "127.0.0.1"]
    for name, value in options.items():
        argv += ["--set", f"{name}={value}"]
    with on_core(field.core):
        child = Child(argv, base_env(HOME=str(folder)))
    with child:
        wait_for_port(port, child)
        yield port, folder / "mitmproxy-ca-cert.pem"
