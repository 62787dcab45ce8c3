"""What a stop page says to whom."""

from __future__ import annotations

import json
import re

import pytest

from iam_auth_proxy.errors import AccessDenied, PathError
from iam_auth_proxy.names import Origin, parse_key_reference
from iam_auth_proxy.protocol.challenge import Challenge
from iam_auth_proxy.proxy.pages import explain
from iam_auth_proxy.relay import failures
from iam_auth_proxy.relay.origin import closed_early
from iam_auth_proxy.relay.response import bad_answer
from iam_auth_proxy.relay.shared import internal
from iam_auth_proxy.relay.via import Target, Via, parse_via

APP = Origin("http", "grafana.internal", 80)
TARGET = Target("grafana.internal", 80)


class Ssh:
    """A tunnel of the proxy's own."""

    name = "ssh://alice@bastion"
    remedy = "Run: ssh -v alice@bastion"

    async def open(self) -> tuple[str, int]:
        raise AssertionError

    async def said(self, since: float) -> str:
        raise AssertionError


def remedy(error: PathError, *, trusted: bool) -> str:
    reply = explain.stopped(error, APP, b"application/json", trusted)
    said = json.loads(reply.body)["remedy"]
    assert isinstance(said, str)
    return said


SOCKS = parse_via("127.0.0.1:1080")
OWN = Via("socks5h", "127.0.0.1", 0, tunnel=Ssh())
REFUSED = ConnectionRefusedError(111, "refused")


@pytest.mark.parametrize(
    "error",
    [
        failures.unreachable(TARGET.host_port, REFUSED),
        failures.unresolved(TARGET.host, None),
        failures.prohibited(TARGET, "127.0.0.1", "a loopback address"),
        failures.loops_back(TARGET),
        failures.no_route(TARGET.host, "bastion"),
        failures.tunnel_down(SOCKS, "refused the connection", "connection_refused", REFUSED),
        failures.closed_before_greeting(SOCKS, TARGET, REFUSED),
        failures.closed_without_answer(SOCKS, TARGET, REFUSED),
        failures.socks_refused(SOCKS, TARGET, "no", 5),
        failures.socks_refused(SOCKS, TARGET, "no", None),
        failures.http_refused(SOCKS, TARGET, 503),
        bad_answer("a field is malformed"),
        internal(ValueError("x"), "a test"),
        closed_early(APP, None),
        PathError("it broke off", error="connection_terminated"),
    ],
    ids=lambda error: str(error)[:40],
)
def test_a_path_that_fails_is_the_same_for_an_app_that_nobody_trusts_yet(error: PathError) -> None:
    assert remedy(error, trusted=False) == remedy(error, trusted=True) != ""


def test_a_policy_is_not_for_a_stranger() -> None:
    """It names the key that a person's own credentials may not use."""
    key = "arn:aws:kms:eu-west-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab"
    denied = AccessDenied("denied", action="kms:Encrypt", resource=key, remedy="Ask for it.")
    challenge = Challenge("111122223333", parse_key_reference(key), {})
    for accept in (b"text/html", b"application/json", b"text/plain"):
        told, kept = (
            explain.stopped(denied, Origin("http", "a", 80), accept, trusted, challenge).body
            for trusted in (True, False)
        )
        assert b"kms:Encrypt" in told
        assert b"kms:Encrypt" not in kept
        assert key.encode() not in kept


@pytest.mark.parametrize("status", [400, 401, 405, 407, 408, 414, 421, 431, 501, 503, 505])
def test_a_request_that_is_not_forwarded_says_what_to_do(status: int) -> None:
    """Each status of :meth:`relay.exchange.Steering.refused`."""
    happened, to_do = explain.refused(status, "It is wrong.").body.decode().splitlines()
    assert happened.endswith(": It is wrong.")
    assert re.fullmatch(r"  [A-Z].*\.   \[refused\]", to_do)


def test_a_stranger_is_not_told_what_is_the_persons_own() -> None:
    """Its scripts can read the page; this tunnel names a user, and ssh's words may name paths."""
    down = failures.tunnel_down(OWN, "is not up", "destination_unavailable", REFUSED)
    said = failures.as_said(OWN, failures.unreachable("a:1", REFUSED), "/home/alice/.ssh/id: no")
    for error in (down, said):
        assert "alice" in remedy(error, trusted=True)
        assert remedy(error, trusted=False) == ""
