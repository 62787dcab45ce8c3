"""wrk: closed-loop load over keep-alive connections, and what it says of it."""

from __future__ import annotations

import json
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

from tests.bench.machine import BenchError
from tests.support.processes import program

_SCRIPT = Path(__file__).with_name("absolute.lua")
_ERRORS = ("connect", "read", "write", "timeout", "status")


@dataclass(frozen=True, slots=True)
class Load:
    """What one run measured. ``p50`` and ``p99`` are microseconds, whole ones.

    :ivar cpu: microseconds of the proxy's CPU for each request, where somebody has added it: unlike
        the rate it hardly depends on what else the machine does.
    """

    requests: int
    rate: float
    p50: float
    p99: float
    cpu: float = 0.0


def parse(output: str) -> Load:
    """What ``absolute.lua`` printed below wrk's own report.

    :raises BenchError: nothing was measured, or not every answer was a good one.
    """
    lines = [line for line in output.splitlines() if line.startswith("{")]
    if len(lines) != 1:
        raise BenchError(f"wrk measured nothing: {output.strip() or 'no output'}")
    figures = json.loads(lines[0])
    errors = {name: figures[name] for name in _ERRORS if figures[name]}
    if errors:
        raise BenchError(f"wrk saw errors: {errors} with {figures['requests']} requests")
    if not figures["requests"]:
        raise BenchError("wrk saw no answer")
    rate = figures["requests"] / (figures["micros"] / 1e6)
    return Load(figures["requests"], rate, figures["p50"], figures["p99"])


def run(port: int, target: str, host: str, *, connections: int, seconds: int) -> Load:
    """Load on a loopback port, from one thread on this thread's core.

    :param target: the request-target, sent as it is.
    :param host: the Host field.
    :raises BenchError: see :func:`parse`.
    """
    argv = [program("wrk"), "-t1", f"-c{connections}", f"-d{seconds}s", "-s", str(_SCRIPT)]
    done = subprocess.run(
        [*argv, f"http://127.0.0.1:{port}/"],
        env={**os.environ, "BENCH_TARGET": target, "BENCH_HOST": host},
        capture_output=True,
        text=True,
        timeout=seconds + 30,
        check=False,
    )
    return parse(done.stdout + done.stderr)
