"""Who may use the proxy: each listener is an entrance with a rule of its own.

Whoever gets through acts as the person. A loopback port admits this user's own connections (see
:mod:`iam_auth_proxy.proxy.peers`), a listener that others can reach asks for a password, and a
program's private listener does both.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from typing import Final

from iam_auth_proxy.proxy.clientauth import Credentials, parse_basic
from iam_auth_proxy.proxy.peers import Peers

log = logging.getLogger(__name__)

# A user who tries all ports connects often; one line a minute says it as well.
_LOG_EVERY: Final = 60.0


class Entrance:
    """Implements :class:`~iam_auth_proxy.relay.exchange.Entrance`.

    :param peers: tells this user's connections from others'; None: whoever connects is admitted.
    :param credentials: what requests must have; None: nothing.
    :param private: every client of it is one program's, which was started for it.
    :param monotonic: seconds.
    """

    def __init__(
        self,
        name: str,
        *,
        peers: Peers | None,
        credentials: Credentials | None = None,
        private: bool = False,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.name = name
        self.private = private
        self.credentials = credentials
        self._peers = peers
        self._monotonic = monotonic
        self._quiet_until = float("-inf")
        self._unsaid = 0

    @property
    def guarded(self) -> bool:
        """See :class:`~iam_auth_proxy.relay.exchange.Entrance`."""
        return self.credentials is not None

    def admits(self, transport: asyncio.BaseTransport) -> bool:
        """See :class:`~iam_auth_proxy.relay.exchange.Entrance`."""
        if self._peers is None:
            return True
        sock = transport.get_extra_info("socket")
        own = transport.get_extra_info("sockname")
        far = transport.get_extra_info("peername")
        uid = None if sock is None else self._peers.owner(sock, own, far)
        if self._peers.is_ours(uid):
            return True
        self._refused(uid)
        return False

    def authenticates(self, credentials: bytes | None, client: str) -> bool:
        """See :class:`~iam_auth_proxy.relay.exchange.Entrance`."""
        if self.credentials is None:
            return True
        basic = parse_basic(credentials)
        return basic is not None and self.credentials.accept(*basic, client)

    def _refused(self, uid: int | None) -> None:
        """One line, and then no more for a while."""
        now = self._monotonic()
        self._unsaid += 1
        if now < self._quiet_until:
            return
        log.warning(
            "another user's connection was closed",
            extra={
                "entrance": self.name,
                "uid": "unknown" if uid is None else uid,
                "connections": self._unsaid,
            },
        )
        self._quiet_until = now + _LOG_EVERY
        self._unsaid = 0
