"""The example's pages and endpoints, for a visitor who has a session."""

from __future__ import annotations

import hashlib
import re
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from iam_auth_proxy.server import Gate
from iam_auth_proxy.testing import signed_in
from server_example.app import PUBLIC, make_app

ANN = "arn:aws:iam::111122223333:user/ann"


@pytest.fixture
async def client() -> AsyncIterator[aiohttp.ClientSession]:
    """Signed in."""
    gate = Gate(
        kms_key="arn:aws:kms:eu-west-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab",
        secret_key="N5yhfMZ6m0lTqR2cWv8sJp3XbKdGzUeA9o7iQ1tB4nE",
        accounts=["111122223333"],
        origins=["http://app.test"],
        public=PUBLIC,
        legacy=True,
    )
    runner = web.AppRunner(make_app(gate), access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    headers = {"Host": "app.test", "Cookie": signed_in(gate, ANN)}
    base = f"http://127.0.0.1:{runner.addresses[0][1]}"
    async with aiohttp.ClientSession(
        base, headers=headers, cookie_jar=aiohttp.DummyCookieJar(), raise_for_status=False
    ) as session:
        yield session
    await runner.cleanup()


async def ask(
    client: aiohttp.ClientSession, method: str, target: str, **options: Any
) -> aiohttp.ClientResponse:
    """A response that has been read, so that its connection is free again."""
    response = await client.request(method, target, **options)
    await response.read()
    return response


async def test_who_you_are(client: aiohttp.ClientSession) -> None:
    answer = await ask(client, "GET", "/")
    page = await answer.text()
    assert f'<code id="arn">{ANN}</code>' in page
    assert "Hello, ann" in page
    assert '<form method="post" action="/auth/logout">' in page
    assert "script-src 'none'" in answer.headers["Content-Security-Policy"]
    for link in re.findall(r'href="([^"]+)"', page):
        assert (await ask(client, "GET", link)).status == 200, link


async def test_check(client: aiohttp.ClientSession) -> None:
    assert await (await ask(client, "GET", "/check")).text() == f"ok {ANN}\n"


@pytest.mark.parametrize("path", ["/", "/check", "/form", "/ws", "/socket", "/download"])
async def test_nobody_gets_in_without_a_session(client: aiohttp.ClientSession, path: str) -> None:
    assert (await ask(client, "GET", path, headers={"Cookie": ""})).status == 401


async def test_health_is_public(client: aiohttp.ClientSession) -> None:
    answer = await ask(client, "GET", "/healthz", headers={"Cookie": "", "Host": "10.0.0.1"})
    assert await answer.text() == "ok\n"


async def test_a_form(client: aiohttp.ClientSession) -> None:
    answer = await ask(
        client, "POST", "/form", data={"message": "hello"}, headers={"Accept": "text/html"}
    )
    assert "13 bytes received" in await answer.text()


async def test_a_body_of_any_size_and_type_is_counted(client: aiohttp.ClientSession) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(320):
            yield b"x" * 65536

    answer = await ask(client, "POST", "/form", data=pieces())
    size = 320 * 65536
    digest = hashlib.sha256(b"x" * size).hexdigest()
    assert await answer.text() == f"{size} bytes\nsha256 {digest}\n"
    assert (await (await ask(client, "POST", "/form")).text()).startswith("0 bytes\n")


@pytest.mark.parametrize(
    ("query", "size"),
    [
        ("", 1 << 20),
        ("?size=0", 0),
        ("?size=1", 1),
        ("?size=65537", 65537),
        ("?size=3MiB", 3 << 20),
    ],
)
async def test_a_download(client: aiohttp.ClientSession, query: str, size: int) -> None:
    answer = await ask(client, "GET", "/download" + query)
    assert answer.headers["Content-Length"] == str(size)
    assert len(await answer.read()) == size


async def test_a_chunked_download(client: aiohttp.ClientSession) -> None:
    answer = await ask(client, "GET", "/download?size=2MiB&chunked=1")
    assert "Content-Length" not in answer.headers
    assert len(await answer.read()) == 2 << 20


@pytest.mark.parametrize("size", ["-1", "x", "5GiB", "1e9", "٣", "9" * 13, ""])
async def test_a_size_that_is_none(client: aiohttp.ClientSession, size: str) -> None:
    assert (await ask(client, "GET", "/download", params={"size": size})).status == 400


async def test_a_websocket(client: aiohttp.ClientSession) -> None:
    async with client.ws_connect("/ws") as socket:
        assert await socket.receive_str() == f"hello {ANN}"
        await socket.send_str("a")
        assert await socket.receive_str() == "a"
        await socket.send_bytes(b"b")
        assert await socket.receive_bytes() == b"b"


async def test_the_page_that_opens_it_has_one_script_by_its_nonce(
    client: aiohttp.ClientSession,
) -> None:
    answers = [await ask(client, "GET", "/socket") for _ in range(2)]
    nonces = set()
    for answer in answers:
        (nonce,) = re.findall(r'<script nonce="([^"]+)">', await answer.text())
        assert f"script-src 'nonce-{nonce}'" in answer.headers["Content-Security-Policy"]
        nonces.add(nonce)
    assert len(nonces) == 2
