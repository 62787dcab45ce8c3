"""Key versions, rings, derivation, and the secrets that are refused."""

from __future__ import annotations

import secrets

import pytest
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from hypothesis import given
from hypothesis import strategies as st

from iam_auth_proxy.errors import Malformed
from iam_auth_proxy.protocol import keyring
from iam_auth_proxy.protocol.keyring import (
    Health,
    KeyRing,
    KeyVersion,
    Rings,
    StaticRings,
    check_secret,
    derive,
)

SECRET = "fJ2n8xKq0VbTz4LrYw7PmC3sHd6GkE9a"
ONE = KeyVersion.of(b"one")
TWO = KeyVersion.of(b"two")


class TestKeyVersion:
    def test_its_id_comes_from_its_material(self) -> None:
        assert KeyVersion.of(b"one", created=5).id == ONE.id
        assert ONE.id != TWO.id
        assert len(bytes.fromhex(ONE.id)) == 6

    def test_its_material_is_not_in_the_repr(self) -> None:
        assert repr(KeyVersion("0a", b"material")) == "KeyVersion(id='0a', created=0)"


class TestKeyRing:
    def test_finds_a_key_by_its_id_alone(self) -> None:
        ring = KeyRing(primary=ONE, also_accepted=(TWO,))
        assert ring.versions == (ONE, TWO)
        assert ring.get(ONE.id) is ONE
        assert ring.get(TWO.id) is TWO
        assert ring.get("") is None
        assert KeyRing(primary=TWO).get(ONE.id) is None

    def test_two_versions_of_one_id_are_refused(self) -> None:
        with pytest.raises(Malformed, match="two versions of one id"):
            KeyRing(primary=ONE, also_accepted=(TWO, KeyVersion.of(b"one")))

    def test_is_never_made_of_a_bare_list(self) -> None:
        with pytest.raises(TypeError):
            KeyRing([ONE, TWO])  # type: ignore[misc,arg-type]  # that is the test

    def test_of_one_secret_is_the_same_everywhere(self) -> None:
        assert KeyRing.from_secret(SECRET) == KeyRing.from_secret(SECRET)
        assert KeyRing.from_secret(SECRET).primary.id == "2e529ab59912"
        assert SECRET not in repr(KeyRing.from_secret(SECRET))

    def test_is_not_made_of_a_weak_secret(self) -> None:
        with pytest.raises(Malformed, match="the secret has 5 characters") as caught:
            KeyRing.from_secret("short")
        assert "short" not in str(caught.value)

    def test_takes_a_secret_whose_bytes_are_no_text(self) -> None:
        """os.environ decodes what is not UTF-8 to lone surrogates."""
        ring = KeyRing.from_secret(SECRET + "\udcff")
        assert ring != KeyRing.from_secret(SECRET)


class TestStaticRings:
    def test_has_one_ring_at_every_moment(self) -> None:
        ring = KeyRing(primary=ONE, also_accepted=(TWO,))
        rings: Rings = StaticRings(ring)
        assert rings.at(0) is rings.at(4e9) is ring

    def test_is_always_fresh_and_has_nothing_to_read(self) -> None:
        rings: Rings = StaticRings(KeyRing(primary=ONE))
        assert rings.reread(5.0) is False
        assert rings.health(5.0) == Health(ok=True, read_at=5.0)


class TestDerive:
    @given(st.binary(max_size=80), st.text(max_size=20))
    def test_is_the_hkdf_of_rfc_5869(self, material: bytes, purpose: str) -> None:
        info = b"iam-auth " + purpose.encode("utf-8")
        expected = HKDF(SHA256(), length=32, salt=None, info=info).derive(material)
        assert derive(purpose, KeyVersion.of(material)) == expected

    def test_each_purpose_and_version_has_its_own(self) -> None:
        keys = {derive(purpose, version) for purpose in "ab" for version in (ONE, TWO)}
        assert len(keys) == 4


class TestCheckSecret:
    @pytest.mark.parametrize(
        "secret",
        [
            SECRET,
            "83f1c0d9a7b24e65f3a9c1d72b604e85",
            "correct horse battery staple, and two more words",
            "<" + SECRET,
            "Zürich öffnet früh, sagt Jürgen übrigens",
        ],
    )
    def test_takes_good_ones(self, secret: str) -> None:
        assert check_secret(secret) is None

    @pytest.mark.parametrize(
        ("secret", "reason"),
        [
            ("", "has 0 characters"),
            ("short", "has 5 characters"),
            (SECRET[:31], "has 31 characters; it needs at least 32"),
            ("a" * 64, "only 1 different"),
            ("abababab" * 8, "only 2 different"),
            ("1234567" * 8, "only 7 different"),
            (SECRET[:16] * 2, "repeats"),
            ("0123456789abcdef" * 4, "repeats"),
            ("abcdefghijklmnopqrstuvwxyz012345", "counts"),
            ("ZYXWVUTSRQPONMLKJIHGFEDCBA987654", "counts"),
            ("aaaaaaaabbbbbbbbccccccccddddeeeeffffgggghhhh", "counts"),
            (SECRET + "\n", "white space"),
            (" " + SECRET, "white space"),
            ("<long random string>", "is a placeholder"),
            ("<put forty characters of noise right here>", "is a placeholder"),
            ("changeme", "contains 'changeme'"),
            ("ChangeMe-ChangeMe-ChangeMe-ChangeMe!", "contains 'changeme'"),
            ("secret", "contains 'secret'"),
            ("SECRET_KEY_of_my_first_flask_app_2024", "contains 'secret'"),
            ("your-key-goes-here-0123456789-abcdef", "contains 'your-key'"),
            ("django-insecure-fJ2n8xKq0VbTz4LrYw7PmC3sHd6", "contains 'insecure'"),
            ("correct-password-battery-staple-1234", "contains 'password'"),
            ("a long random string of the readme!!", "contains 'random string'"),
            ("this is only an EXAMPLE, do not use it", "contains 'example'"),
        ],
    )
    def test_refuses_what_people_type_and_paste(self, secret: str, reason: str) -> None:
        found = check_secret(secret)
        assert found is not None
        assert reason in found

    def test_never_says_the_secret(self) -> None:
        for secret in (SECRET[:20], SECRET[:16] * 2, SECRET + " ", "x" * 40):
            assert secret not in str(check_secret(secret))

    def test_takes_what_the_command_makes(self) -> None:
        assert "token_urlsafe(32)" in keyring.SECRET_COMMAND
        for _ in range(300):
            assert check_secret(secrets.token_urlsafe(32)) is None
            assert check_secret(secrets.token_hex(16)) is None
