"""S3 and DynamoDB: our own authentication and authorisation in front, moto's WSGI apps behind.

moto is imported at the first such call (0.4 s, 60 MB), and only then needs to be installed. What
moto keeps belongs to the process, not to one embedded AWS: it is emptied when one closes.

Identity policies decide; bucket policies, ACLs and table policies are not emulated.
"""

from __future__ import annotations

import io
import re
import sys
import threading
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final
from urllib.parse import parse_qsl, unquote

from iam_auth_proxy.local_aws.errors import NotEmulated
from iam_auth_proxy.local_aws.invocation import Invocation
from iam_auth_proxy.local_aws.wire import Answer, Operation, Request, read_operation

MISSING: Final = "S3 and DynamoDB need moto: pip install 'iam-auth-proxy[demo]'"

_OBJECT: Final = {
    "GET": "GetObject",
    "HEAD": "GetObject",
    "PUT": "PutObject",
    "DELETE": "DeleteObject",
}
_BUCKET: Final = {
    "GET": "ListBucket",
    "HEAD": "ListBucket",
    "PUT": "CreateBucket",
    "DELETE": "DeleteBucket",
}
_SUBRESOURCES: Final[Mapping[tuple[str, str], str]] = {
    ("GET", "location"): "GetBucketLocation",
    ("GET", "versioning"): "GetBucketVersioning",
    ("PUT", "versioning"): "PutBucketVersioning",
    ("GET", "versions"): "ListBucketVersions",
}
# Parameters that change nothing about what is asked for; any other names a sub-resource.
_PLAIN_QUERY: Final = frozenset(
    {
        "continuation-token",
        "delimiter",
        "encoding-type",
        "fetch-owner",
        "key-marker",
        "list-type",
        "marker",
        "max-keys",
        "prefix",
        "start-after",
        "version-id-marker",
        "x-id",
    }
)
_TABLES: Final = frozenset(
    {
        "CreateTable",
        "DeleteItem",
        "DeleteTable",
        "DescribeTable",
        "DescribeTimeToLive",
        "GetItem",
        "PutItem",
        "Query",
        "Scan",
        "UpdateItem",
        "UpdateTimeToLive",
    }
)
_TABLE_NAME = re.compile(r"[A-Za-z0-9_.-]{3,255}", re.ASCII)

WsgiApp = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]


class Moto:
    """moto's S3 and DynamoDB for accounts of the embedded AWS."""

    def __init__(self) -> None:
        self._apps: dict[str, WsgiApp] = {}
        self._lock = threading.Lock()

    def read(self, service: str, request: Request) -> Operation:
        """What is asked for.

        :raises NotEmulated: something else than objects, buckets, items and tables.
        """
        return read_operation(service, request) if service == "dynamodb" else _read_s3(request)

    def run(self, service: str, call: Invocation, operation: Operation, request: Request) -> Answer:
        """Authorise the caller, then let moto answer."""
        account = call.caller.principal.account
        if service == "s3":
            action, resource = _s3_permission(call, operation)
        else:
            action, resource = _dynamodb_permission(call, operation)
        call.authorize(action, resource, account)
        return self._ask(service, request, account, call.source_ip)

    def close(self) -> None:
        """Empty moto's stores."""
        with self._lock:
            if self._apps:
                from moto.backends import get_backend

                for service in ("s3", "dynamodb"):
                    get_backend(service).reset()
            self._apps.clear()

    def _app(self, service: str) -> WsgiApp:
        with self._lock:
            if service not in self._apps:
                try:
                    from moto.moto_server.werkzeug_app import create_backend_app
                except ImportError as error:
                    raise NotEmulated(f"service {service}. {MISSING}") from error
                self._apps[service] = create_backend_app("s3" if service == "s3" else "dynamodb")
            return self._apps[service]

    def _ask(self, service: str, request: Request, account: str, source_ip: str) -> Answer:
        app = self._app(service)
        started: list[tuple[int, tuple[tuple[str, str], ...]]] = []

        def start_response(status: str, headers: list[tuple[str, str]], _: Any = None) -> None:
            started.append((int(status.split(" ")[0]), tuple(headers)))

        parts = app(_environ(request, account, source_ip), start_response)
        try:
            body = b"".join(parts)
        finally:
            close = getattr(parts, "close", None)
            if close is not None:
                close()
        status, headers = started[-1]
        return Answer(status, headers, body)


# -- what is asked, and what permission it needs --------------------------------------------------


def _read_s3(request: Request) -> Operation:
    bucket, _, key = unquote(request.path).removeprefix("/").partition("/")
    names = [name for name, _ in parse_qsl(request.query, keep_blank_values=True)]
    special = [n for n in names if n not in _PLAIN_QUERY and not n.lower().startswith("x-amz-")]
    parameters = {"Bucket": bucket, "Key": key}
    if request.first("x-amz-copy-source") or request.first("x-amz-acl"):
        raise NotEmulated("S3 copies and ACLs")
    if request.first("x-amz-content-sha256").startswith("STREAMING-"):
        raise NotEmulated("S3 uploads in signed chunks")
    if not bucket:
        if request.method != "GET" or special:
            raise NotEmulated(f"S3 {request.method} /?{'&'.join(special)}")
        return Operation("ListAllMyBuckets", parameters)
    if key and special == ["versionId"] and request.method in {"GET", "HEAD", "DELETE"}:
        return Operation(f"{_OBJECT[request.method]}Version", parameters)
    if not key and len(special) == 1 and (request.method, special[0]) in _SUBRESOURCES:
        return Operation(_SUBRESOURCES[request.method, special[0]], parameters)
    table = _OBJECT if key else _BUCKET
    if special or request.method not in table:
        raise NotEmulated(f"S3 {request.method} with {special or request.method}")
    return Operation(table[request.method], parameters)


def _s3_permission(call: Invocation, operation: Operation) -> tuple[str, str]:
    bucket, key = operation.parameters["Bucket"], operation.parameters["Key"]
    path = f"{bucket}/{key}" if key else bucket
    resource = f"arn:{call.state.partition}:s3:::{path}" if bucket else "*"
    return f"s3:{operation.action}", resource


def _dynamodb_permission(call: Invocation, operation: Operation) -> tuple[str, str]:
    action = f"dynamodb:{operation.action}"
    if operation.action == "ListTables":
        return action, "*"
    table = operation.parameters.get("TableName")
    if operation.action not in _TABLES:
        raise NotEmulated(f"operation {action}")
    if not isinstance(table, str) or not _TABLE_NAME.fullmatch(table):
        raise NotEmulated(f"{action} with a table that is not given by its name")
    place = f"{call.region}:{call.caller.principal.account}"
    arn = f"arn:{call.state.partition}:dynamodb:{place}:table/{table}"
    index = operation.parameters.get("IndexName")
    return action, f"{arn}/index/{index}" if index else arn


def _environ(request: Request, account: str, source_ip: str) -> dict[str, Any]:
    host, _, port = request.first("host").partition(":")
    environ: dict[str, Any] = {
        "REQUEST_METHOD": request.method,
        "SCRIPT_NAME": "",
        "PATH_INFO": unquote(request.path, "latin-1"),
        "RAW_URI": request.target,
        "REQUEST_URI": request.target,
        "QUERY_STRING": request.query,
        "SERVER_NAME": host,
        "SERVER_PORT": port or "80",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "REMOTE_ADDR": source_ip,
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": "http",
        "wsgi.input": io.BytesIO(request.body),
        "wsgi.errors": sys.stderr,
        "wsgi.multithread": True,
        "wsgi.multiprocess": False,
        "wsgi.run_once": False,
        "CONTENT_LENGTH": str(len(request.body)),
    }
    for name, value in request.headers:
        field = name.upper().replace("-", "_")
        if field == "CONTENT_TYPE":
            environ[field] = value
        elif field != "CONTENT_LENGTH":
            environ[f"HTTP_{field}"] = value
    # How moto is told whose data this is; it replaces a field of this name that a client sent.
    environ["HTTP_X_MOTO_ACCOUNT_ID"] = account
    return environ
