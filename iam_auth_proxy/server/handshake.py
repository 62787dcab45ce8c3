"""Which pages may open a WebSocket: the app's own (cross-site WebSocket hijacking). Pure.

A browser lets every page open one to every app, and hand messages to and fro, with the cookies that
SameSite lets pass: it holds other sites off, and no other name of the same domain nor another port
of the same host. What no page can change is Origin (RFC 6455, section 10.2). A program sends none.
"""

from __future__ import annotations

from collections.abc import Collection

from iam_auth_proxy.errors import ForeignPage, Malformed
from iam_auth_proxy.names import Origin, parse_origin
from iam_auth_proxy.server.facts import RequestFacts


def check_page(facts: RequestFacts, origins: Collection[Origin]) -> None:
    """Whoever opens a WebSocket is no page, or one of these origins.

    :param origins: what the app goes by. Empty: it is not known, and every page passes; what Host
        says is no measure, since front ends rewrite it.
    :raises ForeignPage: another page, one that hides (``null``), or one that cannot be told.
    """
    if not origins or not facts.opens_websocket:
        return
    said = facts.all("origin")
    if said and not (len(said) == 1 and _is_one_of(said[0], origins)):
        raise ForeignPage(f"a page of {', '.join(said)} opens a WebSocket")


def _is_one_of(text: str, origins: Collection[Origin]) -> bool:
    try:
        return parse_origin(text.strip()) in origins
    except Malformed:
        return False
