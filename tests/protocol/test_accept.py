"""Which form a page takes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from iam_auth_proxy.protocol.accept import HTML, JSON, TEXT, form

CHROMIUM = "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,*/*;q=0.8"


@pytest.mark.parametrize(
    ("accept", "expected"),
    [
        (CHROMIUM, HTML),
        ("text/html, image/gif, image/jpeg, *; q=.2, */*; q=.2", HTML),
        ("application/json, text/javascript, */*; q=0.01", JSON),
        ("application/json, text/plain, */*", JSON),
        ("application/json", JSON),
        ("TEXT/HTML; charset=utf-8", HTML),
        ("text/html \t; q=0.5", HTML),
    ],
)
def test_what_is_named(accept: str, expected: str) -> None:
    assert form(accept) == expected


@pytest.mark.parametrize("accept", ["", "*/*", "text/*", "image/png", "image/avif,*/*;q=0.8"])
def test_where_it_is_open_it_is_text(accept: str) -> None:
    assert form(accept) == TEXT


@pytest.mark.parametrize(
    ("accept", "expected"),
    [
        ("text/html;q=0, application/json", JSON),
        ("text/html;q=0, */*", TEXT),
        ("text/html;q=0.1, application/json", JSON),
        ("text/html;q=0.001, application/json;q=0.01", JSON),
        ("application/json;q=0.9, text/html", HTML),
        ("text/plain;q=0, text/*", HTML),
        ("text/*;q=0, */*", JSON),
        ("text/*;q=0.2, application/json;q=0.1", TEXT),
        ("text/html;q=0.5, */*;q=0.8", TEXT),
        ("application/*;q=1.000, text/html;q=0.999", JSON),
        ("text/html;q=0, text/plain;q=0, application/json;q=0.0", TEXT),
    ],
)
def test_weights_and_the_most_specific_range(accept: str, expected: str) -> None:
    assert form(accept) == expected


@pytest.mark.parametrize(
    ("accept", "expected"),
    [
        ("application/json, text/html", JSON),
        ("text/html, application/json", HTML),
        ("text/plain, text/html", TEXT),
        ("*/*, text/html", HTML),
        ("text/html;q=0, text/html", TEXT),
    ],
)
def test_of_several_the_one_that_is_named_first(accept: str, expected: str) -> None:
    assert form(accept) == expected


@pytest.mark.parametrize(
    "weight", ["x", "nan", "-1", "2", "1.001", "0.1234", "", "1e0", "٠", "inf"]
)
def test_what_is_no_weight_counts_as_not_said(weight: str) -> None:
    assert form(f"text/html;q={weight}") == TEXT
    assert form(f"text/html;q={weight}, application/json;q=0.1") == JSON


@given(
    st.text(max_size=60)
    | st.lists(st.sampled_from(["text/html", "*/*", ";", ",", "q=", "0", "1", "."])).map("".join)
)
def test_any_field_has_a_form(accept: str) -> None:
    assert form(accept) in (HTML, JSON, TEXT)
