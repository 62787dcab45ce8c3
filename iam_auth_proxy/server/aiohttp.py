"""The gate before an aiohttp app::

    app = web.Application(middlewares=[iam_auth(Gate.from_env(public=["/healthz"]))])

Handlers find the :class:`~iam_auth_proxy.protocol.identity.Identity` in ``request["iam"]`` and the
session in ``request["iam_session"]``, for type checkers ``request[IDENTITY]`` and
``request[SESSION]``. On a public path without a session there is neither. Put the middleware first:
what stands before it sees requests of nobody in particular.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from typing import Final, TypeVar

from aiohttp import ClientPayloadError, web
from aiohttp.typedefs import Handler, Middleware

from iam_auth_proxy.aws.offload import Offload
from iam_auth_proxy.errors import AwsUnavailable, ConfigError
from iam_auth_proxy.protocol.handoff import MAX_FORM
from iam_auth_proxy.protocol.identity import Identity
from iam_auth_proxy.protocol.session import Session
from iam_auth_proxy.server import mount
from iam_auth_proxy.server.caching import with_cookies
from iam_auth_proxy.server.facts import Allow, Answer, Reply, RequestFacts
from iam_auth_proxy.server.gate import Gate

T = TypeVar("T")


class NamedKey(web.RequestKey[T]):
    """A key of a request that is also found under its plain name.

    aiohttp warns of plain names where values are set; ``request["iam"]`` is what people read by.
    """

    __slots__ = ("_plain",)

    def __init__(self, name: str, kind: type[T]) -> None:
        super().__init__(name, kind)
        self._plain = name

    def __eq__(self, other: object) -> bool:
        return other == self._plain if isinstance(other, str) else self is other

    def __hash__(self) -> int:
        return hash(self._plain)


IDENTITY: Final = NamedKey("iam", Identity)
SESSION: Final = NamedKey("iam_session", Session)


def iam_auth(gate: Gate) -> Middleware:
    """A middleware that lets through what the gate allows.

    aiohttp tells a middleware nothing of its app before the first request. Where the app has one of
    the gate's paths already, every request is answered 503, and the log has the way out.
    """
    offload = Offload(mount.THREADS)
    conflicts: dict[web.Application, ConfigError | None] = {}

    async def check(request: web.Request, facts: RequestFacts) -> Answer:
        app = request.app
        if app not in conflicts:
            paths = [resource.canonical for resource in app.router.resources()]
            conflicts[app] = mount.conflict(gate, paths)
        conflict = conflicts[app]
        if conflict is not None:
            return gate.misconfigured(facts, conflict)
        if gate.takes_body(facts):
            facts = replace(facts, body=await _read_body(request))
        answer = gate.check_offline(facts, time.time())
        if answer is not None:
            return answer
        try:
            return await offload(gate.check_online, facts, time.time(), deadline=mount.DEADLINE)
        except AwsUnavailable as error:
            return gate.unavailable(facts, error)

    @web.middleware
    async def iam_auth_middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
        answer = await check(request, _facts(request))
        if isinstance(answer, Reply):
            return web.Response(status=answer.status, headers=answer.headers, body=answer.body)
        request = _strip(request, answer)
        if answer.identity is not None and answer.session is not None:
            request[IDENTITY], request[SESSION] = answer.identity, answer.session
        try:
            response = await handler(request)
        except web.HTTPException as answered:
            _add_cookies(answered, answer.set_cookies)
            raise
        _add_cookies(response, answer.set_cookies)
        return response

    return iam_auth_middleware


def _facts(request: web.Request) -> RequestFacts:
    target = request.raw_path
    if not target.startswith("/"):  # absolute-form (RFC 9112 section 3.2.2): routed by its path
        target = str(request.rel_url)
    return RequestFacts(
        method=request.method,
        scheme=request.scheme,
        path=request.path,
        query=target.partition("#")[0].partition("?")[2],
        headers=tuple((name.lower(), value) for name, value in request.headers.items()),
        client=request.remote or "",
        target=target if target.startswith("/") else "/",
    )


async def _read_body(request: web.Request) -> bytes:
    """The form of a sign-in; of a longer body as much as tells that it is too long.

    What came too late, or not to its end, is as good as nothing.
    """
    body = b""
    try:
        async with asyncio.timeout(mount.BODY_DEADLINE):
            while len(body) <= MAX_FORM and not request.content.at_eof():
                body += await request.content.read(MAX_FORM + 1 - len(body))
    except (OSError, ClientPayloadError, web.RequestPayloadError):
        return b""  # OSError: the client left, or the time was up
    return body


def _strip(request: web.Request, answer: Allow) -> web.Request:
    """The request without what could be read as somebody's identity."""
    if not any(answer.hides(name) for name in request.headers):
        return request
    kept = [(name, value) for name, value in request.headers.items() if not answer.hides(name)]
    return request.clone(headers=kept)


def _add_cookies(response: web.StreamResponse, cookies: tuple[str, ...]) -> None:
    # Too late for an answer whose head was sent; the next answer will carry the cookie.
    if cookies and not response.prepared:
        headers = with_cookies(response.headers.items(), cookies, time.time())
        response.headers.clear()
        response.headers.extend(headers)
