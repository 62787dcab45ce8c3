"""The envelope. The cases are data: tests/vectors/envelopes.json."""

from __future__ import annotations

import base64
import re
import subprocess
import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from iam_auth_proxy.errors import IamAuthError, Malformed, StaleToken
from iam_auth_proxy.names import parse_origin
from iam_auth_proxy.protocol import envelope
from iam_auth_proxy.protocol.envelope import Envelope
from iam_auth_proxy.protocol.proof import MAX_PROOF, ProofKind
from tests.support import vectors

KEY = bytes(range(32))
IV = bytes(range(12))
ORIGIN = parse_origin("https://app.test:8443")
NONCE = "n" * 22


def opened(case: dict[str, Any]) -> bytes:
    return envelope.unseal(
        envelope.loads(case["token"]),
        data_key=bytes.fromhex(case["data_key"]),
        context=case["context"],
    )


@pytest.mark.parametrize("case", vectors.accepted("envelopes"))
def test_opens(case: dict[str, Any]) -> None:
    assert opened(case) == case["proof"].encode("latin-1")


@pytest.mark.parametrize("case", vectors.accepted("envelopes"))
def test_is_sealed_to_the_byte(case: dict[str, Any]) -> None:
    iv = bytes.fromhex(case["iv"])
    sealed = envelope.seal(
        case["proof"].encode("latin-1"),
        data_key=bytes.fromhex(case["data_key"]),
        iv=iv,
        context=dict(reversed(case["context"].items())),
    )
    assert Envelope(bytes.fromhex(case["wrapped_key"]), iv, sealed).dumps() == case["token"]


@pytest.mark.parametrize(("case", "error"), vectors.refused("envelopes"))
def test_is_refused(case: dict[str, Any], error: str) -> None:
    expected = StaleToken if error == "does not open" else Malformed
    with pytest.raises(expected, match=re.escape(error)):
        opened(case)


@pytest.mark.parametrize("at", range(28 + 5))
@pytest.mark.parametrize("bit", [1, 128])
def test_no_bit_of_it_may_change(at: int, bit: int) -> None:
    sealed = bytearray(IV + envelope.seal(b"proof", data_key=KEY, iv=IV, context={}))
    sealed[at] ^= bit
    changed = Envelope(b"w", bytes(sealed[:12]), bytes(sealed[12:]))
    with pytest.raises(StaleToken):
        envelope.unseal(changed, data_key=KEY, context={})


def test_the_longest_fits_its_bounds_and_one_more_does_not() -> None:
    sealed = envelope.seal(bytes(MAX_PROOF), data_key=KEY, iv=IV, context={})
    longest = Envelope(bytes(envelope.MAX_WRAPPED_KEY), IV, sealed)
    assert len(longest.dumps()) == envelope.MAX_TEXT
    assert envelope.loads(longest.dumps()) == longest
    assert envelope.unseal(longest, data_key=KEY, context={}) == bytes(MAX_PROOF)
    for wrapped, inside in ((envelope.MAX_WRAPPED_KEY + 1, 17), (1, MAX_PROOF + 17)):
        text = "e1." + ".".join(
            base64.urlsafe_b64encode(bytes(size)).decode().rstrip("=")
            for size in (wrapped, 12 + inside)
        )
        with pytest.raises(Malformed, match="too long"):
            envelope.loads(text)
    with pytest.raises(Malformed, match="or too long"):
        envelope.loads("e1." + "A" * envelope.MAX_TEXT + ".A")


@pytest.mark.parametrize(
    ("parts", "error"),
    [
        ((b"", IV, bytes(17)), "wrapped key is empty"),
        ((b"w", bytes(11), bytes(17)), "iv is not of 12 bytes"),
        ((b"w", bytes(16), bytes(17)), "iv is not of 12 bytes"),
        ((b"w", IV, bytes(16)), "sealed proof is empty"),
    ],
)
def test_one_that_nobody_could_open_cannot_be_made(
    parts: tuple[bytes, bytes, bytes], error: str
) -> None:
    with pytest.raises(Malformed, match=error):
        Envelope(*parts)


@pytest.mark.parametrize(
    ("proof", "key", "iv", "error"),
    [
        (b"", KEY, IV, "proof is empty"),
        (bytes(MAX_PROOF + 1), KEY, IV, "too long"),
        (b"x", bytes(16), IV, "data key is not of 32 bytes"),
        (b"x", KEY, bytes(16), "iv is not of 12 bytes"),
    ],
)
def test_what_could_not_be_opened_is_not_sealed(
    proof: bytes, key: bytes, iv: bytes, error: str
) -> None:
    with pytest.raises(Malformed, match=error):
        envelope.seal(proof, data_key=key, iv=iv, context={})


class TestBoundContext:
    def test_says_origin_nonce_and_proof(self) -> None:
        given_context = {"salt": "x"}
        assert envelope.bound_context(given_context, ORIGIN, NONCE, ProofKind.SIGNED_IDENTITY) == {
            "salt": "x",
            "iam-auth-origin": "https://app.test:8443",
            "iam-auth-nonce": NONCE,
            "iam-auth-proof": "signed-identity",
        }
        assert given_context == {"salt": "x"}

    @pytest.mark.parametrize(
        "key", ["iam-auth-origin", "IAM-AUTH-ORIGIN", "Iam-Auth-Nonce", "iam-auth-x", "iam-auth-"]
    )
    def test_a_challenge_cannot_bring_its_own(self, key: str) -> None:
        with pytest.raises(Malformed, match="a key of ours"):
            envelope.bound_context({key: "x"}, ORIGIN, NONCE, ProofKind.SIGNED_IDENTITY)

    def test_its_nonce_is_one(self) -> None:
        with pytest.raises(Malformed, match="the nonce is not"):
            envelope.bound_context({}, ORIGIN, "short", ProofKind.SIGNED_IDENTITY)


def test_nothing_of_it_is_in_the_repr() -> None:
    assert repr(Envelope(b"wrapped", IV, bytes(17))) == "Envelope()"


def test_importing_what_is_said_on_the_wire_imports_no_cryptography() -> None:
    """27 ms, on every start of a command that seals nothing."""
    code = (
        "import sys\n"
        "from iam_auth_proxy.protocol import challenge, envelope, handoff, signed_identity\n"
        "assert not {'cryptography', 'itsdangerous'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


CONTEXTS = st.dictionaries(
    st.text(st.characters(exclude_categories=["Cs"]), max_size=9),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=9),
    max_size=5,
)


@given(
    st.binary(min_size=1, max_size=60),
    st.binary(min_size=32, max_size=32),
    st.binary(min_size=12, max_size=12),
    st.binary(min_size=1, max_size=200),
    CONTEXTS,
    CONTEXTS,
)
def test_what_is_sealed_opens_with_its_context_alone(
    proof: bytes,
    key: bytes,
    iv: bytes,
    wrapped: bytes,
    context: dict[str, str],
    other: dict[str, str],
) -> None:
    made = Envelope(wrapped, iv, envelope.seal(proof, data_key=key, iv=iv, context=context))
    assert envelope.loads(made.dumps()) == made
    assert envelope.unseal(made, data_key=key, context=context) == proof
    if other != context:
        with pytest.raises(StaleToken):
            envelope.unseal(made, data_key=key, context=other)


@given(
    st.text(max_size=40)
    | st.lists(st.sampled_from(["e1", ".", "A", "AAAA", "_-", "=", "QUJD" * 12]), max_size=8).map(
        "".join
    )
)
def test_nothing_but_our_errors(text: str) -> None:
    for candidate in (text, f"e1.{text}", f"e1.QUJD.{text}"):
        try:
            found = envelope.loads(candidate)
        except IamAuthError:
            continue
        assert found.dumps() == candidate
