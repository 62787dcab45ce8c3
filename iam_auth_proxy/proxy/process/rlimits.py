"""What this process may have of the system: no core, which would hold credentials, and descriptors.

A command that we run gets the limits that it would have had without us.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

log = logging.getLogger(__name__)

_DESCRIPTORS: Final = 65_536


@dataclass(frozen=True, slots=True)
class Before:
    """The soft limits that the process was started with, by resource."""

    soft: Mapping[int, int]

    @contextmanager
    def restored(self) -> Iterator[None]:
        """Only while a child is started, which inherits them; then our own again."""
        ours = {which: _soft(which) for which in self.soft}
        try:
            for which, soft in self.soft.items():
                _set(which, soft)
            yield
        finally:
            for which, soft in ours.items():
                _set(which, soft)


UNCHANGED: Final = Before({})


def set_own() -> Before:
    """An exchange takes two descriptors; the usual soft limit of 1,024 would end at 500. And a core
    would hold credentials.

    :return: what a child is to have.
    """
    try:
        import resource
    except ImportError:  # Windows has no such limits
        return UNCHANGED
    kinds = (resource.RLIMIT_CORE, resource.RLIMIT_NOFILE)
    before = Before({which: _soft(which) for which in kinds})
    _set(resource.RLIMIT_CORE, 0)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _DESCRIPTORS if hard == resource.RLIM_INFINITY else min(hard, _DESCRIPTORS)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        _set(resource.RLIMIT_NOFILE, wanted)
    return before


def _soft(which: int) -> int:
    import resource

    return resource.getrlimit(which)[0]


def _set(which: int, soft: int) -> None:
    import resource

    hard = resource.getrlimit(which)[1]
    try:
        resource.setrlimit(which, (soft, hard))
    except (OSError, ValueError) as error:  # a sandbox, or a kernel with a lower limit
        extra = {"limit": which, "wanted": soft, "error": str(error)}
        log.warning("a limit of this process stays as it is", extra=extra)
