"""S3 behind :class:`~iam_auth_proxy.aws.base.ObjectStore`: one bucket, under a prefix.

Writes are conditional (``If-None-Match: *``, ``If-Match``), so that S3 decides between two writers.
A write whose answer was lost is tried again by botocore and then finds itself there already: that
is told as ObjectChanged too, and who wrote knows its own bytes.

Needs s3:GetObject, s3:PutObject and s3:ListBucket; s3:DeleteObject to delete.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, BinaryIO, Final

from botocore.exceptions import ClientError

from iam_auth_proxy.aws.base import StoredObject
from iam_auth_proxy.aws.connections import Answer
from iam_auth_proxy.aws.failures import NO_ANSWER, Asked, from_botocore_error
from iam_auth_proxy.aws.login import Login
from iam_auth_proxy.aws.renewal import Logins
from iam_auth_proxy.errors import (
    AwsError,
    IamAuthError,
    NoSuchObject,
    ObjectChanged,
)
from iam_auth_proxy.files import no_room, spool

MAX_OBJECT: Final = 5 << 30
"""Bytes that one PutObject takes (S3 User Guide, "Uploading objects")."""

_CHUNK: Final = 1 << 20
_MISSING: Final = frozenset({"NoSuchKey", "404"})
# ConditionalRequestConflict: somebody else's write was under way at the same time.
_CHANGED: Final = frozenset({"PreconditionFailed", "ConditionalRequestConflict", "412"})


class S3Objects:
    """The objects ``s3://BUCKET/PREFIXkey``.

    :param prefix: put in front of every key as it is.
    """

    def __init__(self, logins: Logins[Login], bucket: str, prefix: str) -> None:
        self._logins = logins
        self._bucket = bucket
        self._prefix = prefix

    def read(self, key: str, at_most: int | None = None) -> StoredObject:
        try:
            answer = self._call("get_object", key)
        except IamAuthError as error:
            if _code(error) in _MISSING:
                raise NoSuchObject(self._place(key)) from error
            raise
        # HEAD would be a second call, and a Range is refused for an object that is empty.
        body = spool()
        asked = Asked("s3:GetObject", self._place(key))
        try:
            _pour(answer["Body"], body, at_most, asked)
            body.seek(0)
        except BaseException:
            body.close()
            raise
        return StoredObject(body, int(answer["ContentLength"]), answer["ETag"])

    def create(self, key: str, body: BinaryIO) -> None:
        self._put(key, body, IfNoneMatch="*")

    def replace(self, key: str, body: BinaryIO, tag: str) -> None:
        self._put(key, body, IfMatch=tag)

    def delete(self, key: str) -> None:
        self._call("delete_object", key)

    def keys(self, prefix: str) -> list[str]:
        return sorted(self._keys(self._prefix + prefix), key=lambda key: key.encode())

    # -- calls -------------------------------------------------------------------------------------

    def _keys(self, prefix: str) -> Iterator[str]:
        further: dict[str, str] = {}
        while True:
            answer = self._use(
                "list_objects_v2",
                f"arn:aws:s3:::{self._bucket}",
                action="s3:ListBucket",
                Prefix=prefix,
                **further,
            )
            for entry in answer.get("Contents", ()):
                yield entry["Key"].removeprefix(self._prefix)
            if not answer.get("IsTruncated", False):
                return
            further = {"ContinuationToken": answer["NextContinuationToken"]}

    def _put(self, key: str, body: BinaryIO, **condition: str) -> None:
        size = body.seek(0, 2)
        body.seek(0)
        if size > MAX_OBJECT:
            raise AwsError(
                f"{size} bytes are more than S3 takes at once",
                public="The secret is larger than S3 takes in one piece (5 GiB).",
                remedy="Store it in parts.",
            )
        try:
            self._call(
                "put_object", key, Body=body, ContentType="application/octet-stream", **condition
            )
        except IamAuthError as error:
            if _code(error) in _CHANGED or (condition.get("IfMatch") and _code(error) in _MISSING):
                raise ObjectChanged(self._place(key)) from error
            raise

    def _call(self, operation: str, key: str, **parameters: object) -> Answer:
        return self._use(operation, self._place(key), Key=self._prefix + key, **parameters)

    def _use(self, operation: str, resource: str, **parameters: Any) -> Answer:
        try:
            return self._logins.use(
                lambda login: login.connections.call(
                    "s3",
                    login.region,
                    operation,
                    login.credentials(),
                    resource=resource,
                    Bucket=self._bucket,
                    **parameters,
                )
            )
        except AwsError as error:
            if _code(error) == "NoSuchBucket":
                error.public = "There is no such S3 bucket."
                error.remedy = f"Make the bucket {self._bucket}, or correct --store."
            raise

    def _place(self, key: str) -> str:
        return f"arn:aws:s3:::{self._bucket}/{self._prefix}{key}"


def _pour(source: Any, into: Any, at_most: int | None, asked: Asked) -> None:
    """Read an answer's body, to its end or so far."""
    left = at_most
    with source:
        while left is None or left > 0:
            try:
                chunk = source.read(_CHUNK if left is None else min(left, _CHUNK))
            except NO_ANSWER as error:
                raise from_botocore_error(error, asked) from error
            if not chunk:
                return
            try:
                into.write(chunk)
            except OSError as error:
                raise no_room(error) from error
            left = None if left is None else left - len(chunk)


def _code(error: IamAuthError) -> str:
    """AWS's own code; empty where AWS has not said one."""
    cause = error.__cause__
    if not isinstance(cause, ClientError):
        return ""
    return str(cause.response.get("Error", {}).get("Code", ""))
