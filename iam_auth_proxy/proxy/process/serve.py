"""The relay behind listeners: one server for each entrance, and private listeners for programs."""

from __future__ import annotations

import asyncio
import secrets
import socket
from collections.abc import Sequence
from typing import Final

from iam_auth_proxy.errors import ConfigError, Problem
from iam_auth_proxy.proxy.listeners.listen import bind_tcp
from iam_auth_proxy.proxy.process.build import Parts
from iam_auth_proxy.relay.client import ClientConnection
from iam_auth_proxy.relay.exchange import Entrance
from iam_auth_proxy.relay.relay import Relay

DRAIN: Final = 10.0
"""Seconds that exchanges under way are given when their listener ends."""

_BACKLOG: Final = 1024


class _Service:
    """One entrance: its listeners and the connections that came in by it.

    Implements :class:`~iam_auth_proxy.relay.shared.Registry`.
    """

    def __init__(self, relay: Relay, entrance: Entrance) -> None:
        self._relay = relay
        self._entrance = entrance
        self._servers: list[asyncio.Server] = []
        self._connections: set[ClientConnection] = set()

    def connection_made(self, handler: ClientConnection, transport: asyncio.Transport) -> None:
        self._connections.add(handler)

    def connection_lost(self, handler: ClientConnection, exc: BaseException | None = None) -> None:
        self._connections.discard(handler)

    async def listen(self, listener: socket.socket) -> None:
        """:raises OSError: another process listens there."""
        loop = asyncio.get_running_loop()
        self._servers.append(
            await loop.create_server(self._connection, sock=listener, backlog=_BACKLOG)
        )

    def _connection(self) -> ClientConnection:
        return self._relay.connection(self, self._entrance)

    async def close(self) -> None:
        """Ends the listeners, and then the connections, which may finish what they do."""
        for server in self._servers:
            server.close()
        await asyncio.sleep(0)  # who was accepted already is a connection by then
        await asyncio.gather(*(each.shutdown(DRAIN) for each in list(self._connections)))


class Listeners:
    """Listeners in service. Each one's clients pass its entrance."""

    def __init__(self, relay: Relay) -> None:
        self._relay = relay
        self._services: dict[Entrance, _Service] = {}

    async def serve(self, listener: socket.socket, entrance: Entrance) -> None:
        """From now on, until :meth:`close`; the socket is closed with it.

        :raises ConfigError: another process bound the same port and was first to listen.
        """
        service = self._services.get(entrance)
        if service is None:
            service = self._services[entrance] = _Service(self._relay, entrance)
        try:
            await service.listen(listener)
        except OSError as error:
            raise ConfigError([Problem("--bind", f"{error.strerror}")]) from error

    async def close(self) -> None:
        """No further connections; those there are end as their exchanges do, within the drain."""
        services = list(self._services.values())
        self._services.clear()
        await asyncio.gather(*(service.close() for service in services))


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
