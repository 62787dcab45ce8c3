"""``python -m tests.bench.relay_only``: the relay on uvloop, without sign-in, pages or daemon.

For whoever works on the relay: ``python -m tests.bench --subject relay``. The real dialer and its
address policy are there, with loopback allowed; steering lets everything pass.
"""

from __future__ import annotations

from collections.abc import Awaitable

import uvloop

from iam_auth_proxy.errors import PathError
from iam_auth_proxy.names import Origin
from iam_auth_proxy.relay.addresses import AddressPolicy, parse_target
from iam_auth_proxy.relay.dial import TcpDialer
from iam_auth_proxy.relay.exchange import Entrance, Exchange, Reply, ResponseHead
from iam_auth_proxy.relay.relay import Relay
from tests.bench.serve import serve


class PassThrough:
    """Decides nothing."""

    def before(self, exchange: Exchange) -> Awaitable[Reply | None] | None:
        return None

    def after(self, exchange: Exchange, answer: ResponseHead) -> Awaitable[Reply | None] | None:
        return None

    def serves(self, host: bytes, entrance: Entrance) -> None:
        return None

    def reads_tunnel(self, origin: Origin) -> bool:
        return False

    def ends_tls(self, origin: Origin) -> None:
        return None

    def failed(self, exchange: Exchange, error: PathError) -> Reply:
        return Reply(error.http_status, (), error.public.encode())

    def refused(self, status: int, reason: str, client: str) -> Reply:
        return Reply(status, (), reason.encode())


async def main() -> None:
    """Until a signal ends it."""
    dialer = TcpDialer(AddressPolicy([parse_target("127.0.0.1")]))
    await serve(Relay(dialer=dialer, steering=PassThrough()).connection)


if __name__ == "__main__":
    uvloop.run(main())
