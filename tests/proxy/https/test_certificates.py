"""The local CA's certificates as values; tests/e2e/test_name_constraints.py asks verifiers."""

import datetime
import ipaddress

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from iam_auth_proxy.errors import Malformed
from iam_auth_proxy.proxy.https.certificates import (
    CA_LIFE,
    LEAF_LIFE,
    SKEW,
    Authority,
    Leaf,
    load_authority,
    make_authority,
    make_leaf,
)

NOW = 1_800_000_000.0
EVERY_ADDRESS = {ipaddress.ip_network("0.0.0.0/0"), ipaddress.ip_network("::/0")}


@pytest.fixture(scope="module")
def authority() -> Authority:
    return make_authority("app.test", NOW)


def both(authority: Authority) -> list[tuple[x509.Certificate, int]]:
    return [(authority.root, 1), (authority.intermediate, 0)]


def test_both_are_held_down(authority: Authority) -> None:
    for certificate, below in both(authority):
        constraints = certificate.extensions.get_extension_for_class(x509.NameConstraints)
        assert constraints.critical
        permitted, excluded = (
            constraints.value.permitted_subtrees or [],
            constraints.value.excluded_subtrees or [],
        )
        assert [each.value for each in permitted if isinstance(each, x509.DNSName)] == ["app.test"]
        assert {each.value for each in excluded if isinstance(each, x509.IPAddress)} == (
            EVERY_ADDRESS
        )
        for kind in (x509.RFC822Name, x509.UniformResourceIdentifier):
            for listed in (permitted, excluded):
                names = [each.value for each in listed if isinstance(each, kind)]
                assert names == ["nobody.invalid"]
        basic = certificate.extensions.get_extension_for_class(x509.BasicConstraints)
        assert (basic.critical, basic.value.ca, basic.value.path_length) == (True, True, below)
        usage = certificate.extensions.get_extension_for_class(x509.KeyUsage)
        assert usage.critical
        assert usage.value.key_cert_sign
        assert not usage.value.digital_signature


def test_only_servers(authority: Authority) -> None:
    leaf = parsed(make_leaf(authority, "app.test", NOW))
    for certificate in (authority.root, authority.intermediate, leaf):
        uses = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
        assert list(uses) == [x509.oid.ExtendedKeyUsageOID.SERVER_AUTH]
        assert isinstance(certificate.public_key(), ec.EllipticCurvePublicKey)


def test_a_leaf(authority: Authority) -> None:
    made = make_leaf(authority, "a.app.test", NOW)
    leaf = parsed(made)
    leaf.verify_directly_issued_by(authority.intermediate)
    basic = leaf.extensions.get_extension_for_class(x509.BasicConstraints)
    assert not basic.value.ca
    usage = leaf.extensions.get_extension_for_class(x509.KeyUsage).value
    assert usage.digital_signature
    assert not usage.key_cert_sign
    assert leaf.not_valid_before_utc == moment(NOW - SKEW) == moment(made.begins)
    assert leaf.not_valid_after_utc == moment(NOW + LEAF_LIFE) == moment(made.ends)
    assert LEAF_LIFE == 7 * 86_400


def test_no_leaf_outlives_its_ca(authority: Authority) -> None:
    late = make_leaf(authority, "app.test", NOW + CA_LIFE - 60)
    assert late.ends == authority.expires == NOW + CA_LIFE


def test_no_two_cas_have_one_name() -> None:
    first, second = make_authority("app.test", NOW), make_authority("app.test", NOW)
    names = {each.subject for made in (first, second) for each, _ in both(made)}
    assert len(names) == 4


def test_a_long_domain_is_told_by_its_end() -> None:
    domain = "a" * 60 + ".internal.example.com"
    subject = make_authority(domain, NOW).root.subject
    (name,) = subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME)
    assert ".internal.example.com root" in str(name.value)


def test_it_comes_back_as_it_was_written(authority: Authority) -> None:
    found = load_authority(authority.dumps())
    assert found.dumps() == authority.dumps()
    assert found.domain == "app.test"


def test_no_repr_shows_a_key(authority: Authority) -> None:
    leaf = make_leaf(authority, "app.test", NOW)
    assert "key" not in repr(authority).lower()
    assert "PRIVATE" not in repr(leaf)
    assert "PRIVATE" not in authority.root_pem + leaf.chain


def test_another_kind_of_key(authority: Authority) -> None:
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ed25519

    key = ed25519.Ed25519PrivateKey.generate().private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    certificates = authority.dumps().partition("-----END PRIVATE KEY-----\n")[2]
    with pytest.raises(Malformed, match="not one of this program's"):
        load_authority(key.decode() + certificates)


def parsed(leaf: Leaf) -> x509.Certificate:
    return x509.load_pem_x509_certificate(leaf.chain.encode())


def moment(at: float) -> datetime.datetime:
    return datetime.datetime.fromtimestamp(at, datetime.UTC)
