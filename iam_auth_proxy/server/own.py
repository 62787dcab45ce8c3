"""Calls that the app makes as itself and that fail: AWS being away, or the app's own set-up.

The two have different ends. An outage passes, so visitors are told to come again. What AWS answers
with no, and what cannot even be asked, stays as it is until somebody mends the app: the log says
how, and visitors are sent to the app's owner.
"""

from __future__ import annotations

import logging

from iam_auth_proxy.errors import (
    AccessDenied,
    AwsError,
    AwsUnavailable,
    IamAuthError,
    KeyUnusable,
    Malformed,
    Misconfigured,
    NoCredentials,
    NoProfile,
)

log = logging.getLogger(__name__)


def fault(
    error: AwsError | AwsUnavailable | Malformed, doing: str
) -> AwsUnavailable | Misconfigured:
    """What to answer with, after a line in the log.

    :param doing: what did not work, for that line.
    """
    if isinstance(error, AwsUnavailable):
        log.error("%s, since AWS did not answer: %r", doing, str(error))
        return AwsUnavailable(f"{doing}: {error}")
    cause = error.__cause__
    todo = remedy(cause if isinstance(cause, AwsError) else error)
    log.error("%s: %r%s", doing, str(error), f". {todo}" if todo else "")
    return Misconfigured(f"{doing}: {error}")


def remedy(error: IamAuthError) -> str:
    """What the operator of an app can do. Most errors' own remedies speak to a person."""
    if isinstance(error, NoCredentials):
        return (
            "Give the app an AWS identity: a role of its instance, task or pod, or "
            "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
        )
    if isinstance(error, NoProfile):
        return (
            "Set AWS_PROFILE to a profile of the user that the app runs as, or unset it. See which "
            "there are: aws configure list-profiles"
        )
    if isinstance(error, AccessDenied):
        on = f" on {error.resource}" if error.resource else ""
        return f"Allow {error.action}{on} to the role that the app runs as"
    if isinstance(error, KeyUnusable):
        return (
            "Name a key that exists and is enabled, best by its ARN: ids and aliases are looked up "
            "in AWS_REGION"
        )
    return error.remedy
