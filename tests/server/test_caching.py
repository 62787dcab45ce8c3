"""Which answers of the app a renewed session cookie goes along with."""

from __future__ import annotations

import pytest

from iam_auth_proxy.server.caching import with_cookies

NOW = 1_800_000_000.0  # Fri, 15 Jan 2027 08:00:00 GMT
COOKIE = ("Set-Cookie", "iam-auth=x")
Fields = list[tuple[str, str]]


def cache_control(*values: str) -> Fields:
    return [("A", "b"), *(("cache-control", value) for value in values)]


@pytest.mark.parametrize(
    "said",
    [*(cache_control(value) for value in (
        "public", "max-age=60", "Max-Age=31536000, immutable", "s-maxage=1", "s-maxage=0",
        "private, public", 'public="x"', "max-age=60, must-revalidate", 'max-age="60"',
        # Of one field alone: everything else of the answer may be stored.
        'max-age=60, private="x-foo"', 'private="x-foo"', "private=x-foo", 'private=""',
        'no-cache="set-cookie"', 'private, private="x"',
        # RFC 9111 section 5.2.2.3: a cache reads over this no-store.
        "must-understand, no-store, max-age=60",
        # Not to be read, or in several ways.
        "max-age", "max-age=", "max-age=-1", "max-age=x", "max-age=0, max-age=60", "no-store; x",
        "private max-age=60", 'no-cache, x="', "max-age=0 public", "=x", "private\n",
    )),
     cache_control("private", "public"), cache_control("max-age=0", "max-age=60"),
     # Every one of them is a date of tomorrow; without Cache-Control it counts, and beside these.
     *([("Expires", "Sat, 16 Jan 2027 08:00:00 GMT"), *more]
       for more in ([], cache_control("no-cache"), cache_control("max-age=0"))),
     [("expires", "Saturday, 16-Jan-27 08:00:00 GMT")], [("Expires", "Sat Jan 16 08:00:00 2027")],
     [("Expires", "Fri, 15 Jan 2027 07:30:00 -0100")],
     [("Expires", "0"), ("Expires", "Sat, 16 Jan 2027 08:00:00 GMT")],
     # What caches of one kind follow in place of Cache-Control (RFC 9213, and before it).
     *([("Cache-Control", "private"), (name, value)] for name, value in (
         ("CDN-Cache-Control", "max-age=60"), ("Cloudflare-CDN-Cache-Control", "max-age=60"),
         ("Surrogate-Control", "max-age=60"), ("Edge-Control", "x y"), ("X-Accel-Expires", "60"),
     ))],
)  # fmt: skip
def test_no_cookie_goes_where_a_cache_may_keep_it(said: Fields) -> None:
    """RFC 9111 section 3: what has an age may be stored, and Set-Cookie does not prevent it."""
    assert with_cookies(said, [COOKIE[1]], NOW) == said


@pytest.mark.parametrize(
    "said",
    [*(cache_control(value) for value in (
        "no-store", "private", "Private, max-age=60", "no-cache, no-store", "private, no-cache",
        'no-store, no-cache="x"', "max-age=60, no-store", "private,, must-understand, no-store",
    )),
     cache_control("no-cache", "private"),
     [("Expires", "Sat, 16 Jan 2027 08:00:00 GMT"), ("Cache-Control", "private")],
     *([("Cache-Control", "no-store"), (name, value)] for name, value in (
         ("Surrogate-Control", "no-store"), ("CDN-Cache-Control", "private"),
         ("X-Accel-Expires", "0"),
     ))],
)  # fmt: skip
def test_an_answer_for_one_alone_stays_as_it_is(said: Fields) -> None:
    assert with_cookies(said, [COOKIE[1]], NOW) == [*said, COOKIE]


@pytest.mark.parametrize(
    ("said", "becomes"),
    [([], "private"), ([""], "private"), (["no-cache"], "private, no-cache"),
     (["max-age=0"], "private, max-age=0"), (["max-age=00"], "private, max-age=00"),
     (["Max-Age=0, must-revalidate"], "private, Max-Age=0, must-revalidate"),
     (["no-cache", "max-age=0,"], "private, no-cache, max-age=0"),
     (["no-transform"], "private, no-transform"),
     (['x="a, private, no-store"'], 'private, x="a, private, no-store"'),
     (["must-understand, no-store"], "private, must-understand, no-store")],
)  # fmt: skip
def test_what_it_goes_with_is_made_private(said: list[str], becomes: str) -> None:
    """After no-cache a cache asks, hears 304, and gives out what it stored: with the cookie."""
    expected = [("A", "b"), ("Cache-Control", becomes), COOKIE]
    assert with_cookies(cache_control(*said), [COOKIE[1]], NOW) == expected


@pytest.mark.parametrize(
    "expires",
    ["0", "-1", "", "Thu, 01 Jan 1970 00:00:00 GMT", "Fri, 15 Jan 2027 08:00:00 GMT",
     "Friday, 15-Jan-27 08:00:00 GMT"],
)  # fmt: skip
def test_what_is_over_is_not_cached(expires: str) -> None:
    said = [("Expires", expires)]
    assert with_cookies(said, [COOKIE[1]], NOW) == [*said, ("Cache-Control", "private"), COOKIE]


def test_a_year_that_no_calendar_has_is_no_error() -> None:
    said = [("Expires", "Fri, 15 Jan 999999999999 08:00:00 GMT")]
    assert with_cookies(said, [COOKIE[1]], NOW) == said


def test_without_a_cookie_nothing_changes() -> None:
    assert with_cookies(cache_control("no-cache"), [], NOW) == cache_control("no-cache")
