"""What a client says of itself, by way of servers that check little, in logs and in limits."""

from __future__ import annotations

import logging

import pytest

from iam_auth_proxy.errors import AwsUnavailable
from iam_auth_proxy.names import parse_origin
from iam_auth_proxy.server import Gate
from iam_auth_proxy.server.asgi import IamAuth, Scope
from iam_auth_proxy.server.facts import Reply, is_identity_header
from iam_auth_proxy.server.front import Front
from iam_auth_proxy.server.limits import SignInLimits
from iam_auth_proxy.testing import signed_in
from tests.server.conftest import ANN, NOW, ORIGIN, FakeAws, GateMaker, auth_target, request, token
from tests.server.test_asgi import Inner, http_scope, run

ESCAPE = "\x1b[2J\x9b1m\u2028"


@pytest.mark.parametrize(
    ("method", "client"), [(f"G{ESCAPE}ET", "192.0.2.1"), ("GET", f"fe80::1%{ESCAPE}")]
)
def test_no_log_line_moves_a_terminal(
    make_gate: GateMaker,
    aws: FakeAws,
    method: str,
    client: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """wsgiref takes any method; uvicorn makes the peer of any X-Forwarded-For."""
    caplog.set_level(logging.INFO)
    gate = make_gate()
    gate.check(request("/x" + ESCAPE, method=method, client=client, host="evil.test"), NOW)
    target = auth_target(token(aws, gate, aws.credentials()))
    reply = gate.check(request(target, client=client), NOW)
    assert isinstance(reply, Reply)
    assert reply.status == 302
    assert "signed in" in caplog.text
    assert len(caplog.messages) >= 3
    for line in caplog.messages:
        assert line.isprintable()
        assert len(line) < 600


@pytest.mark.parametrize(
    ("client", "seen"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("2001:DB8::1", "2001:db8::1"),
        ("fe80::1%eth0", "fe80::1"),
        ("x" * 60_000, ""),
        ("testclient", ""),
        ("", ""),
    ],
)
def test_a_client_is_an_address_or_nobody(client: str, seen: str) -> None:
    front = Front((parse_origin(ORIGIN),), ())
    assert front.locate(request(client=client)).client == seen


def test_made_up_names_are_one_client(make_gate: GateMaker, aws: FakeAws) -> None:
    """Each would otherwise have a bucket of its own, and be kept in memory."""
    gate = make_gate(limits=SignInLimits(client_burst=2))
    target = "/auth?token=QUFB&return_url=/"
    answers = [gate.check(request(target, client=f"made-up-{n}"), NOW) for n in range(3)]
    assert [answer.status for answer in answers if isinstance(answer, Reply)] == [403, 403, 429]


@pytest.mark.parametrize(
    "name",
    ["Authuser", "X-Auth-User",
     "X_AUTHENTICATED_USERID", "X-Consumer-Username", "X-Forwarded-Login",
     "Impersonate-User", "X-Pomerium-Claim-Email", "x-remote-extra-scopes", "X-Proxy-User",
     "X-Auth-Request-Access-Token", "X-Vouch-IdP-Claims-Email", "X-Authentik-Entitlements"],
)  # fmt: skip
def test_what_other_front_ends_call_the_caller(name: str) -> None:
    assert is_identity_header(name)


@pytest.mark.parametrize(
    "name", ["Authorization", "User-Agent", "X-Forwarded-For", "X-Auth-Token", "X-Remote-Addr"]
)
def test_what_is_the_clients_own_to_say(name: str) -> None:
    assert not is_identity_header(name)


def test_what_aws_says_is_one_line_of_the_log(
    make_gate: GateMaker, aws: FakeAws, caplog: pytest.LogCaptureFixture
) -> None:
    gate = make_gate()
    aws.faults["Decrypt"] = AwsUnavailable("busy\n\x1b[2Jroot signed in")
    gate.check(request(auth_target(token(aws, gate, aws.credentials()))), NOW)
    assert all(line.isprintable() for line in caplog.messages)
    assert "root signed in" in caplog.text


async def test_a_scope_with_what_the_specification_asks_for_and_no_more(gate: Gate) -> None:
    """ASGI's optional keys may be missing, and headers are an iterable."""
    scope: Scope = {
        "type": "http", "method": "GET", "path": "/", "headers": iter([(b"host", b"app.test")]),
    }  # fmt: skip
    (start, _) = await run(IamAuth(Inner(), gate=gate), scope)
    assert start["status"] == 401


async def test_headers_that_can_be_read_once_reach_the_app(gate: Gate) -> None:
    inner = Inner()
    fields = [(b"host", b"app.test"), (b"cookie", str(signed_in(gate, ANN)).encode())]
    await run(IamAuth(inner, gate=gate), http_scope(headers=iter(fields)))
    assert inner.scope["headers"] == fields
