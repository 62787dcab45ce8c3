"""The salt in the legacy encryption context, which rotates by the clock.

Every worker that knows the key computes the same salts, so they are in step without talking to
each other, and nothing is stored. A token sealed with a salt opens until the next one ends.

Where keys rotate, the salt of an epoch comes from the version that was primary when the epoch
began: by then every worker has known that version for long.
"""

from __future__ import annotations

from typing import Final

from iam_auth_proxy.protocol.keyring import KeyVersion, derive
from iam_auth_proxy.protocol.strict import encode_base64

PERIOD: Final = 900
"""Seconds that a salt is given out; a token sealed with it opens for as long again after that."""


def salt_of(version: KeyVersion, epoch: int, period: int = PERIOD) -> str:
    """The salt of one epoch, which is ``period`` seconds long: 32 characters of base64url."""
    secret = derive(f"legacy salt {period} {epoch}", version)
    return encode_base64(secret[:24], urlsafe=True)


def context(salt: str) -> dict[str, str]:
    """The legacy encryption context."""
    return {"salt": salt}
