"""What a client says of itself, by way of servers that check little, in logs and in limits."""

from __future__ import annotations

import logging

import pytest

from iam_auth_proxy.names import parse_origin
from iam_auth_proxy.server.facts import Reply
from iam_auth_proxy.server.front import Front
from iam_auth_proxy.server.limits import SignInLimits
from tests.server.conftest import NOW, ORIGIN, FakeAws, GateMaker, auth_target, request, token

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
