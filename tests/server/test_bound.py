"""Bound sign-ins at the gate: what they come to, and each way in which they must not."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from iam_auth_proxy.errors import (
    AccessDenied,
    AwsError,
    AwsUnavailable,
    BadNonce,
    ClockSkew,
    KeyUnusable,
    LoginNeeded,
    Replayed,
    StoreUnavailable,
    WeakProof,
    WrongKey,
    WrongOrigin,
)
from iam_auth_proxy.names import parse_origin
from iam_auth_proxy.protocol.handoff import BoundHandoff, Handoff, parse_form
from iam_auth_proxy.protocol.proof import ProofKind
from iam_auth_proxy.server import Gate
from iam_auth_proxy.server.facts import Allow, Reply
from iam_auth_proxy.server.limits import SignInLimits
from iam_auth_proxy.server.replay import MemoryReplay, Stores
from tests.server.conftest import (
    ACCOUNT,
    ANN,
    KEY,
    NOW,
    ORIGIN,
    SECRET,
    UNSEEN_KEY,
    Dance,
    FakeAws,
    GateMaker,
    auth_target,
    challenge_of,
    cookie_of,
    fields,
    request,
    session_cookies,
    token,
)

SIGNED, SESSION = ProofKind.SIGNED_IDENTITY, ProofKind.SESSION_CREDENTIALS
OTHER_KEY = KEY[:-2] + "00"


@pytest.fixture
def gate(make_gate: GateMaker) -> Gate:
    """As in code: the signed identity, and no tokens in URLs."""
    return make_gate(legacy=None)


def reply(answer: object, status: int, code: str = "") -> Reply:
    """The answer, which must be this; a refusal says its code, and carries neither a challenge nor
    a cookie.
    """
    assert isinstance(answer, Reply), answer
    said = " ".join(fields(answer, "iam-auth-error"))
    assert (answer.status, said) == (status, code), answer
    assert fields(answer, "cache-control") == ["no-store"]
    if code:
        assert not fields(answer, "www-authenticate")
        assert not fields(answer, "set-cookie")
    return answer


# -- the challenge ---------------------------------------------------------------------------------


def test_the_challenge_is_the_originals_and_more(gate: Gate, aws: FakeAws) -> None:
    answer = reply(gate.check(request("/private"), NOW), 401)
    names = [name.lower() for name, _ in answer.headers]
    assert names.count("www-authenticate") == 1
    assert names[:3] == [
        "www-authenticate",
        "iam-auth-kms-key-id",
        "iam-auth-kms-encryption-context",
    ]
    assert fields(answer, "www-authenticate") == [f'IAM realm="{ACCOUNT}"']
    assert fields(answer, "iam-auth-proofs") == ["signed-identity"]
    (nonce,) = fields(answer, "iam-auth-nonce")
    assert fields(answer, "set-cookie") == [
        f"iam_auth_nonce={nonce}; Path=/; HttpOnly; SameSite=Lax; Max-Age=300"
    ]
    assert aws.calls == []


def test_every_challenge_has_a_nonce_of_its_own(gate: Gate) -> None:
    answers = [reply(gate.check(request(), NOW), 401) for _ in range(3)]
    assert len({fields(answer, "iam-auth-nonce")[0] for answer in answers}) == 3


def test_the_challenge_names_all_proofs_and_the_path(make_gate: GateMaker) -> None:
    gate = make_gate(proofs=["session-credentials", "signed-identity"], path="/iam")
    bound = challenge_of(reply(gate.check(request(), NOW), 401)).bound
    assert bound is not None
    assert (bound.proofs, bound.path) == ({SIGNED, SESSION}, "/iam")


def test_a_challenge_for_the_asking_never_reaches_the_app(gate: Gate, aws: FakeAws) -> None:
    for cookie in ("", cookie_of(Dance(aws, gate).sign_in())):
        answer = reply(gate.check(request("/auth", cookie=cookie), NOW), 401)
        assert challenge_of(answer).bound is not None


def test_without_origins_there_is_nothing_to_bind_to(aws: FakeAws) -> None:
    environ = {"AWS_ACCOUNT_ID": ACCOUNT, "SECRET_KEY": SECRET, "KMS_KEY_ID": KEY, "KMS_SALT": "x"}
    gate = Gate.from_env(environ, kms=aws, sts=aws)
    answer = reply(gate.check(request(host="any.test"), NOW), 401)
    assert challenge_of(answer).bound is None
    assert not fields(answer, "set-cookie")
    answer = reply(gate.check(request("/auth", method="POST", host="any.test"), NOW), 405)
    assert fields(answer, "allow") == ["GET"]


# -- signing in ------------------------------------------------------------------------------------


@pytest.mark.parametrize(("scheme", "host"), [("http", "app.test"), ("https", "app.test:8443")])
def test_a_signed_identity_becomes_a_session(
    make_gate: GateMaker, aws: FakeAws, scheme: str, host: str
) -> None:
    gate = make_gate(legacy=None, origins=[f"{scheme}://{host}"])
    answer = reply(Dance(aws, gate, scheme=scheme, host=host).sign_in(), 303)
    assert aws.calls == ["Decrypt", "SignedIdentity"]
    assert fields(answer, "location") == ["/private?x=1"]
    assert fields(answer, "referrer-policy") == ["no-referrer"]
    assert fields(answer, "iam-auth-expires-in") == ["43200"]
    (cookie,) = fields(answer, "set-cookie")
    assert cookie.split("; ")[1:4] == ["Path=/", "HttpOnly", "SameSite=Lax"]
    assert ("Secure" in cookie) is cookie.startswith("__Host-") is (scheme == "https")
    found = gate.check(request(host=host, scheme=scheme, cookie=cookie_of(answer)), NOW)
    assert isinstance(found, Allow)
    assert found.identity is not None
    assert found.identity.arn == ANN
    assert found.session is not None
    assert found.session.proof == "signed-identity"


def test_session_credentials_where_they_are_taken(make_gate: GateMaker, aws: FakeAws) -> None:
    gate = make_gate(legacy=None, proofs=["session-credentials"])
    answer = reply(Dance(aws, gate, kind=SESSION).sign_in(), 303)
    assert aws.calls == ["Decrypt", "GetCallerIdentity"]
    whoami = gate.check(request("/auth/whoami", cookie=cookie_of(answer)), NOW)
    assert json.loads(reply(whoami, 200).body)["proof"] == "session-credentials"


@pytest.mark.parametrize("salt", [None, "pepper"])
def test_one_decrypt_whatever_epoch_the_challenge_was_of(
    make_gate: GateMaker, aws: FakeAws, salt: str | None
) -> None:
    gate = make_gate(salt=salt)
    dance = Dance(aws, gate, now=NOW - NOW % 900 - 1)
    reply(gate.check(dance.post(), NOW - NOW % 900 + 299), 303)
    assert aws.calls == ["Decrypt", "SignedIdentity"]


def test_the_proxys_own_request_and_a_browsers_of_this_origin(gate: Gate, aws: FakeAws) -> None:
    own = {"origin": ORIGIN, "sec-fetch-site": "same-origin"}
    reply(gate.check(Dance(aws, gate).post(headers=own), NOW), 303)


def test_a_sign_in_replaces_the_session_that_was_there(gate: Gate, aws: FakeAws) -> None:
    """Whoever has the nonce's cookie asked for it; nobody else could have."""
    old = cookie_of(Dance(aws, gate).sign_in())
    bob = Dance(aws, gate, arn=f"arn:aws:iam::{ACCOUNT}:user/bob")
    answer = reply(gate.check(bob.post(cookie=f"{old}; {bob.cookie}"), NOW), 303)
    assert cookie_of(answer) != old
    found = gate.check(request(cookie=cookie_of(answer)), NOW)
    assert isinstance(found, Allow)
    assert found.identity is not None
    assert found.identity.name == "bob"


@pytest.mark.parametrize(
    "arn",
    [
        f"arn:aws:sts::{ACCOUNT}:assumed-role/deploy/anything",
        f"arn:aws:sts::{ACCOUNT}:assumed-role/AWSReservedSSO_Admin_0123456789abcdef/ann@x.org",
    ],
)
def test_roles_and_permission_sets(gate: Gate, aws: FakeAws, arn: str) -> None:
    reply(Dance(aws, gate, arn=arn).sign_in(), 303)


# -- what reaches no AWS ---------------------------------------------------------------------------

VECTORS = json.loads((Path(__file__).parents[1] / "vectors" / "bound_requests.json").read_text())


@pytest.mark.parametrize("case", VECTORS["refused"], ids=lambda case: case["why"])
def test_hostile_hand_overs_reach_no_aws(
    make_gate: GateMaker, aws: FakeAws, case: Mapping[str, Any]
) -> None:
    gate = make_gate(legacy=None, origins=[ORIGIN, "http://wiki.test", "https://app.test"])
    dance = Dance(aws, gate)
    good = dict(pair.split("=") for pair in dance.body().decode().split("&"))
    foreign = make_gate(legacy=None, secret_key=SECRET[::-1])
    last = "B" if dance.nonce[-2] == "A" else "A"
    names = {
        "token": good["token"],
        "nonce": dance.nonce,
        "other": Dance(aws, gate).nonce,
        "changed": dance.nonce[:-2] + last + dance.nonce[-1],
        "foreign": Dance(aws, foreign).nonce,
        "wiki": Dance(aws, gate, host="wiki.test").nonce,
        "secure": Dance(aws, gate, scheme="https").nonce,
        "old": Dance(aws, gate, now=NOW - 301).nonce,
        "future": Dance(aws, gate, now=NOW + 61).nonce,
        "pad": "x" * (32 << 10),
    }
    how = {key: case[key].format(**names) for key in ("cookie", "host") if key in case}
    facts = dance.post(case["body"].format(**names).encode() if "body" in case else None, **how)
    pairs = [pair for pair in facts.headers if pair[0] not in case.get("headers", {})]
    pairs += [pair for pair in case.get("headers", {}).items() if pair[1] is not None]
    pairs += [(name, value) for name, value in case.get("pairs", [])]
    answer = gate.check(_with(facts, headers=tuple(pairs), query=case.get("query", "")), NOW)
    reply(answer, case["status"], case["code"])
    assert aws.calls == []
    # What was refused cost the visitor nothing.
    reply(gate.check(dance.post(), NOW), 303)


def _with(facts: Any, **change: object) -> Any:
    from dataclasses import replace

    return replace(facts, **change)


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    body=st.one_of(
        st.binary(max_size=80), st.text("tokenurlc_p=&%e1.-A0", max_size=80).map(str.encode)
    ),
    headers=st.lists(
        st.tuples(
            st.sampled_from(["host", "cookie", "origin", "content-type", "sec-fetch-site"]),
            st.text(max_size=40),
        ),
        max_size=4,
    ),
)
def test_whatever_is_posted_is_answered(body: bytes, headers: list[tuple[str, str]]) -> None:
    aws = FakeAws()
    gate = Gate(
        kms_key=KEY, secret_key=SECRET, accounts=[ACCOUNT], origins=[ORIGIN], kms=aws, sts=aws
    )
    dance = Dance(aws, gate)
    for facts in (
        _with(request("/auth", method="POST", headers=headers), body=body),
        dance.post(body),
        dance.post(dance.body() + body),
    ):
        answer = gate.check(facts, NOW)
        assert isinstance(answer, Reply)
        assert answer.status in (303, 400, 403, 421)
    assert aws.calls in ([], ["Decrypt", "SignedIdentity"])  # an empty one appended changes nothing


def test_a_token_in_a_url_is_refused_clearly_where_legacy_is_off(
    make_gate: GateMaker, gate: Gate, aws: FakeAws
) -> None:
    target = auth_target(token(aws, make_gate(legacy=True), aws.credentials()))
    answer = reply(gate.check(request(target), NOW), 403, "weak-proof")
    assert b"pip install -U iam-auth-proxy" in answer.body
    reply(gate.check(request("/auth?token=x"), NOW), 400, "malformed")
    assert aws.calls == []


# -- what AWS is asked for, and refuses ------------------------------------------------------------


def test_a_challenge_that_another_site_relayed(make_gate: GateMaker, aws: FakeAws) -> None:
    """evil.test shows the victim app.test's challenge. The proxy binds what it makes to the origin
    that the victim asked for, in the context and in the signature.
    """
    gate = make_gate(legacy=None)
    reply(Dance(aws, gate, origin="http://evil.test").sign_in(), 403, "stale-token")
    # Even if the envelope were for app.test, the signature would not be.
    dance = Dance(aws, gate)
    dance.proof = aws.signed(dance.nonce, origin="http://evil.test").dumps()
    reply(dance.sign_in(), 403, "not-allowed")
    assert aws.calls == ["Decrypt", "Decrypt", "SignedIdentity"]


def test_two_apps_that_share_keys(make_gate: GateMaker, aws: FakeAws) -> None:
    """What was made for one cannot be posted to the other, be its ring the same."""
    app, wiki = make_gate(legacy=None), make_gate(legacy=None, origins=["http://wiki.test"])
    dance = Dance(aws, app)
    answer = wiki.check(dance.post(host="wiki.test"), NOW)
    reply(answer, 403, "wrong-origin")
    assert aws.calls == []


@pytest.mark.parametrize("swap", ["nonce", "proof", "key", "context"])
def test_an_envelope_of_another_sign_in(make_gate: GateMaker, aws: FakeAws, swap: str) -> None:
    gate = make_gate(legacy=None, proofs=[SIGNED, SESSION])
    dance, other = Dance(aws, gate), Dance(aws, gate)
    found = parse_form(dance.body())
    if swap == "nonce":
        body = dance.body().replace(dance.nonce.encode(), other.nonce.encode())
        facts = dance.post(body, cookie=other.cookie)
    elif swap == "proof":
        facts = dance.post(dance.body().replace(b"signed-identity", b"session-credentials"))
    elif swap == "key":
        dance.key = OTHER_KEY
        facts = dance.post()
    else:
        dance.context = {"salt": "other"}
        facts = dance.post()
    assert isinstance(found, BoundHandoff)
    reply(gate.check(facts, NOW), 403, "stale-token")
    assert aws.calls == ["Decrypt"]


def test_a_proof_of_another_kind_inside(make_gate: GateMaker, aws: FakeAws) -> None:
    """Its type is the context's."""
    gate = make_gate(legacy=None, proofs=[SIGNED, SESSION])
    inside = Dance(aws, gate, kind=SESSION)
    inside.proof = aws.signed(inside.nonce).dumps()
    reply(inside.sign_in(), 400, "malformed")
    outside = Dance(aws, gate, proof=aws.credentials().dumps())
    reply(outside.sign_in(), 400, "malformed")
    assert aws.calls == ["Decrypt", "Decrypt"]


@pytest.mark.parametrize("proof", [b"{}", b"\xff", b"[" * 5000, b'{"type":"signed-identity"}'])
def test_sealed_rubbish(gate: Gate, aws: FakeAws, proof: bytes) -> None:
    reply(Dance(aws, gate, proof=proof).sign_in(), 400, "malformed")
    assert aws.calls == ["Decrypt"]


@pytest.mark.parametrize("data_key", [b"", b"k" * 16, b"k" * 33])
def test_a_data_key_of_another_size(gate: Gate, aws: FakeAws, data_key: bytes) -> None:
    reply(Dance(aws, gate, data_key=data_key).sign_in(), 400, "malformed")


def test_the_answers_key_is_compared(gate: Gate, aws: FakeAws) -> None:
    aws.answers_with = OTHER_KEY
    reply(Dance(aws, gate).sign_in(), 403, "wrong-key")
    assert aws.calls == ["Decrypt"]


@pytest.mark.parametrize(
    ("arn", "code"),
    [
        (f"arn:aws:iam::{ACCOUNT}:root", "not-allowed"),
        (f"arn:aws:sts::{ACCOUNT}:federated-user/ann", "not-allowed"),
        ("arn:aws:iam::999999999999:user/ann", "wrong-account"),
        (f"arn:aws-cn:iam::{ACCOUNT}:user/ann", "wrong-account"),
        (f"arn:evil:iam::{ACCOUNT}:user/ann", "not-allowed"),
    ],
)
def test_who_may_not_come_in(gate: Gate, aws: FakeAws, arn: str, code: str) -> None:
    reply(Dance(aws, gate, arn=arn).sign_in(), 403, code)


def test_the_rules_of_the_app(make_gate: GateMaker, aws: FakeAws) -> None:
    gate = make_gate(legacy=None, allow=["user:bob"])
    reply(Dance(aws, gate).sign_in(), 403, "not-allowed")


@pytest.mark.parametrize("key", [KEY.replace("eu-west-1", "us-east-1")])
def test_the_region_is_that_of_the_servers_key(gate: Gate, aws: FakeAws, key: str) -> None:
    """A signature for another region's STS does not verify at ours."""
    dance = Dance(aws, gate)
    dance.proof = aws.signed(dance.nonce, key=key).dumps()
    reply(dance.sign_in(), 403, "not-allowed")


@pytest.mark.parametrize("off", [-301, 301])
def test_the_date_is_checked_by_our_own_clock(gate: Gate, aws: FakeAws, off: int) -> None:
    dance = Dance(aws, gate)
    dance.proof = aws.signed(dance.nonce, at=NOW + off).dumps()
    reply(dance.sign_in(), 403, "expired")
    assert aws.calls == ["Decrypt"]
    dance = Dance(aws, gate)
    dance.proof = aws.signed(dance.nonce, at=NOW + off // 301 * 300).dumps()
    reply(dance.sign_in(), 303)


# The three published ways past verifiers of signed identities (docs/security.md). Each needs the
# verifier to take something of the request from the caller; here there is nothing to take.


@pytest.mark.parametrize(
    "more",
    [
        {"url": "https://evil.test/"},
        {"host": "evil.test"},
        {"headers": {"Host": "evil.test"}},
        {"method": "POST"},
        {"action": "AssumeRoleWithWebIdentity"},
        {"body": "Action=GetSessionToken"},
        {"region": "us-east-1"},
        {"signed_headers": "host"},
        {"Access_Key_Id": "AKIAIOSFODNN7EXAMPLE"},
    ],
)
def test_a_proof_brings_nothing_but_its_own_fields(
    gate: Gate, aws: FakeAws, more: Mapping[str, object]
) -> None:
    """Vault's CVE-2020-16250 (its action, host and headers), aws-iam-authenticator's CVE-2022-2385
    (a name twice, in another case).
    """
    dance = Dance(aws, gate)
    value = json.loads(aws.signed(dance.nonce).dumps())
    dance.proof = json.dumps(value | more).encode()
    reply(dance.sign_in(), 400, "malformed")
    dance = Dance(aws, gate)
    twice = json.dumps(value)[:-1] + ',"date":"20270115T080000Z"}'
    dance.proof = twice.encode()
    reply(dance.sign_in(), 400, "malformed")
    assert aws.calls == ["Decrypt", "Decrypt"]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("access_key_id", "AKIAIOSFODNN7EXAMPLE&Action=GetSessionToken"),
        ("access_key_id", "AKIAIOSFODNN7EXAMPLE/20270115/us-east-1/sts/aws4_request"),
        ("session_token", "x&X-Amz-SignedHeaders=host"),
        ("session_token", "x y"),
        ("signature", "0" * 63 + "\n"),
        ("signature", "0" * 64 + "#"),
        ("date", "20270115T080000Z&Version=1"),
        ("date", "20270115T080000Z\n"),
    ],
)
def test_no_field_of_a_proof_becomes_another_parameter(
    gate: Gate, aws: FakeAws, name: str, value: str
) -> None:
    dance = Dance(aws, gate)
    dance.proof = json.dumps(json.loads(aws.signed(dance.nonce).dumps()) | {name: value}).encode()
    answer = dance.sign_in()
    assert answer.status in (400, 403)
    (sent,) = aws.requests or [None]
    if sent is not None:
        assert sent.target.count("Action=") == sent.target.count("SignedHeaders=") == 1
        assert " " not in sent.target


def test_the_binding_headers_are_among_the_signed_ones(gate: Gate, aws: FakeAws) -> None:
    """GHSA-wq26-3j2m-4hvv: headers that are sent and not signed bind nothing. STS is asked with our
    own origin and nonce, and with a list of signed headers that has both.
    """
    dance = Dance(aws, gate)
    reply(dance.sign_in(), 303)
    (sent,) = aws.requests
    assert sent.host == "sts.eu-west-1.amazonaws.com"
    assert dict(sent.headers)["x-iam-auth-origin"] == ORIGIN
    assert dict(sent.headers)["x-iam-auth-nonce"] == dance.nonce
    assert "X-Amz-SignedHeaders=host%3Bx-iam-auth-nonce%3Bx-iam-auth-origin&" in sent.target


# -- AWS failing is not a refusal ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kms", "status", "code"),
    [
        (WrongKey("IncorrectKeyException"), 403, "wrong-key"),
        (AccessDenied("AccessDeniedException", action="kms:Decrypt"), 503, "misconfigured"),
        (AccessDenied(UNSEEN_KEY, action="kms:Decrypt"), 403, "wrong-key"),
        (KeyUnusable("DisabledException"), 503, "misconfigured"),
        (LoginNeeded("no credentials"), 503, "misconfigured"),
        (AwsUnavailable("ThrottlingException"), 503, "aws-unavailable"),
    ],
)
def test_what_kms_answers(gate: Gate, aws: FakeAws, kms: Exception, status: int, code: str) -> None:
    aws.faults["Decrypt"] = kms
    answer = reply(Dance(aws, gate).sign_in(), status, code)
    assert bool(fields(answer, "retry-after")) is (code == "aws-unavailable")


@pytest.mark.parametrize(
    ("sts", "status", "code"),
    [
        (LoginNeeded("ExpiredToken"), 403, "expired"),
        (AwsError("SignatureDoesNotMatch"), 403, "not-allowed"),
        (ClockSkew("skewed"), 503, "misconfigured"),
        (AwsUnavailable("Throttling"), 503, "aws-unavailable"),
    ],
)
def test_what_sts_answers(gate: Gate, aws: FakeAws, sts: Exception, status: int, code: str) -> None:
    dance = Dance(aws, gate)
    aws.faults["SignedIdentity"] = sts
    answer = reply(dance.sign_in(), status, code)
    assert bool(fields(answer, "retry-after")) is (code == "aws-unavailable")
    # Nothing was spent: when AWS is there again, the same hand-over is good.
    del aws.faults["SignedIdentity"]
    reply(dance.sign_in(), 303)


# -- single use ------------------------------------------------------------------------------------


def test_a_nonce_works_once(gate: Gate, aws: FakeAws) -> None:
    dance = Dance(aws, gate)
    reply(dance.sign_in(), 303)
    calls = len(aws.calls)
    answer = reply(dance.sign_in(), 403, "replayed")
    assert b"Open the page: /private?x=1" in answer.body
    assert len(aws.calls) == calls, "a spent nonce is refused before AWS is asked"


def test_of_two_at_once_one_wins(make_gate: GateMaker, aws: FakeAws) -> None:
    """The nonce is spent by insert-if-absent after the proof held, not looked up before."""

    class Race(MemoryReplay):
        def seen(self, digest: bytes, now: float) -> bool:
            return False

    stores = Stores(Race(), Race(), MemoryReplay())
    gate = Gate(make_gate(legacy=None).settings, kms=aws, sts=aws, stores=stores)
    dance = Dance(aws, gate)
    reply(dance.sign_in(), 303)
    reply(dance.sign_in(), 403, "replayed")


def test_a_nonce_gets_to_aws_five_times(gate: Gate, aws: FakeAws) -> None:
    dance = Dance(aws, gate, context={"salt": "wrong"})
    for _ in range(5):
        reply(dance.sign_in(), 403, "stale-token")
    for context in ({"salt": "wrong"}, None):
        dance.context = context
        answer = reply(dance.sign_in(), 403, "bad-nonce")
        assert b"Open the page" in answer.body
    assert aws.calls == ["Decrypt"] * 5


def test_tries_at_once_are_counted_before_aws_is_asked(make_gate: GateMaker, aws: FakeAws) -> None:
    class Unaware(MemoryReplay):
        def seen(self, digest: bytes, now: float) -> bool:
            return False

    stores = Stores(MemoryReplay(), Unaware(), MemoryReplay())
    gate = Gate(make_gate(legacy=None).settings, kms=aws, sts=aws, stores=stores)
    dance = Dance(aws, gate, context={"salt": "wrong"})
    for _ in range(8):
        dance.sign_in()
    assert aws.calls == ["Decrypt"] * 5


def test_a_flood_is_told_to_wait_and_costs_little(make_gate: GateMaker, aws: FakeAws) -> None:
    limits = SignInLimits(client_burst=3, client_rate=0.1, global_burst=4, global_rate=0.1)
    gate = Gate(make_gate(legacy=None).settings, kms=aws, sts=aws, limits=limits)
    wrong = [Dance(aws, gate, context={"salt": "wrong"}) for _ in range(6)]
    codes = [" ".join(fields(dance.sign_in(), "iam-auth-error")) for dance in wrong]
    assert codes == ["stale-token"] * 3 + ["too-many-requests"] * 3
    # What has no good nonce takes nothing from anybody's allowance.
    for _ in range(5):
        reply(gate.check(wrong[0].post(cookie=""), NOW), 403, "bad-nonce")
    reply(gate.check(Dance(aws, gate).post(client="192.0.2.2"), NOW), 303)
    answer = gate.check(Dance(aws, gate).post(client="192.0.2.3"), NOW)
    assert fields(reply(answer, 429, "too-many-requests"), "retry-after") == ["10"]


@pytest.mark.parametrize("which", [0, 1])
def test_a_full_store_refuses(make_gate: GateMaker, aws: FakeAws, which: int) -> None:
    made = [MemoryReplay(), MemoryReplay(), MemoryReplay()]
    made[which] = MemoryReplay(limit=1)
    gate = Gate(make_gate(legacy=None).settings, kms=aws, sts=aws, stores=Stores(*made))
    reply(Dance(aws, gate).sign_in(), 303)
    answer = reply(Dance(aws, gate).sign_in(), 429, "too-many-requests")
    assert fields(answer, "retry-after") == ["60"]


class Broken(MemoryReplay):
    """A file that is locked, or whose disk is full."""

    def __init__(self, *methods: str) -> None:
        super().__init__()
        self.methods = methods

    def seen(self, digest: bytes, now: float) -> bool:
        return self._run("seen") or super().seen(digest, now)

    def spend(self, digest: bytes, until: float, now: float) -> bool:
        self._run("spend")
        return super().spend(digest, until, now)

    def _run(self, method: str) -> bool:
        if method in self.methods:
            raise StoreUnavailable("database is locked")
        return False


@pytest.mark.parametrize("which", [0, 1])
@pytest.mark.parametrize("method", ["seen", "spend"])
def test_a_store_that_fails_lets_nobody_in(
    make_gate: GateMaker,
    aws: FakeAws,
    which: int,
    method: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    made = [MemoryReplay(), MemoryReplay(), MemoryReplay()]
    made[which] = Broken(method)
    gate = Gate(make_gate(legacy=None).settings, kms=aws, sts=aws, stores=Stores(*made))
    answer = reply(Dance(aws, gate).sign_in(), 503, "store-unavailable")
    assert fields(answer, "retry-after") == ["5"]
    assert [r.levelname for r in caplog.records if "locked" in r.message] == ["ERROR"]


def test_where_nobody_knows_whether_a_session_ended(make_gate: GateMaker, aws: FakeAws) -> None:
    stores = Stores(MemoryReplay(), MemoryReplay(), Broken("seen"))
    in_force = make_gate(legacy=None, public=["/healthz"]).settings
    gate = Gate(in_force, kms=aws, sts=aws, stores=stores)
    cookie = cookie_of(Dance(aws, gate).sign_in())
    reply(gate.check(request(cookie=cookie), NOW), 503, "store-unavailable")
    assert gate.check(request("/healthz", cookie=cookie), NOW) == Allow()
    reply(gate.check(request(), NOW), 401)


# -- clocks ----------------------------------------------------------------------------------------


def test_a_nonce_lives_for_five_minutes(gate: Gate, aws: FakeAws) -> None:
    dance = Dance(aws, gate)
    facts = dance.post()
    reply(gate.check(facts, NOW + 301), 403, "expired")
    assert aws.calls == []
    reply(gate.check(facts, NOW + 300), 303)
    # The laptop of whoever captured it, or the server, may have its clock set back.
    reply(gate.check(facts, NOW - 30), 403, "replayed")
    reply(gate.check(facts, NOW + 86_400), 403, "expired")
    reply(Dance(aws, gate, now=NOW + 86_400).sign_in(), 303)
    # Its use was forgotten meanwhile. Then nobody knows that it is fresh, and that is a no.
    reply(gate.check(facts, NOW), 403, "bad-nonce")


def test_a_clock_that_jumps_ahead_and_back_stops_nobody_new(gate: Gate, aws: FakeAws) -> None:
    for now in (NOW, NOW + 86_400, NOW + 400):
        reply(Dance(aws, gate, now=now).sign_in(), 303)


@pytest.mark.parametrize("place", ["memory", "file"])
def test_a_clock_that_was_wrong_for_long_locks_nobody_out(
    make_gate: GateMaker, aws: FakeAws, tmp_path: Path, place: str
) -> None:
    """It forgot nonces of its own time, which say nothing about those of ours."""
    tmp_path.chmod(0o700)
    replay = f"file:{tmp_path}/replay.db" if place == "file" else place
    gate, year = make_gate(legacy=None, replay=replay), 365 * 86_400
    # AWS refuses whoever is a year ahead, so that tries are all that is spent.
    aws.faults["SignedIdentity"] = AwsError("SignatureDoesNotMatch")
    for now in (NOW + year, NOW + year + 400):
        reply(Dance(aws, gate, now=now).sign_in(), 403, "not-allowed")
    aws.faults.clear()
    reply(Dance(aws, gate, now=NOW).sign_in(), 403, "bad-nonce")
    reply(Dance(aws, gate, now=NOW + 100).sign_in(), 303)


@pytest.mark.parametrize("place", ["memory", "file"])
def test_a_logout_holds_whatever_the_clock_did_before(
    make_gate: GateMaker, aws: FakeAws, tmp_path: Path, place: str
) -> None:
    tmp_path.chmod(0o700)
    replay = f"file:{tmp_path}/replay.db" if place == "file" else place
    gate = make_gate(legacy=None, replay=replay)
    cookie = cookie_of(Dance(aws, gate).sign_in())
    for now in (NOW + 43_500, NOW + 2 * 43_500):  # the second forgets the first
        gate.revoke(f"another, {now}", now)
    headers = {"origin": ORIGIN}
    reply(
        gate.check(request("/auth/logout", method="POST", cookie=cookie, headers=headers), NOW), 200
    )
    reply(gate.check(request(cookie=cookie), NOW), 401)


# -- several workers -------------------------------------------------------------------------------


def test_workers_that_share_a_file(make_gate: GateMaker, aws: FakeAws, tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    one, two = (make_gate(legacy=None, replay=f"file:{tmp_path}/replay.db") for _ in range(2))
    dance = Dance(aws, one)
    facts = dance.post()
    cookie = cookie_of(reply(two.check(facts, NOW), 303))
    reply(one.check(facts, NOW), 403, "replayed")
    out = request("/auth/logout", method="POST", cookie=cookie, headers={"origin": ORIGIN})
    reply(one.check(out, NOW), 200)
    answer = reply(two.check(request(cookie=cookie), NOW), 401)
    assert "Max-Age=0" in session_cookies(answer)[0]
    wrong = Dance(aws, one, context={"salt": "wrong"})
    facts = wrong.post()
    codes = [fields(worker.check(facts, NOW), "iam-auth-error") for worker in (one, two) * 3]
    assert codes == [["stale-token"]] * 5 + [["bad-nonce"]]


def test_a_gate_that_is_closed_has_let_go_of_its_file(
    make_gate: GateMaker, aws: FakeAws, tmp_path: Path
) -> None:
    tmp_path.chmod(0o700)
    gate = make_gate(legacy=None, replay=f"file:{tmp_path}/replay.db")
    cookie = cookie_of(Dance(aws, gate).sign_in())
    files = {"replay.db", "replay.db-wal", "replay.db-shm"}
    assert {path.name for path in tmp_path.iterdir()} == files
    gate.close()
    assert {path.name for path in tmp_path.iterdir()} == {"replay.db"}  # SQLite tidied up
    assert isinstance(gate.check(request(cookie=cookie), NOW), Allow)


def test_an_operator_ends_a_session_by_the_id_in_the_log(
    make_gate: GateMaker, aws: FakeAws, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    tmp_path.chmod(0o700)
    one, two = (
        make_gate(legacy=None, replay=f"file:{tmp_path}/replay.db", idle="12h") for _ in range(2)
    )
    stolen, kept = (cookie_of(Dance(aws, one).sign_in()) for _ in range(2))
    ids = [line.rpartition(" session ")[2] for line in caplog.messages if "signed in" in line]
    caplog.clear()
    two.revoke(ids[0], NOW)
    assert caplog.messages == []
    for gate in (one, two):
        for now in (NOW, NOW + 43_000):
            reply(gate.check(request(cookie=stolen), now), 401)
            assert isinstance(gate.check(request(cookie=kept), now), Allow)


def test_an_operator_is_told_that_a_memory_is_of_one_process(
    make_gate: GateMaker, aws: FakeAws, caplog: pytest.LogCaptureFixture
) -> None:
    """From a shell it would end nothing. Whoever signs out himself is told nothing: his cookie
    goes, too.
    """
    caplog.set_level("WARNING")
    gate = make_gate(legacy=None)
    cookie = cookie_of(Dance(aws, gate).sign_in())
    caplog.clear()
    out = request("/auth/logout", method="POST", cookie=cookie, headers={"origin": ORIGIN})
    reply(gate.check(out, NOW), 200)
    assert caplog.messages == []
    gate.revoke("a1b2", NOW)
    (said,) = caplog.messages
    assert "'a1b2' is over in this process alone" in said
    assert "IAM_AUTH_REPLAY=file:PATH" in said


def test_another_workers_ring(make_gate: GateMaker, aws: FakeAws) -> None:
    """Workers that do not share the secret do not take each other's nonces."""
    one, two = make_gate(legacy=None), make_gate(legacy=None, secret_key=SECRET[::-1])
    reply(two.check(Dance(aws, one).post(), NOW), 403, "bad-nonce")


# -- for apps with a session mechanism of their own ------------------------------------------------


def test_accept_is_for_listed_origins_alone(make_gate: GateMaker, gate: Gate, aws: FakeAws) -> None:
    """Two apps share a secret, and one is handed what was sealed for the other."""
    dance = Dance(aws, make_gate(origins=["http://other.test"]), host="other.test")
    handoff, other = parse_form(dance.body()), parse_origin("http://other.test")
    with pytest.raises(WrongOrigin, match="is not among the origins"):
        gate.accept(handoff, NOW, origin=other, cookies=[dance.cookie])
    assert dance.gate.accept(handoff, NOW, origin=other, cookies=[dance.cookie]).arn == ANN


def test_accept(make_gate: GateMaker, gate: Gate, aws: FakeAws) -> None:
    dance, site = Dance(aws, gate), parse_origin(ORIGIN)
    handoff = parse_form(dance.body())
    for origin, cookies, error in (
        (None, [dance.cookie], WrongOrigin),
        (parse_origin("http://evil.test"), [dance.cookie], WrongOrigin),
        (site, [], BadNonce),
    ):
        with pytest.raises(error):
            gate.accept(handoff, NOW, origin=origin, cookies=cookies)
    assert gate.accept(handoff, NOW, origin=site, cookies=[dance.cookie]).arn == ANN
    with pytest.raises(Replayed):
        gate.accept(handoff, NOW, origin=site, cookies=[dance.cookie])
    with pytest.raises(WeakProof):
        gate.accept(Handoff(b"x", "/"), NOW)


def test_settings_in_force_are_all_of_them(make_gate: GateMaker) -> None:
    with pytest.raises(TypeError, match="replay= would not count"):
        Gate(make_gate().settings, replay="memory")
