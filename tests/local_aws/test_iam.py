"""IAM: setting things up through boto3, as one would at AWS."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from iam_auth_proxy.local_aws import Keys, LocalAws, allow, trust
from iam_auth_proxy.local_aws.totp import code_at
from tests.support.local_aws import Clock, refused


@pytest.fixture
def iam(aws: LocalAws) -> Any:
    return aws.client("iam", aws.root())


def test_a_user_with_keys_and_a_policy(aws: LocalAws, iam: Any) -> None:
    made = iam.create_user(UserName="alice", Path="/dept/")["User"]
    assert made["Arn"] == "arn:aws:iam::111122223333:user/dept/alice"
    assert iam.get_user(UserName="ALICE")["User"]["UserId"] == made["UserId"]
    secret = iam.create_access_key(UserName="alice")["AccessKey"]
    keys = Keys(secret["AccessKeyId"], secret["SecretAccessKey"])
    assert aws.client("sts", keys).get_caller_identity()["Arn"] == made["Arn"]
    kms = aws.client("kms", keys)
    assert refused(kms.list_aliases)[0] == "AccessDeniedException"
    document = json.dumps(allow("kms:ListAliases"))
    iam.put_user_policy(UserName="alice", PolicyName="p", PolicyDocument=document)
    kms.list_aliases()
    read = iam.get_user_policy(UserName="alice", PolicyName="p")
    assert read["PolicyDocument"] == allow("kms:ListAliases")
    assert iam.list_user_policies(UserName="alice")["PolicyNames"] == ["p"]
    assert [user["UserName"] for user in iam.list_users()["Users"]] == ["alice"]
    iam.update_access_key(UserName="alice", AccessKeyId=keys.access_key_id, Status="Inactive")
    assert refused(kms.list_aliases) == ("UnrecognizedClientException", 400)
    listed = iam.list_access_keys(UserName="alice")["AccessKeyMetadata"]
    assert [(key["AccessKeyId"], key["Status"]) for key in listed] == [
        (keys.access_key_id, "Inactive")
    ]
    assert refused(iam.delete_user, UserName="alice") == ("DeleteConflict", 409)
    iam.delete_user_policy(UserName="alice", PolicyName="p")
    iam.delete_access_key(UserName="alice", AccessKeyId=keys.access_key_id)
    iam.delete_user(UserName="alice")
    assert refused(iam.get_user, UserName="alice") == ("NoSuchEntity", 404)


def test_a_role(aws: LocalAws, iam: Any) -> None:
    alice = aws.user("alice")
    arn = iam.create_role(
        RoleName="dev",
        Path="/teams/",
        AssumeRolePolicyDocument=json.dumps(trust(alice.arn)),
        MaxSessionDuration=7200,
    )["Role"]["Arn"]
    role = iam.get_role(RoleName="dev")["Role"]
    assert (role["Arn"], role["AssumeRolePolicyDocument"]) == (arn, trust(alice.arn))
    document = json.dumps(allow("kms:*"))
    iam.put_role_policy(RoleName="dev", PolicyName="p", PolicyDocument=document)
    assert iam.list_role_policies(RoleName="dev")["PolicyNames"] == ["p"]
    assert iam.get_role_policy(RoleName="dev", PolicyName="p")["RoleName"] == "dev"
    sts = aws.client("sts", alice.keys())
    asked = {"RoleArn": arn, "RoleSessionName": "me"}
    sts.assume_role(**asked)
    closed = json.dumps(trust("444455556666"))
    iam.update_assume_role_policy(RoleName="dev", PolicyDocument=closed)
    assert refused(sts.assume_role, **asked) == ("AccessDenied", 403)
    assert refused(iam.delete_role, RoleName="dev") == ("DeleteConflict", 409)
    iam.delete_role_policy(RoleName="dev", PolicyName="p")
    iam.delete_role(RoleName="dev")
    assert refused(iam.get_role, RoleName="dev") == ("NoSuchEntity", 404)


def test_a_virtual_mfa_device(aws: LocalAws, iam: Any, clock: Clock) -> None:
    alice = aws.user("alice")
    made = iam.create_virtual_mfa_device(VirtualMFADeviceName="phone")["VirtualMFADevice"]
    serial, seed = made["SerialNumber"], base64.b32decode(made["Base32StringSeed"])
    first, second = code_at(seed, clock.now), code_at(seed, clock.now + 30)
    asked = {"UserName": "alice", "SerialNumber": serial}
    told = refused(
        iam.enable_mfa_device, **asked, AuthenticationCode1=second, AuthenticationCode2=first
    )
    assert told == ("InvalidAuthenticationCode", 403)
    iam.enable_mfa_device(**asked, AuthenticationCode1=first, AuthenticationCode2=second)
    assert iam.list_mfa_devices(UserName="alice")["MFADevices"][0]["SerialNumber"] == serial
    sts = aws.client("sts", alice.keys())
    used = refused(sts.get_session_token, SerialNumber=serial, TokenCode=second)
    assert used == ("AccessDenied", 403)
    clock.now += 60
    sts.get_session_token(SerialNumber=serial, TokenCode=code_at(seed, clock.now))
    assert refused(iam.delete_virtual_mfa_device, SerialNumber=serial)[0] == "DeleteConflict"
    iam.deactivate_mfa_device(**asked)
    clock.now += 60
    later = {"SerialNumber": serial, "TokenCode": code_at(seed, clock.now)}
    assert refused(sts.get_session_token, **later) == ("AccessDenied", 403)
    iam.delete_virtual_mfa_device(SerialNumber=serial)
    assert iam.list_mfa_devices(UserName="alice")["MFADevices"] == []


def test_the_same_name_twice(aws: LocalAws, iam: Any) -> None:
    taken = ("EntityAlreadyExists", 409)
    document = json.dumps(trust("111122223333"))
    iam.create_user(UserName="alice")
    assert refused(iam.create_user, UserName="Alice") == taken
    iam.create_role(RoleName="dev", AssumeRolePolicyDocument=document)
    assert refused(iam.create_role, RoleName="DEV", AssumeRolePolicyDocument=document) == taken
    iam.create_virtual_mfa_device(VirtualMFADeviceName="phone")
    assert refused(iam.create_virtual_mfa_device, VirtualMFADeviceName="phone") == taken
    with pytest.raises(ValueError, match="already"):
        aws.user("ALICE")
    with pytest.raises(ValueError, match="already"):
        aws.role("dev", trust("111122223333"))


def test_iam_needs_permission(aws: LocalAws) -> None:
    own = "arn:aws:iam::111122223333:user/${aws:username}"
    policy = allow("iam:GetUser", "iam:CreateAccessKey", resource=own)
    iam = aws.client("iam", aws.user("alice", policies=[policy]).keys())
    aws.user("bob")
    iam.create_access_key()
    assert iam.get_user()["User"]["UserName"] == "alice"
    assert refused(iam.get_user, UserName="bob") == ("AccessDenied", 403)
    assert refused(iam.create_user, UserName="carol") == ("AccessDenied", 403)
    assert refused(iam.create_access_key) == ("LimitExceeded", 409)


def test_refusals(aws: LocalAws, iam: Any) -> None:
    aws.user("alice")
    named = {"UserName": "alice", "PolicyName": "p"}
    for document in ("{}", "[", json.dumps({**allow("kms:*"), "More": 1}), json.dumps(trust("*"))):
        told = refused(iam.put_user_policy, **named, PolicyDocument=document)
        assert told == ("MalformedPolicyDocument", 400)
    missing = json.dumps(trust("arn:aws:iam::111122223333:user/none"))
    told = refused(iam.create_role, RoleName="dev", AssumeRolePolicyDocument=missing)
    assert told == ("MalformedPolicyDocument", 400)
    reserved = {"RoleName": "x", "Path": "/aws-reserved/sso.amazonaws.com/"}
    told = refused(iam.create_role, **reserved, AssumeRolePolicyDocument=json.dumps(trust("*")))
    assert told == ("InvalidInput", 400)
    assert refused(iam.get_user_policy, **named) == ("NoSuchEntity", 404)
    assert refused(iam.create_user, UserName="a b") == ("ValidationError", 400)
    gone = {"UserName": "alice", "AccessKeyId": "A" * 20}
    assert refused(iam.delete_access_key, **gone) == ("NoSuchEntity", 404)
    assert refused(iam.get_user) == ("ValidationError", 400)


def test_what_is_not_emulated_says_so(aws: LocalAws, iam: Any) -> None:
    aws.user("alice")
    unknown = json.dumps(allow("kms:*", Condition={"StringEquals": {"aws:PrincipalTag/a": "b"}}))
    for operation, arguments in (
        (iam.create_group, {"GroupName": "g"}),
        (iam.create_user, {"UserName": "bob", "Tags": [{"Key": "a", "Value": "b"}]}),
        (
            iam.put_user_policy,
            {"UserName": "alice", "PolicyName": "p", "PolicyDocument": unknown},
        ),
    ):
        assert refused(operation, **arguments) == ("NotImplemented", 501)
    assert refused(iam.get_user_policy, UserName="alice", PolicyName="p")[0] == "NoSuchEntity"
