"""Whatever is sent, over real sockets: no 500, and nobody inside who is not let in."""

from __future__ import annotations

import logging
import re
import socket
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any

import pytest
from aiohttp import web
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from iam_auth_proxy.server import Gate, asgi, wsgi
from iam_auth_proxy.server.aiohttp import iam_auth
from tests.server.apps import Serving, serve_aiohttp, serve_asgi, serve_werkzeug, serve_wsgi
from tests.server.conftest import FakeAws, GateMaker

INSIDE = b"inside:"
# As each framework's router sees them: decoded or not, with or without the first slash.
PUBLIC = re.compile(rb"/?(?:healthz|static/[^%]*)", re.DOTALL)


def aiohttp_app(gate: Gate) -> Any:
    async def inside(request: web.Request) -> web.Response:
        return web.Response(body=INSIDE + request.rel_url.raw_path.encode())

    app = web.Application(middlewares=[iam_auth(gate)])
    app.router.add_route("*", "/{rest:.*}", inside)
    return app


def asgi_app(gate: Gate) -> Any:
    async def inside(scope: asgi.Scope, receive: asgi.Receive, send: asgi.Send) -> None:
        if scope["type"] != "http":
            return
        body = INSIDE + scope["path"].encode("utf-8", "surrogatepass")
        length = (b"content-length", str(len(body)).encode())
        await send({"type": "http.response.start", "status": 200, "headers": [length]})
        await send({"type": "http.response.body", "body": body})

    return asgi.IamAuth(inside, gate=gate)


def wsgi_app(gate: Gate) -> Any:
    def inside(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        body = INSIDE + environ["PATH_INFO"].encode("latin-1")
        start_response("200 OK", [("Content-Length", str(len(body)))])
        return [body]

    return wsgi.IamAuth(inside, gate=gate)


SERVERS: dict[str, tuple[Callable[[Gate], Any], Callable[[Any], Serving]]] = {
    "aiohttp": (aiohttp_app, serve_aiohttp),
    "uvicorn, h11": (asgi_app, partial(serve_asgi, http="h11", lifespan="off")),
    "uvicorn, httptools": (asgi_app, partial(serve_asgi, http="httptools", lifespan="off")),
    "wsgiref": (wsgi_app, serve_wsgi),
    "werkzeug": (wsgi_app, serve_werkzeug),
}

pieces = st.sampled_from(
    ["/", "//", "healthz", "static", "static/", "auth", "whoami", "logout", "?", "#", "%2f", "%2e",
     "%68ealthz", "..", ".", ";", "%00", "%ff", "\\", "http://", "app.test", "@", ":", "*",
     "token=", "AAAA", "return_url=", "&", "=", "%", "\xe9", "\x1b[31m", "%0d%0a", "<b>", "|"]
)  # fmt: skip
anything = st.tuples(
    st.sampled_from(["/", "", "/static", "/static/", "/auth?token=QUFB&return_url="]),
    st.lists(pieces, max_size=4).map("".join),
).map("".join)
# A public path, in which some letters are written as escapes.
escaped = st.sampled_from(["/healthz", "/static/x"]).flatmap(
    lambda path: st.sets(st.integers(1, len(path) - 1), min_size=1, max_size=3).map(
        lambda where: "".join(
            f"%{ord(char):02x}" if index in where else char for index, char in enumerate(path)
        )
    )
)
targets = st.tuples(st.sampled_from(["", "http://app.test"]), anything | escaped).map("".join)
methods = st.sampled_from(["GET", "GET", "GET", "HEAD", "POST", "OPTIONS", "TRACE", "G\x1bT"])
field_lines = st.lists(
    st.sampled_from(
        ["Host: evil.test", "Host: [::1", "X-Forwarded-Host: evil.test", "X-Forwarded-Proto: x,y",
         "X-Forwarded-For: fe80::1%\x7f", "Cookie: iam-auth=x; iam-auth=y",
         "Cookie: iam-auth=a.b.c.d",
         "Cookie: \xff=\xfe;;;=", "Accept: ;q=nan,,text/html;q=1e999", "Script_Name: /static",
         "Remote-User: root", "Origin: null", "Range: bytes=0-", "X-Original-URL: /healthz",
         "X-HTTP-Method-Override: GET", "Authorization: Basic eA=="]
    ),
    max_size=3,
)  # fmt: skip


class Sender:
    """Sends one request after the other to one server."""

    def __init__(self, port: int) -> None:
        self._port = port

    def send(self, method: str, target: str, fields: list[str]) -> bytes:
        lines = [f"{method} {target} HTTP/1.1", "Host: app.test", *fields, "Connection: close"]
        with socket.create_connection(("127.0.0.1", self._port), timeout=10) as connection:
            connection.sendall(("\r\n".join(lines) + "\r\n\r\n").encode("latin-1"))
            try:
                with connection.makefile("rb") as answer:
                    return answer.read()
            except ConnectionError:
                return b""


@pytest.fixture(params=SERVERS)
def sender(request: pytest.FixtureRequest, make_gate: GateMaker) -> Iterator[Sender]:
    make, serve = SERVERS[request.param]
    gate = make_gate(public=["/static/*", "/healthz"], trusted_proxies=["127.0.0.1"])
    with serve(make(gate)) as port:
        yield Sender(port)


@settings(max_examples=80, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(method=methods, target=targets, fields=field_lines)
def test_anything(
    sender: Sender,
    aws: FakeAws,
    caplog: pytest.LogCaptureFixture,
    method: str,
    target: str,
    fields: list[str],
) -> None:
    caplog.clear()
    caplog.set_level(logging.INFO)
    answer = sender.send(method, target, fields)
    head, _, body = answer.partition(b"\r\n\r\n")
    status = re.match(rb"HTTP/1\.[01] ([0-9]{3}) ", head)
    # 501: a method that the server itself does not know. What it cannot read has no status line.
    assert status is None or status[1] < b"500" or status[1] == b"501", answer
    _, inside, path = body.partition(INSIDE)
    assert not inside or PUBLIC.fullmatch(path), answer
    assert b"\r\nSet-Cookie: iam-auth=" not in head or b"Max-Age=0" in head
    assert "GetCallerIdentity" not in aws.calls
    ours = [record for record in caplog.records if record.name.startswith("iam_auth_proxy")]
    assert all(record.getMessage().isprintable() for record in ours)
    assert all(record.levelno < logging.ERROR for record in ours)
