"""lazycred's records in an object store: one object a name, overwritten."""

from __future__ import annotations

import io
from dataclasses import dataclass, field

from iam_auth_proxy.aws.base import ObjectStore
from iam_auth_proxy.errors import NoSuchObject, RecordUnusable
from iam_auth_proxy.keys import lazycred
from iam_auth_proxy.keys.objects import LAZYCRED, Version, write
from iam_auth_proxy.keys.wrapping import Wrapping, same_key
from iam_auth_proxy.protocol.record import MAX_HEAD, check_name


@dataclass(frozen=True, slots=True)
class LazyRecords:
    """The records that lazycred keeps in a store, read and written as it does: under ``NAME``."""

    objects: ObjectStore = field(repr=False)
    wrapping: Wrapping = field(repr=False)

    def get(self, name: str) -> bytes:
        """A value.

        :raises NoSuchObject: nothing is stored there.
        :raises RecordUnusable: it is no record, was changed, or is under another KMS key.
        """
        stored = self.objects.read(check_name(name))
        with stored.body:
            return self._open(stored.body.read(), name)

    def put(self, name: str, value: bytes) -> Version:
        """Write a record over the one that is there, if any.

        :raises VersionConflict: somebody else wrote meanwhile.
        """
        key = lazycred.new_key()
        record = lazycred.dumps(lazycred.seal(value, key), self.wrapping.wrap(key, {}).ciphertext)
        if self._open(record, name) != value:
            raise RecordUnusable(f"{name}: what was sealed does not open to the same")
        body = io.BytesIO(record)
        try:
            stored = self.objects.read(check_name(name))
        except NoSuchObject:
            write(self.objects, name, record, lambda: self.objects.create(name, body))
        else:
            stored.body.close()
            write(self.objects, name, record, lambda: self.objects.replace(name, body, stored.tag))
        return Version(name, 0, 0, len(value), "", format=LAZYCRED)

    def delete(self, name: str) -> None:
        """Remove a record; anything else that lies there stays."""
        if facts(self.objects, name) is not None:
            self.objects.delete(name)

    def rewrap(self, name: str) -> Version | None:
        """Put a record under the first KMS key; None: it is already.

        :raises VersionConflict: somebody else wrote meanwhile.
        """
        stored = self.objects.read(check_name(name))
        with stored.body:
            token, wrapped = lazycred.loads(stored.body.read(), name)
        opened = self.wrapping.unwrap(wrapped, {})
        size = len(lazycred.unseal(token, opened.plaintext, name))
        fresh = self.wrapping.wrap(opened.plaintext, {})
        if same_key(fresh.key_arn, opened.key_arn):
            return None
        record = lazycred.dumps(token, fresh.ciphertext)
        self._open(record, name)
        body = io.BytesIO(record)
        write(self.objects, name, record, lambda: self.objects.replace(name, body, stored.tag))
        return Version(name, 0, 0, size, fresh.key_arn, format=LAZYCRED)

    def _open(self, record: bytes, name: str) -> bytes:
        token, wrapped = lazycred.loads(record, name)
        return lazycred.unseal(token, self.wrapping.unwrap(wrapped, {}).plaintext, name)


def facts(objects: ObjectStore, name: str) -> Version | None:
    """Of an object that looks like a record; None: it is something else, or not there."""
    try:
        stored = objects.read(name, MAX_HEAD)
    except NoSuchObject:
        return None
    with stored.body:
        if not lazycred.looks_like(stored.body.read()):
            return None
    return Version(name, 0, 0, lazycred.value_size(stored.size), "", format=LAZYCRED)
