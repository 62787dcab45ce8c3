"""What botocore raises, as one of our errors: decided by AWS's codes and botocore's classes.

Message texts change without notice and are shown to the log alone; the one exception is clock skew,
whose two times AWS puts nowhere else. ``docs``: the error reference of STS and KMS, botocore's
``exceptions.py``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from botocore import exceptions as boto
from botocore.parsers import ResponseParserError

from iam_auth_proxy.errors import (
    AccessDenied,
    AwsError,
    AwsUnavailable,
    CiphertextInvalid,
    CiphertextOfOtherKey,
    ClockSkew,
    IamAuthError,
    KeyUnusable,
    LoginNeeded,
)

# The request went out, or did not, and no usable answer came back.
NO_ANSWER: Final = (
    boto.ConnectionError,  # connect, TLS, proxy
    boto.HTTPClientError,  # read, closed, truncated
    boto.IncompleteReadError,
    ResponseParserError,
)
# What botocore's parsers raise by themselves for a body of another shape than AWS's: the page of a
# captive portal, for example.
UNREADABLE: Final = (AttributeError, LookupError, TypeError, ValueError)

_BUSY: Final = frozenset(
    {
        "DependencyTimeoutException",
        "InternalError",
        "InternalFailure",
        "KMSInternalException",
        "KeyUnavailableException",
        "PriorRequestNotComplete",
        "RequestLimitExceeded",
        "RequestThrottled",
        "RequestThrottledException",
        "RequestTimeout",
        "RequestTimeoutException",
        "ServiceUnavailable",
        "ServiceUnavailableException",
        "Throttling",
        "ThrottlingException",
        "ThrottledException",
        "TooManyRequestsException",
    }
)
_EXPIRED: Final = frozenset({"ExpiredToken", "ExpiredTokenException", "TokenRefreshRequired"})
_UNKNOWN_KEY: Final = frozenset(
    {
        "IncompleteSignature",
        "IncompleteSignatureException",
        "InvalidAccessKeyId",
        "InvalidClientTokenId",
        "MissingAuthenticationToken",
        "MissingAuthenticationTokenException",
        "NotAuthorized",
        "UnrecognizedClientException",
    }
)
_BAD_SIGNATURE: Final = frozenset(
    {"InvalidSignatureException", "RequestTimeTooSkewed", "SignatureDoesNotMatch"}
)
_DENIED: Final = frozenset(
    {"AccessDenied", "AccessDeniedException", "ForbiddenException", "UnauthorizedOperation"}
)
_KEY: Final = frozenset(
    {
        "DisabledException",
        "InvalidArnException",
        "InvalidKeyUsageException",
        "KMSInvalidStateException",
        "NotFoundException",
    }
)
_OTHER_KEY: Final = "IncorrectKeyException"
_CIPHERTEXT: Final = "InvalidCiphertextException"


@dataclass(frozen=True, slots=True)
class Asked:
    """What AWS was asked: ``action`` as IAM spells it (``kms:Encrypt``), on ``resource``."""

    action: str
    resource: str = ""


def from_client_error(error: boto.ClientError, asked: Asked) -> IamAuthError:
    """Our error for an answer of AWS that says no, or that it is busy."""
    answer: Mapping[str, Any] = error.response
    return from_code(
        str(answer.get("Error", {}).get("Code", "")),
        str(answer.get("Error", {}).get("Message", "")),
        int(answer.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)),
        asked,
    )


def from_code(code: str, message: str, status: int, asked: Asked) -> IamAuthError:
    """Our error for AWS's code, its message and the HTTP status."""
    detail = f"{asked.action}: {code}: {message}" if message else f"{asked.action}: {code}"
    # A number in place of a code is an HTTP status: what answered was not AWS.
    if code in _BUSY or status >= 500 or status == 429 or not code or code.isdecimal():
        return AwsUnavailable(detail)
    if code in _EXPIRED:
        return LoginNeeded(detail, public="The AWS session has expired.")
    if code in _UNKNOWN_KEY:
        return LoginNeeded(detail, public="AWS does not know these credentials.")
    if code in _BAD_SIGNATURE:
        return _bad_signature(code, message, detail)
    if code in _DENIED:
        return AccessDenied(
            detail,
            action=asked.action,
            resource=asked.resource,
            public=f"Your AWS identity may not call {asked.action}.",
            remedy=_allow(asked),
        )
    if code in _KEY:
        return KeyUnusable(detail)
    if code == _OTHER_KEY:
        return CiphertextOfOtherKey(detail)
    if code == _CIPHERTEXT:
        return CiphertextInvalid(detail)
    if code == "RegionDisabledException":
        return AwsError(
            detail,
            public="STS is not active in this region.",
            remedy="Choose another region with --region, or activate STS there.",
        )
    return AwsError(detail)


def _allow(asked: Asked) -> str:
    on = f" on {asked.resource}" if asked.resource else ""
    return f"Ask your AWS administrator to allow {asked.action}{on}."


# "Signature expired: A is now earlier than B (C - 15 min.)"; for a clock that is ahead "Signature
# not yet current: A is still later than B (C + 15 min.)". A is the signature's time, C is AWS's.
_SKEW = re.compile(
    r"Signature (?:expired|not yet current): (?P<ours>\d{8}T\d{6}Z) is .{1,40}"
    r"\((?P<theirs>\d{8}T\d{6}Z) [+-] \d+ min",
    re.ASCII,
)


def _bad_signature(code: str, message: str, detail: str) -> IamAuthError:
    match = _SKEW.search(message)
    if match is not None:
        return ClockSkew(detail, seconds=_time(match["ours"]) - _time(match["theirs"]))
    if code == "RequestTimeTooSkewed":
        return ClockSkew(detail)
    return LoginNeeded(detail, public="The AWS secret key does not belong to the access key.")


def _time(text: str) -> float:
    return datetime.strptime(text, "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC).timestamp()


def from_botocore_error(error: Exception, asked: Asked) -> IamAuthError:
    """Our error for what botocore raises while it calls AWS with credentials that it has."""
    unquote(error)
    detail = f"{asked.action}: {error}"
    if isinstance(error, boto.ClientError):
        return from_client_error(error, asked)
    if isinstance(error, NO_ANSWER):
        return AwsUnavailable(detail, remedy="Check the network, and try again.")
    if not isinstance(error, boto.BotoCoreError):  # UNREADABLE
        return AwsUnavailable(f"{asked.action}: the answer is not one of AWS's ({error!r})")
    return AwsError(detail, public="AWS could not be asked.")


def unquote(error: Exception) -> None:
    """Take AWS's answer out of an error's text, which may be half of somebody's credentials.

    In place: it stays as the cause of ours, and so in tracebacks.
    """
    if isinstance(error, ResponseParserError):
        error.args = ("the answer cannot be parsed",)


def no_answer(asked: Asked, what: str) -> AwsUnavailable:
    """AWS said yes and the answer lacks what it must have: it was cut, or is not AWS's."""
    return AwsUnavailable(f"{asked.action}: {what}")
