"""How many descriptors this process may have, and how many connections that makes.

A connection too many is answered with 503; a descriptor too many fails somewhere in the middle.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from iam_auth_proxy.relay.limits import Limits

PLENTY: Final = 65_536
RESERVED: Final = 164
"""For what is no exchange: clients that are turned away, listeners, AWS, files."""
_EACH: Final = 3
"""A client, its connection to an app or its tunnel, and one that is kept for the next."""
_FEWEST: Final = 16


def available() -> int:
    """The soft limit of now."""
    try:
        import resource
    except ImportError:
        return PLENTY
    soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return PLENTY if soft == resource.RLIM_INFINITY else soft


def fitting(limits: Limits, descriptors: int) -> Limits:
    """The same, with no more connections than there are descriptors for."""
    most = max(_FEWEST, (descriptors - RESERVED) // _EACH)
    return replace(
        limits, clients=min(limits.clients, most), connections=min(limits.connections, most)
    )
