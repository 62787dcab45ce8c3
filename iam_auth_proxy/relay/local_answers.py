"""Requests that the relay answers itself, without an origin: who is not let in, and ``OPTIONS *``.

Errors of a request's grammar are :class:`message.BadRequest`; these are answers to good requests.
"""

from __future__ import annotations

from typing import Final

from iam_auth_proxy.relay.exchange import Entrance, Reply
from iam_auth_proxy.relay.message import BadRequest, Request, drop_fields, ends_here, is_own
from iam_auth_proxy.relay.shared import Shared

_REALM: Final = b'Basic realm="iam-auth-proxy"'
_METHODS: Final = (b"Allow", b"CONNECT, DELETE, GET, HEAD, OPTIONS, PATCH, POST, PUT")


def asks_who(shared: Shared, entrance: Entrance, request: Request, client: str) -> Reply | None:
    """The answer to a request without the credentials that its entrance asks for; None: let in.

    What it had for credentials is taken out of it, whichever it is.

    :param client: the peer's address.
    """
    # Taken out first: no later code needs it, and so none can log or forward it.
    credentials = request.noted.pop(b"proxy-authorization", None)
    if not entrance.guarded:
        return None
    status, field = 407, b"Proxy-Authenticate"
    if is_own(request):
        status, field = 401, b"WWW-Authenticate"
        credentials = request.noted.pop(b"authorization", None)
        drop_fields(request, {b"authorization"})
    only = credentials[0] if credentials and len(credentials) == 1 else None
    if entrance.authenticates(only, client):
        return None
    shared.counters.unauthenticated += 1
    page = shared.steering.refused(status, "This proxy asks for a password.", client)
    return Reply(status, (*page.headers, (field, _REALM)), page.body)


def is_about_us(request: Request) -> bool:
    """``OPTIONS *``, and what Max-Forwards of 0 ends here (RFC 9110 section 7.6.2)."""
    return request.target == b"*" or (b"max-forwards" in request.noted and ends_here(request))


def about_us(request: Request) -> Reply:
    """The answer to that.

    :raises BadRequest: TRACE, which is not answered, and what else nobody has to answer.
    """
    if request.method != b"OPTIONS" or request.length:
        raise BadRequest(405 if request.method == b"TRACE" else 400, "Nothing answers this.")
    return Reply(204, (_METHODS,))
