"""The codes of a virtual MFA device (RFC 6238 with SHA-1, 30 seconds, 6 digits)."""

from __future__ import annotations

import hashlib
import hmac
from typing import Final

STEP: Final = 30
"""Seconds for which one code stands."""


def code_at(seed: bytes, now: float) -> str:
    """The code that a device with this seed shows at ``now`` (seconds since the epoch)."""
    return _code(seed, int(now // STEP))


def matching_step(seed: bytes, code: str, now: float, after: int) -> int | None:
    """The step whose code this is: the present one or a neighbour, later than step ``after``."""
    present = int(now // STEP)
    for step in (present, present - 1, present + 1):
        if step > after and hmac.compare_digest(_code(seed, step), code):
            return step
    return None


def _code(seed: bytes, step: int) -> str:
    digest = hmac.digest(seed, step.to_bytes(8, "big"), hashlib.sha1)
    offset = digest[-1] & 0x0F
    number = int.from_bytes(digest[offset : offset + 4], "big") & 0x7FFFFFFF
    return f"{number % 1_000_000:06d}"
