"""An aiohttp application that is loaded when its first connection comes.

aiohttp is a third of the time of a start and a quarter of the memory, and many proxies that are
started, those of ``exec`` above all, never show a page of their own.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from aiohttp import web


class WebApp:
    """An application for connections that others accept.

    :param make: imports and builds it.
    :param shutdown_timeout: seconds that requests under way are given by :meth:`close`.
    """

    def __init__(
        self, make: Callable[[], web.Application], *, shutdown_timeout: float = 60.0
    ) -> None:
        self._make = make
        self._shutdown_timeout = shutdown_timeout
        self._loading = asyncio.Lock()
        self._runner: web.AppRunner | None = None

    async def take(self, connection: socket.socket) -> None:
        """Serve a connection, which is the application's from now on."""
        connection.setblocking(False)
        try:
            server = await self._server()
            await asyncio.get_running_loop().connect_accepted_socket(server, connection)
        except BaseException:
            connection.close()
            raise

    async def _server(self) -> web.Server:
        async with self._loading:
            if self._runner is None:
                from aiohttp import web

                # No decompression of request bodies: a broken one would raise where it is read,
                # and a small one could unpack to gigabytes.
                runner = web.AppRunner(
                    self._make(),
                    access_log=None,
                    auto_decompress=False,
                    shutdown_timeout=self._shutdown_timeout,
                )
                await runner.setup()
                self._runner = runner
        assert self._runner.server is not None
        return self._runner.server

    async def close(self) -> None:
        """Ends what it serves."""
        if self._runner is not None:
            await self._runner.cleanup()
