"""A command that runs in the foreground of ours: signals are passed on to it, its end is ours."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from iam_auth_proxy.proxy.process.rlimits import UNCHANGED, Before

NOT_EXECUTABLE: Final = 126
NOT_FOUND: Final = 127
"""What a shell, env(1) and timeout(1) end with where a command cannot be run."""

# A terminal sends these to the command, too, which is of the same group.
_FROM_TERMINAL: Final = (signal.SIGINT, signal.SIGQUIT)
_PASSED_ON: Final = (*_FROM_TERMINAL, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)


class CannotRun(Exception):
    """A command that cannot be started; ``status`` says why, as a shell would."""

    def __init__(self, command: str, error: OSError) -> None:
        missing = isinstance(error, FileNotFoundError)
        why = "command not found" if missing else error.strerror
        super().__init__(f"{command}: {why}")
        self.status = NOT_FOUND if missing else NOT_EXECUTABLE


async def run(
    command: Sequence[str], environ: Mapping[str, str], before: Before = UNCHANGED
) -> int:
    """Until the command ends.

    :param before: the limits that it runs with, where ours are others.
    :returns: its status; 128 + n where signal n ended it.
    :raises CannotRun: it cannot be started.
    """
    signals = _Signals()
    with signals.caught():
        try:
            with before.restored():
                child = await asyncio.create_subprocess_exec(*command, env=dict(environ))
        except OSError as error:
            raise CannotRun(command[0], error) from error
        signals.pass_on_to(child)
        status = await child.wait()
    return 128 - status if status < 0 else status


class _Signals:
    """Catches signals from before the command starts, so that none ends us and not the command."""

    def __init__(self) -> None:
        self._child: asyncio.subprocess.Process | None = None
        self._early: list[signal.Signals] = []

    @contextlib.contextmanager
    def caught(self) -> Iterator[None]:
        loop = asyncio.get_running_loop()
        for number in _PASSED_ON:
            loop.add_signal_handler(number, self._came, number)
        try:
            yield
        finally:
            for number in _PASSED_ON:
                loop.remove_signal_handler(number)

    def pass_on_to(self, child: asyncio.subprocess.Process) -> None:
        """Passes signals on from now on, those that came already included."""
        self._child = child
        for number in self._early:
            self._send(number)

    def _came(self, number: signal.Signals) -> None:
        if self._child is None:
            self._early.append(number)
        elif number not in _FROM_TERMINAL or not _in_foreground():
            self._send(number)

    def _send(self, number: signal.Signals) -> None:
        assert self._child is not None
        with contextlib.suppress(ProcessLookupError):
            self._child.send_signal(number)


def _in_foreground() -> bool:
    """Whether what the terminal sends reaches the command by itself."""
    try:
        return os.isatty(0) and os.tcgetpgrp(0) == os.getpgrp()
    except OSError:
        return False
