"""A tunnel through a bastion: the person's own OpenSSH (``ssh -N -D``), started and kept going.

It reads the person's ``ssh_config``, so agents, jump hosts and host aliases work as they do by
hand. What it says is kept and shown as it said it.

- It runs from the first need on, or from the start for ``--ssh-bastion``, and is started again when
  it ends: after a moment, then exponentially later, with jitter. A request that comes meanwhile
  makes it start at once, unless the last attempt failed just now.
- It asks (a passphrase, a code, a host key) on the controlling terminal, where there is one and
  somebody waits: it never asks of its own accord in the middle of something else.
- It ends with the proxy, however that ends, since it is on a leash (:mod:`.ssh`).

The SOCKS port is loopback's, chosen anew each time, and held to be ssh's only if it is this user's.
It is open to every user of this machine: SOCKS without a password is all that ``ssh -D`` has.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import random
import signal
import socket
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from iam_auth_proxy.config import ENV_PREFIX
from iam_auth_proxy.errors import PathError
from iam_auth_proxy.proxy.listeners.peers import listener_owner
from iam_auth_proxy.proxy.upstream import ssh
from iam_auth_proxy.relay.failures import printable

log = logging.getLogger(__name__)

LOOPBACK: Final = "127.0.0.1"
# Seconds. What goes on for this long is no chance, and the next wait begins anew.
_STEADY: Final = 30.0
_LONGEST: Final = 300.0
# An end so fresh that a new attempt would show nothing new; and bastions count failed logins.
_JUST_NOW: Final = 3.0
# For ssh that cannot ask anybody. One that asks has as long as the person takes.
_READY_WITHIN: Final = 60.0
_POLL: Final = 0.05
_ENDS_WITHIN: Final = 2.0
# What ssh says of a channel comes by another way than the channel's end.
_WORDS_WITHIN: Final = 0.1
_KEPT: Final = 5


@dataclass(frozen=True, slots=True)
class State:
    """What ``status`` shows of a tunnel.

    :ivar state: ``idle`` ``starting`` ``up`` ``down``.
    :ivar words: what ssh said last; empty where it is up.
    :ivar starts: how often it was started.
    """

    name: str
    state: str
    words: str
    starts: int


class Bastion:
    """Implements :class:`~iam_auth_proxy.relay.via.Tunnel`.

    :ivar name: ``ssh://[user@]host``.
    :param host: as ``ssh`` takes it.
    :param command: ``ssh`` and its first options.
    :param asks: whether it could ask somebody now.
    """

    def __init__(
        self,
        host: str,
        command: Sequence[str],
        environ: Mapping[str, str],
        *,
        asks: Callable[[], bool] = ssh.can_ask,
    ) -> None:
        self.name = f"ssh://{host}"
        self._host = host
        self._command = tuple(command)
        self._environ = {
            name: value for name, value in environ.items() if not name.startswith(ENV_PREFIX)
        }
        self._asks = asks
        self._task: asyncio.Task[None] | None = None
        self._port = 0
        self._running = False
        self._failed = False  # the last attempt, to get as far as a tunnel
        self._closed = False
        self._starts = 0
        self._ended = 0.0  # loop time
        self._wanted = False
        self._asking = False
        self._wake = asyncio.Event()
        self._ready: asyncio.Future[int] | None = None
        self._words: deque[tuple[float, str]] = deque(maxlen=_KEPT)

    # -- relay.via.Tunnel --------------------------------------------------------------------------

    async def open(self) -> tuple[str, int]:
        """Where SOCKS is spoken; starts ssh, and waits until it is there.

        :raises PathError: it ended, and why.
        """
        if not self._port:
            now = asyncio.get_running_loop().time()
            just_failed = self._failed and not self._running and now - self._ended < _JUST_NOW
            if just_failed or self._closed:
                raise self._down()
            self._wanted = True
            self._wake.set()
            self.start()
            assert self._ready is not None
            return LOOPBACK, await asyncio.shield(self._ready)
        return LOOPBACK, self._port

    async def said(self, since: float) -> str:
        """What ssh said from that loop time on, of a way that came to nothing."""
        if not self._lines(since):
            await asyncio.sleep(_WORDS_WITHIN)
        return self._lines(since)

    @property
    def remedy(self) -> str:
        """What ssh said last, and how to see it by hand."""
        if self._running and self._asking and not self._port:
            return "If ssh asks something in the terminal of iam-auth-proxy, answer it there."
        words = self._lines()
        said = f"ssh said: {words.rstrip('.')}. " if words else ""
        return f"{said}Try it by hand: ssh {self._host}"

    # -- for the proxy -----------------------------------------------------------------------------

    def start(self) -> None:
        """Begin, unless it has begun."""
        if self._task is None:
            self._renew()
            self._wanted = True
            self._task = asyncio.get_running_loop().create_task(self._keep())

    def hurry(self) -> None:
        """Try now, without waiting for the end of a pause."""
        self._wake.set()

    async def close(self) -> None:
        """End ssh, for good, and whoever waits for it."""
        self._closed = True
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            self._fail_waiting()

    def state(self) -> State:
        """See :class:`State`."""
        if self._port:
            return State(self.name, "up", "", self._starts)
        state = "idle" if self._task is None else "starting" if self._running else "down"
        return State(self.name, state, self._lines(), self._starts)

    # -- keeping it going --------------------------------------------------------------------------

    async def _keep(self) -> None:
        loop = asyncio.get_running_loop()
        failures = 0
        while True:
            begun = loop.time()
            wanted, self._wanted = self._wanted, False
            self._asking = wanted and self._asks()
            self._running = self._failed = True
            try:
                await self._attempt(batch=not self._asking)
            finally:
                self._running = self._wanted = False
                self._port = 0
            self._ended = loop.time()
            self._fail_waiting()
            failures = 1 if self._ended - begun >= _STEADY else failures + 1
            delay = min(_LONGEST, 2.0 ** (failures - 1)) * random.uniform(0.5, 1.5)  # noqa: S311  # no secret
            # A warning the first time; further failures in a row are logged as info.
            log.log(
                logging.WARNING if failures == 1 else logging.INFO,
                "the ssh tunnel is down",
                extra={"bastion": self.name, "said": self._lines(), "again_in": round(delay, 1)},
            )
            await self._pause(delay)

    async def _pause(self, delay: float) -> None:
        self._wake.clear()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._wake.wait(), delay)

    async def _attempt(self, *, batch: bool) -> None:
        """One ssh, from its start to its end."""
        port = _free_port()
        quiet = batch and not ssh.has_askpass(self._environ)
        self._words.clear()
        self._starts += 1
        try:
            process = await asyncio.create_subprocess_exec(
                *ssh.argv(self._command, self._host, (LOOPBACK, port), batch=quiet),
                env=self._environ,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.DEVNULL,
                stderr=asyncio.subprocess.PIPE,
            )
        except OSError as error:
            self._hear(f"{self._command[0]}: {error.strerror}")
            return
        assert process.stderr is not None
        hearing = asyncio.get_running_loop().create_task(self._listen(process.stderr))
        try:
            limit = _READY_WITHIN if batch else None
            if await self._is_ready(process, port, limit):
                self._port = port
                self._failed = False
                log.info("the ssh tunnel is up", extra={"bastion": self.name})
                if self._ready is not None and not self._ready.done():
                    self._ready.set_result(port)
                await process.wait()
        finally:
            self._port = 0
            await _end(process)
            await hearing

    async def _is_ready(
        self, process: asyncio.subprocess.Process, port: int, limit: float | None
    ) -> bool:
        """Whether ssh came to listen; False: it ended, or was too slow."""
        ended = asyncio.get_running_loop().create_task(process.wait())
        try:
            async with asyncio.timeout(limit):
                while not await _listens(port):
                    done, _ = await asyncio.wait([ended], timeout=_POLL)
                    if done:
                        return False
        except TimeoutError:
            self._hear(f"no tunnel after {limit:g} s")
            return False
        finally:
            ended.cancel()
        return True

    # -- what it says ------------------------------------------------------------------------------

    async def _listen(self, stream: asyncio.StreamReader) -> None:
        while True:
            try:
                line = await stream.readline()
            except ValueError:  # longer than any sentence
                continue
            if not line:
                return
            self._hear(line.decode("utf-8", "replace").strip())

    def _hear(self, text: str) -> None:
        if text:
            text = printable(text, 200)
            self._words.append((asyncio.get_running_loop().time(), text))
            log.debug("ssh said", extra={"bastion": self.name, "said": text})

    def _lines(self, since: float = 0.0) -> str:
        return " ".join(text for time, text in self._words if time >= since)

    def _down(self) -> PathError:
        return PathError(
            f"{self.name}: {self._lines() or 'ssh ended'}",
            error="destination_unavailable",
            public="The ssh tunnel to the app is down.",
            remedy=self.remedy,
        )

    def _renew(self) -> None:
        """Makes a fresh future, for those who wait from now on."""
        self._ready = asyncio.get_running_loop().create_future()
        self._ready.add_done_callback(_seen)

    def _fail_waiting(self) -> None:
        ready = self._ready
        self._renew()
        if ready is not None and not ready.done():
            ready.set_exception(self._down())


def _seen(future: asyncio.Future[int]) -> None:
    """Nobody may be waiting: that is no fault."""
    if not future.cancelled():
        future.exception()


def _free_port() -> int:
    with socket.create_server((LOOPBACK, 0)) as probe:
        port: int = probe.getsockname()[1]
        return port


async def _listens(port: int) -> bool:
    """Whether a program of this user's listens there. Another's may have been quicker."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as sock:
        sock.setblocking(False)
        try:
            await asyncio.get_running_loop().sock_connect(sock, (LOOPBACK, port))
        except OSError:
            return False
    return listener_owner(LOOPBACK, port) in (None, os.geteuid())


async def _end(process: asyncio.subprocess.Process) -> None:
    for number in (signal.SIGTERM, signal.SIGKILL):
        if process.returncode is not None:
            return
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(number)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(process.wait(), _ENDS_WITHIN)


class Bastions:
    """The tunnels that there are: one for each host and command."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = environ
        self._all: dict[tuple[str, tuple[str, ...]], Bastion] = {}
        self._ending: set[asyncio.Task[None]] = set()

    def of(self, host: str, command: Sequence[str]) -> Bastion:
        """The tunnel through ``host``; it is not started for that."""
        key = host, tuple(command)
        if key not in self._all:
            self._all[key] = Bastion(host, command, self._environ)
        return self._all[key]

    def keep(self, used: Iterable[Bastion]) -> None:
        """End those that are not among these; the others try at once if they are down."""
        kept = {id(bastion) for bastion in used}
        for key, bastion in list(self._all.items()):
            if id(bastion) in kept:
                bastion.hurry()
                continue
            del self._all[key]
            task = asyncio.get_running_loop().create_task(bastion.close())
            self._ending.add(task)
            task.add_done_callback(self._ending.discard)

    def states(self) -> list[State]:
        """See :class:`State`."""
        return [bastion.state() for bastion in self._all.values()]

    async def close(self) -> None:
        """End all of them."""
        ends = [bastion.close() for bastion in self._all.values()]
        await asyncio.gather(*ends, *self._ending, return_exceptions=True)
