"""A connection too many is told so, however few descriptors there are."""

from __future__ import annotations

import contextlib
import re
import socket
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from iam_auth_proxy.proxy.listeners.descriptors import fitting
from iam_auth_proxy.relay.limits import Limits
from tests.support.processes import Child, base_env, free_port


@pytest.mark.parametrize(
    ("descriptors", "connections"),
    [(65_536, 1000), (4096, 1000), (1024, 286), (256, 30), (64, 16), (0, 16)],
)
def test_no_more_than_there_are_descriptors_for(descriptors: int, connections: int) -> None:
    limits = fitting(Limits(), descriptors)
    assert (limits.clients, limits.connections) == (connections, connections)


def test_fewer_are_wanted_than_there_could_be() -> None:
    assert fitting(Limits(clients=5, connections=7), 4096).clients == 5


class Fine(BaseHTTPRequestHandler):
    """An app."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        pass


def test_a_hard_limit_that_is_low(tmp_path: Path) -> None:
    """Who is let in is served, and who is not hears why: nothing fails for want of a descriptor."""
    app = ThreadingHTTPServer(("127.0.0.1", 0), Fine)
    threading.Thread(target=app.serve_forever, daemon=True).start()
    port = free_port()
    run = [sys.executable, "-m", "iam_auth_proxy", "run", "--bind", f"127.0.0.1:{port}"]
    run += ["--allow-target", "127.0.0.1"]
    env = base_env(HOME=str(tmp_path), XDG_CONFIG_HOME=str(tmp_path))
    limited = ["sh", "-c", 'ulimit -n 256; exec "$@"', "sh", *run]
    with contextlib.ExitStack() as stack:
        stack.callback(app.server_close)
        stack.callback(app.shutdown)
        proxy = stack.enter_context(Child(limited, env))
        proxy.wait_for('"ready"')
        assert re.search('"descriptors":256,"connections":30', proxy.output)
        request = b"GET http://127.0.0.1:%d/ HTTP/1.1\r\nHost: x\r\n\r\n" % app.server_port
        clients = []
        for _ in range(60):
            client = stack.enter_context(socket.create_connection(("127.0.0.1", port), 20))
            clients.append(client)
            with contextlib.suppress(OSError):  # who is turned away may be so already
                client.sendall(request)
        statuses = [client.recv(65536)[9:12] for client in clients]
        assert statuses == [b"200"] * 30 + [b"503"] * 30
    assert "Too many open files" not in proxy.output
