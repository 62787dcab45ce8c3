"""Stored secrets, to the byte."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from iam_auth_proxy.errors import Malformed, RecordUnusable
from iam_auth_proxy.protocol.record import (
    FRAME,
    MAX_HEAD,
    SEALED_FRAME,
    Frames,
    Header,
    check_name,
    dumps_head,
    loads_head,
    value_size,
)
from tests.support import vectors

KEY = "arn:aws:kms:eu-west-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab"
DATA_KEY = bytes(range(32))
HEADER = Header("s3://bucket/prefix", "web/db", 3, 1_790_000_000, KEY, b"wrapped")
LINE = dumps_head(HEADER, DATA_KEY).split(b"\n")[1]


def sealed(value: bytes, data_key: bytes = DATA_KEY) -> bytes:
    frames = Frames(data_key)
    pieces = [value[at : at + FRAME] for at in range(0, len(value), FRAME)] or [b""]
    return b"".join(frames.seal(each, last=each is pieces[-1]) for each in pieces)


def opened(data: bytes, data_key: bytes = DATA_KEY) -> bytes:
    frames = Frames(data_key)
    pieces = [data[at : at + SEALED_FRAME] for at in range(0, len(data), SEALED_FRAME)] or [b""]
    return b"".join(frames.open(each, last=each is pieces[-1]) for each in pieces)


@pytest.mark.parametrize("case", vectors.accepted("records"))
def test_known_records(case: dict[str, Any]) -> None:
    data_key, record = bytes.fromhex(case["data_key"]), bytes.fromhex(case["record"])
    fields = case["header"]
    header = Header(**{**fields, "wrapped": bytes.fromhex(fields["wrapped"])})
    value = bytes.fromhex(case["value"]) * case["times"]
    head = loads_head(record)
    assert head.check(data_key) == header
    assert header.context == case["context"]
    assert dumps_head(header, data_key) + sealed(value, data_key)[: case["cut"]] == record
    if case["cut"] is None:
        assert opened(record[head.length :], data_key) == value


@pytest.mark.parametrize(("case", "error"), vectors.refused("records"))
def test_refused_heads(case: str, error: str) -> None:
    with pytest.raises(Malformed, match=error):
        loads_head(case.encode("latin-1"))


@given(
    st.builds(
        Header,
        st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=50),
        st.from_regex(
            r"[A-Za-z0-9_][A-Za-z0-9._+=-]{0,20}(/[A-Za-z0-9_]{1,9}){0,3}", fullmatch=True
        ),
        st.integers(1, 99_999_999),
        st.integers(0, 1 << 53),
        st.just(KEY),
        st.binary(min_size=1, max_size=200),
        st.booleans(),
    ),
    st.binary(min_size=32, max_size=32),
)
def test_heads_round_trip(header: Header, data_key: bytes) -> None:
    text = dumps_head(header, data_key)
    head = loads_head(text + b"frames")
    assert head.check(data_key) == header
    assert head.length == len(text) <= MAX_HEAD


@given(st.binary(max_size=400))
def test_no_head_but_ours(start: bytes) -> None:
    with pytest.raises(Malformed):
        loads_head(start)


@given(st.data())
def test_any_changed_byte_of_a_head_shows(data: st.DataObject) -> None:
    text = bytearray(dumps_head(HEADER, DATA_KEY))
    at = data.draw(st.integers(0, len(text) - 1))
    text[at] ^= data.draw(st.integers(1, 255))
    with pytest.raises((Malformed, RecordUnusable)):
        loads_head(bytes(text)).check(DATA_KEY)


def test_a_head_of_another_data_key() -> None:
    with pytest.raises(RecordUnusable):
        loads_head(dumps_head(HEADER, DATA_KEY)).check(bytes(32))


@pytest.mark.parametrize(
    "changes",
    [
        {"store": ""},
        {"store": "s" * 1025},
        {"store": "a\nb"},
        {"name": "../x"},
        {"version": 0},
        {"version": 100_000_000},
        {"created": -1},
        {"created": 1 << 54},
        {"key": "alias/x"},
        {"wrapped": b""},
        {"wrapped": bytes(6145)},
    ],
)
def test_headers_out_of_bounds(changes: dict[str, Any]) -> None:
    fields = {name: getattr(HEADER, name) for name in Header.__slots__}
    with pytest.raises(Malformed):
        Header(**(fields | changes))


def test_names() -> None:
    for name in ("db", "web/session-key", "A.b_c+d=e-f", "_", "9", "x" * 200):
        assert check_name(name) == name
    refused = ("", "/", "a/", "/a", "a//b", ".", "..", "a/..", ".a", "-a", "a/@00000001", "a b")
    for name in (*refused, "x" * 201, "ä", "a\n", "a\0"):
        with pytest.raises(Malformed):
            check_name(name)


SIZES = (0, 1, FRAME - 1, FRAME, FRAME + 1, 2 * FRAME, 2 * FRAME + 5)


@pytest.mark.parametrize("size", SIZES)
def test_frames(size: int) -> None:
    value = bytes(index * 7 % 256 for index in range(size))
    data = sealed(value)
    assert opened(data) == value
    assert value_size(len(data)) == size


@pytest.mark.parametrize("size", SIZES)
def test_no_cut_goes_unseen(size: int) -> None:
    data = sealed(bytes(size))
    for length in sorted({0, 1, 15, 16, 17, len(data) - 1, SEALED_FRAME, SEALED_FRAME - 1}):
        if length < len(data):
            with pytest.raises(RecordUnusable):
                opened(data[:length])
    with pytest.raises(RecordUnusable):
        opened(data + b"x")
    with pytest.raises(RecordUnusable):
        opened(data + data)


def test_no_order_but_one() -> None:
    data = sealed(bytes(3 * FRAME))
    first, second, third = (
        data[at : at + SEALED_FRAME] for at in range(0, len(data), SEALED_FRAME)
    )
    for order in ([second, first, third], [first, third], [first, first, third], [third, second]):
        with pytest.raises(RecordUnusable):
            opened(b"".join(order))


@given(st.integers(0, FRAME + 99 + 31), st.integers(1, 255))
def test_any_changed_byte_of_a_frame_shows(at: int, change: int) -> None:
    data = bytearray(sealed(bytes(FRAME + 99)))
    data[at] ^= change
    with pytest.raises(RecordUnusable):
        opened(bytes(data))


def test_frames_are_full_but_the_last() -> None:
    with pytest.raises(Malformed):
        Frames(DATA_KEY).seal(b"short", last=False)
    with pytest.raises(Malformed):
        Frames(DATA_KEY).seal(bytes(FRAME + 1), last=True)
    frames = Frames(DATA_KEY)
    frames.seal(bytes(FRAME), last=False)
    with pytest.raises(Malformed):
        frames.seal(b"", last=True)


def test_sizes_that_cannot_be() -> None:
    for sealed_size in (-1, 0, 15, SEALED_FRAME + 1, SEALED_FRAME + 15, SEALED_FRAME + 16):
        with pytest.raises(Malformed):
            value_size(sealed_size)


def test_data_keys_are_32_bytes() -> None:
    for size in (0, 16, 31, 33):
        with pytest.raises(Malformed):
            Frames(bytes(size))
        with pytest.raises(Malformed):
            dumps_head(HEADER, bytes(size))


def test_nothing_secret_is_shown() -> None:
    assert "wrapped" not in repr(HEADER)
    assert json.loads(LINE)["name"] == "web/db"
