"""The ciphertext format: whatever is changed in it, it does not open."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from iam_auth_proxy.local_aws import ciphertext
from iam_auth_proxy.local_aws.kms import default_policy
from iam_auth_proxy.local_aws.policy import Kind, read_policy
from iam_auth_proxy.local_aws.state import Key, State

STATE = State(("111122223333",), "eu-west-1")


def a_key(*, multi_region: bool = False) -> Key:
    policy = read_policy(default_policy("aws", "111122223333"), Kind.RESOURCE)
    return STATE.add_key("111122223333", "eu-west-1", policy, 0.0, multi_region=multi_region)


KEY = a_key()
contexts = st.dictionaries(st.text(max_size=8), st.text(max_size=8), max_size=3)


@given(plaintext=st.binary(min_size=1, max_size=50), context=contexts, other=contexts)
@settings(max_examples=50)
def test_round_trip_and_no_other_context(
    plaintext: bytes, context: dict[str, str], other: dict[str, str]
) -> None:
    sealed = ciphertext.read(ciphertext.seal(KEY, plaintext, context))
    assert sealed.made_by(KEY)
    assert ciphertext.unseal(KEY, sealed, context) == plaintext
    if other != context:
        with pytest.raises(ciphertext.Unreadable):
            ciphertext.unseal(KEY, sealed, other)


def test_every_single_bit_counts() -> None:
    blob = ciphertext.seal(KEY, b"x", {})
    for index in range(len(blob) * 8):
        touched = bytearray(blob)
        touched[index // 8] ^= 1 << index % 8
        with pytest.raises(ciphertext.Unreadable):
            ciphertext.unseal(KEY, ciphertext.read(bytes(touched)), {})


@given(blob=st.binary(max_size=80))
@settings(max_examples=50)
def test_reading_anything(blob: bytes) -> None:
    for candidate in (blob, b"\x01" + blob):
        with pytest.raises(ciphertext.Unreadable):
            ciphertext.unseal(KEY, ciphertext.read(candidate), {})


def test_another_key() -> None:
    sealed = ciphertext.read(ciphertext.seal(KEY, b"x", {}))
    other = a_key()
    assert not sealed.made_by(other)
    with pytest.raises(ciphertext.Unreadable):
        ciphertext.unseal(other, sealed, {})
