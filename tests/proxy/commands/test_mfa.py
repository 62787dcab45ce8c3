"""Asking on a real terminal."""

from __future__ import annotations

import asyncio
import io
import os
import pty
import subprocess
import sys
import termios
from collections.abc import Iterator
from pathlib import Path

import pytest

from iam_auth_proxy.errors import MfaNeeded
from iam_auth_proxy.proxy.commands.mfa import TerminalPrompt

SERIAL = "arn:aws:iam::111122223333:mfa/ann"


class Terminal:
    """A pty of which this process is the foreground, as far as the prompt can see."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.person, self.proxy = pty.openpty()
        self.out = io.StringIO()
        monkeypatch.setattr(os, "tcgetpgrp", lambda descriptor: os.getpgrp())

    def type(self, text: str) -> None:
        os.write(self.person, text.encode())

    def prompt(self, patience: float = 10.0) -> TerminalPrompt:
        return TerminalPrompt(self.proxy, self.out, patience)

    async def said(self, text: str) -> None:
        async with asyncio.timeout(10):
            while text not in self.out.getvalue():  # noqa: ASYNC110  # a string announces nothing
                await asyncio.sleep(0.002)

    def close(self) -> None:
        for descriptor in (self.person, self.proxy):
            try:
                os.close(descriptor)
            except OSError:
                pass  # a test closed it


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Iterator[Terminal]:
    terminal = Terminal(monkeypatch)
    yield terminal
    terminal.close()


async def test_a_code(terminal: Terminal) -> None:
    asked = asyncio.create_task(terminal.prompt()(SERIAL))
    await terminal.said(f"MFA code for {SERIAL}: ")
    terminal.type(" 123456 \n")
    assert await asked == "123456"


async def test_other_words_are_asked_again(terminal: Terminal) -> None:
    asked = asyncio.create_task(terminal.prompt()(SERIAL))
    await terminal.said("MFA code")
    for wrong in ("12345", "1234567", "abcdef", "", "١٢٣٤٥٦", "123456; ls"):
        before = terminal.out.getvalue().count("six digits")
        terminal.type(wrong + "\n")
        await terminal.said("A code has six digits: " * (before + 1))
    terminal.type("000000\n")
    assert await asked == "000000"


async def test_everything_else_goes_on(terminal: Terminal) -> None:
    asked = asyncio.create_task(terminal.prompt()(SERIAL))
    await terminal.said("MFA code")
    terminal.type("12")  # half a line is not readable yet
    turns = 0
    for _ in range(100):
        await asyncio.sleep(0)
        turns += 1
    assert turns == 100
    assert not asked.done()
    terminal.type("3456\n")
    assert await asked == "123456"


async def test_nobody_answers(terminal: Terminal) -> None:
    with pytest.raises(MfaNeeded) as caught:
        await terminal.prompt(patience=0.05)(SERIAL)
    assert caught.value.serial == SERIAL
    assert "the next sign-in asks again" in terminal.out.getvalue()


async def test_a_question_that_is_taken_back(terminal: Terminal) -> None:
    asked = asyncio.create_task(terminal.prompt()(SERIAL))
    await terminal.said("MFA code")
    asked.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asked
    assert terminal.out.getvalue().endswith(": (not asked any more)\n")


async def test_a_late_code_is_not_the_answer_to_the_next_question(terminal: Terminal) -> None:
    with pytest.raises(MfaNeeded):
        await terminal.prompt(patience=0.05)(SERIAL)
    terminal.type("111111\n")
    asked = asyncio.create_task(terminal.prompt()(SERIAL))
    await terminal.said(f"again)\nMFA code for {SERIAL}: ")
    terminal.type("222222\n")
    assert await asked == "222222"


async def test_the_end_of_input(terminal: Terminal) -> None:
    asked = asyncio.create_task(terminal.prompt()(SERIAL))
    await terminal.said("MFA code")
    end = termios.tcgetattr(terminal.proxy)[6][termios.VEOF]
    os.write(terminal.person, end)
    with pytest.raises(MfaNeeded):
        await asked


async def test_a_terminal_that_is_closed(terminal: Terminal) -> None:
    asked = asyncio.create_task(terminal.prompt()(SERIAL))
    await terminal.said("MFA code")
    os.close(terminal.person)
    with pytest.raises(MfaNeeded):
        await asked
    with pytest.raises(MfaNeeded):
        await terminal.prompt()(SERIAL)


_BACKGROUND = """
import asyncio, os, sys
from iam_auth_proxy.errors import MfaNeeded
from iam_auth_proxy.proxy.commands.mfa import TerminalPrompt
try:
    asyncio.run(TerminalPrompt(0, sys.stdout)("a-serial-number"))
except MfaNeeded:
    print("not asked", flush=True)
"""


def test_a_job_in_the_background_is_not_stopped(tmp_path: Path) -> None:
    """A shell's `iam-auth-proxy &`: reading from the terminal would stop it (SIGTTIN)."""
    person, shell = pty.openpty()
    script = tmp_path / "background.py"
    script.write_text(_BACKGROUND)
    # A session of its own with the pty as its terminal; the job gets a group of its own, which is
    # not the terminal's foreground.
    starter = (
        "import fcntl, os, subprocess, sys, termios\n"
        "os.setsid()\n"
        "fcntl.ioctl(0, termios.TIOCSCTTY, 0)\n"
        f"job = subprocess.Popen([sys.executable, {str(script)!r}], process_group=0,"
        " stdout=subprocess.PIPE, text=True)\n"
        "pid, status = os.waitpid(job.pid, os.WUNTRACED)\n"
        "print('stopped' if os.WIFSTOPPED(status) else job.stdout.read().strip(), flush=True)\n"
        "os.killpg(job.pid, 9) if os.WIFSTOPPED(status) else None\n"
    )
    try:
        done = subprocess.run(
            [sys.executable, "-c", starter],
            stdin=shell,
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
    finally:
        os.close(person)
        os.close(shell)
    assert done.stdout.strip() == "not asked", done.stderr
