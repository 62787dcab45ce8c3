"""Sign-ins under way, shared by the requests that wait for them. Pure but for the tasks it keeps.

Parallel challenges of one origin to one client share one sign-in: one token, one hand-over, one
session.
"""

from __future__ import annotations

import asyncio
import weakref
from collections import OrderedDict
from collections.abc import Callable, Coroutine, Hashable
from dataclasses import dataclass, field
from typing import Final, TypeVar

from iam_auth_proxy.names import Origin
from iam_auth_proxy.proxy.signin import tickets
from iam_auth_proxy.proxy.signin.handover import Challenged, Granted
from iam_auth_proxy.proxy.signin.sealing import Sealed
from iam_auth_proxy.relay.exchange import Fetched
from iam_auth_proxy.relay.fields import Headers

T = TypeVar("T")

SHARED_FOR: Final = 60.0
"""Seconds for which the sign-ins of one client at one origin are one."""


@dataclass(frozen=True, slots=True)
class HandedOver:
    """What the app answered, and to what.

    :ivar profile: who signed in; empty: the configured profile.
    :ivar at: when it answered, in seconds since the epoch.
    :ivar granted: the session, where it gave one.
    :ivar retried: it was asked again with a fresh challenge, and this is its second answer.
    """

    answer: Fetched
    challenged: Challenged
    sealed: Sealed
    profile: str
    at: float
    granted: Granted | None = None
    retried: bool = False


@dataclass(slots=True, eq=False, weakref_slot=True)
class Job:
    """One sign-in: the token once it is sealed, and the hand-over once it was begun.

    :ivar profile: whose it is; empty for the configured one.
    :ivar identified: of requests that a client certificate may be shown for.
    :ivar begun: monotonic seconds; ``begun_wall``: seconds since the epoch.
    """

    origin: Origin
    profile: str
    challenged: Challenged
    begun: float
    begun_wall: float
    # A task's repr shows its result: the cookie that the app gave, what AWS said.
    sealed: asyncio.Task[Sealed] = field(repr=False)
    handed_over: asyncio.Task[HandedOver] | None = field(default=None, repr=False)
    return_url: str = ""
    identified: bool = False
    _over: bool = False
    _void: bool = False

    def is_over(self) -> bool:
        """Whether it belongs to the time before a reload, a logout or another key.

        Who waits for it still gets its session, but nobody gets it later.
        """
        return self._over

    def is_void(self) -> bool:
        """Whether the person signed out meanwhile: its session is nobody's."""
        return self._void

    def joinable(self, now: float, wall: float, sent: Headers | None) -> bool:
        """Whether a further challenge may share this sign-in.

        Once the app has answered, a browser that is challenged again did not get, or did not keep,
        the cookie: it needs a sign-in of its own. A request that is repeated here is given the
        session while it is new, unless it came with it and was challenged all the same.

        :param sent: the fields of the request to be repeated; None for a browser's dance.
        """
        if now - self.begun >= SHARED_FOR or not self.fresh(wall):
            return False
        if self.sealed.done() and (self.sealed.cancelled() or self.sealed.exception()):
            return False
        if self.handed_over is None or not self.handed_over.done():
            return True
        if sent is None or self.handed_over.cancelled() or self.handed_over.exception():
            return False
        granted = self.handed_over.result().granted
        return granted is not None and not granted.carried_by(sent)

    def fresh(self, wall: float) -> bool:
        """Whether its token may still be handed over.

        Tickets see to that, but by a clock that stands still while a laptop sleeps; what is sealed
        goes by the wall clock.
        """
        return wall - self.begun_wall < SHARED_FOR + tickets.LIFE


@dataclass(frozen=True, slots=True)
class SignedIn:
    """A session for a request that is repeated.

    :ivar done: ``granted`` is there.
    :ivar shared: the sign-in was another request's, and done already.
    """

    done: HandedOver
    job: Job
    shared: bool

    @property
    def granted(self) -> Granted:
        """The session that the app granted."""
        assert self.done.granted is not None
        return self.done.granted

    def is_over(self) -> bool:
        """See :meth:`Job.is_over`."""
        return self.job.is_over()


class StartAgain(Exception):
    """The app wants a fresh challenge to be answered, and only the request itself brings one."""


class Tasks:
    """What is under way, and goes on where the request that began it is gone."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[object]] = set()

    def __len__(self) -> int:
        return len(self._tasks)

    def begin(self, work: Coroutine[object, object, T]) -> asyncio.Task[T]:
        """Starts a task. Its exception counts as retrieved, even if nobody awaits it."""

        def done(task: asyncio.Task[T]) -> None:
            self._tasks.discard(task)
            if not task.cancelled():
                task.exception()

        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(done)
        return task

    async def close(self) -> None:
        """End them all."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


class Jobs:
    """The sign-ins that may be shared."""

    def __init__(self) -> None:
        self._jobs: OrderedDict[Hashable, Job] = OrderedDict()
        # All that are under way, those too old to be shared by further requests included.
        self._begun: weakref.WeakSet[Job] = weakref.WeakSet()

    def __len__(self) -> int:
        return len(self._jobs)

    def get(self, key: Hashable) -> Job | None:
        """The latest sign-in that this key had."""
        return self._jobs.get(key)

    def join(
        self,
        key: Hashable,
        begin: Callable[[], Job],
        now: float,
        wall: float,
        sent: Headers | None = None,
    ) -> Job:
        """The sign-in to share, or one that is begun now. See :meth:`Job.joinable`."""
        job = self._jobs.get(key)
        if job is None or not job.joinable(now, wall, sent):
            job = begin()
            self._jobs[key] = job
            self._begun.add(job)
            self._jobs.move_to_end(key)
            while next(iter(self._jobs.values())).begun <= now - SHARED_FOR:
                self._jobs.popitem(last=False)
        return job

    def forget(self, origin: Origin | None = None, *, void: bool = False) -> None:
        """Nobody joins those of this origin any more, or of any.

        :param void: their sessions are not used either.
        """
        for job in self._begun:
            if origin is None or job.origin == origin:
                job._over = True
                job._void = job._void or void
        for key, job in [*self._jobs.items()]:
            if job.is_over():
                del self._jobs[key]
