"""Asking for an MFA code on the terminal, without blocking a thread or the event loop."""

from __future__ import annotations

import asyncio
import os
import re
from typing import Final, TextIO

from iam_auth_proxy.errors import MfaNeeded

PATIENCE: Final = 120.0
_CODE = re.compile(rb"[0-9]{6}", re.ASCII)


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

        :raises MfaNeeded: nobody answered in time, or the terminal went away.
        """
        self._ask(f"MFA code for {serial}: ")
        try:
            async with asyncio.timeout(self._patience):
                while True:
                    line = await self._line()
                    if _CODE.fullmatch(line.strip()):
                        return line.strip().decode("ascii")
                    if not line:
                        raise MfaNeeded(serial)
                    self._ask("A code has six digits: ")
        except TimeoutError:
            self._ask("(no answer; the next sign-in asks again)\n")
            raise MfaNeeded(serial) from None

    def _ask(self, text: str) -> None:
        self._out.write(text)
        self._out.flush()

    async def _line(self) -> bytes:
        """One line; empty when the terminal is gone."""
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
        # Readable in line mode means a whole line is there: this does not block.
        return os.read(self._descriptor, 1024)
