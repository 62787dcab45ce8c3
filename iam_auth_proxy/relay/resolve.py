"""Names to addresses, off the event loop.

``getaddrinfo`` blocks for as long as the system's resolver likes (30 s and more when a network has
just gone). The loop's own executor runs it in threads that process exit waits for, and a handful of
stuck lookups there holds up all others. So each lookup here has a daemon thread of its own, bounded
in number; whoever waits for it can give up at any time.
"""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

# As getaddrinfo gives them: family, type, protocol, canonical name, socket address.
AddressInfo = tuple[int, int, int, str, tuple[str, int] | tuple[str, int, int, int]]
Resolve = Callable[[str, int], Awaitable[Sequence[AddressInfo]]]
Lookup = Callable[[str, int], Sequence[AddressInfo]]

_MAX_LOOKUPS: Final = 64


def system_lookup(host: str, port: int) -> Sequence[AddressInfo]:
    """getaddrinfo for TCP. Blocks.

    :raises socket.gaierror: no such name, or no answer.
    """
    infos = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, proto=socket.IPPROTO_TCP)
    # A Python built without IPv6 gives IPv6 addresses as (int, bytes): of no use.
    return [info for info in infos if isinstance(info[4][0], str)]  # type: ignore[misc]  # narrowed


class ThreadResolver:
    """A :data:`Resolve` that runs ``lookup`` in daemon threads, ``limit`` at once."""

    def __init__(self, lookup: Lookup = system_lookup, limit: int = _MAX_LOOKUPS) -> None:
        self._lookup = lookup
        self._limit = limit
        self._running = 0

    async def __call__(self, host: str, port: int) -> Sequence[AddressInfo]:
        """All addresses of ``host``, in the system's order of preference.

        :raises socket.gaierror: no such name, no answer, or no thread to ask in.
        """
        if self._running >= self._limit:
            raise socket.gaierror(socket.EAI_AGAIN, "too many lookups under way")
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[Sequence[AddressInfo]] = loop.create_future()

        def finish(infos: Sequence[AddressInfo] | None, error: OSError | None) -> None:
            self._running -= 1
            if answer.done():  # given up
                return
            if error is not None:
                answer.set_exception(error)
            else:
                answer.set_result(infos or ())

        def run() -> None:
            infos, error = None, None
            try:
                infos = self._lookup(host, port)
            except OSError as failure:
                error = failure
            except UnicodeError as failure:  # from the idna codec, for labels it cannot encode
                error = socket.gaierror(socket.EAI_NONAME, str(failure))
            try:
                loop.call_soon_threadsafe(finish, infos, error)
            except RuntimeError:
                pass  # the loop closed while the system was still looking

        try:
            threading.Thread(target=run, name=f"resolve-{host}", daemon=True).start()
        except RuntimeError as error:  # the system gives no more threads
            raise socket.gaierror(socket.EAI_AGAIN, str(error)) from error
        self._running += 1
        return await answer
