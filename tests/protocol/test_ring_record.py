"""Stored key rings, to the byte."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from iam_auth_proxy.errors import Malformed
from iam_auth_proxy.protocol.lifecycle import Policy
from iam_auth_proxy.protocol.ring_record import MAX_RECORD, dumps, loads
from iam_auth_proxy.protocol.stored_ring import MAX_VERSIONS, StoredRing
from tests.support import vectors

SECRET = bytes(range(32))
ONE = StoredRing.begun(Policy(), SECRET, 1_790_000_000)


@pytest.mark.parametrize("case", vectors.accepted("key_rings"))
def test_known_rings(case: dict[str, Any]) -> None:
    stored = loads(case["record"].encode())
    assert loads(dumps(stored)) == stored
    for moment in case["at"]:
        now = moment["now"]
        assert [stored.state(each, now) for each in stored.versions] == moment["states"]
        assert list(stored.at(now).salts) == moment["salts"]


@pytest.mark.parametrize(("case", "error"), vectors.refused("key_rings"))
def test_refused_rings(case: str, error: str) -> None:
    with pytest.raises(Malformed, match=error) as caught:
        loads(case.encode())
    assert "AQEBAQ" not in str(caught.value)


def test_no_longer_than_it_may_be() -> None:
    data = dumps(ONE)
    assert loads(data + b" " * (MAX_RECORD - len(data))) == ONE
    with pytest.raises(Malformed, match="over 262144 bytes"):
        loads(data + b" " * (MAX_RECORD - len(data) + 1))


def test_the_largest_ring_fits() -> None:
    """Every version imported, with the longest secret there may be, and the longest salts."""
    versions, salts = [*ONE.versions], {}
    for number in range(MAX_VERSIONS - 1):
        secret, salt = str(number).rjust(1024, "x"), str(number % 8).rjust(1024, "x")
        each = ONE.imported(secret.encode(), salt, 1_790_000_000, 500)
        versions.append(each.versions[-1])
        salts[salt] = each.salts[-1]
    stored = replace(ONE, versions=tuple(versions), salts=tuple(salts.values()))
    assert len(dumps(stored)) < MAX_RECORD
    assert loads(dumps(stored)) == stored
    with pytest.raises(Malformed, match="too many"):
        replace(stored, versions=(*versions, ONE.imported(b"y" * 1024, "", 1, 1).versions[-1]))


@given(st.binary(max_size=60))
def test_noise_is_malformed(noise: bytes) -> None:
    with pytest.raises(Malformed):
        loads(noise)


@given(st.integers(0, len(dumps(ONE)) - 1), st.characters(max_codepoint=0x7E))
def test_a_changed_byte_is_another_ring_or_none(at: int, put: str) -> None:
    text = dumps(ONE).decode()
    changed = text[:at] + put + text[at + 1 :]
    try:
        stored = loads(changed.encode())
    except Malformed:
        return
    assert (stored == ONE) == (json.loads(changed) == json.loads(text))
