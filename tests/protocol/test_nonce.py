"""The nonce and its cookie. The cases are data: tests/vectors/nonces.json, nonce_cookies.json."""

from __future__ import annotations

import hmac
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from iam_auth_proxy.errors import (
    BadChallenge,
    BadNonce,
    Expired,
    Malformed,
    NonceKeyUnknown,
    WrongOrigin,
)
from iam_auth_proxy.names import Origin, parse_origin
from iam_auth_proxy.protocol import cookies, nonce
from iam_auth_proxy.protocol.keyring import KeyRing, KeyVersion
from iam_auth_proxy.protocol.nonce import Nonce
from tests.support import vectors

OLD = KeyRing.from_secret("oL1d8xKq0VbTz4LrYw7PmC3sHd6GkE9b").primary
NEW = KeyRing.from_secret("fJ2n8xKq0VbTz4LrYw7PmC3sHd6GkE9a").primary
RING = KeyRing(primary=NEW, also_accepted=(OLD,))
NOW = 1_790_000_000
ORIGIN = parse_origin("https://app.test")
RANDOM = bytes(range(16))
TEXT = nonce.issue(RING, ORIGIN, 41, NOW, RANDOM)


def read(case: dict[str, Any]) -> Nonce:
    return nonce.open_(case["nonce"], RING, origin=parse_origin(case["origin"]), now=case["now"])


class TestNonce:
    @pytest.mark.parametrize("case", vectors.accepted("nonces"))
    def test_is_read(self, case: dict[str, Any]) -> None:
        origin = parse_origin(case["origin"])
        signer = RING.get(case["nonce"].partition(".")[0])
        assert signer is not None
        assert read(case) == Nonce(origin, case["epoch"], case["issued"], signer)
        issued = nonce.issue(RING, origin, case["epoch"], case["issued"], RANDOM)
        assert issued == case["nonce"]

    @pytest.mark.parametrize(("case", "error"), vectors.refused("nonces"))
    def test_is_refused(self, case: dict[str, Any], error: str) -> None:
        expected = {"older than 300 s": Expired, "the nonce is for": WrongOrigin}
        with pytest.raises(expected.get(error, BadNonce), match=re.escape(error)):
            read(case)

    def test_is_signed_by_the_primary_and_holds_with_a_key_that_was_one(self) -> None:
        assert TEXT.startswith(NEW.id + ".")
        older = nonce.issue(KeyRing(primary=OLD), ORIGIN, 41, NOW, RANDOM)
        assert older != TEXT
        assert nonce.open_(older, RING, origin=ORIGIN, now=NOW) == Nonce(ORIGIN, 41, NOW, OLD)
        with pytest.raises(NonceKeyUnknown, match=f"{OLD.id} is not in the ring"):
            nonce.open_(older, KeyRing(primary=NEW), origin=ORIGIN, now=NOW)

    def test_no_character_of_it_may_change(self) -> None:
        for at, char in enumerate(TEXT):
            changed = TEXT[:at] + ("A" if char != "A" else "B") + TEXT[at + 1 :]
            with pytest.raises(BadNonce):
                nonce.open_(changed, RING, origin=ORIGIN, now=NOW)

    @pytest.mark.parametrize("change", [{"epoch": 42}, {"now": NOW + 1}, {"random": bytes(16)}])
    def test_everything_in_it_tells(self, change: dict[str, Any]) -> None:
        values = {"origin": ORIGIN, "epoch": 41, "now": NOW, "random": RANDOM} | change
        assert nonce.issue(RING, **values) != TEXT

    def test_the_signature_is_compared_in_constant_time(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        seen = []

        def compare(left: bytes, right: bytes) -> bool:
            seen.append((left, right))
            return False

        monkeypatch.setattr(hmac, "compare_digest", compare)
        with pytest.raises(BadNonce, match="does not verify"):
            nonce.open_(TEXT, RING, origin=ORIGIN, now=NOW)
        ((left, right),) = seen
        assert left == right

    @pytest.mark.parametrize("size", [0, 15, 17, 32])
    def test_takes_128_random_bits(self, size: int) -> None:
        with pytest.raises(ValueError, match="16 random bytes"):
            nonce.issue(RING, ORIGIN, 41, NOW, bytes(size))

    def test_the_longest_origin_and_key_id_fit(self) -> None:
        host = ".".join(["a" * 63] * 3 + ["a" * 61]) + "."
        origin = Origin("https", host, 65535)
        ring = KeyRing(primary=KeyVersion("f" * 64, b"x" * 32))
        text = nonce.issue(ring, origin, 2**63, NOW, RANDOM)
        assert len(text) <= 512
        assert nonce.open_(text, ring, origin=origin, now=NOW).origin == origin

    def test_nobody_accepts_it_after_it_may_be_forgotten(self) -> None:
        """Whoever's clock is at most a minute behind that of the worker who forgets."""
        found = nonce.open_(TEXT, RING, origin=ORIGIN, now=NOW + 300)
        with pytest.raises(Expired):
            nonce.open_(TEXT, RING, origin=ORIGIN, now=found.until - nonce.SKEW)

    @given(
        st.sampled_from(["http", "https"]),
        st.from_regex(r"[a-z0-9_]{1,20}(\.[a-z]{1,10}){0,3}", fullmatch=True),
        st.integers(1, 65535),
        st.integers(0, 2**64 - 1),
        st.floats(0, 2**40),
        st.binary(min_size=16, max_size=16),
    )
    def test_what_is_issued_is_read(
        self, scheme: str, host: str, port: int, epoch: int, now: float, random: bytes
    ) -> None:
        try:
            origin = parse_origin(f"{scheme}://{host}:{port}")
        except Malformed:
            return  # digits at the end: tests/vectors/origins.json
        text = nonce.issue(RING, origin, epoch, now, random)
        assert nonce.check_nonce(text) == text
        assert nonce.open_(text, RING, origin=origin, now=now) == Nonce(
            origin, epoch, int(now), RING.primary
        )

    @given(
        st.text(max_size=60)
        | st.from_regex(NEW.id + r"\.[A-Za-z0-9_-]{1,40}\.[A-Za-z0-9_-]{43}", fullmatch=True)
    )
    def test_nothing_but_our_error(self, text: str) -> None:
        with pytest.raises(BadNonce):
            nonce.open_(text, RING, origin=ORIGIN, now=NOW)


class TestCookie:
    @pytest.mark.parametrize("case", vectors.accepted("nonce_cookies"))
    def test_is_read(self, case: dict[str, Any]) -> None:
        headers = [(n.encode("latin-1"), v.encode("latin-1")) for n, v in case["headers"]]
        assert nonce.read_set_cookie(headers, parse_origin(case["origin"])) == case["nonce"]

    @pytest.mark.parametrize(("case", "error"), vectors.refused("nonce_cookies"))
    def test_is_refused(self, case: dict[str, Any], error: str) -> None:
        headers = [(n.encode("latin-1"), v.encode("latin-1")) for n, v in case["headers"]]
        with pytest.raises(BadChallenge, match=re.escape(error)):
            nonce.read_set_cookie(headers, parse_origin(case["origin"]))

    @pytest.mark.parametrize(
        ("origin", "name", "secure"),
        [
            ("https://app.test", "__Host-iam_auth_nonce", "; Secure"),
            ("http://app.test", "iam_auth_nonce", ""),
            ("https://app.test:8443", "__Host-iam_auth_nonce-8443", "; Secure"),
            ("http://app.test:8080", "iam_auth_nonce-8080", ""),
        ],
    )
    def test_is_written_for_one_origin_and_read_by_both_ends(
        self, origin: str, name: str, secure: str
    ) -> None:
        where = parse_origin(origin)
        value = nonce.write_cookie(where, TEXT)
        assert value == f"{name}={TEXT}; Path=/; HttpOnly; SameSite=Lax; Max-Age=300{secure}"
        assert nonce.read_set_cookie([(b"Set-Cookie", value.encode())], where) == TEXT
        pair = value.partition(";")[0]
        assert cookies.read_cookie([f"a=b; {pair}"], nonce.cookie_name(where)) == TEXT

    def test_holds_a_nonce_and_nothing_else(self) -> None:
        with pytest.raises(Malformed, match="the nonce is not"):
            nonce.write_cookie(ORIGIN, TEXT + "; Domain=app.test")

    @pytest.mark.parametrize(
        "value",
        [
            b"iam_auth_nonce=x",
            b"__Host-iam_auth_nonce=x; Path=/",
            b"iam_auth_nonce-8080=x",
            b"__Host-iam_auth_nonce-65535=",
            b" \tiam_auth_nonce =x\r\n",
            b"IAM_AUTH_NONCE=x",
            b"__HOST-iam_auth_nonce=x",
        ],
    )
    def test_is_known_whatever_its_port_and_case(self, value: bytes) -> None:
        assert nonce.is_nonce_cookie(value)

    @pytest.mark.parametrize(
        "value",
        [
            b"",
            b"iam-auth=x",
            b"iam_auth_nonce",
            b"iam_auth_nonce; a=b",
            b"iam_auth_nonces=x",
            b"my_iam_auth_nonce=x",
            b"iam_auth_nonce-=x",
            b"iam_auth_nonce-x=x",
            b"a=iam_auth_nonce=x",
            b"\xa0iam_auth_nonce=x",
        ],
    )
    def test_the_apps_own_cookies_are_none(self, value: bytes) -> None:
        assert not nonce.is_nonce_cookie(value)


WRITTEN = nonce.write_cookie(ORIGIN, TEXT).encode()
SPELLINGS = st.one_of(
    st.binary(max_size=40),
    st.lists(
        st.sampled_from(
            (
                WRITTEN,
                b"__Host-iam_auth_nonce",
                b"iam_auth_nonce",
                b"=",
                b";",
                b" ",
                b"\xff",
                TEXT.encode(),
            )
        ),
        max_size=6,
    ).map(b"".join),
)


@given(st.lists(st.tuples(st.sampled_from((b"Set-Cookie", b"set-cookie", b"X")), SPELLINGS)))
def test_any_cookies_hold_a_nonce_none_or_our_error(headers: list[tuple[bytes, bytes]]) -> None:
    written = (b"Set-Cookie", WRITTEN)
    try:
        found = nonce.read_set_cookie(headers, ORIGIN)
    except BadChallenge:
        return
    if found is None:
        assert nonce.read_set_cookie([*headers, written], ORIGIN) == TEXT
        return
    assert nonce.check_nonce(found) == found
    with pytest.raises(BadChallenge, match="several times"):
        nonce.read_set_cookie([*headers, written], ORIGIN)
