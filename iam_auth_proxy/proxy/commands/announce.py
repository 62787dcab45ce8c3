"""The three lines that a person at a terminal reads: where, who, and what to type next."""

from __future__ import annotations

import shlex
from collections.abc import Awaitable, Callable, Sequence
from typing import TextIO

from iam_auth_proxy.aws.base import CallerIdentity
from iam_auth_proxy.config import Settings
from iam_auth_proxy.errors import IamAuthError, MfaNeeded
from iam_auth_proxy.proxy.https.aliases import url_of
from iam_auth_proxy.proxy.listeners.address import UNIX, curl


def where(addresses: Sequence[str], settings: Settings) -> str:
    """The first line: where the proxy listens."""
    widened = settings.bind.widened
    said = f" (loopback only: that is {widened} here)" if widened else ""
    return f"Listening on {' and '.join(addresses)}{said}"


def who(identity: CallerIdentity, settings: Settings) -> str:
    """The second line: who signs in."""
    profile = f", profile {settings.profile}" if settings.profile else ""
    return f"Signing in as {identity.arn}{profile}"


def exposed(settings: Settings) -> str:
    """Who else acts as this person, where that is not just they; why, and what it means."""
    if settings.client_auth:
        return (
            "whoever has a password of --client-auth; both are sent in plain, for anybody on the "
            "way to read"
        )
    if settings.allow_other_users:
        return "every user of this machine (--allow-other-users)"
    return ""


def who_not(error: IamAuthError) -> str:
    """The second line where nobody can sign in yet; the proxy runs all the same."""
    # A missing MFA code is no problem to solve now: it is asked for at the first sign-in.
    asked = isinstance(error, MfaNeeded)
    remedy = "It is asked for here, at the first sign-in." if asked else error.remedy
    return f"Nobody to sign in as yet: {error.public} {remedy}".rstrip()


def what_next(address: str, settings: Settings) -> str:
    """The third line: what to type, with the first app that may be asked for."""
    apps = [rule for rule in settings.trust if not rule.wildcard]
    rule = next((rule for rule in apps if rule.is_read), None)
    if rule is None and apps:  # which would be tunnelled, and nobody signed in
        return f"Next: iam-auth-proxy trust add {shlex.quote(str(apps[0]))} --https alias"
    if rule is None:
        return "Next: trust an app, for example: iam-auth-proxy trust add http://app.internal"
    url = f"{rule}/"
    alias = "" if address.startswith(UNIX) else url_of(rule.alias_name, address)
    if alias:  # which any browser opens as it is
        return f"Next: open {alias}/  or  curl {alias}/"
    if address.startswith(UNIX):  # which no browser can be sent to
        return f"Next: {curl(address, url)}"
    return f"Next: iam-auth-proxy browser {shlex.quote(url)}  or  {curl(address, url)}"


async def announce(
    ask: Callable[[], Awaitable[CallerIdentity]],
    addresses: Sequence[str],
    settings: Settings,
    out: TextIO,
) -> None:
    """Prints the lines; AWS is asked in between, while the proxy serves already."""
    print(where(addresses, settings), file=out, flush=True)
    acting = "you"
    try:
        identity = await ask()
        line, acting = who(identity, settings), identity.arn
    except IamAuthError as error:
        line = who_not(error)
    print(line, file=out)
    others = exposed(settings)
    if others:
        print(f"Everyone who connects acts as {acting}: {others}", file=out)
    print(what_next(addresses[0], settings), file=out, flush=True)
