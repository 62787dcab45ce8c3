"""Long runs of bytes that nobody looks at, moved inside the kernel. Linux; elsewhere never begun.

Reading 256 KiB and writing them again is two copies; splice(2) through a pipe hands pages from one
socket to the other, for a third of the CPU. It costs a pipe and two more descriptors, so it begins
only when a run is long (:data:`LONG`), for a bounded number of runs, and ends when nothing came for
a while. Whatever is not a plain run (the end of a stream, an error of the sending side, a cut) is
left to the transports: a splice moves what there is and gives the connection back as it found it.

How it lives beside a transport: the sending side's is paused, and the receiving side's has nothing
to send, so neither touches its socket while duplicates of both descriptors are watched. A duplicate
keeps a socket open, so :meth:`Splice.stop` comes before either transport is closed.

What is under way in the pipe counts as the receiving side's kernel buffer does: who stops reading
stops the pipe, and the pipe stops the sender.
"""

from __future__ import annotations

import asyncio
import os
import socket
import sys
from typing import Final, Protocol, cast

from iam_auth_proxy.relay.deadlines import Sweep
from iam_auth_proxy.relay.transports import set_marks

if sys.platform == "linux":
    import fcntl

    _FLAGS: Final = os.SPLICE_F_NONBLOCK | os.SPLICE_F_MOVE

LONG: Final = 512 * 1024
"""Bytes from which a run is worth it: setting up costs about as much as copying a quarter of it."""

_PIPE: Final = 512 * 1024  # a user may have 64 MiB of pipes by default, see pipe(7)
_AT_ONCE: Final = 32
_QUIET: Final = 2.0  # seconds without a byte after which the descriptors are given back
_NO_LIMIT: Final = sys.maxsize


class Owner(Protocol):
    """Whose bytes are moved."""

    def spliced(self, count: int) -> None:
        """So many more have been handed to the receiving side's kernel."""
        ...

    def splice_ended(self, error: OSError | None) -> None:
        """All are over and everything taken was handed on; the transports are as they were before.

        :param error: of either socket; what was in between is lost.
        """
        ...


class Splicer:
    """Begins splices, and bounds how many there are at one time.

    :ivar running: how many there are.
    """

    __slots__ = ("_sweep", "running")

    def __init__(self, sweep: Sweep) -> None:
        self._sweep = sweep
        self.running = 0

    def may_start(self, source: asyncio.Transport, sink: asyncio.Transport) -> bool:
        """Whether there is room for one more, and both ends are plain TCP."""
        return (
            sys.platform == "linux"
            and self.running < _AT_ONCE
            and _is_tcp(source)
            and _is_tcp(sink)
        )

    def start(
        self,
        source: asyncio.Transport,
        sink: asyncio.Transport,
        owner: Owner,
        first: bytes,
        left: int = _NO_LIMIT,
    ) -> Splice | None:
        """Move ``first``, which was read already, and then ``left`` bytes or whatever comes.

        None: it is not the time (the receiving side has something to send) or not possible; then
        nothing was taken. Once it is possible, the receiving side's transport is kept empty, so
        the next try will do.
        """
        if sink.get_write_buffer_size():
            if self.may_start(source, sink):
                sink.set_write_buffer_limits(high=0)
            return None
        if not self.may_start(source, sink):
            set_marks(sink)
            return None
        fds: list[int] = []
        try:
            fds += os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
            size = fcntl.fcntl(fds[1], fcntl.F_SETPIPE_SZ, _PIPE)
            fds += (os.dup(_socket(source).fileno()), os.dup(_socket(sink).fileno()))
            if len(first) > size:
                raise OSError("the pipe is too small")
            os.write(fds[1], first)
        except OSError:  # no descriptors, or the user has too many large pipes
            for fd in fds:
                os.close(fd)
            set_marks(sink)
            return None
        source.pause_reading()
        splice = Splice(self, self._sweep, owner, fds, sink)
        self.running += 1
        splice.begin(len(first), left)
        return splice


class Splice:
    """One run, in one direction.

    Two states: the pipe is empty and the source is watched, or it is not and the sink is.

    :ivar due: see :class:`deadlines.Watched`.
    """

    __slots__ = (
        "_fds",
        "_held",
        "_left",
        "_loop",
        "_out",
        "_owner",
        "_pipe_in",
        "_pipe_out",
        "_sink",
        "_source",
        "_splicer",
        "_sweep",
        "due",
    )

    def __init__(
        self,
        splicer: Splicer,
        sweep: Sweep,
        owner: Owner,
        fds: list[int],
        sink: asyncio.Transport,
    ) -> None:
        self._splicer = splicer
        self._sweep = sweep
        self._owner = owner
        self._fds = fds
        self._pipe_out, self._pipe_in, self._source, self._sink = fds
        self._out = sink
        self._loop = asyncio.get_running_loop()
        self._held = 0
        self._left = 0
        self.due = sweep.now + _QUIET

    def begin(self, held: int, left: int) -> None:
        """``held`` bytes are in the pipe."""
        self._held = held
        self._left = left
        self._sweep.watch(self)
        self._loop.add_writer(self._sink, self._writable)

    def stop(self) -> None:
        """End it now; what is in the pipe is lost, and the owner is not told."""
        if self._fds:
            self._loop.remove_reader(self._source)
            self._loop.remove_writer(self._sink)
            for fd in self._fds:
                os.close(fd)
            self._fds = []
            self._splicer.running -= 1
            self._sweep.forget(self)
            if not self._out.is_closing():
                set_marks(self._out)

    def overdue(self) -> None:
        """See :class:`deadlines.Watched`."""
        if self._held:
            self.due = self._sweep.now + _QUIET  # how long that may last is the owner's deadline
        else:
            self._end(None)

    def _readable(self) -> None:
        try:
            count = os.splice(self._source, self._pipe_in, min(self._left, _PIPE), flags=_FLAGS)
        except BlockingIOError:
            return
        except OSError as error:
            self._end(error)
            return
        if not count:
            self._end(None)  # the transport will see the end of the stream for itself
            return
        self._held = count
        self._left -= count
        self._drain(watching=False)

    def _writable(self) -> None:
        self._drain(watching=True)

    def _drain(self, *, watching: bool) -> None:
        """Empty the pipe as far as the sink takes it.

        :param watching: the sink; else the source.
        """
        before = self._held
        try:
            while self._held:
                self._held -= os.splice(self._pipe_out, self._sink, self._held, flags=_FLAGS)
        except BlockingIOError:
            pass
        except OSError as error:
            self._end(error)
            return
        self.due = self._sweep.now + _QUIET
        self._owner.spliced(before - self._held)
        if not self._held and not self._left:
            self._end(None)
        elif self._held and not watching:
            self._loop.remove_reader(self._source)
            self._loop.add_writer(self._sink, self._writable)
        elif not self._held and watching:
            self._loop.remove_writer(self._sink)
            self._loop.add_reader(self._source, self._readable)

    def _end(self, error: OSError | None) -> None:
        self.stop()
        self._owner.splice_ended(error)


def _socket(transport: asyncio.Transport) -> socket.socket:
    return cast(socket.socket, transport.get_extra_info("socket"))


def _is_tcp(transport: asyncio.Transport) -> bool:
    """Whether the bytes of the transport are the bytes of its socket, and that is TCP."""
    sock = _socket(transport)
    return (
        transport.get_extra_info("sslcontext") is None
        and sock is not None
        and sock.family in (socket.AF_INET, socket.AF_INET6)
        and sock.fileno() >= 0
    )
