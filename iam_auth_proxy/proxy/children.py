"""A command that runs in the foreground of ours: signals are passed on to it, its end is ours."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

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


async def run(command: Sequence[str], environ: Mapping[str, str]) -> int:
    """Until the command ends.

    :returns: its status; 128 + n where signal n ended it.
    :raises CannotRun: it cannot be started.
    """
    try:
        # Started by our hands and looked up in our PATH: environ is the command's own.
        child = await asyncio.create_subprocess_exec(*command, env=dict(environ))
    except OSError as error:
        raise CannotRun(command[0], error) from error
    with _passing_on(child):
        status = await child.wait()
    return 128 - status if status < 0 else status


@contextlib.contextmanager
def _passing_on(child: asyncio.subprocess.Process) -> Iterator[None]:
    loop = asyncio.get_running_loop()

    def pass_on(number: signal.Signals) -> None:
        if number in _FROM_TERMINAL and _in_foreground():
            return
        with contextlib.suppress(ProcessLookupError):
            child.send_signal(number)

    for number in _PASSED_ON:
        loop.add_signal_handler(number, pass_on, number)
    try:
        yield
    finally:
        for number in _PASSED_ON:
            loop.remove_signal_handler(number)


def _in_foreground() -> bool:
    """Whether what the terminal sends reaches the command by itself."""
    try:
        return os.isatty(0) and os.tcgetpgrp(0) == os.getpgrp()
    except OSError:
        return False
