"""What is written is read back equal."""

from __future__ import annotations

import tomllib
from datetime import UTC, date, datetime, time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from iam_auth_proxy.config.toml import dumps

# TOML has no surrogates, and 64 bits.
TEXT = st.text(st.characters(exclude_categories=("Cs",)), max_size=12)
PLAIN = st.one_of(
    TEXT,
    st.booleans(),
    st.integers(-(2**63), 2**63 - 1),
    st.floats(allow_nan=False),
    st.dates(),
    st.times(),
    st.datetimes(timezones=st.just(UTC)),
)
VALUES = st.recursive(
    PLAIN,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(TEXT, inner, max_size=3)),
    max_leaves=8,
)


@given(st.dictionaries(TEXT, VALUES, max_size=4))
@settings(max_examples=150)
def test_whatever_tomllib_reads(tables: dict[str, object]) -> None:
    assert tomllib.loads(dumps(tables)) == tables


def test_it_reads_like_what_people_write() -> None:
    tables = {
        "app": [{"origin": "http://a.test", "kms_keys": ["x", "y"]}, {"origin": "http://b.test"}],
        "version": 2,
        "later": {"since": date(2026, 11, 22), "at": time(1, 2), "on": datetime(2026, 1, 1)},
        'od"d': {"key.s": "\x7f\n"},
    }
    assert dumps(tables) == (
        "version = 2\n"
        '\n[[app]]\norigin = "http://a.test"\nkms_keys = ["x", "y"]\n'
        '\n[[app]]\norigin = "http://b.test"\n'
        "\n[later]\nsince = 2026-11-22\nat = 01:02:00\non = 2026-01-01T00:00:00\n"
        '\n["od\\"d"]\n"key.s" = "\\u007f\\n"\n'
    )


def test_what_is_no_toml() -> None:
    with pytest.raises(TypeError):
        dumps({"a": None})
