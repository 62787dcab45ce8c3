"""How each service is asked and how it answers: form and XML, or JSON.

STS and IAM speak the query protocol (``STS`` also answers in JSON when asked to), KMS and DynamoDB
JSON 1.1 and 1.0, S3 REST with XML errors. Error codes and statuses are those of each service.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final, TypeAlias
from urllib.parse import parse_qsl
from xml.sax.saxutils import escape

from iam_auth_proxy.local_aws.errors import AuthError, Denial, NotEmulated, ServiceError

SERVICES: Final = frozenset({"sts", "kms", "iam", "s3", "dynamodb"})

_VERSIONS: Final = {"sts": "2011-06-15", "iam": "2010-05-08"}
_TARGETS: Final = {"kms": "TrentService", "dynamodb": "DynamoDB_20120810"}
_JSON_TYPES: Final = {"kms": "application/x-amz-json-1.1", "dynamodb": "application/x-amz-json-1.0"}

Json: TypeAlias = "bool | int | float | str | datetime | Sequence[Json] | Mapping[str, Json] | None"


@dataclass(frozen=True, slots=True)
class Request:
    """One HTTP request as it came: raw target, header fields in order, whole body."""

    method: str
    target: str
    headers: tuple[tuple[str, str], ...] = field(repr=False)
    body: bytes = field(default=b"", repr=False)

    def all(self, name: str) -> list[str]:
        """Every value of the field ``name`` (lower case), in order."""
        return [value for key, value in self.headers if key.lower() == name]

    def first(self, name: str) -> str:
        """The first value of the field ``name`` (lower case), or an empty string."""
        values = self.all(name)
        return values[0] if values else ""

    @property
    def path(self) -> str:
        return self.target.partition("?")[0]

    @property
    def query(self) -> str:
        return self.target.partition("?")[2]


@dataclass(frozen=True, slots=True)
class Answer:
    """One HTTP answer. ``code`` is the AWS error code, empty for a success."""

    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes = field(repr=False)
    code: str = ""


@dataclass(frozen=True, slots=True)
class Operation:
    """What is asked for: an action's name and its parameters as they came."""

    action: str
    parameters: Mapping[str, Json] = field(repr=False)


# -- reading ---------------------------------------------------------------------------------------


def guess_service(request: Request) -> str:
    """Whose error format to use for a request without a readable signature."""
    target = request.first("x-amz-target")
    for service, prefix in _TARGETS.items():
        if target.startswith(prefix + "."):
            return service
    text = request.query + "&" + request.body[:65536].decode("latin-1")
    for service, version in _VERSIONS.items():
        if f"Version={version}" in text:
            return service
    return "sts" if request.path == "/" else "s3"


def read_operation(service: str, request: Request) -> Operation:
    """The operation of a request to ``sts``, ``iam``, ``kms`` or ``dynamodb``.

    :raises ServiceError: not in the service's format, or a doubled parameter.
    """
    if service in _TARGETS:
        return _read_json(service, request)
    return _read_query(service, request)


def _read_query(service: str, request: Request) -> Operation:
    pairs = parse_qsl(request.query, keep_blank_values=True)
    form = request.first("content-type").partition(";")[0].strip().lower()
    if request.body and form != "application/x-www-form-urlencoded":
        raise ServiceError("MalformedInput", 400, "the body is not a form")
    pairs += parse_qsl(request.body.decode("latin-1"), keep_blank_values=True)
    parameters: dict[str, Json] = {}
    seen: set[str] = set()
    for name, value in pairs:
        # Names are compared without case: an "action" beside an "Action" is how one verifier
        # was made to check another request than the one AWS ran (CVE-2022-2385).
        if name.lower() in seen:
            raise ServiceError("InvalidQueryParameter", 400, f"the parameter {name} is doubled")
        seen.add(name.lower())
        if not name.lower().startswith("x-amz-"):
            parameters[name] = value
    action = parameters.pop("Action", "")
    version = parameters.pop("Version", _VERSIONS[service])
    if not isinstance(action, str) or not action:
        raise ServiceError("MissingAction", 400, "the request names no Action")
    if version != _VERSIONS[service]:
        raise ServiceError(
            "InvalidAction", 400, f"Could not find operation {action} for version {version}"
        )
    return Operation(action, parameters)


def _read_json(service: str, request: Request) -> Operation:
    prefix, _, action = request.first("x-amz-target").partition(".")
    if prefix != _TARGETS[service] or not action or request.method != "POST":
        raise ServiceError("UnknownOperationException", 400)
    try:
        parameters = json.loads(request.body or b"{}", object_pairs_hook=_no_doubles)
    except (ValueError, RecursionError) as error:
        raise ServiceError("SerializationException", 400, str(error)) from error
    if not isinstance(parameters, dict):
        raise ServiceError("SerializationException", 400, "not a JSON object")
    return Operation(action, parameters)


def _no_doubles(pairs: list[tuple[str, Json]]) -> dict[str, Json]:
    parsed = dict(pairs)
    if len(parsed) != len(pairs):
        raise ValueError("a doubled member name")
    return parsed


# -- answering -------------------------------------------------------------------------------------


def answer(
    service: str, action: str, result: Mapping[str, Json] | None, request: Request
) -> Answer:
    """A success in the service's own format; ``None``: the operation returns nothing."""
    if service in _JSON_TYPES:
        body = b"" if result is None else json.dumps(result, default=_epoch).encode()
        return Answer(200, (("Content-Type", _JSON_TYPES[service]), _request_id()), body)
    request_id = str(uuid.uuid4())
    if _wants_json(service, request):
        parts: dict[str, Json] = {} if result is None else {f"{action}Result": result}
        parts["ResponseMetadata"] = {"RequestId": request_id}
        body = json.dumps({f"{action}Response": parts}, default=_epoch).encode()
        return Answer(200, (("Content-Type", "application/json"),), body)
    inner = "" if result is None else _xml(f"{action}Result", result)
    text = (
        f'<{action}Response xmlns="https://{service}.amazonaws.com/doc/{_VERSIONS[service]}/">'
        f"{inner}<ResponseMetadata><RequestId>{request_id}</RequestId></ResponseMetadata>"
        f"</{action}Response>"
    )
    return Answer(200, (("Content-Type", "text/xml"),), text.encode())


def error_answer(service: str, error: Exception, request: Request) -> Answer:
    """An error in the service's own format, code and status.

    :param error: one of :mod:`.errors`; anything else is raised again.
    """
    code, status, message = _error_parts(service, error)
    fault = "Receiver" if status >= 500 else "Sender"
    if service in _JSON_TYPES:
        body = json.dumps({"__type": code, "message": message}).encode()
        kind = _JSON_TYPES[service]
    elif _wants_json(service, request):
        wrapped = {"Error": {"Type": fault, "Code": code, "Message": message}}
        body = json.dumps({**wrapped, "RequestId": str(uuid.uuid4())}).encode()
        kind = "application/json"
    elif service in _VERSIONS:
        parts = _xml("Error", {"Type": fault, "Code": code, "Message": message})
        body = (
            f'<ErrorResponse xmlns="https://{service}.amazonaws.com/doc/{_VERSIONS[service]}/">'
            f"{parts}<RequestId>{uuid.uuid4()}</RequestId></ErrorResponse>"
        ).encode()
        kind = "text/xml"
    else:
        # HEAD has no body; S3's clients then go by the status alone.
        parts = _xml("Error", {"Code": code, "Message": message})
        body = f'<?xml version="1.0" encoding="UTF-8"?>{parts}'.encode()
        kind = "application/xml"
    return Answer(status, (("Content-Type", kind), _request_id()), body, code)


def _error_parts(service: str, error: Exception) -> tuple[str, int, str]:
    if isinstance(error, ServiceError):
        return error.code, error.status, error.message
    if isinstance(error, NotEmulated):
        return "NotImplemented", 501, f"the embedded AWS has no {error}"
    if isinstance(error, AuthError):
        code, status, default = _DENIALS[error.denial][_FAMILIES.get(service, "query")]
        return code, status, error.message or default
    raise error


_FAMILIES: Final = {"sts": "query", "iam": "query", "kms": "json", "dynamodb": "json", "s3": "s3"}

_INVALID: Final = "The security token included in the request is invalid."
_EXPIRED: Final = "The security token included in the request is expired"
_MISMATCH: Final = (
    "The request signature we calculated does not match the signature you provided. "
    "Check your AWS Secret Access Key and signing method. Consult the service documentation "
    "for details."
)
_ABSENT: Final = "Request is missing Authentication Token"

_DENIALS: Final[Mapping[Denial, Mapping[str, tuple[str, int, str]]]] = {
    Denial.MISSING: {
        "query": ("MissingAuthenticationToken", 403, _ABSENT),
        "json": ("MissingAuthenticationTokenException", 400, _ABSENT),
        "s3": ("AccessDenied", 403, "Access Denied"),
    },
    Denial.INCOMPLETE: {
        "query": ("IncompleteSignature", 400, ""),
        "json": ("IncompleteSignatureException", 400, ""),
        "s3": ("AuthorizationHeaderMalformed", 400, ""),
    },
    Denial.UNKNOWN_KEY: {
        "query": ("InvalidClientTokenId", 403, _INVALID),
        "json": ("UnrecognizedClientException", 400, _INVALID),
        "s3": (
            "InvalidAccessKeyId",
            403,
            "The AWS Access Key Id you provided does not exist in our records.",
        ),
    },
    Denial.BAD_TOKEN: {
        "query": ("InvalidClientTokenId", 403, _INVALID),
        "json": ("UnrecognizedClientException", 400, _INVALID),
        "s3": ("InvalidToken", 400, "The provided token is malformed or otherwise invalid."),
    },
    Denial.SIGNATURE: {
        "query": ("SignatureDoesNotMatch", 403, _MISMATCH),
        "json": ("InvalidSignatureException", 400, _MISMATCH),
        "s3": ("SignatureDoesNotMatch", 403, _MISMATCH),
    },
    Denial.SKEWED: {
        "query": ("SignatureDoesNotMatch", 403, ""),
        "json": ("InvalidSignatureException", 400, ""),
        "s3": ("RequestTimeTooSkewed", 403, ""),
    },
    Denial.EXPIRED: {
        "query": ("ExpiredToken", 403, _EXPIRED),
        "json": ("ExpiredTokenException", 400, _EXPIRED),
        "s3": ("ExpiredToken", 400, "The provided token has expired."),
    },
    Denial.NOT_AUTHORIZED: {
        "query": ("AccessDenied", 403, ""),
        "json": ("AccessDeniedException", 400, ""),
        "s3": ("AccessDenied", 403, "Access Denied"),
    },
}


def _wants_json(service: str, request: Request) -> bool:
    return service == "sts" and "application/json" in request.first("accept").lower()


def _request_id() -> tuple[str, str]:
    return ("x-amzn-RequestId", str(uuid.uuid4()))


def _epoch(value: object) -> float:
    if isinstance(value, datetime):
        return value.timestamp()
    raise TypeError(type(value).__name__)


def _xml(tag: str, value: Json) -> str:
    if value is None:
        return ""
    if isinstance(value, Mapping):
        inner = "".join(_xml(name, part) for name, part in value.items())
    elif isinstance(value, datetime):
        inner = value.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    elif isinstance(value, bool):
        inner = "true" if value else "false"
    elif isinstance(value, str | int | float):
        inner = escape(str(value))
    else:
        inner = "".join(_xml("member", part) for part in value)
    return f"<{tag}>{inner}</{tag}>"
