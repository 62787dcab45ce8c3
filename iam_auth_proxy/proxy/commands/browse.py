"""``iam-auth-proxy browser``: the proxy for as long as a browser is open."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TextIO

from iam_auth_proxy.config import Settings
from iam_auth_proxy.errors import ConfigError, Problem
from iam_auth_proxy.names import Origin
from iam_auth_proxy.proxy.commands import children
from iam_auth_proxy.proxy.commands.mfa import terminal_prompt
from iam_auth_proxy.proxy.listeners.listen import addresses, listen, reachable
from iam_auth_proxy.proxy.process import control, logs, rlimits
from iam_auth_proxy.proxy.process.running import loop_factory, running, warn


@dataclass(frozen=True, slots=True)
class Opening:
    """How a browser is started.

    :ivar command: its command, from the proxy's ``HOST:PORT`` and the origin under which the page
        is opened, if not its own.
    :ivar environ: what it gets, which is not all that the proxy gets.
    """

    command: Callable[[str, str], list[str]]
    environ: Mapping[str, str]


def beside(opening: Opening, place: str, alias: str) -> int:
    """Runs a browser beside a proxy that runs already; its status."""
    return asyncio.run(children.run(opening.command(place, alias), opening.environ))


def run(
    settings: Settings,
    opening: Opening,
    origin: Origin | None,
    *,
    environ: Mapping[str, str],
    stdin: TextIO | None,
    out: TextIO,
) -> int:
    """Runs a proxy and the browser, until the browser is closed.

    :param origin: of the page that is opened: it comes to the proxy, listed or not.
    :param environ: the proxy's.
    :returns: the browser's status.
    :raises CannotRun: the browser cannot be started.
    :raises ConfigError: the configuration names what cannot be used, such as a port in use.
    """
    level = settings.log_level if "log-level" in settings.chosen else "warning"
    logs.configure(level, settings.log_format, out, out.isatty())
    warn(settings)
    before = rlimits.set_own()
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        return runner.run(_run(settings, opening, origin, environ, stdin, out, before))


async def _run(
    settings: Settings,
    opening: Opening,
    origin: Origin | None,
    environ: Mapping[str, str],
    stdin: TextIO | None,
    out: TextIO,
    before: rlimits.Before,
) -> int:
    sockets = listen(settings.bind)
    names, place = addresses(sockets), reachable(sockets)
    async with contextlib.AsyncExitStack() as stack:
        parts = await stack.enter_async_context(
            running(settings, environ, sockets, terminal_prompt(stdin, out))
        )
        if not place:
            raise ConfigError([Problem("--bind", "a browser needs a TCP address")])
        recent = logs.Recent()
        stack.enter_context(recent.listening())
        await control.serve(stack, parts, names, recent)
        alias = "" if origin is None else parts.alias_of(parts.app_of(origin))
        if origin is not None and not alias:
            parts.reach(origin)
        return await children.run(opening.command(place, alias), opening.environ, before)
