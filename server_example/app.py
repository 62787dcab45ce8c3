"""The app itself. All it knows of signing in is ``request[IDENTITY]``: who asks."""

from __future__ import annotations

import hashlib
import re
import secrets
import time
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Final

import jinja2
from aiohttp import WSMsgType, web

from iam_auth_proxy.server import Gate
from iam_auth_proxy.server.aiohttp import IDENTITY, SESSION, iam_auth

PUBLIC: Final = ("/healthz",)
MAX_DOWNLOAD: Final = 4 << 30
"""Bytes."""

_CHUNK: Final = bytes(range(256)) * 256
_SIZE = re.compile(r"([0-9]{1,12})(|KiB|MiB|GiB)", re.ASCII)
_UNITS = {"": 0, "KiB": 10, "MiB": 20, "GiB": 30}

GATE = web.AppKey("gate", Gate)


def make_app(gate: Gate) -> web.Application:
    """The app behind ``gate``."""
    app = web.Application(middlewares=[iam_auth(gate)])
    app[GATE] = gate
    app.add_routes(
        [
            web.get("/", home),
            web.get("/check", check),
            web.post("/form", receive),
            web.get("/socket", socket_page),
            web.get("/ws", echo),
            web.get("/download", download),
            web.get("/healthz", healthz),
        ]
    )
    return app


async def home(request: web.Request) -> web.Response:
    """Who you are."""
    session = request[SESSION]
    until = datetime.fromtimestamp(session.expires, UTC)
    path = request.app[GATE].settings.path
    return _page("home.html", me=request[IDENTITY], until=until, auth=path)


async def check(request: web.Request) -> web.Response:
    """The same in one line, for scripts."""
    return web.Response(text=f"ok {request[IDENTITY].arn}\n")


async def receive(request: web.Request) -> web.Response:
    """Takes a body of any size and type, a piece at a time, and answers what it was."""
    size, digest = 0, hashlib.sha256()
    async for piece in request.content.iter_any():
        size += len(piece)
        digest.update(piece)
    if "text/html" in request.headers.get("Accept", ""):
        return _page("received.html", me=request[IDENTITY], size=size, digest=digest.hexdigest())
    return web.Response(text=f"{size} bytes\nsha256 {digest.hexdigest()}\n")


async def socket_page(request: web.Request) -> web.Response:
    """A page that opens the WebSocket."""
    nonce = secrets.token_urlsafe(16)
    return _page("socket.html", nonce=nonce, me=request[IDENTITY])


async def echo(request: web.Request) -> web.WebSocketResponse:
    """A WebSocket that says who you are, and then what you say."""
    socket = web.WebSocketResponse(heartbeat=30)
    await socket.prepare(request)
    await socket.send_str(f"hello {request[IDENTITY].arn}")
    async for message in socket:
        if message.type is WSMsgType.TEXT:
            await socket.send_str(message.data)
        elif message.type is WSMsgType.BINARY:
            await socket.send_bytes(message.data)
    return socket


async def download(request: web.Request) -> web.StreamResponse:
    """``?size=100MiB``; with ``&chunked=1`` without a Content-Length."""
    match = _SIZE.fullmatch(request.query.get("size", "1MiB"))
    size = int(match[1]) << _UNITS[match[2]] if match else MAX_DOWNLOAD + 1
    if size > MAX_DOWNLOAD:
        return web.Response(
            status=400, text="size is a number of bytes, KiB, MiB or GiB, to 4GiB\n"
        )
    response = web.StreamResponse(headers={"Content-Type": "application/octet-stream"})
    if "chunked" not in request.query:
        response.content_length = size
    await response.prepare(request)
    for start in range(0, size, len(_CHUNK)):
        await response.write(_CHUNK[: size - start])
    await response.write_eof()
    return response


async def healthz(request: web.Request) -> web.Response:
    """For load balancers; public. 503 as long as nobody can be let in.

    A key ring that is not fresh is said and no more: the last good one serves on.
    """
    health = request.app[GATE].health(time.time())
    if not health.read_at:
        return web.Response(status=503, text=f"not ready\n{health.problem}\n")
    return web.Response(text="ok\n" if health.ok else f"ok\n{health.problem}\n")


@cache
def _templates() -> jinja2.Environment:
    loader = jinja2.FileSystemLoader(Path(__file__).parent / "templates")
    return jinja2.Environment(loader=loader, autoescape=True, undefined=jinja2.StrictUndefined)


def _page(template: str, *, nonce: str = "", **values: object) -> web.Response:
    text = _templates().get_template(template).render(nonce=nonce, **values)
    scripts = f"'nonce-{nonce}'" if nonce else "'none'"
    policy = (
        f"default-src 'none'; style-src 'unsafe-inline'; script-src {scripts}; connect-src 'self'; "
        "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    )
    headers = {"Content-Security-Policy": policy, "Cache-Control": "no-store"}
    return web.Response(text=text, content_type="text/html", headers=headers)
