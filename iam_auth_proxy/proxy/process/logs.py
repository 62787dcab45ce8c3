"""Logging with the standard library: lines for people, or one JSON object a line.

``log.info("signed in", extra={"origin": str(origin)})`` is ``signed in  origin=http://a.test`` on a
console and ``{"time": …, "message": "signed in", "origin": "http://a.test"}`` in JSON. Either
passes the safety net of :mod:`iam_auth_proxy.proxy.process.redact`. An exception is one line: its
type, its text and where it arose; never a traceback, whose text would be for the developer alone.
"""

from __future__ import annotations

import json
import logging
import os
import re
import sys
import time
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from types import TracebackType
from typing import Final, TextIO

from iam_auth_proxy.proxy.process.redact import redact, redact_field

PACKAGE: Final = "iam_auth_proxy"

# What every record has; the rest came with ``extra``.
_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
_RESERVED = ("time", "level", "logger", "message", "exception", "at")

# C0, DEL, C1 and the separators that terminals or viewers act on.
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")

_COLOURS = {
    logging.DEBUG: "\x1b[2m",
    logging.WARNING: "\x1b[33m",
    logging.ERROR: "\x1b[31m",
    logging.CRITICAL: "\x1b[1;31m",
}
_DIM, _RESET = "\x1b[2m", "\x1b[0m"


def configure(
    level: str,
    format: str,
    stream: TextIO,
    is_terminal: bool,
    environ: Mapping[str, str] = os.environ,
) -> None:
    """Send the log to ``stream``. Calling it again replaces what it set before.

    Other libraries are heard from ``warning`` on, whatever the level: botocore's debug log prints
    credentials.

    :param level: ``debug``, ``info``, ``warning`` or ``error``.
    :param format: ``text``, ``json``, or ``auto``: text on a terminal, JSON otherwise.
    :param environ: read for ``NO_COLOR`` and ``TERM``.
    """
    formatter: logging.Formatter
    if format == "json" or (format == "auto" and not is_terminal):
        formatter = JsonFormatter()
    else:
        plain = bool(environ.get("NO_COLOR")) or environ.get("TERM") == "dumb"
        formatter = ConsoleFormatter(terminal=is_terminal, colour=is_terminal and not plain)
    handler = _Handler(stream)
    handler.setFormatter(formatter)
    root = logging.getLogger()
    for old in root.handlers[:]:
        if isinstance(old, _Handler):
            root.removeHandler(old)
    root.addHandler(handler)
    number = logging.getLevelNamesMapping()[level.upper()]
    root.setLevel(max(number, logging.WARNING))
    logging.getLogger(PACKAGE).setLevel(number)
    logging.captureWarnings(True)


class ConsoleFormatter(logging.Formatter):
    """``12:34:56 warning signin: text  key=value``; in full and UTC where nobody watches."""

    def __init__(self, *, terminal: bool, colour: bool) -> None:
        super().__init__()
        self._terminal = terminal
        self._colour = colour

    def format(self, record: logging.LogRecord) -> str:
        """One line, without control characters."""
        if self._terminal:
            when = time.strftime("%H:%M:%S", time.localtime(record.created))
        else:
            when = _rfc3339(record.created)
        module = record.name.rpartition(".")[2]
        text = _one_line(redact(record.getMessage()))
        fields = [f"{name}={_quoted(value)}" for name, value in _extra(record).items()]
        fault = _fault(record)
        if fault:
            fields.append(_one_line(f"({fault[0]} at {fault[1]})"))
        level = record.levelname.lower()
        if not self._colour:
            return "  ".join([f"{when} {level:<7} {module}: {text}", *fields])
        start = _COLOURS.get(record.levelno, "")
        tail = f"  {_DIM}{'  '.join(fields)}{_RESET}" if fields else ""
        stop = _RESET if start else ""
        return f"{_DIM}{when}{_RESET} {start}{level:<7}{stop} {module}: {text}{tail}"


class JsonFormatter(logging.Formatter):
    """One object a line; ASCII, so that no viewer acts on what a peer sent."""

    def format(self, record: logging.LogRecord) -> str:
        """``time`` (RFC 3339, UTC, ms), ``level``, ``logger``, ``message`` and the extra fields."""
        return json.dumps(_entry(record), ensure_ascii=True, separators=(",", ":"))


def _entry(record: logging.LogRecord) -> dict[str, object]:
    entry: dict[str, object] = {
        "time": _rfc3339(record.created),
        "level": record.levelname.lower(),
        "logger": record.name,
        "message": redact(record.getMessage()),
    }
    fault = _fault(record)
    if fault:
        entry["exception"], entry["at"] = fault
    for name, value in _extra(record).items():
        entry[f"{name}_" if name in _RESERVED else name] = value
    return entry


class Recent(logging.Handler):
    """Keeps the last few warnings and errors, as :class:`JsonFormatter` has them."""

    def __init__(self, limit: int = 10) -> None:
        super().__init__(logging.WARNING)
        self._entries: deque[dict[str, object]] = deque(maxlen=limit)

    def emit(self, record: logging.LogRecord) -> None:
        """Keeps one."""
        self._entries.append(_entry(record))

    def entries(self) -> list[dict[str, object]]:
        """What was kept, the oldest first."""
        return list(self._entries)

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Collects what the package logs, until the block ends."""
        logger = logging.getLogger(PACKAGE)
        logger.addHandler(self)
        try:
            yield
        finally:
            logger.removeHandler(self)


class _Handler(logging.StreamHandler[TextIO]):
    """Writes; a record that cannot be written is said so in one line, not in a traceback."""

    def handleError(self, record: logging.LogRecord) -> None:
        """Called by ``emit`` inside its ``except`` clause."""
        error = sys.exc_info()[1]
        if isinstance(error, OSError | ValueError) and not isinstance(error, UnicodeError):
            return  # the stream is gone, and with it the place to say so
        kind = type(error).__name__
        try:
            self.stream.write(f"a record of {record.name} could not be logged: {kind}\n")
        except (OSError, ValueError):
            return


def _extra(record: logging.LogRecord) -> dict[str, object]:
    return {
        name: redact_field(name, value)
        for name, value in vars(record).items()
        if name not in _STANDARD
    }


def _fault(record: logging.LogRecord) -> tuple[str, str] | None:
    """``("KeyError: 'x'", "daemon.py:212")`` of the exception that came with a record."""
    if not record.exc_info or record.exc_info[1] is None:
        return None
    return describe(record.exc_info[1])


def describe(error: BaseException) -> tuple[str, str]:
    """An exception as its type and redacted text, and as ``file:line``, of our own code if any."""
    text = redact(str(error))
    return (
        f"{type(error).__name__}: {text}" if text else type(error).__name__,
        _place(error.__traceback__),
    )


def _place(traceback: TracebackType | None) -> str:
    ours, last = "", ""
    while traceback is not None:
        file = traceback.tb_frame.f_code.co_filename.replace(os.sep, "/")
        _, separator, inside = file.rpartition(f"/{PACKAGE}/")
        last = f"{inside if separator else file.rpartition('/')[2]}:{traceback.tb_lineno}"
        ours = last if separator else ours
        traceback = traceback.tb_next
    return ours or last or "unknown"


def _rfc3339(seconds: float) -> str:
    moment = datetime.fromtimestamp(seconds, UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _one_line(text: str) -> str:
    return _CONTROL.sub(lambda match: f"\\x{ord(match[0]):02x}", text)


def _quoted(value: object) -> str:
    text = _one_line(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False))
    return json.dumps(text, ensure_ascii=False) if not text or re.search(r'[\s"=]', text) else text
