"""What Python sees of it."""

from __future__ import annotations

import os
from pathlib import Path

import boto3
import pytest

from iam_auth_proxy.local_aws import Keys, LocalAws, PolicyError, allow, trust
from iam_auth_proxy.local_aws.ready import make_ready


def test_the_environment_is_all_that_an_sdk_needs(
    local_aws: LocalAws, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = local_aws.user("alice").keys()
    for name, value in {**local_aws.env, **keys.env}.items():
        monkeypatch.setenv(name, value)
    assert Path(os.environ["AWS_CONFIG_FILE"]).read_text() == ""
    assert boto3.Session().client("sts").get_caller_identity()["Arn"] == keys.arn


def test_no_test_sees_credentials_of_its_machine() -> None:
    assert boto3.Session().get_credentials() is None
    names = {name.upper() for name in os.environ}
    assert not {"AWS_PROFILE", "AWS_ACCESS_KEY_ID", "HTTP_PROXY", "ALL_PROXY", "NO_PROXY"} & names


@pytest.mark.parametrize(
    ("accounts", "region"),
    [((), "eu-west-1"), (("1",), "eu-west-1"), (("111122223333",), "nowhere")],
)
def test_bad_accounts_and_regions(accounts: tuple[str, ...], region: str) -> None:
    with pytest.raises(ValueError):
        LocalAws(accounts=accounts, region=region)


def test_mistakes_in_setting_up(local_aws: LocalAws) -> None:
    with pytest.raises(ValueError, match="key state"):
        local_aws.key(state="Broken")
    with pytest.raises(ValueError, match="key state"):
        local_aws.key().state = "Broken"
    with pytest.raises(PolicyError):
        local_aws.user("alice", policies=["{}"])
    with pytest.raises(PolicyError):
        local_aws.role("dev", trust("arn:aws:iam::111122223333:user/none"))
    with pytest.raises(PolicyError):
        local_aws.role("dev", allow("sts:AssumeRole"))
    with pytest.raises(KeyError):
        local_aws.user("alice", account="999999999999")


def test_keys_for_clients() -> None:
    assert Keys("a", "b").boto3 == {"aws_access_key_id": "a", "aws_secret_access_key": "b"}
    assert Keys("a", "b", "c").env["AWS_SESSION_TOKEN"] == "c"
    assert "b" not in repr(Keys("a", "bbb", "ccc")).replace("boto3", "")


def test_several_at_once_know_nothing_of_each_other() -> None:
    with LocalAws() as one, LocalAws() as two:
        assert one.url != two.url
        alice = one.user("alice").keys()
        one.client("sts", alice).get_caller_identity()
        with pytest.raises(two.client("sts", alice).exceptions.ClientError):
            two.client("sts", alice).get_caller_identity()


def test_a_role_policy_and_two_devices(local_aws: LocalAws) -> None:
    alice = local_aws.user("alice")
    first, second = alice.mfa(), alice.mfa()
    assert first.serial != second.serial
    role = local_aws.role("dev", trust(alice.arn))
    role.put_policy(allow("kms:ListAliases"))
    local_aws.client("kms", role.session("me")).list_aliases()


def test_what_is_made_ready(local_aws: LocalAws) -> None:
    ready = make_ready(local_aws)
    blob = local_aws.client("kms", ready.user).encrypt(KeyId="alias/example", Plaintext=b"x")
    opened = local_aws.client("kms", ready.server).decrypt(
        CiphertextBlob=blob["CiphertextBlob"], KeyId=ready.key.arn
    )
    assert opened["Plaintext"] == b"x"
    assert ready.env["KMS_KEY_ID"] == ready.key.arn
    assert ready.root.secret_access_key not in repr(ready)
