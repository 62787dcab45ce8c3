"""Service tokens at the gate: which credentials count, what they cost, and what the app sees."""

from __future__ import annotations

import base64
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from iam_auth_proxy.errors import AwsUnavailable, NoCredentials
from iam_auth_proxy.protocol.identity import Kind
from iam_auth_proxy.protocol.service_token import Caller, CallerType, ServiceToken
from iam_auth_proxy.server import Gate
from iam_auth_proxy.server.facts import Allow, Answer, Reply, RequestFacts
from iam_auth_proxy.testing import signed_in
from iam_auth_proxy.tokens.issuer import Issuer
from tests.server.conftest import ANN, KEY, NOW, FakeAws, GateMaker, fields, request

SERVICES = KEY.replace("1234abcd", "aaaaaaaa")
USERS = KEY.replace("1234abcd", "bbbbbbbb")
SANDBOX = KEY.replace("1234abcd", "cccccccc")
TO = "app-production"
CI, ALICE = Caller("ci"), Caller("alice", CallerType.USER)
Make = Callable[..., ServiceToken]


@pytest.fixture
def gate(make_gate: GateMaker) -> Gate:
    return tokens_gate(make_gate)


def tokens_gate(make_gate: GateMaker, **values: object) -> Gate:
    given = {
        "token_audience": TO,
        "service_keys": [SERVICES],
        "user_keys": [USERS],
        "scoped_keys": {SANDBOX: "sandbox"},
        "public": ["/healthz"],
    }
    return make_gate(**(given | values))


@pytest.fixture
def make(aws: FakeAws) -> Make:
    def issue(caller: Caller = CI, key: str = "", to: str = TO, now: float = NOW) -> ServiceToken:
        key = key or (USERS if caller.type is CallerType.USER else SERVICES)
        return Issuer(aws, key, caller, to).issue(now)

    return issue


def basic(username: str, password: str) -> dict[str, str]:
    pair = base64.b64encode(f"{username}:{password}".encode()).decode()
    return {"authorization": f"Basic {pair}"}


def lower(headers: dict[str, str]) -> dict[str, str]:
    return {name.lower(): value for name, value in headers.items()}


def by_pair(token: ServiceToken) -> dict[str, str]:
    return lower(token.headers())


def asks(gate: Gate, headers: Any, path: str = "/", now: float = NOW, **how: Any) -> Answer:
    return gate.check(request(path, headers=headers, **how), now)


def refused(gate: Gate, headers: Any, path: str = "/", **how: Any) -> tuple[int, str]:
    """Status and code; and never a challenge."""
    answer = asks(gate, headers, path, **how)
    assert isinstance(answer, Reply)
    assert not fields(answer, "www-authenticate")
    assert not fields(answer, "set-cookie")
    return answer.status, fields(answer, "iam-auth-error")[0]


BAD = (403, "bad-token")


@pytest.mark.parametrize("carried", ["pair", "basic"])
@pytest.mark.parametrize("caller", [CI, ALICE], ids=str)
def test_a_token_lets_in_and_no_session_is_begun(
    gate: Gate, make: Make, aws: FakeAws, carried: str, caller: Caller
) -> None:
    token = make(caller)
    headers = by_pair(token) if carried == "pair" else {"authorization": token.basic()}
    answer = asks(gate, headers)
    assert isinstance(answer, Allow)
    assert answer.identity is not None
    assert answer.session is not None
    assert answer.identity.arn == f"kmsauth:{caller.type}/{caller.name}"
    assert answer.identity.kind is (Kind.SERVICE if caller is CI else Kind.TOKEN_USER)
    assert (answer.identity.name, answer.identity.account) == (caller.name, "")
    assert (answer.session.proof, answer.session.expires) == ("service-token", int(NOW) + 600)
    assert answer.set_cookies == ()
    assert aws.calls == ["Decrypt"]
    assert gate.check_offline(request(headers=headers), NOW) == answer
    assert aws.calls == ["Decrypt"]


def test_the_account_of_a_scoped_key(gate: Gate, make: Make) -> None:
    answer = asks(gate, by_pair(make(key=SANDBOX)))
    assert isinstance(answer, Allow)
    assert answer.identity is not None
    assert (answer.identity.account, answer.identity.arn) == (
        "sandbox",
        "kmsauth:sandbox/service/ci",
    )


def test_whoami(gate: Gate, make: Make) -> None:
    answer = asks(gate, by_pair(make()), "/auth/whoami")
    assert isinstance(answer, Reply)
    assert answer.status == 200
    assert b'"proof": "service-token"' in answer.body
    assert b'"name": "ci"' in answer.body


def test_an_operator_ends_a_token_by_the_id_in_the_log(
    make_gate: GateMaker, aws: FakeAws, make: Make, tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    """In every worker that shares the store, remembered or not; other tokens are left alone."""
    caplog.set_level(logging.INFO)
    tmp_path.chmod(0o700)
    replay = f"file:{tmp_path}/replay.db"
    one, two = (tokens_gate(make_gate, replay=replay) for _ in range(2))
    stolen, kept = make(), make(now=NOW - 1)
    assert isinstance(asks(one, by_pair(stolen)), Allow)
    (id,) = (line.rpartition(" session ")[2] for line in caplog.messages if " session " in line)
    assert id.startswith("token-")
    two.revoke(id, NOW)
    for gate in (one, two):
        assert refused(gate, by_pair(stolen)) == BAD
        assert refused(gate, by_pair(stolen), "/auth/whoami") == BAD
        assert isinstance(asks(gate, by_pair(kept)), Allow)


# -- which credentials count -----------------------------------------------------------------------


def test_what_is_present_must_hold(gate: Gate, make: Make) -> None:
    """No session, and no other token, makes up for a bad one."""
    good, bad = make(), make(to="other")
    cookie = signed_in(gate, ANN, now=NOW)
    assert refused(gate, by_pair(bad), cookie=cookie) == BAD
    assert refused(gate, by_pair(good) | {"authorization": bad.basic()}) == BAD
    # Basic comes first, and then nobody looks at the pair.
    assert isinstance(asks(gate, by_pair(bad) | {"authorization": good.basic()}), Allow)


def test_a_token_comes_before_a_session(gate: Gate, make: Make) -> None:
    answer = asks(gate, by_pair(make()), cookie=signed_in(gate, ANN, now=NOW))
    assert isinstance(answer, Allow)
    assert answer.identity is not None
    assert answer.identity.name == "ci"


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"x-auth-from": "2/service/ci"},
        {"x-auth-token": "AQICAHg="},
        basic("", "AQICAHg="),
        {"authorization": "Bearer x"},
    ],
)
def test_what_claims_nothing(gate: Gate, headers: dict[str, str]) -> None:
    answer = asks(gate, headers)
    assert isinstance(answer, Reply)
    assert answer.status == 401
    assert fields(answer, "www-authenticate")
    assert isinstance(asks(gate, headers, cookie=signed_in(gate, ANN, now=NOW)), Allow)


@pytest.mark.parametrize(
    "headers",
    [
        basic("2/service/ci", ""),
        basic("a/b", "AQICAHg="),
        basic("2/service/a/b", "AQICAHg="),
        basic("x/service/y", "AQICAHg="),
        basic("2/service/ci", "b'AQICAHg='"),
        {"authorization": "Basic"},
        {"authorization": "Basic ???"},
        {"x-auth-from": "", "x-auth-token": "AQICAHg="},
        {"x-auth-from": "2/service/ci", "x-auth-token": ""},
        {"x-auth-from": "2/service/\xe4", "x-auth-token": "AQICAHg="},
        [
            ("x-auth-from", "2/service/ci"),
            ("x-auth-from", "2/service/ci"),
            ("x-auth-token", "AA=="),
        ],
        [("authorization", "Basic MjphYg=="), ("authorization", "Bearer x")],
    ],
)
def test_what_cannot_be_read_costs_nothing(gate: Gate, aws: FakeAws, headers: Any) -> None:
    """In Confidant three of them were 500 for anybody."""
    assert refused(gate, headers) == BAD
    assert aws.calls == []


def test_bearer_beside_a_good_pair(gate: Gate, make: Make) -> None:
    answer = asks(gate, by_pair(make()) | {"authorization": "Bearer x"})
    assert isinstance(answer, Allow)
    assert not answer.hides("Authorization")


def test_a_sign_in_and_a_logout_are_not_for_tokens(gate: Gate, make: Make) -> None:
    bad = by_pair(make(to="other"))
    challenge = asks(gate, bad, "/auth")
    assert isinstance(challenge, Reply)
    assert challenge.status == 401
    out = asks(gate, bad | {"origin": "http://app.test"}, "/auth/logout", method="POST")
    assert isinstance(out, Reply)
    assert out.status == 200


def test_without_keys_nothing_is_looked_at(make_gate: GateMaker, make: Make) -> None:
    gate = make_gate()
    answer = asks(gate, by_pair(make()))
    assert isinstance(answer, Reply)
    assert answer.status == 401
    own = asks(gate, basic("user", "of the app"), cookie=signed_in(gate, ANN, now=NOW))
    assert isinstance(own, Allow)
    assert not own.hides("authorization")
    assert not own.hides("x-auth-token")


def test_a_foreign_host_is_told_nothing(gate: Gate, make: Make, aws: FakeAws) -> None:
    answer = asks(gate, by_pair(make()), host="evil.test")
    assert isinstance(answer, Reply)
    assert answer.status == 421
    assert aws.calls == []


# -- who may in ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rules", "who"),
    [
        ("service", ["ci", "sandboxed"]),
        ("service:ci", ["ci", "sandboxed"]),
        ("sandbox/service:ci", ["sandboxed"]),
        ("service:other", []),
        ("token-user:alice", ["alice"]),
        ("user:alice", []),
        ("user:ann", ["ann"]),
        ("user", ["ann"]),
        ("signed-identity:user:ann", ["ann"]),
        ("session-credentials:user:ann", []),
    ],
)
def test_rules(make_gate: GateMaker, make: Make, rules: str, who: list[str]) -> None:
    """A name in a token is nobody whom STS has named, even where both are called the same."""
    gate = tokens_gate(make_gate, allow=rules)
    callers = {
        "ci": asks(gate, by_pair(make())),
        "sandboxed": asks(gate, by_pair(make(key=SANDBOX))),
        "alice": asks(gate, by_pair(make(ALICE))),
        "ann": asks(gate, {}, cookie=signed_in(gate, ANN, now=NOW)),
    }
    assert [name for name, answer in callers.items() if isinstance(answer, Allow)] == who
    assert {a.status for a in callers.values() if isinstance(a, Reply)} <= {403}


def test_a_function_is_asked(make_gate: GateMaker, make: Make) -> None:
    gate = tokens_gate(make_gate, allow=lambda identity: identity.kind is Kind.SERVICE)
    assert isinstance(asks(gate, by_pair(make())), Allow)
    assert refused(gate, by_pair(make(ALICE))) == (403, "not-allowed")


# -- what the app sees -----------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/", "/healthz"])
def test_the_credentials_are_the_gates(gate: Gate, make: Make, path: str) -> None:
    token = make()
    for headers in ({"authorization": token.basic()}, by_pair(token), {"x-auth-from": "root"}):
        answer = asks(gate, headers, path, cookie=signed_in(gate, ANN, now=NOW))
        assert isinstance(answer, Allow)
        for name in ("X-Auth-From", "X_AUTH_TOKEN", "x_auth_from"):
            assert answer.hides(name)
        assert answer.hides("AUTHORIZATION") is ("authorization" in headers)


def test_a_public_path_asks_nothing_of_a_token(gate: Gate, make: Make, aws: FakeAws) -> None:
    answer = asks(gate, by_pair(make(to="other")), "/healthz")
    assert isinstance(answer, Allow)
    assert answer.identity is None
    assert aws.calls == []


def test_nor_does_the_app_see_it_there(gate: Gate, make: Make) -> None:
    """Without a session, too."""
    token = make()
    pair = asks(gate, by_pair(token), "/healthz")
    assert isinstance(pair, Allow)
    assert pair.hides("X-Auth-From")
    assert pair.hides("X_AUTH_TOKEN")
    by_basic = asks(gate, {"authorization": token.basic()}, "/healthz")
    assert isinstance(by_basic, Allow)
    assert by_basic.hides("Authorization")


# -- what it costs, and AWS away -------------------------------------------------------------------


def test_failures_are_limited_and_successes_are_not(gate: Gate, make: Make, aws: FakeAws) -> None:
    for n in range(100):
        assert isinstance(asks(gate, by_pair(make(Caller(f"s{n}")))), Allow)
    before = len(aws.calls)
    answers = [refused(gate, by_pair(make(to=f"other{n}"))) for n in range(40)]
    assert answers == [BAD] * 30 + [(429, "too-many-requests")] * 10
    assert len(aws.calls) - before <= 30 + 5 * 7
    # Another client is not held up, and neither is what is known.
    assert isinstance(asks(gate, by_pair(make()), client="192.0.2.9"), Allow)
    assert isinstance(asks(gate, by_pair(make(Caller("s1")))), Allow)


@pytest.mark.parametrize("of", ["Decrypt", "DescribeKey"])
def test_the_apps_own_fault_is_another_503(
    make_gate: GateMaker, make: Make, aws: FakeAws, of: str, caplog: pytest.LogCaptureFixture
) -> None:
    keys = {"service_keys": ["alias/services"]} if of == "DescribeKey" else {}
    aws.faults[of] = NoCredentials("none found")
    answer = asks(tokens_gate(make_gate, **keys), by_pair(make()))
    assert isinstance(answer, Reply)
    assert (answer.status, fields(answer, "iam-auth-error")) == (503, ["misconfigured"])
    assert fields(answer, "retry-after") == []
    assert "Give the app an AWS identity" in caplog.text


def test_aws_away_is_503(gate: Gate, make: Make, aws: FakeAws) -> None:
    token = by_pair(make())
    aws.faults["Decrypt"] = AwsUnavailable("throttled")
    for _ in range(40):
        answer = asks(gate, token)
        assert isinstance(answer, Reply)
        assert (answer.status, fields(answer, "iam-auth-error")) == (503, ["aws-unavailable"])
        assert fields(answer, "retry-after")
    aws.faults.clear()
    assert isinstance(asks(gate, token), Allow)


def test_the_log_names_the_field_and_the_answer_does_not(
    gate: Gate, make: Make, caplog: pytest.LogCaptureFixture
) -> None:
    token = make()
    with caplog.at_level(logging.INFO):
        answer = asks(gate, lower(token.headers()) | {"x-auth-from": "2/user/ci"})
        asks(gate, by_pair(token))
    assert isinstance(answer, Reply)
    assert "key: it is sealed under none of the 1 keys of users" in caplog.text
    assert "sealed" not in answer.body.decode()
    assert "2/service/ci at http://app.test" in caplog.text
    assert token.text not in caplog.text


@pytest.mark.parametrize("version", [1, 2])
def test_version_1_is_said_at_start(
    make_gate: GateMaker, make: Make, caplog: pytest.LogCaptureFixture, version: int
) -> None:
    gate = tokens_gate(make_gate, token_min_version=version)
    assert ("IAM_AUTH_TOKEN_MIN_VERSION=2" in caplog.text) is (version == 1)
    answer = asks(gate, by_pair(make(Caller("ci", version=1))))
    assert isinstance(answer, Allow) is (version == 1)
    if isinstance(answer, Allow):  # the same service, whatever the version
        assert answer.identity is not None
        assert answer.identity.arn == "kmsauth:service/ci"


def test_no_token_in_any_repr(gate: Gate, make: Make) -> None:
    token = make()
    assert token.text not in repr(gate._tokens.read(facts(by_pair(token))))


def facts(headers: dict[str, str]) -> RequestFacts:
    return request(headers=headers)
