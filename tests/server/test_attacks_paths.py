"""Ways to reach a page that is not public through a rule that makes another one public."""

from __future__ import annotations

import socket
from typing import Any

import pytest
from aiohttp import web

from iam_auth_proxy.server import Gate, asgi, wsgi
from iam_auth_proxy.server.aiohttp import iam_auth
from tests.server.apps import serve_aiohttp
from tests.server.conftest import GateMaker
from tests.server.test_asgi import Inner as AsgiInner
from tests.server.test_asgi import http_scope, run
from tests.server.test_wsgi import Inner, call


def exchange(port: int, target: str) -> bytes:
    """The raw answer to a GET of ``target``, which no client library would send."""
    head = f"GET {target} HTTP/1.1\r\nHost: app.test\r\nConnection: close\r\n\r\n"
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        connection.sendall(head.encode("latin-1"))
        with connection.makefile("rb") as answer:
            return answer.read()


@pytest.mark.parametrize(
    "target",
    [
        "/static%2Fpage",
        "/%68ealthz",
        "http://app.test/static%2Fpage",
        "http://app.test/%68ealthz",
        "HTTP://app.test/static%2Fpage?x",
        "http://evil.test/%68ealthz#/x",
    ],
)
def test_escapes_lead_no_router_past_the_gate(make_gate: GateMaker, target: str) -> None:
    """aiohttp routes by the escaped path and hands out the decoded one, in absolute-form too."""

    async def static(request: web.Request) -> web.Response:
        return web.Response(text="public")

    async def page(request: web.Request) -> web.Response:
        return web.Response(text="private " + request.match_info["page"])

    app = web.Application(middlewares=[iam_auth(make_gate(public=["/static/*", "/healthz"]))])
    app.add_routes([web.get("/static/{rest}", static), web.get("/{page}", page)])
    with serve_aiohttp(app) as port:
        answer = exchange(port, target)
        assert b"private" not in answer
        assert answer.split()[1] in (b"400", b"401"), answer
        # The same form of a target is answered where there is nothing to confuse.
        assert exchange(port, "http://app.test/static/x").endswith(b"public")


@pytest.mark.parametrize(
    ("script_name", "path"),
    [("/static", "/admin"), ("/healthz", ""), ("/static/x", "/"), ("/static/", "admin")],
)
def test_a_script_name_that_a_client_chose(
    make_gate: GateMaker, script_name: str, path: str
) -> None:
    """gunicorn takes SCRIPT_NAME, and werkzeug's ProxyFix X-Forwarded-Prefix, from the request.

    What the app routes by is PATH_INFO alone.
    """
    inner: Any = Inner()
    app = wsgi.IamAuth(inner, gate=make_gate(public=["/static/*", "/healthz"]))
    assert call(app, path, SCRIPT_NAME=script_name)[0] == "401 Unauthorized"
    assert not inner.environ


async def asgi_status(gate: Gate, root_path: str, path: str) -> int:
    app = asgi.IamAuth(AsgiInner(), gate=gate)
    start = (await run(app, http_scope(path, root_path=root_path)))[0]
    assert isinstance(start["status"], int)
    return start["status"]


@pytest.mark.parametrize(
    ("root_path", "path"),
    [
        ("/static", "/static/admin"),
        ("/healthz", "/healthz"),
        ("/static/", "/static/admin"),
        ("/tool", "/tool/healthz"),
        ("/hea", "/healthz"),
    ],
)
async def test_a_root_path_that_a_client_chose(
    make_gate: GateMaker, root_path: str, path: str
) -> None:
    """Proxy-header middleware and mounts set it: routers read what is left of ``path``."""
    assert await asgi_status(make_gate(public=["/static/*", "/healthz"]), root_path, path) == 401


def test_a_public_path_below_a_mount_point_is_named_both_ways(make_gate: GateMaker) -> None:
    app = wsgi.IamAuth(Inner(), gate=make_gate(public=["/tool/healthz", "/healthz"]))
    assert call(app, "/healthz", SCRIPT_NAME="/tool")[0] == "204 No Content"


@pytest.mark.parametrize(
    ("root_path", "path"), [("/tool", "/tool/healthz"), ("/tool", "/healthz"), ("", "/healthz")]
)
async def test_the_same_of_an_asgi_app(make_gate: GateMaker, root_path: str, path: str) -> None:
    gate = make_gate(public=["/tool/healthz", "/healthz"])
    assert await asgi_status(gate, root_path, path) == 204
