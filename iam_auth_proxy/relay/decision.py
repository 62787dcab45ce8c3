"""Calls :class:`.exchange.Steering`; whatever it raises fails that exchange and nothing else."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import Final

from iam_auth_proxy.errors import PathError
from iam_auth_proxy.names import Origin
from iam_auth_proxy.relay.exchange import (
    Entrance,
    Repeat,
    Reply,
    Steering,
    TlsEnd,
)
from iam_auth_proxy.relay.shared import internal

Verdict = Awaitable[Reply | Repeat | None]
_DECIDING: Final = "a decision about an exchange"


def fault_of(error: Exception) -> PathError:
    """An exception of steering as a PathError: as it is, or as an internal error."""
    return error if isinstance(error, PathError) else internal(error, _DECIDING)


def reads_tunnel(steering: Steering, origin: Origin) -> bool:
    """Steering's word; a fault of it leaves the tunnel unread, as most are."""
    try:
        return steering.reads_tunnel(origin)
    except Exception as error:  # noqa: BLE001  # logged
        internal(error, "a decision about a tunnel")
        return False


def serves(steering: Steering, host: bytes, entrance: Entrance) -> Origin | None:
    """Steering's word; a fault of it leaves the request to the proxy's own pages, which refuse."""
    try:
        return steering.serves(host, entrance)
    except Exception as error:  # noqa: BLE001  # logged
        internal(error, "a decision about a host")
        return None


def ends_tls(steering: Steering, origin: Origin) -> TlsEnd | None:
    """Steering's word; a fault of it leaves the tunnel unread, as most are."""
    try:
        return steering.ends_tls(origin)
    except Exception as error:  # noqa: BLE001  # logged
        internal(error, "a decision about a tunnel")
        return None


async def outcome(verdict: Verdict) -> Reply | Repeat | None:
    """What was decided.

    :raises PathError: steering says so, or failed.
    """
    try:
        return await verdict
    except PathError:
        raise
    except asyncio.CancelledError as error:
        task = asyncio.current_task()
        if task is None or task.cancelling():
            raise
        raise internal(error, _DECIDING) from error  # what it waited for was called off
    except Exception as error:
        raise internal(error, _DECIDING) from error
