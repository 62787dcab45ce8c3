"""The gate's decisions: challenge, sign-in, session, logout, and each refusal."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from iam_auth_proxy.errors import (
    AccessDenied,
    AwsError,
    AwsUnavailable,
    ClockSkew,
    Expired,
    KeyUnusable,
    LoginNeeded,
    Malformed,
    NoCredentials,
    Refused,
    Replayed,
    WrongKey,
)
from iam_auth_proxy.names import parse_origin
from iam_auth_proxy.protocol.handoff import FORM_TYPE, Handoff
from iam_auth_proxy.protocol.strict import decode_base64
from iam_auth_proxy.server import Gate
from iam_auth_proxy.server.facts import Allow, Answer, Reply
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
    FakeAws,
    GateMaker,
    auth_target,
    challenge_of,
    cookie_of,
    fields,
    request,
    session_cookies,
    sign_in,
    token,
)

BOB = f"arn:aws:iam::{ACCOUNT}:user/bob"
OTHER_KEY = KEY[:-2] + "00"


def reply(answer: Answer, status: int, code: str = "") -> Reply:
    """The answer, which must be this; a refusal names its code and carries no challenge."""
    assert isinstance(answer, Reply), answer
    assert answer.status == status, (answer.status, answer.headers)
    if code:
        assert fields(answer, "iam-auth-error") == [code]
        assert not fields(answer, "www-authenticate")
    assert fields(answer, "cache-control") == ["no-store"]
    return answer


def allowed(answer: Answer) -> Allow:
    assert isinstance(answer, Allow), answer
    return answer


# -- the challenge ---------------------------------------------------------------------------------


def test_nobody_is_challenged_as_the_seed_does(gate: Gate, aws: FakeAws) -> None:
    answer = reply(gate.check(request("/private"), NOW), 401)
    assert fields(answer, "www-authenticate") == [f'IAM realm="{ACCOUNT}"']
    assert fields(answer, "iam-auth-kms-key-id") == [KEY]
    (context,) = fields(answer, "iam-auth-kms-encryption-context")
    assert list(json.loads(decode_base64(context, "context"))) == ["salt"]
    assert aws.calls == []


def test_the_salt_rotates_by_the_clock_and_is_the_same_for_every_worker(
    make_gate: GateMaker,
) -> None:
    def salt(gate: Gate, now: float) -> str:
        return challenge_of(reply(gate.check(request(), now), 401)).context["salt"]

    one, two = make_gate(), make_gate()
    assert salt(one, NOW) == salt(two, NOW + 1)
    assert salt(one, NOW) != salt(one, NOW + 900)
    assert salt(one, NOW) != salt(make_gate(secret_key=SECRET[::-1]), NOW)


def test_a_fixed_salt_stays(make_gate: GateMaker, aws: FakeAws) -> None:
    gate = make_gate(salt="pepper")
    sealed = token(aws, gate, aws.credentials(expires=NOW + 3000))
    assert challenge_of(reply(gate.check(request(), NOW), 401)).context == {"salt": "pepper"}
    reply(gate.check(request(auth_target(sealed)), NOW + 2700), 302)
    assert aws.calls.count("Decrypt") == 1


@pytest.mark.parametrize("key", ["alias/app", "1234abcd-12ab-34cd-56ef-1234567890ab"])
def test_a_key_that_is_no_arn_is_looked_up_once(
    make_gate: GateMaker, aws: FakeAws, key: str
) -> None:
    gate = make_gate(kms_key=key)
    assert gate.check_offline(request(), NOW) is None
    assert str(challenge_of(reply(gate.check(request(), NOW), 401)).key) == KEY
    assert gate.check_offline(request(), NOW) is not None
    assert aws.calls == ["DescribeKey"]


def test_without_accounts_it_is_the_servers_own(make_gate: GateMaker, aws: FakeAws) -> None:
    gate = make_gate(accounts=None)
    assert challenge_of(reply(gate.check(request(), NOW), 401)).realm == ACCOUNT
    assert aws.calls == ["GetCallerIdentity"]


@pytest.mark.parametrize(
    ("error", "code", "todo"),
    [
        (AccessDenied("denied", action="kms:DescribeKey"), "misconfigured", "kms:DescribeKey"),
        (LoginNeeded("expired", remedy="Run: aws x"), "misconfigured", "Run: aws x"),
        (NoCredentials("none"), "misconfigured", "Give the app an AWS identity"),
        (KeyUnusable("NotFoundException"), "misconfigured", "AWS_REGION"),
        (AwsUnavailable("throttled"), "aws-unavailable", "did not answer"),
    ],
)
def test_a_key_that_cannot_be_looked_up_is_503_and_asked_for_sparingly(
    make_gate: GateMaker,
    aws: FakeAws,
    error: Exception,
    code: str,
    todo: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    gate = make_gate(kms_key="alias/app")
    aws.faults["DescribeKey"] = error
    for _ in range(5):
        answer = reply(gate.check(request(), NOW), 503, code)
        # Waiting mends an outage, and nothing else.
        assert fields(answer, "retry-after") == (["5"] if code == "aws-unavailable" else [])
        assert (b"Try again" in answer.body) is (code == "aws-unavailable")
    assert aws.calls == ["DescribeKey"]
    (said,) = [record.getMessage() for record in caplog.records if record.levelname == "ERROR"]
    assert said.startswith("the key alias/app cannot be looked up")
    assert todo in said
    del aws.faults["DescribeKey"]
    reply(gate.check(request(), NOW + 6), 401)


def test_head_has_no_body(gate: Gate) -> None:
    assert reply(gate.check(request(method="HEAD"), NOW), 401).body == b""


# -- signing in ------------------------------------------------------------------------------------


def test_a_token_becomes_a_session(gate: Gate, aws: FakeAws) -> None:
    target = auth_target(token(aws, gate, aws.credentials()), "/private?x=1&y=%2F")
    answer = reply(gate.check(request(target), NOW), 302)
    assert fields(answer, "location") == ["/private?x=1&y=%2F"]
    assert fields(answer, "referrer-policy") == ["no-referrer"]
    (cookie,) = fields(answer, "set-cookie")
    assert cookie.startswith("iam-auth=")
    assert cookie.split("; ")[1:] == ["Path=/", "HttpOnly", "SameSite=Lax"]
    assert aws.calls == ["Decrypt", "GetCallerIdentity"]

    identity = allowed(gate.check(request("/private", cookie=cookie_of(answer)), NOW + 1)).identity
    assert identity is not None
    assert (identity.arn, identity.account, identity.name) == (ANN, ACCOUNT, "ann")
    assert aws.calls == ["Decrypt", "GetCallerIdentity"]


def test_the_epoch_before_still_opens_and_the_one_before_that_does_not(
    gate: Gate, aws: FakeAws
) -> None:
    sealed = token(aws, gate, aws.credentials(expires=NOW + 3600))
    reply(gate.check(request(auth_target(sealed)), NOW + 900), 302)
    assert aws.calls.count("Decrypt") == 2
    older = token(aws, gate, aws.credentials(expires=NOW + 3600))
    reply(gate.check(request(auth_target(older)), NOW + 1800), 403, "stale-token")
    assert aws.calls.count("Decrypt") == 4


def test_a_token_works_once(gate: Gate, aws: FakeAws) -> None:
    target = auth_target(token(aws, gate, aws.credentials()))
    reply(gate.check(request(target), NOW), 302)
    calls = len(aws.calls)
    again = reply(gate.check(request(target), NOW + 800), 403, "replayed")
    assert b"Open the page: /private?x=1" in again.body
    assert len(aws.calls) == calls, "a spent token is refused before AWS is asked"
    reply(gate.check(request(target), NOW + 899), 403, "replayed")
    reply(gate.check(request(target), NOW + 900), 403, "expired")


def test_of_two_at_once_one_wins(make_gate: GateMaker, aws: FakeAws) -> None:
    """The digest is spent by insert-if-absent after the proof held, not looked up before."""

    class Race(MemoryReplay):
        def seen(self, digest: bytes, now: float) -> bool:
            return False

    stores = Stores(Race(), MemoryReplay(), MemoryReplay())
    gate = Gate(make_gate().settings, kms=aws, sts=aws, stores=stores)
    target = auth_target(token(aws, gate, aws.credentials()))
    reply(gate.check(request(target), NOW), 302)
    reply(gate.check(request(target), NOW), 403, "replayed")


def test_a_refused_token_is_not_spent(make_gate: GateMaker, aws: FakeAws) -> None:
    gate = make_gate()
    target = auth_target(token(aws, gate, aws.credentials()))
    aws.faults["GetCallerIdentity"] = AwsUnavailable("timeout")
    reply(gate.check(request(target), NOW), 503, "aws-unavailable")
    del aws.faults["GetCallerIdentity"]
    reply(gate.check(request(target), NOW), 302)


def test_a_full_replay_store_refuses(make_gate: GateMaker, aws: FakeAws) -> None:
    stores = Stores(MemoryReplay(limit=1), MemoryReplay(), MemoryReplay())
    gate = Gate(make_gate().settings, kms=aws, sts=aws, stores=stores)
    sign_in(aws, gate)
    target = auth_target(token(aws, gate, aws.credentials(BOB)))
    answer = reply(gate.check(request(target), NOW), 429, "too-many-requests")
    assert fields(answer, "retry-after") == ["60"]


def test_a_valid_session_of_another_is_never_replaced(gate: Gate, aws: FakeAws) -> None:
    cookie = sign_in(aws, gate)
    target = auth_target(token(aws, gate, aws.credentials(BOB)))
    answer = reply(gate.check(request(target, cookie=cookie), NOW), 403, "not-allowed")
    assert not fields(answer, "set-cookie")
    # The token was not spent by that: who signs out first may use it.
    reply(gate.check(request(target), NOW), 302)


def test_who_was_deleted_and_made_again_is_another(gate: Gate, aws: FakeAws) -> None:
    """The same name, and another UserId."""
    cookie = sign_in(aws, gate)
    again = aws.credentials(user_id="AIDAZZZZZZZZZZZZZZZZZ")
    answer = gate.check(request(auth_target(token(aws, gate, again)), cookie=cookie), NOW)
    assert b"signed in here as somebody else" in reply(answer, 403, "not-allowed").body


def test_with_a_session_of_the_same_one_it_only_redirects(gate: Gate, aws: FakeAws) -> None:
    target = auth_target(token(aws, gate, aws.credentials()))
    cookie = cookie_of(reply(gate.check(request(target), NOW), 302))
    again = reply(gate.check(request(target, cookie=cookie), NOW + 5), 302)
    assert fields(again, "location") == ["/private?x=1"]
    assert not fields(again, "set-cookie")


# -- refusals of a sign-in -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arn", "code"),
    [
        (f"arn:aws:iam::{ACCOUNT}:root", "not-allowed"),
        (f"arn:aws:sts::{ACCOUNT}:federated-user/ann", "not-allowed"),
        ("arn:aws:iam::999999999999:user/ann", "wrong-account"),
        (f"arn:aws-cn:iam::{ACCOUNT}:user/ann", "wrong-account"),
        (f"arn:aws:iam::{ACCOUNT}:instance-profile/x", "not-allowed"),
        (f"arn:evil:iam::{ACCOUNT}:user/ann", "not-allowed"),
    ],
)
def test_who_may_not_come_in(gate: Gate, aws: FakeAws, arn: str, code: str) -> None:
    target = auth_target(token(aws, gate, aws.credentials(arn)))
    answer = reply(gate.check(request(target), NOW), 403, code)
    assert not fields(answer, "set-cookie")


def test_the_account_is_the_arns_own(gate: Gate, aws: FakeAws) -> None:
    """An answer whose Account and Arn differ is nobody's."""
    credentials = aws.credentials("arn:aws:iam::999999999999:user/ann", account=ACCOUNT)
    target = auth_target(token(aws, gate, credentials))
    reply(gate.check(request(target), NOW), 403, "not-allowed")


@pytest.mark.parametrize(
    ("kms", "status", "code"),
    [
        (WrongKey("IncorrectKeyException"), 403, "wrong-key"),
        (AccessDenied("AccessDeniedException", action="kms:Decrypt"), 503, "misconfigured"),
        (AccessDenied(UNSEEN_KEY, action="kms:Decrypt"), 403, "wrong-key"),
        (KeyUnusable("DisabledException"), 503, "misconfigured"),
        (LoginNeeded("no credentials"), 503, "misconfigured"),
        (ClockSkew("skewed", seconds=600), 503, "misconfigured"),
        (AwsUnavailable("ThrottlingException"), 503, "aws-unavailable"),
    ],
)
def test_what_kms_answers(gate: Gate, aws: FakeAws, kms: Exception, status: int, code: str) -> None:
    target = auth_target(token(aws, gate, aws.credentials()))
    aws.faults["Decrypt"] = kms
    answer = reply(gate.check(request(target), NOW), status, code)
    assert bool(fields(answer, "retry-after")) is (code == "aws-unavailable")


@pytest.mark.parametrize(
    ("sts", "status", "code"),
    [
        (LoginNeeded("InvalidClientTokenId"), 403, "expired"),
        (AwsError("SignatureDoesNotMatch"), 403, "not-allowed"),
        (ClockSkew("skewed"), 503, "misconfigured"),
        (AwsUnavailable("Throttling"), 503, "aws-unavailable"),
    ],
)
def test_what_sts_answers(gate: Gate, aws: FakeAws, sts: Exception, status: int, code: str) -> None:
    target = auth_target(token(aws, gate, aws.credentials()))
    aws.faults["GetCallerIdentity"] = sts
    reply(gate.check(request(target), NOW), status, code)


def test_a_token_under_another_key(gate: Gate, aws: FakeAws) -> None:
    target = auth_target(token(aws, gate, aws.credentials(), key=OTHER_KEY))
    reply(gate.check(request(target), NOW), 403, "stale-token")


def test_the_answers_key_is_compared(gate: Gate, aws: FakeAws) -> None:
    aws.answers_with = OTHER_KEY
    target = auth_target(token(aws, gate, aws.credentials()))
    reply(gate.check(request(target), NOW), 403, "wrong-key")


@pytest.mark.parametrize("expires", [NOW - 1, NOW])
def test_expired_credentials(gate: Gate, aws: FakeAws, expires: float) -> None:
    target = auth_target(token(aws, gate, aws.credentials(expires=expires)))
    reply(gate.check(request(target), NOW), 403, "expired")
    assert "GetCallerIdentity" not in aws.calls


def test_credentials_that_live_too_long(gate: Gate, aws: FakeAws) -> None:
    target = auth_target(token(aws, gate, aws.credentials(expires=NOW + 7200)))
    reply(gate.check(request(target), NOW), 403, "weak-proof")


@pytest.mark.parametrize("plaintext", [b"", b"{}", b"\xff", b'{"AccessKeyId":"AKIA"}', b"[" * 5000])
def test_sealed_rubbish(gate: Gate, aws: FakeAws, plaintext: bytes) -> None:
    target = auth_target(token(aws, gate, aws.credentials(), plaintext=plaintext))
    answer = gate.check(request(target), NOW)
    assert isinstance(answer, Reply)
    assert answer.status in (400, 403)
    assert "GetCallerIdentity" not in aws.calls


VECTORS = json.loads((Path(__file__).parents[1] / "vectors" / "auth_requests.json").read_text())


@pytest.mark.parametrize("case", VECTORS["refused"], ids=lambda case: case["why"])
def test_hostile_auth_requests_reach_no_aws(
    make_gate: GateMaker, aws: FakeAws, case: dict[str, object]
) -> None:
    gate = make_gate(kms_key="alias/app")  # even this would have to be asked for
    query = str(case["query"]).replace("{long}", "A" * 40_000)
    facts = request("/auth?" + query, method=str(case.get("method", "GET")))
    answer = gate.check(facts, NOW)
    assert isinstance(answer, Reply)
    assert answer.status == case["status"]
    assert not fields(answer, "location")
    assert not fields(answer, "set-cookie")
    assert aws.calls == []


@pytest.mark.parametrize("case", VECTORS["accepted"], ids=lambda case: case["why"])
def test_auth_requests_of_real_proxies(gate: Gate, aws: FakeAws, case: dict[str, str]) -> None:
    reply(gate.check(request("/auth?" + case["query"]), NOW), 403, "stale-token")
    assert aws.calls == ["Decrypt", "Decrypt"]


def test_an_empty_auth_is_a_challenge(gate: Gate, aws: FakeAws) -> None:
    cookie = sign_in(aws, gate)
    for sent in ("", cookie):
        challenge_of(reply(gate.check(request("/auth", cookie=sent), NOW), 401))


@pytest.mark.parametrize("method", ["HEAD", "PUT", "OPTIONS"])
def test_auth_takes_get_and_post(gate: Gate, method: str) -> None:
    answer = reply(gate.check(request("/auth?token=QQ==&return_url=/", method=method), NOW), 405)
    assert fields(answer, "allow") == ["GET, POST"]


def test_a_token_is_not_taken_by_post(gate: Gate, aws: FakeAws) -> None:
    target = auth_target(token(aws, gate, aws.credentials()))
    for headers in ({}, {"content-type": FORM_TYPE}):
        answer = gate.check(request(target, method="POST", headers=headers), NOW)
        reply(answer, 400, "malformed")
    assert aws.calls == []


@settings(max_examples=150)
@given(
    target=st.text(max_size=60),
    method=st.sampled_from(["GET", "POST", "HEAD", "X"]),
    headers=st.lists(
        st.tuples(
            st.sampled_from(["host", "cookie", "accept", "origin", "x-forwarded-proto"]),
            st.text(max_size=40),
        ),
        max_size=4,
    ),
)
def test_whatever_comes_is_answered(
    target: str, method: str, headers: list[tuple[str, str]]
) -> None:
    aws = FakeAws()
    gate = Gate(
        kms_key=KEY, secret_key=SECRET, accounts=[ACCOUNT], origins=[ORIGIN], legacy=True,
        trusted_proxies=["192.0.2.1"], kms=aws, sts=aws,
    )  # fmt: skip
    for path in (target, "/auth?" + target, "/auth/logout" + target, "/auth/whoami"):
        answer = gate.check(request(path, method=method, host="", headers=headers), NOW)
        assert isinstance(answer, Reply)
        assert answer.status in (400, 401, 403, 405, 421, 429, 200)
        assert all(not set(value) & set("\r\n\0") for _, value in answer.headers)


# -- rate limits -----------------------------------------------------------------------------------


def test_a_client_that_floods_is_told_to_wait(make_gate: GateMaker, aws: FakeAws) -> None:
    limits = SignInLimits(client_burst=2, client_rate=0.1, global_burst=3, global_rate=0.1)
    gate = Gate(make_gate().settings, kms=aws, sts=aws, limits=limits)
    target = "/auth?token=QUFB&return_url=/"
    for _ in range(2):
        reply(gate.check(request(target), NOW), 403, "stale-token")
    answer = reply(gate.check(request(target), NOW), 429, "too-many-requests")
    assert fields(answer, "retry-after") == ["10"]
    # Others are not hurt until all together are too many.
    reply(gate.check(request(target, client="192.0.2.2"), NOW), 403, "stale-token")
    reply(gate.check(request(target, client="192.0.2.3"), NOW), 429, "too-many-requests")
    assert aws.calls.count("Decrypt") == 6
    reply(gate.check(request(target), NOW + 10), 403, "stale-token")


# -- sessions --------------------------------------------------------------------------------------


def test_a_session_is_for_its_origin(make_gate: GateMaker, aws: FakeAws) -> None:
    gate = make_gate(origins=[ORIGIN, "http://wiki.test", "https://app.test"])
    cookie = sign_in(aws, gate)
    allowed(gate.check(request(cookie=cookie), NOW))
    answer = reply(gate.check(request(cookie=cookie, host="wiki.test"), NOW), 401)
    (cleared,) = session_cookies(answer)
    assert cleared == "iam-auth=; Path=/; HttpOnly; SameSite=Lax; Max-Age=0"
    reply(gate.check(request(cookie=cookie, scheme="https"), NOW), 401)
    secure = "__Host-" + cookie
    reply(gate.check(request(cookie=secure, scheme="https"), NOW), 401)


def test_the_cookie_of_https_and_of_another_port(make_gate: GateMaker, aws: FakeAws) -> None:
    gate = make_gate(origins=["https://app.test", "http://app.test:8080"])
    sealed = token(aws, make_gate(), aws.credentials())
    answer = reply(gate.check(request(auth_target(sealed), scheme="https"), NOW), 302)
    (field,) = fields(answer, "set-cookie")
    assert field.startswith("__Host-iam-auth=")
    assert field.endswith("; Path=/; HttpOnly; SameSite=Lax; Secure")
    bare = cookie_of(answer).removeprefix("__Host-")
    reply(gate.check(request(scheme="https", cookie=bare), NOW), 401)
    allowed(gate.check(request(scheme="https", cookie=cookie_of(answer)), NOW))

    sealed = token(aws, make_gate(), aws.credentials())
    answer = reply(gate.check(request(auth_target(sealed), host="app.test:8080"), NOW), 302)
    assert cookie_of(answer).startswith("iam-auth-8080=")


def test_two_cookies_are_none_and_are_cleared(gate: Gate, aws: FakeAws) -> None:
    cookie = sign_in(aws, gate)
    for sent in (f"{cookie}; {cookie}", f"iam-auth=x; {cookie}"):
        answer = reply(gate.check(request(cookie=sent), NOW), 401)
        assert "Max-Age=0" in session_cookies(answer)[0]


def test_a_session_ends(make_gate: GateMaker, aws: FakeAws) -> None:
    gate = make_gate(max_session="2h", idle="30m")
    cookie = sign_in(aws, gate)
    allowed(gate.check(request(cookie=cookie), NOW + 1800))
    reply(gate.check(request(cookie=cookie), NOW + 1801), 401)
    # Used every 25 minutes it is renewed, until two hours are over.
    for step in range(1, 5):
        answer = allowed(gate.check(request(cookie=cookie), NOW + step * 1500))
        (renewed,) = answer.set_cookies
        cookie = renewed.partition(";")[0]
    reply(gate.check(request(cookie=cookie), NOW + 7200), 401)


def test_renewal_is_not_at_every_request(gate: Gate, aws: FakeAws) -> None:
    cookie = sign_in(aws, gate)
    assert allowed(gate.check(request(cookie=cookie), NOW + 299)).set_cookies == ()
    assert len(allowed(gate.check(request(cookie=cookie), NOW + 300)).set_cookies) == 1


def test_a_shorter_maximum_ends_sessions_begun_before(make_gate: GateMaker, aws: FakeAws) -> None:
    cookie = sign_in(aws, make_gate(max_session="10h", idle="10h"))
    short = make_gate(max_session="1h")
    allowed(short.check(request(cookie=cookie), NOW + 3599))
    reply(short.check(request(cookie=cookie), NOW + 3600), 401)


def test_sessions_issued_after(make_gate: GateMaker, aws: FakeAws) -> None:
    cookie = sign_in(aws, make_gate())
    allowed(make_gate(sessions_issued_after=NOW).check(request(cookie=cookie), NOW))
    gate = make_gate(sessions_issued_after=NOW + 1)
    reply(gate.check(request(cookie=cookie), NOW + 2), 401)
    allowed(gate.check(request(cookie=sign_in(aws, gate, now=NOW + 3)), NOW + 4))


def test_sessions_issued_after_counts_from_the_sign_in(make_gate: GateMaker, aws: FakeAws) -> None:
    """A renewed cookie is of the same session."""
    gate = make_gate()
    (field,) = allowed(gate.check(request(cookie=sign_in(aws, gate)), NOW + 1000)).set_cookies
    renewed = field.partition(";")[0]
    allowed(gate.check(request(cookie=renewed), NOW + 1001))
    strict = make_gate(sessions_issued_after=NOW + 500)
    reply(strict.check(request(cookie=renewed), NOW + 1001), 401)


@pytest.mark.parametrize("store", ["memory", "file"])
@pytest.mark.parametrize("how", ["logout", "revoke"])
def test_a_session_that_was_ended_stays_so(
    make_gate: GateMaker, aws: FakeAws, tmp_path: Path, store: str, how: str
) -> None:
    """Until its cookies are over by themselves: a thief may have kept his alive."""
    tmp_path.chmod(0o700)
    replay = "memory" if store == "memory" else f"file:{tmp_path}/replay.db"
    gate = make_gate(idle="12h", max_session="12h", replay=replay)
    stolen, kept = sign_in(aws, gate), sign_in(aws, gate)
    if how == "logout":
        out = request("/auth/logout", method="POST", cookie=stolen, headers={"origin": ORIGIN})
        assert isinstance(gate.check(out, NOW), Reply)
    else:
        session = allowed(gate.check(request(cookie=stolen), NOW)).session
        assert session is not None
        gate.revoke(session.id, NOW)
    for later in (0, 301, 3601, 43_000, 43_199):
        reply(gate.check(request(cookie=stolen), NOW + later), 401)
        allowed(gate.check(request(cookie=kept), NOW + later))
    reply(gate.check(request(cookie=kept), NOW + 43_200), 401)


def test_another_secret_ends_every_session(make_gate: GateMaker, aws: FakeAws) -> None:
    cookie = sign_in(aws, make_gate())
    reply(make_gate(secret_key=SECRET[::-1]).check(request(cookie=cookie), NOW), 401)


def test_a_session_that_is_not_allowed_any_more_is_403(make_gate: GateMaker, aws: FakeAws) -> None:
    cookie = sign_in(aws, make_gate())
    for gate in (make_gate(allow=["user:bob"]), make_gate(accounts=["999999999999"])):
        answer = reply(gate.check(request(cookie=cookie), NOW), 403, "not-allowed")
        assert b"POST /auth/logout" in answer.body


def test_allow_may_be_a_function(make_gate: GateMaker, aws: FakeAws) -> None:
    gate = make_gate(allow=lambda identity: identity.name == "ann")
    allowed(gate.check(request(cookie=sign_in(aws, gate)), NOW))
    target = auth_target(token(aws, gate, aws.credentials(BOB)))
    reply(gate.check(request(target), NOW), 403, "not-allowed")


def test_a_function_that_fails_lets_nobody_in(
    make_gate: GateMaker, aws: FakeAws, caplog: pytest.LogCaptureFixture
) -> None:
    gate = make_gate(allow=lambda identity: 1 / 0)
    target = auth_target(token(aws, gate, aws.credentials()))
    reply(gate.check(request(target), NOW), 403, "not-allowed")
    assert "ZeroDivisionError" in caplog.text


# -- whoami and logout -----------------------------------------------------------------------------


def test_whoami(gate: Gate, aws: FakeAws) -> None:
    cookie = sign_in(aws, gate)
    answer = reply(gate.check(request("/auth/whoami", cookie=cookie), NOW), 200)
    told = json.loads(answer.body)
    assert told["arn"] == ANN
    assert told["kind"] == "user"
    assert told["expires"] == "2027-01-15T20:00:00Z"
    reply(gate.check(request("/auth/whoami"), NOW), 401)
    reply(gate.check(request("/auth/whoami", method="POST", cookie=cookie), NOW), 405)


def test_logout(gate: Gate, aws: FakeAws) -> None:
    cookie = sign_in(aws, gate)
    out = request("/auth/logout", method="POST", cookie=cookie, headers={"origin": ORIGIN})
    answer = reply(gate.check(out, NOW), 200)
    assert fields(answer, "iam-auth-signed-out") == ["1"]
    assert "Max-Age=0" in session_cookies(answer)[0]
    # The cookie itself is over, and so is one that an answer under way has renewed meanwhile.
    reply(gate.check(request(cookie=cookie), NOW), 401)
    # Another session of the same person is not.
    allowed(gate.check(request(cookie=sign_in(aws, gate)), NOW))


@pytest.mark.parametrize(
    "headers",
    [[], [("origin", "null")], [("origin", "http://evil.test")], [("origin", "https://app.test")],
     [("origin", ORIGIN), ("origin", ORIGIN)]],
)  # fmt: skip
def test_a_logout_needs_its_own_origin(
    gate: Gate, aws: FakeAws, headers: list[tuple[str, str]]
) -> None:
    cookie = sign_in(aws, gate)
    out = request("/auth/logout", method="POST", cookie=cookie, headers=headers)
    answer = reply(gate.check(out, NOW), 403, "not-allowed")
    assert b"Only a page of this app itself can sign you out" in answer.body
    assert b"Open /auth/logout in your browser" in answer.body
    allowed(gate.check(request(cookie=cookie), NOW))


def test_a_get_of_the_logout_changes_nothing(gate: Gate, aws: FakeAws) -> None:
    cookie = sign_in(aws, gate)
    page = request("/auth/logout", cookie=cookie, headers={"accept": "text/html"})
    answer = reply(gate.check(page, NOW), 405)
    assert b'<form method="post" action="/auth/logout">' in answer.body
    # Under no-referrer the form's POST would come with "Origin: null".
    assert fields(answer, "referrer-policy") == ["same-origin"]
    allowed(gate.check(request(cookie=cookie), NOW))


# -- where -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("host", "status", "code"),
    [
        ("evil.test", 421, "wrong-origin"),
        ("app.test:8080", 421, "wrong-origin"),
        ("app.test.", 421, "wrong-origin"),
        ("", 400, "malformed"),
        ("a@app.test", 400, "malformed"),
        ("app.test\r\nX: 1", 400, "malformed"),
        ("app.test, evil.test", 400, "malformed"),
    ],
)
def test_a_host_that_is_not_listed_is_not_challenged(
    gate: Gate, host: str, status: int, code: str
) -> None:
    reply(gate.check(request(host=host), NOW), status, code)


def test_the_name_that_is_not_listed_is_said(gate: Gate, caplog: pytest.LogCaptureFixture) -> None:
    """On the page the one that was asked for, whose port may be all that is wrong with it."""
    page = request(host="app.test:8103", headers={"accept": "text/html"})
    answer = reply(gate.check(page, NOW), 421, "wrong-origin")
    assert b"<h1>This app does not go by http://app.test:8103</h1>" in answer.body
    assert b"the scheme and the port are parts" in answer.body
    assert b"http://app.test<" not in answer.body, "which others there are is not said"
    (said,) = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert "http://app.test:8103 is not among the origins" in said
    assert f"scheme and port are parts: {ORIGIN} " in said


def test_without_origins_any_host_is_answered_and_it_is_said_at_start(
    aws: FakeAws, caplog: pytest.LogCaptureFixture
) -> None:
    environ = {"AWS_ACCOUNT_ID": ACCOUNT, "SECRET_KEY": SECRET, "KMS_KEY_ID": KEY, "KMS_SALT": "x"}
    gate = Gate.from_env(environ, kms=aws, sts=aws)
    assert "login CSRF" in caplog.text
    assert "no origins are configured" in caplog.text
    cookie = sign_in(aws, gate, host="any.test")
    allowed(gate.check(request(cookie=cookie, host="any.test"), NOW))
    reply(gate.check(request(cookie=cookie, host="other.test"), NOW), 401)


def test_another_path(make_gate: GateMaker, aws: FakeAws) -> None:
    gate = make_gate(path="/iam/sign-in")
    target = auth_target(token(aws, gate, aws.credentials()), path="/iam/sign-in")
    cookie = cookie_of(reply(gate.check(request(target), NOW), 302))
    reply(gate.check(request("/iam/sign-in/whoami", cookie=cookie), NOW), 200)
    allowed(gate.check(request("/auth", cookie=cookie), NOW))


# -- public paths ----------------------------------------------------------------------------------


def test_public_paths_need_no_one(make_gate: GateMaker, aws: FakeAws) -> None:
    gate = make_gate(public=["/healthz", "/static/*"])
    for path in ("/healthz", "/healthz?x=1", "/static/a.css"):
        assert allowed(gate.check(request(path), NOW)).identity is None
        assert allowed(gate.check(request(path, host="10.0.0.1"), NOW)).identity is None
        assert allowed(gate.check(request(path, host=""), NOW)).identity is None
    for path in (
        "/healthz/",
        "/health",
        "/%68ealthz",
        "/static",
        "/static/../x",
        "/static/%2e%2e/x",
    ):
        reply(gate.check(request(path), NOW), 401)
    headers = {"x-original-url": "/healthz", "x-forwarded-uri": "/healthz"}
    reply(gate.check(request("/private", headers=headers), NOW), 401)
    cookie = sign_in(aws, gate)
    identity = allowed(gate.check(request("/healthz", cookie=cookie), NOW)).identity
    assert identity is not None
    assert identity.arn == ANN


def test_on_a_public_path_who_is_not_allowed_is_nobody(make_gate: GateMaker, aws: FakeAws) -> None:
    cookie = sign_in(aws, make_gate())
    gate = make_gate(public=["/healthz"], allow=["user:bob"])
    assert allowed(gate.check(request("/healthz", cookie=cookie), NOW)) == Allow()


def test_the_gates_own_pages_cannot_be_public(make_gate: GateMaker) -> None:
    gate = make_gate(public=["/auth", "/auth/*"])
    for path in ("/auth", "/auth/whoami"):
        reply(gate.check(request(path), NOW), 401)


# -- for apps with a session mechanism of their own ------------------------------------------------


def test_accept(gate: Gate, aws: FakeAws) -> None:
    sealed = decode_base64(token(aws, gate, aws.credentials()), "token")
    assert gate.accept(Handoff(sealed, "/"), NOW).arn == ANN
    with pytest.raises(Replayed):
        gate.accept(Handoff(sealed, "/"), NOW)
    root = aws.credentials(f"arn:aws:iam::{ACCOUNT}:root")
    with pytest.raises(Refused):
        gate.accept(Handoff(decode_base64(token(aws, gate, root), "token"), "/"), NOW)
    late = aws.credentials(expires=NOW)
    with pytest.raises(Expired):
        gate.accept(Handoff(decode_base64(token(aws, gate, late), "token"), "/"), NOW)


# -- secrets ---------------------------------------------------------------------------------------


def test_no_secret_reaches_a_log_a_repr_or_a_page(
    make_gate: GateMaker, aws: FakeAws, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    gate = make_gate(allow=["user:ann"])
    credentials = aws.credentials()
    sealed = token(aws, gate, credentials)
    target = auth_target(sealed)
    answers = [gate.check(request(target), NOW), gate.check(request(target), NOW)]
    cookie = cookie_of(reply(answers[0], 302))
    answers.append(gate.check(request("/auth/whoami", cookie=cookie), NOW))
    bob = auth_target(token(aws, gate, aws.credentials(BOB)))
    answers += [gate.check(request(bob), NOW), gate.check(request(target + "&x=1"), NOW)]
    bodies = b"".join(answer.body for answer in answers if isinstance(answer, Reply))
    said = caplog.text + repr(gate.settings) + repr(gate) + bodies.decode()
    planted = (SECRET, credentials.secret_access_key, credentials.session_token, sealed)
    for secret in (*planted, cookie.partition("=")[2]):
        assert secret not in said
    assert ANN in caplog.text


def test_new_cookies_are_new_sessions(gate: Gate, aws: FakeAws) -> None:
    assert sign_in(aws, gate) != sign_in(aws, gate)


def test_a_session_too_long_for_a_cookie_is_said_so(gate: Gate, aws: FakeAws) -> None:
    arn = f"arn:aws:iam::{ACCOUNT}:user/{'p' * 508}/ann"
    assert "iam-auth=" in sign_in(aws, gate, arn)


def test_a_foreign_scheme_is_malformed(gate: Gate) -> None:
    with pytest.raises(Malformed):
        parse_origin("ftp://app.test")
    reply(gate.check(request(scheme="ftp"), NOW), 400, "malformed")
