"""What the policies allow and what they do not: evaluated by an AWS that verifies."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from botocore.exceptions import ClientError

import server_example
from iam_auth_proxy import policies
from iam_auth_proxy.local_aws import Keys, LocalAws, allow
from iam_auth_proxy.names import Origin, parse_key_arn, parse_origin
from iam_auth_proxy.protocol.envelope import bound_context
from iam_auth_proxy.protocol.proof import ProofKind
from iam_auth_proxy.protocol.service_token import Caller, CallerType
from tests.support.local_aws import refused

APP, OTHER = parse_origin("http://app.internal"), parse_origin("http://other.internal")
HERE, THERE = "111122223333", "222222222222"
KEY = f"arn:aws:kms:eu-west-1:{HERE}:key/1234abcd-12ab-34cd-56ef-1234567890ab"
USERS = KEY.replace("1234abcd-12ab-34cd-56ef-1234567890ab", "2345bcde-23bc-45de-67fa-2345678901bc")
NONCE = "n" * 32


@pytest.fixture
def aws() -> Iterator[LocalAws]:
    with LocalAws(accounts=(HERE, THERE)) as aws:
        yield aws


def context(origin: Origin) -> dict[str, str]:
    return bound_context({"salt": "s"}, origin, NONCE, ProofKind.SIGNED_IDENTITY)


LEGACY = {"salt": "s"}


def encrypts(aws: LocalAws, keys: Keys, key: str, context: dict[str, str]) -> bool:
    kms = aws.client("kms", keys)
    try:
        kms.encrypt(KeyId=key, Plaintext=b"x", EncryptionContext=context)
    except ClientError as error:
        if error.response["Error"]["Code"] != "AccessDeniedException":
            raise
        return False
    return True


def test_a_person_encrypts_for_the_app_and_for_no_other(aws: LocalAws) -> None:
    key, another = aws.key(), aws.key()
    keys = aws.user("ann", policies=[policies.user(APP, key.arn)]).keys()
    assert encrypts(aws, keys, key.arn, context(APP))
    assert not encrypts(aws, keys, key.arn, context(OTHER))
    assert not encrypts(aws, keys, key.arn, LEGACY), "no origin is not the app's"
    assert not encrypts(aws, keys, another.arn, context(APP))


def test_the_original_protocol_names_no_origin(aws: LocalAws) -> None:
    key = aws.key()
    keys = aws.user("ann", policies=[policies.user(None, key.arn)]).keys()
    assert encrypts(aws, keys, key.arn, LEGACY)


def test_the_app_decrypts_and_does_nothing_else(aws: LocalAws) -> None:
    key, another = aws.key(), aws.key()
    root = aws.client("kms", aws.root())
    kms = aws.client("kms", aws.user("app", policies=[policies.server(key.arn)]).keys())
    sealed = root.encrypt(KeyId=key.arn, Plaintext=b"x", EncryptionContext=context(APP))
    blob = sealed["CiphertextBlob"]
    opened = kms.decrypt(KeyId=key.arn, CiphertextBlob=blob, EncryptionContext=context(APP))
    assert opened["Plaintext"] == b"x"
    assert kms.describe_key(KeyId=key.arn)["KeyMetadata"]["Arn"] == key.arn
    assert not encrypts(aws, aws.user("b", policies=[policies.server(key.arn)]).keys(), key.arn, {})
    code = "AccessDeniedException", 400
    assert refused(kms.describe_key, KeyId=another.arn) == code


def of_key(people: str) -> policies.Document:
    return policies.of_key(
        APP,
        parse_key_arn(KEY),
        people,
    )


@pytest.mark.parametrize(("people", "lets_in"), [(THERE, True), (HERE, False), ("", False)])
def test_people_of_another_account(aws: LocalAws, people: str, lets_in: bool) -> None:
    key = aws.key(policy=of_key(people))
    theirs = aws.user("ann", policies=[policies.user(APP, key.arn)], account=THERE).keys()
    assert encrypts(aws, theirs, key.arn, context(APP)) is lets_in
    wide = aws.user("bob", policies=[allow("kms:*")], account=THERE).keys()
    assert not encrypts(aws, wide, key.arn, context(OTHER)), "the key's own policy says for what"
    ours = aws.user("cid", policies=[policies.user(APP, key.arn)]).keys()
    assert encrypts(aws, ours, key.arn, context(APP))


def test_nobody_gets_a_right_that_turns_tokens_into_others() -> None:
    documents = [policies.user(APP, "k"), policies.server("k")]
    text = "".join(policies.dumps(each) for each in documents)
    assert "ReEncrypt" not in text
    assert "*" not in text


def test_another_partition() -> None:
    key = parse_key_arn(
        f"arn:aws-cn:kms:cn-north-1:{HERE}:key/1234abcd-12ab-34cd-56ef-1234567890ab"
    )
    text = policies.dumps(policies.of_key(APP, key, THERE))
    assert f'"arn:aws-cn:iam::{THERE}:root"' in text


# -- service tokens --------------------------------------------------------------------------------

AUDIENCE = "app-production"


def token(name: str, type: str = "user", to: str = AUDIENCE) -> dict[str, str]:
    return Caller(name, CallerType(type)).context(to)


def test_a_person_makes_tokens_in_his_own_name_with_mfa(aws: LocalAws) -> None:
    key = aws.key()
    ann = aws.user("ann", policies=[policies.token_user(AUDIENCE, key.arn)])
    keys, device = ann.keys(), ann.mfa()
    assert not encrypts(aws, keys, key.arn, token("ann")), "no MFA"
    answer = aws.client("sts", keys).get_session_token(
        SerialNumber=device.serial, TokenCode=device.code()
    )["Credentials"]
    with_mfa = Keys(
        answer["AccessKeyId"], answer["SecretAccessKey"], answer["SessionToken"], ann.arn
    )
    assert encrypts(aws, with_mfa, key.arn, token("ann"))
    for other in (
        token("bob"), token("ann", "service"), token("ann", to="other"),
        {"to": AUDIENCE, "from": "ann"}, {"from": "ann", "user_type": "user"}, {},
    ):  # fmt: skip
        assert not encrypts(aws, with_mfa, key.arn, other)
    without = aws.user("cid", policies=[policies.token_user(AUDIENCE, key.arn, mfa=False)]).keys()
    assert encrypts(aws, without, key.arn, token("cid"))
    assert not encrypts(aws, without, key.arn, token("ann"))


def test_a_service_makes_tokens_in_its_one_name(aws: LocalAws) -> None:
    key = aws.key()
    trust = {
        "Version": "2012-10-17",
        "Statement": [
            {
                "Effect": "Allow",
                "Principal": {"AWS": f"arn:aws:iam::{HERE}:root"},
                "Action": "sts:AssumeRole",
            }
        ],
    }
    document = policies.token_service(AUDIENCE, "ci", key.arn)
    keys = aws.role("ci", trust, policies=[document]).session("i-1")
    assert encrypts(aws, keys, key.arn, token("ci", "service"))
    for other in (token("ci"), token("cj", "service"), {"to": AUDIENCE, "from": "ci"}):
        assert not encrypts(aws, keys, key.arn, other)
    # The policy of people has no name for a role's session.
    of_people = policies.token_user(AUDIENCE, key.arn, mfa=False)
    session = aws.role("ann", trust, policies=[of_people]).session("ann")
    assert not encrypts(aws, session, key.arn, token("ann"))


@pytest.mark.parametrize(
    ("name", "document"),
    [
        ("user", policies.user(APP, KEY)),
        ("user-original", policies.user(None, KEY)),
        ("server", policies.server(KEY)),
        ("key", policies.of_key(APP, parse_key_arn(KEY), THERE)),
        ("key-original", policies.of_key(None, parse_key_arn(KEY), THERE)),
        ("token-user", policies.token_user("app-production", USERS)),
        ("token-service", policies.token_service("app-production", "ci", KEY)),
    ],
)
def test_the_example_ships_these_very_texts(name: str, document: policies.Document) -> None:
    file = Path(server_example.__file__).parent / "policies" / f"{name}.json"
    assert file.read_text() == policies.dumps(document) + "\n"
