"""Private listeners: for one program, on a port of their own."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import functools
import socket
import subprocess
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, closing
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from iam_auth_proxy import config
from iam_auth_proxy.proxy.listeners.clientauth import add
from iam_auth_proxy.proxy.listeners.listen import bind_tcp
from iam_auth_proxy.proxy.pages import own
from iam_auth_proxy.proxy.process.build import Parts
from iam_auth_proxy.proxy.process.running import OwnPages
from iam_auth_proxy.proxy.process.serve import (
    Listeners,
    PrivateListener,
    open_private,
    serve_public,
)
from iam_auth_proxy.relay.addresses import parse_address
from tests.support.processes import program
from tests.support.upstreams import listening
from tests.support.users import Stranger

HELLO = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello"


async def app(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    head = await reader.readuntil(b"\r\n\r\n")
    assert b"uthorization" not in head
    writer.write(HELLO)
    await writer.drain()


class Rig:
    def __init__(self, parts: Parts, port: int) -> None:
        self.parts = parts
        self.port = port


@pytest.fixture
async def rig() -> AsyncIterator[Rig]:
    async with AsyncExitStack() as stack:
        port = await stack.enter_async_context(listening(app))
        mapped = f"app.test:80:127.0.0.1:{port}"
        given = config.load({"connect-to": [mapped], "allow-target": ["127.0.0.1"]}, {}, [])
        pages = OwnPages()
        parts = Parts(given, {}, [], pages.dial, None)
        stack.push_async_callback(parts.close)
        status = functools.partial(parts.status, "private")
        application = own.application(
            status, parts.reaches, parts.questions, parts.identify, parts.hosts
        )
        pages.serve(stack, lambda: application)
        yield Rig(parts, port)


async def curl(*argv: str) -> str:
    """What it printed, and the status."""
    done = await asyncio.to_thread(
        subprocess.run,
        [program("curl"), "-sS", "-m", "10", "-w", " %{http_code}", *argv],
        capture_output=True,
        text=True,
    )
    return done.stdout + done.stderr


def place(listener: PrivateListener) -> str:
    parts = urlsplit(listener.url)
    return f"{parts.hostname}:{parts.port}"


async def test_whoever_knows_the_url_and_nobody_else(rig: Rig) -> None:
    listener = await open_private(rig.parts)
    try:
        where = place(listener)
        assert await curl("-x", listener.url, "http://app.test/") == "hello 200"
        assert (await curl("-x", where, "http://app.test/")).endswith(" 407")
        assert (await curl("-x", f"http://x:y@{where}", "http://app.test/")).endswith(" 407")
        assert await curl("-x", listener.url, "-p", "http://app.test/") == "hello 200"
        secret = urlsplit(listener.url).password
        assert secret is not None
        assert len(secret) == 32
        assert secret not in repr(listener)
        assert rig.parts.relay.counters.unauthenticated == 2
    finally:
        await listener.close()
    assert "Failed to connect" in await curl("-x", listener.url, "http://app.test/")


async def test_another_user_does_not_get_as_far_as_the_password(rig: Rig) -> None:
    listener = await open_private(rig.parts)
    stranger = await asyncio.to_thread(Stranger, place(listener))
    await asyncio.to_thread(stranger.close)
    await listener.close()
    assert rig.parts.relay.counters.strangers == 1


async def test_it_is_one_of_ourselves_for_as_long_as_it_lives(rig: Rig) -> None:
    """Not dialled, though loopback is allowed; and its own pages answer to its own address."""
    first, second = await open_private(rig.parts), await open_private(rig.parts)
    assert first.url != second.url
    for listener in (first, second):
        said = await curl("-x", first.url, f"http://{place(listener)}/healthz")
        assert "is this proxy itself" in said
        own = f"{listener.url}/healthz"
        assert await curl(own) == "ok\n 200"
        assert (await curl(f"http://{place(listener)}/healthz")).endswith(" 401")
        assert (await curl(own, "-H", "Host: evil.test")).endswith(" 421")
    gone = place(second)
    await second.close()
    assert gone not in rig.parts.hosts
    host, _, port = gone.rpartition(":")
    address = parse_address(host)
    assert address is not None
    policy = rig.parts._route.dialer._policy
    assert not policy.is_ourselves(address, int(port))
    with closing(socket.create_server((host, int(port)))) as taken:
        taken.close()
    await first.close()
    assert rig.parts.hosts == set()


# -- passwords that are taken back -----------------------------------------------------------------

HORSE = "correct horse battery"
STAPLE = "staple correct horse"


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(100):
        writer.write(data)
        await writer.drain()


class Tunnel:
    """A client's, through the proxy, to the app that says everything back."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    @classmethod
    async def open(cls, port: int, user: str, password: str) -> Tunnel:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        basic = base64.b64encode(f"{user}:{password}".encode())
        writer.write(
            b"CONNECT app.test:443 HTTP/1.1\r\nHost: app.test:443\r\n"
            b"Proxy-Authorization: Basic " + basic + b"\r\n\r\n"
        )
        assert b" 200 " in await reader.readuntil(b"\r\n\r\n")
        return cls(reader, writer)

    async def is_open(self) -> bool:
        try:
            self.writer.write(b"x")
            return await asyncio.wait_for(self.reader.read(1), 5) == b"x"
        except ConnectionError:
            return False

    async def close(self) -> None:
        self.writer.close()
        with contextlib.suppress(ConnectionError):
            await self.writer.wait_closed()


async def test_a_password_that_is_taken_back_ends_what_came_in_with_it(tmp_path: Path) -> None:
    users = str(tmp_path / "users")
    add(users, "ann", HORSE)
    async with AsyncExitStack() as stack:
        port = await stack.enter_async_context(listening(echo))
        mapped = [f"app.test:443:127.0.0.1:{port}"]
        given = config.load({"connect-to": mapped, "client-auth": users}, {}, [])
        sock = bind_tcp("127.0.0.1", 0)
        parts = Parts(given, {}, [sock], OwnPages().dial, None)
        stack.push_async_callback(parts.close)
        listeners = Listeners(parts.relay)
        await serve_public(parts, listeners, [sock])
        stack.push_async_callback(listeners.close)
        private = await open_private(parts)
        stack.push_async_callback(private.close)
        where = urlsplit(private.url)
        assert where.port is not None

        tunnel = await Tunnel.open(sock.getsockname()[1], "ann", HORSE)
        programs = await Tunnel.open(where.port, "x", where.password or "")
        stack.push_async_callback(tunnel.close)
        stack.push_async_callback(programs.close)
        add(users, "bob", STAPLE)
        parts.apply(given)
        assert await tunnel.is_open(), "it is ann's"
        add(users, "ann", STAPLE)
        parts.apply(given)
        assert not await tunnel.is_open()
        assert await programs.is_open(), "it has a password of its own"
