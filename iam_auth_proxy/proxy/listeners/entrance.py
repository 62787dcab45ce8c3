"""Who may use the proxy: each listener is an entrance with a rule of its own.

Whoever gets through acts as the person. A loopback port admits this user's own connections (see
:mod:`iam_auth_proxy.proxy.listeners.peers`), a listener that others can reach asks for a password,
and a program's private listener does both.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import time
from collections.abc import Callable, Collection
from typing import Final

from iam_auth_proxy.config import Settings
from iam_auth_proxy.errors import ConfigError, Problem
from iam_auth_proxy.proxy.listeners.clientauth import Credentials, OneSecret, load, parse_basic
from iam_auth_proxy.proxy.listeners.listen import is_local
from iam_auth_proxy.proxy.listeners.peers import Peers

log = logging.getLogger(__name__)

# A user who tries all ports connects often; one line a minute says it as well.
_LOG_EVERY: Final = 60.0


class Entrance:
    """Implements :class:`~iam_auth_proxy.relay.exchange.Entrance`.

    :param peers: tells this user's connections from others'; None: whoever connects is admitted.
    :param credentials: what requests must have; None: nothing.
    :param private: every client of it is one program's, which was started for it.
    :param local: only this machine reaches it.
    :ivar guarded: as it was built: a reload changes credentials, and does not do without.
    :param monotonic: seconds.
    """

    def __init__(
        self,
        name: str,
        *,
        peers: Peers | None,
        credentials: Credentials | None = None,
        private: bool = False,
        local: bool = True,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.name = name
        self.private = private
        self.local = local
        self.guarded = credentials is not None
        self.credentials = credentials
        self.peers = peers
        self._monotonic = monotonic
        self._quiet_until = float("-inf")
        self._unsaid = 0

    def admits(self, transport: asyncio.BaseTransport) -> bool:
        """See :class:`~iam_auth_proxy.relay.exchange.Entrance`."""
        peers = self.peers
        if peers is None:
            return True
        sock = transport.get_extra_info("socket")
        own = transport.get_extra_info("sockname")
        far = transport.get_extra_info("peername")
        uid = None if sock is None else peers.owner(sock, own, far)
        if peers.is_ours(uid):
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
        """Logs a refusal once, and then none for a while."""
        if uid is None:  # gone before it was asked about, as whoever only looks for an open port
            log.debug("a connection that is nobody's was closed", extra={"entrance": self.name})
            return
        now = self._monotonic()
        self._unsaid += 1
        if now < self._quiet_until:
            return
        log.warning(
            "another user's connection was closed",
            extra={
                "entrance": self.name,
                "uid": uid,
                "connections": self._unsaid,
            },
        )
        self._quiet_until = now + _LOG_EVERY
        self._unsaid = 0


class Entrances:
    """The entrances of one proxy, as its settings say.

    :raises ConfigError: nobody can be told from others, or the file of users cannot be used.
    """

    def __init__(self, settings: Settings) -> None:
        self._peers = None if settings.allow_other_users else Peers.of_this_process()
        self._users = load(settings.client_auth) if settings.client_auth else None
        self._local = Entrance("local", peers=self._peers, credentials=self._users)
        self._network: Entrance | None = None
        self._opened = 0

    def public(self, listener: socket.socket) -> Entrance:
        """That of a listener of ``--bind`` or of systemd's.

        :raises ConfigError: others can reach it, and there are no passwords.
        """
        if is_local(listener):
            return self._local
        if self._users is None:
            raise ConfigError([Problem("--bind", "other machines reach it: needs --client-auth")])
        if self._network is None:
            self._network = Entrance("network", peers=None, credentials=self._users, local=False)
        return self._network

    def private(self, name: str, secret: str) -> Entrance:
        """A further entrance, for a program that knows the secret."""
        self._opened += 1
        return Entrance(
            f"{name}-{self._opened}",
            peers=self._peers,
            credentials=OneSecret(secret),
            private=True,
        )

    def prepare(self, settings: Settings) -> Callable[[], Collection[Entrance]]:
        """Other settings: users who come and go. To be called when all else is well too.

        That returns the entrances whose connections are to end: somebody's password, who may have
        come in by them, holds no more. Which connection is whose is not kept, so it is all of them.

        :raises ConfigError: the file of users cannot be used.
        """
        before = self._users
        users = load(settings.client_auth) if settings.client_auth else None
        if (users is None) != (before is None):
            log.warning("a changed client-auth needs a restart")
        if users is None or before is None:
            return lambda: ()

        def change() -> Collection[Entrance]:
            self._users = users
            changed = [each for each in (self._local, self._network) if each is not None]
            for entrance in changed:
                entrance.credentials = users
            return () if users.lets_in_all_of(before) else changed

        return change

    def close(self) -> None:
        """Frees what the checks hold; to be called when there are no listeners any more."""
        if self._peers is not None:
            self._peers.close()
