"""The relay behind listeners: one server for each entrance, and private listeners for programs."""

from __future__ import annotations

import asyncio
import secrets
import socket
from collections.abc import Sequence
from typing import Final

from iam_auth_proxy.errors import ConfigError, Problem
from iam_auth_proxy.proxy.aiohttp import web
from iam_auth_proxy.proxy.build import Parts
from iam_auth_proxy.proxy.listen import bind_tcp
from iam_auth_proxy.relay.client import ClientConnection
from iam_auth_proxy.relay.exchange import Entrance
from iam_auth_proxy.relay.relay import Relay

DRAIN: Final = 10.0
"""Seconds that exchanges under way are given when their listener ends."""

_BACKLOG: Final = 1024


class RelayServer(web.Server):
    """aiohttp's server, whose connections are the relay's."""

    def __init__(self, relay: Relay, entrance: Entrance) -> None:
        super().__init__(_no_handler)
        self._relay = relay
        self._entrance = entrance

    def __call__(self) -> ClientConnection:  # type: ignore[override]  # aiohttp asks no more of it
        return self._relay.connection(self, self._entrance)

    def connection_made(self, handler: object, transport: asyncio.Transport) -> None:
        self._connections[handler] = transport  # type: ignore[index]  # as in __call__

    def connection_lost(self, handler: object, exc: BaseException | None = None) -> None:
        # aiohttp's own looks into its handler's tasks; the relay's connections have none.
        self._connections.pop(handler, None)  # type: ignore[call-overload]  # as in __call__


async def _no_handler(request: web.BaseRequest) -> web.StreamResponse:
    raise web.HTTPNotImplemented  # pragma: no cover  # no connection of aiohttp's is ever made


class Listeners:
    """Listeners in service. Each one's clients pass its entrance."""

    def __init__(self, relay: Relay) -> None:
        self._relay = relay
        self._runners: dict[Entrance, web.ServerRunner] = {}

    async def serve(self, listener: socket.socket, entrance: Entrance) -> None:
        """From now on, until :meth:`close`; the socket is closed with it.

        :raises ConfigError: another process bound the same port and was first to listen.
        """
        runner = self._runners.get(entrance)
        if runner is None:
            server = RelayServer(self._relay, entrance)
            runner = self._runners[entrance] = web.ServerRunner(server, shutdown_timeout=DRAIN)
            await runner.setup()
        try:
            await web.SockSite(runner, listener, backlog=_BACKLOG).start()
        except OSError as error:
            raise ConfigError([Problem("--bind", f"{error.strerror}")]) from error

    async def close(self) -> None:
        """No further connections; those there are end as their exchanges do, within the drain."""
        runners = list(self._runners.values())
        self._runners.clear()
        await asyncio.gather(*(runner.cleanup() for runner in runners))


class PrivateListener:
    """A loopback listener for one program, which alone knows its password.

    :ivar url: ``http://x:PASSWORD@127.0.0.1:PORT``, for ``http_proxy`` and its like. A secret.
    """

    def __init__(self, parts: Parts, listeners: Listeners, sock: socket.socket, url: str) -> None:
        self.url = url
        self._parts = parts
        self._listeners = listeners
        self._socket = sock

    def __repr__(self) -> str:
        return "PrivateListener(...)"

    async def close(self) -> None:
        """Ends it, and the connections that came in by it."""
        self._parts.forget_listeners([self._socket])
        await self._listeners.close()


async def open_private(parts: Parts, name: str = "exec") -> PrivateListener:
    """A further listener, on a free port of 127.0.0.1, that asks for a fresh random password.

    Its entrance is ``private``, and this user's alone where the system tells users apart.

    :param name: of the entrance; a number makes each one's own.
    :raises ConfigError: there is no such port.
    """
    sock = bind_tcp("127.0.0.1", 0)
    port = sock.getsockname()[1]
    secret = secrets.token_urlsafe(24)
    parts.add_listeners([sock])
    listeners = Listeners(parts.relay)
    try:
        await listeners.serve(sock, parts.entrances.private(name, secret))
    except BaseException:
        parts.forget_listeners([sock])
        sock.close()
        await listeners.close()
        raise
    return PrivateListener(parts, listeners, sock, f"http://x:{secret}@127.0.0.1:{port}")


async def serve_public(
    parts: Parts, listeners: Listeners, sockets: Sequence[socket.socket]
) -> None:
    """Serve on the listeners that were asked for.

    :raises ConfigError: as :meth:`Listeners.serve`.
    """
    for sock in sockets:
        await listeners.serve(sock, parts.entrances.public(sock))
