"""What a stop page says: of an error, and of a sign-in that goes in a circle."""

from __future__ import annotations

import math
import shlex
from http import HTTPStatus
from typing import Final

from iam_auth_proxy import policies
from iam_auth_proxy.errors import (
    AccessDenied,
    AppRefused,
    IamAuthError,
    NotTrusted,
    PathError,
    SignedOut,
    TooManyRequests,
)
from iam_auth_proxy.names import Origin
from iam_auth_proxy.protocol.challenge import Challenge
from iam_auth_proxy.proxy.decisions.rules import key_arn
from iam_auth_proxy.proxy.pages.stop import Stop
from iam_auth_proxy.relay.exchange import Reply, ResponseHead

_RETRY_AFTER = 5.0


def stopped(
    error: IamAuthError,
    origin: Origin,
    accept: bytes,
    trusted: bool,
    challenge: Challenge | None = None,
    *,
    link: str = "",
) -> Reply:
    """The page for an error.

    :param accept: what the client said of media types.
    :param trusted: the remedy may name a profile, a key or a path, which is not for a stranger: the
        origin's own scripts can read the page.
    :param challenge: the one that was being answered.
    :param link: see :class:`Stop`.
    """
    status = error.status
    if isinstance(error, PathError):
        status = error.http_status
    elif isinstance(error, AppRefused):
        status = error.app_status
    headers: tuple[tuple[bytes, bytes], ...] = ()
    if status in (429, 503):
        seconds = error.retry_after if isinstance(error, TooManyRequests) else _RETRY_AFTER
        headers = ((b"Retry-After", b"%d" % max(1, math.ceil(seconds))),)
    told = trusted or isinstance(error, NotTrusted)
    for_anybody = isinstance(error, PathError) and error.for_anybody
    remedy = error.remedy if told or for_anybody else ""
    if isinstance(error, SignedOut):
        remedy = f"To sign in there again, run: {again_command(origin)}"
    policy = _policy(origin, error, challenge) if told else ""
    stop = Stop(status, error.public, code_of(error), remedy, str(origin), policy, link)
    return stop.reply(accept, headers=headers)


def _policy(origin: Origin, error: IamAuthError, challenge: Challenge | None) -> str:
    """What an administrator is asked for where Encrypt was denied: the very text."""
    if challenge is None or not isinstance(error, AccessDenied) or error.action != "kms:Encrypt":
        return ""
    if key_arn(error.resource) is None:  # an alias, which no policy's Resource can be
        return ""
    app = origin if challenge.bound is not None else None
    return policies.dumps(policies.user(app, error.resource))


def code_of(error: IamAuthError) -> str:
    """What the page calls it: the app's own code and RFC 9209's tokens where there are such."""
    if isinstance(error, PathError):
        return error.error
    if isinstance(error, AppRefused):
        return error.app_code or error.code
    return error.code


def again_command(origin: Origin) -> str:
    """The command that undoes a logout, quoted for a shell."""
    return f"iam-auth-proxy logout --undo {shlex.quote(str(origin))}"


def fruitless(origin: Origin, answer: ResponseHead, accept: bytes) -> Reply:
    """A second challenge, after the sign-in: never a third."""
    stop = Stop(
        401,
        "The app signed you in, and then asked for a sign-in again.",
        "loop",
        "Tell the app's owner: it does not accept the session that it gave.",
        str(origin),
    )
    return stop.reply(accept, headers=_asked(answer))


def circling(origin: Origin, answer: ResponseHead, accept: bytes) -> Reply:
    """A browser that comes back from the sign-in without a session, again and again."""
    stop = Stop(
        401,
        "The app asked for a sign-in again and again.",
        "loop",
        "Your client must keep cookies: curl needs -L and -b ''. If it does, tell the app's owner.",
        str(origin),
    )
    return stop.reply(accept, headers=_asked(answer))


_CHECK_CLIENT: Final = "Check the program that sent it, and its proxy settings."
_REFUSED_REMEDIES: Final = {
    401: "Give the user and the password of --client-auth.",
    405: "Send it to the app without the proxy.",
    407: "Give your client the user and the password of --client-auth, for this proxy.",
    408: "Try again.",
    414: "Shorten the URL.",
    431: "Delete the site's cookies, which are the most of it as a rule, and try again.",
    501: "Send it to the app without the proxy.",
    503: "Try again in a few seconds.",
    505: "Have the client speak HTTP/1.1.",
}


def refused(status: int, reason: str) -> Reply:
    """A request that is not forwarded. Its sender may be anybody, so nothing is quoted.

    As text: nothing that was in it was read, ``Accept`` neither.
    """
    happened = f"{HTTPStatus(status).phrase}: {reason}"
    remedy = _REFUSED_REMEDIES.get(status, _CHECK_CLIENT)
    return Stop(status, happened, "refused", remedy).reply(b"text/plain")


def _asked(answer: ResponseHead) -> tuple[tuple[bytes, bytes], ...]:
    """A 401 says how to authenticate (RFC 9110 section 15.5.2): in the app's own words."""
    return tuple((b"WWW-Authenticate", value) for value in answer.get_all(b"www-authenticate"))
