"""A proxy that runs: its parts, its own pages and its listeners, from the first to the last.

The proxy's own pages are an aiohttp application that the relay reaches in process, over a socket
pair, as one more origin: so every request of a connection is routed by the relay.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from iam_auth_proxy.config import Settings
from iam_auth_proxy.errors import IamAuthError
from iam_auth_proxy.proxy.listeners.listen import addresses, hold_names
from iam_auth_proxy.proxy.process.build import Parts
from iam_auth_proxy.proxy.process.serve import Listeners, serve_public
from iam_auth_proxy.proxy.process.webapp import WebApp
from iam_auth_proxy.proxy.signin.prover import AskMfa

if TYPE_CHECKING:
    from aiohttp import web

log = logging.getLogger(__name__)


def loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """uvloop where it exists; everything works on the stock loop too."""
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.new_event_loop


def warn(settings: Settings) -> None:
    """Logs the warnings of the settings, none of which stops the proxy."""
    for warning in settings.warnings:
        log.warning("%s", warning)


class OwnPages:
    """The proxy's own pages as the relay reaches them: in process, over a socket pair."""

    def __init__(self) -> None:
        self._app: WebApp | None = None

    def serve(self, stack: contextlib.AsyncExitStack, make: Callable[[], web.Application]) -> None:
        """From now on, until the stack unwinds.

        :param make: see :class:`~iam_auth_proxy.proxy.process.webapp.WebApp`.
        """
        self._app = WebApp(make)
        stack.push_async_callback(self._app.close)

    async def dial(self) -> socket.socket:
        """The near end of a fresh connection."""
        assert self._app is not None
        near, far = socket.socketpair()
        near.setblocking(False)
        try:
            await self._app.take(far)
        except BaseException:
            near.close()
            raise
        return near


@contextlib.asynccontextmanager
async def running(
    settings: Settings,
    environ: Mapping[str, str],
    sockets: Sequence[socket.socket],
    ask_mfa: AskMfa | None,
) -> AsyncIterator[Parts]:
    """The proxy serves on ``sockets`` in here, and ends with its exchanges afterwards.

    :param sockets: bound; none for a proxy that is to have private listeners alone. They are closed
        in any case.
    :raises ConfigError: the settings name what cannot be used.
    """
    async with contextlib.AsyncExitStack() as stack:
        pages = OwnPages()
        with contextlib.ExitStack() as unserved:
            for listener in sockets:
                unserved.callback(listener.close)
            parts = Parts(settings, environ, sockets, pages.dial, ask_mfa)
            unserved.pop_all()
        _hold_names(stack, parts, sockets)
        stack.push_async_callback(parts.close)
        name = next(iter(addresses(sockets)), "")

        def make() -> web.Application:
            from iam_auth_proxy.proxy.pages import own

            return own.application(
                lambda: parts.status(name),
                parts.reaches,
                parts.questions,
                parts.identify,
                parts.hosts,
            )

        pages.serve(stack, make)
        listeners = Listeners(parts.relay)
        stack.push_async_callback(listeners.close)
        stack.callback(parts.signins.stop_asking)  # first, or the drain waits for the person
        await serve_public(parts, listeners, sockets)
        if settings.alias_port and sockets:
            from iam_auth_proxy.proxy.process.aliasports import AliasPorts

            ports = AliasPorts(parts, listeners)
            stack.callback(ports.end)
            await ports.begin()
        asyncio.get_running_loop().run_in_executor(None, _refresh_bundle, environ)
        parts.start_bastions()
        yield parts


def _hold_names(
    stack: contextlib.AsyncExitStack, parts: Parts, sockets: Sequence[socket.socket]
) -> None:
    """Names under localhost are ours at each port, or they name neither us nor an app."""
    held, taken = hold_names(sockets)
    level = logging.ERROR if parts.signins.trust.aliases else logging.INFO
    for each in held:
        stack.callback(each.close)
    for place in taken:
        port = place.rpartition(":")[2]
        parts.hosts.discard(f"localhost:{port}")
        if port == "80":
            parts.hosts.discard("localhost")
        log.log(
            level,
            "another program is at %s, where names under localhost lead as well: no alias is "
            "served at this port. Run with --bind :PORT and a port that is free",
            place,
        )


def _refresh_bundle(environ: Mapping[str, str]) -> None:
    """What ``env --ca`` gave to shells follows the system's roots: a proxy is started often."""
    from iam_auth_proxy.proxy.https import bundle, ca

    try:
        bundle.refresh(ca.Authorities(ca.default_folder()), environ)
    except (IamAuthError, OSError) as error:
        log.warning("the bundle of env --ca is as it was: %s", error)
