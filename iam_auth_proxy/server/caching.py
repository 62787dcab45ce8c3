"""Which answers of the app a renewed session cookie goes along with. Pure.

A shared cache that stores an answer with a cookie hands the session to others: what Set-Cookie says
does not prevent it (RFC 9111 section 3), and neither does ``no-cache``, after which the cache asks
whether its copy is good, hears 304, and gives the copy out.
"""

from __future__ import annotations

from calendar import timegm
from collections.abc import Iterable, Sequence
from email.utils import parsedate_tz
from typing import Final

from iam_auth_proxy.protocol import caching
from iam_auth_proxy.protocol.caching import Directive

# Fields that caches of one kind follow in place of Cache-Control: RFC 9213, and before it.
_TARGETED: Final = ("cdn-cache-control", "surrogate-control", "edge-control")


def with_cookies(
    headers: Iterable[tuple[str, str]], cookies: Sequence[str], now: float
) -> list[tuple[str, str]]:
    """The fields of the app's answer, with the cookies where they may go along.

    They do as it is where no shared cache may store the answer; not at all where the app wants it
    stored, or what it says can be read in several ways: there will be another answer. On all
    others, which are most, it is made private.
    """
    headers = list(headers)
    if not cookies or _is_shared(headers, now):
        return headers
    said = _all(headers, "cache-control")
    directives = caching.parse(said)
    if directives is None or not caching.keeps_private(directives):
        headers = [field for field in headers if field[0].lower() != "cache-control"]
        headers.append(("Cache-Control", caching.made_private(said)))
    return [*headers, *(("Set-Cookie", cookie) for cookie in cookies)]


def _is_shared(headers: Sequence[tuple[str, str]], now: float) -> bool:
    """Whether the app wants a shared cache to store the answer, or a cache may think so."""
    directives = caching.parse(_all(headers, "cache-control"))
    if directives is None or any(map(_shares, directives)):
        return True
    if any(_targets(name, value) for name, value in headers):
        return True
    if caching.keeps_private(directives):
        return False
    return any(map(_lasts, directives)) or any(
        _is_future(value, now) for value in _all(headers, "expires")
    )


def _shares(directive: Directive) -> bool:
    if directive.name == "private":
        return directive.argument is not None
    return directive.name in ("public", "s-maxage")


def _lasts(directive: Directive) -> bool:
    """Whether a cache may give the answer out without asking the app, by this alone."""
    if directive.name == "no-cache":
        return directive.argument is not None  # about those fields alone
    if directive.name != "max-age":
        return False
    age = directive.argument
    return not age or bool(age.strip("0"))


def _targets(name: str, value: str) -> bool:
    name = name.lower()
    if name == "x-accel-expires":
        return value.strip() not in ("0", "off")
    if name not in _TARGETED and not name.endswith("-cdn-cache-control"):
        return False
    directives = caching.parse([value])
    return directives is None or not caching.keeps_private(directives)


def _is_future(value: str, now: float) -> bool:
    """What is no date is the past (section 5.3)."""
    date = parsedate_tz(value)
    try:
        return date is not None and timegm((*date[:8], 0)) - (date[9] or 0) > now
    except (ValueError, OverflowError):
        return True  # a year that no calendar has


def _all(headers: Iterable[tuple[str, str]], name: str) -> list[str]:
    return [value for field, value in headers if field.lower() == name]
