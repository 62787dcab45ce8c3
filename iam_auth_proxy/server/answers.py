"""The gate's own answers, each as a :class:`Reply`: status, header fields, body.

A sign-in's answers are never stored, and tell nobody where they came from.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Final

from iam_auth_proxy.errors import IamAuthError, Misconfigured, TooManyRequests
from iam_auth_proxy.names import Origin, parse_key_reference
from iam_auth_proxy.protocol import challenge as challenges
from iam_auth_proxy.protocol import nonce as nonces
from iam_auth_proxy.protocol.challenge import Bound, Challenge
from iam_auth_proxy.protocol.handoff import EXPIRES_FIELD, SIGNED_OUT_FIELD
from iam_auth_proxy.protocol.proof import ProofKind
from iam_auth_proxy.server import pages
from iam_auth_proxy.server.facts import Reply, RequestFacts
from iam_auth_proxy.server.home import Home
from iam_auth_proxy.server.sessions import Visitor

RETRY_AFTER: Final = 5
"""Seconds, of a 503 that waiting may end."""

_QUIET: Final = (
    ("Cache-Control", "no-store"),
    ("Referrer-Policy", "no-referrer"),
    ("X-Content-Type-Options", "nosniff"),
)

Fields = tuple[tuple[str, str], ...]


def challenge(
    facts: RequestFacts,
    origin: Origin,
    home: Home,
    context: Mapping[str, str],
    bound: Bound | None,
    help_url: str,
) -> Reply:
    """401 with the original's three fields, one of them WWW-Authenticate, and the extension's.

    :param bound: with it the nonce's cookie is set; None where only the original's protocol is on.
    """
    asked = Challenge(home.accounts[0], parse_key_reference(str(home.key)), context, bound)
    fields = tuple(challenges.write(asked))
    if bound is not None:
        fields += (("Set-Cookie", nonces.write_cookie(origin, bound.nonce)),)
    weakest = bound is None or ProofKind.SIGNED_IDENTITY not in bound.proofs
    account = home.accounts[0]
    page = pages.sign_in_needed(origin, account, facts.target, help_url, weakest=weakest)
    return _page(401, page, facts, fields)


def refusal(facts: RequestFacts, error: IamAuthError, page: pages.Page) -> Reply:
    """The error's status, its page, and ``Iam-Auth-Error`` for programs. Never a challenge."""
    fields: Fields = (("Iam-Auth-Error", error.code),)
    if isinstance(error, TooManyRequests):
        fields += (("Retry-After", str(math.ceil(error.retry_after))),)
    elif error.status == 503 and not isinstance(error, Misconfigured):
        fields += (("Retry-After", str(RETRY_AFTER)),)
    return _page(error.status, page, facts, fields)


def signed_in(return_url: str, cookies: Iterable[str]) -> Reply:
    """302 to a path that passed ``check_return_url``, as it was given."""
    fields = (("Location", return_url), *_QUIET, *(("Set-Cookie", cookie) for cookie in cookies))
    return Reply(302, fields)


def handed_over(return_url: str, cookie: str, life: int) -> Reply:
    """303 after a bound sign-in.

    :param life: seconds until the session is over whatever happens, so that a proxy can renew it.
    """
    fields = (("Location", return_url), *_QUIET, ("Set-Cookie", cookie))
    return Reply(303, (*fields, (EXPIRES_FIELD, str(life))))


def signed_out(facts: RequestFacts, cookie: str) -> Reply:
    """200; the header tells the proxy not to sign in again of itself."""
    fields = (("Set-Cookie", cookie), (SIGNED_OUT_FIELD, "1"))
    return _page(200, pages.signed_out(), facts, fields)


def wrong_method(facts: RequestFacts, allow: str, page: pages.Page) -> Reply:
    """405."""
    return _page(405, page, facts, (("Allow", allow),))


def whoami(facts: RequestFacts, visitor: Visitor, cookies: Iterable[str]) -> Reply:
    """200 and the identity as JSON."""
    identity, session = visitor.identity, visitor.session
    value = {
        "arn": identity.arn,
        "account": identity.account,
        "partition": identity.partition,
        "kind": str(identity.kind),
        "name": identity.name,
        "session_name": identity.session_name,
        "user_id": identity.user_id,
        "origin": session.origin,
        "proof": session.proof,
        "issued": _instant(session.issued),
        "expires": _instant(session.expires),
    }
    body = json.dumps(value).encode() + b"\n"
    fields: Fields = (("Content-Type", "application/json"), *_QUIET)
    fields += tuple(("Set-Cookie", cookie) for cookie in cookies)
    return Reply(200, fields, b"" if facts.method == "HEAD" else body)


def with_cookie(reply: Reply, cookie: str) -> Reply:
    """The same and a Set-Cookie field."""
    return Reply(reply.status, (*reply.headers, ("Set-Cookie", cookie)), reply.body)


def _page(status: int, page: pages.Page, facts: RequestFacts, fields: Fields) -> Reply:
    headers, body = pages.render(page, facts.first("accept"))
    return Reply(status, (*fields, *headers), b"" if facts.method == "HEAD" else body)


def _instant(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
