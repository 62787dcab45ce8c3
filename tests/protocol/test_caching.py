"""Cache-Control of an answer, and what it has to say where that carries a session."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from iam_auth_proxy.protocol.caching import Directive, keeps_private, made_private, parse


def test_what_is_said() -> None:
    assert parse(['No-Cache="a, \\"b", max-age=0 ,', "", "\tX"]) == (
        Directive("no-cache", 'a, \\"b', 'No-Cache="a, \\"b"'),
        Directive("max-age", "0", "max-age=0"),
        Directive("x", None, "X"),
    )
    assert parse([]) == ()


@pytest.mark.parametrize(
    "value", ["a b", "a=", 'a="', 'a="b"c', "=a", "a;b", "a =b", "ä", "a\n", " " * 60_000 + ";"]
)
def test_outside_the_grammar(value: str) -> None:
    assert parse([value]) is None
    assert made_private([value]) == "no-store"


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ([], "private"),
        (["public, max-age=60"], "private, max-age=60"),
        (["s-maxage=9", "Public"], "private"),
        (["no-store"], "no-store"),
        (["Private, max-age=1"], "Private, max-age=1"),
        (['private="a"'], "private"),
        (['no-cache="a, private"'], 'private, no-cache="a, private"'),
    ],
)
def test_made_private(before: list[str], after: str) -> None:
    assert made_private(before) == after


@pytest.mark.parametrize(
    ("value", "keeps"),
    [("private", True), ("no-store", True), ('private="a"', False), ("no-store=a", False),
     ("no-cache", False), ("must-understand, no-store", False)],
)  # fmt: skip
def test_keeps_private(value: str, keeps: bool) -> None:
    assert keeps_private(parse([value]) or ()) is keeps


@given(st.lists(st.text('aA="\\, \tpublicprivate-0s;\n') | st.text()))
def test_whatever_was_said_no_shared_cache_keeps_it(values: list[str]) -> None:
    directives = parse([made_private(values)])
    assert directives is not None
    assert keeps_private(directives)
    assert not {"public", "s-maxage"} & {each.name for each in directives}
