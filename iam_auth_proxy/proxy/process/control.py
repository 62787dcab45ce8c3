"""The socket by which ``status``, ``whoami`` and ``logout`` speak to a running proxy.

It is a unix socket in a folder of this user's own, never a TCP port: no page and no other user can
reach it. (The folder's permissions say so, the socket's own, and on Linux the peer's uid.) What is
asked and answered there is ``controlapp``'s.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

from iam_auth_proxy.proxy.listeners.listen import bind_unix
from iam_auth_proxy.proxy.process import runtime
from iam_auth_proxy.proxy.process.build import Parts
from iam_auth_proxy.proxy.process.logs import Recent
from iam_auth_proxy.proxy.process.webapp import WebApp

if TYPE_CHECKING:
    from aiohttp import web

log = logging.getLogger(__name__)

_PAUSE: Final = 1.0


async def serve(
    stack: contextlib.AsyncExitStack, parts: Parts, addresses: Sequence[str], recent: Recent
) -> None:
    """From now on, until the stack unwinds. Where that cannot be, it is said, and all else works.

    :param addresses: of the proxy; the first one names the socket.
    """

    def make() -> web.Application:
        from iam_auth_proxy.proxy.process import controlapp

        return controlapp.application(parts, addresses, recent)

    folder = runtime.folder()
    path = folder / runtime.name_of(addresses[0])
    try:
        runtime.make(folder)
        sock = bind_unix(str(path))
    except (OSError, AttributeError) as error:  # AttributeError: no unix sockets there
        why = getattr(error, "strerror", None) or str(error)
        log.warning("status, whoami and logout do not reach this proxy", extra={"error": why})
        return
    stack.callback(_unlink, path, os.stat(path).st_ino)
    sock.listen()
    app = WebApp(make, shutdown_timeout=0.0)
    stack.push_async_callback(app.close)
    stack.callback(sock.close)
    accepting = asyncio.get_running_loop().create_task(_accept(sock, app))
    stack.callback(accepting.cancel)


async def _accept(listener: socket.socket, app: WebApp) -> None:
    loop = asyncio.get_running_loop()
    while True:
        try:
            connection, _ = await loop.sock_accept(listener)
            await app.take(connection)
        except OSError as error:
            log.warning("a command was not let in", extra={"error": error.strerror})
            await asyncio.sleep(_PAUSE)  # what is short, such as descriptors, may be had again


def _unlink(path: Path, inode: int) -> None:
    """Removes the socket, unless another proxy has put its own there by now."""
    with contextlib.suppress(OSError):
        if path.lstat().st_ino == inode:
            path.unlink()
