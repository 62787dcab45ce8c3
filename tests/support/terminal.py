"""A command on a terminal of its own: what it prints is kept, and keys can be typed."""

from __future__ import annotations

import os
import pty
import re
import select
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence

from tests.support.processes import PATIENCE, ROOT

# The pty becomes the controlling terminal, so that Ctrl-C and a hang-up are signals.
_START = (
    "import fcntl, os, sys, termios; "
    "fcntl.ioctl(0, termios.TIOCSCTTY, 0); os.execv(sys.argv[1], sys.argv[1:])"
)


class Terminal:
    """Runs ``argv`` as the foreground job of a fresh pty."""

    def __init__(self, argv: Sequence[str], env: Mapping[str, str]) -> None:
        self._person, job = pty.openpty()
        self._wake, self._waker = os.pipe()
        self._output = b""
        self._changed = threading.Condition()
        self._ended = False
        self.process = subprocess.Popen(
            [sys.executable, "-c", _START, *argv],
            stdin=job,
            stdout=job,
            stderr=job,
            env=dict(env),
            cwd=ROOT,
            start_new_session=True,
        )
        os.close(job)
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        while True:
            # A read under way would keep the terminal open beyond its close.
            readable, _, _ = select.select([self._person, self._wake], [], [])
            try:
                data = b"" if self._wake in readable else os.read(self._person, 65536)
            except OSError:  # the last job is gone
                data = b""
            with self._changed:
                self._output += data
                self._ended = not data
                self._changed.notify_all()
            if not data:
                return

    @property
    def output(self) -> str:
        """All that was shown so far."""
        with self._changed:
            return self._output.decode().replace("\r\n", "\n")

    def wait_for(self, pattern: str, timeout: float = PATIENCE) -> re.Match[str]:
        """Until the output holds the pattern."""

        def found() -> re.Match[str] | None:
            return re.search(pattern, self._output.decode().replace("\r\n", "\n"))

        with self._changed:
            self._changed.wait_for(lambda: found() or self._ended, timeout)
            match = found()
        assert match is not None, f"never showed {pattern!r}:\n{self.output}"
        return match

    def type(self, keys: str) -> None:
        """As a person does; ``\\x03`` is Ctrl-C."""
        os.write(self._person, keys.encode())

    def hang_up(self) -> None:
        """Close the window."""
        os.write(self._waker, b"x")
        self._reader.join(PATIENCE)
        os.close(self._person)
        self._person = -1

    def wait(self, timeout: float = PATIENCE) -> int:
        """The exit status."""
        return self.process.wait(timeout)

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        if self._person >= 0:
            self.hang_up()
        os.close(self._wake)
        os.close(self._waker)
