"""Signature Version 4, verified with botocore's own signer.

The canonical form is never written a second time: botocore's signer classes compute it, over the
bytes that came and exactly the fields that SignedHeaders lists. Both forms are read: the
``Authorization`` field and the presigned query.

Source: IAM User Guide, "AWS Signature Version 4 for API requests".
"""

from __future__ import annotations

import hashlib
import hmac
import re
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final
from urllib.parse import unquote

from botocore.auth import S3SigV4Auth, S3SigV4QueryAuth, SigV4Auth
from botocore.awsrequest import AWSRequest, HTTPHeaders
from botocore.credentials import Credentials

from iam_auth_proxy.local_aws.errors import AuthError, Denial
from iam_auth_proxy.local_aws.wire import Request

ALGORITHM: Final = "AWS4-HMAC-SHA256"
UNSIGNED: Final = "UNSIGNED-PAYLOAD"

_AUTHORIZATION = re.compile(
    r"AWS4-HMAC-SHA256 +Credential=(?P<credential>[^,\s]+) *, *"
    r"SignedHeaders=(?P<signed>[^,\s]+) *, *Signature=(?P<signature>[^,\s]+)",
    re.ASCII,
)
_TARGET = re.compile(r"/[!-\"$-~]*", re.ASCII)  # visible ASCII, and no fragment
_TIMESTAMP = re.compile(r"[0-9]{8}T[0-9]{6}Z", re.ASCII)
_SIGNATURE = re.compile(r"[0-9a-f]{64}", re.ASCII)
_SIGNED_NAMES = re.compile(r"[a-z0-9!#$%&'*+.^_`|~-]+(;[a-z0-9!#$%&'*+.^_`|~-]+)*", re.ASCII)


@dataclass(frozen=True, slots=True)
class Signed:
    """What a request says about its signature.

    ``expires`` is X-Amz-Expires of a presigned request in seconds; STS ignores it, S3 does not.
    """

    access_key_id: str
    date: str
    region: str
    service: str
    names: tuple[str, ...]
    signature: str = field(repr=False)
    timestamp: str
    token: str = field(repr=False)
    presigned: bool
    expires: int | None = None

    @property
    def time(self) -> float:
        """The signature's time, seconds since the epoch."""
        return datetime.strptime(self.timestamp, "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC).timestamp()


def read(request: Request) -> Signed:
    """Read either form of signature.

    :raises AuthError: MISSING where there is none; INCOMPLETE where both are there, where any
        part is missing, doubled (in any case of its letters) or malformed.
    """
    if not _TARGET.fullmatch(request.target):
        raise _incomplete("the request target is not a path")
    if len(request.all("host")) != 1:
        raise _incomplete("the request needs one Host field")
    query = _query(request)
    authorization = request.all("authorization")
    if not authorization and "x-amz-signature" not in query:
        if any(name.startswith("x-amz-") for name in query):
            raise _incomplete("the presigned query has no X-Amz-Signature")
        raise AuthError(Denial.MISSING)
    if authorization and "x-amz-signature" in query:
        raise _incomplete("signed in the Authorization field and in the query")
    return _read_query(request, query) if "x-amz-signature" in query else _read_header(request)


def verify(signed: Signed, request: Request, secret: str) -> None:
    """Compare the request's signature with the one that ``secret`` makes.

    :raises AuthError: SIGNATURE, also where x-amz-content-sha256 is not the body's hash.
    """
    stated = request.first("x-amz-content-sha256")
    unsigned_body = signed.service == "s3" and stated == UNSIGNED
    if stated and not unsigned_body and stated != hashlib.sha256(request.body).hexdigest():
        raise AuthError(Denial.SIGNATURE)
    if not all(map(request.all, signed.names)):  # a field that is listed and is not there
        raise AuthError(Denial.SIGNATURE)
    if not hmac.compare_digest(_expected(signed, request, secret), signed.signature):
        raise AuthError(Denial.SIGNATURE)


class _OnlyWhatWasSigned(SigV4Auth):
    """botocore's signer over the fields that SignedHeaders lists, and no others."""

    names: tuple[str, ...] = ()

    def headers_to_sign(self, request: AWSRequest) -> HTTPHeaders:
        listed = HTTPHeaders()
        for name, value in request.headers.items():
            if name.lower() in self.names:
                listed[name.lower()] = value
        return listed


class _S3Header(_OnlyWhatWasSigned, S3SigV4Auth):
    pass


class _S3Query(_OnlyWhatWasSigned, S3SigV4QueryAuth):
    pass


def _expected(signed: Signed, request: Request, secret: str) -> str:
    target = request.target
    kind = _S3Header if signed.service == "s3" else _OnlyWhatWasSigned
    if signed.presigned:
        target = _without_signature(target)
        kind = _S3Query if signed.service == "s3" else _OnlyWhatWasSigned
    credentials = Credentials(signed.access_key_id, secret, signed.token or None)
    signer = kind(credentials, signed.service, signed.region)
    signer.names = signed.names
    url = f"http://{request.first('host')}{target}"
    again = AWSRequest(method=request.method, url=url, data=request.body)
    for name, value in request.headers:
        again.headers[name] = value
    again.context["timestamp"] = signed.timestamp
    return signer.signature(signer.string_to_sign(again, signer.canonical_request(again)), again)


def _without_signature(target: str) -> str:
    path, _, query = target.partition("?")
    kept = [pair for pair in query.split("&") if _name(pair) != "x-amz-signature"]
    return f"{path}?{'&'.join(kept)}"


def _name(pair: str) -> str:
    return unquote(pair.partition("=")[0]).lower()


def _query(request: Request) -> dict[str, tuple[str, str]]:
    """The X-Amz-* parameters: lower-case name -> (name as it came, value)."""
    found: dict[str, tuple[str, str]] = {}
    for pair in request.query.split("&") if request.query else ():
        name, _, value = pair.partition("=")
        lower = _name(pair)
        if not lower.startswith("x-amz-"):
            continue
        if lower in found:
            raise _incomplete(f"the parameter {lower} is doubled")
        found[lower] = (unquote(name), unquote(value))
    return found


def _read_query(request: Request, query: dict[str, tuple[str, str]]) -> Signed:
    def part(name: str, *, required: bool = True) -> str:
        spelled, value = query.get(name.lower(), ("", ""))
        if required and (spelled != name or not value):
            raise _incomplete(f"the presigned query needs {name}")
        return value

    if part("X-Amz-Algorithm") != ALGORITHM:
        raise _incomplete(f"only {ALGORITHM} is known")
    if request.all("x-amz-security-token"):
        raise _incomplete("a presigned request carries its session token in the query")
    expires = part("X-Amz-Expires", required=False)
    if expires and not (expires.isascii() and expires.isdigit() and len(expires) <= 7):
        raise _incomplete("X-Amz-Expires is not a number of seconds")
    return _signed(
        credential=part("X-Amz-Credential"),
        names=part("X-Amz-SignedHeaders"),
        signature=part("X-Amz-Signature"),
        timestamp=part("X-Amz-Date"),
        token=part("X-Amz-Security-Token", required=False),
        presigned=True,
        expires=int(expires) if expires else None,
    )


def _read_header(request: Request) -> Signed:
    for name in ("authorization", "x-amz-date", "x-amz-security-token", "x-amz-content-sha256"):
        if len(request.all(name)) > 1:
            raise _incomplete(f"the field {name} is doubled")
    match = _AUTHORIZATION.fullmatch(request.first("authorization").strip())
    if match is None:
        raise _incomplete("Authorization is not Credential, SignedHeaders and Signature")
    return _signed(
        credential=match["credential"],
        names=match["signed"],
        signature=match["signature"],
        timestamp=request.first("x-amz-date"),
        token=request.first("x-amz-security-token"),
        presigned=False,
    )


def _signed(
    *,
    credential: str,
    names: str,
    signature: str,
    timestamp: str,
    token: str,
    presigned: bool,
    expires: int | None = None,
) -> Signed:
    scope = credential.split("/")
    if len(scope) != 5 or scope[4] != "aws4_request" or not all(scope):
        raise _incomplete("the credential is not KEY/DATE/REGION/SERVICE/aws4_request")
    if not _TIMESTAMP.fullmatch(timestamp):
        raise _incomplete("X-Amz-Date is not YYYYMMDDTHHMMSSZ")
    try:
        datetime.strptime(timestamp, "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
    except ValueError as error:
        raise _incomplete("X-Amz-Date is not a date") from error
    if not _SIGNED_NAMES.fullmatch(names) or "host" not in names.split(";"):
        raise _incomplete("SignedHeaders must be lower-case names, host among them")
    if not _SIGNATURE.fullmatch(signature):
        raise AuthError(Denial.SIGNATURE)
    if scope[1] != timestamp[:8]:
        raise AuthError(
            Denial.SIGNATURE,
            f"Date in Credential scope does not match YYYYMMDD from ISO-8601 version of date "
            f"from HTTP: '{scope[1]}' != '{timestamp[:8]}', from '{timestamp}'.",
        )
    return Signed(
        access_key_id=scope[0],
        date=scope[1],
        region=scope[2],
        service=scope[3],
        names=tuple(names.split(";")),
        signature=signature,
        timestamp=timestamp,
        token=token,
        presigned=presigned,
        expires=expires,
    )


def _incomplete(message: str) -> AuthError:
    return AuthError(Denial.INCOMPLETE, message)
