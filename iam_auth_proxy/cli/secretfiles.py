"""Secrets as files for a command that we run: in memory where the system can, and gone with us."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path


@contextlib.contextmanager
def secret_files(values: Sequence[bytes]) -> Iterator[list[str]]:
    """A path for each value, good until the end of the block.

    On Linux they are descriptors of this process to memory of its own (memfd_create): nothing is on
    a disk, the kernel lets our own user open them alone, and they are gone however we end.
    Elsewhere they are files that only our user may read, in a folder that is removed afterwards.
    """
    if hasattr(os, "memfd_create"):
        descriptors: list[int] = []
        try:
            for value in values:
                descriptors.append(_in_memory(value))
            yield [f"/proc/{os.getpid()}/fd/{each}" for each in descriptors]
        finally:
            for each in descriptors:
                os.close(each)
        return
    folder = Path(tempfile.mkdtemp(dir=os.environ.get("XDG_RUNTIME_DIR")))  # made 0700
    try:
        yield [str(_on_disk(folder / str(index), value)) for index, value in enumerate(values)]
    finally:
        shutil.rmtree(folder)


def _in_memory(value: bytes) -> int:
    descriptor = os.memfd_create("secret", os.MFD_CLOEXEC)
    os.fchmod(descriptor, 0o400)
    with os.fdopen(descriptor, "wb", closefd=False) as file:
        file.write(value)
    return descriptor


def _on_disk(path: Path, value: bytes) -> Path:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(value)
    return path
