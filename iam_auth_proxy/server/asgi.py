"""The gate before an ASGI app: FastAPI, Starlette and everything else of that kind.

::

    app.add_middleware(IamAuth, gate=Gate.from_env(public=["/healthz"]))

    @app.get("/")
    def home(me: Annotated[Identity, Depends(identity)]): return me.arn

The app finds the :class:`~iam_auth_proxy.protocol.identity.Identity` in
``scope["iam_auth.identity"]`` and the session in ``scope["iam_auth.session"]``; they are None on a
public path without a session. WebSockets are gated
like requests. Lifespan events pass untouched, but for an app that has one of the gate's paths
already, or whose key ring cannot be used: its start is refused with the way out.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator, MutableMapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from iam_auth_proxy.aws.offload import Offload
from iam_auth_proxy.errors import AwsUnavailable, ConfigError
from iam_auth_proxy.protocol.handoff import MAX_FORM
from iam_auth_proxy.protocol.identity import Identity
from iam_auth_proxy.server import mount
from iam_auth_proxy.server.caching import with_cookies
from iam_auth_proxy.server.facts import Answer, Reply, RequestFacts
from iam_auth_proxy.server.gate import Gate

if TYPE_CHECKING:
    from starlette.requests import HTTPConnection
else:
    try:
        from starlette.requests import HTTPConnection
    except ImportError:  # another framework's app: it has no use for identity() either
        HTTPConnection = Any

IDENTITY_KEY: Final = "iam_auth.identity"
SESSION_KEY: Final = "iam_auth.session"

_SCHEMES: Final = {"http": "http", "https": "https", "ws": "http", "wss": "https"}

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]


class IamAuth:
    """An ASGI app that lets through what the gate allows."""

    def __init__(self, app: App, gate: Gate) -> None:
        self._app = app
        self._gate = gate
        self._offload = Offload(mount.THREADS)
        self._conflict: ConfigError | None = None
        self._looked = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if not self._looked:
            # Not at construction: routes may be added until the app starts.
            self._conflict, self._looked = (
                mount.conflict(self._gate, _routes(self._app, self._gate.paths)),
                True,
            )
        if scope["type"] == "lifespan":
            await self._lifespan(scope, receive, send)
        elif scope["type"] in ("http", "websocket"):
            await self._request(scope, receive, send)
        else:
            await self._app(scope, receive, send)

    async def _lifespan(self, scope: Scope, receive: Receive, send: Send) -> None:
        problem = self._conflict or await self._start()
        if problem is None:
            await self._app(scope, receive, send)
        else:
            await receive()
            await send({"type": "lifespan.startup.failed", "message": str(problem)})

    async def _start(self) -> ConfigError | None:
        """Why the app must not start, if so."""
        try:
            await self._offload(self._gate.start, time.time(), deadline=mount.DEADLINE)
        except AwsUnavailable:
            return None  # it took too long; requests are told so until it is there
        except ConfigError as error:
            return error
        return None

    async def _request(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope = {**scope, "headers": list(scope["headers"])}  # any iterable, and read twice
        facts = _facts(scope)
        if self._conflict is not None:
            answer: Answer = self._gate.misconfigured(facts, self._conflict)
        else:
            if scope["type"] == "http" and self._gate.takes_body(facts):
                facts = replace(facts, body=await _read_body(receive))
            answer = await self._check(facts)
        if isinstance(answer, Reply):
            await (_deny if scope["type"] == "websocket" else _send)(answer, scope, send)
            return
        scope["headers"] = [
            (name, value)
            for name, value in scope["headers"]
            if not answer.hides(name.decode("latin-1"))
        ]
        scope[IDENTITY_KEY], scope[SESSION_KEY] = answer.identity, answer.session
        await self._app(scope, receive, _with_cookies(send, answer.set_cookies))

    async def _check(self, facts: RequestFacts) -> Answer:
        answer = self._gate.check_offline(facts, time.time())
        if answer is not None:
            return answer
        try:
            return await self._offload(
                self._gate.check_online, facts, time.time(), deadline=mount.DEADLINE
            )
        except AwsUnavailable as error:
            return self._gate.unavailable(facts, error)


def identity(connection: HTTPConnection) -> Identity:
    """A dependency of FastAPI's: who makes this request.

    :raises HTTPException: 401, on a public path without a session.
    """
    found = connection.scope.get(IDENTITY_KEY)
    if not isinstance(found, Identity):
        from starlette.exceptions import HTTPException

        raise HTTPException(401, "You are not signed in.")
    return found


def _facts(scope: Scope) -> RequestFacts:
    query = scope.get("query_string", b"").decode("latin-1")
    raw_path = scope.get("raw_path") or scope["path"].encode("utf-8", "surrogatepass")
    client = scope.get("client")
    return RequestFacts(
        method=scope.get("method", "GET"),
        scheme=_SCHEMES.get(scope.get("scheme", "http"), ""),
        path=scope["path"],
        query=query,
        headers=tuple(
            (name.decode("latin-1").lower(), value.decode("latin-1"))
            for name, value in scope["headers"]
        ),
        client=client[0] if client else "",
        target=raw_path.decode("latin-1").partition("?")[0] + (f"?{query}" if query else ""),
        # A mounted app routes by what follows root_path, and some frameworks cut it off even in the
        # middle of a path segment: so it is cut off here.
        routed=scope["path"].removeprefix(scope.get("root_path", "")),
        socket=scope["type"] == "websocket",
    )


async def _read_body(receive: Receive) -> bytes:
    """The form of a sign-in; of a longer body as much as tells that it is too long.

    What came too late, or not to its end, is as good as nothing.
    """
    body, more = b"", True
    try:
        async with asyncio.timeout(mount.BODY_DEADLINE):
            while more and len(body) <= MAX_FORM:
                message = await receive()
                if message["type"] != "http.request":
                    return b""
                body += message.get("body", b"")
                more = message.get("more_body", False)
    except TimeoutError:
        return b""
    return body[: MAX_FORM + 1]


def _encoded(headers: Iterable[tuple[str, str]]) -> list[tuple[bytes, bytes]]:
    return [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in headers]


async def _send(reply: Reply, scope: Scope, send: Send, kind: str = "http.response") -> None:
    headers = _encoded([*reply.headers, ("Content-Length", str(len(reply.body)))])
    await send({"type": kind + ".start", "status": reply.status, "headers": headers})
    await send({"type": kind + ".body", "body": reply.body})


async def _deny(reply: Reply, scope: Scope, send: Send) -> None:
    """Refuse a WebSocket before it is accepted, with the whole answer where the server can."""
    if "websocket.http.response" in (scope.get("extensions") or {}):
        await _send(reply, scope, send, "websocket.http.response")
    else:
        await send({"type": "websocket.close", "code": 1008})


def _with_cookies(send: Send, cookies: tuple[str, ...]) -> Send:
    if not cookies:
        return send

    async def start(message: Message) -> None:
        if message["type"] == "http.response.start":
            named = [
                (name.decode("latin-1"), value.decode("latin-1"))
                for name, value in message.get("headers", ())
            ]
            headers = with_cookies(named, cookies, time.time())
            message = {**message, "headers": _encoded(headers)}
        await send(message)

    return start


def _routes(app: object, wanted: Iterable[str]) -> Iterator[str]:
    """The routes of a Starlette app, below the middleware between it and us; others do not tell."""
    seen = 0
    while not isinstance(getattr(app, "routes", None), list):
        app, seen = getattr(app, "app", None), seen + 1
        if app is None or seen > 32:
            return
    for route in getattr(app, "routes", ()):
        path = getattr(route, "path", None)
        if isinstance(path, str):
            yield path
        else:  # FastAPI's included routers have no path: ask them
            yield from (path for path in wanted if _serves(route, path))


def _serves(route: object, path: str) -> bool:
    """Whether a route of Starlette's is for this path, and not for any path at its place."""
    sibling = path.rpartition("/")[0] + "/" + secrets.token_hex(8)
    return _matches(route, path) and not _matches(route, sibling)


def _matches(route: object, path: str) -> bool:
    matches = getattr(route, "matches", None)
    if not callable(matches):
        return False
    scope = {"type": "http", "method": "GET", "path": path, "root_path": "", "headers": []}
    return bool(matches(scope)[0].name != "NONE")
