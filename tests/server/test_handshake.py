"""WebSockets that a page opens: the app's own pages may, and no others."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import aiohttp
import pytest
from flask import Flask

from iam_auth_proxy.errors import ForeignPage
from iam_auth_proxy.names import parse_origin
from iam_auth_proxy.server import Gate
from iam_auth_proxy.server.facts import Allow, Reply
from iam_auth_proxy.server.handshake import check_page
from iam_auth_proxy.testing import signed_in
from tests.server.apps import aiohttp_app, fastapi_app, flask_app, serve_aiohttp, serve_asgi
from tests.server.conftest import ANN, KEY, NOW, ORIGIN, SECRET, FakeAws, GateMaker, fields, sign_in
from tests.server.conftest import request as asked

UPGRADE = {"connection": "Upgrade", "upgrade": "websocket", "sec-websocket-version": "13"}
OWN = ["http://app.test", "https://app.test", "http://app.test:8000", "http://[2001:db8::1]"]
FOREIGN = [
    "http://evil.app.test",  # the same site
    "http://app.test:9000",  # the same host
    "http://other.test",
    "http://app.test.evil.test",
    "http://app.test.",
    "http://app.test/",
    "http://app.test@evil.test",
    "http://evil.test#http://app.test",
    "ws://app.test",
    "app.test",
    "chrome-extension://abcdefgh",
    "null",
    "",
    "http://app.test, http://app.test",
    "http://äpp.test",
]


def opening(*origins: str, **how: Any) -> Any:
    headers = [*UPGRADE.items(), *(("origin", each) for each in origins)]
    return asked("/ws", headers=headers, **how)


@pytest.mark.parametrize("origin", [*OWN, "HTTP://App.test", "http://app.test:80"])
def test_the_apps_own_page(origin: str) -> None:
    check_page(opening(origin), [parse_origin(each) for each in OWN])


@pytest.mark.parametrize("origin", FOREIGN)
def test_another_page(origin: str) -> None:
    with pytest.raises(ForeignPage) as refused:
        check_page(opening(origin), [parse_origin(each) for each in OWN])
    assert (refused.value.status, refused.value.code) == (403, "foreign-page")
    assert "IAM_AUTH_ORIGINS" in refused.value.remedy


def test_a_page_that_says_it_twice() -> None:
    with pytest.raises(ForeignPage):
        check_page(opening(ORIGIN, ORIGIN), [parse_origin(ORIGIN)])


def test_a_program_says_nothing() -> None:
    check_page(opening(), [parse_origin(ORIGIN)])


def test_where_nobody_said_what_the_app_goes_by() -> None:
    check_page(opening("http://evil.test"), [])


def test_other_requests_are_the_apps_to_judge() -> None:
    """CORS and forms have rules of their own."""
    for fields_ in ({}, {"upgrade": "h2c"}, {"accept": "text/event-stream"}):
        headers = {"origin": "http://evil.test", **fields_}
        check_page(asked("/", headers=headers), [parse_origin(ORIGIN)])


@pytest.mark.parametrize(
    "sign",
    [
        {"upgrade": "websocket"},
        {"upgrade": "WebSocket"},
        {"upgrade": "h2c, websocket"},
        {"upgrade": "websocket/13"},
        {"sec-websocket-key": "dGhlIHNhbXBsZSBub25jZQ=="},  # a front end took Upgrade out
        {"sec-websocket-version": "13"},  # HTTP/2 has no Upgrade (RFC 8441)
        {},  # the server says so
    ],
)
def test_every_sign_of_a_websocket_counts(sign: dict[str, str]) -> None:
    facts = asked("/ws", headers={"origin": "http://evil.test", **sign})
    with pytest.raises(ForeignPage):
        check_page(replace(facts, socket=not sign), [parse_origin(ORIGIN)])


# -- the gate --------------------------------------------------------------------------------------


def refused(gate: Gate, facts: Any) -> None:
    answer = gate.check(facts, NOW)
    assert isinstance(answer, Reply)
    assert answer.status == 403
    assert fields(answer, "iam-auth-error") == ["foreign-page"]
    assert not fields(answer, "www-authenticate")
    assert b"Only this app's own pages may open a WebSocket here" in answer.body


def test_with_a_session_and_without(gate: Gate, aws: FakeAws) -> None:
    cookie = sign_in(aws, gate)
    calls = [*aws.calls]
    for given in (cookie, ""):
        for origin in FOREIGN:
            refused(gate, opening(origin, cookie=given))
    for origins in ((ORIGIN,), ()):
        answer = gate.check(opening(*origins, cookie=cookie), NOW)
        assert isinstance(answer, Allow)
        assert answer.identity is not None
        assert answer.identity.arn == ANN
    assert aws.calls == calls


def test_the_gates_own_paths_and_a_service_token_are_no_way_around(make_gate: GateMaker) -> None:
    gate = make_gate(token_audience="app", service_keys=[KEY])
    for path in ("/auth", "/auth/whoami", "/auth/logout"):
        refused(gate, replace(opening("http://evil.test"), path=path))
    token = (("x-auth-from", "2/service/job"), ("x-auth-token", "AAAA"))
    facts = opening("http://evil.test")
    refused(gate, replace(facts, headers=facts.headers + token))


def test_every_name_of_the_app_may(make_gate: GateMaker, aws: FakeAws) -> None:
    gate = make_gate(origins=[ORIGIN, "http://wiki.test"])
    cookie = sign_in(aws, gate)
    assert isinstance(gate.check(opening("http://wiki.test", cookie=cookie), NOW), Allow)


def test_on_a_public_path_another_pages_websocket_is_nobodys(
    make_gate: GateMaker, aws: FakeAws
) -> None:
    gate = make_gate(public=["/ws"])
    cookie = sign_in(aws, gate)
    assert gate.check(opening("http://evil.test", cookie=cookie), NOW) == Allow()
    answer = gate.check(opening(ORIGIN, cookie=cookie), NOW)
    assert isinstance(answer, Allow)
    assert answer.identity is not None


def test_the_originals_environment_alone(aws: FakeAws) -> None:
    """Without origins it is unknown what browsers call this app: front ends may rewrite Host."""
    environ = {"AWS_ACCOUNT_ID": "111122223333", "SECRET_KEY": SECRET, "KMS_KEY_ID": KEY}
    gate = Gate.from_env(environ, kms=aws, sts=aws)
    cookie = sign_in(aws, gate, host="127.0.0.1:5000")
    facts = opening("http://app.test", host="127.0.0.1:5000", cookie=cookie)
    assert isinstance(gate.check(facts, NOW), Allow)


# -- behind real servers ---------------------------------------------------------------------------


async def test_aiohttp(gate: Gate) -> None:
    with serve_aiohttp(aiohttp_app(gate)) as port:
        async with aiohttp.ClientSession() as client:
            await _served(client, port, str(signed_in(gate, ANN)))


async def test_asgi(gate: Gate) -> None:
    with serve_asgi(fastapi_app(gate)) as port:
        async with aiohttp.ClientSession() as client:
            await _served(client, port, str(signed_in(gate, ANN)))


async def _served(client: aiohttp.ClientSession, port: int, cookie: str) -> None:
    async def opened(**headers: str) -> str:
        headers |= {"Host": "app.test", "Cookie": cookie}
        async with client.ws_connect(f"ws://127.0.0.1:{port}/ws", headers=headers) as socket:
            return await socket.receive_str()

    assert await opened() == ANN
    assert await opened(Origin="http://app.test") == ANN
    for origin in ("http://evil.app.test", "http://app.test:81", "null"):
        with pytest.raises(aiohttp.WSServerHandshakeError) as error:
            await opened(Origin=origin)
        assert error.value.status == 403
        assert error.value.headers is not None
        assert error.value.headers["Iam-Auth-Error"] == "foreign-page"


def test_wsgi(gate: Gate) -> None:
    app: Flask = flask_app(gate)
    client = app.test_client(use_cookies=False)
    common = {"Host": "app.test", "Cookie": str(signed_in(gate, ANN)), "Upgrade": "websocket"}
    assert client.get("/", headers={**common, "Origin": ORIGIN}).text == ANN
    answer = client.get("/", headers={**common, "Origin": "http://evil.app.test"})
    assert (answer.status_code, answer.headers["Iam-Auth-Error"]) == (403, "foreign-page")
