"""Base64 and JSON in one spelling. What both ends make of them is in the vectors of each noun."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from iam_auth_proxy.errors import Malformed
from iam_auth_proxy.protocol.strict import decode_base64, encode_base64, loads_object


@given(st.binary(max_size=40), st.booleans())
def test_base64_reads_what_it_writes(data: bytes, urlsafe: bool) -> None:
    assert decode_base64(encode_base64(data, urlsafe=urlsafe), "it", urlsafe=urlsafe) == data


@given(st.text("AQgwYZ+/-_= \n", max_size=8) | st.text(max_size=8), st.booleans())
def test_base64_has_one_spelling(text: str, urlsafe: bool) -> None:
    try:
        data = decode_base64(text, "it", urlsafe=urlsafe)
    except Malformed:
        pass
    else:
        assert encode_base64(data, urlsafe=urlsafe) == text


@pytest.mark.parametrize("text", ["YQ", "YR==", "YQ=", "YQ==\n", "Y Q==", "YQ==YQ==", "Y-_="])
def test_standard_base64_is_padded_and_without_stray_bits(text: str) -> None:
    with pytest.raises(Malformed):
        decode_base64(text, "it")


@pytest.mark.parametrize("text", ["YQ==", "YR", "Y", "ab+/", "YQ\n", "YQ.", "é"])
def test_urlsafe_base64_is_not_padded(text: str) -> None:
    with pytest.raises(Malformed):
        decode_base64(text, "it", urlsafe=True)


@given(st.dictionaries(st.text(max_size=5), st.none() | st.integers() | st.text(max_size=5)))
def test_an_object_is_read(value: dict[str, object]) -> None:
    assert loads_object(json.dumps(value).encode(), "it", at_most=10_000) == value


def test_an_object_is_read_up_to_its_limit() -> None:
    assert loads_object(b"{}", "it", at_most=2) == {}
    with pytest.raises(Malformed, match="it is over 1 bytes"):
        loads_object(b"{}", "it", at_most=1)


@given(
    st.binary(max_size=20) | st.text('{}[]":,\\u\ud800dea1 ', max_size=20).map(repr).map(str.encode)
)
def test_nothing_but_our_error(data: bytes) -> None:
    try:
        assert isinstance(loads_object(data, "it", at_most=100), dict)
    except Malformed:
        pass
