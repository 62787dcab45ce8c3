"""What only the ASGI adapter does: scopes, WebSockets, lifespan, and its imports."""

from __future__ import annotations

import subprocess
import sys
import threading
from typing import Any

import pytest
import websockets.asyncio.client as websockets
from websockets.exceptions import InvalidStatus

from iam_auth_proxy.server import Gate, mount
from iam_auth_proxy.server.asgi import IamAuth, Message, Scope
from iam_auth_proxy.testing import signed_in
from tests.server.apps import fastapi_app, serve_asgi
from tests.server.conftest import ANN, FakeAws, GateMaker
from tests.server.originalproxy import Browser


async def run(app: Any, scope: Scope) -> list[Message]:
    """What the app sends."""
    sent: list[Message] = []

    async def receive() -> Message:
        return {"type": scope["type"] + ".startup", "body": b""}

    async def send(message: Message) -> None:
        sent.append(message)

    await app(scope, receive, send)
    return sent


def http_scope(path: str = "/", **more: Any) -> Scope:
    return {
        "type": "http", "method": "GET", "scheme": "http", "path": path, "query_string": b"",
        "headers": [(b"host", b"app.test")], "client": ("192.0.2.1", 1), **more,
    }  # fmt: skip


class Inner:
    """An app that remembers with which scope it was called."""

    def __init__(self) -> None:
        self.scope: Scope = {}

    async def __call__(self, scope: Scope, receive: Any, send: Any) -> None:
        self.scope = scope
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body", "body": b""})


async def test_a_bare_app(gate: Gate) -> None:
    inner = Inner()
    app = IamAuth(inner, gate=gate)
    start, body = await run(app, http_scope())
    assert start["status"] == 401
    assert (b"content-length", str(len(body["body"])).encode()) in start["headers"]
    assert not inner.scope
    cookie = signed_in(gate, ANN).encode()
    fields = [(b"host", b"app.test"), (b"cookie", cookie), (b"X_Remote_User", b"evil")]
    scope = http_scope(headers=fields, client=None)
    assert (await run(app, scope))[0]["status"] == 204
    assert inner.scope["iam_auth.identity"].arn == ANN
    assert inner.scope["iam_auth.session"].arn == ANN
    assert inner.scope["headers"] == fields[:2]
    assert scope["headers"] == fields, "the caller's scope is left alone"


async def test_a_public_path_has_nobody_whatever_the_scope_says(make_gate: GateMaker) -> None:
    inner = Inner()
    scope = http_scope("/healthz", **{"iam_auth.identity": "evil"})
    await run(IamAuth(inner, gate=make_gate(public=["/healthz"])), scope)
    assert inner.scope["iam_auth.identity"] is None
    assert inner.scope["iam_auth.session"] is None


@pytest.mark.parametrize("kind", ["lifespan", "something.new"])
async def test_other_scopes_pass_untouched(gate: Gate, kind: str) -> None:
    inner, scope = Inner(), {"type": kind}
    await run(IamAuth(inner, gate=gate), scope)
    assert inner.scope is scope


async def test_a_websocket_is_closed_where_the_server_cannot_answer(gate: Gate) -> None:
    scope = http_scope() | {"type": "websocket", "scheme": "ws"}
    assert await run(IamAuth(Inner(), gate=gate), scope) == [
        {"type": "websocket.close", "code": 1008}
    ]


async def test_a_websocket_needs_a_session_and_has_its_identity(gate: Gate) -> None:
    with serve_asgi(fastapi_app(gate)) as port:
        url = "ws://app.test/ws"
        with pytest.raises(InvalidStatus) as refused:
            await websockets.connect(url, host="127.0.0.1", port=port, proxy=None)
        assert refused.value.response.status_code == 401
        assert refused.value.response.headers["WWW-Authenticate"].startswith("IAM realm=")
        headers = {"Cookie": str(signed_in(gate, ANN))}
        async with websockets.connect(
            url, host="127.0.0.1", port=port, proxy=None, additional_headers=headers
        ) as socket:
            assert await socket.recv() == ANN
            await socket.send("hello")
            assert await socket.recv() == "hello"


def test_the_lifespan_of_the_app_runs(make_gate: GateMaker) -> None:
    with serve_asgi(fastapi_app(make_gate(public=["/healthz", "/public-me"]))) as port:
        assert Browser(port).get("/healthz").text == "ok None yes"
        assert Browser(port).get("/public-me").status == 401


async def test_an_app_with_a_path_of_the_gates_does_not_start(gate: Gate) -> None:
    app = fastapi_app(gate)
    app.add_api_route("/auth", lambda: "mine")
    (failed,) = await run(app, {"type": "lifespan", "state": {}, "app": app})
    assert failed["type"] == "lifespan.startup.failed"
    assert 'path="/iam-auth"' in failed["message"]
    start, _ = await run(app, http_scope("/healthz", app=app))
    assert start["status"] == 503


async def test_a_mount_or_a_router_counts_too(gate: Gate) -> None:
    from fastapi import APIRouter, FastAPI

    for how in ("mount", "router"):
        app = FastAPI()
        app.add_middleware(IamAuth, gate=gate)
        if how == "mount":
            app.mount("/auth", FastAPI())
        else:
            router = APIRouter(prefix="/auth")
            router.add_api_route("/logout", lambda: "mine", methods=["POST"])
            app.include_router(router, prefix="/other")
            app.include_router(router)
        (failed,) = await run(app, {"type": "lifespan", "state": {}, "app": app})
        assert failed["type"] == "lifespan.startup.failed", how


async def test_a_route_for_everything_is_no_conflict(gate: Gate) -> None:
    from fastapi import APIRouter, FastAPI

    app, router = FastAPI(), APIRouter()
    app.add_middleware(IamAuth, gate=gate)
    router.add_api_route("/{rest:path}", lambda rest: rest)
    app.include_router(router)
    app.add_api_route("/{rest}", lambda rest: rest)
    with serve_asgi(app) as port:
        browser = Browser(port)
        assert browser.get("/auth").status == 401
        cookie = signed_in(gate, ANN)
        browser.cookies[cookie.name] = cookie.value
        assert browser.get("/x").text == '"x"'


@pytest.mark.parametrize("module", ["asgi", "wsgi", "gate"])
def test_what_is_not_imported(module: str) -> None:
    """A web app that mounts the gate loads neither the proxy's libraries nor, yet, boto3."""
    code = (
        f"import sys; import iam_auth_proxy.server.{module}; "
        "print(sorted(set(sys.modules) & {'aiohttp', 'boto3', 'botocore', 'uvloop', 'httptools', "
        "'python_socks', 'click', 'jinja2', 'cryptography'}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


async def test_aws_that_takes_too_long_is_503(
    make_gate: GateMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    go_on = threading.Event()
    monkeypatch.setattr(mount, "DEADLINE", 0.05)

    class Slow(FakeAws):
        def _call(self, name: str) -> None:
            go_on.wait(10)

    slow = Slow()
    app = IamAuth(Inner(), gate=Gate(make_gate().settings, kms=slow, sts=slow))
    start, _ = await run(app, http_scope("/auth", query_string=b"token=QUFB&return_url=/"))
    go_on.set()
    assert start["status"] == 503
