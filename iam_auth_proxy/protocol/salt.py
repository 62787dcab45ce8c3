"""The salt in the legacy encryption context, which rotates by the clock.

Every worker that knows the secret computes the same salts, so they are in step without talking to
each other, and nothing is stored. A token sealed with a salt opens until the next one ends.
"""

from __future__ import annotations

from iam_auth_proxy.protocol.keyring import KeyRing, derive
from iam_auth_proxy.protocol.strict import encode_base64


def salts(ring: KeyRing, now: float, period: int) -> tuple[str, str]:
    """The salt of the epoch that ``now`` is in, and the one before it.

    :param now: seconds since the epoch.
    :param period: how long an epoch is, seconds; at least 1.
    :return: two different texts of 32 characters of base64url.
    """
    epoch = int(now // period)
    return _salt(ring, period, epoch), _salt(ring, period, epoch - 1)


def context(salt: str) -> dict[str, str]:
    """The legacy encryption context."""
    return {"salt": salt}


def _salt(ring: KeyRing, period: int, epoch: int) -> str:
    secret = derive(f"legacy salt {period} {epoch}", ring.primary)
    return encode_base64(secret[:24], urlsafe=True)
