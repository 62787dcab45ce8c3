"""The handshake with a SOCKS proxy: python-socks, over a connection that is made here."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable
from typing import Any, Final, cast

from python_socks import ProxyError, ProxyType

# python-socks tells a connection that was closed from a refusal by its cause alone, whose class it
# does not export; the tests hold it to that.
from python_socks._errors import IncompleteReadError
from python_socks.async_.asyncio import Proxy

from iam_auth_proxy.errors import PathError
from iam_auth_proxy.relay import failures
from iam_auth_proxy.relay.via import Target, Via

# The deadline is the dialer's; the library's own would be 60 s.
_NEVER: Final = 86_400.0

Reach = Callable[[], Awaitable[socket.socket]]


async def socks_connect(
    via: Via, host: str, target: Target, reach: Reach, heard: Callable[[], None]
) -> socket.socket:
    """A socket through the proxy to ``host`` at the target's port.

    :param host: what the proxy is told: the target's name, or an address of it.
    :param reach: connects to the proxy itself.
    :param heard: called when the proxy has said something.
    :raises PathError: the proxy refused, closed, or is none; and whatever ``reach`` raises.
    """
    listening = _Listening(asyncio.get_running_loop(), heard)

    def closed(error: Exception) -> PathError:
        if via.greets and not listening.heard:
            return failures.closed_before_greeting(via, target, error)
        return failures.closed_without_answer(via, target, error)

    proxy = Proxy(
        ProxyType.SOCKS4 if via.scheme == "socks4" else ProxyType.SOCKS5,
        via.host,
        via.port,
        username=via.user or None,
        password=via.password or None,
        rdns=True,  # what is to be resolved here is an address by now
        forward=_Door(reach),
        loop=cast(asyncio.AbstractEventLoop, listening),
    )
    try:
        return await proxy.connect(host, target.port, timeout=_NEVER)
    except ProxyError as error:
        if isinstance(error.__cause__, IncompleteReadError):
            raise closed(error) from error
        raise failures.socks_refused(via, target, str(error), error.error_code) from error
    except OSError as error:
        raise closed(error) from error
    except ValueError as error:  # an answer that does not decode
        raise failures.not_that_proxy(via, str(error)) from error


class _Door(Proxy):
    """How python-socks reaches the SOCKS server: by our own connect, on both address families."""

    def __init__(self, reach: Reach) -> None:
        self._reach = reach

    async def connect(
        self,
        dest_host: str,
        dest_port: int,
        timeout: float | None = None,  # noqa: ASYNC109  # python-socks' own signature
        **kwargs: Any,
    ) -> socket.socket:
        return await self._reach()


class _Listening:
    """The loop as python-socks uses it, which says nowhere else how far a handshake came.

    :ivar heard: whether the proxy has said something.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, tell: Callable[[], None]) -> None:
        self.heard = False
        self._loop = loop
        self._tell = tell

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loop, name)

    async def sock_recv(self, sock: socket.socket, size: int) -> bytes:
        data = await self._loop.sock_recv(sock, size)
        if data:
            self.heard = True
            self._tell()
        return data
