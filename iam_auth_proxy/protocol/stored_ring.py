"""The key ring as it is stored: every version with its times, the policy, and what changes them.

A change gives a new record, and a record is never changed in place: whoever stores it does so only
if nobody else stored one meanwhile. In any record, at any moment of anybody's clock, exactly one
version is primary, and it is neither retired nor disabled.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Final

from iam_auth_proxy.errors import Malformed, NoSuchKey
from iam_auth_proxy.protocol.keyring import KeyRing
from iam_auth_proxy.protocol.lifecycle import MAX_TIME, Policy, State, Version, over, started

MAX_VERSIONS: Final = 64
MAX_SALTS: Final = 8
KEPT: Final = 16
"""Versions without their material that a record still names."""
MAX_ADDED: Final = MAX_VERSIONS - KEPT - 1
"""Versions with their material, beyond which none is added: there is room to disable any."""

_SALT = re.compile(r"[\x20-\x7e]{1,1024}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Salt:
    """A fixed salt of legacy encryption contexts that is accepted until a time.

    :raises Malformed: it is not 1 to 1024 printable ASCII characters, or the time out of bounds.
    """

    salt: str
    until: int

    def __post_init__(self) -> None:
        if not _SALT.fullmatch(self.salt):
            raise Malformed("a salt is not 1 to 1024 printable ASCII characters")
        if not 0 <= self.until <= MAX_TIME:
            raise Malformed("a salt's time is out of bounds")


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredRing:
    """A record. ``versions`` are in the order in which they came.

    :raises Malformed: there is not exactly one primary at every moment, or too much of something.
    """

    policy: Policy
    versions: tuple[Version, ...]
    salts: tuple[Salt, ...] = ()

    def __post_init__(self) -> None:
        if not 0 < len(self.versions) <= MAX_VERSIONS or len(self.salts) > MAX_SALTS:
            raise Malformed("the key ring has no version, or too many versions or salts")
        if len({version.id for version in self.versions}) != len(self.versions):
            raise Malformed("the key ring has two versions of one id")
        if len({each.salt for each in self.salts}) != len(self.salts):
            raise Malformed("the key ring has one salt twice")
        self._check_chain()

    def _check_chain(self) -> None:
        signers = self.signers
        if len({version.activates for version in signers}) != len(signers):
            raise Malformed("two versions of the key ring activate at once")
        if not signers or signers[-1] is not self._chain[-1]:
            raise Malformed("the newest version of the key ring does not sign")
        ends = [version.retires is not None for version in signers]
        if ends != [True] * (len(signers) - 1) + [False]:
            raise Malformed("of the versions that sign, the newest alone has no retirement")

    @classmethod
    def begun(cls, policy: Policy, material: bytes, now: float) -> StoredRing:
        """A ring of one version, which signs at once: nobody has anything else."""
        first = Version.made(material, started(now), started(now))
        return cls(policy=policy, versions=(first,))

    # -- what holds at a moment --------------------------------------------------------------------

    @property
    def _chain(self) -> tuple[Version, ...]:
        """All versions that sign at some time, or would have, each before its successor."""
        found = (each for each in self.versions if each.activates is not None)
        return tuple(sorted(found, key=_activates))

    @property
    def signers(self) -> tuple[Version, ...]:
        """Those of them that have their material."""
        return tuple(each for each in self._chain if each.material is not None)

    def primary(self, now: float) -> Version:
        """The version that signs at ``now``: the newest that is active.

        Where that one is disabled, its successor signs early, by a clock that is behind; what came
        before it never signs again. Before any is active, by such a clock too, the first one signs.
        """
        chain = self._chain
        active = sum(_activates(each) <= now for each in chain)
        return next(each for each in chain[max(0, active - 1) :] if each.accepted(now))

    def at(self, now: float) -> KeyRing:
        """What holds at ``now``. A version that is pending is accepted, too."""
        primary = self.primary(now)
        others = [each for each in self.versions if each is not primary and each.accepted(now)]
        return KeyRing(
            primary=primary.key,
            also_accepted=tuple(each.key for each in others),
            salts=tuple(each.salt for each in self.salts if now < each.until),
        )

    def state(self, version: Version, now: float) -> State:
        """What one of its versions may do at ``now``."""
        if version.disabled is not None:
            return State.DISABLED
        if version.material is None:
            return State.DESTROYED
        if version.ends(now):
            return State.RETIRED
        if version == self.primary(now):
            return State.PRIMARY
        if version.activates is not None and version.activates > now:
            return State.PENDING
        return State.VERIFY_ONLY

    def pending(self, now: float) -> Version | None:
        """The version that signs next, if one is published already."""
        newest = self.signers[-1]
        return newest if self.state(newest, now) is State.PENDING else None

    @property
    def next_rotation(self) -> int:
        """When to publish the version after the newest, so that it activates when it should."""
        return _activates(self.signers[-1]) + self.policy.rotate_every - self.policy.propagation

    def due(self, now: float) -> bool:
        """Whether it is time to rotate."""
        return self.next_rotation <= now and self.pending(now) is None

    def get(self, id: str) -> Version:
        """The version of that id.

        :raises NoSuchKey: there is none.
        """
        for version in self.versions:
            if version.id == id:
                return version
        raise NoSuchKey(f"the key ring has no version {id!r}")

    # -- changes -----------------------------------------------------------------------------------

    def rotated(self, material: bytes, now: float) -> StoredRing:
        """With a new version, which signs once everybody has it. As it is, where one is pending.

        :param material: 32 random bytes.
        :raises Malformed: there are too many that are accepted.
        """
        if self.pending(now) is not None:
            return self
        before = self._with_room(now)
        old = before.signers[-1]
        # By a clock that is behind, the newest may not be active yet.
        activates = max(over(now), _activates(old)) + self.policy.propagation
        new = Version.made(material, started(now), activates)
        retires = _activates(new) + self.policy.overlap
        ended = replace(old, retires=retires, destroys=retires + self.policy.skew)
        return replace(before, versions=(*_with(before.versions, ended), new))

    def disabled(self, ids: Iterable[str], material: bytes, now: float) -> StoredRing:
        """Without those versions, from now on: what they signed is refused.

        If one of them was primary, the version that is pending signs at once, else a new one.

        :param material: 32 random bytes, for that one.
        :raises NoSuchKey: there is no such version, or it is gone already.
        """
        gone = [self.get(id) for id in ids]
        for version in gone:
            if version.material is None:
                raise NoSuchKey(
                    f"{version.id} is {self.state(version, now)} already",
                    public="This key version is gone already; nothing verifies with it.",
                )
        primary, pending = self.primary(now), self.pending(now)
        versions = self.versions
        for version in gone:
            # What never signed has no place among those that did.
            signed = version.activates if version is not pending else None
            without = replace(version, material=None, activates=signed, disabled=started(now))
            versions = _with(versions, without)
        if primary in gone:
            left = [each for each in self.signers if each not in gone and each is not pending]
            after = [_activates(primary), *(_activates(each) + 1 for each in left)]
            at = max(started(now), *after)
            if pending is None or pending in gone:
                versions = (*versions, Version.made(material, started(now), at))
            else:
                pulled = replace(pending, activates=max(at, pending.created))
                versions = _with(versions, pulled)
        return replace(self, versions=_newest_stays(versions)).tidied(now)

    def under(self, policy: Policy, now: float) -> StoredRing:
        """With another policy, which holds for what is signed from now on, too.

        What has a retirement and signs still gets a later one, if sessions may be longer now.
        """
        versions, primary, pending = self.versions, self.primary(now), self.pending(now)
        if pending is not None and primary.retires is not None and primary.destroys is not None:
            retires = max(primary.retires, _activates(pending) + policy.overlap)
            destroys = max(primary.destroys, retires + policy.skew)
            versions = _with(versions, replace(primary, retires=retires, destroys=destroys))
        return replace(self, policy=policy, versions=versions).tidied(now)

    def imported(self, material: bytes | None, salt: str, now: float, moving: int) -> StoredRing:
        """With today's values: they are accepted, and the secret never signs here.

        :param material: the secret, as UTF-8; None: there is none.
        :param salt: the fixed salt; empty: there is none.
        :param moving: seconds for which servers that still use them are about.
        :raises NoSuchKey: the secret was disabled here, or is destroyed.
        :raises Malformed: there are too many that are accepted, or too many salts.
        """
        until = started(now) + moving + self.policy.overlap
        before = self._with_room(now)
        versions, salts = before.versions, before.salts
        if material is not None:
            id = Version.made(material, 0, 0).id
            known = next((each for each in versions if each.id == id), None)
            if known is not None and known.material is None:
                raise NoSuchKey(
                    f"{id} is {self.state(known, now)}",
                    public="This secret was disabled or destroyed in the key ring before.",
                )
            if known is None or known.activates is None:
                fresh = Version(
                    id=id, material=material, created=started(now), activates=None,
                    retires=until, destroys=until + self.policy.skew,
                )  # fmt: skip
                versions = (*(each for each in versions if each.id != id), fresh)
        if salt:
            salts = (*(each for each in salts if each.salt != salt), Salt(salt, until))
        if len(salts) > MAX_SALTS:
            raise Malformed(
                f"the key ring has too many salts: {MAX_SALTS} at most",
                public="The key ring has no room for another salt.",
                remedy="Wait until one is over, see: iam-auth-proxy keyring list",
            )
        return replace(before, versions=versions, salts=salts)

    def _with_room(self, now: float) -> StoredRing:
        """Tidied, for one more.

        :raises Malformed: there is no room, even so.
        """
        tidied = self.tidied(now)
        if sum(each.material is not None for each in tidied.versions) >= MAX_ADDED:
            raise Malformed(
                f"the key ring has {MAX_ADDED} versions that are accepted, and no room for more",
                public="The key ring has no room for another version.",
                remedy="Wait until a version retires, or disable one: iam-auth-proxy keyring list",
            )
        return tidied

    def tidied(self, now: float) -> StoredRing:
        """Without the material that is to be destroyed by now, and without what nobody asks for."""
        versions = [
            replace(each, material=None)
            if each.destroys is not None and each.destroys <= now
            else each
            for each in self.versions
        ]
        empty = [each.id for each in versions if each.material is None]
        forgotten = set(empty[: max(0, len(empty) - KEPT)])
        return replace(
            self,
            versions=tuple(each for each in versions if each.id not in forgotten),
            salts=tuple(each for each in self.salts if each.until > now),
        )


class Timeline:
    """The rings of a record, made once: asking for one costs no more than finding it."""

    def __init__(self, stored: StoredRing) -> None:
        times = {each.until for each in stored.salts}
        for version in stored.versions:
            times |= {time for time in (version.activates, version.retires) if time is not None}
        self._times = sorted(times)
        # Nothing happens before the first of them.
        self._rings = [stored.at(time) for time in (self._times[0] - 1, *self._times)]

    def at(self, now: float) -> KeyRing:
        """See :meth:`StoredRing.at`."""
        return self._rings[bisect_right(self._times, now)]

    def next(self, now: float) -> float | None:
        """When the states of versions change next (epoch seconds); None: never."""
        number = bisect_right(self._times, now)
        return self._times[number] if number < len(self._times) else None


def _activates(version: Version) -> int:
    assert version.activates is not None
    return version.activates


def _with(versions: tuple[Version, ...], changed: Version) -> tuple[Version, ...]:
    """The versions, with one in place of that of the same id."""
    return tuple(changed if each.id == changed.id else each for each in versions)


def _newest_stays(versions: tuple[Version, ...]) -> tuple[Version, ...]:
    """The versions, of which the newest that signs has no retirement: its successor is gone."""
    signing = [each for each in versions if each.material and each.activates is not None]
    newest = max(signing, key=_activates)
    return _with(versions, replace(newest, retires=None, destroys=None))
