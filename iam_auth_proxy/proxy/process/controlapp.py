"""The aiohttp application behind the control socket, for ``status``, ``whoami`` and ``logout``.

JSON over HTTP. An error is answered as :func:`as_json` has it.
"""

from __future__ import annotations

import os
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final

from aiohttp import web

from iam_auth_proxy.errors import IamAuthError, Malformed
from iam_auth_proxy.names import Origin, parse_origin
from iam_auth_proxy.protocol.strict import loads_object
from iam_auth_proxy.proxy.listeners.peers import unix_owner
from iam_auth_proxy.proxy.process.build import Parts
from iam_auth_proxy.proxy.process.logs import Recent
from iam_auth_proxy.proxy.process.report import report
from iam_auth_proxy.proxy.signin.prover import AWS_DEADLINE

_MAX_BODY: Final = 4096
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def as_json(error: IamAuthError) -> dict[str, Any]:
    """An error as JSON, with what the command needs to print it and to exit."""
    return {
        "code": error.code,
        "public": error.public,
        "detail": str(error),
        "remedy": error.remedy,
        "exit_status": error.exit_status,
    }


class _Handlers:
    """One method for each path."""

    def __init__(self, parts: Parts, addresses: Sequence[str], recent: Recent) -> None:
        self._parts = parts
        self._addresses = addresses
        self._recent = recent
        self._begun = time.time()

    async def status(self, request: web.Request) -> web.Response:
        return web.json_response(report(self._parts, self._addresses, self._begun, self._recent))

    async def whoami(self, request: web.Request) -> web.Response:
        origin = self._app((await _asked(request)).get("origin"))
        found = await self._parts.whoami(origin, AWS_DEADLINE)
        return web.json_response(found.document())

    async def logout(self, request: web.Request) -> web.Response:
        """Of one origin, or of all where none is named; ``undo``: signs in there again."""
        asked = await _asked(request)
        origin, undo = self._app(asked.get("origin")), asked.get("undo", False)
        if not isinstance(undo, bool):
            raise Malformed("undo is true or false")
        signins = self._parts.signins
        origins = {origin} if origin is not None else self._all()
        ended = 0
        for each in sorted(origins, key=str):
            if undo:
                signins.signs_in_again(each)
            else:
                ended += signins.signed_out(each)
        if origin is None and not undo:
            ended += signins.forget()
        return web.json_response({"origins": sorted(map(str, origins)), "ended": ended})

    async def reach(self, request: web.Request) -> web.Response:
        """A browser is about to open a page there; ``alias``: what it opens in its place."""
        origin = self._app((await _asked(request)).get("origin"))
        if origin is None:
            return web.json_response({"alias": ""})
        self._parts.signins.trust.refresh()
        alias = self._parts.alias_of(origin)
        if not alias:
            self._parts.reach(origin)
        return web.json_response({"alias": alias})

    def _app(self, text: object) -> Origin | None:
        """:raises Malformed: it is no origin."""
        origin = _origin(text)
        return None if origin is None else self._parts.app_of(origin)

    def _all(self) -> set[Origin]:
        signins = self._parts.signins
        held = {session.origin for session in signins.held}
        return {*signins.trust.known(), *held, *signins.signed_out_of}


def _origin(text: object) -> Origin | None:
    """:raises Malformed: it is none."""
    if text is None or text == "":
        return None
    if not isinstance(text, str):
        raise Malformed("an origin is a text")
    return parse_origin(text)


async def _asked(request: web.Request) -> dict[str, Any]:
    """Its body, which is UTF-8 whatever the fields about it say.

    :raises Malformed: it is no JSON object, or too long.
    """
    try:
        body = await request.read()
    except web.HTTPRequestEntityTooLarge as error:
        raise Malformed(f"the request is over {_MAX_BODY} bytes") from error
    return loads_object(body, "the request", at_most=_MAX_BODY)


@web.middleware
async def _guard(request: web.Request, handler: Handler) -> web.StreamResponse:
    sock = request.transport.get_extra_info("socket") if request.transport else None
    if sock is None or unix_owner(sock) not in (None, os.geteuid()):
        raise web.HTTPForbidden
    try:
        return await handler(request)
    except IamAuthError as error:
        return web.json_response({"error": as_json(error)}, status=error.status)


def application(parts: Parts, addresses: Sequence[str], recent: Recent) -> web.Application:
    """The application behind the socket."""
    handlers = _Handlers(parts, addresses, recent)
    app = web.Application(middlewares=[_guard], client_max_size=_MAX_BODY)
    app.router.add_get("/status", handlers.status)
    app.router.add_post("/whoami", handlers.whoami)
    app.router.add_post("/logout", handlers.logout)
    app.router.add_post("/reach", handlers.reach)
    return app
