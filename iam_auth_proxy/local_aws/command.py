"""``iam-auth-proxy local-aws``: an embedded AWS for a shell, or for one command."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import Final, Self, TextIO

from iam_auth_proxy.local_aws.calls import Call
from iam_auth_proxy.local_aws.embedded import LocalAws
from iam_auth_proxy.local_aws.ready import make_ready

_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)
_USAGE: Final = 2
_NOT_EXECUTABLE: Final = 126
_NOT_FOUND: Final = 127

# What would get in the way of the exported keys, in a shell or in the command's environment.
_IN_THE_WAY: Final = (
    "AWS_PROFILE",
    "AWS_DEFAULT_PROFILE",
    "AWS_SESSION_TOKEN",
    "AWS_SECURITY_TOKEN",  # the same by its old name
)


def run(
    port: int | None, env_file: str | None, command: Sequence[str], out: TextIO, log: TextIO
) -> int:
    """Serve until SIGTERM or SIGINT, or for as long as ``command`` runs. Main thread only.

    Without a command the shell exports are printed on ``out``, or go to ``env_file`` alone; with
    one, ``out`` is its own, and the exports are its environment. ``log`` gets words, and a line for
    each call: service, action, principal, status, and AWS's error code.

    :param port: 0 or ``None`` for a free one.
    :param env_file: where to write the exports (mode 0600, whole or not at all).
    :returns: the exit status: the command's own (128 + n where signal n ended it; 126 or 127 where
        it could not be run), 0 after a signal, 2 where the port or the file cannot be used.
    """
    lines = _Lines(log)
    aws = LocalAws(port=port or 0, observe=lines.call)
    with _Signals() as signals:
        try:
            aws.start()
        except OSError as error:
            lines.say(f"cannot listen on 127.0.0.1:{port}: {error.strerror}. Take another --port")
            return _USAGE
        try:
            return _serve(aws, env_file, command, out, lines, signals)
        finally:
            aws.close()


def _serve(
    aws: LocalAws,
    env_file: str | None,
    command: Sequence[str],
    out: TextIO,
    lines: _Lines,
    signals: _Signals,
) -> int:
    exports = {**_without_files(aws.env), **make_ready(aws).env}
    text = f"unset {' '.join(_IN_THE_WAY)}\n"
    text += "".join(f"export {name}={shlex.quote(value)}\n" for name, value in exports.items())
    if env_file:
        try:
            _write_private(Path(env_file), text)
        except OSError as error:
            lines.say(f"cannot write {env_file}: {error.strerror}")
            return _USAGE
    if command:
        return _run_command(command, exports, lines, signals)
    if not env_file:
        out.write(text)
        out.flush()
    lines.say(f"embedded AWS on {aws.url}, account {aws.account}, region {aws.region}")
    if env_file:
        named = shlex.quote(env_file if "/" in env_file else f"./{env_file}")
        lines.say(f"its URL, a user's keys and a KMS key are in {env_file}; in a shell: . {named}")
    signals.wait()
    return 0


def _without_files(env: Mapping[str, str]) -> dict[str, str]:
    """Those files go when we end; a shell that outlives us keeps its own configuration."""
    files = {"AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"}
    return {name: value for name, value in env.items() if name not in files}


class _Lines:
    """Lines on a stream that many threads write to. A reader who left does not stop us."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._lock = threading.Lock()

    def say(self, text: str) -> None:
        self._write(f"local-aws: {text}")

    def call(self, call: Call) -> None:
        parts = (call.service, call.action, call.principal or "-", str(call.status), call.code)
        self._write(" ".join(part for part in parts if part))

    def _write(self, text: str) -> None:
        # Names come from clients: no control character of theirs reaches the terminal.
        shown = "".join(char if char.isprintable() else "?" for char in text)
        with self._lock:
            try:
                self._stream.write(shown + "\n")
                self._stream.flush()
            except BrokenPipeError:
                pass  # nobody reads the log any more


def _write_private(path: Path, text: str) -> None:
    """Replace a file as a whole; it is never readable by others, not even for a moment."""
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")  # mode 0600
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def _run_command(
    command: Sequence[str], exports: Mapping[str, str], lines: _Lines, signals: _Signals
) -> int:
    environment = {k: v for k, v in os.environ.items() if k not in _IN_THE_WAY}
    try:
        child = subprocess.Popen(list(command), env={**environment, **exports})
    except FileNotFoundError:
        lines.say(f"{command[0]}: command not found")
        return _NOT_FOUND
    except OSError as error:
        lines.say(f"{command[0]}: {error.strerror}")
        return _NOT_EXECUTABLE
    status = signals.wait_for(child)
    return 128 - status if status < 0 else status


class _Signals:
    """SIGTERM and SIGINT while it is entered: they end :meth:`wait`, or go on to a child."""

    def __init__(self) -> None:
        self._came = threading.Event()
        self._child: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self._before = {number: signal.signal(number, self._act) for number in _SIGNALS}
        return self

    def __exit__(self, *exception: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def wait(self) -> None:
        """Until a signal has come."""
        self._came.wait()

    def wait_for(self, child: subprocess.Popen[bytes]) -> int:
        """The child's return code; signals are passed on to it."""
        self._child = child
        if self._came.is_set():
            child.terminate()
        return child.wait()

    def _act(self, number: int, frame: FrameType | None) -> None:
        self._came.set()
        # Control-C in a terminal has reached the command already: it is of the same group.
        if self._child is not None and (number != signal.SIGINT or not _in_foreground()):
            self._child.send_signal(number)


def _in_foreground() -> bool:
    if sys.platform == "win32":  # no process groups of a terminal there
        return True
    try:
        return os.isatty(0) and os.tcgetpgrp(0) == os.getpgrp()
    except OSError:
        return False
