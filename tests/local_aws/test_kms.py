"""KMS: contexts, keys, states and policies."""

from __future__ import annotations

import json
from typing import Any

import pytest

from iam_auth_proxy.local_aws import Key, LocalAws, allow, deny, trust
from tests.support.local_aws import refusal, refused

CONTEXT = {"from": "alice", "to": "app"}
ROOT = {"AWS": "arn:aws:iam::111122223333:root"}


@pytest.fixture
def key(aws: LocalAws) -> Key:
    return aws.key("app")


@pytest.fixture
def kms(aws: LocalAws) -> Any:
    return aws.client("kms", aws.user("admin", policies=[allow("kms:*")]).keys())


def statement(effect: str, principal: object, action: str = "kms:*", **more: object) -> object:
    return {"Effect": effect, "Principal": principal, "Action": action, "Resource": "*", **more}


def document(*statements: object) -> dict[str, object]:
    return {"Version": "2012-10-17", "Statement": list(statements)}


# -- fact 12: contexts and ciphertexts ------------------------------------------------------------


def test_round_trip(kms: Any, key: Key) -> None:
    sealed = kms.encrypt(KeyId="alias/app", Plaintext=b"secret", EncryptionContext=CONTEXT)
    assert sealed["KeyId"] == key.arn
    again = kms.encrypt(KeyId=key.arn, Plaintext=b"secret", EncryptionContext=CONTEXT)
    assert sealed["CiphertextBlob"] != again["CiphertextBlob"]
    turned = dict(reversed(CONTEXT.items()))
    for name in ({}, {"KeyId": key.arn}, {"KeyId": key.key_id}, {"KeyId": "alias/app"}):
        opened = kms.decrypt(
            CiphertextBlob=sealed["CiphertextBlob"], EncryptionContext=turned, **name
        )
        assert (opened["Plaintext"], opened["KeyId"]) == (b"secret", key.arn)


@pytest.mark.parametrize(
    ("sealed_with", "opened_with"),
    [
        ({"ab": "c"}, {"a": "bc"}),
        ({"a": "b"}, {"A": "b"}),
        ({"a": "b"}, {"a": "B"}),
        ({"a": "b"}, {}),
        ({}, {"a": "b"}),
        ({"a": "b"}, {"a": "b", "c": "d"}),
        ({"a": "b", "c": "d"}, {"a": "b"}),
        ({"a": "b", "c": "d"}, {"a": "d", "c": "b"}),
        ({"a": 'b","c":"d'}, {"a": "b", "c": "d"}),
        ({"a": "é"}, {"a": "e\u0301"}),
    ],
)
def test_another_context_does_not_open(
    kms: Any, key: Key, sealed_with: dict[str, str], opened_with: dict[str, str]
) -> None:
    blob = kms.encrypt(KeyId=key.arn, Plaintext=b"x", EncryptionContext=sealed_with)
    blob = blob["CiphertextBlob"]
    kms.decrypt(CiphertextBlob=blob, EncryptionContext=sealed_with)
    for name in ({}, {"KeyId": key.arn}):
        told = refusal(kms.decrypt, CiphertextBlob=blob, EncryptionContext=opened_with, **name)
        assert (told.code, told.status) == ("InvalidCiphertextException", 400)
        assert told.message == ""


def test_context_keys_that_differ_only_in_case_are_refused(kms: Any, key: Key) -> None:
    told = refused(
        kms.encrypt, KeyId=key.arn, Plaintext=b"x", EncryptionContext={"from": "a", "From": "b"}
    )
    assert told == ("ValidationException", 400)


def test_a_ciphertext_that_was_touched(kms: Any, key: Key) -> None:
    blob = kms.encrypt(KeyId=key.arn, Plaintext=b"secret")["CiphertextBlob"]
    for index in (0, 1, len(blob) // 2, len(blob) - 20, len(blob) - 1):
        touched = bytearray(blob)
        touched[index] ^= 1
        code = refused(kms.decrypt, CiphertextBlob=bytes(touched), KeyId=key.arn)[0]
        assert code in {"InvalidCiphertextException", "IncorrectKeyException"}
    for wrong in (blob[:-1], blob[:10], blob + b"x", b"x", b"\x01\xff"):
        told = refused(kms.decrypt, CiphertextBlob=wrong, KeyId=key.arn)
        assert told == ("InvalidCiphertextException", 400)


def test_the_wrong_key(aws: LocalAws, kms: Any, key: Key) -> None:
    other = aws.key("other")
    blob = kms.encrypt(KeyId=other.arn, Plaintext=b"x")["CiphertextBlob"]
    for name in (key.arn, "alias/app"):
        told = refused(kms.decrypt, CiphertextBlob=blob, KeyId=name)
        assert told == ("IncorrectKeyException", 400)


def test_a_ciphertext_of_another_region(aws: LocalAws, kms: Any) -> None:
    far = aws.key(region="us-east-1")
    away = aws.client("kms", aws.root(), region="us-east-1")
    blob = away.encrypt(KeyId=far.arn, Plaintext=b"x")["CiphertextBlob"]
    told = refusal(kms.decrypt, CiphertextBlob=blob)
    assert (told.code, told.status) == ("AccessDeniedException", 400)
    assert "does not exist in this region" in told.message
    assert refused(kms.decrypt, CiphertextBlob=blob, KeyId=far.arn) == ("NotFoundException", 400)


# -- fact 13: sizes -------------------------------------------------------------------------------


def test_plaintext_sizes(kms: Any, key: Key) -> None:
    blob = kms.encrypt(KeyId=key.arn, Plaintext=b"x" * 4096)["CiphertextBlob"]
    assert len(kms.decrypt(CiphertextBlob=blob)["Plaintext"]) == 4096
    for size in (0, 4097):
        told = refused(kms.encrypt, KeyId=key.arn, Plaintext=b"x" * size)
        assert told == ("ValidationException", 400)
    assert refused(kms.decrypt, CiphertextBlob=b"x" * 6145) == ("ValidationException", 400)


def test_a_large_session_token_does_not_fit(aws: LocalAws, kms: Any, key: Key) -> None:
    aws.session_token_size = 4096
    made = aws.client("sts", aws.user("alice").keys()).get_session_token()["Credentials"]
    token = json.dumps({**made, "Expiration": made["Expiration"].isoformat()}).encode()
    assert refused(kms.encrypt, KeyId=key.arn, Plaintext=token) == ("ValidationException", 400)
    data_key = kms.generate_data_key(KeyId=key.arn, KeySpec="AES_256")
    assert len(data_key["Plaintext"]) == 32
    opened = kms.decrypt(CiphertextBlob=data_key["CiphertextBlob"], KeyId=key.arn)
    assert opened["Plaintext"] == data_key["Plaintext"]
    assert len(kms.generate_data_key(KeyId=key.arn, NumberOfBytes=64)["Plaintext"]) == 64
    assert refused(kms.generate_data_key, KeyId=key.arn) == ("ValidationException", 400)


# -- fact 14: policies ----------------------------------------------------------------------------


def test_a_user_needs_the_permission_on_that_key(aws: LocalAws, key: Key) -> None:
    other = aws.key()
    nobody = aws.client("kms", aws.user("nobody").keys())
    told = refusal(nobody.encrypt, KeyId=key.arn, Plaintext=b"x")
    assert (told.code, told.status) == ("AccessDeniedException", 400)
    assert told.message.startswith(
        "User: arn:aws:iam::111122223333:user/nobody is not authorized to perform: kms:Encrypt "
        f"on resource: {key.arn}"
    )
    alice = aws.user("alice", policies=[allow("kms:Encrypt", resource=other.arn)]).keys()
    client = aws.client("kms", alice)
    client.encrypt(KeyId=other.arn, Plaintext=b"x")
    told = refusal(client.encrypt, KeyId=key.arn, Plaintext=b"x")
    assert told.code == "AccessDeniedException"
    assert refused(client.describe_key, KeyId=other.arn)[0] == "AccessDeniedException"


def test_a_changed_policy_holds_from_the_next_request_on(aws: LocalAws, key: Key) -> None:
    alice = aws.user("alice", policies=[allow("kms:Encrypt")])
    client = aws.client("kms", alice.keys())
    client.encrypt(KeyId=key.arn, Plaintext=b"x")
    alice.put_policy(deny("kms:Encrypt", resource=key.arn), "no-more")
    told = refusal(client.encrypt, KeyId=key.arn, Plaintext=b"x")
    assert "explicit deny in an identity-based policy" in told.message


def test_a_key_policy_decides(aws: LocalAws, key: Key) -> None:
    alice = aws.user("alice", policies=[allow("kms:*")])
    bob = aws.user("bob")
    kms = {"alice": aws.client("kms", alice.keys()), "bob": aws.client("kms", bob.keys())}

    def may(name: str) -> bool:
        try:
            kms[name].encrypt(KeyId=key.arn, Plaintext=b"x")
        except kms[name].exceptions.ClientError:
            return False
        return True

    def who_may() -> set[str]:
        return {name for name in kms if may(name)}

    assert who_may() == {"alice"}
    key.put_policy(document(statement("Allow", {"AWS": bob.arn})))
    assert who_may() == {"bob"}  # the account is not mentioned: its own policies count for nothing
    key.put_policy(document(statement("Allow", ROOT), statement("Deny", {"AWS": alice.arn})))
    assert who_may() == set()
    key.put_policy(document(statement("Allow", "*"), statement("Deny", ROOT, "kms:Decrypt")))
    assert who_may() == {"alice", "bob"}
    key.put_policy(document(statement("Allow", {"Service": "logs.amazonaws.com"})))
    assert who_may() == set()


def test_a_role_in_a_key_policy(aws: LocalAws, key: Key) -> None:
    role = aws.role("dev", trust("111122223333"))
    kms = aws.client("kms", role.session("me"))
    other = aws.client("kms", role.session("you"))
    limited = aws.client("kms", role.session("me", policy=allow("s3:*")))
    asked = {"KeyId": key.arn, "Plaintext": b"x"}
    key.put_policy(document(statement("Allow", {"AWS": role.arn})))
    kms.encrypt(**asked)
    other.encrypt(**asked)
    assert refused(limited.encrypt, **asked)[0] == "AccessDeniedException"
    session_arn = "arn:aws:sts::111122223333:assumed-role/dev/me"
    key.put_policy(document(statement("Allow", {"AWS": session_arn})))
    kms.encrypt(**asked)
    limited.encrypt(**asked)  # a grant to the session itself is not limited by its policy
    assert refused(other.encrypt, **asked)[0] == "AccessDeniedException"


@pytest.mark.parametrize(
    ("key_allows", "user_allows", "works"),
    [(True, True, True), (True, False, False), (False, True, False), (False, False, False)],
)
def test_across_accounts_both_policies_must_allow(
    aws: LocalAws, key_allows: bool, user_allows: bool, works: bool
) -> None:
    key = aws.key("app")
    policies = [allow("kms:Encrypt", resource=key.arn)] if user_allows else []
    other = aws.user("other", policies=policies, account="444455556666")
    if key_allows:
        foreign = {"AWS": "arn:aws:iam::444455556666:root"}
        key.put_policy(document(statement("Allow", ROOT), statement("Allow", foreign)))
    kms = aws.client("kms", other.keys())
    alias = "arn:aws:kms:eu-west-1:111122223333:alias/app"
    for name in (key.arn, alias):
        if works:
            assert kms.encrypt(KeyId=name, Plaintext=b"x")["KeyId"] == key.arn
        else:
            told = refused(kms.encrypt, KeyId=name, Plaintext=b"x")
            assert told == ("AccessDeniedException", 400)
    # A bare key id or alias is looked for in the caller's own account.
    assert refused(kms.encrypt, KeyId="alias/app", Plaintext=b"x")[0] == "NotFoundException"
    assert refused(kms.encrypt, KeyId=key.key_id, Plaintext=b"x")[0] == "NotFoundException"


def test_the_encryption_context_in_a_policy(aws: LocalAws, key: Key) -> None:
    """The whole security of kmsauth: nobody encrypts in another's name."""
    condition = {"StringEquals": {"kms:EncryptionContext:from": "${aws:username}"}}
    policy = allow("kms:Encrypt", Condition=condition)
    kms = aws.client("kms", aws.user("alice", policies=[policy]).keys())
    kms.encrypt(KeyId=key.arn, Plaintext=b"x", EncryptionContext={"from": "alice", "to": "app"})
    for spoofed in ({"from": "bob"}, {"from": "Alice"}, {"from": "*"}, {"to": "app"}, {}):
        told = refused(kms.encrypt, KeyId=key.arn, Plaintext=b"x", EncryptionContext=spoofed)
        assert told == ("AccessDeniedException", 400)


# -- fact 15: states, aliases, regions ------------------------------------------------------------


@pytest.mark.parametrize(
    ("state", "code"),
    [
        ("Disabled", "DisabledException"),
        ("PendingDeletion", "KMSInvalidStateException"),
        ("PendingImport", "KMSInvalidStateException"),
    ],
)
def test_key_states(kms: Any, key: Key, state: str, code: str) -> None:
    blob = kms.encrypt(KeyId=key.arn, Plaintext=b"x")["CiphertextBlob"]
    key.state = state
    assert refused(kms.encrypt, KeyId=key.arn, Plaintext=b"x") == (code, 400)
    assert refused(kms.decrypt, CiphertextBlob=blob) == (code, 400)
    assert refused(kms.decrypt, CiphertextBlob=blob, KeyId=key.arn) == (code, 400)
    assert refused(kms.generate_data_key, KeyId=key.arn, KeySpec="AES_256") == (code, 400)
    metadata = kms.describe_key(KeyId=key.arn)["KeyMetadata"]
    assert (metadata["KeyState"], metadata["Enabled"]) == (state, False)


def test_states_through_the_api(kms: Any, key: Key) -> None:
    kms.disable_key(KeyId=key.arn)
    assert key.state == "Disabled"
    kms.enable_key(KeyId=key.arn)
    kms.encrypt(KeyId=key.arn, Plaintext=b"x")
    assert kms.schedule_key_deletion(KeyId=key.arn)["KeyState"] == "PendingDeletion"
    assert refused(kms.enable_key, KeyId=key.arn)[0] == "KMSInvalidStateException"
    assert kms.describe_key(KeyId=key.arn)["KeyMetadata"]["DeletionDate"]
    kms.cancel_key_deletion(KeyId=key.arn)
    assert key.state == "Disabled"
    assert refused(kms.cancel_key_deletion, KeyId=key.arn)[0] == "KMSInvalidStateException"


def test_keys_that_are_not_there(aws: LocalAws, kms: Any, key: Key) -> None:
    gone = "00000000-0000-0000-0000-000000000000"
    for name in (
        gone,
        f"arn:aws:kms:eu-west-1:111122223333:key/{gone}",
        "alias/none",
        key.arn.replace("eu-west-1", "eu-west-2"),
        key.arn.replace("arn:aws:", "arn:aws-cn:"),
        key.arn.replace(":kms:", ":sts:"),
        "arn:x",
    ):
        told = refused(kms.encrypt, KeyId=name, Plaintext=b"x")
        assert told == ("NotFoundException", 400)
    foreign = f"arn:aws:kms:eu-west-1:444455556666:key/{gone}"
    assert refused(kms.encrypt, KeyId=foreign, Plaintext=b"x")[0] == "AccessDeniedException"


def test_a_repointed_alias(aws: LocalAws, kms: Any, key: Key) -> None:
    blob = kms.encrypt(KeyId="alias/app", Plaintext=b"x")["CiphertextBlob"]
    other = aws.key()
    kms.update_alias(AliasName="alias/app", TargetKeyId=other.key_id)
    assert kms.encrypt(KeyId="alias/app", Plaintext=b"x")["KeyId"] == other.arn
    told = refused(kms.decrypt, CiphertextBlob=blob, KeyId="alias/app")
    assert told == ("IncorrectKeyException", 400)
    assert kms.decrypt(CiphertextBlob=blob, KeyId=key.arn)["Plaintext"] == b"x"


def test_aliases_through_the_api(kms: Any, key: Key) -> None:
    kms.create_alias(AliasName="alias/second", TargetKeyId=key.key_id)
    told = refused(kms.create_alias, AliasName="alias/second", TargetKeyId=key.key_id)
    assert told == ("AlreadyExistsException", 400)
    names = [alias["AliasName"] for alias in kms.list_aliases()["Aliases"]]
    assert names == ["alias/app", "alias/second"]
    assert kms.list_aliases(KeyId=key.arn)["Aliases"][0]["TargetKeyId"] == key.key_id
    kms.delete_alias(AliasName="alias/second")
    assert refused(kms.delete_alias, AliasName="alias/second")[0] == "NotFoundException"
    told = refused(kms.update_alias, AliasName="alias/second", TargetKeyId=key.key_id)
    assert told == ("NotFoundException", 400)


def test_a_multi_region_twin_decrypts(aws: LocalAws) -> None:
    key = aws.key(multi_region=True)
    twin = key.replica("us-east-1")
    assert key.key_id == twin.key_id
    assert key.key_id.startswith("mrk-")
    root = aws.root()
    here, there = aws.client("kms", root), aws.client("kms", root, region="us-east-1")
    blob = here.encrypt(KeyId=key.arn, Plaintext=b"x", EncryptionContext=CONTEXT)
    opened = there.decrypt(
        CiphertextBlob=blob["CiphertextBlob"], KeyId=twin.arn, EncryptionContext=CONTEXT
    )
    assert (opened["Plaintext"], opened["KeyId"]) == (b"x", twin.arn)
    twin.put_policy(document(statement("Deny", ROOT), statement("Allow", ROOT)))
    told = refused(there.decrypt, CiphertextBlob=blob["CiphertextBlob"])
    assert told[0] == "AccessDeniedException"  # each has a policy of its own
    with pytest.raises(ValueError, match="multi-Region"):
        aws.key().replica("us-east-1")


# -- keys through the API -------------------------------------------------------------------------


def test_create_key(kms: Any) -> None:
    made = kms.create_key(Description="for the app", MultiRegion=True)["KeyMetadata"]
    assert made["KeyId"].startswith("mrk-")
    assert kms.describe_key(KeyId=made["Arn"])["KeyMetadata"]["Description"] == "for the app"
    policy = json.loads(kms.get_key_policy(KeyId=made["Arn"])["Policy"])
    assert policy["Statement"][0]["Principal"] == ROOT
    kms.put_key_policy(KeyId=made["Arn"], Policy=json.dumps(document(statement("Deny", "*"))))
    assert refused(kms.describe_key, KeyId=made["Arn"])[0] == "AccessDeniedException"


@pytest.mark.parametrize(
    "policy",
    [
        "{}",
        json.dumps(document(statement("Allow", {"AWS": "arn:aws:iam::111122223333:user/none"}))),
        json.dumps(document({"Effect": "Allow", "Action": "kms:*", "Resource": "*"})),
    ],
)
def test_malformed_key_policies(kms: Any, key: Key, policy: str) -> None:
    told = ("MalformedPolicyDocumentException", 400)
    assert refused(kms.create_key, Policy=policy) == told
    assert refused(kms.put_key_policy, KeyId=key.arn, Policy=policy) == told


def test_what_is_not_emulated_says_so(kms: Any, key: Key) -> None:
    for operation, arguments in (
        (kms.create_key, {"KeySpec": "RSA_2048"}),
        (kms.create_key, {"Tags": [{"TagKey": "a", "TagValue": "b"}]}),
        (kms.encrypt, {"KeyId": key.arn, "Plaintext": b"x", "DryRun": True}),
        (kms.encrypt, {"KeyId": key.arn, "Plaintext": b"x", "GrantTokens": ["x"]}),
        (kms.list_grants, {"KeyId": key.arn}),
    ):
        assert refused(operation, **arguments) == ("NotImplemented", 501)
