"""Cache-Control of an answer (RFC 9111 section 5.2): what it says, and what it has to say where the
answer carries a session. Both ends of the wire add cookies to an app's answers.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

_DIRECTIVE = re.compile(
    r"[ \t]*+(?:(?P<name>[!#$%&'*+.^_`|~0-9A-Za-z-]+)"
    r'(?:=(?:(?P<token>[!#$%&\'*+.^_`|~0-9A-Za-z-]+)|"(?P<quoted>(?:[^"\\]|\\.)*)"))?)?'
    r"[ \t]*+(?:,|\Z)",
    re.ASCII,
)


@dataclass(frozen=True, slots=True)
class Directive:
    """One of them.

    :ivar name: lower case.
    :ivar argument: without quotes; None where there is none.
    :ivar text: as it came.
    """

    name: str
    argument: str | None
    text: str


def parse(values: Iterable[str]) -> tuple[Directive, ...] | None:
    """The directives of all Cache-Control fields; None where they are outside the grammar."""
    text = ",".join(values)
    found, place = list[Directive](), 0
    while place < len(text):
        match = _DIRECTIVE.match(text, place)
        if match is None:
            return None
        if match["name"]:
            argument = match["quoted"] if match["token"] is None else match["token"]
            said = text[place : match.end()].rstrip(", \t").lstrip(" \t")
            found.append(Directive(match["name"].lower(), argument, said))
        place = match.end()
    return tuple(found)


def keeps_private(directives: Iterable[Directive]) -> bool:
    """Whether no shared cache may store the answer: ``private`` or ``no-store``, unqualified.

    ``private="x-foo"`` is about that field alone, and a cache that knows ``must-understand`` reads
    over the ``no-store`` beside it (section 5.2.2.3).
    """
    bare = {each.name for each in directives if each.argument is None}
    return "private" in bare or ("no-store" in bare and "must-understand" not in bare)


def made_private(values: Sequence[str]) -> str:
    """What Cache-Control has to say, so that no shared cache stores the answer.

    It is said in one field, with what the app says besides. What caches may read in several ways is
    replaced as a whole.
    """
    directives = parse(values)
    if directives is None:
        return "no-store"
    kept = [
        each
        for each in directives
        if each.name not in ("public", "s-maxage")
        and not (each.name == "private" and each.argument is not None)
    ]
    said = [each.text for each in kept]
    return ", ".join(said if keeps_private(kept) else ["private", *said])
