"""Modules are loaded without a search for garbage among them."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def loading() -> Iterator[None]:
    """What is imported in here stays until the process ends.

    To look through it again and again takes a tenth of the time of a start. Afterwards, too, it is
    not looked through: each full search would stop all exchanges for as long.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        if enabled:
            gc.enable()
