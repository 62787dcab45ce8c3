"""Synchronous calls off the loop: bounded, with a deadline, never in the way of process exit."""

from __future__ import annotations

import asyncio
import contextvars
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import pytest

from iam_auth_proxy.aws.offload import Offload
from iam_auth_proxy.errors import AwsUnavailable

ROLE: contextvars.ContextVar[str] = contextvars.ContextVar("ROLE")


@pytest.fixture
def gate() -> Iterator[threading.Event]:
    """What stuck calls wait for; opened at the end, so that no thread outlives its test long."""
    event = threading.Event()
    yield event
    event.set()


async def occupy(offload: Offload, gate: threading.Event) -> asyncio.Future[bool]:
    """A call that has begun, and waits for the gate."""
    loop, begun = asyncio.get_running_loop(), asyncio.Event()

    def call() -> bool:
        loop.call_soon_threadsafe(begun.set)
        return gate.wait()

    running = asyncio.ensure_future(offload(call, deadline=5))
    await begun.wait()
    return running


async def test_runs_in_another_thread_with_the_callers_context() -> None:
    offload = Offload(1)
    ROLE.set("caller")

    def call(a: int, b: int) -> tuple[int, bool, str]:
        return a + b, threading.current_thread().daemon, ROLE.get()

    assert await offload(call, 1, 2, deadline=5) == (3, True, "caller")
    offload.close()


async def test_the_calls_own_exception_comes_through() -> None:
    offload = Offload(1)

    def call() -> None:
        raise TimeoutError("the socket's, not the deadline's")

    with pytest.raises(TimeoutError, match="the socket's"):
        await offload(call, deadline=5)
    offload.close()


async def test_no_more_threads_than_said_and_threads_are_used_again() -> None:
    offload = Offload(3)
    seen: set[int] = set()
    running, most = 0, 0
    lock = threading.Lock()

    def call() -> None:
        nonlocal running, most
        with lock:
            seen.add(threading.get_ident())
            running += 1
            most = max(most, running)
        time.sleep(0.002)
        with lock:
            running -= 1

    await asyncio.gather(*(offload(call, deadline=5) for _ in range(30)))
    await offload(call, deadline=5)
    assert most <= 3
    assert len(seen) <= 3
    offload.close()


async def test_past_the_deadline_it_is_an_outage(gate: threading.Event) -> None:
    offload = Offload(1)
    with pytest.raises(AwsUnavailable, match=r"Event.wait took longer than 0.02 s"):
        await offload(gate.wait, deadline=0.02)
    offload.close()


async def test_a_call_given_up_while_it_waits_never_begins(gate: threading.Event) -> None:
    offload = Offload(1)
    begun = threading.Event()
    stuck = await occupy(offload, gate)
    with pytest.raises(AwsUnavailable):
        await offload(begun.set, deadline=0.02)
    cancelled = asyncio.ensure_future(offload(begun.set, deadline=5))
    await asyncio.sleep(0)
    cancelled.cancel()
    with pytest.raises(asyncio.CancelledError):
        await cancelled
    gate.set()
    assert await stuck
    assert await offload(lambda: 1, deadline=5) == 1  # the one thread has had its chance
    assert not begun.is_set()
    offload.close()


async def test_a_full_queue_fails_at_once(gate: threading.Event) -> None:
    offload = Offload(1, waiting=2)
    running = await occupy(offload, gate)
    waiting = [asyncio.ensure_future(offload(lambda: None, deadline=5)) for _ in range(2)]
    await asyncio.sleep(0)
    with pytest.raises(AwsUnavailable, match="2 calls wait already"):
        await offload(lambda: None, deadline=5)
    gate.set()
    await asyncio.gather(running, *waiting)
    await offload(lambda: None, deadline=5)
    offload.close()


async def test_where_the_system_gives_no_thread(
    gate: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    def start(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    alone, two = Offload(1), Offload(2)
    running = await occupy(two, gate)
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", start)
        with pytest.raises(AwsUnavailable, match="can't start new thread"):
            await alone(lambda: None, deadline=5)
        waiting = asyncio.ensure_future(two(lambda: "with the one there is", deadline=5))
        await asyncio.sleep(0)
    gate.set()
    assert await running
    assert await waiting == "with the one there is"
    alone.close()
    two.close()


async def test_a_result_that_comes_too_late_disturbs_nobody(gate: threading.Event) -> None:
    offload = Offload(1)
    with pytest.raises(AwsUnavailable):
        await offload(gate.wait, deadline=0.01)
    gate.set()
    assert await offload(lambda: "next", deadline=5) == "next"
    offload.close()


async def test_close_fails_what_waits_and_takes_no_more(gate: threading.Event) -> None:
    offload = Offload(1)
    running = await occupy(offload, gate)
    waiting = asyncio.ensure_future(offload(lambda: None, deadline=5))
    await asyncio.sleep(0)
    offload.close()
    with pytest.raises(AwsUnavailable, match="shutting down"):
        await waiting
    with pytest.raises(AwsUnavailable, match="shutting down"):
        await offload(lambda: None, deadline=5)
    gate.set()
    assert await running
    offload.close()


def test_a_loop_that_closed_meanwhile_is_no_error(gate: threading.Event) -> None:
    offload = Offload(1)
    ended = threading.Event()

    def call() -> None:
        gate.wait()
        threading.current_thread().name = "went on"

    async def give_up() -> None:
        with pytest.raises(AwsUnavailable):
            await offload(call, deadline=0.01)

    async def next_call() -> None:
        await offload(ended.set, deadline=5)

    asyncio.run(give_up())
    gate.set()
    asyncio.run(next_call())  # the same thread, from another loop
    assert ended.is_set()
    offload.close()


def test_a_stuck_call_does_not_hold_up_process_exit_and_boto3_is_not_loaded() -> None:
    program = """
import asyncio, sys, time
from iam_auth_proxy.aws.offload import Offload
from iam_auth_proxy.errors import AwsUnavailable
async def main():
    try:
        await Offload(1)(time.sleep, 60, deadline=0.05)
    except AwsUnavailable as error:
        print(error, "boto3" in sys.modules, "botocore" in sys.modules)
asyncio.run(main())
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=20, check=True
    )
    assert (done.stdout, done.stderr) == ("sleep took longer than 0.05 s False False\n", "")
