"""Runs the proxy: listeners, signals, systemd, and the end of it all.

aiohttp serves the proxy's own pages and the control socket, once somebody asks for one of them.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import signal
import socket
import sys
from collections.abc import Callable, Coroutine, MutableMapping
from dataclasses import replace
from pathlib import Path
from typing import TextIO

from iam_auth_proxy.config import Settings
from iam_auth_proxy.errors import ConfigError
from iam_auth_proxy.proxy.commands.announce import announce, exposed
from iam_auth_proxy.proxy.commands.mfa import terminal_prompt
from iam_auth_proxy.proxy.listeners import descriptors
from iam_auth_proxy.proxy.listeners.listen import addresses, listen, named
from iam_auth_proxy.proxy.process import control, logs, rlimits, sd
from iam_auth_proxy.proxy.process.build import Parts
from iam_auth_proxy.proxy.process.running import loop_factory, running, warn
from iam_auth_proxy.proxy.signin.prover import AWS_DEADLINE
from iam_auth_proxy.relay.limits import Limits

log = logging.getLogger(__name__)

Reload = Callable[[], Settings]


def run(
    settings: Settings, *, reload: Reload, environ: MutableMapping[str, str], out: TextIO
) -> int:
    """Runs until SIGTERM or SIGINT.

    :param reload: reads the configuration again, on SIGHUP.
    :param out: where a person reads; the log goes there too.
    :raises ConfigError: the configuration names what cannot be used, such as a port in use.
    """
    logs.configure(settings.log_level, settings.log_format, out, out.isatty())
    warn(settings)
    rlimits.set_own()
    activated = sd.listen_fds(
        environ, reachable=bool(settings.client_auth)
    )  # before the loop takes a descriptor by that number
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        return runner.run(Daemon(settings, reload, environ, out, activated).main())


class Daemon:
    """One run of the proxy.

    :param activated: the sockets that systemd holds for it; without them it binds its own.
    """

    def __init__(
        self,
        settings: Settings,
        reload: Reload,
        environ: MutableMapping[str, str],
        out: TextIO,
        activated: list[socket.socket] | None = None,
    ) -> None:
        self._settings = settings
        self._reload = reload
        self._environ = environ
        self._out = out
        self._on_terminal = out.isatty()
        self._activated = activated or []
        self._bound = settings.bind  # whatever a reload says, as the next
        self._alias_port = settings.alias_port
        self._unlink = "" if activated else settings.bind.path
        self._stop = asyncio.Event()
        self._background: set[asyncio.Task[None]] = set()

    async def main(self) -> int:
        """Runs until a signal ends it; the exit status, 0."""
        notifier = sd.Notifier.from_environ(self._environ)
        sockets = self._activated or listen(self._settings.bind)
        names = addresses(sockets)
        async with contextlib.AsyncExitStack() as stack:
            parts = await stack.enter_async_context(
                running(
                    self._settings, self._environ, sockets, terminal_prompt(sys.stdin, self._out)
                )
            )
            if self._unlink:  # before the listener closes: afterwards it may be another's
                stack.callback(Path(self._unlink).unlink, missing_ok=True)
            recent = logs.Recent()
            stack.enter_context(recent.listening())
            await control.serve(stack, parts, names, recent)
            self._on_signals(parts, notifier)
            _say_few(parts.relay.limits)
            self._say_unbound(names)
            notifier.ready()
            self._spawn(notifier.watchdog())
            self._say_ready(parts, names)
            await self._stop.wait()
            notifier.stopping()
            log.info("stopping")
            for task in self._background:
                task.cancel()
        return 0

    def _say_unbound(self, names: list[str]) -> None:
        """Under socket activation the unit says where to listen, and a bind says nothing."""
        given = self._settings.chosen.get("bind", ())
        if self._activated and given and not set(names) & set(named(self._bound)):
            extra = {"place": given[0][0], "addresses": names}
            log.warning("bind is not looked at: systemd holds the sockets", extra=extra)

    def _say_ready(self, parts: Parts, names: list[str]) -> None:
        if not self._on_terminal:
            others = exposed(self._settings)
            if others:
                log.warning("everyone who connects acts as you", extra={"who": others})
            for rule in parts.signins.trust.rules:
                if not (rule.is_read or rule.https or rule.service_token):
                    extra = {"origin": str(rule), "remedy": "trust add ORIGIN --https alias"}
                    log.warning("a tunnel, not read: nobody is signed in there", extra=extra)
            log.info("ready", extra={"addresses": names})
        elif not self._settings.quiet:
            ask = functools.partial(parts.caller, AWS_DEADLINE)
            known = replace(self._settings, trust=parts.signins.trust.rules)  # trust.toml's too
            self._spawn(announce(ask, names, known, self._out))

    def _on_signals(self, parts: Parts, notifier: sd.Notifier) -> None:
        loop = asyncio.get_running_loop()

        def reload() -> None:
            if self._on_terminal and not self._out.isatty():
                self._stop.set()  # not a wish: the terminal was closed
                return
            notifier.reloading()
            self._apply(parts)
            notifier.ready()

        def stop() -> None:
            if self._stop.is_set():  # asked twice: what is under way is not waited for
                self._spawn(parts.relay.close())
            self._stop.set()

        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop)
        loop.add_signal_handler(signal.SIGHUP, reload)

    def _apply(self, parts: Parts) -> None:
        """SIGHUP: the configuration again. What is wrong is said, and the old one stays."""
        try:
            fresh = self._reload()
            parts.apply(fresh)
        except ConfigError as error:
            for problem in error.problems:
                log.error("configuration not reloaded: %s", problem)
            return
        if fresh.bind != self._bound and not self._activated:
            log.warning("a changed bind needs a restart")
        if fresh.alias_port != self._alias_port:
            log.warning("a changed alias_port needs a restart")
        logs.configure(fresh.log_level, fresh.log_format, self._out, self._on_terminal)
        self._settings = fresh
        warn(fresh)
        log.info("configuration reloaded", extra={"files": [str(path) for path in fresh.files]})

    def _spawn(self, work: Coroutine[object, object, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._background.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._background.discard(task)
        error = None if task.cancelled() else task.exception()
        if error is not None:
            log.error("a task in the background failed", exc_info=error)


def _say_few(limits: Limits) -> None:
    if limits.clients < Limits().clients:
        log.warning(
            "few descriptors, so few connections: raise the hard limit, see ulimit -Hn",
            extra={"descriptors": descriptors.available(), "connections": limits.clients},
        )
