"""What is not there is refused honestly, and the order of the checks."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from iam_auth_proxy.local_aws import LocalAws, NotEmulated, allow
from tests.support.local_aws import form, refused, sign

# -- fact 19: never 200 ---------------------------------------------------------------------------


@pytest.mark.parametrize("service", ["ec2", "lambda", "sqs", "sso", "", "sts.amazonaws.com"])
def test_an_unknown_service(aws: LocalAws, service: str) -> None:
    answer = sign(aws, aws.root(), service=service or "x").send(aws)
    assert answer.status == 501
    assert aws.calls[-1].status == 501


@pytest.mark.parametrize(
    "action", ["AssumeRoleWithSAML", "AssumeRoot", "GetWebIdentityToken", "Nonsense", "__init__"]
)
def test_an_unknown_operation_of_sts(aws: LocalAws, action: str) -> None:
    body = form(Action=action, Version="2011-06-15")
    assert sign(aws, aws.root(), body=body).send(aws).status == 501


def test_unknown_operations_elsewhere(aws: LocalAws) -> None:
    root = aws.root()
    clients: list[tuple[Any, str, dict[str, Any]]] = [
        (aws.client("kms", root), "list_keys", {}),
        (aws.client("iam", root), "list_groups", {}),
        (aws.client("sts", root), "get_access_key_info", {"AccessKeyId": "A" * 20}),
        (aws.client("dynamodb", root), "list_backups", {}),
        (aws.client("s3", root), "get_bucket_policy", {"Bucket": "bucket"}),
    ]
    for client, operation, arguments in clients:
        assert refused(getattr(client, operation), **arguments) == ("NotImplemented", 501)


def test_an_unknown_parameter(aws: LocalAws) -> None:
    body = form(Action="GetCallerIdentity", Version="2011-06-15", More="1")
    assert sign(aws, aws.root(), body=body).send(aws).status == 501
    sts = aws.client("sts", aws.user("alice", policies=[allow("*")]).keys())
    asked = {"Name": "bob", "Tags": [{"Key": "a", "Value": "b"}]}
    assert refused(sts.get_federation_token, **asked) == ("NotImplemented", 501)


def test_an_unknown_condition_raises_where_it_is_set_up(aws: LocalAws) -> None:
    unknown = allow("kms:*", Condition={"StringEquals": {"aws:PrincipalOrgID": "o-1"}})
    with pytest.raises(NotEmulated):
        aws.user("alice", policies=[unknown])
    with pytest.raises(NotEmulated):
        aws.user("bob").put_policy(unknown)
    assert "alice" not in aws.state.accounts["111122223333"].users


# -- the order of the checks ----------------------------------------------------------------------


def test_faults_come_one_at_a_time_in_awss_order(aws: LocalAws) -> None:
    """Key, token, clock, signature, expiry, permission: each hides the next."""
    alice = aws.user("alice")
    made = aws.client("sts", alice.keys()).get_session_token()["Credentials"]
    session = replace(
        alice.keys(),
        access_key_id=made["AccessKeyId"],
        secret_access_key=made["SecretAccessKey"],
        session_token=made["SessionToken"],
    )
    bad = replace(session, access_key_id="ASIANONE", secret_access_key="x", session_token="x")
    aws.expire(session.access_key_id)
    aws.skew(3600)

    def told(keys: Any) -> str:
        return refused(aws.client("kms", keys).list_aliases)[0]

    assert told(bad) == "UnrecognizedClientException"
    bad = replace(bad, access_key_id=session.access_key_id)
    assert told(bad) == "UnrecognizedClientException"  # the token
    bad = replace(bad, session_token=session.session_token)
    assert told(bad) == "InvalidSignatureException"  # the clock
    aws.skew(0)
    assert told(bad) == "InvalidSignatureException"  # the signature
    assert told(session) == "ExpiredTokenException"
    fresh = alice.keys()
    assert told(fresh) == "AccessDeniedException"


def test_a_session_that_does_not_exist_cannot_be_ended(aws: LocalAws) -> None:
    with pytest.raises(KeyError):
        aws.expire("ASIANONE")
