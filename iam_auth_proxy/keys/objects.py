"""Under which keys secrets lie in an object store, and writes that tell whether they took place."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final, TypeVar

from iam_auth_proxy.aws.base import ObjectStore
from iam_auth_proxy.errors import NoSuchObject, ObjectChanged, VersionConflict
from iam_auth_proxy.protocol.record import check_name

T = TypeVar("T")
R = TypeVar("R")

NATIVE: Final = "iam-auth-secret"
LAZYCRED: Final = "lazycred"

_AT_ONCE: Final = 8
# No name of a secret has an "@": a version is never another secret.
_VERSION = re.compile(r"(?P<name>[^@]+)/@(?P<number>[0-9]{8})", re.ASCII)


@dataclass(frozen=True, slots=True)
class Version:
    """What is known of a version without opening it; only what was opened is known for sure.

    :ivar version: counts from 1; 0 for a record of lazycred, which has none.
    :ivar created: seconds since the epoch; 0 for lazycred, whose records do not say.
    :ivar size: bytes of the value.
    :ivar key: ARN of the KMS key around it; empty for lazycred.
    """

    name: str
    version: int
    created: int
    size: int
    key: str
    deleted: bool = False
    format: str = NATIVE


def key_of(name: str, number: int) -> str:
    """Where a version lies: ``NAME/@00000003``."""
    return f"{check_name(name)}/@{number:08d}"


def version_at(key: str) -> tuple[str, int] | None:
    """The name and number of the version that lies there; None: something else does."""
    match = _VERSION.fullmatch(key)
    return (match["name"], int(match["number"])) if match else None


def begins_with(objects: ObjectStore, key: str, start: bytes) -> bool:
    """Whether the object is there and begins so. No two records begin alike."""
    try:
        stored = objects.read(key, len(start))
    except NoSuchObject:
        return False
    with stored.body:
        return stored.body.read() == start


def write(objects: ObjectStore, key: str, start: bytes, call: Callable[[], None]) -> None:
    """Do a conditional write. That it was done already, and its answer lost, is no conflict.

    :param start: how the object begins.
    :raises VersionConflict: another one is there.
    """
    try:
        call()
    except ObjectChanged as error:
        if not begins_with(objects, key, start):
            raise VersionConflict(f"{key}: somebody else's is there") from error


def side_by_side(call: Callable[[T], R], items: Iterable[T]) -> list[R]:
    """``call`` of each, several at once; the first error ends it."""
    wanted = list(items)
    if len(wanted) < 2:
        return [call(each) for each in wanted]
    with ThreadPoolExecutor(min(_AT_ONCE, len(wanted))) as pool:
        futures = [pool.submit(call, each) for each in wanted]
        try:
            return [each.result() for each in futures]
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
