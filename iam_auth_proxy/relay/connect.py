"""A CONNECT on its way to becoming a tunnel."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Final

from iam_auth_proxy.errors import PathError
from iam_auth_proxy.names import Origin
from iam_auth_proxy.relay.exchange import Exchange
from iam_auth_proxy.relay.message import Request
from iam_auth_proxy.relay.shared import Shared, internal
from iam_auth_proxy.relay.tunnel import End, TlsOnlyEnd

if TYPE_CHECKING:
    from iam_auth_proxy.relay.client import ClientConnection

ESTABLISHED: Final = b"HTTP/1.1 200 Connection established\r\n\r\n"

log = logging.getLogger(__name__)


class Connecting(Exchange):
    """The exchange of a CONNECT. What the client sends early is kept by its connection."""

    __slots__ = ("_shared", "_side", "_task")
    request: Request

    def __init__(
        self, side: ClientConnection, shared: Shared, origin: Origin, request: Request
    ) -> None:
        super().__init__(origin, side.peer, request, side.entrance)
        # What follows a CONNECT is not HTTP, even if it was refused: nothing more is parsed.
        request.keep_alive = False
        self._shared = shared
        self._side = side
        self._task: asyncio.Task[None] | None = None

    def begin(self) -> None:
        """Dial."""
        self._task = self._shared.spawn(self._dial())

    def cancel(self) -> None:
        """The client is gone."""
        if self._task is not None:
            self._task.cancel()

    async def _dial(self) -> None:
        end = End()
        try:
            transport, _ = await self._shared.dialer.connect(self.origin, lambda: end)
            if end.lost is not None:
                raise PathError("closed as soon as opened", error="connection_terminated")
            # The configuration may have changed during the dial, so that there is no way any more.
            only_tls = self._shared.dialer.tls_only(self.origin)
        except PathError as error:
            end.abort()
            self._fail(error)
        except asyncio.CancelledError:
            end.abort()
            raise
        except Exception as error:  # noqa: BLE001  # logged, and answered
            end.abort()
            self._fail(internal(error, "a dial"))
        else:
            self._shared.counters.tunnels += 1
            self._side.write(ESTABLISHED)
            client_end = TlsOnlyEnd(self._not_tls) if only_tls else None
            self._side.switch(transport, client_end=client_end, origin_end=end)

    def _not_tls(self) -> None:
        self._shared.counters.count_failed("destination_ip_prohibited")
        log.warning("not TLS, in a tunnel for TLS alone", extra={"origin": self.origin.host_port})

    def _fail(self, error: PathError) -> None:
        self._side.reply(self.request, self._shared.failure(self, error))
