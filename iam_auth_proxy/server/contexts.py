"""Encryption contexts: the one that a challenge names, and those that open a token."""

from __future__ import annotations

from collections.abc import Iterable

from iam_auth_proxy.protocol import salt as salting
from iam_auth_proxy.protocol.keyring import Rings
from iam_auth_proxy.protocol.nonce import Nonce
from iam_auth_proxy.server.settings import Settings


class Contexts:
    """The encryption contexts of challenges: with a fixed salt, or one that rotates by epochs.

    Apps that had a secret key may have given out challenges just before they got a ring. Their
    salts are accepted for as long as the ring accepts what was imported of them: a fixed one, or
    those derived from the imported version (``created`` is 0), which was all that they knew.
    """

    def __init__(self, settings: Settings, rings: Rings) -> None:
        self._fixed = settings.salt
        self._rings = rings

    def epoch(self, now: float) -> int:
        """The number of the epoch that ``now`` is in; 0 where the salt does not rotate."""
        return 0 if self._fixed else int(now // salting.PERIOD)

    def of(self, epoch: int) -> dict[str, str]:
        """What challenges of that epoch say."""
        return salting.context(self._fixed or self._salt(epoch))

    def of_nonce(self, nonce: Nonce, now: float) -> tuple[dict[str, str], ...]:
        """What a token with this nonce may be sealed with: one context, but after an import."""
        if self._fixed:
            salts: tuple[str, ...] = (self._fixed,)
        elif nonce.epoch == 0:  # of a server with a fixed salt
            salts = self._rings.at(now).salts
        elif nonce.key.created == 0:
            salts = (salting.salt_of(nonce.key, nonce.epoch), self._salt(nonce.epoch))
        else:
            salts = (self._salt(nonce.epoch),)
        return _contexts(salts)

    def open_now(self, now: float) -> tuple[dict[str, str], ...]:
        """What a token that says no epoch may be sealed with, the likelier first.

        This epoch's and the last one's; after an import what that server gave out besides.
        """
        if self._fixed:
            return (salting.context(self._fixed),)
        epoch, ring = self.epoch(now), self._rings.at(now)
        salts = [self._salt(epoch), *ring.salts]
        imported = [] if ring.salts else [each for each in ring.versions if each.created == 0]
        for each in (epoch, epoch - 1):
            salts += [self._salt(each), *(salting.salt_of(old, each) for old in imported)]
        return _contexts(salts)

    def _salt(self, epoch: int) -> str:
        """By the key that was primary when the epoch began: every worker knows that one."""
        return salting.salt_of(self._rings.at(epoch * salting.PERIOD).primary, epoch)


def _contexts(salts: Iterable[str]) -> tuple[dict[str, str], ...]:
    """One of each, in their order."""
    return tuple(salting.context(salt) for salt in dict.fromkeys(salts))
