"""boto3 behind our interfaces, against the embedded AWS over real HTTP."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from botocore.credentials import Credentials

from iam_auth_proxy.aws import connections as connections_module
from iam_auth_proxy.aws.base import ClientSettings
from iam_auth_proxy.aws.clients import AwsKms, AwsSts, make_clients
from iam_auth_proxy.aws.connections import Connections, new_session
from iam_auth_proxy.aws.failures import Asked, from_code
from iam_auth_proxy.errors import (
    AccessDenied,
    AwsError,
    AwsUnavailable,
    CiphertextInvalid,
    CiphertextOfOtherKey,
    ClockSkew,
    IamAuthError,
    KeyUnusable,
    LoginNeeded,
    SettingRefused,
)
from iam_auth_proxy.local_aws import Key, Keys, LocalAws, User, allow, trust
from iam_auth_proxy.protocol.proof import SessionCredentials

CONTEXT = {"salt": "c2FsdA=="}
Enter = Callable[[Keys], None]
Profiles = Callable[..., None]


@pytest.fixture
def key(aws: LocalAws) -> Key:
    return aws.key()


@pytest.fixture
def server(aws: LocalAws, key: Key) -> User:
    """The app: it may do all that it needs with the key."""
    return aws.user("app", policies=[allow("kms:*", resource=key.arn)])


@pytest.fixture
def enter(monkeypatch: pytest.MonkeyPatch) -> Enter:
    """Puts credentials into the environment."""

    def put(keys: Keys) -> None:
        monkeypatch.delenv("AWS_SESSION_TOKEN", raising=False)
        for name, value in keys.env.items():
            monkeypatch.setenv(name, value)

    return put


@pytest.fixture
def clients(server: User, enter: Enter) -> tuple[AwsKms, AwsSts]:
    enter(server.keys())
    kms, sts = make_clients(region_name="eu-west-1", environ={})
    assert isinstance(kms, AwsKms)
    assert isinstance(sts, AwsSts)
    return kms, sts


Clients = tuple[AwsKms, AwsSts]


def session_of(aws: LocalAws, keys: Keys) -> SessionCredentials:
    made = aws.client("sts", keys).get_session_token(DurationSeconds=900)["Credentials"]
    return SessionCredentials(
        made["AccessKeyId"],
        made["SecretAccessKey"],
        made["SessionToken"],
        int(made["Expiration"].timestamp()),
    )


class TestKms:
    def test_what_is_encrypted_decrypts(self, clients: Clients, key: Key) -> None:
        kms, _ = clients
        sealed = kms.encrypt(key.arn, b"proof", CONTEXT)
        opened = kms.decrypt(key.arn, sealed.ciphertext, CONTEXT)
        assert (opened.plaintext, sealed.key_arn, opened.key_arn) == (b"proof", key.arn, key.arn)
        assert "proof" not in repr(opened)

    def test_the_region_is_the_keys(self, aws: LocalAws, clients: Clients, server: User) -> None:
        far = aws.key(region="us-east-1")
        server.put_policy(allow("kms:*", resource=far.arn))
        sealed = clients[0].encrypt(far.arn, b"proof", CONTEXT)
        assert clients[0].decrypt(far.arn, sealed.ciphertext, CONTEXT).plaintext == b"proof"
        assert [call.region for call in aws.calls] == ["us-east-1"] * 2

    def test_any_spelling_of_a_key(self, aws: LocalAws, clients: Clients, key: Key) -> None:
        alias = key.alias("app")
        for spelling in (key.arn, key.key_id, alias, "alias/app"):
            assert clients[0].key_arn(spelling) == key.arn
            assert clients[0].encrypt(spelling, b"proof", {}).key_arn == key.arn

    def test_decrypt_always_names_the_key(self, aws: LocalAws, clients: Clients, key: Key) -> None:
        sealed = clients[0].encrypt(key.arn, b"proof", CONTEXT)
        clients[0].decrypt(key.arn, sealed.ciphertext, CONTEXT)
        assert aws.calls[-1].parameters["KeyId"] == key.arn

    @pytest.mark.parametrize("context", [{}, {"salt": "other"}, {"SALT": CONTEXT["salt"]}])
    def test_another_context_does_not_open(
        self, clients: Clients, key: Key, context: dict[str, str]
    ) -> None:
        sealed = clients[0].encrypt(key.arn, b"proof", CONTEXT)
        with pytest.raises(CiphertextInvalid):
            clients[0].decrypt(key.arn, sealed.ciphertext, context)

    def test_what_was_tampered_with_does_not_open(self, clients: Clients, key: Key) -> None:
        blob = bytearray(clients[0].encrypt(key.arn, b"proof", CONTEXT).ciphertext)
        blob[-1] ^= 1
        with pytest.raises(CiphertextInvalid):
            clients[0].decrypt(key.arn, bytes(blob), CONTEXT)

    def test_another_key_does_not_open(
        self, aws: LocalAws, clients: Clients, server: User, key: Key
    ) -> None:
        other = aws.key()
        server.put_policy(allow("kms:*", resource=[key.arn, other.arn]))
        sealed = clients[0].encrypt(other.arn, b"proof", CONTEXT)
        with pytest.raises((CiphertextInvalid, AccessDenied)):
            clients[0].decrypt(key.arn, sealed.ciphertext, CONTEXT)

    @pytest.mark.parametrize("state", ["Disabled", "PendingDeletion", "PendingImport"])
    def test_a_key_that_is_not_enabled(self, clients: Clients, key: Key, state: str) -> None:
        key.state = state
        with pytest.raises(KeyUnusable):
            clients[0].encrypt(key.arn, b"proof", CONTEXT)

    def test_a_key_that_is_not_there(self, clients: Clients, server: User) -> None:
        missing = (
            "arn:aws:kms:eu-west-1:111122223333:key/" + "0" * 8 + "-0000-0000-0000-" + "0" * 12
        )
        server.put_policy(allow("kms:*"))
        with pytest.raises(KeyUnusable):
            clients[0].encrypt(missing, b"proof", CONTEXT)

    def test_a_right_that_is_missing(self, aws: LocalAws, clients: Clients) -> None:
        other = aws.key()
        with pytest.raises(AccessDenied) as caught:
            clients[0].encrypt(other.arn, b"proof", CONTEXT)
        error = caught.value
        assert (error.action, error.resource) == ("kms:Encrypt", other.arn)
        assert other.arn in error.remedy
        assert "user/app" in str(error)  # AWS's own words, for the log
        assert "user/app" not in error.public

    def test_more_than_kms_takes_is_not_sent(
        self, aws: LocalAws, clients: Clients, key: Key
    ) -> None:
        clients[0].encrypt(key.arn, b"x" * 4096, CONTEXT)
        aws.clear_calls()
        with pytest.raises(AwsError, match="4097 bytes"):
            clients[0].encrypt(key.arn, b"x" * 4097, CONTEXT)
        assert aws.calls == []


class TestSts:
    def test_our_own_identity(self, clients: Clients, server: User) -> None:
        mine = clients[1].caller_identity()
        assert (mine.arn, mine.account, mine.user_id) == (
            server.arn,
            server.account,
            server.user_id,
        )

    def test_a_users_credentials_give_the_user(self, aws: LocalAws, clients: Clients) -> None:
        alice = aws.user("alice")
        theirs = session_of(aws, alice.keys())
        assert clients[1].caller_identity(theirs).arn == alice.arn
        assert aws.calls[-1].access_key_id == theirs.access_key_id

    def test_two_users_at_once_are_never_mixed_up(self, aws: LocalAws, clients: Clients) -> None:
        users = [aws.user(name) for name in ("alice", "bob", "carol")]
        sessions = [(user.arn, session_of(aws, user.keys())) for user in users]
        sessions.append(("arn:aws:iam::111122223333:user/app", None))

        def ask(number: int) -> bool:
            arn, credentials = sessions[number % len(sessions)]
            return clients[1].caller_identity(credentials).arn == arn

        with ThreadPoolExecutor(8) as pool:
            assert all(pool.map(ask, range(160)))

    def test_without_a_signer_a_call_is_nobodys(self, server: User, clients: Clients) -> None:
        """Were the user's credentials lost on the way, the answer must not be the server's own."""
        client = clients[1]._logins.current().connections.client("sts", "eu-west-1")
        client.meta.events.unregister("before-call.sts", connections_module._sign_with)
        with pytest.raises(LoginNeeded):
            clients[1].caller_identity(SessionCredentials("ASIA", "s", "t", 0))

    @pytest.mark.parametrize("broken", ["access_key_id", "secret_access_key", "session_token"])
    def test_credentials_that_are_not_right(
        self, aws: LocalAws, clients: Clients, broken: str
    ) -> None:
        good = session_of(aws, aws.user("alice").keys())
        parts = {
            "access_key_id": good.access_key_id,
            "secret_access_key": good.secret_access_key,
            "session_token": good.session_token,
        }
        parts[broken] = parts[broken][:-4] + "AAAA"
        with pytest.raises(LoginNeeded):
            clients[1].caller_identity(SessionCredentials(expiration=0, **parts))

    def test_expired_credentials(self, aws: LocalAws, clients: Clients) -> None:
        theirs = session_of(aws, aws.user("alice").keys())
        aws.expire(theirs.access_key_id)
        with pytest.raises(LoginNeeded, match="ExpiredToken"):
            clients[1].caller_identity(theirs)

    def test_a_bad_proof_leaves_our_own_login_alone(self, aws: LocalAws, clients: Clients) -> None:
        login = clients[1]._logins.current()
        with pytest.raises(LoginNeeded):
            clients[1].caller_identity(SessionCredentials("ASIAX" * 4, "s" * 20, "t" * 20, 0))
        assert clients[1]._logins.current() is login


CALLS: dict[str, Callable[[AwsKms, AwsSts, Key], object]] = {
    "sts": lambda kms, sts, key: sts.caller_identity(),
    "kms": lambda kms, sts, key: kms.encrypt(key.arn, b"proof", CONTEXT),
}


@pytest.mark.parametrize("service", CALLS)
class TestOutages:
    """An outage is never a refusal: AwsUnavailable, after botocore's retries."""

    @pytest.fixture
    def ask(self, service: str, clients: Clients, key: Key) -> Callable[[], object]:
        return lambda: CALLS[service](*clients, key)

    @pytest.mark.parametrize(
        "fault",
        [
            {"code": "ThrottlingException"},
            {"code": "Throttling"},
            {"code": "InternalFailure", "status": 500},
            {"code": "KMSInternalException", "status": 500},
            {"code": "ServiceUnavailable", "status": 503},
            {"status": 502, "body": b"<html>bad gateway</html>"},
            {"drop": True},
            {"truncate": True},
        ],
        ids=lambda fault: "-".join(map(str, fault.values())),
    )
    def test_passes_or_is_said(
        self, aws: LocalAws, service: str, ask: Callable[[], object], fault: dict[str, Any]
    ) -> None:
        aws.fault(service, times=2, **fault)
        if fault.get("truncate"):
            # Of a 200 that was cut, KMS's JSON is not asked for again by every botocore.
            try:
                ask()
            except AwsUnavailable:
                pass
        else:
            ask()
        aws.clear_faults()
        lasting = aws.fault(service, times=None, **fault)
        with pytest.raises(AwsUnavailable):
            ask()
        assert 1 <= lasting.hits <= 3
        aws.clear_faults()
        ask()

    @pytest.mark.parametrize(
        "answer",
        [
            {"status": 200, "body": b"<html>Please sign in to the hotel</html>"},
            {"status": 200, "body": b""},
            {"status": 200, "body": b"{}"},
            {"status": 200, "body": b"[]"},
            {"status": 200, "body": b'{"CiphertextBlob": "eA=="}'},
            {"status": 302, "body": b"", "headers": {"Location": "http://127.0.0.1:9/"}},
            {"status": 403, "body": b"<html>blocked</html>"},
            {"status": 404, "body": b""},
            {"status": 511, "body": b"<html>log in</html>"},
        ],
        ids=lambda answer: f"{answer['status']}-{answer['body'].decode()[:9]}",
    )
    def test_an_answer_that_is_not_awss(
        self, aws: LocalAws, service: str, ask: Callable[[], object], answer: dict[str, Any]
    ) -> None:
        aws.fault(service, times=None, **answer)
        with pytest.raises(AwsUnavailable):
            ask()

    @pytest.mark.usefixtures("clients")
    def test_silence_ends(self, aws: LocalAws, service: str, key: Key) -> None:
        hurried = ClientSettings(read_timeout=0.1)
        kms, sts = make_clients(region_name="eu-west-1", environ={}, settings=hurried)
        assert isinstance(kms, AwsKms)
        assert isinstance(sts, AwsSts)
        aws.fault(service, delay=0.5, times=None)
        begun = time.monotonic()
        with pytest.raises(AwsUnavailable):
            CALLS[service](kms, sts, key)
        assert time.monotonic() - begun < 3

    def test_nobody_there(
        self, aws: LocalAws, ask: Callable[[], object], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
        with pytest.raises(AwsUnavailable) as caught:
            ask()
        assert caught.value.remedy
        assert caught.value.__cause__ is not None

    @pytest.mark.parametrize("minutes", [16, -16])
    def test_a_clock_that_is_wrong(
        self, aws: LocalAws, ask: Callable[[], object], minutes: int
    ) -> None:
        aws.skew(-60 * minutes)  # AWS's clock is behind where ours is ahead
        with pytest.raises(ClockSkew) as caught:
            ask()
        assert caught.value.seconds is not None
        assert abs(caught.value.seconds - 60 * minutes) <= 5
        side = "ahead of" if minutes > 0 else "behind"
        assert caught.value.public == (
            f"This machine's clock is wrong. It is 16 min {side} AWS's clock."
        )

    def test_between_5_and_15_minutes_kms_alone_complains(
        self, aws: LocalAws, service: str, ask: Callable[[], object]
    ) -> None:
        aws.skew(600)
        if service == "sts":
            ask()
        else:
            with pytest.raises(ClockSkew):
                ask()


@pytest.mark.parametrize(
    ("code", "status", "kind"),
    [
        ("ExpiredToken", 403, LoginNeeded),
        ("ExpiredTokenException", 400, LoginNeeded),
        ("InvalidClientTokenId", 403, LoginNeeded),
        ("UnrecognizedClientException", 400, LoginNeeded),
        ("SignatureDoesNotMatch", 403, LoginNeeded),
        ("InvalidSignatureException", 400, LoginNeeded),
        ("IncompleteSignature", 403, LoginNeeded),
        ("MissingAuthenticationToken", 403, LoginNeeded),
        ("UnauthorizedException", 401, LoginNeeded),
        ("RequestTimeTooSkewed", 403, ClockSkew),
        ("RequestExpired", 400, ClockSkew),
        ("NotAuthorized", 400, AccessDenied),
        ("AccessDenied", 403, AccessDenied),
        ("AccessDeniedException", 400, AccessDenied),
        ("NotFoundException", 400, KeyUnusable),
        ("DisabledException", 400, KeyUnusable),
        ("KMSInvalidStateException", 400, KeyUnusable),
        ("InvalidCiphertextException", 400, CiphertextInvalid),
        ("IncorrectKeyException", 400, CiphertextOfOtherKey),
        ("ThrottlingException", 400, AwsUnavailable),
        ("KMSInternalException", 500, AwsUnavailable),
        ("DependencyTimeoutException", 503, AwsUnavailable),
        ("KeyUnavailableException", 500, AwsUnavailable),
        ("RegionDisabledException", 403, AwsError),
        ("LimitExceededException", 400, AwsUnavailable),
        ("IDPCommunicationError", 400, AwsUnavailable),
        ("OptInRequired", 403, AwsError),
        ("MalformedPolicyDocument", 400, SettingRefused),
        ("PackedPolicyTooLarge", 400, SettingRefused),
        ("ValidationError", 400, AwsError),  # of a session's settings: SettingRefused
        ("SomethingNew", 400, AwsError),
    ],
)
def test_codes_decide_and_words_do_not(
    aws: LocalAws, clients: Clients, key: Key, code: str, status: int, kind: type[IamAuthError]
) -> None:
    misleading = "Access denied, expired, throttled and not found"
    for service, ask in CALLS.items():
        aws.fault(service, code=code, status=status, message=misleading, times=None)
        with pytest.raises(kind) as caught:
            ask(*clients, key)
        assert type(caught.value) is kind
        assert code in str(caught.value)
        assert caught.value.__cause__ is not None
        assert caught.value.remedy, "no error without a thing to do"


@pytest.mark.parametrize("secret", ["Zm9vYmFy" * 5, "eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiIxIn0-a_b"])
def test_what_is_left_says_what_aws_said(
    aws: LocalAws, clients: Clients, key: Key, secret: str
) -> None:
    """A code that nobody knew of: the person gets it, and AWS's words, which may quote anything."""
    said = f"Name\x07 the\r\nkey {key.arn}, not {secret}. " + "on and on " * 100
    aws.fault("kms", code="SomethingNew", status=400, message=said, times=None)
    with pytest.raises(AwsError) as caught:
        clients[0].encrypt(key.arn, b"proof", CONTEXT)
    error = caught.value
    assert error.public == "AWS refused kms:Encrypt: SomethingNew."
    assert error.remedy.startswith(f"AWS says: Name the key {key.arn}, not ***. on and on ")
    assert error.remedy.isprintable()
    assert len(error.remedy) < 400
    assert "the log" in error.remedy


@pytest.mark.parametrize(
    ("code", "said"),
    [("Some Thing\n<b>", "a code that is none of AWS's"), ("x" * 65, "a code that is none of")],
)
def test_a_code_outside_its_grammar_is_not_repeated(code: str, said: str) -> None:
    error = from_code(code, "", 400, Asked("kms:Encrypt"))
    assert error.public.startswith(f"AWS refused kms:Encrypt: {said}")
    assert error.remedy.startswith("AWS says no more than that. ")


def test_what_botocore_itself_refuses_says_which_setting(aws: LocalAws, server: User) -> None:
    keys = server.keys()
    signer = Credentials(keys.access_key_id, keys.secret_access_key)
    with pytest.raises(AwsError) as caught:
        Connections(new_session()).call(
            "sts", "eu-west-1", "assume_role", signer, RoleArn="x", RoleSessionName="alice"
        )
    assert caught.value.public == "AWS could not be asked."
    assert "RoleArn" in caught.value.remedy


class TestOwnLogin:
    def test_expired_credentials_are_read_again(self, aws: LocalAws, profile: Profiles) -> None:
        """What another program writes into the files is found when the old has expired."""
        role = aws.role("app", trust("111122223333"))
        old, new = role.session("one"), role.session("two")
        profile("default", old)
        _, sts = make_clients(region_name="eu-west-1", environ={})
        assert sts.caller_identity().arn.endswith("/one")
        Path(os.environ["AWS_CONFIG_FILE"]).write_text("")
        profile("default", new)
        assert sts.caller_identity().arn.endswith("/one")
        aws.expire(old.access_key_id)
        assert sts.caller_identity().arn.endswith("/two")

    def test_no_credentials_at_all(self, aws: LocalAws) -> None:
        _, sts = make_clients(region_name="eu-west-1", environ={})
        with pytest.raises(LoginNeeded, match="no AWS credentials"):
            sts.caller_identity()
        assert aws.calls == []


def test_a_region_that_makes_no_sense(aws: LocalAws, server: User) -> None:
    keys = server.keys()
    signer = Credentials(keys.access_key_id, keys.secret_access_key)
    with pytest.raises(AwsError, match="nowhere/at/all"):
        Connections(new_session()).call("sts", "nowhere/at/all", "get_caller_identity", signer)


def test_one_client_for_a_service_and_region(aws: LocalAws) -> None:
    connections = Connections(new_session())
    with ThreadPoolExecutor(8) as pool:
        made = set(pool.map(lambda _: connections.client("sts", "eu-west-1"), range(16)))
    assert len(made) == 1
    assert connections.client("sts", "us-east-1") not in made
    config = made.pop().meta.config
    assert (config.connect_timeout, config.read_timeout) == (5, 10)
    assert config.retries["total_max_attempts"] == 3


def test_secrets_stay_out_of_log_and_repr(
    aws: LocalAws, clients: Clients, key: Key, caplog: pytest.LogCaptureFixture
) -> None:
    theirs = session_of(aws, aws.user("alice").keys())
    with caplog.at_level(logging.INFO):
        clients[1].caller_identity(theirs)
        aws.expire(theirs.access_key_id)
        with pytest.raises(LoginNeeded) as caught:
            clients[1].caller_identity(theirs)
        clients[0].encrypt(key.arn, b"planted-proof", CONTEXT)
    said = caplog.text + repr(caught.value) + repr(caught.value.__cause__) + repr(theirs)
    for secret in (theirs.secret_access_key, theirs.session_token, "planted-proof"):
        assert secret not in said


def test_a_warning_about_credentials_that_are_still_good_stays_one(
    caplog: pytest.LogCaptureFixture,
) -> None:
    logger = logging.getLogger("botocore.credentials")
    with connections_module.said_once():
        logger.warning("not renewed", exc_info=ValueError("a traceback"))
    (record,) = caplog.records
    assert (record.levelno, record.exc_info) == (logging.WARNING, None)
    caplog.clear()
    logger.warning("an app's own")
    assert caplog.records


def test_the_interfaces_load_no_boto() -> None:
    program = (
        "import sys, iam_auth_proxy.aws.base, iam_auth_proxy.aws.offload\n"
        "print([name for name in sys.modules if name.startswith('boto')])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout == "[]\n"


def test_credentials_are_given_back_after_a_call(aws: LocalAws, server: User) -> None:
    keys = server.keys()
    connections = Connections(new_session())
    signer = Credentials(keys.access_key_id, keys.secret_access_key)
    connections.call("sts", "eu-west-1", "get_caller_identity", signer)
    assert connections_module._signer.get() is None
