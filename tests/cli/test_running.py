"""Asking a running proxy, and one that answers badly."""

from __future__ import annotations

import socket
import threading
from pathlib import Path

import pytest

from iam_auth_proxy.cli.running import Running, Told


def answering(path: Path, answer: bytes) -> threading.Thread:
    """A thread that answers one request on a socket at ``path``, which is there on return."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(str(path))
    listener.listen()

    def serve() -> None:
        with listener, listener.accept()[0] as connection:
            connection.recv(4096)
            connection.sendall(answer)

    thread = threading.Thread(target=serve)
    thread.start()
    return thread


def test_a_failure_of_a_running_proxy_is_not_its_absence(tmp_path: Path) -> None:
    head = b"HTTP/1.1 500 Internal Server Error\r\nConnection: close\r\n\r\n"
    thread = answering(tmp_path / "s", head + b"500 Internal Server Error")
    with pytest.raises(Told) as caught:
        Running(tmp_path / "s").ask("/status")
    thread.join()
    assert caught.value.code == "internal"
    assert "running proxy failed" in str(caught.value)


@pytest.mark.parametrize("there", [True, False])
def test_one_that_has_ended(tmp_path: Path, there: bool) -> None:
    thread = answering(tmp_path / "s", b"") if there else None
    with pytest.raises(Told) as caught:
        Running(tmp_path / "s").ask("/status")
    if thread is not None:
        thread.join()
    assert caught.value.code == "not-running"
