"""The life of a key version: what it may do at a moment follows from the clock alone.

::

    created ------ activates ------------------ its successor activates ------ retires -- destroys
       |  pending      |          primary                  |    verify-only       | retired |
       |  verifies     |     signs and verifies            |      verifies        |         |

There is no coordinator. Everybody holds the same record, and reads in it which version signs now.
A version verifies as soon as it is published, since other clocks may be ahead; it signs once
everybody is sure to have read of it. When its successor signs, it verifies for as long as what it
signed may last.

In the terms of NIST SP 800-57 part 1, section 7: pending is pre-activation, primary is active,
verify-only is deactivated (it processes what was protected before), disabled is compromised.
From activation to the successor's is the originator-usage period, to retirement the
recipient-usage period.

All times are whole seconds since the epoch.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final, Self

from iam_auth_proxy.errors import Malformed
from iam_auth_proxy.protocol.keyring import KeyVersion

MATERIAL_BYTES: Final = 32
"""Of a version that is made here."""

MAX_TIME: Final = 1 << 37
"""In the year 6325, which every calendar has."""
MAX_LIVE: Final = 40
"""Versions that are accepted at a time, by the policy."""

_YEAR = 366 * 86_400
_MATERIAL = range(MATERIAL_BYTES, 1025)
_ID = re.compile(r"[0-9a-f]{1,64}", re.ASCII)
# A token that was sealed for a salt opens until the next salt ends: twice the 900 s of one.
_SALTS = 1800


class State(StrEnum):
    """What a version may do at a moment."""

    PENDING = "pending"
    PRIMARY = "primary"
    VERIFY_ONLY = "verify-only"
    RETIRED = "retired"
    DESTROYED = "destroyed"
    DISABLED = "disabled"


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """What times follow from; each in whole seconds.

    :param rotate_every: from one version's activation to the next one's.
    :param max_session: the longest that anything signed may last.
    :param poll: how often each reader looks for a new record.
    :param skew: by how much any two clocks may differ.
    :param read: how long it may take to read the store, or to write.
    :param outage: how long the store may be down, right after a rotation too, without anybody
        being refused.
    :raises Malformed: out of bounds, or they do not go together.
    """

    rotate_every: int = 30 * 86_400
    max_session: int = 12 * 3600
    poll: int = 30
    skew: int = 60
    read: int = 10
    outage: int = 3600

    def __post_init__(self) -> None:
        least = {"rotate_every": 1, "max_session": 1, "poll": 1, "skew": 0, "read": 0, "outage": 0}
        for name, smallest in least.items():
            if not smallest <= getattr(self, name) <= 10 * _YEAR:
                raise Malformed(f"the policy's {name} is out of bounds")
        if self.rotate_every <= self.propagation:
            raise Malformed(
                f"a version would be due before the one before it signs: rotate_every is "
                f"{self.rotate_every} s, and a version has to be known for {self.propagation} s"
            )
        if self.propagation + self.overlap > (MAX_LIVE - 2) * self.rotate_every:
            raise Malformed(
                f"too many versions would be live: each is for {self.propagation + self.overlap} s "
                f"longer than it signs, and a new one comes every {self.rotate_every} s"
            )

    @property
    def propagation(self) -> int:
        """From creation to activation: it is written, and then read by every reader."""
        return self.read + self.poll + self.read + self.skew + self.outage

    @property
    def overlap(self) -> int:
        """From the successor's activation to retirement: by then all that it signed is over."""
        return max(self.max_session, _SALTS) + self.skew


@dataclass(frozen=True, slots=True, kw_only=True)
class Version:
    """A key version as it is stored.

    :param id: follows from the material; names the version in public.
    :param material: None once it is destroyed or disabled.
    :param activates: when it begins to sign; None: it never does, since it was imported.
    :param retires: when it ceases to verify; None: not before it has a successor.
    :param destroys: from when a record is written without the material.
    :param disabled: when it was disabled; None: it was not.
    :raises Malformed: they are out of bounds, or do not go together.
    """

    id: str
    material: bytes | None = field(repr=False)
    created: int
    activates: int | None
    retires: int | None = None
    destroys: int | None = None
    disabled: int | None = None

    def __post_init__(self) -> None:
        if not _ID.fullmatch(self.id):
            raise Malformed("a key version's id is not 1 to 64 hexadecimal digits")
        for time in (self.created, self.activates, self.retires, self.destroys, self.disabled):
            if time is not None and not 0 <= time <= MAX_TIME:
                raise Malformed("a time of a key version is out of bounds")
        if self.activates is not None and self.activates < self.created:
            raise Malformed("a key version activates before it is created")
        self._check_material()
        self._check_end()

    def _check_material(self) -> None:
        if self.material is None:
            if self.retires is None and self.disabled is None:
                raise Malformed("a key version in use has no material")
            return
        if self.disabled is not None:
            raise Malformed("a disabled key version has its material still")
        if len(self.material) not in _MATERIAL:
            raise Malformed("a key version's material is too short or too long")
        if KeyVersion.of(self.material).id != self.id:
            raise Malformed("a key version's id is not that of its material")

    def _check_end(self) -> None:
        if (self.retires is None) != (self.destroys is None):
            raise Malformed("a key version has only one of retirement and destruction")
        if self.retires is None or self.destroys is None:
            if self.activates is None and self.disabled is None:
                raise Malformed("an imported key version never retires")
            return
        start = self.created if self.activates is None else self.activates
        if not start < self.retires <= self.destroys:
            raise Malformed("a key version's times are not in their order")

    @classmethod
    def made(cls, material: bytes, created: int, activates: int) -> Self:
        """A new version, which signs from ``activates`` on."""
        id = KeyVersion.of(material).id
        return cls(id=id, material=material, created=created, activates=activates)

    @property
    def key(self) -> KeyVersion:
        """What signs and verifies; of a version that has its material.

        An imported one is as it was before: made of a secret, nobody knows when.
        """
        assert self.material is not None
        created = 0 if self.activates is None else self.created
        return KeyVersion(self.id, self.material, created)

    def ends(self, now: float) -> bool:
        """Whether it has retired by ``now``."""
        return self.retires is not None and self.retires <= now

    def accepted(self, now: float) -> bool:
        """Whether it verifies at ``now``: pending, primary, or verify-only."""
        return self.material is not None and not self.ends(now)


def started(now: float) -> int:
    """The whole second that a time falls into."""
    return math.floor(now)


def over(now: float) -> int:
    """The first whole second that is not before a time."""
    return math.ceil(now)
