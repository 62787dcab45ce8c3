"""The person who signs in, against the embedded AWS: who asks what, when, and how often."""

from __future__ import annotations

import logging
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from iam_auth_proxy.aws.base import CallerIdentity, Principal
from iam_auth_proxy.aws.credentials import AwsPrincipal, AwsPrincipals, CredentialSettings
from iam_auth_proxy.aws.session_credentials import session_name
from iam_auth_proxy.errors import (
    AccessDenied,
    AwsError,
    AwsUnavailable,
    ClockSkew,
    LoginNeeded,
    MfaNeeded,
    MfaRefused,
    NoSessionCredentials,
    SettingRefused,
)
from iam_auth_proxy.local_aws import Key, Keys, LocalAws, User, allow, deny, trust
from tests.support.local_aws import refused

CONTEXT = {"salt": "c2FsdA=="}
MFA = {"Bool": {"aws:MultiFactorAuthPresent": "true"}}

Profiles = Callable[..., None]


@pytest.fixture
def key(aws: LocalAws) -> Key:
    return aws.key()


@pytest.fixture
def alice(aws: LocalAws, key: Key, profile: Profiles) -> User:
    """A user who may encrypt for the app's key; the profile ``dev`` is hers."""
    user = aws.user("alice", policies=[allow("kms:Encrypt", resource=key.arn)])
    profile("dev", user.keys(), region="eu-west-1")
    return user


def principal(**settings: object) -> Principal:
    return AwsPrincipal(CredentialSettings(**{"profile": "dev", **settings}), environ={})  # type: ignore[arg-type]  # a test's shorthand


def sign_in(who: Principal, key: Key, now: float | None = None) -> str:
    """What a sign-in asks of AWS; gives the ARN behind the sealed credentials' access key."""
    moment = time.time() if now is None else now
    who.identity(moment)
    credentials = who.session_credentials(moment)
    assert who.encrypt(key.arn, credentials.dumps(), CONTEXT, moment).key_arn == key.arn
    return credentials.access_key_id


def actions(aws: LocalAws) -> list[str]:
    made = [call.action for call in aws.calls]
    aws.clear_calls()
    return made


class TestUser:
    def test_the_first_sign_in_takes_three_calls_and_a_warm_one_takes_one(
        self, aws: LocalAws, alice: User, key: Key
    ) -> None:
        who = principal()
        sign_in(who, key)
        assert actions(aws) == ["GetCallerIdentity", "GetSessionToken", "Encrypt"]
        for _ in range(3):
            sign_in(who, key)
            assert actions(aws) == ["Encrypt"]

    def test_who_it_is(self, alice: User) -> None:
        identity = principal().identity(time.time())
        assert (identity.arn, identity.account) == (alice.arn, "111122223333")
        assert identity.user_id == alice.user_id

    def test_session_credentials_are_the_users_own_for_900_seconds(
        self, aws: LocalAws, alice: User
    ) -> None:
        found = principal().session_credentials(time.time())
        assert aws.calls[-1].parameters["DurationSeconds"] == "900"
        assert 890 <= found.expiration - time.time() <= 901
        theirs = Keys(found.access_key_id, found.secret_access_key, found.session_token)
        assert aws.client("sts", theirs).get_caller_identity()["Arn"] == alice.arn
        found.check(time.time())

    def test_they_are_renewed_ahead_of_their_end(
        self, aws: LocalAws, alice: User, key: Key
    ) -> None:
        who = principal()
        now = time.time()
        first = who.session_credentials(now)
        assert who.session_credentials(now + 590) is first
        assert who.session_credentials(now + 605) is not first
        assert actions(aws) == ["GetSessionToken"] * 2

    def test_after_a_night_asleep_they_are_fetched_anew(
        self, aws: LocalAws, alice: User, key: Key
    ) -> None:
        who = principal()
        now = time.time()
        before = sign_in(who, key, now)
        actions(aws)
        assert sign_in(who, key, now + 8 * 3600) != before
        assert actions(aws) == ["GetSessionToken", "Encrypt"]

    def test_many_threads_make_one_call_each_of_the_cached_ones(
        self, aws: LocalAws, alice: User, key: Key
    ) -> None:
        who = principal()
        with ThreadPoolExecutor(16) as pool:
            used = set(pool.map(lambda _: sign_in(who, key), range(50)))
        made = actions(aws)
        assert len(used) == 1
        assert (made.count("GetCallerIdentity"), made.count("GetSessionToken")) == (1, 1)
        assert made.count("Encrypt") == 50

    def test_a_session_token_that_has_grown_too_long_for_kms_is_said(
        self, aws: LocalAws, alice: User, key: Key
    ) -> None:
        aws.session_token_size = 4096
        with pytest.raises(AwsError) as caught:
            sign_in(principal(), key)
        assert "longer than KMS encrypts" in caught.value.public
        assert "Encrypt" not in actions(aws)

    def test_forget(self, aws: LocalAws, alice: User, key: Key) -> None:
        who = principal()
        sign_in(who, key)
        actions(aws)
        who.forget()
        sign_in(who, key)
        assert actions(aws) == ["GetCallerIdentity", "GetSessionToken", "Encrypt"]

    def test_a_denied_encrypt_names_action_key_and_caller(self, aws: LocalAws, alice: User) -> None:
        other = aws.key()
        who = principal()
        who.identity(time.time())
        with pytest.raises(AccessDenied) as caught:
            who.encrypt(other.arn, b"proof", CONTEXT, time.time())
        error = caught.value
        assert (error.action, error.resource) == ("kms:Encrypt", other.arn)
        assert error.remedy == (
            f"Ask your AWS administrator to allow kms:Encrypt on {other.arn} for {alice.arn}."
        )
        assert alice.arn not in error.public

    def test_two_profiles_are_two_people(
        self, aws: LocalAws, alice: User, profile: Profiles
    ) -> None:
        bob = aws.user("bob")
        profile("ops", bob.keys(), region="eu-west-1")
        first, second = principal(), principal(profile="ops")
        now = time.time()
        arns = [who.identity(now).arn for who in (first, second, first, second)]
        assert arns == [alice.arn, bob.arn] * 2

    @pytest.mark.parametrize(
        ("region", "environ", "asked"),
        [
            ("eu-central-1", {"AWS_REGION": "us-east-2"}, "eu-central-1"),
            ("", {"AWS_REGION": "us-east-2"}, "us-east-2"),
            ("", {}, "eu-west-1"),
        ],
    )
    def test_where_sts_is_asked(
        self, aws: LocalAws, alice: User, region: str, environ: dict[str, str], asked: str
    ) -> None:
        who = AwsPrincipal(CredentialSettings(profile="dev", region=region), environ)
        who.identity(time.time())
        assert aws.calls[-1].region == asked

    def test_where_sts_is_asked_if_nothing_but_the_key_says(
        self, aws: LocalAws, alice: User, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for name, value in alice.keys().env.items():
            monkeypatch.setenv(name, value)
        for key_region, asked in (("ap-south-1", "ap-south-1"), ("", "us-east-1")):
            AwsPrincipal(CredentialSettings(), {}, key_region).identity(time.time())
            assert aws.calls[-1].region == asked


class TestStaleLogins:
    def test_new_keys_in_the_file_are_found_when_the_old_are_refused(
        self, aws: LocalAws, alice: User, key: Key, profile: Profiles
    ) -> None:
        keys = alice.keys()
        config = Path(os.environ["AWS_CONFIG_FILE"])
        config.write_text("")
        profile("dev", keys, region="eu-west-1")
        who = principal()
        sign_in(who, key)
        alice.deactivate(keys)
        with pytest.raises(LoginNeeded) as caught:
            sign_in(who, key)
        assert caught.value.remedy.endswith("aws configure --profile dev")
        config.write_text("")
        profile("dev", alice.keys(), region="eu-west-1")
        sign_in(who, key)

    def test_another_identity_in_the_file_is_another_identity_afterwards(
        self, aws: LocalAws, alice: User, key: Key, profile: Profiles
    ) -> None:
        role = aws.role("dev", trust(alice.arn), policies=[allow("kms:Encrypt", resource=key.arn)])
        config = Path(os.environ["AWS_CONFIG_FILE"])
        sessions = [role.session("ann"), role.session("bob")]
        config.write_text("")
        profile("dev", sessions[0], region="eu-west-1")
        who = principal()
        assert who.identity(time.time()).arn.endswith("/ann")
        config.write_text("")
        profile("dev", sessions[1], region="eu-west-1")
        aws.expire(sessions[0].access_key_id)
        who.encrypt(key.arn, b"proof", CONTEXT, time.time())
        assert who.identity(time.time()).arn.endswith("/bob")

    def test_an_expired_session_says_how_to_sign_in(
        self, aws: LocalAws, alice: User, key: Key, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        session = aws.role("dev", trust(alice.arn)).session("ann")
        for name, value in session.env.items():
            monkeypatch.setenv(name, value)
        who = AwsPrincipal(CredentialSettings(), {})
        who.identity(time.time())
        aws.expire(session.access_key_id)
        with pytest.raises(LoginNeeded, match="ExpiredToken") as caught:
            who.encrypt(key.arn, b"proof", CONTEXT, time.time())
        assert caught.value.public == "The AWS session has expired."
        assert "environment" in caught.value.remedy

    def test_a_profile_that_appears_later(self, aws: LocalAws, profile: Profiles) -> None:
        who = principal()
        with pytest.raises(LoginNeeded):
            who.identity(time.time())
        profile("dev", aws.user("alice").keys(), region="eu-west-1")
        assert who.identity(time.time()).arn.endswith("user/alice")


class TestSessionsCannotGiveSessions:
    def test_a_role_or_sso_identity_never_calls_get_session_token(
        self, aws: LocalAws, key: Key, profile: Profiles
    ) -> None:
        sso = aws.sso_role(
            "Developer", "ann@example.com", policies=[allow("kms:Encrypt", resource=key.arn)]
        )
        profile("dev", sso, region="eu-west-1")
        who = principal()
        now = time.time()
        assert "AWSReservedSSO_Developer" in who.identity(now).arn
        who.encrypt(key.arn, b"proof", CONTEXT, now)
        with pytest.raises(NoSessionCredentials) as caught:
            who.session_credentials(now)
        with pytest.raises(NoSessionCredentials):
            who.session_identity(now)
        assert "GetSessionToken" not in actions(aws)
        assert "AWS makes none for a role or SSO login" in caught.value.public
        assert caught.value.remedy.startswith("Ask the app's owner to accept the signed identity")

    def test_where_aws_itself_refuses_to_give_a_session(self, aws: LocalAws, alice: User) -> None:
        aws.fault("sts", "GetSessionToken", code="AccessDenied", status=403)
        with pytest.raises(NoSessionCredentials):
            principal().session_credentials(time.time())


class TestLoginRole:
    """Towards a legacy app, who is a session already shows a login role that may do nothing."""

    @pytest.fixture
    def sso(self, aws: LocalAws, key: Key, profile: Profiles) -> str:
        """Ann's SSO session is the profile ``dev``; gives its ARN."""
        keys = aws.sso_role(
            "Developer",
            "ann.lee@example.com",
            policies=[allow("kms:Encrypt", resource=key.arn), allow("sts:AssumeRole")],
        )
        profile("dev", keys, region="eu-west-1")
        arn: str = aws.client("sts", keys).get_caller_identity()["Arn"]
        aws.clear_calls()
        return arn

    @pytest.fixture
    def login_role(self, aws: LocalAws) -> str:
        return aws.role("login", trust("111122223333"), policies=[allow("*")]).arn

    def test_the_session_is_the_roles_and_bears_the_callers_name(
        self, aws: LocalAws, sso: str, login_role: str
    ) -> None:
        who = principal(login_role_arn=login_role)
        now = time.time()
        found = who.session_credentials(now)
        assert actions(aws) == ["GetCallerIdentity", "AssumeRole"]
        shown = who.session_identity(now)
        assert shown.arn.endswith(":assumed-role/login/ann.lee@example.com")
        theirs = Keys(found.access_key_id, found.secret_access_key, found.session_token)
        seen = aws.client("sts", theirs).get_caller_identity()
        assert (seen["Arn"], seen["UserId"], seen["Account"]) == (
            shown.arn,
            shown.user_id,
            shown.account,
        )
        assert 890 <= found.expiration - now <= 901
        found.check(now)

    def test_it_may_do_nothing_else(
        self, aws: LocalAws, sso: str, login_role: str, key: Key
    ) -> None:
        """The role itself may do everything here: the session policy is what holds."""
        found = principal(login_role_arn=login_role).session_credentials(time.time())
        theirs = Keys(found.access_key_id, found.secret_access_key, found.session_token)
        denied = ("AccessDeniedException", 400)
        assert refused(aws.client("kms", theirs).describe_key, KeyId=key.arn) == denied
        assert refused(aws.client("kms", theirs).list_aliases) == denied
        assume = aws.client("sts", theirs).assume_role
        told = refused(assume, RoleArn=login_role, RoleSessionName="again")
        assert told == ("AccessDenied", 403)

    def test_a_warm_sign_in_takes_one_call(
        self, aws: LocalAws, sso: str, login_role: str, key: Key
    ) -> None:
        who = principal(login_role_arn=login_role)
        sign_in(who, key)
        assert actions(aws) == ["GetCallerIdentity", "AssumeRole", "Encrypt"]
        sign_in(who, key)
        who.session_identity(time.time())
        assert actions(aws) == ["Encrypt"]

    def test_renewed_ahead_of_its_end(self, aws: LocalAws, sso: str, login_role: str) -> None:
        who = principal(login_role_arn=login_role)
        now = time.time()
        who.session_credentials(now + 590)
        who.session_credentials(now + 1500)
        assert actions(aws).count("AssumeRole") == 2

    def test_the_base_identity_assumes_it_whatever_encrypts(
        self, aws: LocalAws, sso: str, login_role: str, key: Key
    ) -> None:
        apps = aws.role("apps", trust("111122223333"), policies=[allow("kms:*")]).arn
        who = principal(login_role_arn=login_role, assume_role_arn=apps)
        sign_in(who, key)
        callers = {call.action: call.principal for call in aws.calls if call.action != "AssumeRole"}
        assert callers["Encrypt"].endswith("assumed-role/apps/iam-auth-proxy")
        assert {c.principal for c in aws.calls if c.action == "AssumeRole"} == {sso}
        assert who.session_identity(time.time()).arn.endswith("login/ann.lee@example.com")
        assert who.identity(time.time()).arn.endswith("/apps/iam-auth-proxy")

    def test_a_user_of_long_term_keys_shows_himself(
        self, aws: LocalAws, alice: User, key: Key, login_role: str
    ) -> None:
        who = principal(login_role_arn=login_role)
        sign_in(who, key)
        assert "AssumeRole" not in actions(aws)
        assert who.session_identity(time.time()).arn == alice.arn
        assert actions(aws) == []

    def test_a_user_who_encrypts_as_a_role_still_shows_himself(
        self, aws: LocalAws, alice: User, key: Key
    ) -> None:
        apps = aws.role("apps", trust(alice.arn), policies=[allow("kms:*")]).arn
        who = principal(assume_role_arn=apps)
        now = time.time()
        assert who.identity(now).arn.endswith("/apps/iam-auth-proxy")
        actions(aws)
        assert [who.session_identity(now).arn for _ in range(3)] == [alice.arn] * 3
        assert actions(aws) == ["GetCallerIdentity"]

    def test_a_role_that_does_not_trust_us_is_named(self, aws: LocalAws, sso: str) -> None:
        role = aws.role("login", trust(aws.user("other").arn)).arn
        with pytest.raises(AccessDenied) as caught:
            principal(login_role_arn=role).session_credentials(time.time())
        assert caught.value.resource == role
        assert sso in caught.value.remedy
        assert "GetSessionToken" not in actions(aws)

    def test_an_answer_without_half_of_it_is_an_outage(
        self, aws: LocalAws, sso: str, login_role: str
    ) -> None:
        body = b"<AssumeRoleResponse><AssumeRoleResult/></AssumeRoleResponse>"
        aws.fault("sts", "AssumeRole", body=body, times=None)
        with pytest.raises(AwsUnavailable):
            principal(login_role_arn=login_role).session_credentials(time.time())

    @pytest.mark.parametrize(
        ("arn", "user_id", "name"),
        [
            ("arn:aws:iam::111122223333:user/team/alice", "AIDA" + "A" * 17, "alice"),
            ("arn:aws:iam::111122223333:user/a", "AIDA" + "A" * 17, "a-"),
            ("arn:aws:iam::111122223333:user/" + "a" * 64, "AIDA" + "A" * 17, "a" * 64),
            (
                "arn:aws:sts::111122223333:assumed-role/r/ann@example.com",
                "AROA" + "A" * 17 + ":ann@example.com",
                "ann@example.com",
            ),
            ("arn:aws:sts::111122223333:federated-user/bob", "111122223333:bob", "bob"),
            ("arn:aws:iam::111122223333:root", "111122223333", "root"),
            ("arn:aws:new::111122223333:thing/a b", "X", "iam-auth-proxy"),
        ],
    )
    def test_its_name(self, arn: str, user_id: str, name: str) -> None:
        made = session_name(CallerIdentity("111122223333", arn, user_id))
        assert made == name
        assert re.fullmatch(r"[\w+=,.@-]{2,64}", made, re.ASCII)


class TestPrincipals:
    def test_one_for_each_profile(self, aws: LocalAws, alice: User, profile: Profiles) -> None:
        bob = aws.user("bob")
        profile("ops", bob.keys(), region="eu-west-1")
        people = AwsPrincipals(CredentialSettings(profile="dev"), {})
        now = time.time()
        assert people.of().identity(now).arn == alice.arn
        assert people.of("ops").identity(now).arn == bob.arn
        assert people.of("dev") is people.of() is people.of("")
        assert people.of("ops") is people.of("ops")

    def test_role_and_device_are_the_configured_profiles_alone(
        self, aws: LocalAws, alice: User, profile: Profiles
    ) -> None:
        bob = aws.user("bob")
        profile("ops", bob.keys(), region="eu-west-1")
        role = aws.role("apps", trust(alice.arn)).arn
        people = AwsPrincipals(CredentialSettings(profile="dev", assume_role_arn=role), {})
        now = time.time()
        assert people.of().identity(now).arn.endswith("/apps/iam-auth-proxy")
        assert people.of("ops").identity(now).arn == bob.arn

    def test_the_login_role_is_everyones(
        self, aws: LocalAws, alice: User, profile: Profiles
    ) -> None:
        keys = aws.sso_role("Ops", "bob@example.com", policies=[allow("sts:AssumeRole")])
        profile("ops", keys, region="eu-west-1")
        role = aws.role("login", trust("111122223333")).arn
        people = AwsPrincipals(CredentialSettings(profile="dev", login_role_arn=role), {})
        shown = people.of("ops").session_identity(time.time())
        assert shown.arn.endswith("/login/bob@example.com")

    def test_asking_for_one_reads_nothing(self, aws: LocalAws) -> None:
        who = AwsPrincipals(CredentialSettings(), {}).of("no such profile")
        with pytest.raises(LoginNeeded):
            who.identity(time.time())

    def test_threads_get_the_same_one(self, aws: LocalAws) -> None:
        people = AwsPrincipals(CredentialSettings(), {})
        with ThreadPoolExecutor(8) as pool:
            assert len({id(who) for who in pool.map(people.of, ["ops"] * 64)}) == 1

    def test_forget(self, aws: LocalAws, alice: User) -> None:
        people = AwsPrincipals(CredentialSettings(profile="dev"), {})
        now = time.time()
        people.of().identity(now)
        people.of().identity(now)
        people.forget()
        people.of().identity(now)
        assert actions(aws) == ["GetCallerIdentity"] * 2


class TestAssumedRole:
    @pytest.fixture
    def role(self, aws: LocalAws, alice: User, key: Key) -> str:
        alice.put_policy(deny("kms:*"), "only as the role")
        return aws.role(
            "apps",
            trust(alice.arn, Condition={"StringEquals": {"sts:ExternalId": "e-1"}}),
            policies=[allow("kms:*", resource="*")],
        ).arn

    def test_encrypt_and_identity_are_the_roles_and_the_session_is_the_users(
        self, aws: LocalAws, alice: User, key: Key, role: str
    ) -> None:
        who = principal(
            assume_role_arn=role, external_id="e-1", session_name="ann", duration_seconds=1800
        )
        now = time.time()
        assert who.identity(now).arn.endswith(":assumed-role/apps/ann")
        sign_in(who, key)
        made = [(call.action, call.principal.rsplit(":", 1)[1]) for call in aws.calls]
        assert made == [
            ("AssumeRole", "user/alice"),
            ("GetCallerIdentity", "assumed-role/apps/ann"),
            ("GetSessionToken", "user/alice"),
            ("Encrypt", "assumed-role/apps/ann"),
        ]
        assumed = aws.calls[0].parameters
        assert (assumed["DurationSeconds"], assumed["ExternalId"]) == ("1800", "e-1")
        actions(aws)
        sign_in(who, key)
        assert actions(aws) == ["Encrypt"]

    def test_without_a_name_the_session_has_ours(self, alice: User, key: Key, role: str) -> None:
        who = principal(assume_role_arn=role, external_id="e-1")
        assert who.identity(time.time()).arn.endswith("/apps/iam-auth-proxy")

    def test_the_wrong_external_id(self, alice: User, role: str) -> None:
        with pytest.raises(AccessDenied) as caught:
            principal(assume_role_arn=role, external_id="e-2").identity(time.time())
        assert (caught.value.action, caught.value.resource) == ("sts:AssumeRole", role)

    def test_a_session_policy_limits_the_role(
        self, aws: LocalAws, alice: User, key: Key, role: str
    ) -> None:
        import json

        other = aws.key()
        policy = json.dumps(allow("kms:Encrypt", resource=key.arn))
        who = principal(assume_role_arn=role, external_id="e-1", policy=policy)
        sign_in(who, key)
        with pytest.raises(AccessDenied):
            who.encrypt(other.arn, b"proof", CONTEXT, time.time())

    def test_renewed_ahead_and_after_it_ended(
        self, aws: LocalAws, alice: User, key: Key, role: str
    ) -> None:
        who = principal(assume_role_arn=role, external_id="e-1", duration_seconds=900)
        now = time.time()
        who.identity(now)
        who.identity(now + 590)
        assert actions(aws).count("AssumeRole") == 1
        who.identity(now + 610)
        assert actions(aws) == ["AssumeRole", "GetCallerIdentity"]

    def test_a_session_that_aws_ended_is_begun_again(
        self, aws: LocalAws, alice: User, key: Key, role: str
    ) -> None:
        who = principal(assume_role_arn=role, external_id="e-1")
        sign_in(who, key)
        aws.expire(next(c for c in aws.calls if c.action == "Encrypt").access_key_id)
        sign_in(who, key)

    def test_a_bad_session_name_is_named(self, alice: User, role: str) -> None:
        who = principal(assume_role_arn=role, external_id="e-1", session_name="a b")
        with pytest.raises(SettingRefused) as caught:
            who.identity(time.time())
        assert "does not accept the settings of the session" in caught.value.public
        assert "roleSessionName" in caught.value.remedy
        assert "--session-duration" not in caught.value.remedy

    def test_a_session_longer_than_the_role_allows(self, alice: User, role: str) -> None:
        who = principal(assume_role_arn=role, external_id="e-1", duration_seconds=12 * 3600)
        with pytest.raises(SettingRefused) as caught:
            who.identity(time.time())
        assert caught.value.remedy.startswith("Set --session-duration to 1h, ")
        assert "exceeds the MaxSessionDuration set for this role." in caught.value.remedy
        assert caught.value.exit_status == 2

    def test_a_session_policy_that_is_none(self, alice: User, role: str) -> None:
        empty = '{"Version":"2012-10-17","Statement":[]}'
        who = principal(assume_role_arn=role, external_id="e-1", policy=empty)
        with pytest.raises(SettingRefused) as caught:
            who.identity(time.time())
        assert caught.value.public == "AWS does not accept the session policy."
        assert caught.value.remedy.startswith("Correct --assume-role-policy. AWS says: ")

    def test_a_session_policy_that_is_too_large(
        self, aws: LocalAws, alice: User, role: str
    ) -> None:
        aws.fault("sts", "AssumeRole", code="PackedPolicyTooLarge", status=400)
        who = principal(assume_role_arn=role, external_id="e-1", policy="{}")
        with pytest.raises(SettingRefused) as caught:
            who.identity(time.time())
        assert caught.value.remedy == "Shorten --assume-role-policy."


class TestMfa:
    def test_alone_it_is_a_session_with_mfa(self, aws: LocalAws, alice: User, key: Key) -> None:
        device = alice.mfa()
        alice.put_policy(allow("kms:Encrypt", resource=key.arn, Condition=MFA))
        who = principal(mfa_serial=device.serial, mfa_code=device.code(), duration_seconds=1800)
        sign_in(who, key)
        assert [(call.action, call.parameters.get("DurationSeconds")) for call in aws.calls] == [
            ("GetSessionToken", "1800"),
            ("GetCallerIdentity", None),
            ("GetSessionToken", "900"),
            ("Encrypt", None),
        ]
        actions(aws)
        sign_in(who, key)
        assert actions(aws) == ["Encrypt"]

    def test_with_a_role_it_goes_into_assume_role(
        self, aws: LocalAws, alice: User, key: Key
    ) -> None:
        device = alice.mfa()
        role = aws.role(
            "apps",
            trust(alice.arn, Condition=MFA),
            policies=[allow("kms:Encrypt", resource=key.arn)],
        )
        who = principal(assume_role_arn=role.arn, mfa_serial=device.serial, mfa_code=device.code())
        sign_in(who, key)
        assert actions(aws) == ["AssumeRole", "GetCallerIdentity", "GetSessionToken", "Encrypt"]

    def test_without_a_code_nothing_is_asked(self, aws: LocalAws, alice: User) -> None:
        device = alice.mfa()
        who = principal(mfa_serial=device.serial)
        for _ in range(2):
            with pytest.raises(MfaNeeded) as caught:
                who.identity(time.time())
        assert caught.value.serial == device.serial
        assert aws.calls == []

    def test_entered_later(self, aws: LocalAws, alice: User, key: Key) -> None:
        device = alice.mfa()
        who = principal(mfa_serial=device.serial)
        with pytest.raises(MfaNeeded):
            sign_in(who, key)
        who.enter_mfa(device.code())
        sign_in(who, key)

    def test_a_session_that_ended_wants_a_new_code(
        self, aws: LocalAws, alice: User, key: Key
    ) -> None:
        device = alice.mfa()
        who = principal(mfa_serial=device.serial, mfa_code=device.code(), duration_seconds=900)
        now = time.time()
        sign_in(who, key)
        # Ahead of its end it cannot be renewed without a code, and is used as long as it lasts.
        who.identity(now + 700)
        with pytest.raises(MfaNeeded):
            who.identity(now + 880)
        who.enter_mfa(device.code(time.time() + 30))  # the next one, early
        sign_in(who, key)

    def test_one_that_aws_ended_wants_a_new_code_too(
        self, aws: LocalAws, alice: User, key: Key
    ) -> None:
        device = alice.mfa()
        who = principal(mfa_serial=device.serial, mfa_code=device.code())
        sign_in(who, key)
        aws.expire(aws.calls[-1].access_key_id)
        with pytest.raises(MfaNeeded):
            sign_in(who, key)

    @pytest.mark.parametrize("code", ["", "12345", "1234567", "12345a", "１２３４５６", "123456\n"])
    def test_what_is_no_code_costs_no_call(self, aws: LocalAws, alice: User, code: str) -> None:
        who = principal(mfa_serial=alice.mfa().serial)
        with pytest.raises(MfaRefused):
            who.enter_mfa(code)
        assert aws.calls == []

    def test_wrong_code_wrong_serial_used_code(self, aws: LocalAws, alice: User, key: Key) -> None:
        device = alice.mfa()
        good = device.code()
        wrong = f"{(int(good) + 1) % 1_000_000:06d}"
        who = principal(mfa_serial=device.serial)
        with pytest.raises(MfaRefused):
            who.enter_mfa(wrong)
        with pytest.raises(MfaNeeded):  # the wrong one is not tried again
            who.identity(time.time())
        who.enter_mfa(good)
        with pytest.raises(MfaRefused):
            who.enter_mfa(good)
        foreign = principal(mfa_serial=aws.user("bob").mfa().serial)
        with pytest.raises(MfaRefused):
            foreign.enter_mfa(good)

    def test_a_session_identity_cannot_begin_one(
        self, aws: LocalAws, alice: User, profile: Profiles
    ) -> None:
        profile("sso", aws.sso_role("Developer", "ann@example.com"), region="eu-west-1")
        who = principal(
            profile="sso", mfa_serial="arn:aws:iam::111122223333:mfa/x", mfa_code="123456"
        )
        with pytest.raises(AwsError, match="long-term keys"):
            who.identity(time.time())
        assert aws.calls == []

    def test_the_profiles_own_device(
        self, aws: LocalAws, alice: User, key: Key, profile: Profiles
    ) -> None:
        device = alice.mfa()
        role = aws.role(
            "ops",
            trust(alice.arn, Condition=MFA),
            policies=[allow("kms:Encrypt", resource=key.arn)],
        )
        profile("ops", role_arn=role.arn, source_profile="dev", mfa_serial=device.serial)
        who = principal(profile="ops")
        with pytest.raises(MfaNeeded) as caught:
            who.identity(time.time())
        assert caught.value.serial == device.serial
        good = device.code()
        with pytest.raises(MfaRefused):
            who.enter_mfa(f"{(int(good) + 1) % 1_000_000:06d}")
        who.enter_mfa(good)
        assert "assumed-role/ops" in who.identity(time.time()).arn
        who.encrypt(key.arn, b"proof", CONTEXT, time.time())


class TestOutages:
    @pytest.mark.parametrize("fault", [{"code": "Throttling"}, {"drop": True}, {"status": 503}])
    @pytest.mark.parametrize("service", ["sts", "kms"])
    def test_an_outage_is_said_and_passes(
        self, aws: LocalAws, alice: User, key: Key, service: str, fault: dict[str, object]
    ) -> None:
        who = principal()
        aws.fault(service, times=None, **fault)  # type: ignore[arg-type]  # a test's shorthand
        with pytest.raises(AwsUnavailable):
            sign_in(who, key)
        aws.clear_faults()
        sign_in(who, key)

    def test_a_renewal_that_fails_leaves_what_is_still_good(
        self, aws: LocalAws, alice: User, key: Key
    ) -> None:
        who = principal()
        now = time.time()
        first = who.session_credentials(now)
        aws.fault("sts", code="Throttling", times=None)
        assert who.session_credentials(now + 700) is first
        with pytest.raises(AwsUnavailable):
            who.session_credentials(now + 890)

    def test_a_wrong_clock(self, aws: LocalAws, alice: User) -> None:
        aws.skew(3600)
        with pytest.raises(ClockSkew) as caught:
            principal().identity(time.time())
        assert "60 min behind" in caught.value.public

    def test_half_an_answer_is_no_session(self, aws: LocalAws, alice: User) -> None:
        body = b"<GetSessionTokenResponse><GetSessionTokenResult><Credentials><AccessKeyId>ASIA"
        body += b"</AccessKeyId></Credentials></GetSessionTokenResult></GetSessionTokenResponse>"
        aws.fault("sts", "GetSessionToken", status=200, body=body)
        with pytest.raises(AwsUnavailable, match="no SecretAccessKey"):
            principal().session_credentials(time.time())


def test_no_secret_is_said(
    aws: LocalAws, alice: User, key: Key, caplog: pytest.LogCaptureFixture
) -> None:
    device = alice.mfa()
    code = device.code()
    settings = CredentialSettings(profile="dev", mfa_serial=device.serial, mfa_code=code)
    assert code not in repr(settings)
    with caplog.at_level(logging.INFO):
        who = AwsPrincipal(settings, {})
        credentials = who.session_credentials(time.time())
        sign_in(who, key)
        aws.fault("kms", code="ExpiredTokenException")
        with pytest.raises(MfaNeeded):
            sign_in(who, key)
    person = who._logins.current()
    said = caplog.text + repr(who) + repr(person) + repr(vars(person)) + repr(credentials)
    secrets = (code, credentials.secret_access_key, credentials.session_token)
    assert not [secret for secret in secrets if secret in said]


def test_boto3_is_loaded_at_the_first_use() -> None:
    program = (
        "import sys\n"
        "from iam_auth_proxy.aws.credentials import AwsPrincipal, CredentialSettings\n"
        "AwsPrincipal(CredentialSettings())\n"
        "print([name for name in sys.modules if name.startswith('boto')])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout == "[]\n"
