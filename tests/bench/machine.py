"""This machine: its cores, what processes cost on it, and its name in the report. Linux only."""

from __future__ import annotations

import contextlib
import ctypes
import os
import platform
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Final

MB: Final = 1_000_000
LIBRARIES: Final = ("aiohttp", "httptools", "uvloop", "boto3")

_libc: Final = ctypes.CDLL(None, use_errno=True)


class BenchError(Exception):
    """A measurement that means nothing: a component that is missing, an answer that is wrong."""


def cores() -> tuple[int, int]:
    """The core of origins and load, and the core of who is measured.

    :raises BenchError: there is only one, so that they would take it from each other.
    """
    available = sorted(os.sched_getaffinity(0))
    if len(available) < 2:
        raise BenchError("two cores are needed: one for the load, one for who is measured")
    return available[0], available[1]


@contextlib.contextmanager
def on_core(core: int) -> Iterator[None]:
    """This thread, and the processes that it starts, on one core only."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def cpu_seconds(pid: int) -> float:
    """User and system time of a process, all its threads; finer than /proc's 10 ms."""
    clock = ctypes.c_int()
    if _libc.clock_getcpuclockid(pid, ctypes.byref(clock)) != 0:
        raise BenchError(f"process {pid} is gone")
    return time.clock_gettime(clock.value)


def rss(pid: int) -> int:
    """Resident bytes, from ``smaps_rollup``: ``VmRSS`` lags behind by some pages per thread."""
    text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    match = re.search(r"^Rss:\s+([0-9]+) kB$", text, re.MULTILINE)
    if match is None:
        raise BenchError(f"no Rss of process {pid}")
    return int(match[1]) * 1024


def need(*programs: tuple[str, str]) -> None:
    """Programs and their Debian packages, all there or installed where that may be done.

    :raises BenchError: which packages are missing.
    """
    path = os.environ.get("PATH", "") + ":/usr/sbin:/sbin"
    missing = sorted({package for name, package in programs if not shutil.which(name, path=path)})
    if not missing:
        return
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        raise BenchError(f"missing Debian packages: {' '.join(missing)}")
    quiet = {"DEBIAN_FRONTEND": "noninteractive"}
    subprocess.run(["apt-get", "update", "-qq"], check=True)
    subprocess.run(
        ["apt-get", "install", "-y", "-qq", "--no-install-recommends", *missing],
        check=True,
        env={**os.environ, **quiet},
        stdout=subprocess.DEVNULL,
    )


def busy() -> str:
    """How busy the machine is before anything is measured, as the load average of a minute."""
    return f"{os.getloadavg()[0]:.1f}"


def facts() -> dict[str, str]:
    """What the figures depend on."""
    return {
        "cpu": _cpu_model(),
        "cores": str(len(os.sched_getaffinity(0))),
        "kernel": platform.release(),
        "python": platform.python_version(),
        **{name: version(name) for name in LIBRARIES},
        "nginx": _first_line("nginx", "-v").rpartition("/")[2],
        "wrk": (_first_line("wrk", "-v").split() or ["", ""])[1],
    }


def _cpu_model() -> str:
    match = re.search(r"^model name\s*: (.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    return match[1] if match else platform.machine()


def _first_line(name: str, flag: str) -> str:
    path = os.environ.get("PATH", "") + ":/usr/sbin:/sbin"
    program = shutil.which(name, path=path) or name
    # wrk -v ends with status 1, and nginx says it on stderr.
    done = subprocess.run([program, flag], capture_output=True, text=True, check=False)
    return ((done.stdout + done.stderr).splitlines() or [""])[0]
