"""STS: which session may be had by whom, and what it may do."""

from __future__ import annotations

import json
from typing import Any

import pytest

from iam_auth_proxy.local_aws import Keys, LocalAws, allow, deny, trust
from tests.support.local_aws import UNCHECKED, Clock, refusal, refused

DENY_ALL = json.dumps(deny("*"))
ROOM = "arn:aws:iam::111122223333"


def as_keys(answer: Any) -> Keys:
    made = answer["Credentials"]
    return Keys(made["AccessKeyId"], made["SecretAccessKey"], made["SessionToken"])


def arn_of(aws: LocalAws, keys: Keys) -> str:
    return str(aws.client("sts", keys).get_caller_identity()["Arn"])


# -- fact 1: who is who ---------------------------------------------------------------------------


def test_two_sessions_differ_and_each_is_its_user(aws: LocalAws) -> None:
    people = {name: aws.user(name) for name in ("alice", "bob")}
    seen = set()
    for person in people.values():
        sts = aws.client("sts", person.keys())
        for _ in range(2):
            session = as_keys(sts.get_session_token())
            seen |= {session.access_key_id, session.secret_access_key, session.session_token}
            identity = aws.client("sts", session).get_caller_identity()
            assert identity["Arn"] == person.arn
            assert identity["UserId"] == person.user_id
            assert identity["Account"] == "111122223333"
    assert len(seen) == 12


# -- fact 7: who may call GetSessionToken ---------------------------------------------------------


def test_get_session_token_needs_long_term_keys(aws: LocalAws) -> None:
    alice = aws.user("alice", policies=[allow("*")])
    role = aws.role("dev", trust(alice.arn), policies=[allow("*")])
    sts = aws.client("sts", alice.keys())
    sessions = {
        "session": as_keys(sts.get_session_token()),
        "federated": as_keys(sts.get_federation_token(Name="bob", Policy=json.dumps(allow("*")))),
        "role": as_keys(sts.assume_role(RoleArn=role.arn, RoleSessionName="me")),
        "sso": aws.sso_role("Admin", "alice@example.com", policies=[allow("*")]),
    }
    for session in sessions.values():
        client = aws.client("sts", session)
        told = refusal(client.get_session_token)
        assert (told.code, told.status) == ("AccessDenied", 403)
        assert told.message == "Cannot call GetSessionToken with session credentials"
        told = refusal(client.get_federation_token, Name="xx")
        assert told.message == "Cannot call GetFederationToken with session credentials"


@pytest.mark.parametrize("seconds", [0, 899, 129_601])
def test_durations_outside_the_limits(aws: LocalAws, seconds: int) -> None:
    alice = aws.user("alice", policies=[allow("*")]).keys()
    sts = aws.client("sts", alice, config=UNCHECKED)
    assert refused(sts.get_session_token, DurationSeconds=seconds) == ("ValidationError", 400)
    told = refused(sts.get_federation_token, Name="xx", DurationSeconds=seconds)
    assert told == ("ValidationError", 400)


def test_durations(aws: LocalAws, clock: Clock) -> None:
    for who, asked, got in (
        (aws.user("alice").keys(), 129_600, 129_600),
        (aws.user("bob").keys(), 900, 900),
        (aws.root(), 129_600, 3600),
        (aws.root(), 900, 900),
    ):
        answer = aws.client("sts", who).get_session_token(DurationSeconds=asked)
        assert answer["Credentials"]["Expiration"].timestamp() == int(clock.now) + got


def test_no_policy_can_forbid_it(aws: LocalAws) -> None:
    alice = aws.user("alice", policies=[deny("sts:*")]).keys()
    assert arn_of(aws, as_keys(aws.client("sts", alice).get_session_token())).endswith("/alice")


# -- fact 8: what such a session may do -----------------------------------------------------------


def test_a_session_has_its_users_rights_but_no_iam_without_mfa(aws: LocalAws) -> None:
    alice = aws.user("alice", policies=[allow("*")])
    key, device = aws.key(), alice.mfa()
    sts = aws.client("sts", alice.keys())
    without = as_keys(sts.get_session_token())
    aws.client("kms", without).encrypt(KeyId=key.arn, Plaintext=b"x")
    assert refused(aws.client("iam", without).get_user) == ("InvalidClientTokenId", 403)
    with_mfa = as_keys(sts.get_session_token(SerialNumber=device.serial, TokenCode=device.code()))
    assert aws.client("iam", with_mfa).get_user()["User"]["UserName"] == "alice"


def test_multi_factor_auth_present(aws: LocalAws) -> None:
    """Absent for long-term keys, "false" for a session without MFA, "true" with it."""
    statements = [
        {
            "Effect": "Allow",
            "Action": action,
            "Resource": "*",
            "Condition": {operator: {"aws:MultiFactorAuthPresent": value}},
        }
        for action, operator, value in (
            ("kms:ListAliases", "Bool", "true"),
            ("kms:Encrypt", "Bool", "false"),
            ("kms:CreateKey", "Null", "true"),
            ("kms:DescribeKey", "BoolIfExists", "true"),
        )
    ]
    policy = {"Version": "2012-10-17", "Statement": statements}
    alice = aws.user("alice", policies=[policy])
    key, device = aws.key(), alice.mfa()
    long_term = alice.keys()
    sts = aws.client("sts", long_term)
    plain = as_keys(sts.get_session_token())
    mfa = as_keys(sts.get_session_token(SerialNumber=device.serial, TokenCode=device.code()))
    allowed: dict[str, set[str]] = {}
    for name, who in (("long-term", long_term), ("plain", plain), ("mfa", mfa)):
        kms = aws.client("kms", who)
        calls: dict[str, tuple[Any, dict[str, Any]]] = {
            "list": (kms.list_aliases, {}),
            "encrypt": (kms.encrypt, {"KeyId": key.arn, "Plaintext": b"x"}),
            "create": (kms.create_key, {}),
            "describe": (kms.describe_key, {"KeyId": key.arn}),
        }
        allowed[name] = set()
        for what, (operation, arguments) in calls.items():
            try:
                operation(**arguments)
                allowed[name].add(what)
            except kms.exceptions.ClientError:
                pass
    assert allowed == {
        "long-term": {"create", "describe"},
        "plain": {"encrypt"},
        "mfa": {"list", "describe"},
    }


def test_a_session_may_call_little_of_sts(aws: LocalAws) -> None:
    alice = aws.user("alice", policies=[allow("*")])
    role = aws.role("dev", trust(alice.arn))
    session = as_keys(aws.client("sts", alice.keys()).get_session_token())
    assumed = aws.client("sts", session).assume_role(RoleArn=role.arn, RoleSessionName="me")
    assert assumed["AssumedRoleUser"]["Arn"].endswith(":assumed-role/dev/me")
    told = refused(aws.client("sts", session).get_access_key_info, AccessKeyId="A" * 20)
    assert told == ("AccessDenied", 403)


# -- fact 9: federated sessions -------------------------------------------------------------------


def test_a_federated_session_without_a_policy_may_do_nothing(aws: LocalAws) -> None:
    key = aws.key()
    alice = aws.user("alice", policies=[allow("*")])
    answer = aws.client("sts", alice.keys()).get_federation_token(Name="Somebody.Else")
    assert answer["FederatedUser"] == {
        "Arn": "arn:aws:sts::111122223333:federated-user/Somebody.Else",
        "FederatedUserId": "111122223333:Somebody.Else",
    }
    nobody = as_keys(answer)
    assert arn_of(aws, nobody).endswith(":federated-user/Somebody.Else")  # spoofable: no "alice"
    kms = aws.client("kms", nobody)
    assert refused(kms.encrypt, KeyId=key.arn, Plaintext=b"x") == ("AccessDeniedException", 400)
    assert refused(aws.client("iam", nobody).get_user) == ("InvalidClientTokenId", 403)
    told = refused(
        aws.client("sts", nobody).assume_role, RoleArn=f"{ROOM}:role/x-y", RoleSessionName="me"
    )
    assert told == ("AccessDenied", 403)
    root = {"Effect": "Allow", "Principal": {"AWS": f"{ROOM}:root"}}
    named = {"Effect": "Allow", "Principal": {"AWS": arn_of(aws, nobody)}}
    rest = {"Action": "kms:*", "Resource": "*"}
    key.put_policy({"Version": "2012-10-17", "Statement": [root | rest, named | rest]})
    kms.encrypt(KeyId=key.arn, Plaintext=b"x")  # a resource policy that names it still grants


def test_a_federated_session_has_what_both_policies_allow(aws: LocalAws) -> None:
    key = aws.key()
    alice = aws.user("alice", policies=[allow("kms:Encrypt", "sts:GetFederationToken")])
    sts = aws.client("sts", alice.keys())
    policy = json.dumps(allow("kms:Encrypt", "kms:Decrypt", "kms:DescribeKey"))
    kms = aws.client("kms", as_keys(sts.get_federation_token(Name="bob", Policy=policy)))
    kms.encrypt(KeyId=key.arn, Plaintext=b"x")
    assert refused(kms.describe_key, KeyId=key.arn) == ("AccessDeniedException", 400)


def test_get_federation_token_needs_a_permission_that_can_bind_the_name(aws: LocalAws) -> None:
    stranger = aws.client("sts", aws.user("stranger").keys())
    assert refused(stranger.get_federation_token, Name="bob") == ("AccessDenied", 403)
    own = "arn:aws:sts::111122223333:federated-user/${aws:username}"
    alice = aws.user("alice", policies=[allow("sts:GetFederationToken", resource=own)])
    sts = aws.client("sts", alice.keys())
    assert arn_of(aws, as_keys(sts.get_federation_token(Name="alice"))).endswith("/alice")
    assert refused(sts.get_federation_token, Name="bob") == ("AccessDenied", 403)
    assert refused(sts.get_federation_token, Name="b c") == ("ValidationError", 400)


# -- fact 10: session policies --------------------------------------------------------------------


def test_a_deny_all_session_policy_leaves_get_caller_identity(aws: LocalAws) -> None:
    key = aws.key()
    alice = aws.user("alice", policies=[allow("*")])
    role = aws.role("dev", trust(alice.arn), policies=[allow("*")])
    answer = aws.client("sts", alice.keys()).assume_role(
        RoleArn=role.arn, RoleSessionName="me", Policy=DENY_ALL
    )
    nothing = as_keys(answer)
    assert arn_of(aws, nothing) == "arn:aws:sts::111122223333:assumed-role/dev/me"
    told = refusal(aws.client("kms", nothing).encrypt, KeyId=key.arn, Plaintext=b"x")
    assert told.code == "AccessDeniedException"
    assert "explicit deny in a session policy" in told.message
    assert refused(aws.client("iam", nothing).list_users) == ("AccessDenied", 403)
    client = aws.client("sts", nothing)
    told_again = refused(client.assume_role, RoleArn=role.arn, RoleSessionName="me")
    assert told_again == ("AccessDenied", 403)


def test_a_session_policy_cannot_give_more(aws: LocalAws) -> None:
    key = aws.key()
    role = aws.role("dev", trust("111122223333"), policies=[allow("kms:Encrypt")])
    kms = aws.client("kms", role.session("me", policy=allow("kms:*")))
    kms.encrypt(KeyId=key.arn, Plaintext=b"x")
    assert refused(kms.describe_key, KeyId=key.arn) == ("AccessDeniedException", 400)


@pytest.mark.parametrize(
    ("policy", "code"),
    [("{", "MalformedPolicyDocument"), (json.dumps(allow("a" * 2048 + ":b")), "ValidationError")],
)
def test_a_bad_session_policy(aws: LocalAws, policy: str, code: str) -> None:
    alice = aws.user("alice", policies=[allow("*")]).keys()
    told = refused(aws.client("sts", alice).get_federation_token, Name="xx", Policy=policy)
    assert told == (code, 400)


# -- fact 11: MFA ---------------------------------------------------------------------------------


def test_mfa_codes(aws: LocalAws, clock: Clock) -> None:
    alice, bob = aws.user("alice"), aws.user("bob")
    mine, theirs = alice.mfa(), bob.mfa()
    sts = aws.client("sts", alice.keys())

    def told(serial: str, code: str) -> str:
        answer = refusal(sts.get_session_token, SerialNumber=serial, TokenCode=code)
        assert (answer.code, answer.status) == ("AccessDenied", 403)
        return answer.message

    wrong = f"{(int(mine.code()) + 1) % 1_000_000:06d}"
    assert "serial number" in told(mine.serial + "x", mine.code())
    assert "serial number" in told(theirs.serial, theirs.code())
    assert "one time pass code" in told(mine.serial, wrong)
    assert "one time pass code" in told(mine.serial, mine.code(clock.now - 90))
    assert "one time pass code" in told(mine.serial, mine.code(clock.now + 90))
    code = mine.code()
    sts.get_session_token(SerialNumber=mine.serial, TokenCode=code)
    assert "one time pass code" in told(mine.serial, code)
    clock.now += 30
    assert mine.code() != code
    sts.get_session_token(SerialNumber=mine.serial, TokenCode=mine.code())
    assert refused(sts.get_session_token, SerialNumber=mine.serial)[0] == "AccessDenied"


def test_a_role_that_wants_mfa(aws: LocalAws) -> None:
    alice = aws.user("alice")
    device = alice.mfa()
    condition = {"Bool": {"aws:MultiFactorAuthPresent": "true"}}
    role = aws.role("dev", trust(alice.arn, Condition=condition), policies=[allow("kms:*")])
    sts = aws.client("sts", alice.keys())
    asked = {"RoleArn": role.arn, "RoleSessionName": "me"}
    assert refused(sts.assume_role, **asked) == ("AccessDenied", 403)
    sts.assume_role(**asked, SerialNumber=device.serial, TokenCode=device.code())


# -- AssumeRole -----------------------------------------------------------------------------------


def test_who_may_assume_a_role(aws: LocalAws) -> None:
    may = [allow("sts:AssumeRole")]
    named, able, neither = (
        aws.user("named"),
        aws.user("able", policies=may),
        aws.user("neither"),
    )
    foreign = aws.user("foreign", policies=may, account="444455556666")
    poor = aws.user("poor", account="444455556666")
    role = aws.role("dev", trust(named.arn, foreign.arn, poor.arn, f"{ROOM}:root"))
    asked = {"RoleArn": role.arn, "RoleSessionName": "me"}
    for person in (named, able, foreign):
        aws.client("sts", person.keys()).assume_role(**asked)
    for person in (neither, poor):
        client = aws.client("sts", person.keys())
        assert refused(client.assume_role, **asked) == ("AccessDenied", 403)
    assert refused(aws.client("sts", aws.root()).assume_role, **asked) == ("AccessDenied", 403)
    client = aws.client("sts", able.keys())
    told = refused(client.assume_role, RoleArn=f"{ROOM}:role/none", RoleSessionName="me")
    assert told == ("AccessDenied", 403)


def test_conditions_of_a_trust_policy(aws: LocalAws) -> None:
    condition = {
        "StringEquals": {"sts:ExternalId": "s3cret", "sts:RoleSessionName": "${aws:username}"}
    }
    alice = aws.user("alice")
    role = aws.role("dev", trust(alice.arn, Condition=condition))
    sts = aws.client("sts", alice.keys())
    asked = {"RoleArn": role.arn, "RoleSessionName": "alice"}
    sts.assume_role(**asked, ExternalId="s3cret")
    assert refused(sts.assume_role, **asked)[0] == "AccessDenied"
    assert refused(sts.assume_role, **asked, ExternalId="other")[0] == "AccessDenied"
    asked["RoleSessionName"] = "bob"
    assert refused(sts.assume_role, **asked, ExternalId="s3cret")[0] == "AccessDenied"


def test_durations_of_role_sessions(aws: LocalAws) -> None:
    alice = aws.user("alice", policies=[allow("*")])
    role = aws.role("dev", trust("111122223333"), policies=[allow("*")], max_session=7200)
    asked = {"RoleArn": role.arn, "RoleSessionName": "me"}
    sts = aws.client("sts", alice.keys(), config=UNCHECKED)
    session = as_keys(sts.assume_role(**asked, DurationSeconds=7200))
    assert refused(sts.assume_role, **asked, DurationSeconds=7201) == ("ValidationError", 400)
    assert refused(sts.assume_role, **asked, DurationSeconds=899) == ("ValidationError", 400)
    chained = aws.client("sts", session)
    chained.assume_role(**asked, DurationSeconds=3600)
    told = refusal(chained.assume_role, **asked, DurationSeconds=3601)
    assert (told.code, "role chaining" in told.message) == ("ValidationError", True)


# -- fact 16: keys and users that go --------------------------------------------------------------


def test_deactivated_and_deleted(aws: LocalAws) -> None:
    alice = aws.user("alice", policies=[allow("kms:*")])
    keys = alice.keys()
    session = as_keys(aws.client("sts", keys).get_session_token())
    alice.deactivate(keys)
    assert refused(aws.client("sts", keys).get_caller_identity) == ("InvalidClientTokenId", 403)
    assert refused(aws.client("kms", keys).list_aliases) == ("UnrecognizedClientException", 400)
    assert arn_of(aws, session) == alice.arn  # assumed: a deactivated key's session goes on
    alice.delete()
    assert refused(aws.client("sts", session).get_caller_identity)[0] == "InvalidClientTokenId"


def test_a_recreated_user_is_another(aws: LocalAws) -> None:
    alice = aws.user("alice")
    statement = {"Effect": "Allow", "Principal": {"AWS": alice.arn}, "Action": "kms:*"}
    key = aws.key(policy={"Version": "2012-10-17", "Statement": {**statement, "Resource": "*"}})
    role = aws.role("dev", trust(alice.arn))
    asked = {"RoleArn": role.arn, "RoleSessionName": "me"}
    first = alice.keys()
    aws.client("kms", first).encrypt(KeyId=key.arn, Plaintext=b"x")
    aws.client("sts", first).assume_role(**asked)
    alice.delete()
    again = aws.user("alice")
    assert (again.arn, again.user_id == alice.user_id) == (alice.arn, False)
    second = again.keys()
    kms, sts = aws.client("kms", second), aws.client("sts", second)
    assert refused(kms.encrypt, KeyId=key.arn, Plaintext=b"x")[0] == "AccessDeniedException"
    assert refused(sts.assume_role, **asked)[0] == "AccessDenied"


# -- fact 17: ARNs --------------------------------------------------------------------------------


def test_the_arns_of_every_kind(aws: LocalAws) -> None:
    boss = aws.user("boss", path="/dept/")
    role = aws.role("dev", trust("111122223333"), path="/teams/blue/")
    assert role.arn == f"{ROOM}:role/teams/blue/dev"
    assert arn_of(aws, role.session("me")) == "arn:aws:sts::111122223333:assumed-role/dev/me"
    identity = aws.client("sts", role.session("me")).get_caller_identity()
    assert identity["UserId"] == f"{role.role_id}:me"
    assert arn_of(aws, boss.keys()) == f"{ROOM}:user/dept/boss"
    root = aws.client("sts", aws.root()).get_caller_identity()
    assert (root["Arn"], root["UserId"]) == (f"{ROOM}:root", "111122223333")


def test_an_sso_role_gets_another_suffix_when_it_is_assigned_anew(aws: LocalAws) -> None:
    first = arn_of(aws, aws.sso_role("Admin", "a@b.example"))
    again = arn_of(aws, aws.sso_role("Admin", "a@b.example"))
    other = arn_of(aws, aws.sso_role("Admin", "a@b.example", suffix="0123456789abcdef"))
    assert first == again != other
    assert other.endswith(":assumed-role/AWSReservedSSO_Admin_0123456789abcdef/a@b.example")
    roles = aws.state.accounts["111122223333"].roles.values()
    assert {role.path for role in roles} == {"/aws-reserved/sso.amazonaws.com/eu-west-1/"}


@pytest.mark.parametrize(
    ("region", "partition"), [("cn-north-1", "aws-cn"), ("us-gov-west-1", "aws-us-gov")]
)
def test_other_partitions(region: str, partition: str) -> None:
    with LocalAws(region=region) as aws:
        alice = aws.user("alice").keys()
        assert arn_of(aws, alice) == f"arn:{partition}:iam::111122223333:user/alice"
        assert aws.key().arn.startswith(f"arn:{partition}:kms:{region}:")
        wrong = aws.client("sts", alice, region="eu-west-1")
        assert refused(wrong.get_caller_identity) == ("SignatureDoesNotMatch", 403)


def test_any_region_is_served(aws: LocalAws) -> None:
    alice = aws.user("alice").keys()
    for region in ("eu-west-1", "us-east-1", "ap-southeast-2"):
        aws.client("sts", alice, region=region).get_caller_identity()
        assert aws.calls[-1].region == region


# -- the size of tokens ---------------------------------------------------------------------------


def test_token_sizes(aws: LocalAws) -> None:
    sts = aws.client("sts", aws.user("alice").keys())
    assert len(as_keys(sts.get_session_token()).session_token) == 700
    aws.session_token_size = 4096
    answer = sts.get_session_token()
    assert len(as_keys(answer).session_token) == answer["SessionTokenSize"] == 4096
    aws.session_token_size = 500
    answer = sts.get_session_token(MinimumSessionTokenSize=2000)
    assert len(as_keys(answer).session_token) == 2000
    assert arn_of(aws, as_keys(answer)).endswith("/alice")
