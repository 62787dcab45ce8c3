"""Which form a page takes, as the client's ``Accept`` asks for it: HTML, JSON or text.

Both ends have pages of their own, and read the field alike.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

HTML: Final = "text/html"
JSON: Final = "application/json"
TEXT: Final = "text/plain"

_WEIGHT = re.compile(r"0(?:\.[0-9]{0,3})?|1(?:\.0{0,3})?", re.ASCII)


def form(accept: str) -> str:
    """:data:`HTML`, :data:`JSON` or :data:`TEXT` (RFC 9110 section 12.5.1).

    The one of the greatest weight, as the most specific range has it that matches; of several, the
    one that is named itself, and named first. Text where the field leaves it open, or takes none of
    them. What is outside the grammar counts as not said.
    """
    found: dict[str, tuple[float, int]] = {}
    for place, item in enumerate(accept.split(",")):
        media, *parameters = (part.strip(" \t").lower() for part in item.split(";"))
        weight = _weight(parameters)
        if weight is not None:
            found.setdefault(media, (weight, -place))

    def rank(media: str) -> tuple[float, int, int]:
        ranges = (media, media.partition("/")[0] + "/*", "*/*")
        for breadth, name in enumerate(ranges):
            if name in found:
                weight, place = found[name]
                return weight, -breadth, place
        return 0.0, 0, 0

    best = max((TEXT, HTML, JSON), key=rank)
    return best if rank(best)[0] > 0 else TEXT


def _weight(parameters: Sequence[str]) -> float | None:
    """``q``, 1 where it is absent; None where it is no weight."""
    for parameter in parameters:
        name, _, value = parameter.partition("=")
        if name == "q":
            return float(value) if _WEIGHT.fullmatch(value) else None
    return 1.0
