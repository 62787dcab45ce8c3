"""The types of keys, and of the callables that give them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

StrOrBytes: TypeAlias = str | bytes
StrOrBytesPair: TypeAlias = tuple[StrOrBytes, StrOrBytes]
KeysStore: TypeAlias = Callable[[], Any]
"""Without arguments; gives :data:`StrOrBytes`, or the forward and the back path's."""
