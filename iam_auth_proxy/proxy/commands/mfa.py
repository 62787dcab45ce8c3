"""Asking for an MFA code on the terminal, without blocking a thread or the event loop."""

from __future__ import annotations

import asyncio
import os
import re
from typing import Final, TextIO

from iam_auth_proxy.errors import MfaNeeded

PATIENCE: Final = 120.0
_CODE = re.compile(rb"[0-9]{6}", re.ASCII)
_LINE: Final = 4096
"""Bytes; a terminal in line mode takes no longer line (termios(3), MAX_CANON)."""


class TerminalPrompt:
    """Asks one question at a time; the sign-in waits, everything else goes on.

    :param descriptor: of the terminal, in line mode.
    :param out: where the question is written.
    :param patience: seconds until the sign-in is told that nobody answered.
    """

    def __init__(self, descriptor: int, out: TextIO, patience: float = PATIENCE) -> None:
        self._descriptor = descriptor
        self._out = out
        self._patience = patience

    async def __call__(self, serial: str) -> str:
        """The code that the person typed.

        :raises MfaNeeded: nobody answered in time, the proxy runs in the background of its
            terminal, or the terminal went away.
        """
        try:
            if not self._in_foreground():
                raise MfaNeeded(serial)
            self._forget_typed()
            self._say(f"MFA code for {serial}: ")
            async with asyncio.timeout(self._patience):
                return await self._code(serial)
        except asyncio.CancelledError:
            self._say("(not asked any more)\n")
            raise
        except TimeoutError:
            self._say("(no answer; the next sign-in asks again)\n")
            raise MfaNeeded(serial) from None
        except OSError as error:  # hung up
            raise MfaNeeded(serial) from error

    async def _code(self, serial: str) -> str:
        while True:
            line = await self._line()
            if _CODE.fullmatch(line.strip()):
                return line.strip().decode("ascii")
            if not line:
                raise MfaNeeded(serial)
            self._say("A code has six digits: ")

    def _in_foreground(self) -> bool:
        """Whether we may read: a job in the background is stopped for it (SIGTTIN)."""
        return os.tcgetpgrp(self._descriptor) == os.getpgrp()

    def _forget_typed(self) -> None:
        """A code typed too late for the last question is no answer to this one."""
        import termios  # not on Windows, where nobody is asked

        try:
            termios.tcflush(self._descriptor, termios.TCIFLUSH)
        except termios.error as error:  # which is no OSError
            raise OSError(*error.args) from error

    def _say(self, text: str) -> None:
        self._out.write(text)
        self._out.flush()

    async def _line(self) -> bytes:
        """One line; empty when the terminal is gone, or meant for another job by now."""
        loop = asyncio.get_running_loop()
        readable = loop.create_future()

        def wake() -> None:
            if not readable.done():
                readable.set_result(None)

        loop.add_reader(self._descriptor, wake)
        try:
            await readable
        finally:
            loop.remove_reader(self._descriptor)
        if not self._in_foreground():
            return b""
        # Readable in line mode means a whole line is there: this does not block.
        return os.read(self._descriptor, _LINE)


def terminal_prompt(stdin: TextIO | None, out: TextIO) -> TerminalPrompt | None:
    """Somebody who can be asked for an MFA code; None without a terminal."""
    if os.name == "posix" and out.isatty() and stdin is not None and stdin.isatty():
        return TerminalPrompt(stdin.fileno(), out)
    return None
