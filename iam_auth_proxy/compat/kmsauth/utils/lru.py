"""The original's cache, safe to use from any thread."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

from iam_auth_proxy.tokens.cache import Lru

__all__ = ["LRUCache"]


class LRUCache:
    """The values used last.

    :param capacity: how many; 0 holds nothing, and is no error as in the original.
    """

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self._values: Lru[Hashable, tuple[Any]] = Lru(capacity)

    def __contains__(self, key: Hashable) -> bool:
        return self._values.get(key) is not None

    def __getitem__(self, key: Hashable) -> Any:
        found = self._values.get(key)
        if found is None:
            raise KeyError(key)
        return found[0]

    def __setitem__(self, key: Hashable, value: Any) -> None:
        self._values.put(key, (value,))

    def __len__(self) -> int:
        return len(self._values)
