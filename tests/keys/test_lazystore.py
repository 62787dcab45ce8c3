"""lazycred's records in our store: read always, and written so that it reads them."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from cryptography.fernet import Fernet
from hypothesis import given
from hypothesis import strategies as st

from iam_auth_proxy.aws.clients import AwsKms, logins_of
from iam_auth_proxy.aws.objects import S3Objects
from iam_auth_proxy.errors import (
    AwsUnavailable,
    Malformed,
    NoSuchSecret,
    RecordUnusable,
    VersionConflict,
)
from iam_auth_proxy.keys import lazycred
from iam_auth_proxy.keys.secrets import SecretStore
from iam_auth_proxy.local_aws import LocalAws
from iam_auth_proxy.local_aws.resources import Key
from tests.keys.conftest import NOW


class Original:
    """What lazycred 0.2.3 does, step by step, with boto3 in place of boto 2."""

    def __init__(self, aws: LocalAws, s3: Any, s3_path: str, key_alias: str) -> None:
        self._kms = aws.client("kms", aws.root())
        self._s3 = s3
        self._bucket, self._prefix = s3_path.split("/", 1)
        self._key = "alias/" + key_alias

    def put(self, name: str, value: bytes) -> None:
        key = Fernet.generate_key()
        blob = self._kms.encrypt(KeyId=self._key, Plaintext=key)["CiphertextBlob"]
        token = Fernet(key).encrypt(value).decode()
        record = json.dumps({"data": token, "key": base64.b64encode(blob).decode()})
        self._s3.put_object(Bucket=self._bucket, Key=self._prefix + name, Body=record.encode())

    def get(self, name: str) -> bytes:
        stored = self._s3.get_object(Bucket=self._bucket, Key=self._prefix + name)
        record = json.loads(stored["Body"].read())
        key = self._kms.decrypt(CiphertextBlob=base64.b64decode(record["key"]))["Plaintext"]
        return Fernet(key).decrypt(record["data"].encode())


@pytest.fixture
def original(aws: LocalAws, bucket: Any, key: Key) -> Original:
    return Original(aws, bucket, "bucket/prefix/", "secrets")


@pytest.fixture
def store(aws: LocalAws, bucket: Any, key: Key) -> SecretStore:
    objects = S3Objects(logins_of(), "bucket", "prefix/")
    return SecretStore(objects, AwsKms(logins_of()), ["alias/secrets"], "s3://bucket/prefix")


def test_the_fernet_specification() -> None:
    """github.com/fernet/spec, generate.json: a known answer that is nobody's here."""
    token = (
        "gAAAAAAdwJ6wAAECAwQFBgcICQoLDA0ODy021cpGVWKZ_eEwCGM4BLLF_5CV9dOPmrhuVUPgJobwOz7Jcbmr"
        "R64jVmpU4IwqDA=="
    )
    assert lazycred.unseal(token, b"cw_0x689RpI-jtRR7oE8h_eQsKImvJapLeSbXpwF4e4=", "a") == b"hello"


def test_records_to_the_byte() -> None:
    record = b'{"data": "gAAAAABYOhZbt6reGldBveQ", "key": "AQIDBA=="}'
    assert lazycred.dumps("gAAAAABYOhZbt6reGldBveQ", b"\1\2\3\4") == record
    assert lazycred.loads(record, "a") == ("gAAAAABYOhZbt6reGldBveQ", b"\1\2\3\4")
    swapped = b'{"key": "AQIDBA==", "data": "x"}'  # Python 2 orders a dict by its hashes
    assert lazycred.loads(swapped, "a") == ("x", b"\1\2\3\4")
    assert lazycred.looks_like(record)
    assert lazycred.looks_like(swapped)
    assert not lazycred.looks_like(b"iam-auth-secret/1\n{")


@pytest.mark.parametrize(
    ("record", "why"),
    [
        (b"null", "not a JSON object"),
        (b'{"data": "x", "key": null}', "can never be opened"),
        (b"", "not JSON"),
        (b'{"data": null, "key": "AA=="}', "other members"),
        (b'{"data": "x"}', "other members"),
        (b'{"data": "x", "key": "AA==", "v": 2}', "other members"),
        (b'{"data": "x", "key": "AA"}', "not base64"),
        (b'{"data": "x", "data": "y", "key": "AA=="}', "repeated"),
    ],
)
def test_records_that_are_none(record: bytes, why: str) -> None:
    """L3, L4: the first two are what the original leaves where it said True."""
    with pytest.raises(RecordUnusable, match=why):
        lazycred.loads(record, "a")


@pytest.mark.parametrize("value", [b"", b"hello secret\n", bytes(range(256)) * 500])
def test_both_ways(store: SecretStore, original: Original, value: bytes) -> None:
    original.put("theirs", value)
    found = store.get("theirs")
    assert (found.value, found.version) == (value, 0)
    assert store.put_lazycred("ours", value).format == "lazycred"
    assert original.get("ours") == value
    store.put_lazycred("ours", b"again")
    assert original.get("ours") == b"again"
    assert [(each.name, each.format) for each in store.list()] == [
        ("ours", "lazycred"),
        ("theirs", "lazycred"),
    ]


def test_moving_over(store: SecretStore, original: Original, bucket: Any) -> None:
    original.put("a", b"theirs")
    store.put("a", b"ours", now=NOW)
    assert store.get("a").value == b"ours"
    assert store.get("a", 0).value == b"theirs"
    assert [each.version for each in store.history("a")] == [0, 1]
    with pytest.raises(VersionConflict, match="read first"):
        store.put_lazycred("a", b"hidden")
    store.delete("a", now=NOW)
    with pytest.raises(NoSuchSecret):
        store.get("a")
    store.delete("a", now=NOW, purge=True)
    keys = [each["Key"] for each in bucket.list_objects_v2(Bucket="bucket")["Contents"]]
    assert keys == ["prefix/a/@00000002"]


def test_deleting_theirs(store: SecretStore, original: Original) -> None:
    """L13: the original cannot."""
    original.put("a", b"theirs")
    assert store.delete("a", now=NOW).version == 1
    with pytest.raises(NoSuchSecret):
        store.get("a")
    assert store.get("a", 0).value == b"theirs"


def test_kms_fails(aws: LocalAws, store: SecretStore, original: Original) -> None:
    """L3: the original writes ``"key": null`` over the good record, and says True."""
    original.put("a", b"good")
    for action in ("Encrypt", "Decrypt"):
        aws.fault("kms", action, code="ThrottlingException", times=None)
        with pytest.raises(AwsUnavailable):
            store.put_lazycred("a", b"new")
        aws.clear_faults()
    assert store.get("a").value == b"good"


def test_another_key(aws: LocalAws, store: SecretStore, bucket: Any) -> None:
    """L6: the original opens it."""
    aws.key("alias/evil")
    Original(aws, bucket, "bucket/prefix/", "evil").put("a", b"attacker-chosen")
    with pytest.raises(RecordUnusable, match="with the store's keys"):
        store.get("a")


def test_the_format_binds_no_name(store: SecretStore, original: Original, bucket: Any) -> None:
    """L5, which the format cannot close: what a migration is for."""
    original.put("admin", b"A")
    record = bucket.get_object(Bucket="bucket", Key="prefix/admin")["Body"].read()
    bucket.put_object(Bucket="bucket", Key="prefix/guest", Body=record)
    assert store.get("guest").value == b"A"
    store.put("guest", b"g", now=NOW)
    assert store.get("guest").value == b"g"


def test_a_changed_record(store: SecretStore, original: Original, bucket: Any) -> None:
    original.put("a", b"good")
    record = bucket.get_object(Bucket="bucket", Key="prefix/a")["Body"].read()
    for at in (10, 40, 90, 200, 250, len(record) - 6):
        changed = bytearray(record)
        changed[at] ^= 1
        bucket.put_object(Bucket="bucket", Key="prefix/a", Body=bytes(changed))
        with pytest.raises(RecordUnusable):
            store.get("a")


def test_rewrap(aws: LocalAws, store: SecretStore, original: Original, key: Key) -> None:
    original.put("a", b"value")
    new = aws.key()
    both = SecretStore(
        store._objects, store._wrapping._kms, [new.arn, key.arn], "s3://bucket/prefix"
    )
    assert len(both.rewrap("a")) == 1
    assert list(both.rewrap("a")) == []
    key.state = "Disabled"
    assert original.get("a") == b"value"


def test_an_answer_that_was_lost(aws: LocalAws, store: SecretStore, original: Original) -> None:
    """botocore asks again and is told of a conflict: with what we have written ourselves."""
    for write in (
        lambda: store.put_lazycred("lazy", b"1"),
        lambda: store.put_lazycred("lazy", b"2"),
        lambda: store.put("a", b"value", now=NOW, if_version=0),
    ):
        fault = aws.fault("s3", "PutObject", drop=True)
        write()
        assert fault.hits == 1
    assert original.get("lazy") == b"2"
    assert store.get("a").value == b"value"
    assert store.latest("a") == 1


def test_other_objects_are_left_alone(store: SecretStore, bucket: Any) -> None:
    bucket.put_object(Bucket="bucket", Key="prefix/picture", Body=b"\x89PNG")
    assert store.list() == []
    with pytest.raises(RecordUnusable):
        store.get("picture")
    with pytest.raises(NoSuchSecret):
        store.delete("picture", now=NOW)
    with pytest.raises(Malformed):
        store.get("a b")


@given(
    st.one_of(
        st.binary(max_size=40),
        st.dictionaries(
            st.sampled_from(("data", "key", "x")),
            st.one_of(st.none(), st.integers(), st.text(max_size=8), st.just("QUJD")),
        ).map(lambda fields: json.dumps(fields).encode()),
    )
)
def test_any_bytes_are_a_record_or_unusable(raw: bytes) -> None:
    try:
        token, wrapped = lazycred.loads(raw, "the-name")
    except RecordUnusable:
        return
    assert lazycred.loads(lazycred.dumps(token, wrapped), "the-name") == (token, wrapped)


@given(st.text(max_size=40), st.binary(min_size=1, max_size=40))
def test_a_record_is_read_as_it_was_written(token: str, wrapped: bytes) -> None:
    assert lazycred.loads(lazycred.dumps(token, wrapped), "a") == (token, wrapped)
