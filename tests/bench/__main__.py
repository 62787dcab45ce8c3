"""``python -m tests.bench``: prints the table, and exits 1 where something owed is missed.

The table, then the machine's facts, go to stdout; progress goes to stderr. Everything runs on
loopback, in about three minutes. On a machine that does other work the figures mean nothing.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from tests.bench import downloads, intercept, load, rows, signin, size, tokens
from tests.bench.contestants import MITMPROXY_VERSION, PROXY_PY_VERSION, SUBJECTS, Field
from tests.bench.figures import Figure, document, failed, table
from tests.bench.machine import BenchError, busy, facts, need
from tests.bench.rows import Row
from tests.bench.settings import QUICK, Settings, say

Measure = Callable[[Field, Settings], list[Figure]]

GROUPS: Final[dict[str, tuple[Measure, tuple[Row, ...]]]] = {
    "rate": (load.rate, (rows.RATE_PROXY_PY, rows.RATE_DIRECT)),
    "latency": (load.latency, (rows.LATENCY_NGINX, rows.LATENCY_PROXY_PY)),
    "download": (downloads.counted, (rows.DOWNLOAD,)),
    "connect": (downloads.connect, (rows.CONNECT, rows.CPU)),
    "chunked": (downloads.chunked, (rows.CHUNKED,)),
    "signin": (signin.measure, (rows.AWS_CALLS, rows.AWS_CALLS_50, rows.SIGN_IN)),
    "start": (size.starting, (rows.READY, rows.RSS)),
    "memory": (size.idle, (rows.IDLE,)),
    "tokens": (
        tokens.measure,
        (rows.TOKENS, rows.TOKENS_NEW, rows.TOKENS_KMS, rows.TOKENS_MEMORY, rows.TOKEN_CALLS),
    ),
    "intercept": (
        intercept.load,
        (rows.INTERCEPT_RATE, rows.INTERCEPT_NEW, rows.INTERCEPT_LATENCY),
    ),
    "intercept-memory": (intercept.idle, (rows.INTERCEPT_IDLE,)),
}
# What needs more than the relay.
_DAEMON_ONLY: Final = frozenset({"intercept", "intercept-memory", "signin", "start", "tokens"})

QUIET: Final = 0.5
"""A load average up to which nobody else is thought to be at work."""

# A component that failed says so by one of these; a defect of the bench itself by another.
_FAILURES: Final = (BenchError, AssertionError, OSError, subprocess.SubprocessError)


def main(argv: Sequence[str] | None = None) -> int:
    """The exit status: 0, 1 where something owed is missed or could not be measured, 2 usage."""
    options = _parser().parse_args(argv)
    settings = QUICK if options.quick else Settings()
    chosen = [name for name in GROUPS if name in (options.only or GROUPS)]
    if options.subject == "relay":
        chosen = [name for name in chosen if name not in _DAEMON_ONLY]
    load_before = busy()
    if float(load_before) > QUIET:
        say(f"this machine is busy (load {load_before}): the figures will mean little")
    try:
        need(("wrk", "wrk"), ("nginx", "nginx-light"))
        figures = run(chosen, options.subject, settings)
    except BenchError as error:
        say(str(error))
        return 2
    machine = facts() | {
        "proxy.py": PROXY_PY_VERSION,
        "mitmproxy": MITMPROXY_VERSION,
        "load before": load_before,
    }
    machine |= {"subject": options.subject, "alternations": str(settings.alternations)}
    print(table(figures))
    print("\n" + ", ".join(f"{name} {value}" for name, value in machine.items()))
    if options.json:
        report = {"machine": machine, "figures": document(figures)}
        Path(options.json).write_text(json.dumps(report, indent=2) + "\n")
    return 0 if all(figure.holds for figure in figures) else 1


def run(groups: Sequence[str], subject: str, settings: Settings) -> list[Figure]:
    """The groups' figures in the table's order. What fails is a figure too, and stops no other."""
    figures: list[Figure] = []
    try:
        with Field(subject) as field:
            for name in groups:
                figures += _measure(name, field, settings)
    except AssertionError as error:
        say(f"a component did not end well: {error}")  # after all was measured
    return sorted(figures, key=lambda figure: rows.ROWS.index(figure.row))


def _measure(name: str, field: Field, settings: Settings) -> list[Figure]:
    measure, covered = GROUPS[name]
    say(f"-- {name}")
    try:
        return measure(field, settings)
    except _FAILURES as error:
        say(f"{name} failed: {error}")
        return [failed(row, "not measured") for row in covered]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one short round: to try, not to tell")
    parser.add_argument(
        "--only", action="append", choices=tuple(GROUPS), help="this group of rows; repeatable"
    )
    parser.add_argument("--json", metavar="FILE", help="write every sample there too")
    parser.add_argument(
        "--subject",
        choices=SUBJECTS,
        default=SUBJECTS[0],
        help="our proxy as it is (daemon), or its relay alone",
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
