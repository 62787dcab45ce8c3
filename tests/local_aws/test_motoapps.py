"""S3 and DynamoDB: our checks in front, moto behind."""

from __future__ import annotations

import subprocess
import sys
import urllib.error
import urllib.request
from typing import Any

import pytest
from botocore.config import Config

from iam_auth_proxy.local_aws import Keys, LocalAws, allow, trust
from tests.support.local_aws import Clock, refused, sign

HERE = {"LocationConstraint": "eu-west-1"}
V4 = Config(signature_version="s3v4")


@pytest.fixture
def s3(aws: LocalAws) -> Any:
    client = aws.client("s3", aws.root(), config=V4)
    client.create_bucket(Bucket="bucket", CreateBucketConfiguration=HERE)
    return client


@pytest.fixture
def table(aws: LocalAws) -> Any:
    client = aws.client("dynamodb", aws.root())
    client.create_table(
        TableName="table",
        KeySchema=[{"AttributeName": "k", "KeyType": "HASH"}],
        AttributeDefinitions=[{"AttributeName": "k", "AttributeType": "S"}],
        BillingMode="PAY_PER_REQUEST",
    )
    return client


def test_objects(s3: Any) -> None:
    name = {"Bucket": "bucket", "Key": "a b/c+é&d=1"}
    tag = s3.put_object(**name, Body=b"x" * 100_000)["ETag"]
    assert s3.get_object(**name)["Body"].read() == b"x" * 100_000
    assert s3.head_object(**name)["ContentLength"] == 100_000
    assert s3.get_object(**name, Range="bytes=0-1")["Body"].read() == b"xx"
    listed = s3.list_objects_v2(Bucket="bucket", Prefix="a ")["Contents"]
    assert [entry["Key"] for entry in listed] == [name["Key"]]
    assert refused(s3.put_object, **name, IfNoneMatch="*") == ("PreconditionFailed", 412)
    assert refused(s3.put_object, **name, IfMatch='"0"') == ("PreconditionFailed", 412)
    s3.put_object(**name, Body=b"y", IfMatch=tag)
    s3.delete_object(**name)
    assert refused(s3.get_object, **name) == ("NoSuchKey", 404)
    assert refused(s3.head_object, **name) == ("404", 404)


def test_versions(s3: Any) -> None:
    s3.put_bucket_versioning(Bucket="bucket", VersioningConfiguration={"Status": "Enabled"})
    name = {"Bucket": "bucket", "Key": "k"}
    first = s3.put_object(**name, Body=b"1")["VersionId"]
    s3.put_object(**name, Body=b"2")
    assert s3.get_object(**name, VersionId=first)["Body"].read() == b"1"
    assert len(s3.list_object_versions(Bucket="bucket")["Versions"]) == 2


def test_s3_is_authorised(aws: LocalAws, s3: Any) -> None:
    s3.put_object(Bucket="bucket", Key="alice/x", Body=b"1")
    own = "arn:aws:s3:::bucket/${aws:username}/*"
    alice = aws.user("alice", policies=[allow("s3:GetObject", resource=own)]).keys()
    client = aws.client("s3", alice)
    assert client.get_object(Bucket="bucket", Key="alice/x")["Body"].read() == b"1"
    denied = ("AccessDenied", 403)
    assert refused(client.get_object, Bucket="bucket", Key="bob/x") == denied
    assert refused(client.put_object, Bucket="bucket", Key="alice/x", Body=b"") == denied
    assert refused(client.list_objects_v2, Bucket="bucket") == denied
    assert refused(client.list_buckets) == denied
    assert refused(client.delete_object, Bucket="bucket", Key="alice/x") == denied


def test_s3_verifies_what_aws_verifies(aws: LocalAws, s3: Any) -> None:
    root = aws.root()
    put = sign(aws, root, service="s3", method="PUT", path="/bucket/k", body=b"body", headers={})
    assert put.send(aws).status == 200
    changed = type(put)(put.method, put.target, put.headers, b"evil")
    assert changed.send(aws).status == 403
    assert aws.calls[-1].code == "SignatureDoesNotMatch"
    session = aws.client("sts", root).get_session_token()["Credentials"]
    aws.expire(session["AccessKeyId"])
    gone = Keys(session["AccessKeyId"], session["SecretAccessKey"], session["SessionToken"])
    assert refused(aws.client("s3", gone).list_buckets) == ("ExpiredToken", 400)
    unknown = Keys("AKIANONE", "x")
    assert refused(aws.client("s3", unknown).list_buckets) == ("InvalidAccessKeyId", 403)
    aws.skew(20 * 60)
    once = Config(retries={"total_max_attempts": 1})
    client = aws.client("s3", root, config=once)
    assert refused(client.list_buckets) == ("RequestTimeTooSkewed", 403)


def test_a_presigned_object_obeys_its_expiry(aws: LocalAws, clock: Clock, s3: Any) -> None:
    s3.put_object(Bucket="bucket", Key="k", Body=b"1")
    url = s3.generate_presigned_url(
        "get_object", Params={"Bucket": "bucket", "Key": "k"}, ExpiresIn=3600
    )
    clock.now += 1800  # longer than the 15 minutes of a signed header
    with urllib.request.urlopen(url) as answer:
        assert answer.read() == b"1"
    clock.now += 1801
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(url)
    assert caught.value.code == 403
    assert b"Request has expired" in caught.value.read()
    caught.value.close()


@pytest.mark.parametrize(
    ("operation", "arguments"),
    [
        ("put_bucket_policy", {"Bucket": "bucket", "Policy": "{}"}),
        ("put_object_acl", {"Bucket": "bucket", "Key": "k", "ACL": "public-read"}),
        ("put_object", {"Bucket": "bucket", "Key": "k", "ACL": "public-read"}),
        ("copy_object", {"Bucket": "bucket", "Key": "k", "CopySource": "bucket/x"}),
        ("create_multipart_upload", {"Bucket": "bucket", "Key": "k"}),
        ("delete_objects", {"Bucket": "bucket", "Delete": {"Objects": [{"Key": "k"}]}}),
    ],
)
def test_what_could_get_round_our_policies_is_not_emulated(
    s3: Any, operation: str, arguments: dict[str, Any]
) -> None:
    assert refused(getattr(s3, operation), **arguments) == ("NotImplemented", 501)


def test_items(table: Any) -> None:
    item = {"k": {"S": "x"}}
    new = {"ConditionExpression": "attribute_not_exists(k)"}
    table.put_item(TableName="table", Item=item, **new)
    told = refused(table.put_item, TableName="table", Item=item, **new)
    assert told == ("ConditionalCheckFailedException", 400)
    assert table.get_item(TableName="table", Key=item)["Item"] == item
    arn = table.describe_table(TableName="table")["Table"]["TableArn"]
    assert arn == "arn:aws:dynamodb:eu-west-1:111122223333:table/table"


def test_dynamodb_is_authorised(aws: LocalAws, table: Any) -> None:
    arn = "arn:aws:dynamodb:eu-west-1:111122223333:table/table"
    alice = aws.user("alice", policies=[allow("dynamodb:GetItem", resource=arn)]).keys()
    client = aws.client("dynamodb", alice)
    client.get_item(TableName="table", Key={"k": {"S": "x"}})
    denied = ("AccessDeniedException", 400)
    assert refused(client.put_item, TableName="table", Item={"k": {"S": "x"}}) == denied
    assert refused(client.get_item, TableName="other", Key={"k": {"S": "x"}}) == denied
    assert refused(client.list_tables) == denied
    by_arn = refused(client.get_item, TableName=arn, Key={"k": {"S": "x"}})
    assert by_arn == ("NotImplemented", 501)
    batch = {"RequestItems": {"table": {"Keys": [{"k": {"S": "x"}}]}}}
    assert refused(client.batch_get_item, **batch) == ("NotImplemented", 501)


def test_accounts_do_not_see_each_other(aws: LocalAws, table: Any) -> None:
    other = aws.client("dynamodb", aws.root("444455556666"))
    assert other.list_tables()["TableNames"] == []
    assert table.list_tables()["TableNames"] == ["table"]
    # A field of moto's own that a client sends does not choose the account.
    request = sign(
        aws,
        aws.root("444455556666"),
        service="dynamodb",
        body="{}",
        headers={
            "X-Amz-Target": "DynamoDB_20120810.ListTables",
            "x-moto-account-id": "111122223333",
            "X_Moto_Account_Id": "111122223333",
        },
    )
    assert b"table" not in request.send(aws).body


def test_a_role_session_with_a_session_policy(aws: LocalAws, s3: Any) -> None:
    role = aws.role("dev", trust("111122223333"), policies=[allow("s3:*")])
    aws.client("s3", role.session("me")).list_buckets()
    limited = aws.client("s3", role.session("me", policy=allow("s3:GetObject")))
    assert refused(limited.list_buckets) == ("AccessDenied", 403)


def test_nothing_is_left_for_the_next(aws: LocalAws) -> None:
    assert aws.client("s3", aws.root()).list_buckets()["Buckets"] == []


IMPORTS = """
import sys, time
before = time.process_time()
from iam_auth_proxy.local_aws import LocalAws
with LocalAws() as aws:
    took = time.process_time() - before
    aws.client("sts", aws.root()).get_caller_identity()
    assert "moto" not in sys.modules and "flask" not in sys.modules
    aws.client("s3", aws.root()).list_buckets()
    assert "moto" in sys.modules
print(took)
"""

MISSING = """
import sys
sys.modules["moto"] = None
from iam_auth_proxy.local_aws import LocalAws
with LocalAws() as aws:
    try:
        aws.client("s3", aws.root()).list_buckets()
    except Exception as error:
        print(error)
"""


def run(script: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=30, check=True
    )
    return done.stdout


def test_it_starts_quickly_and_imports_moto_when_needed() -> None:
    """In processor time: what else the machine does is not to be measured."""
    assert float(run(IMPORTS)) < 0.6


def test_moto_missing() -> None:
    said = run(MISSING)
    assert "(NotImplemented)" in said
    assert "pip install 'iam-auth-proxy[demo]'" in said
