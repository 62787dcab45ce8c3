"""The public way to a key ring: opened by its name, with boto3. Imported when it is needed.

``ringstore`` reads, changes and rotates a ring, ``live`` keeps it fresh in a running server.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence

from iam_auth_proxy.errors import ConfigError, Malformed, Problem
from iam_auth_proxy.keys.build import Place, open_store, parse_place
from iam_auth_proxy.keys.live import LiveRings, WatchedRings
from iam_auth_proxy.keys.ringstore import RingStore, Stored
from iam_auth_proxy.keys.wrapping import check_keys
from iam_auth_proxy.protocol.record import check_name

__all__ = [
    "LiveRings",
    "RingStore",
    "Stored",
    "WatchedRings",
    "open_ring",
    "open_rings",
    "parse_ring_place",
]


def parse_ring_place(text: str) -> tuple[Place, str]:
    """Where it is, and its name there: ``s3://BUCKET/PREFIX/NAME`` or ``file:/FOLDER/NAME``.

    :raises ConfigError: none of them.
    """
    above, slash, name = text.rpartition("/")
    other = "://" in above and not above.startswith("s3://")
    if not slash or above in {"", "s3:", "file:"} or above.endswith("/") or other:
        problem = "a key ring is s3://BUCKET/PREFIX/NAME, or file:/FOLDER/NAME"
        raise ConfigError([Problem(text, problem)])
    try:
        check_name(name)
        return parse_place(above), name
    except Malformed as error:
        raise ConfigError([Problem(text, str(error))]) from error
    except ConfigError as error:  # of the place above, which nobody typed
        raise ConfigError([Problem(text, each.text) for each in error.problems]) from error


def open_ring(
    text: str,
    keys: Sequence[str],
    *,
    profile: str = "",
    region: str = "",
    name: str = "",
    environ: Mapping[str, str] = os.environ,
) -> RingStore:
    """The ring of that place, with the credentials that boto3 finds. Asks AWS nothing yet.

    :param name: what the store is called in its records, where it was moved.
    :raises ConfigError: it is no place of a ring, there is no key, or the folder is not to be used.
    :raises LoginNeeded: the profile does not exist, or its files cannot be read.
    """
    place, ring = parse_ring_place(text)
    store = open_store(place, keys, profile=profile, region=region, name=name, environ=environ)
    return RingStore(store, ring, text)


def open_rings(
    text: str,
    keys: Sequence[str],
    *,
    profile: str = "",
    region: str = "",
    poll: float | None = None,
    auto_rotate: bool = False,
    environ: Mapping[str, str] = os.environ,
    clock: Callable[[], float] = time.time,
) -> WatchedRings:
    """The same, watched. Nothing is opened before the first use in a process.

    :raises ConfigError: it is no place of a ring, or there is no key.
    """
    parse_ring_place(text)
    check_keys(keys)

    def open_() -> RingStore:
        return open_ring(text, keys, profile=profile, region=region, environ=environ)

    return WatchedRings(open_, text, poll=poll, clock=clock, auto_rotate=auto_rotate)
