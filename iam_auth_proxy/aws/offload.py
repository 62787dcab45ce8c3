"""Synchronous calls off the event loop, each with a deadline.

The threads are daemons of our own: the loop's executor joins its threads when the process ends, and
a call that is stuck (a ``credential_process`` that waits for a person, a network that swallows
packets) would hang it there.
"""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections import deque
from collections.abc import Callable
from typing import Any, Final, TypeVar

from iam_auth_proxy.errors import AwsUnavailable

T = TypeVar("T")

_MAX_WAITING: Final = 256


class Offload:
    """A pool of daemon threads, started as they are needed. Safe to use from several loops.

    :param threads: how many calls run at once.
    :param waiting: how many more may wait for their turn; past that a call fails at once.
    """

    def __init__(self, threads: int, waiting: int = _MAX_WAITING) -> None:
        self._max_threads = threads
        self._max_waiting = waiting
        self._changed = threading.Condition()
        self._jobs: deque[_Job] = deque()
        self._threads = 0
        self._idle = 0
        self._closed = False

    async def __call__(self, fn: Callable[..., T], *args: object, deadline: float) -> T:
        """``fn(*args)`` in a thread; its result, or the exception it raised.

        A call that is given up (deadline, cancellation) runs on in its thread where it has begun,
        and never begins where it has not.

        :param deadline: seconds, waiting for a thread included.
        :raises AwsUnavailable: the deadline passed, too many calls wait, or the pool is closed.
        """
        job = _Job(fn, args)
        self._put(job)
        try:
            async with asyncio.timeout(deadline) as timeout:
                result: T = await job.answer
                return result
        except TimeoutError as error:
            if not timeout.expired():
                raise  # it was the call's own
            raise AwsUnavailable(f"{job.name} took longer than {deadline:g} s") from error
        finally:
            self._take_back(job)

    def close(self) -> None:
        """Take no more calls. Those that wait fail; those that run are let run, without waiting."""
        with self._changed:
            self._closed = True
            waiting = list(self._jobs)
            self._jobs.clear()
            self._changed.notify_all()
        for job in waiting:
            job.finish(None, AwsUnavailable("shutting down"))

    def _put(self, job: _Job) -> None:
        with self._changed:
            if self._closed:
                raise AwsUnavailable("shutting down")
            if len(self._jobs) >= self._max_waiting:
                raise AwsUnavailable(f"{len(self._jobs)} calls wait already")
            self._jobs.append(job)
            if self._idle < len(self._jobs) and self._threads < self._max_threads:
                self._start_thread()
            self._changed.notify()

    def _start_thread(self) -> None:
        try:
            threading.Thread(target=self._work, name="offload", daemon=True).start()
        except RuntimeError as error:  # the system gives no more threads
            if not self._threads:
                self._jobs.pop()
                raise AwsUnavailable(str(error)) from error
        else:
            self._threads += 1

    def _take_back(self, job: _Job) -> None:
        with self._changed:
            if job in self._jobs:
                self._jobs.remove(job)

    def _work(self) -> None:
        while True:
            with self._changed:
                self._idle += 1
                while not self._jobs and not self._closed:
                    self._changed.wait()
                self._idle -= 1
                if self._closed:
                    return
                job = self._jobs.popleft()
            job.run()
            del job  # an idle thread keeps nothing of what it last did


class _Job:
    """One call, and where its answer goes."""

    __slots__ = ("_args", "_context", "_fn", "_loop", "answer", "name")

    def __init__(self, fn: Callable[..., Any], args: tuple[object, ...]) -> None:
        self.name: str = getattr(fn, "__qualname__", repr(fn))
        self._fn = fn
        self._args = args
        self._context = contextvars.copy_context()
        self._loop = asyncio.get_running_loop()
        self.answer: asyncio.Future[Any] = self._loop.create_future()

    def run(self) -> None:
        try:
            result = self._context.run(self._fn, *self._args)
        except BaseException as error:  # noqa: BLE001  # raised again where the call is awaited
            self.finish(None, error)
        else:
            self.finish(result, None)

    def finish(self, result: Any, error: BaseException | None) -> None:
        try:
            self._loop.call_soon_threadsafe(self._deliver, result, error)
        except RuntimeError:
            pass  # the loop has closed: nobody waits any more

    def _deliver(self, result: Any, error: BaseException | None) -> None:
        if self.answer.done():  # given up
            return
        if error is None:
            self.answer.set_result(result)
        else:
            self.answer.set_exception(error)
