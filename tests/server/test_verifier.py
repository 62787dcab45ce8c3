"""Opening and checking proofs with the real clients against the embedded AWS, and its faults."""

from __future__ import annotations

import json
import socket
import time
from datetime import UTC, datetime

import pytest

from iam_auth_proxy.local_aws import LocalAws
from iam_auth_proxy.local_aws.policy import trust
from iam_auth_proxy.local_aws.ready import Ready, make_ready
from iam_auth_proxy.local_aws.resources import Keys
from iam_auth_proxy.protocol.strict import encode_base64
from iam_auth_proxy.server import Gate
from iam_auth_proxy.server.facts import Reply
from tests.server.conftest import SECRET, auth_target, challenge_of, fields, request


class Live:
    """A gate with boto3, and somebody's proofs."""

    def __init__(self, aws: LocalAws, ready: Ready, **variables: str) -> None:
        self.aws, self.ready = aws, ready
        environ = {
            "AWS_ACCOUNT_ID": ready.account,
            "KMS_KEY_ID": ready.key.arn,
            "SECRET_KEY": SECRET,
            **variables,
        }
        self.gate = Gate.from_env(environ)

    def session(self, keys: Keys, **more: object) -> dict[str, object]:
        """GetSessionToken's credentials of somebody, as they are sealed."""
        sts = self.aws.client("sts", keys)
        found = sts.get_session_token(DurationSeconds=900)["Credentials"]
        found["Expiration"] = found["Expiration"].strftime("%Y-%m-%dT%H:%M:%SZ")
        return found | more

    def sign_in(self, proof: dict[str, object], **seal: object) -> Reply:
        """The gate's answer to a proof, sealed by example-user."""
        asked = challenge_of(self.check("/"))
        sealed = self.aws.client("kms", self.ready.user).encrypt(
            **{
                "KeyId": str(asked.key),
                "Plaintext": json.dumps(proof).encode(),
                "EncryptionContext": dict(asked.context),
            }
            | seal
        )
        return self.check(auth_target(encode_base64(sealed["CiphertextBlob"])))

    def check(self, target: str) -> Reply:
        answer = self.gate.check(request(target), time.time())
        assert isinstance(answer, Reply)
        return answer


@pytest.fixture
def live(local_aws: LocalAws, monkeypatch: pytest.MonkeyPatch) -> Live:
    ready = make_ready(local_aws)
    for name, value in (local_aws.env | ready.server.env).items():
        monkeypatch.setenv(name, value)
    return Live(local_aws, ready)


def code(reply: Reply) -> str:
    """The status and the code."""
    return f"{reply.status} {' '.join(fields(reply, 'iam-auth-error'))}".strip()


def as_proof(keys: Keys) -> dict[str, object]:
    assert keys.expires is not None
    return {
        "AccessKeyId": keys.access_key_id,
        "SecretAccessKey": keys.secret_access_key,
        "SessionToken": keys.session_token,
        "Expiration": datetime.fromtimestamp(keys.expires, UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
    }


def test_a_user(live: Live) -> None:
    live = Live(live.aws, live.ready, KMS_SALT="pepper")
    assert code(live.sign_in(live.session(live.ready.user))) == "302"
    asked = [call.action for call in live.aws.calls if "example-server" in str(call.principal)]
    assert asked == ["Decrypt"]


def test_the_salt_of_the_last_epoch_takes_a_second_decrypt(
    live: Live,
) -> None:
    sealed = live.aws.client("kms", live.ready.user).encrypt(
        KeyId=live.ready.key.arn,
        Plaintext=json.dumps(live.session(live.ready.user)).encode(),
        EncryptionContext=dict(
            challenge_of(live.gate.check(request("/"), time.time() - 900)).context  # type: ignore[arg-type]  # a 401
        ),
    )
    assert code(live.check(auth_target(encode_base64(sealed["CiphertextBlob"])))) == "302"
    asked = [call.action for call in live.aws.calls if "example-server" in str(call.principal)]
    assert asked == ["Decrypt", "Decrypt"]


def test_sessions_of_roles_and_permission_sets(live: Live) -> None:
    """The original's proxy cannot send these; others can, and they prove as much."""
    role = live.aws.role("deploy", trust(f"arn:aws:iam::{live.ready.account}:root"))
    sso = live.aws.sso_role("Admin", "ann@example.com")
    for keys, name in ((role.session("x1"), "deploy"), (sso, "Admin")):
        assert code(live.sign_in(as_proof(keys))) == "302", name


def test_root_is_refused(live: Live) -> None:
    assert code(live.sign_in(live.session(live.ready.root))) == "403 not-allowed"


def test_federated_users_are_refused(live: Live) -> None:
    """Whoever may call GetFederationToken chooses the name."""
    sts = live.aws.client("sts", live.ready.root)
    found = sts.get_federation_token(Name="boss", DurationSeconds=900)["Credentials"]
    found["Expiration"] = found["Expiration"].strftime("%Y-%m-%dT%H:%M:%SZ")
    assert code(live.sign_in(found)) == "403 not-allowed"


def test_another_account(monkeypatch: pytest.MonkeyPatch) -> None:
    with LocalAws(accounts=("111122223333", "222222222222")) as aws:
        ready = make_ready(aws)
        for name, value in (aws.env | ready.server.env).items():
            monkeypatch.setenv(name, value)
        live = Live(aws, ready)
        stranger = aws.user("eve", account="222222222222").keys()
        assert code(live.sign_in(live.session(stranger))) == "403 wrong-account"


@pytest.mark.parametrize(
    "change",
    [
        {"SecretAccessKey": "x" * 40},
        {"AccessKeyId": "ASIAAAAAAAAAAAAAAAAA"},
        {"SessionToken": "A" * 300},
    ],
)
def test_credentials_that_sts_does_not_know(live: Live, change: dict[str, object]) -> None:
    assert code(live.sign_in(live.session(live.ready.user, **change))) == "403 expired"


def test_a_session_that_ended(live: Live) -> None:
    proof = live.session(live.ready.user)
    live.aws.expire(str(proof["AccessKeyId"]))
    assert code(live.sign_in(proof)) == "403 expired"


def test_sealed_for_another_context_or_key(live: Live) -> None:
    proof = live.session(live.ready.user)
    other = {"salt": "other"}
    assert code(live.sign_in(proof, EncryptionContext=other)) == "403 stale-token"
    another = live.aws.key(policy={
        "Version": "2012-10-17",
        "Statement": [{"Effect": "Allow", "Principal": "*", "Action": "kms:*", "Resource": "*"}],
    }).arn  # fmt: skip
    assert code(live.sign_in(proof, KeyId=another)) in ("403 stale-token", "403 wrong-key")


@pytest.mark.parametrize(
    ("service", "fault"),
    [
        ("kms", {"code": "ThrottlingException"}),
        ("kms", {"code": "KMSInternalException", "status": 500}),
        ("kms", {"drop": True}),
        ("kms", {"truncate": True}),
        ("kms", {"body": b"<html>", "status": 200}),
        ("sts", {"code": "Throttling"}),
        ("sts", {"drop": True}),
        ("sts", {"body": b"<html>oops", "status": 502}),
    ],
)
def test_aws_failing_is_503(live: Live, service: str, fault: dict[str, object]) -> None:
    proof = live.session(live.ready.user)
    action = {"kms": "Decrypt", "sts": "GetCallerIdentity"}[service]
    live.aws.fault(service, action, times=None, **fault)  # type: ignore[arg-type]  # its keywords
    answer = live.sign_in(proof)
    assert code(answer) == "503 aws-unavailable"
    assert fields(answer, "retry-after") == ["5"]
    live.aws.clear_faults()
    assert code(live.sign_in(proof)) == "302", "nothing was spent by that"


def test_a_clock_that_is_wrong_is_nobodys_refusal(
    live: Live, caplog: pytest.LogCaptureFixture
) -> None:
    proof = live.session(live.ready.user)
    asked = challenge_of(live.check("/"))
    sealed = live.aws.client("kms", live.ready.user).encrypt(
        KeyId=str(asked.key),
        Plaintext=json.dumps(proof).encode(),
        EncryptionContext=dict(asked.context),
    )["CiphertextBlob"]
    live.aws.skew(600)
    assert code(live.check(auth_target(encode_base64(sealed)))) == "503 misconfigured"
    assert "timedatectl" in caplog.text


def test_nobody_answers_at_all(live: Live, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{port}")
    gone = Live(live.aws, live.ready)
    assert code(gone.check(auth_target("QUFB"))) == "503 aws-unavailable"


IDENTITY = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
FRESH = "Put fresh AWS credentials into the environment"


@pytest.mark.parametrize("key", ["", "alias/example"])
@pytest.mark.parametrize(
    ("change", "todo"),
    [
        (dict.fromkeys(IDENTITY, ""), "Give the app an AWS identity"),
        ({"AWS_SECRET_ACCESS_KEY": "x" * 40}, FRESH),
        ({"AWS_ACCESS_KEY_ID": "AKIAAAAAAAAAAAAAAAAA"}, FRESH),
        ({"AWS_SESSION_TOKEN": "A" * 300}, FRESH),
        ({"AWS_PROFILE": "nobody"}, "Set AWS_PROFILE to"),
    ],
    ids=["none", "secret", "unknown", "token", "profile"],
)
def test_the_apps_own_identity_is_of_no_use(
    live: Live,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    key: str,
    change: dict[str, str],
    todo: str,
) -> None:
    """AWS is up, so nobody is told to wait for it; the log says what to do to the app."""
    for name, value in change.items():
        monkeypatch.setenv(name, value) if value else monkeypatch.delenv(name)
    poor = Live(live.aws, live.ready, **({"KMS_KEY_ID": key} if key else {}))
    answer = poor.check("/" if key else auth_target("QUFB"))
    assert code(answer) == "503 misconfigured"
    assert fields(answer, "retry-after") == []
    assert b"Tell the app's owner" in answer.body
    (said,) = [record.getMessage() for record in caplog.records if record.levelname == "ERROR"]
    assert todo in said
    assert "aws sso login" not in said


@pytest.mark.parametrize("key", ["alias/nope", "1234abcd-12ab-34cd-56ef-1234567890ab"])
def test_a_key_that_is_not_there(live: Live, caplog: pytest.LogCaptureFixture, key: str) -> None:
    assert code(Live(live.aws, live.ready, KMS_KEY_ID=key).check("/")) == "503 misconfigured"
    assert "Name a key that exists and is enabled" in caplog.text


def test_a_key_that_was_disabled(live: Live, caplog: pytest.LogCaptureFixture) -> None:
    live.aws.fault("kms", "Decrypt", code="DisabledException", times=None)
    assert code(live.sign_in(live.session(live.ready.user))) == "503 misconfigured"
    assert "Name a key that exists and is enabled" in caplog.text


def test_the_apps_role_may_not_decrypt(
    live: Live, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It is the app's fault, and not that of the visitor, whose token is sealed as it should be."""
    for name, value in live.aws.user("poor").keys().env.items():
        monkeypatch.setenv(name, value)
    poor = Live(live.aws, live.ready)
    assert code(poor.sign_in(poor.session(live.ready.user))) == "503 misconfigured"
    assert f"Allow kms:Decrypt on {live.ready.key.arn} to the role" in caplog.text


def test_a_token_under_a_key_that_the_app_cannot_see(live: Live) -> None:
    """The key is named to KMS, which then says that it is another: nobody's fault but the sender's.

    So nobody can make a good app look misconfigured.
    """
    hidden = live.aws.key(policy={
        "Version": "2012-10-17",
        "Statement": [{
            "Effect": "Allow", "Action": "kms:Encrypt", "Resource": "*",
            "Principal": {"AWS": str(live.ready.user.arn)},
        }],
    }).arn  # fmt: skip
    assert code(live.sign_in(live.session(live.ready.user), KeyId=hidden)) == "403 stale-token"


def test_the_key_by_its_alias_and_the_account_by_itself(live: Live) -> None:
    seen = Live(live.aws, live.ready, KMS_KEY_ID="alias/example", AWS_ACCOUNT_ID="")
    asked = challenge_of(seen.check("/"))
    assert (str(asked.key), asked.realm) == (live.ready.key.arn, live.ready.account)
    assert code(seen.sign_in(live.session(live.ready.user))) == "302"
