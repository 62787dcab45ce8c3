"""The signed identity: made of every kind of credentials, rebuilt and taken by STS."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest
from botocore.auth import SigV4QueryAuth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from iam_auth_proxy.aws import signing
from iam_auth_proxy.aws.base import CallerIdentity
from iam_auth_proxy.aws.clients import make_clients
from iam_auth_proxy.aws.credentials import AwsPrincipal, CredentialSettings
from iam_auth_proxy.errors import AwsError, Expired, LoginNeeded, Malformed, MfaNeeded
from iam_auth_proxy.local_aws import Key, LocalAws, User, allow, trust
from iam_auth_proxy.names import parse_key_arn, parse_origin, sts_host
from iam_auth_proxy.protocol.proof import ProofKind, SignedIdentity, load_proof
from iam_auth_proxy.protocol.signed_identity import EXPIRES, SERVICE, rebuild
from tests.support.identity_center import (
    identity_center,
    leave_token,
    move_token_cache,
    role_credentials,
)

ORIGIN = parse_origin("http://app.test")
NONCE = "a-nonce-of-the-server.0123456789"
ROOM = "arn:aws:sts::111122223333"

Profiles = Callable[..., None]


@pytest.fixture
def key(aws: LocalAws) -> Key:
    return aws.key()


@pytest.fixture
def alice(aws: LocalAws, key: Key) -> User:
    return aws.user("alice", policies=[allow("kms:Encrypt", resource=key.arn)])


def principal(**settings: str) -> AwsPrincipal:
    return AwsPrincipal(CredentialSettings(profile="dev", **settings), {})  # type: ignore[arg-type]  # a test's shorthand


def prove(who: AwsPrincipal, key: Key, now: float | None = None) -> SignedIdentity:
    moment = time.time() if now is None else now
    proof = who.sign_identity(parse_key_arn(key.arn), ORIGIN, NONCE, moment)
    opened = load_proof(proof.dumps(), ProofKind.SIGNED_IDENTITY)
    assert opened == proof
    return proof


def ask_sts(proof: SignedIdentity, key: Key, nonce: str = NONCE) -> CallerIdentity:
    """As the app's server does: with no credentials of its own in play."""
    _, sts = make_clients(region_name="eu-west-1", environ={})
    request = rebuild(proof, parse_key_arn(key.arn), ORIGIN, nonce)
    return sts.check_signed_identity(request)


class TestEveryKindOfCredentials:
    def test_of_an_iam_user(self, aws: LocalAws, alice: User, key: Key, profile: Profiles) -> None:
        profile("dev", alice.keys(), region="eu-west-1")
        proof = prove(principal(), key)
        assert aws.calls == []
        assert proof.session_token == ""
        assert ask_sts(proof, key) == CallerIdentity("111122223333", alice.arn, alice.user_id)
        (call,) = aws.calls
        assert (call.service, call.action, call.region) == ("sts", "GetCallerIdentity", "eu-west-1")

    def test_of_the_role_that_the_person_assumes(
        self, aws: LocalAws, alice: User, key: Key, profile: Profiles
    ) -> None:
        profile("dev", alice.keys(), region="eu-west-1")
        role = aws.role("apps", trust(alice.arn), policies=[allow("kms:Encrypt")]).arn
        who = principal(assume_role_arn=role)
        proof = prove(who, key)
        assert ask_sts(proof, key).arn == f"{ROOM}:assumed-role/apps/iam-auth-proxy"
        assert who.identity(time.time()).arn == f"{ROOM}:assumed-role/apps/iam-auth-proxy"
        assert "GetSessionToken" not in {call.action for call in aws.calls}

    def test_of_a_profile_with_a_role(
        self, aws: LocalAws, alice: User, key: Key, profile: Profiles
    ) -> None:
        profile("base", alice.keys())
        role = aws.role("apps", trust(alice.arn)).arn
        profile(
            "dev",
            role_arn=role,
            source_profile="base",
            role_session_name="ann",
            region="eu-west-1",
        )
        assert ask_sts(prove(principal(), key), key).arn == f"{ROOM}:assumed-role/apps/ann"

    def test_of_a_user_with_mfa(
        self, aws: LocalAws, alice: User, key: Key, profile: Profiles
    ) -> None:
        profile("dev", alice.keys(), region="eu-west-1")
        device = alice.mfa()
        with pytest.raises(MfaNeeded):
            prove(principal(mfa_serial=device.serial), key)
        who = principal(mfa_serial=device.serial, mfa_code=device.code())
        assert ask_sts(prove(who, key), key).arn == alice.arn

    def test_of_a_credential_process(
        self, aws: LocalAws, key: Key, profile: Profiles, tmp_path: Path
    ) -> None:
        session = aws.sso_role("Developer", "ann@example.com")
        said = tmp_path / "said.json"
        said.write_text(
            json.dumps(
                {
                    "Version": 1,
                    "AccessKeyId": session.access_key_id,
                    "SecretAccessKey": session.secret_access_key,
                    "SessionToken": session.session_token,
                }
            )
        )
        code = "import sys; print(open(sys.argv[1]).read())"
        command = f'"{sys.executable}" -c "{code}" "{said}"'
        profile("dev", credential_process=command, region="eu-west-1")
        assert ask_sts(prove(principal(), key), key).arn.endswith("/ann@example.com")

    async def test_of_an_sso_login(
        self,
        aws: LocalAws,
        key: Key,
        profile: Profiles,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        session = aws.sso_role("Developer", "ann@example.com")
        sso_profile(profile)
        move_token_cache(tmp_path, monkeypatch)
        leave_token(tmp_path, "corp", "access", "2099-01-01T00:00:00Z")
        who = principal(region="eu-west-1")
        async with identity_center(200, "", role_credentials(session, time.time() + 3600)) as url:
            monkeypatch.setenv("AWS_ENDPOINT_URL_SSO", url)
            proof = await asyncio.to_thread(prove, who, key)
        assert proof.access_key_id == session.access_key_id
        assert "AWSReservedSSO_Developer" in ask_sts(proof, key).arn
        assert "GetSessionToken" not in {call.action for call in aws.calls}

    def test_of_an_sso_login_that_has_ended(
        self, key: Key, profile: Profiles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        sso_profile(profile)
        move_token_cache(tmp_path, monkeypatch)
        with pytest.raises(LoginNeeded) as caught:
            prove(principal(), key)
        assert caught.value.remedy == "Run: aws sso login --profile dev"

    def test_with_the_longest_session_token(
        self, aws: LocalAws, key: Key, profile: Profiles
    ) -> None:
        aws.session_token_size = 4096
        session = aws.sso_role("Developer", "ann@example.com")
        assert len(session.session_token) == 4096
        profile("dev", session, region="eu-west-1")
        proof = prove(principal(), key)
        assert proof.session_token == session.session_token
        assert ask_sts(proof, key).arn.endswith("/ann@example.com")

    def test_with_every_character_that_a_token_may_have(self, key: Key) -> None:
        token = "".join(map(chr, range(0x21, 0x7F)))
        signer = Credentials("ASIAIOSFODNN7EXAMPLE", "secret", token)
        made = signing.sign_identity(signer, parse_key_arn(key.arn), ORIGIN, NONCE, time.time())
        assert made.session_token == token

    @pytest.mark.parametrize(
        ("access_key", "token"),
        [("test", ""), ("AKIA IOSFODNN7EXAMPLE", ""), ("ASIAIOSFODNN7EXAMPLE", "t" * 4097)],
    )
    def test_credentials_of_no_form_that_aws_gives(
        self, key: Key, access_key: str, token: str
    ) -> None:
        signer = Credentials(access_key, "secret", token)
        with pytest.raises(AwsError, match="cannot sign") as caught:
            signing.sign_identity(signer, parse_key_arn(key.arn), ORIGIN, NONCE, time.time())
        assert "secret" not in str(caught.value)


def sso_profile(profile: Profiles) -> None:
    """The profile ``dev`` signs in by the SSO session ``corp``."""
    profile("dev", sso_session="corp", sso_account_id="111122223333", sso_role_name="Developer")
    with Path(os.environ["AWS_CONFIG_FILE"]).open("a") as config:
        config.write("[sso-session corp]\nsso_region = eu-west-1\n")
        config.write("sso_start_url = https://corp.example/start\n")


class TestWhatIsSigned:
    @pytest.fixture
    def who(self, aws: LocalAws, alice: User, profile: Profiles) -> AwsPrincipal:
        profile("dev", alice.keys(), region="us-east-1")
        return principal()

    @pytest.mark.parametrize("token", ["", "FwoGZXIvYXdzE/+=="])
    def test_it_is_what_botocore_presigns(
        self, key: Key, token: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """botocore's whole signer, with its own time, over the request before it is signed."""
        now = 1_790_000_000.0
        moment = datetime.fromtimestamp(now, UTC)
        monkeypatch.setattr("botocore.auth.get_current_datetime", lambda: moment)
        arn = parse_key_arn(key.arn)
        signer = Credentials("ASIAIOSFODNN7EXAMPLE", "secret", token or None)
        url = f"https://{sts_host(arn)}/?Action=GetCallerIdentity&Version=2011-06-15"
        headers = {"x-iam-auth-origin": str(ORIGIN), "x-iam-auth-nonce": NONCE}
        request = AWSRequest(method="GET", url=url, headers=headers)
        SigV4QueryAuth(signer, SERVICE, arn.region, expires=EXPIRES).add_auth(request)
        proof = signing.sign_identity(signer, arn, ORIGIN, NONCE, now)
        assert rebuild(proof, arn, ORIGIN, NONCE).url == request.url

    def test_the_date_is_the_given_time(self, who: AwsPrincipal, key: Key) -> None:
        proof = prove(who, key, 1_790_000_000.9)
        assert proof.date == "20260921T141320Z"
        proof.check(1_790_000_000 + 299)
        with pytest.raises(Expired):
            proof.check(1_790_000_000 + 302)

    def test_the_region_is_the_keys(self, aws: LocalAws, who: AwsPrincipal) -> None:
        key = aws.key(region="ap-south-1")
        ask_sts(prove(who, key), key)
        assert aws.calls[-1].region == "ap-south-1"

    def test_nothing_secret_is_in_its_repr_or_in_a_log(
        self, aws: LocalAws, key: Key, profile: Profiles, caplog: pytest.LogCaptureFixture
    ) -> None:
        """At every level, on both ends: botocore and urllib3 log what they sign and send."""
        session = aws.sso_role("Developer", "ann@example.com")
        profile("dev", session, region="eu-west-1")
        with caplog.at_level(logging.DEBUG):
            proof = prove(principal(), key)
            ask_sts(proof, key)
        told = f"{caplog.text} {proof!r} {rebuild(proof, parse_key_arn(key.arn), ORIGIN, NONCE)!r}"
        assert "urllib3.connectionpool" in told  # the log was listened to
        for secret in (session.secret_access_key, session.session_token, proof.signature):
            assert secret not in told
            assert secret[:40] not in told
        assert "Signature=" not in told

    def test_a_bad_nonce_is_not_signed(self, who: AwsPrincipal, key: Key) -> None:
        with pytest.raises(Malformed):
            who.sign_identity(parse_key_arn(key.arn), ORIGIN, "n\r\nx-evil: 1", time.time())


class TestStaleCredentials:
    def test_encrypt_finds_new_ones_and_the_signature_is_theirs(
        self, aws: LocalAws, alice: User, key: Key, profile: Profiles
    ) -> None:
        """The order that Principal.sign_identity asks for."""
        role = aws.role("dev", trust(alice.arn), policies=[allow("kms:Encrypt", resource=key.arn)])
        config = Path(os.environ["AWS_CONFIG_FILE"])
        first, second = role.session("ann"), role.session("ann")
        profile("dev", first, region="eu-west-1")
        who = principal()
        ask_sts(prove(who, key), key)
        aws.expire(first.access_key_id)
        with pytest.raises(LoginNeeded, match="ExpiredToken"):
            ask_sts(prove(who, key), key)
        config.write_text("")
        profile("dev", second, region="eu-west-1")
        who.encrypt(key.arn, b"data key", {}, time.time())
        proof = prove(who, key)
        assert proof.access_key_id == second.access_key_id
        ask_sts(proof, key)


class TestCalls:
    def test_a_warm_bound_sign_in_asks_aws_once(
        self, aws: LocalAws, key: Key, profile: Profiles
    ) -> None:
        policy = allow("kms:Encrypt", resource=key.arn)
        profile("dev", aws.sso_role("Dev", "ann@example.com", policies=[policy]))
        who = principal(region="eu-west-1")

        def sign_in() -> list[str]:
            aws.clear_calls()
            now = time.time()
            who.identity(now)
            who.encrypt(key.arn, b"k" * 32, {"iam-auth-origin": str(ORIGIN)}, now)
            prove(who, key, now)
            return [call.action for call in aws.calls]

        assert sign_in() == ["GetCallerIdentity", "Encrypt"]
        assert sign_in() == sign_in() == ["Encrypt"]
