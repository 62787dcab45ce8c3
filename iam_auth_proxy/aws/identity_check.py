"""Having STS verify a signed identity: one GET, sent as it was rebuilt.

boto3 sends only what it signs itself, so this goes through botocore's HTTP session, with the same
endpoint, certificate authorities and proxies as its clients'. What comes back is believed only if
it cannot be anything but STS's own JSON: an answer in XML can reflect what a caller wrote
(CVE-2020-16250), a redirect leads elsewhere, and neither is asked for.
"""

from __future__ import annotations

import logging
import os
import queue
import re
import threading
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import urlsplit

import botocore.session
from botocore.awsrequest import AWSPreparedRequest, AWSResponse, HeadersDict
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ConnectionClosedError
from botocore.httpsession import URLLib3Session
from botocore.response import StreamingBody
from botocore.utils import get_environ_proxies

from iam_auth_proxy import __version__
from iam_auth_proxy.aws.base import CallerIdentity
from iam_auth_proxy.aws.failures import Asked, from_code
from iam_auth_proxy.errors import AwsUnavailable, IamAuthError, Malformed
from iam_auth_proxy.names import is_account_id
from iam_auth_proxy.protocol.signed_identity import StsRequest
from iam_auth_proxy.protocol.strict import loads_object

DEADLINE: Final = 10.0
"""Seconds for all of it."""

MAX_ANSWER: Final = 64 * 1024

_CONNECT_TIMEOUT: Final = 5
_CONNECTIONS: Final = 16
_STUCK: Final = 32


class _NoSignatures(logging.Filter):
    """urllib3 logs what it asks for, which here is a person's proof, and his session token."""

    def filter(self, record: logging.LogRecord) -> bool:
        if isinstance(record.args, tuple):
            record.args = tuple(
                _QUERY.sub("?...", value) if isinstance(value, str) else value
                for value in record.args
            )
        return True


_QUERY: Final = re.compile(r"\?\S*X-Amz-Signature=\S*", re.ASCII)
logging.getLogger("urllib3.connectionpool").addFilter(_NoSignatures())

_ASKED: Final = Asked("sts:GetCallerIdentity")
_GLOBAL_HOST: Final = "sts.amazonaws.com"


class IdentityCheck:
    """Sends rebuilt requests to STS. Safe to use from any thread.

    :param session: says where STS is, and how it is reached.
    :param lock: taken while the session is used, which threads cannot share.
    """

    def __init__(self, session: botocore.session.Session, lock: threading.Lock) -> None:
        self._session = session
        self._lock = lock
        self._ways: dict[str, tuple[str, Any]] = {}
        self._running = threading.BoundedSemaphore(_STUCK)

    def check(self, request: StsRequest) -> CallerIdentity:
        """Whom STS takes the signer for; see :class:`~iam_auth_proxy.aws.base.Sts` for the errors.

        In a thread of its own: urllib3's timeouts begin anew with every byte that comes. A thread
        that is given up ends when the other end lets go; there are only so many of them.
        """
        if not self._running.acquire(blocking=False):
            raise AwsUnavailable(f"{_STUCK} checks of identities are under way")
        answers: queue.SimpleQueue[CallerIdentity | Exception] = queue.SimpleQueue()

        def run() -> None:
            try:
                answers.put(self._check(request))
            except Exception as error:  # noqa: BLE001  # raised again where it is waited for
                answers.put(error)
            finally:
                self._running.release()

        try:
            threading.Thread(target=run, name="identity-check", daemon=True).start()
        except RuntimeError as error:  # the system gives no more threads
            self._running.release()
            raise AwsUnavailable(str(error)) from error
        try:
            answer = answers.get(timeout=DEADLINE)
        except queue.Empty:
            raise AwsUnavailable(f"STS took longer than {DEADLINE:g} s") from None
        if isinstance(answer, Exception):
            raise answer
        return answer

    def _check(self, request: StsRequest) -> CallerIdentity:
        try:
            endpoint, http = self._way(request.host)
            status, body = _send(http, endpoint, request)
        except (BotoCoreError, OSError, ValueError) as error:
            # Without the cause: botocore's holds the URL, and that the session token.
            why = str(error).replace(request.target, "/")
            raise AwsUnavailable(f"{_ASKED.action}: {type(error).__name__}: {why}") from None
        return read(status, body)

    def _way(self, host: str) -> tuple[str, Any]:
        way = self._ways.get(host)
        if way is None:
            with self._lock:
                way = self._ways.get(host)
                if way is None:
                    endpoint = endpoint_for(self._session, host)
                    way = self._ways[host] = endpoint, _http(self._session, endpoint)
        return way


def endpoint_for(session: botocore.session.Session, host: str) -> str:
    """``https://HOST``, or the endpoint that is configured for STS in its place.

    A client knows best what is configured where. The variants that a default one may have stand in
    no signature, so they are left out.
    """
    client = session.create_client(
        "sts",
        region_name=host.split(".")[1],
        aws_access_key_id="nobody",
        aws_secret_access_key="nobody",  # noqa: S106  # opens nothing
        config=Config(use_fips_endpoint=False, use_dualstack_endpoint=False),
    )
    configured = str(client.meta.endpoint_url).rstrip("/")
    if urlsplit(configured).netloc == _GLOBAL_HOST:  # AWS_STS_REGIONAL_ENDPOINTS=legacy
        return f"https://{host}"
    return configured


def _http(session: botocore.session.Session, endpoint: str) -> Any:
    verify = session.get_config_variable("ca_bundle") or os.environ.get("REQUESTS_CA_BUNDLE")
    make: Any = URLLib3Session  # its stubs are narrower than it is
    return make(
        verify=verify or True,
        proxies=get_environ_proxies(endpoint),
        timeout=(_CONNECT_TIMEOUT, DEADLINE),
        max_pool_connections=_CONNECTIONS,
    )


def _send(http: Any, endpoint: str, request: StsRequest) -> tuple[int, bytes]:
    """Status and body. Once more where a connection that had stood idle was closed meanwhile."""
    headers: Any = HeadersDict([("user-agent", f"iam-auth-proxy/{__version__}"), *request.headers])
    prepared = AWSPreparedRequest("GET", endpoint + request.target, headers, None, True)
    try:
        return _read(http.send(prepared))
    except ConnectionClosedError:
        return _read(http.send(prepared))


def _read(answer: AWSResponse) -> tuple[int, bytes]:
    # No length to insist on (its stubs know of none): JSON that was cut is no JSON.
    stream = StreamingBody(answer.raw, None)  # type: ignore[arg-type]  # see above
    body = stream.read(MAX_ANSWER + 1)  # read to its end, the connection goes back to the pool
    if len(body) > MAX_ANSWER:
        stream.close()  # the rest is not wanted, and what came is refused by its length
    return answer.status_code, body


def read(status: int, body: bytes) -> CallerIdentity:
    """The caller in an answer of STS.

    :raises AwsError: it says no.
    :raises AwsUnavailable: it says not now; or it is no answer of STS.
    """
    if status == 200:
        return _identity(body)
    raise _refusal(status, body)


def _identity(body: bytes) -> CallerIdentity:
    """The caller in STS's JSON.

    Members that are not known here are left alone: AWS adds some without notice.
    """
    try:
        answer = loads_object(body, "the answer", at_most=MAX_ANSWER)
        response = _member(answer, "GetCallerIdentityResponse")
        result = _member(response, "GetCallerIdentityResult")
        account, arn, user_id = (_text(result, name) for name in ("Account", "Arn", "UserId"))
        if not is_account_id(account):
            raise Malformed("Account is no account")
    except Malformed as error:
        raise _not_sts(str(error)) from error
    return CallerIdentity(account, arn, user_id)


def _refusal(status: int, body: bytes) -> IamAuthError:
    try:
        error = _member(loads_object(body, "the answer", at_most=MAX_ANSWER), "Error")
        code, message = _text(error, "Code"), str(error.get("Message", ""))
    except Malformed as malformed:
        return _not_sts(f"status {status}, {malformed}")
    if not 400 <= status < 600:
        return _not_sts(f"status {status}")
    return from_code(code, message, status, _ASKED)


def _member(value: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    member = value.get(name)
    if not isinstance(member, dict):
        raise Malformed(f"the answer has no {name}")
    return member


def _text(value: Mapping[str, Any], name: str) -> str:
    text = value.get(name)
    if not isinstance(text, str) or not text:
        raise Malformed(f"the answer has no {name}")
    return text


def _not_sts(why: str) -> AwsUnavailable:
    return AwsUnavailable(f"{_ASKED.action}: the answer is not one of STS's: {why}")
