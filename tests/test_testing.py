"""A visitor for the tests of apps."""

from __future__ import annotations

import pytest

from iam_auth_proxy.errors import Malformed
from iam_auth_proxy.names import parse_origin
from iam_auth_proxy.server import Gate
from iam_auth_proxy.server.facts import Allow, Reply, RequestFacts
from iam_auth_proxy.testing import signed_in

NOW = 1_800_000_000.0
ARNS = [
    "arn:aws:iam::111122223333:user/team/ann",
    "arn:aws:sts::111122223333:assumed-role/deploy/ann",
    "arn:aws:sts::111122223333:assumed-role/AWSReservedSSO_Admin_0123456789abcdef/ann@x.org",
]


def make(**values: object) -> Gate:
    given: dict[str, object] = {
        "kms_key": "arn:aws:kms:eu-west-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab",
        "secret_key": "N5yhfMZ6m0lTqR2cWv8sJp3XbKdGzUeA9o7iQ1tB4nE",
        "accounts": ["111122223333"],
        "origins": ["http://app.test", "https://app.test:8443"],
        "legacy": True,
    }
    return Gate(**(given | values))


def visit(gate: Gate, cookie: str, host: str = "app.test", scheme: str = "http") -> Allow | Reply:
    headers = (("host", host), ("cookie", cookie))
    return gate.check(RequestFacts("GET", scheme, "/", "", headers), NOW)


@pytest.mark.parametrize("arn", ARNS)
def test_signed_in(arn: str) -> None:
    gate = make()
    cookie = signed_in(gate, arn, now=NOW)
    answer = visit(gate, cookie)
    assert isinstance(answer, Allow)
    assert answer.identity is not None
    assert answer.identity.arn == arn
    assert cookie == f"{cookie.name}={cookie.value}"


def test_at_another_origin() -> None:
    gate = make()
    cookie = signed_in(gate, ARNS[0], origin="https://app.test:8443", now=NOW)
    assert cookie.name == "__Host-iam-auth-8443"
    assert isinstance(visit(gate, cookie, "app.test:8443", "https"), Allow)
    assert isinstance(visit(gate, cookie), Reply)
    assert signed_in(gate, ARNS[0], origin=parse_origin("http://app.test")).name == "iam-auth"


def test_the_rules_of_the_gate_hold() -> None:
    gate = make(allow=["user:bob"])
    answer = visit(gate, signed_in(gate, ARNS[0], now=NOW))
    assert isinstance(answer, Reply)
    assert answer.status == 403
    other = visit(make(accounts=["222222222222"]), signed_in(gate, ARNS[0], now=NOW))
    assert isinstance(other, Reply)
    assert other.status == 403


@pytest.mark.parametrize("arn", ["", "ann", "arn:aws:iam::111122223333:role/x"])
def test_what_is_nobody(arn: str) -> None:
    with pytest.raises(Malformed):
        signed_in(make(), arn)


@pytest.mark.parametrize(
    "arn", ["arn:aws:iam::111122223333:root", "arn:aws:sts::111122223333:federated-user/ann"]
)
def test_root_and_federated_may_be_tried_out(arn: str) -> None:
    gate = make(allow=["root", "federated"])
    assert isinstance(visit(gate, signed_in(gate, arn, now=NOW)), Allow)


def test_without_origins_one_has_to_be_said() -> None:
    environ = {
        "SECRET_KEY": "N5yhfMZ6m0lTqR2cWv8sJp3XbKdGzUeA9o7iQ1tB4nE",
        "KMS_KEY_ID": "alias/app",
    }
    gate = Gate.from_env(environ)
    with pytest.raises(ValueError, match="origin="):
        signed_in(gate, ARNS[0])
