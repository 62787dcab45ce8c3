"""The 401's header fields. The cases: tests/vectors/challenges.json, bound_challenges.json."""

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
from iam_auth_proxy.protocol.challenge import Bound, Challenge
from iam_auth_proxy.protocol.proof import ProofKind
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


GOOD = {
    "WWW-Authenticate": f'IAM realm="{REALM}"',
    "Iam-Auth-Kms-Key-Id": KEY,
    "Iam-Auth-Kms-Encryption-Context": "e30=",
}


_EVIL = KEY.replace("eu-west-1", "evil-1")


@pytest.mark.parametrize(
    ("field", "value", "said", "sent"),
    [
        ("Iam-Auth-Kms-Key-Id", None, "Iam-Auth-Kms-Key-Id is missing", ""),
        (
            "Iam-Auth-Kms-Key-Id",
            _EVIL,
            "Iam-Auth-Kms-Key-Id: the key ARN names an unknown partition or region",
            f": '{_EVIL}'",
        ),
        (
            "Iam-Auth-Kms-Key-Id",
            "\x1b<b>\xff" + "x" * 200,
            "Iam-Auth-Kms-Key-Id: not a KMS key: a key ARN, alias ARN, key id or alias/NAME",
            ": '\\x1b<b>\\xff" + "x" * 95 + "...'",
        ),
        (
            "Iam-Auth-Kms-Encryption-Context",
            "e30",
            "Iam-Auth-Kms-Encryption-Context is not base64",
            "",
        ),
        (
            "Iam-Auth-Kms-Encryption-Context",
            "W10=",
            "the JSON in Iam-Auth-Kms-Encryption-Context is not a JSON object",
            "",
        ),
        (
            "WWW-Authenticate",
            'IAM realm="1234"',
            "the realm in WWW-Authenticate is not a quoted AWS account id of 12 digits",
            ": '\"1234\"'",
        ),
        (
            "WWW-Authenticate",
            "IAM 1/2",
            "the IAM challenge in WWW-Authenticate is not a list of parameters",
            ": '1/2'",
        ),
        (
            "WWW-Authenticate",
            "IAM a=b",
            "the IAM challenge in WWW-Authenticate needs exactly one realm",
            "",
        ),
    ],
)
def test_the_owner_is_told_which_field_and_why(
    field: str, value: str | None, said: str, sent: str
) -> None:
    """What was sent is for the log; the page, which anybody's scripts can read, has the rest."""
    headers = [[name, text] for name, text in {**GOOD, field: value}.items() if text is not None]
    with pytest.raises(BadChallenge) as caught:
        read(headers)
    assert str(caught.value) == said + sent
    assert caught.value.public == f"The app's sign-in challenge is malformed: {said}."


def test_is_written_as_the_seed_writes_it() -> None:
    """Byte for byte what the example server of the original sends."""
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


class TestBound:
    @pytest.mark.parametrize("case", vectors.accepted("bound_challenges"))
    def test_is_read(self, case: dict[str, Any]) -> None:
        proofs = frozenset(ProofKind(kind) for kind in case["proofs"])
        bound = Bound(proofs, case["nonce"], case["path"])
        expected = Challenge(REALM, parse_key_reference(KEY), {"salt": "abc"}, bound)
        assert read(case["headers"]) == expected

    @pytest.mark.parametrize(("headers", "error"), vectors.refused("bound_challenges"))
    def test_is_refused(self, headers: list[list[str]], error: str) -> None:
        with pytest.raises(BadChallenge, match=re.escape(error)):
            read(headers)

    def test_is_no_challenge_of_ours_without_the_scheme(self) -> None:
        fields = [["Iam-Auth-Proofs", "x"], ["Iam-Auth-Nonce", ""], ["Iam-Auth-Path", ""]]
        assert read(fields) is None
        assert read([["WWW-Authenticate", "Basic"], *fields]) is None

    def test_is_written_after_the_originals_fields(self) -> None:
        bound = Bound(frozenset(ProofKind), "n" * 22)
        assert challenge.write(a_challenge(bound=bound)) == [
            *challenge.write(a_challenge()),
            ("Iam-Auth-Proofs", "signed-identity, session-credentials"),
            ("Iam-Auth-Nonce", "n" * 22),
        ]
        elsewhere = Bound(frozenset([ProofKind.SESSION_CREDENTIALS]), "n" * 22, "/iam")
        assert challenge.write(a_challenge(bound=elsewhere))[3:] == [
            ("Iam-Auth-Proofs", "session-credentials"),
            ("Iam-Auth-Nonce", "n" * 22),
            ("Iam-Auth-Path", "/iam"),
        ]

    @pytest.mark.parametrize(
        ("proofs", "nonce", "path", "error"),
        [
            ([], "n" * 22, "/auth", "no kind of proof"),
            (ProofKind, "short", "/auth", "the nonce is not"),
            (ProofKind, "n" * 22, "//evil.example", "Iam-Auth-Path must be a path"),
        ],
    )
    def test_one_that_nobody_could_read_cannot_be_made(
        self, proofs: Any, nonce: str, path: str, error: str
    ) -> None:
        with pytest.raises(BadChallenge, match=error):
            Bound(frozenset(proofs), nonce, path)

    def test_one_without_a_key_arn_cannot_be_made(self) -> None:
        bound = Bound(frozenset(ProofKind), "n" * 22)
        with pytest.raises(BadChallenge, match="names its key by ARN"):
            a_challenge(key=KeyReference("alias/app"), bound=bound)

    def test_tells_one_challenge_from_another(self) -> None:
        bound = Bound(frozenset(ProofKind), "n" * 22)
        assert a_challenge(bound=bound) != a_challenge()
        assert {a_challenge(bound=bound): 1}[a_challenge(bound=bound)] == 1


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


BOUNDS = st.builds(
    Bound,
    st.frozensets(st.sampled_from(ProofKind), min_size=1),
    st.from_regex(re.compile(r"[A-Za-z0-9._-]{22,60}", re.ASCII), fullmatch=True),
    st.from_regex(re.compile(r"(/[A-Za-z0-9_-]{1,9}){1,8}", re.ASCII), fullmatch=True),
)


@given(st.from_regex(r"[0-9]{12}", fullmatch=True), CONTEXTS, st.none() | BOUNDS)
def test_what_is_written_is_read(realm: str, context: dict[str, str], bound: Bound | None) -> None:
    try:
        made = Challenge(realm, parse_key_reference(KEY), context, bound)
    except BadChallenge:
        return  # digits beyond ASCII, keys that differ by case: the vectors have them
    fields = challenge.write(made)
    assert challenge.parse([(n.encode(), v.encode()) for n, v in fields]) == made


FIELDS = st.sampled_from(
    [
        b"WWW-Authenticate",
        b"iam-auth-kms-key-id",
        b"Iam-Auth-Kms-Encryption-Context",
        b"Iam-Auth-Proofs",
        b"Iam-Auth-Nonce",
        b"Iam-Auth-Path",
        b"Date",
    ]
)
VALUES = st.one_of(
    st.binary(max_size=30),
    st.sampled_from([f'IAM realm="{REALM}"'.encode(), KEY.encode(), b"e30=", b"IAM", b""]),
    st.sampled_from([b"signed-identity", b"signed-identity, x", b"n" * 22, b"/auth", b","]),
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
