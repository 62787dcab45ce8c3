"""What a store of secrets holds, as the records say of themselves. Opens nothing: no key is needed.

The names and numbers of the versions are the store's; the rest is the head of each record, which
KMS has not vouched for.
"""

from __future__ import annotations

from typing import Final

from iam_auth_proxy.aws.base import ObjectStore
from iam_auth_proxy.errors import Malformed, NoSuchObject, NoSuchSecret, RecordUnusable
from iam_auth_proxy.keys import lazystore
from iam_auth_proxy.keys.objects import Version, key_of, side_by_side, version_at
from iam_auth_proxy.protocol.record import MAX_HEAD, check_name, loads_head, value_size


class Listing:
    """The secrets in an object store, unopened. Safe to use from any thread.

    :param place: what the store is called.

    Errors of every method besides its own: those of ``aws.base`` (AWS said no, or did not answer;
    a folder failed), and :class:`~iam_auth_proxy.errors.Malformed` for what is no name of a secret.
    """

    def __init__(self, objects: ObjectStore, place: str) -> None:
        self.place: Final = place
        self._objects: Final = objects

    def latest(self, name: str) -> int:
        """The number of the newest version, delete markers included; 0: there is none.

        One call to the store, and none to KMS.
        """
        found = map(version_at, self._objects.keys(f"{check_name(name)}/@"))
        return max((each[1] for each in found if each), default=0)

    def history(self, name: str) -> list[Version]:
        """Every version of a secret that is kept, the oldest first. Opens nothing.

        :raises NoSuchSecret: there never was one.
        """
        numbers = range(1, self.latest(name) + 1)
        found = side_by_side(lambda number: self._facts(name, number), numbers)
        history = [each for each in [self._lazy_facts(name), *found] if each is not None]
        if not history:
            raise self._missing(name)
        return history

    def list(self) -> list[Version]:
        """The newest version of each secret that is not deleted, by name. Opens nothing."""
        versions: dict[str, int] = {}
        others = []
        for key in self._objects.keys(""):
            found = version_at(key)
            if found is None:
                others.append(key)
            else:
                versions[found[0]] = max(versions.get(found[0], 0), found[1])
        newest = side_by_side(lambda each: self._facts(*each), versions.items())
        lazy = side_by_side(self._lazy_facts, [key for key in others if key not in versions])
        kept = [each for each in newest + lazy if each is not None and not each.deleted]
        return sorted(kept, key=lambda each: each.name)

    def _facts(self, name: str, number: int) -> Version | None:
        """What a record says of itself; None: it was purged."""
        try:
            stored = self._objects.read(key_of(name, number), MAX_HEAD)
        except NoSuchObject:
            return None
        with stored.body:
            start = stored.body.read()
        try:
            head = loads_head(start)
            size = value_size(stored.size - head.length)
        except Malformed as error:
            raise RecordUnusable(f"{name} version {number}: {error}") from error
        header = head.header
        return Version(name, number, header.created, size, header.key, header.deleted)

    def _lazy_facts(self, name: str) -> Version | None:
        """What lazycred's record of that name is; None: there is none."""
        return lazystore.facts(self._objects, name)

    def _missing(self, name: str, version: int | None = None) -> NoSuchSecret:
        what = name if version is None else f"version {version} of {name}"
        return NoSuchSecret(
            f"there is no {what} in {self.place}",
            remedy="See which there are: iam-auth-proxy secret list",
        )
