"""Times and durations, as people type and read them."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Final

import click

from iam_auth_proxy import config
from iam_auth_proxy.errors import Malformed

_DAY: Final = 86_400


def seconds(ctx: click.Context, param: click.Parameter, text: str | None) -> int | None:
    """Whole seconds, of ``30d``, ``12h``, ``1d12h``."""
    if text is None:
        return None
    days, separator, rest = text.partition("d")
    if not separator:
        days, rest = "0", text
    try:
        if not (days.isascii() and days.isdigit() and len(days) < 6):
            raise Malformed("not a number of days")
        found = int(days) * _DAY + (config.parse_duration(rest) if rest or not separator else 0)
        if found != int(found):
            raise Malformed("not whole seconds")
    except Malformed as error:
        what = f"{text!r} is not a duration such as 30d, 12h or 1d12h, in whole seconds"
        raise click.BadParameter(what, ctx, param) from error
    return int(found)


def instant(time: float | None) -> str:
    """In UTC, to the second; empty where there is none."""
    return "" if time is None else f"{datetime.fromtimestamp(time, UTC):%Y-%m-%dT%H:%M:%SZ}"


def length(seconds: int) -> str:
    """In the largest unit that it is whole in."""
    for unit, size in (("days", _DAY), ("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * size and seconds % size == 0:
            return f"{seconds // size} {unit}"
    return f"{seconds} seconds"
