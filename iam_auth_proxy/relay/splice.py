"""Long runs of bytes that nobody looks at, moved inside the kernel. Linux; elsewhere never begun.

Reading and writing a byte is two copies; splice(2) through a pipe hands pages from one socket to
the other, for a third of the CPU. It costs a pipe and two more descriptors, so it begins only when
a run is long (:data:`LONG`), for a bounded number of runs, and ends when nothing came for a while.
The end of a stream is left to the transports: a splice moves what there is, and gives the
connection back as it found it.

How it lives beside a transport: the sending side's is paused, and the receiving side's sends what
it has before the first byte of the pipe goes out; then neither touches its socket while duplicates
of both descriptors are watched. A duplicate keeps a socket open, so :meth:`Splice.stop` comes
before either transport is closed.

The loop watches an epoll descriptor that watches the duplicates: uvloop takes a reset on a
descriptor that it watches itself for a fault of the loop, and does not call.

What is in the pipe counts as the receiving side's kernel buffer does: who stops reading stops the
pipe, and the pipe stops the sender.
"""

from __future__ import annotations

import asyncio
import os
import select
import socket
import sys
from collections.abc import Callable
from typing import Final, Protocol, cast

from iam_auth_proxy.relay.deadlines import Sweep

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
    """Whoever has its bytes moved, and is told of it."""

    def spliced(self, count: int) -> None:
        """So many more have been handed to the receiving side's kernel."""
        ...

    def splice_ended(self, error: OSError | None) -> None:
        """All that was taken was handed on, and reading may be resumed.

        An error of the receiving side ends its transport, and is not told here.

        :param error: of the sending side, whose transport is of no use any more.
        """
        ...


class Splicer:
    """Begins splices, bounds how many there are at one time, and watches their sockets.

    :ivar running: how many there are.
    """

    __slots__ = ("_callbacks", "_epoll", "_sweep", "running")

    def __init__(self, sweep: Sweep) -> None:
        self._sweep = sweep
        self._callbacks: dict[int, Callable[[], None]] = {}
        self.running = 0

    def start(
        self,
        source: asyncio.Transport,
        sink: asyncio.Transport,
        owner: Owner,
        first: bytes,
        left: int = _NO_LIMIT,
    ) -> Splice | None:
        """Move ``first``, which was read already, and then ``left`` bytes or whatever comes.

        Reading is paused, and nobody may resume it while there is a splice. To be called from
        ``data_received`` alone: then the sink has not asked for a pause, and will not ask for more.

        None: not here or not now; nothing was taken.
        """
        if sys.platform != "linux" or self.running >= _AT_ONCE:
            return None
        if not (_is_tcp(source) and _is_tcp(sink)):
            return None
        fds: list[int] = []
        try:
            fds += os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
            size = fcntl.fcntl(fds[1], fcntl.F_SETPIPE_SZ, _PIPE)
            fds += (os.dup(_socket(source).fileno()), os.dup(_socket(sink).fileno()))
            os.splice(fds[2], fds[1], 0, flags=_FLAGS)  # a sandbox may forbid the call itself
            if len(first) > size:
                raise OSError("the pipe is too small")
            os.write(fds[1], first)
            if not self.running:
                self._epoll = select.epoll()
        except OSError:  # nor descriptors without end, nor large pipes
            for fd in fds:
                os.close(fd)
            return None
        source.pause_reading()
        if not self.running:
            asyncio.get_running_loop().add_reader(self._epoll.fileno(), self._ready)
        self.running += 1
        return Splice(self, self._sweep, owner, fds, sink, len(first), left)

    def watch(self, fd: int, events: int, callback: Callable[[], None]) -> None:
        """Call when the descriptor is ready, or broken."""
        self._callbacks[fd] = callback
        self._epoll.register(fd, events)

    def forget(self, fd: int) -> None:
        """Stops watching a descriptor."""
        if self._callbacks.pop(fd, None) is not None:
            self._epoll.unregister(fd)

    def ended(self) -> None:
        """One splice less; the last one takes the watch with it."""
        self.running -= 1
        if not self.running:
            asyncio.get_running_loop().remove_reader(self._epoll.fileno())
            self._epoll.close()

    def _ready(self) -> None:
        for fd, _ in self._epoll.poll(0):
            callback = self._callbacks.get(fd)
            if callback is not None:  # one may have ended another
                callback()


class Splice:
    """One run, in one direction.

    Two states: the pipe is empty and the source is watched, or it is not and the sink is.

    :ivar due: see :class:`deadlines.Watched`.
    """

    __slots__ = (
        "_fds",
        "_held",
        "_left",
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
        held: int,
        left: int,
    ) -> None:
        self._splicer = splicer
        self._sweep = sweep
        self._owner = owner
        self._fds = fds
        self._pipe_out, self._pipe_in, self._source, self._sink = fds
        self._out = sink
        self._held = held
        self._left = left
        self.due = sweep.now + _QUIET
        sweep.watch(self)
        splicer.watch(self._sink, select.EPOLLOUT, self._writable)

    def stop(self) -> None:
        """End it now; what is in the pipe is lost, and the owner is not told."""
        if self._fds:
            self._splicer.forget(self._source)
            self._splicer.forget(self._sink)
            for fd in self._fds:
                os.close(fd)
            self._fds = []
            self._splicer.ended()
            self._sweep.forget(self)

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
        if not self._out.get_write_buffer_size():  # else it is writing, and first
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
        except OSError:
            self.stop()
            self._out.abort()
            return
        self.due = self._sweep.now + _QUIET
        self._owner.spliced(before - self._held)
        if not self._held and not self._left:
            self._end(None)
        elif self._held and not watching:
            self._splicer.forget(self._source)
            self._splicer.watch(self._sink, select.EPOLLOUT, self._writable)
        elif not self._held and watching:
            self._splicer.forget(self._sink)
            self._splicer.watch(self._source, select.EPOLLIN, self._readable)

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
