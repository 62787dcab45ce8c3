"""The secret store: versions of named secrets, each an object of its own that is written once.

``NAME/@00000003`` is the third version of NAME, and the newest one counts. A write creates the next
number where there is none yet, which is the compare-and-swap: of two writers one gets the number,
and a writer who is killed has written the whole version or none of it. Deleting writes a version
that says so.

Nothing is written that was not sealed, opened again with KMS, and found to be the same. Failures
raise. Where a name has no version, a record of lazycred under that name is read.
"""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import BinaryIO, Final, cast

from iam_auth_proxy.aws.base import Kms, ObjectStore
from iam_auth_proxy.errors import (
    NoSuchObject,
    NoSuchSecret,
    ObjectChanged,
    RecordUnusable,
    VersionConflict,
)
from iam_auth_proxy.keys.drafts import Draft, Progress, Record, reheaded, seal
from iam_auth_proxy.keys.lazystore import LazyRecords
from iam_auth_proxy.keys.listing import Listing
from iam_auth_proxy.keys.objects import (
    LAZYCRED,
    Version,
    begins_with,
    key_of,
    side_by_side,
    version_at,
    write,
)
from iam_auth_proxy.keys.wrapping import Wrapping
from iam_auth_proxy.protocol.envelope import DATA_KEY_BYTES
from iam_auth_proxy.protocol.record import (
    MAX_VERSION,
    Header,
    check_name,
    context_of,
)

_ATTEMPTS: Final = 8

Pieces = Callable[[], Iterator[bytes]]


def _silent(done: int) -> None:
    """The progress callback of a caller that wants none."""


@dataclass(frozen=True, slots=True)
class Secret:
    """A secret, opened. ``version`` is 0 for a record of lazycred."""

    name: str
    version: int
    value: bytes = field(repr=False)


class SecretStore(Listing):
    """Secrets in an object store. Safe to use from any thread.

    :param keys: KMS keys in any spelling: the first seals, and all of them may have sealed what is
        read.
    :param place: what the store is called in its records, such as ``s3://bucket/prefix``; a record
        opens in the store of that name alone.
    :raises ConfigError: there is no key, or one is none.

    Errors of every method besides its own: those of :class:`Listing`.
    """

    def __init__(self, objects: ObjectStore, kms: Kms, keys: Sequence[str], place: str) -> None:
        super().__init__(objects, place)
        self._wrapping = Wrapping(kms, keys)
        self._lazy = LazyRecords(objects, self._wrapping)

    # -- reading -----------------------------------------------------------------------------------

    def get(self, name: str, version: int | None = None) -> Secret:
        """The newest version, or the one asked for.

        :raises NoSuchSecret: there is none, or it is deleted.
        :raises RecordUnusable: it was changed, or does not belong there.
        :raises WrongKey: it is sealed under a key that is none of the store's.
        """
        with self._opened(name, version) as (facts, pieces):
            return Secret(name, facts.version, b"".join(pieces()))

    def copy(
        self,
        name: str,
        into: BinaryIO,
        version: int | None = None,
        progress: Progress = _silent,
    ) -> Version:
        """Write a value of any size into ``into``: nothing of it before all of it was opened.

        Errors as of :meth:`get`; those of ``into`` come through.
        """
        with self._opened(name, version) as (facts, pieces):
            for _ in pieces():
                pass
            done = 0
            for piece in pieces():
                into.write(piece)
                done += len(piece)
                progress(done)
            return facts

    def get_many(self, names: Iterable[str]) -> dict[str, Secret]:
        """The newest versions, read side by side. The first error ends it."""
        wanted = list(dict.fromkeys(names))
        return dict(zip(wanted, side_by_side(self.get, wanted), strict=True))

    # -- writing -----------------------------------------------------------------------------------

    def put(
        self,
        name: str,
        value: bytes | BinaryIO,
        *,
        now: float,
        if_version: int | None = None,
        progress: Progress = _silent,
    ) -> Version:
        """Write a new version.

        :param value: bytes, or a binary file that is read to its end.
        :param now: seconds since the epoch.
        :param if_version: the version that must be the newest one, 0 for none yet; without it the
            new version follows whatever there is.
        :raises VersionConflict: another one is.
        """
        source = _source(value)
        number = self._next(name, if_version)
        draft = self._seal(name, number, source, now, progress=progress)
        return self._create(draft, retry=if_version is None)

    def put_lazycred(self, name: str, value: bytes) -> Version:
        """Write a record that lazycred reads, over the one that is there.

        The format binds a record to no name, store or version: whoever may write to the store can
        put one secret in another's place.

        :raises VersionConflict: there are versions of ours, which come first; or somebody else
            wrote meanwhile.
        """
        if self.latest(name):
            raise VersionConflict(
                f"{name} has versions of the native format, which are read first",
                public="This secret is kept in the native format.",
                remedy="Put it without --format lazycred.",
            )
        return self._lazy.put(name, value)

    def delete(
        self, name: str, *, now: float, if_version: int | None = None, purge: bool = False
    ) -> Version:
        """Write a delete marker: the secret is gone, its earlier versions can still be read.

        :param purge: then remove those too. Numbers are never used again.
        :raises NoSuchSecret: there is none; with ``purge``, there never was.
        :raises VersionConflict: as of :meth:`put`.
        """
        number = self._next(name, if_version)
        marker = self._facts(name, number - 1) if number > 1 else self._lazy_facts(name)
        if marker is None or (marker.deleted and not purge):
            raise self._missing(name)
        if not marker.deleted:
            draft = self._seal(name, number, io.BytesIO(), now, deleted=True)
            marker = self._create(draft, retry=if_version is None)
        if purge:
            self._lazy.delete(name)
            for old in range(1, marker.version):
                self._objects.delete(key_of(name, old))
        return marker

    def forget(self, name: str, before: int) -> None:
        """Remove the versions before that one, which stays, so that no number is used again."""
        for key in self._objects.keys(f"{check_name(name)}/@"):
            found = version_at(key)
            if found is not None and found[1] < before:
                self._objects.delete(key)

    def rewrap(self, name: str, progress: Progress = _silent) -> Sequence[Version]:
        """Put every version under the store's first key; those that were not yet are returned.

        The values are opened, and stay sealed as they are: only what KMS wraps around their data
        keys is made anew.

        :param progress: told how many versions are done.
        :raises NoSuchSecret: there never was one.
        :raises VersionConflict: a version changed meanwhile.
        """
        changed = []
        for done, facts in enumerate(self.history(name), 1):
            lazy = facts.format == LAZYCRED
            fresh = self._lazy.rewrap(name) if lazy else self._rewrap(name, facts.version)
            if fresh is not None:
                changed.append(fresh)
            progress(done)
        return changed

    # -- steps -------------------------------------------------------------------------------------

    def _next(self, name: str, if_version: int | None) -> int:
        latest = self.latest(name)
        if if_version is not None and latest != if_version:
            raise VersionConflict(
                f"{name} is at version {latest}, not {if_version}",
                public="The secret is not at the version that was expected.",
            )
        if latest >= MAX_VERSION:
            raise VersionConflict(f"{name} has had all the versions there can be")
        return latest + 1

    def _seal(
        self,
        name: str,
        number: int,
        source: BinaryIO,
        now: float,
        *,
        deleted: bool = False,
        progress: Progress = _silent,
    ) -> Draft:
        data_key = os.urandom(DATA_KEY_BYTES)
        wrapped = self._wrapping.wrap(data_key, context_of(self.place, name, number))
        key, blob = wrapped.key_arn, wrapped.ciphertext
        header = Header(self.place, name, number, int(now), key, blob, deleted)
        return seal(source, header, data_key, progress)

    def _rewrapped(self, draft: Draft, number: int) -> Draft:
        """The same value under the first key, and as that version."""
        old = draft.header
        wrapped = self._wrapping.wrap(draft.data_key, context_of(old.store, old.name, number))
        header = replace(old, version=number, key=wrapped.key_arn, wrapped=wrapped.ciphertext)
        return reheaded(draft, header)

    def _create(self, draft: Draft, *, retry: bool) -> Version:
        """Write a new version; where another writer took the number, the next one."""
        name = draft.header.name
        for _ in range(_ATTEMPTS if retry else 1):
            with draft.body:
                key = key_of(name, draft.header.version)
                self._check(draft)
                try:
                    self._objects.create(key, draft.body)
                    return _written(draft)
                except ObjectChanged:
                    if begins_with(self._objects, key, draft.head):
                        return _written(draft)
                if retry:
                    draft = self._rewrapped(draft, self._next(name, None))
        draft.body.close()
        raise VersionConflict(f"{name}: others wrote meanwhile")

    def _rewrap(self, name: str, number: int) -> Version | None:
        key = key_of(name, number)
        stored = self._objects.read(key)
        with stored.body:
            record = self._known(stored.body, name, number)
            data_key = self._data_key(record)
            header, digest = record.head.header, record.digest(data_key)
            start = _first(stored.body, record.head.length)
            draft = Draft(header, start, data_key, stored.body, digest, record.size)
            fresh = self._rewrapped(draft, number)
        with fresh.body:
            if fresh.header.key == header.key:
                return None
            self._check(fresh)
            write(
                self._objects,
                key,
                fresh.head,
                lambda: self._objects.replace(key, fresh.body, stored.tag),
            )
        return _written(fresh)

    def _check(self, draft: Draft) -> None:
        """Open what is about to be written, with KMS, as any reader will.

        :raises RecordUnusable: it does not open to what was sealed.
        """
        record = Record(draft.body, draft.header.name)
        if record.digest(self._data_key(record)) != draft.digest:
            raise RecordUnusable(f"{draft.header.name}: what was sealed does not open to the same")
        draft.body.seek(0)

    @contextmanager
    def _opened(self, name: str, version: int | None) -> Iterator[tuple[Version, Pieces]]:
        """What a version is, and its value in pieces, from the start each time."""
        number = self.latest(name) if version is None else version
        try:
            if number == 0:
                value = self._lazy.get(name)
                facts = Version(name, 0, 0, len(value), "", format=LAZYCRED)
                yield facts, lambda: iter([value])
                return
            stored = self._objects.read(key_of(name, number))
        except NoSuchObject as error:
            raise self._missing(name, version) from error
        with stored.body:
            record = self._known(stored.body, name, number)
            data_key = self._data_key(record)
            header = record.head.check(data_key)
            if header.deleted:
                raise NoSuchSecret(
                    f"{name} is deleted since version {number}",
                    public="The secret was deleted.",
                    remedy=f"See its earlier versions: iam-auth-proxy secret history {name}",
                )
            facts = Version(name, number, header.created, record.size, header.key)
            yield facts, lambda: record.pieces(data_key)

    def _known(self, body: BinaryIO, name: str, number: int) -> Record:
        """A record that says it is this one.

        :raises RecordUnusable: it says that it is another, or is none.
        """
        place = f"{name} version {number} in {self.place}"
        record = Record(body, place)
        header = record.head.header
        if header.store != self.place:
            raise RecordUnusable(
                f"{place}: the record was sealed for the store {header.store}",
                remedy=f"Only if the store was moved: --store-name {header.store}",
            )
        if (header.name, header.version) != (name, number):
            raise RecordUnusable(f"{place}: it is {header.name} version {header.version}")
        return record

    def _data_key(self, record: Record) -> bytes:
        header = record.head.header
        data_key = self._wrapping.unwrap(header.wrapped, header.context, header.key).plaintext
        if len(data_key) != DATA_KEY_BYTES:
            raise RecordUnusable(f"{header.name}: its data key is of another size")
        return data_key


def _source(value: object) -> BinaryIO:
    if isinstance(value, bytes | bytearray | memoryview):
        return io.BytesIO(value)
    if not hasattr(value, "read"):
        raise TypeError(f"a secret is bytes or a binary file, not {type(value).__name__}")
    return cast(BinaryIO, value)


def _first(body: BinaryIO, length: int) -> bytes:
    body.seek(0)
    return body.read(length)


def _written(draft: Draft) -> Version:
    header = draft.header
    return Version(
        header.name, header.version, header.created, draft.size, header.key, header.deleted
    )
