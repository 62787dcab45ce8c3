"""How much is measured, and where progress goes."""

from __future__ import annotations

import sys
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Settings:
    """Numbers of the whole run.

    :ivar alternations: rounds in which everybody is measured once, side by side.
    :ivar seconds: of load for each of them in a round.
    :ivar downloads: of 256 MiB, for each sample.
    """

    alternations: int = 5
    seconds: int = 3
    downloads: int = 3


QUICK = Settings(alternations=1, seconds=1, downloads=1)


def say(text: str) -> None:
    """A line of progress; the table has stdout for itself."""
    print(f"bench: {text}", file=sys.stderr, flush=True)
