"""Which hosts' TLS is ended here, and with whose certificates.

A host that is listed and has no local CA is tunnelled as if it were not listed: what is missing is
said in the log, at start and when a client comes, with the command that changes it.
"""

from __future__ import annotations

import logging
import ssl
from collections.abc import Callable, Iterable
from typing import Final

from iam_auth_proxy.aws.offload import Offload
from iam_auth_proxy.config import HTTPS, TrustRule
from iam_auth_proxy.errors import AwsUnavailable, NoAuthority, PathError
from iam_auth_proxy.names import Origin
from iam_auth_proxy.proxy.https.ca import Authorities
from iam_auth_proxy.relay.hello import Hello

log = logging.getLogger(__name__)

INTERCEPT: Final = HTTPS[1]
_PATIENCE: Final = 10.0
_WARNED: Final = 256


class Interception:
    """Certificates for the hosts that somebody listed.

    :param clock: epoch seconds.
    """

    def __init__(self, authorities: Authorities, clock: Callable[[], float]) -> None:
        self._authorities = authorities
        self._clock = clock
        self._off_loop = Offload(1)  # a leaf takes a millisecond, and waits for no AWS call
        self._warned: set[str] = set()

    def of(self, origin: Origin) -> Certificate | None:
        """Who has the certificate of a listed origin; None: no CA speaks for it, which is logged.

        Costs a stat(2) for each label.
        """
        if self._authorities.covers(origin.host):
            self._warned.discard(origin.host)
            return Certificate(self, origin.host)
        self._warn(origin.host, str(origin))
        return None

    def look_at(self, rules: Iterable[TrustRule]) -> None:
        """Logs which of the listed hosts have no CA."""
        for rule in rules:
            if rule.https == INTERCEPT and not self._authorities.covers(rule.host):
                self._warn(rule.host, str(rule))

    def _warn(self, host: str, listed: str) -> None:
        if host in self._warned:
            return
        if len(self._warned) >= _WARNED:
            self._warned.clear()
        self._warned.add(host)
        log.warning(
            "%s is listed, but no local CA speaks for it: it is tunnelled, and not signed in. Run: "
            "iam-auth-proxy ca add %s",
            listed,
            host,
            extra={"host": host},
        )

    async def context(self, host: str) -> ssl.SSLContext:
        """The server's side of TLS for a host.

        :raises PathError: its CA cannot be used.
        """
        now = self._clock()
        found = self._authorities.ready(host, now)
        if found is not None:
            return found
        try:
            return await self._off_loop(self._authorities.context, host, now, deadline=_PATIENCE)
        except (NoAuthority, AwsUnavailable, OSError) as error:
            raise PathError(
                f"no certificate for {host}: {error}",
                error="proxy_configuration_error",
                remedy=error.remedy if isinstance(error, NoAuthority) else "",
            ) from error

    def close(self) -> None:
        """Makes no more certificates."""
        self._off_loop.close()


class Certificate:
    """Implements :class:`~iam_auth_proxy.relay.exchange.TlsEnd` for one host."""

    __slots__ = ("_host", "_interception")

    def __init__(self, interception: Interception, host: str) -> None:
        self._interception = interception
        self._host = host

    async def context(self, hello: Hello) -> ssl.SSLContext:
        """See :class:`~iam_auth_proxy.relay.exchange.TlsEnd`."""
        return await self._interception.context(self._host)
