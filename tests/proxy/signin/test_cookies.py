"""Cookies in and out of requests."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from iam_auth_proxy.proxy.signin import cookies
from iam_auth_proxy.proxy.signin.cookies import SetCookie, parse_set_cookie


@pytest.mark.parametrize(
    ("value", "cookie"),
    [
        (b"a=1", SetCookie(b"a", b"1")),
        (b" a = 1 ; Path=/x; Secure", SetCookie(b"a", b"1", b"/x", secure=True)),
        (b'a="q u"; path=/x/; HttpOnly', SetCookie(b"a", b'"q u"', b"/x/")),
        (b"a=b=c; Path=", SetCookie(b"a", b"b=c")),
        (b"a=1; Path=x", SetCookie(b"a", b"1")),
        (b"a=; Max-Age=0", SetCookie(b"a", b"", gone=True)),
        (b"a=1; max-age=-5", SetCookie(b"a", b"1", gone=True)),
        (b"a=1; Max-Age=50", SetCookie(b"a", b"1")),
        (b"a", None),
        (b"=1", None),
        (b"a b=1", None),
        (b"a,b=1", None),
        (b"", None),
    ],
)
def test_what_is_set(value: bytes, cookie: SetCookie | None) -> None:
    assert parse_set_cookie(value) == cookie


def test_no_value_is_shown() -> None:
    assert "secret" not in repr(parse_set_cookie(b"a=secret"))


@pytest.mark.parametrize(
    ("path", "target", "goes"),
    [
        (b"/", b"/", True),
        (b"/", b"/a?b", True),
        (b"/a", b"/a", True),
        (b"/a", b"/a?x=/b", True),
        (b"/a", b"/a/b", True),
        (b"/a/", b"/a/b", True),
        (b"/a", b"/ab", False),
        (b"/a/", b"/a", False),
        (b"/a", b"/b/a", False),
        (b"/a", b"/b?/a", False),
    ],
)
def test_where_it_goes(path: bytes, target: bytes, goes: bool) -> None:
    assert SetCookie(b"n", b"v", path).goes_with(target) is goes


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ([], [(b"Cookie", b"s=1; t=2")]),
        ([(b"A", b"b")], [(b"A", b"b"), (b"Cookie", b"s=1; t=2")]),
        (
            [(b"cookie", b"a=1; s=old;b=2"), (b"A", b"b")],
            [(b"cookie", b"a=1; b=2; s=1; t=2"), (b"A", b"b")],
        ),
        (
            [(b"Cookie", b"s=old"), (b"A", b"b"), (b"COOKIE", b" ; x=1; t=old")],
            [(b"Cookie", b"x=1; s=1; t=2"), (b"A", b"b")],
        ),
    ],
)
def test_put(before: list[tuple[bytes, bytes]], after: list[tuple[bytes, bytes]]) -> None:
    cookies.put(before, [SetCookie(b"s", b"1"), SetCookie(b"t", b"2")])
    assert before == after


def test_nothing_to_put_changes_nothing() -> None:
    headers = [(b"Cookie", b"a=1"), (b"Cookie", b"a=1")]
    cookies.put(headers, [])
    assert headers == [(b"Cookie", b"a=1")] * 2


_pair = st.tuples(st.sampled_from([b"a", b"s", b"t", b"z"]), st.binary(max_size=4)).map(
    lambda pair: pair[0] + b"=" + pair[1].replace(b";", b"")
)


@given(st.lists(st.lists(_pair, max_size=3).map(b"; ".join), max_size=3))
def test_of_each_name_put_one_is_left(values: list[bytes]) -> None:
    headers = [(b"Cookie", value) for value in values]
    others = cookies.pairs_sent([*headers]) - {
        pair for pair in cookies.pairs_sent(headers) if pair.partition(b"=")[0] in (b"s", b"t")
    }
    cookies.put(headers, [SetCookie(b"s", b"1"), SetCookie(b"t", b"2")])
    assert len(headers) == 1
    assert cookies.pairs_sent(headers) - {b""} == (others | {b"s=1", b"t=2"}) - {b""}


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ([], b"private"),
        ([b"public, max-age=60"], b"private, max-age=60"),
        ([b"s-maxage=9", b"Public"], b"private"),
        ([b"no-store"], b"no-store"),
        ([b"Private, max-age=1"], b"Private, max-age=1"),
        ([b'private="a, no-store, b"'], b"private"),
        ([b"max-age=60; public"], b"no-store"),
    ],
)
def test_no_shared_cache_keeps_it(before: list[bytes], after: bytes) -> None:
    headers = [(b"A", b"b"), *((b"Cache-control", value) for value in before)]
    cookies.make_private(headers)
    assert headers == [(b"A", b"b"), (b"Cache-Control", after)]


def test_removals_are_left_out_and_nothing_else() -> None:
    headers = [
        (b"Set-Cookie", b"a=1; Max-Age=10"),
        (b"set-cookie", b"iam-auth=; Path=/; Max-Age=0"),
        (b"Set-Cookie", b"b=; max-age=-1"),
        (b"X-Cookie", b"c=; Max-Age=0"),
        (b"Set-Cookie", b"c="),
    ]
    cookies.leave_removals_out(headers)
    assert [value for _, value in headers] == [b"a=1; Max-Age=10", b"c=; Max-Age=0", b"c="]
