"""Asking the embedded AWS in ways that boto3 does not: raw requests, and refusals as values."""

from __future__ import annotations

import http.client
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode, urlsplit

from botocore.auth import S3SigV4Auth, SigV4Auth, SigV4QueryAuth
from botocore.awsrequest import AWSRequest
from botocore.config import Config
from botocore.credentials import Credentials
from botocore.exceptions import ClientError

from iam_auth_proxy.local_aws import Keys, LocalAws

UNCHECKED = Config(parameter_validation=False, retries={"total_max_attempts": 1})
"""For a client that sends what botocore would refuse, and asks once."""

IDENTITY = "Action=GetCallerIdentity&Version=2011-06-15"
FORM = {"Content-Type": "application/x-www-form-urlencoded"}


class Clock:
    """AWS's clock: stands at ``now`` (seconds since the epoch) until it is set."""

    def __init__(self) -> None:
        self.now = time.time()

    def __call__(self) -> float:
        return self.now


@dataclass(frozen=True)
class Refusal:
    """What a boto3 client was told."""

    code: str
    status: int
    message: str


def refusal(operation: Callable[..., Any], **arguments: Any) -> Refusal:
    """Call an operation of a boto3 client that must be refused."""
    try:
        answer = operation(**arguments)
    except ClientError as error:
        facts: Any = error.response
        status = facts["ResponseMetadata"]["HTTPStatusCode"]
        return Refusal(facts["Error"]["Code"], status, facts["Error"].get("Message", ""))
    raise AssertionError(f"not refused: {answer}")


def refused(operation: Callable[..., Any], **arguments: Any) -> tuple[str, int]:
    """The code and status with which an operation is refused."""
    told = refusal(operation, **arguments)
    return told.code, told.status


@dataclass(frozen=True)
class RawAnswer:
    """An HTTP answer, as bytes."""

    status: int
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True)
class RawRequest:
    """A request that can be changed after it was signed."""

    method: str
    target: str
    headers: Mapping[str, str]
    body: bytes = b""

    def send(self, aws: LocalAws) -> RawAnswer:
        parts = urlsplit(aws.url)
        connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=10)
        try:
            connection.putrequest(
                self.method, self.target, skip_host=True, skip_accept_encoding=True
            )
            for name, value in self.headers.items():
                connection.putheader(name, value)
            if self.body:
                connection.putheader("Content-Length", str(len(self.body)))
            connection.endheaders(self.body or None)
            answer = connection.getresponse()
            return RawAnswer(answer.status, dict(answer.getheaders()), answer.read())
        finally:
            connection.close()


def sign(
    aws: LocalAws,
    keys: Keys,
    *,
    service: str = "sts",
    region: str = "eu-west-1",
    method: str = "POST",
    path: str = "/",
    body: str | bytes = IDENTITY,
    headers: Mapping[str, str] = FORM,
) -> RawRequest:
    """A request signed in its Authorization field."""
    signer = S3SigV4Auth if service == "s3" else SigV4Auth
    request = AWSRequest(method=method, url=aws.url + path, data=body, headers=dict(headers))
    request.headers["Host"] = urlsplit(aws.url).netloc
    signer(_credentials(keys), service, region).add_auth(request)
    data = body.encode() if isinstance(body, str) else body
    return RawRequest(method, path, dict(request.headers.items()), data)


def presign(
    aws: LocalAws,
    keys: Keys,
    *,
    expires: int = 60,
    region: str = "eu-west-1",
    query: str = IDENTITY,
    headers: Mapping[str, str] | None = None,
) -> RawRequest:
    """A GET of STS signed in its query; ``headers`` are signed too."""
    given = {"Host": urlsplit(aws.url).netloc, **(headers or {})}
    request = AWSRequest(method="GET", url=f"{aws.url}/?{query}", headers=given)
    SigV4QueryAuth(_credentials(keys), "sts", region, expires=expires).add_auth(request)
    parts = urlsplit(str(request.url))
    return RawRequest("GET", f"/?{parts.query}", given)


def form(**parameters: str) -> str:
    """A form body of the query protocol."""
    return urlencode(parameters)


def _credentials(keys: Keys) -> Credentials:
    return Credentials(keys.access_key_id, keys.secret_access_key, keys.session_token or None)
