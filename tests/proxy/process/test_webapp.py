"""An application that is loaded when its first connection comes."""

from __future__ import annotations

import asyncio
import socket

from aiohttp import web

from iam_auth_proxy.proxy.process.webapp import WebApp

ASK = b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"


async def ask(app: WebApp) -> bytes:
    near, far = socket.socketpair()
    await app.take(far)
    reader, writer = await asyncio.open_connection(sock=near)
    writer.write(ASK)
    answer = await reader.read()
    writer.close()
    await writer.wait_closed()
    return answer.partition(b"\r\n\r\n")[2]


class Made:
    def __init__(self, *, broken: bool = False) -> None:
        self.times = 0
        self.broken = broken
        self.cleaned = False

    def __call__(self) -> web.Application:
        self.times += 1
        if self.broken:
            raise ImportError("no such module")
        app = web.Application()

        async def hello(request: web.Request) -> web.Response:
            return web.Response(text="hello")

        async def clean(app: web.Application) -> None:
            self.cleaned = True

        app.router.add_get("/", hello)
        app.on_cleanup.append(clean)
        return app


async def test_it_is_made_once_and_not_before_somebody_comes() -> None:
    made = Made()
    app = WebApp(made)
    assert made.times == 0
    assert await asyncio.gather(ask(app), ask(app)) == [b"hello", b"hello"]
    assert made.times == 1
    await app.close()
    assert made.cleaned


async def test_one_that_nobody_came_to_has_nothing_to_end() -> None:
    made = Made()
    await WebApp(made).close()
    assert made.times == 0


async def test_where_it_cannot_be_made_the_connection_is_closed_and_the_next_one_tries_again() -> (
    None
):
    made = Made(broken=True)
    app = WebApp(made)
    near, far = socket.socketpair()
    with near:
        try:
            await app.take(far)
        except ImportError:
            assert near.recv(1) == b""
        else:
            raise AssertionError("it could not be made")
    made.broken = False
    assert await ask(app) == b"hello"
    await app.close()
