"""What only the aiohttp adapter does: keys, WebSockets, the loop kept free, refusing to hide."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp
import pytest
from aiohttp import web

from iam_auth_proxy.server import Gate, mount
from iam_auth_proxy.server.aiohttp import IDENTITY, SESSION, iam_auth
from iam_auth_proxy.testing import signed_in
from tests.server.apps import aiohttp_app
from tests.server.conftest import ANN, FakeAws, GateMaker, auth_target


@asynccontextmanager
async def serving(app: web.Application) -> AsyncIterator[tuple[str, aiohttp.ClientSession]]:
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    base = f"http://127.0.0.1:{runner.addresses[0][1]}"
    headers = {"Host": "app.test"}
    jar = aiohttp.DummyCookieJar()
    async with aiohttp.ClientSession(base, headers=headers, cookie_jar=jar) as client:
        try:
            yield base, client
        finally:
            await runner.cleanup()


async def get(client: aiohttp.ClientSession, target: str, **headers: str) -> aiohttp.ClientResponse:
    """A response that has been read, so that its connection is free again."""
    response = await client.get(target, headers=headers)
    await response.read()
    return response


async def test_a_websocket_needs_a_session_and_has_its_identity(gate: Gate) -> None:
    async with serving(aiohttp_app(gate)) as (_, client):
        with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
            await client.ws_connect("/ws")
        assert refused.value.status == 401
        assert refused.value.headers is not None
        assert "WWW-Authenticate" in refused.value.headers
        headers = {"Cookie": signed_in(gate, ANN), "Remote-User": "evil"}
        async with client.ws_connect("/ws", headers=headers) as socket:
            assert await socket.receive_str() == ANN
            await socket.send_str("hello")
            assert await socket.receive_str() == "hello"


async def test_both_spellings_of_the_keys(gate: Gate) -> None:
    async def handler(request: web.Request) -> web.Response:
        assert request[IDENTITY] is request["iam"]
        assert request[SESSION] is request["iam_session"]
        assert "iam" in request
        assert "arn" not in request
        return web.Response(text=request[SESSION].arn)

    app = web.Application(middlewares=[iam_auth(gate)])
    app.router.add_get("/", handler)
    async with serving(app) as (_, client):
        answer = await get(client, "/", Cookie=signed_in(gate, ANN))
        assert await answer.text() == ANN


async def test_a_slow_aws_holds_nobody_else_up(make_gate: GateMaker, aws: FakeAws) -> None:
    entered, go_on = threading.Event(), threading.Event()

    class Slow(FakeAws):
        def _call(self, name: str) -> None:
            entered.set()
            assert go_on.wait(10)

    slow = Slow()
    gate = Gate(make_gate().settings, kms=slow, sts=slow)
    async with serving(aiohttp_app(gate)) as (_, client):
        sign_in = asyncio.create_task(get(client, auth_target("QUFB")))
        await asyncio.to_thread(entered.wait, 10)
        answer = await get(client, "/", Cookie=signed_in(gate, ANN))
        assert answer.status == 200
        assert (await get(client, "/")).status == 401
        assert not sign_in.done()
        go_on.set()
        assert (await sign_in).status == 403


async def test_aws_that_takes_too_long_is_503(
    make_gate: GateMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    go_on = threading.Event()
    monkeypatch.setattr(mount, "DEADLINE", 0.05)

    class Slow(FakeAws):
        def _call(self, name: str) -> None:
            go_on.wait(10)

    slow = Slow()
    async with serving(aiohttp_app(Gate(make_gate().settings, kms=slow, sts=slow))) as (_, client):
        answer = await get(client, auth_target("QUFB"))
        assert (answer.status, answer.headers["Iam-Auth-Error"]) == (503, "aws-unavailable")
        go_on.set()


async def mine(request: web.Request) -> web.Response:
    return web.Response(text="mine")


@pytest.mark.parametrize("path", ["/auth", "/auth/", "/auth/logout"])
async def test_an_app_with_a_path_of_the_gates_is_refused(
    gate: Gate, path: str, caplog: pytest.LogCaptureFixture
) -> None:
    app = aiohttp_app(gate)
    app.router.add_get(path, mine)
    async with serving(app) as (_, client):
        for target in ("/", path, "/healthz"):
            answer = await get(client, target)
            assert (answer.status, answer.headers["Iam-Auth-Error"]) == (503, "misconfigured")
            assert "path=" not in await answer.text()
    assert 'path="/iam-auth"' in caplog.text


async def test_mounted_elsewhere_it_hides_nothing(make_gate: GateMaker) -> None:
    gate = make_gate(path="/iam-auth")
    app = aiohttp_app(gate)
    app.router.add_get("/auth", mine)
    async with serving(app) as (_, client):
        answer = await get(client, "/auth", Cookie=signed_in(gate, ANN))
        assert await answer.text() == "mine"


async def test_garbage_is_never_500(gate: Gate) -> None:
    lines = [
        b"GET /auth?token=%FF&return_url=/ HTTP/1.1\r\nHost: app.test\r\n\r\n",
        b"GET /auth?\xff HTTP/1.1\r\nHost: app.test\r\n\r\n",
        b"GET / HTTP/1.0\r\n\r\n",
        b"GET http://evil.test/auth?x HTTP/1.1\r\nHost: app.test\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: app.test\r\nCookie: iam-auth=\xff\xfe; iam-auth\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: [::1\r\n\r\n",
        b"OPTIONS * HTTP/1.1\r\nHost: app.test\r\n\r\n",
        b"POST /auth/logout HTTP/1.1\r\nHost: app.test\r\nContent-Length: 0\r\n\r\n",
        b"GET /%ff%00 HTTP/1.1\r\nHost: app.test\r\nAccept: \xff\r\n\r\n",
    ]
    async with serving(aiohttp_app(gate)) as (base, _):
        port = int(base.rpartition(":")[2])
        for line in lines:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(line)
            status = int((await reader.readline()).split()[1])
            assert 400 <= status < 500, (line, status)
            writer.close()
            await writer.wait_closed()
