"""What botocore raises, as one of our errors: decided by AWS's codes and botocore's classes.

Message texts change without notice, so nothing is decided by them; the one exception is clock skew,
whose two times AWS puts nowhere else. The log has them whole, and a remedy quotes them
(:func:`words`) where AWS alone knows what is wrong. ``docs``: the error reference of STS and KMS,
their "common errors", botocore's ``exceptions.py``.
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
    SettingRefused,
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
        "BandwidthLimitExceeded",
        "DependencyTimeoutException",
        "IDPCommunicationError",
        "InternalError",
        "InternalFailure",
        "KMSInternalException",
        "KeyUnavailableException",
        "LimitExceededException",
        "PriorRequestNotComplete",
        "RequestLimitExceeded",
        "RequestThrottled",
        "RequestThrottledException",
        "RequestTimeout",
        "RequestTimeoutException",
        "ServiceUnavailable",
        "ServiceUnavailableException",
        "SlowDown",
        "Throttling",
        "ThrottlingException",
        "ThrottledException",
        "TooManyRequestsException",
    }
)
_EXPIRED: Final = frozenset(
    {"ExpiredToken", "ExpiredTokenException", "TokenRefreshRequired", "UnauthorizedException"}
)
_UNKNOWN_KEY: Final = frozenset(
    {
        "AuthFailure",
        "IncompleteSignature",
        "IncompleteSignatureException",
        "InvalidAccessKeyId",
        "InvalidClientTokenId",
        "InvalidToken",
        "MissingAuthenticationToken",
        "MissingAuthenticationTokenException",
        "UnrecognizedClientException",
    }
)
_SKEWED: Final = frozenset({"RequestExpired", "RequestTimeTooSkewed"})
_BAD_SIGNATURE: Final = _SKEWED | {"InvalidSignatureException", "SignatureDoesNotMatch"}
_DENIED: Final = frozenset(
    {
        "AccessDenied",
        "AccessDeniedException",
        "ForbiddenException",
        "NotAuthorized",
        "UnauthorizedOperation",
    }
)
_KEY: Final = frozenset(
    {
        "DisabledException",
        "InvalidArnException",
        "InvalidKeyUsageException",
        "KMSInvalidStateException",
        "NotFoundException",
        "UnsupportedOperationException",
    }
)
_OTHER_KEY: Final = "IncorrectKeyException"
_CIPHERTEXT: Final = "InvalidCiphertextException"
_NOT_ACTIVATED: Final = frozenset({"OptInRequired", "SubscriptionRequiredException"})
# STS leaves the suffix out, and its model names the shapes with it.
_POLICY: Final = frozenset({"MalformedPolicyDocument", "MalformedPolicyDocumentException"})
_POLICY_SIZE: Final = frozenset({"PackedPolicyTooLarge", "PackedPolicyTooLargeException"})
_OUTSIDE_ITS_LIMITS: Final = frozenset({"ValidationError", "ValidationException"})
# The calls whose parameters people set (flags, or the profile).
_SESSION_ACTIONS: Final = frozenset({"sts:AssumeRole", "sts:GetSessionToken"})


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
    if code in _NOT_ACTIVATED:
        service = asked.action.partition(":")[0].upper()
        return AwsError(
            detail,
            public=f"The AWS account is not signed up for {service}.",
            remedy=f"Ask your AWS administrator to activate {service} in the account.",
        )
    if code in _POLICY:
        return SettingRefused(
            detail,
            public="AWS does not accept the session policy.",
            remedy=f"Correct --assume-role-policy. {words(message)}",
        )
    if code in _POLICY_SIZE:
        return SettingRefused(
            detail,
            public="The session policy, with the session's tags, is larger than AWS takes.",
            remedy="Shorten --assume-role-policy.",
        )
    if code in _OUTSIDE_ITS_LIMITS and asked.action in _SESSION_ACTIONS:
        return SettingRefused(
            detail,
            public=f"AWS does not accept the settings of the session ({asked.action}).",
            remedy=f"Correct the setting that AWS names. {words(message)}",
        )
    name = code if _CODE.fullmatch(code) else "a code that is none of AWS's"
    return AwsError(
        detail,
        public=f"AWS refused {asked.action}: {name}.",
        remedy=f"{words(message)} If that does not help, show the log to your AWS administrator.",
    )


_CODE = re.compile(r"[A-Za-z0-9.:_-]{1,64}", re.ASCII)
_LONGEST_READ: Final = 4096
_LONGEST_WORDS: Final = 300
# AWS quotes what it does not take. Nothing this long is needed to understand it, but for the names
# in ARNs, which have other characters between them.
_PERHAPS_SECRET = re.compile(r"eyJ[\w-]{8,}(?:\.[\w-]+)*|[A-Za-z0-9+/=]{32,}", re.ASCII)


def words(message: str) -> str:
    """AWS's words as a sentence for the person: one line, cut, without what may be a secret."""
    line = _line(message)
    return f"AWS says: {line}." if line else "AWS says no more than that."


def _line(text: str) -> str:
    line = " ".join("".join(c if c.isprintable() else " " for c in text[:_LONGEST_READ]).split())
    line = _PERHAPS_SECRET.sub("***", line).rstrip(".")
    return line if len(line) <= _LONGEST_WORDS else line[:_LONGEST_WORDS] + "…"


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
    if code in _SKEWED:
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
    return AwsError(
        detail,
        public="AWS could not be asked.",
        remedy=f"Correct the setting that this is about: {_line(str(error))}.",
    )


def unquote(error: Exception) -> None:
    """Take AWS's answer out of an error's text, which may be half of somebody's credentials.

    In place: it stays as the cause of ours, and so in tracebacks.
    """
    if isinstance(error, ResponseParserError):
        error.args = ("the answer cannot be parsed",)


def no_answer(asked: Asked, what: str) -> AwsUnavailable:
    """AWS said yes and the answer lacks what it must have: it was cut, or is not AWS's."""
    return AwsUnavailable(f"{asked.action}: {what}")
