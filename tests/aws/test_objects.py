"""S3 as an object store: conditional writes, and what S3 or the network may do."""

from __future__ import annotations

import io
from typing import Any, BinaryIO

import pytest

from iam_auth_proxy.aws import objects as module
from iam_auth_proxy.aws.clients import logins_of
from iam_auth_proxy.aws.objects import S3Objects
from iam_auth_proxy.errors import (
    AccessDenied,
    AwsError,
    AwsUnavailable,
    LoginNeeded,
    NoSuchObject,
    ObjectChanged,
    StoreUnavailable,
)
from iam_auth_proxy.local_aws import Keys, LocalAws, allow
from tests.aws.conftest import Profiles


def s3_of(keys: Keys, profile: Profiles, name: str = "default") -> S3Objects:
    profile(name, keys, region="eu-west-1")
    return S3Objects(logins_of("" if name == "default" else name), "bucket", "pre/")


@pytest.fixture
def s3(aws: LocalAws, profile: Profiles) -> S3Objects:
    where: Any = {"LocationConstraint": "eu-west-1"}
    aws.client("s3", aws.root()).create_bucket(Bucket="bucket", CreateBucketConfiguration=where)
    return s3_of(aws.root(), profile)


def read(s3: S3Objects, key: str) -> bytes:
    with s3.read(key).body as body:
        return body.read()


def tag_of(s3: S3Objects, key: str) -> str:
    stored = s3.read(key)
    stored.body.close()
    return stored.tag


def body(text: bytes) -> BinaryIO:
    return io.BytesIO(text)


def test_create_replace_delete(s3: S3Objects, aws: LocalAws) -> None:
    with pytest.raises(NoSuchObject, match="arn:aws:s3:::bucket/pre/a/b"):
        s3.read("a/b")
    s3.delete("a/b")
    s3.create("a/b", body(b"one"))
    with pytest.raises(ObjectChanged):
        s3.create("a/b", body(b"two"))
    tag = tag_of(s3, "a/b")
    s3.replace("a/b", body(b"two"), tag)
    for key in ("a/b", "none"):
        with pytest.raises(ObjectChanged):
            s3.replace(key, body(b"three"), tag)
    assert read(s3, "a/b") == b"two"
    part = s3.read("a/b", 2)
    with part.body:
        assert (part.body.read(), part.size) == (b"tw", 3)
    s3.create("a/c", body(b""))
    assert read(s3, "a/c") == b""
    assert s3.keys("a/") == ["a/b", "a/c"]
    stored = aws.client("s3", aws.root()).get_object(Bucket="bucket", Key="pre/a/b")
    assert stored["ContentType"] == "application/octet-stream"
    s3.delete("a/b")
    assert s3.keys("") == ["a/c"]


def test_a_large_object(s3: S3Objects) -> None:
    data = bytes(range(256)) * (10 << 12)
    s3.create("big", body(data))
    assert read(s3, "big") == data


def test_more_keys_than_a_page(s3: S3Objects, aws: LocalAws) -> None:
    client = aws.client("s3", aws.root())
    for number in range(12):
        client.put_object(Bucket="bucket", Key=f"pre/k{number:02d}", Body=b"")
    used = s3._logins.current().connections.client("s3", "eu-west-1")
    sizes: list[int] = []

    def small(params: Any, **_: object) -> None:
        params["MaxKeys"] = 5
        sizes.append(5)

    used.meta.events.register("provide-client-params.s3.ListObjectsV2", small)
    assert s3.keys("k") == [f"k{number:02d}" for number in range(12)]
    assert len(sizes) == 3


def test_an_answer_that_was_lost_is_a_conflict_with_itself(s3: S3Objects, aws: LocalAws) -> None:
    """botocore tries again, and finds what the first try has written."""
    aws.fault("s3", "PutObject", drop=True)
    with pytest.raises(ObjectChanged):
        s3.create("a", body(b"one"))
    assert read(s3, "a") == b"one"


def test_a_body_that_is_cut(s3: S3Objects, aws: LocalAws) -> None:
    s3.create("a", body(bytes(5000)))
    aws.fault("s3", "GetObject", truncate=True, times=None)
    with pytest.raises(AwsUnavailable):
        s3.read("a")


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        ({"status": 503, "code": "SlowDown"}, AwsUnavailable),
        ({"status": 500, "code": "InternalError"}, AwsUnavailable),
        ({"drop": True}, AwsUnavailable),
        ({"status": 403, "code": "AccessDenied"}, AccessDenied),
        ({"status": 409, "code": "ConditionalRequestConflict"}, ObjectChanged),
        ({"status": 403, "code": "InvalidAccessKeyId"}, LoginNeeded),
        ({"status": 400, "code": "ExpiredToken"}, LoginNeeded),
        ({"status": 404, "code": "NoSuchBucket"}, AwsError),
        ({"status": 200, "body": b"<html>captive portal</html>"}, None),
    ],
)
def test_what_s3_may_say_to_a_write(
    s3: S3Objects, aws: LocalAws, fault: dict[str, Any], error: type[Exception] | None
) -> None:
    aws.fault("s3", "PutObject", **fault, times=None)
    if error is None:
        s3.create("a", body(b"one"))  # S3 says nothing in its 200; the body is not looked at
    else:
        with pytest.raises(error):
            s3.create("a", body(b"one"))


def test_what_nobody_allowed(s3: S3Objects, aws: LocalAws, profile: Profiles) -> None:
    s3.create("a", body(b"one"))
    reader = aws.user("reader", policies=[allow("s3:GetObject")])
    other = s3_of(reader.keys(), profile, "reader")
    assert read(other, "a") == b"one"
    for action, call in (
        ("s3:PutObject", lambda: other.create("b", body(b"two"))),
        ("s3:ListBucket", lambda: other.keys("")),
        ("s3:DeleteObject", lambda: other.delete("a")),
    ):
        with pytest.raises(AccessDenied) as caught:
            call()
        assert caught.value.action == action
        assert action in caught.value.remedy


def test_no_bucket(s3: S3Objects) -> None:
    other = S3Objects(s3._logins, "nowhere", "")
    with pytest.raises(AwsError) as caught:
        other.keys("")
    assert caught.value.public == "There is no such S3 bucket."
    with pytest.raises(AwsError, match="NoSuchBucket"):
        other.read("a")


def test_more_than_s3_takes(s3: S3Objects, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_OBJECT", 10)
    s3.create("a", body(bytes(10)))
    with pytest.raises(AwsError, match="more than S3 takes"):
        s3.create("b", body(bytes(11)))


def test_no_room_for_a_spool(s3: S3Objects, monkeypatch: pytest.MonkeyPatch) -> None:
    s3.create("a", body(b"one"))

    class Full(io.BytesIO):
        def write(self, data: Any, /) -> int:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(module, "spool", Full)
    with pytest.raises(StoreUnavailable, match="No space left"):
        s3.read("a")
