"""Stores over the embedded AWS: in a folder, and in S3."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from iam_auth_proxy.aws.base import ObjectStore
from iam_auth_proxy.aws.clients import AwsKms, logins_of
from iam_auth_proxy.aws.objects import S3Objects
from iam_auth_proxy.keys.folder import FolderObjects
from iam_auth_proxy.keys.secrets import SecretStore
from iam_auth_proxy.local_aws import LocalAws
from iam_auth_proxy.local_aws.resources import Key

NOW = 1_790_000_000.0
OpenStore = Callable[..., SecretStore]


@pytest.fixture
def aws(local_aws: LocalAws, monkeypatch: pytest.MonkeyPatch) -> LocalAws:
    """An embedded AWS that this process's boto3 finds, as its root."""
    for name, value in local_aws.env.items():
        monkeypatch.setenv(name, value)
    for name, value in local_aws.root().env.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("botocore.endpoint.time", SimpleNamespace(sleep=lambda seconds: None))
    return local_aws


@pytest.fixture
def key(aws: LocalAws) -> Key:
    return aws.key("alias/secrets")


@pytest.fixture
def bucket(aws: LocalAws) -> Any:
    """A boto3 client whose bucket ``bucket`` exists."""
    client = aws.client("s3", aws.root())
    client.create_bucket(
        Bucket="bucket", CreateBucketConfiguration={"LocationConstraint": "eu-west-1"}
    )
    return client


@pytest.fixture(params=["folder", "s3"])
def objects(request: pytest.FixtureRequest, aws: LocalAws, tmp_path: Path) -> ObjectStore:
    if request.param == "folder":
        return FolderObjects(tmp_path / "store")
    request.getfixturevalue("bucket")
    return S3Objects(logins_of(), "bucket", "prefix/")


@pytest.fixture
def open_store(aws: LocalAws, objects: ObjectStore, key: Key) -> OpenStore:
    """``open_store(*keys, place=…)``: that store, under these keys or under ``key``."""

    def open_(*keys: str, place: str = "s3://bucket/prefix") -> SecretStore:
        return SecretStore(objects, AwsKms(logins_of()), keys or (key.arn,), place)

    return open_


@pytest.fixture
def store(open_store: OpenStore) -> SecretStore:
    return open_store()
