"""The 401's header fields. The cases are data: tests/vectors/challenges.json."""

from __future__ import annotations

import base64
import json
import re
import time
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from iam_auth_proxy.errors import BadChallenge
from iam_auth_proxy.names import KeyReference, parse_key_reference
from iam_auth_proxy.protocol import challenge
from iam_auth_proxy.protocol.challenge import Challenge
from tests.support import vectors

KEY = "arn:aws:kms:eu-west-1:123456789012:key/12345678-90ab-cdef-1234-567890abcdef"
REALM = "123456789012"


def read(headers: list[list[str]]) -> Challenge | None:
    return challenge.parse([(n.encode("latin-1"), v.encode("latin-1")) for n, v in headers])


def a_challenge(**changes: Any) -> Challenge:
    fields: dict[str, Any] = {"realm": REALM, "key": KeyReference(KEY), "context": {"salt": "x"}}
    return Challenge(**fields | changes)


@pytest.mark.parametrize("case", vectors.accepted("challenges"))
def test_is_read(case: dict[str, Any]) -> None:
    found = read(case["headers"])
    if case["realm"] is None:
        assert found is None
    else:
        assert found == Challenge(case["realm"], parse_key_reference(case["key"]), case["context"])


@pytest.mark.parametrize(("headers", "error"), vectors.refused("challenges"))
def test_is_refused(headers: list[list[str]], error: str) -> None:
    with pytest.raises(BadChallenge, match=re.escape(error)):
        read(headers)


def test_is_written_as_the_seed_writes_it() -> None:
    """Byte for byte what the example server of the seed sends."""
    context = base64.b64encode(json.dumps({"salt": "x"}).encode()).decode()
    assert challenge.write(a_challenge()) == [
        ("WWW-Authenticate", 'IAM realm="123456789012"'),
        ("Iam-Auth-Kms-Key-Id", KEY),
        ("Iam-Auth-Kms-Encryption-Context", context),
    ]


def test_the_originals_pattern_finds_the_realm() -> None:
    """The original proxy: one WWW-Authenticate field, this pattern, the first of the others."""
    fields = challenge.write(a_challenge())
    (value,) = [value for name, value in fields if name == "WWW-Authenticate"]
    found = re.search('IAM realm="([^"]+)"', value)
    assert found is not None
    assert found[1] == REALM


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"realm": "12345"}, "realm"),
        ({"realm": REALM + "\n"}, "realm"),
        ({"context": {"a": "\ud800"}}, "control character"),
        ({"context": {"salt": "x" * 5000}}, "over 4096 bytes"),
        ({"context": {"iam-auth-x": "y"}}, "a key of ours"),
    ],
)
def test_one_that_nobody_could_read_cannot_be_made(changes: dict[str, Any], error: str) -> None:
    with pytest.raises(BadChallenge, match=error):
        a_challenge(**changes)


def test_its_context_is_its_own_and_read_only() -> None:
    context = {"salt": "x"}
    made = a_challenge(context=context)
    context["salt"] = "y"
    assert made == a_challenge()
    with pytest.raises(TypeError):
        made.context["salt"] = "z"  # type: ignore[index]  # that is the test


def test_can_be_a_key_of_a_dict() -> None:
    assert {a_challenge(): 1}[a_challenge()] == 1
    assert a_challenge() != a_challenge(context={"salt": "y"})


def test_a_hostile_field_is_read_in_linear_time() -> None:
    """64 KiB took 20 seconds when each quote started a search to the end; they take 0.1."""
    started = time.process_time()
    for hostile in (
        '"' + '\\"' * 32_000,
        "," * 64_000,
        "a=" * 32_000,
        '"",' * 20_000,
        '"a" ' * 9000,
    ):
        assert read([["WWW-Authenticate", hostile], ["Iam-Auth-Kms-Key-Id", KEY]]) is None
    assert time.process_time() - started < 3


CONTEXTS = st.dictionaries(
    st.text(st.characters(exclude_categories=["Cc", "Cs"]), min_size=1, max_size=20),
    st.text(st.characters(exclude_categories=["Cc", "Cs"]), max_size=40),
    max_size=16,
)


@given(st.from_regex(r"[0-9]{12}", fullmatch=True), CONTEXTS)
def test_what_is_written_is_read(realm: str, context: dict[str, str]) -> None:
    try:
        made = Challenge(realm, parse_key_reference(KEY), context)
    except BadChallenge:
        return  # digits beyond ASCII, keys that differ by case: the vectors have them
    fields = challenge.write(made)
    assert challenge.parse([(n.encode(), v.encode()) for n, v in fields]) == made


FIELDS = st.sampled_from(
    [b"WWW-Authenticate", b"iam-auth-kms-key-id", b"Iam-Auth-Kms-Encryption-Context", b"Date"]
)
VALUES = st.one_of(
    st.binary(max_size=30),
    st.sampled_from([f'IAM realm="{REALM}"'.encode(), KEY.encode(), b"e30=", b"IAM", b""]),
    st.lists(st.sampled_from(['"', "\\", ",", "=", " ", "IAM", "realm", "x"]), max_size=12).map(
        lambda parts: "".join(parts).encode()
    ),
    st.binary(max_size=30).map(base64.b64encode),
)


@given(st.lists(st.tuples(FIELDS, VALUES), max_size=6))
@example([(b"WWW-Authenticate", b'IAM realm="'), (b"iam-auth-kms-key-id", b"")])
def test_nothing_but_our_error(headers: list[tuple[bytes, bytes]]) -> None:
    try:
        found = challenge.parse(headers)
    except BadChallenge:
        return
    assert (
        found is None
        or challenge.parse(
            [(name.encode(), value.encode()) for name, value in challenge.write(found)]
        )
        == found
    )
