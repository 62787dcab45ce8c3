"""Listeners of ``--alias-port``: a loopback address for each alias, besides its name.

All of 127.0.0.0/8 is this machine's own on Linux and on Windows. macOS has but 127.0.0.1 until it
is told otherwise, once for each address.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import sys

from iam_auth_proxy.errors import ConfigError, Problem
from iam_auth_proxy.proxy.https.aliases import addresses
from iam_auth_proxy.proxy.listeners.listen import bind_tcp
from iam_auth_proxy.proxy.process.build import Parts
from iam_auth_proxy.proxy.process.serve import Listeners

log = logging.getLogger(__name__)


class AliasPorts:
    """Serves each alias at its address, also those that come later.

    One that is listed no more keeps its listener, at which it is then not known.
    """

    def __init__(self, parts: Parts, listeners: Listeners) -> None:
        self._parts = parts
        self._listeners = listeners
        self._served: set[str] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    async def begin(self) -> None:
        """From now on.

        :raises ConfigError: an address cannot be had.
        """
        problems = await self._serve()
        if problems:
            raise ConfigError(problems)
        loop = asyncio.get_running_loop()

        def changed() -> None:
            loop.call_soon_threadsafe(self._changed)

        self._parts.on_trust_change = changed

    def end(self) -> None:
        """No further ones; those there are end with all other listeners."""
        self._parts.on_trust_change = lambda: None
        for task in self._tasks:
            task.cancel()

    def _changed(self) -> None:
        task = asyncio.get_running_loop().create_task(self._follow())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _follow(self) -> None:
        for problem in await self._serve():
            log.error("%s", problem)

    async def _serve(self) -> list[Problem]:
        port = self._parts.alias_port
        problems = []
        for place in addresses(self._parts.signins.trust.aliases, port):
            if place in self._served:
                continue
            self._served.add(place)
            host = place.partition(":")[0]
            try:
                sock = bind_tcp(host, port)
            except OSError as error:
                self._served.discard(place)
                problems.append(_problem(host, port, error))
                continue
            self._parts.never_dial(sock)
            try:
                await self._listeners.serve(sock, self._parts.entrances.public(sock))
            except ConfigError as error:  # another process was first to listen
                sock.close()
                problems += error.problems
        return problems


def _problem(host: str, port: int, error: OSError) -> Problem:
    if error.errno == errno.EADDRINUSE:
        return Problem("--alias-port", f"{host}:{port} is in use; take another port")
    remedy = f". Run: sudo ifconfig lo0 alias {host}" if sys.platform == "darwin" else ""
    return Problem("--alias-port", f"{host}:{port}: {error.strerror}{remedy}")
