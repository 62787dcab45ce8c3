"""A record on its way: sealed into a spool before it is written, opened from one after it was read.

Nothing here asks KMS: the data key comes and goes as an argument. On disk there is ciphertext only.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import BinaryIO, Final

from iam_auth_proxy.errors import Malformed, RecordUnusable
from iam_auth_proxy.files import no_room, spool
from iam_auth_proxy.protocol.record import (
    FRAME,
    MAX_HEAD,
    SEALED_FRAME,
    Frames,
    Head,
    Header,
    dumps_head,
    loads_head,
    value_size,
)

Progress = Callable[[int], None]
"""Told how many bytes of the value are done."""

_CHUNK: Final = 1 << 20


@dataclass(slots=True)
class Draft:
    """A sealed record that is not written yet.

    :ivar body: head and frames. ``digest``: SHA-256 of the value.
    """

    header: Header
    head: bytes
    data_key: bytes = field(repr=False)
    body: BinaryIO = field(repr=False)
    digest: bytes = field(repr=False)
    size: int


def seal(source: BinaryIO, header: Header, data_key: bytes, progress: Progress) -> Draft:
    """The rest of ``source`` as a record with this head.

    :raises StoreUnavailable: there is no room for it.
    """
    head, body = dumps_head(header, data_key), spool()
    frames, digest, size = Frames(data_key), hashlib.sha256(), 0
    try:
        _write(body, head)
        piece = _whole(source)
        while True:
            following = _whole(source) if len(piece) == FRAME else b""
            digest.update(piece)
            size += len(piece)
            _write(body, frames.seal(piece, last=not following))
            progress(size)
            if not following:
                return Draft(header, head, data_key, body, digest.digest(), size)
            piece = following
    except BaseException:
        body.close()
        raise


def reheaded(draft: Draft, header: Header) -> Draft:
    """The same frames under another head: another version, or another KMS key around their key."""
    head, body = dumps_head(header, draft.data_key), spool()
    try:
        draft.body.seek(len(draft.head))
        _write(body, head)
        try:
            shutil.copyfileobj(draft.body, body, _CHUNK)
        except OSError as error:
            raise no_room(error) from error
    except BaseException:
        body.close()
        raise
    return Draft(header, head, draft.data_key, body, draft.digest, draft.size)


class Record:
    """A record that was read, and is not to be believed yet. Closes its body.

    :param body: head and frames, as stored.
    :raises RecordUnusable: it is none.
    """

    def __init__(self, body: BinaryIO, place: str) -> None:
        self.body = body
        try:
            body.seek(0)
            self.head: Head = loads_head(body.read(MAX_HEAD))
            self.size = value_size(body.seek(0, 2) - self.head.length)
        except Malformed as error:
            raise RecordUnusable(f"{place}: {error}") from error

    def pieces(self, data_key: bytes) -> Iterator[bytes]:
        """The value, each piece authenticated; the last one comes only if nothing is missing.

        :raises RecordUnusable: head or frames were changed, cut or reordered.
        """
        self.head.check(data_key)
        frames = Frames(data_key)
        left = self.body.seek(0, 2) - self.head.length
        self.body.seek(self.head.length)
        while left > 0:
            frame = self.body.read(min(left, SEALED_FRAME))
            left -= len(frame)
            yield frames.open(frame, last=left == 0)

    def digest(self, data_key: bytes) -> bytes:
        """SHA-256 of the value, all of it opened."""
        digest = hashlib.sha256()
        for piece in self.pieces(data_key):
            digest.update(piece)
        return digest.digest()


def _whole(source: BinaryIO) -> bytes:
    """The next 64 KiB, or what is left: a pipe gives less at a time."""
    parts, missing = [], FRAME
    while missing:
        part = source.read(missing)
        if not part:
            break
        parts.append(part)
        missing -= len(part)
    return b"".join(parts)


def _write(body: BinaryIO, data: bytes) -> None:
    try:
        body.write(data)
    except OSError as error:
        raise no_room(error) from error
