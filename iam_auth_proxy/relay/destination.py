"""Where a request goes: to an origin, into a tunnel, or nowhere, because it is answered here.

Asked once for each request, before anything is dialled. Its target and Host become what the origin
shall see.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from iam_auth_proxy.names import Origin
from iam_auth_proxy.relay.decision import serves
from iam_auth_proxy.relay.exchange import Entrance, Reply
from iam_auth_proxy.relay.fields import OWS
from iam_auth_proxy.relay.local_answers import about_us, asks_who, is_about_us
from iam_auth_proxy.relay.message import (
    BadRequest,
    Request,
    ends_here,
    is_own,
    route,
    route_alias,
    route_connect,
    route_inside,
)
from iam_auth_proxy.relay.pool import OWN
from iam_auth_proxy.relay.shared import Shared

_LOOPBACK: Final = ".localhost"


@dataclass(frozen=True, slots=True)
class TunnelTo:
    """The target of a CONNECT; its scheme is not known yet."""

    target: Origin


@dataclass(frozen=True, slots=True)
class Known:
    """An app that the client knows by another origin, ``alias``: see :class:`exchange.Exchange`."""

    app: Origin
    alias: bytes


Destination = Origin | Known | TunnelTo | Reply
"""Forward it there, make a tunnel, or answer it with this."""


def destination(shared: Shared, entrance: Entrance, request: Request, client: str) -> Destination:
    """For a request that came by a listener of ours.

    :param client: the peer's address.
    :raises BadRequest: it goes nowhere.
    """
    if entrance.guarded or b"proxy-authorization" in request.noted:
        refusal = asks_who(shared, entrance, request, client)
        if refusal is not None:
            return refusal
    if request.method == b"CONNECT":
        return TunnelTo(route_connect(request))
    if request.authority is None or b"max-forwards" in request.noted:
        if is_about_us(request):
            return about_us(request)
        if is_own(request):
            return _here(shared, entrance, request)
    origin = route(request)
    if origin.host.endswith(_LOOPBACK):
        # A browser sends no such name to a proxy; a program that is told to use one does.
        return _known(shared, entrance, request, origin.authority) or origin
    return origin


def destination_inside(request: Request, origin: Origin) -> Origin | Reply:
    """For a request in a tunnel. Its CONNECT was let in; the proxy itself cannot be reached.

    :param origin: to which the tunnel leads.
    :raises BadRequest: it goes nowhere.
    """
    route_inside(request, origin)
    if b"max-forwards" in request.noted and ends_here(request):
        return about_us(request)
    return origin


def _here(shared: Shared, entrance: Entrance, request: Request) -> Origin | Known:
    """A request to this port itself: an app that is known here, or a page of the proxy's."""
    hosts = request.noted.get(b"host")
    known = hosts and _known(shared, entrance, request, hosts[0].strip(OWS).decode("latin-1"))
    if known:
        return known
    if not shared.has_own:
        raise BadRequest(421, "This is a proxy; it has no pages of its own here.")
    if not hosts:
        raise BadRequest(400, "The request has no Host.")  # HTTP/1.0 needs none elsewhere
    return OWN


def _known(shared: Shared, entrance: Entrance, request: Request, name: str) -> Known | None:
    """The app that is known here by this value of Host, if there is one."""
    host = name.encode("latin-1")
    app = serves(shared.steering, host, entrance)
    return None if app is None else Known(app, route_alias(request, host, app))
