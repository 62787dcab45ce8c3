"""A key ring in a secret store: read, and changed by compare-and-swap.

Whoever likes may change a ring, any worker or a cron job: of two who do so at once, one is first,
and the other reads again what is there now, and decides anew. So two who find a rotation due make
one between them.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from iam_auth_proxy.errors import (
    IamAuthError,
    Malformed,
    NoSuchKey,
    NoSuchSecret,
    RecordUnusable,
    VersionConflict,
)
from iam_auth_proxy.keys.secrets import SecretStore
from iam_auth_proxy.protocol.lifecycle import MATERIAL_BYTES, Policy
from iam_auth_proxy.protocol.ring_record import dumps, loads
from iam_auth_proxy.protocol.stored_ring import StoredRing

log = logging.getLogger(__name__)

_ATTEMPTS: Final = 8


@dataclass(frozen=True, slots=True)
class Stored:
    """A ring as it is stored.

    :ivar number: of its record; grows with every change.
    :ivar changed: whether this call changed it; if not, nothing was to be done.
    :ivar raced: whether somebody else changed it meanwhile, so that it was read again.
    """

    ring: StoredRing
    number: int
    changed: bool = False
    raced: bool = False


class RingStore:
    """The ring of that name. Safe to use from any thread; everything blocks.

    :param place: what people call it, for messages.

    Errors of every method besides its own: those of the store, and
    :class:`~iam_auth_proxy.errors.RecordUnusable` where what is stored there is no key ring.
    """

    def __init__(self, store: SecretStore, name: str, place: str = "") -> None:
        self.place = place or f"{store.place}/{name}"
        self._store = store
        self._name = name

    def latest(self) -> int:
        """The number of the newest record; 0: there is none. One cheap call, and none to KMS."""
        return self._store.latest(self._name)

    def load(self) -> Stored:
        """The newest record.

        :raises NoSuchSecret: there is none.
        """
        number = self.latest()
        for _ in range(_ATTEMPTS):
            try:
                return self._read(number)
            except NoSuchSecret as error:
                # Whoever wrote a newer one may have removed it.
                newest = self.latest()
                if newest == number:
                    raise self._missing() from error
                number = newest
        raise VersionConflict(f"{self.place}: others write all the time")

    def create(self, policy: Policy, now: float) -> Stored:
        """A new ring, whose first version signs at once.

        :raises VersionConflict: there is one already.
        """
        number = self.latest()
        if number:
            try:
                self._read(number)
            except NoSuchSecret:
                pass  # it was deleted
            else:
                raise self._there_already()
        ring = StoredRing.begun(policy, _material(), now)
        return self._put(ring, number, now)

    def rotate(self, now: float, *, if_due: bool = False) -> Stored:
        """Publish a version that signs once everybody has it; where one is pending, nothing.

        :param if_due: only if it is time.
        """

        def step(ring: StoredRing) -> StoredRing:
            return ring if if_due and not ring.due(now) else ring.rotated(_material(), now)

        return self._change(step, now)

    def disable(self, ids: Sequence[str], now: float) -> Stored:
        """Without those versions from now on; see :meth:`StoredRing.disabled`.

        :raises NoSuchKey: there is no such version, or it is gone already.
        """
        tried = False

        def step(ring: StoredRing) -> StoredRing:
            nonlocal tried
            there = {each.id for each in ring.versions if each.material is not None}
            left = [id for id in ids if id in there] if tried else ids
            tried = True
            return ring.disabled(left, _material(), now) if left else ring

        try:
            return self._change(step, now)
        except NoSuchKey as error:
            error.remedy = f"See them: iam-auth-proxy keyring list {self.place} --kms-key KEY"
            raise

    def change_policy(self, members: Mapping[str, int], now: float) -> Stored:
        """With other members of the policy; see :meth:`StoredRing.under`.

        :raises Malformed: they do not go together with the others.
        """
        return self._change(lambda ring: ring.under(replace(ring.policy, **members), now), now)

    def imported(self, material: bytes | None, salt: str, now: float, moving: int) -> Stored:
        """With values that were in use before; see :meth:`StoredRing.imported`.

        :raises NoSuchKey: the secret was disabled there.
        """
        return self._change(lambda ring: ring.imported(material, salt, now, moving), now)

    # -- steps -------------------------------------------------------------------------------------

    def _change(self, step: Callable[[StoredRing], StoredRing], now: float) -> Stored:
        """``step`` has to do nothing where what it does was done: it may be asked again."""
        overtaken = False
        for attempt in range(_ATTEMPTS):
            stored = self.load()
            ring = step(stored.ring)
            if ring == stored.ring:
                return Stored(ring, stored.number, changed=overtaken, raced=attempt > 0)
            try:
                written = self._put(ring, stored.number, now)
            except VersionConflict:
                continue
            newest = self.latest()
            if newest != written.number or any(each.material is None for each in ring.versions):
                self._forget(newest)
            if newest == written.number:
                return Stored(ring, newest, changed=True, raced=attempt > 0)
            # Another writer was faster: it either built on the version written here, or had written
            # and removed versions in between, so that this number was free again. In that case
            # this write is lost, and is tried again.
            overtaken = True
        raise VersionConflict(f"{self.place}: others wrote meanwhile, {_ATTEMPTS} times")

    def _put(self, ring: StoredRing, number: int, now: float) -> Stored:
        put = self._store.put(self._name, dumps(ring), now=now, if_version=number)
        return Stored(ring, put.version, changed=True)

    def _forget(self, number: int) -> None:
        """Earlier records hold what was destroyed since; one who was killed has left them."""
        try:
            self._store.forget(self._name, number)
        except IamAuthError as error:
            log.warning(
                "%s: the records before version %d hold key material that was destroyed, and "
                "cannot be removed: %s", self.place, number, error,
            )  # fmt: skip

    def _read(self, number: int) -> Stored:
        if number == 0:
            raise self._missing()
        value = self._store.get(self._name, number).value
        try:
            return Stored(loads(value), number)
        except Malformed as error:
            raise RecordUnusable(
                f"{self.place} version {number}: {error}",
                public="What is stored there is not a key ring that can be used.",
            ) from error

    def _missing(self) -> NoSuchSecret:
        return NoSuchSecret(
            f"there is no key ring {self.place}",
            public="There is no such key ring.",
            remedy=f"Make it: iam-auth-proxy keyring new {self.place} --kms-key KEY",
        )

    def _there_already(self) -> VersionConflict:
        return VersionConflict(
            f"there is a key ring {self.place}",
            public="There is a key ring of that name already.",
            remedy=f"See it: iam-auth-proxy keyring list {self.place} --kms-key KEY",
        )


def _material() -> bytes:
    return os.urandom(MATERIAL_BYTES)
