"""What the control socket takes; tests/e2e/test_look.py has what it does, and for whom."""

from __future__ import annotations

import asyncio
import gzip
import json
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from iam_auth_proxy import config
from iam_auth_proxy.proxy.process import control, runtime
from iam_auth_proxy.proxy.process.build import Parts
from iam_auth_proxy.proxy.process.logs import Recent

ADDRESS = "127.0.0.1:1"


@pytest.fixture
async def control_socket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Path]:
    """The socket of a proxy that has nothing else."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    async with AsyncExitStack() as stack:
        parts = Parts(config.load({}, {}, []), {}, [], no_pages, None)
        stack.push_async_callback(parts.close)
        await control.serve(stack, parts, [ADDRESS], Recent())
        yield runtime.folder() / runtime.name_of(ADDRESS)


async def no_pages() -> socket.socket:
    raise OSError("none here")


async def post(
    path: Path, body: bytes, *fields: bytes, target: bytes = b"/reach"
) -> tuple[int, bytes]:
    reader, writer = await asyncio.open_unix_connection(path)
    length = b"Content-Length: %d" % len(body)
    head = [b"POST %s HTTP/1.1" % target, b"Host: x", b"Connection: close", length, *fields]
    writer.write(b"\r\n".join(head) + b"\r\n\r\n" + body)
    answer = await reader.read()
    writer.close()
    await writer.wait_closed()
    return int(answer.split()[1]), answer.partition(b"\r\n\r\n")[2]


JSON = b"Content-Type: application/json"
ODD = {
    "nothing": (b"", JSON),
    "no JSON": (b"{", JSON),
    "no object": (b'["http://app.test"]', JSON),
    "no text": (b'{"origin": 1}', JSON),
    "no origin": (b'{"origin": "http://"}', JSON),
    "not UTF-8": (b'{"origin": "\xff"}', JSON),
    "another encoding": ('{"origin": ""}'.encode("utf-16"), JSON),
    "half a character": (b'{"origin": "http://\\ud800"}', JSON),
    "twice": (b'{"origin": "", "origin": "http://app.test"}', JSON),
    "too deep": (b"[" * 4000, JSON),
    "too long": (b" " * 5000, JSON),
    "packed": (gzip.compress(b'{"origin": ""}'), b"Content-Encoding: gzip"),
}


@pytest.mark.parametrize("name", ODD)
@pytest.mark.parametrize("target", [b"/reach", b"/logout", b"/whoami"])
async def test_what_is_odd_is_a_400(control_socket: Path, name: str, target: bytes) -> None:
    body, field = ODD[name]
    status, said = await post(control_socket, body, field, target=target)
    error = json.loads(said)["error"]
    assert (status, error["code"]) == (400, "malformed")
    assert error["detail"]


@pytest.mark.parametrize("charset", [b"klingon", b"rot13", b"undefined", b"utf-16", b'"', b"\xff"])
async def test_no_charset_is_looked_at(control_socket: Path, charset: bytes) -> None:
    field = b"Content-Type: application/json; charset=" + charset
    assert (await post(control_socket, b'{"origin": "http://app.test"}', field))[0] == 200


async def test_what_is_neither_yes_nor_no_is_no_logout(control_socket: Path) -> None:
    body = b'{"origin": "http://app.test", "undo": "yes"}'
    assert (await post(control_socket, body, JSON, target=b"/logout"))[0] == 400
