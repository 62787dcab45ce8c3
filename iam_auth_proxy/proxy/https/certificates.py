"""Certificates of the local CA, as values: nothing here reads a file, a clock or a network.

One CA speaks for one domain. Its root signs itself and the intermediate, and then its key is gone:
it is in no return value. The intermediate signs the leaves, so its key is the one that can be
stolen. What that can sign is held down in both certificates, since verifiers differ in whether they
look at a root's constraints:

- critical name constraints (RFC 5280 section 4.2.1.10): permitted is the domain, which always
  covers the names under it; excluded are all IP addresses, e-mail addresses and URIs;
- a path length: it makes no further CA;
- serverAuth as the only use.
"""

from __future__ import annotations

import datetime
import ipaddress
from dataclasses import dataclass, field
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from iam_auth_proxy.errors import Malformed
from iam_auth_proxy.proxy.https.ca import ORGANISATION

CA_LIFE: Final = 730 * 86_400
"""Seconds that a CA is good for: its root's key is gone, so it is not renewed but made anew."""

LEAF_LIFE: Final = 7 * 86_400
"""Seconds that a leaf is good for."""

SKEW: Final = 3_600
"""Seconds that a leaf is dated back by, for clocks behind ours; a CA is by a day."""

_DAY: Final = 86_400
_CURVE: Final = ec.SECP256R1()
_LONGEST_NAME: Final = 64  # ub-common-name, RFC 5280 appendix A.1
_NOBODY: Final = "nobody.invalid"  # RFC 6761 section 6.4
_SERVER: Final = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH])


@dataclass(frozen=True, slots=True)
class Authority:
    """A CA: its certificates, and the key of the intermediate.

    :ivar domain: what it speaks for, with all names under it.
    """

    domain: str
    root: x509.Certificate
    intermediate: x509.Certificate
    key: ec.EllipticCurvePrivateKey = field(repr=False)

    @property
    def expires(self) -> float:
        """When it expires, in seconds since the epoch."""
        return self.intermediate.not_valid_after_utc.timestamp()

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the root, as browsers show it."""
        return self.root.fingerprint(hashes.SHA256()).hex(":").upper()

    @property
    def mark(self) -> str:
        """The part of its name that no other CA has."""
        (name,) = self.root.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
        return str(name.value).rpartition(" ")[2]

    @property
    def sha1(self) -> str:
        """Of the root: a name for it, as macOS and Windows take it; no defence rests on it."""
        return self.root.fingerprint(hashes.SHA1()).hex().upper()  # noqa: S303  # a name

    @property
    def root_pem(self) -> str:
        """The root alone: what is trusted, and no secret."""
        return _pem(self.root)

    def dumps(self) -> str:
        """PEM: the intermediate's key, the intermediate, the root. It holds a secret."""
        return _key_pem(self.key) + _pem(self.intermediate) + _pem(self.root)


@dataclass(frozen=True, slots=True)
class Leaf:
    """The certificate of one host.

    :ivar chain: PEM of the leaf and of the intermediate, as they are sent.
    :ivar key: PEM.
    :ivar begins: epoch seconds, and so is ``ends``.
    """

    chain: str
    key: str = field(repr=False)
    begins: float
    ends: float


def make_authority(domain: str, now: float) -> Authority:
    """A new CA.

    :param domain: as :func:`~iam_auth_proxy.config.parse_domain` gives it.
    :param now: epoch seconds.
    """
    root_key, key = ec.generate_private_key(_CURVE), ec.generate_private_key(_CURVE)
    # No two CAs have one name: of two, a verifier may try only one.
    mark = f"{x509.random_serial_number():x}"[:8]
    root_name, name = _name(domain, f"root {mark}"), _name(domain, f"CA {mark}")
    root = _ca(root_name, root_key, root_name, root_key, 1, domain, now)
    intermediate = _ca(name, key, root_name, root_key, 0, domain, now)
    return Authority(domain, root, intermediate, key)


def load_authority(text: str) -> Authority:
    """What :meth:`Authority.dumps` wrote; the domain is the one that the root permits.

    :raises Malformed: anything else.
    """
    data = text.encode()
    try:
        key = serialization.load_pem_private_key(data, None)
        intermediate, root = x509.load_pem_x509_certificates(data)
        constraints = root.extensions.get_extension_for_class(x509.NameConstraints).value
    except (ValueError, TypeError, UnsupportedAlgorithm, x509.ExtensionNotFound) as error:
        raise Malformed("a key, a CA and its root are expected") from error
    try:
        intermediate.verify_directly_issued_by(root)
    except (ValueError, TypeError, InvalidSignature) as error:
        raise Malformed("the CA is not of its root") from error
    names = [
        each for each in constraints.permitted_subtrees or () if isinstance(each, x509.DNSName)
    ]
    common = root.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    if not isinstance(key, ec.EllipticCurvePrivateKey) or len(names) != 1 or len(common) != 1:
        raise Malformed("the CA is not one of this program's")
    if key.public_key() != intermediate.public_key():
        raise Malformed("the key is another CA's")
    return Authority(names[0].value, root, intermediate, key)


def make_leaf(authority: Authority, host: str, now: float) -> Leaf:
    """A leaf with a key of its own.

    :param host: the CA's domain, or a name under it.
    :param now: epoch seconds.
    """
    key = ec.generate_private_key(_CURVE)
    begins, ends = now - SKEW, min(now + LEAF_LIFE, authority.expires)
    issuer = authority.intermediate.subject
    leaf = (
        _builder(_ORGANISATION, key, issuer, authority.key, begins, ends)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(host)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(digital_signature=True), critical=True)
        .sign(authority.key, hashes.SHA256())
    )
    return Leaf(_pem(leaf) + _pem(authority.intermediate), _key_pem(key), begins, ends)


# -- how -------------------------------------------------------------------------------------------

_Key = ec.EllipticCurvePrivateKey
_ORGANISATION: Final = x509.Name([x509.NameAttribute(NameOID.ORGANIZATION_NAME, ORGANISATION)])


def _name(domain: str, part: str) -> x509.Name:
    """The name of a CA; a long domain is cut at its start, since its end tells whose it is."""
    room = _LONGEST_NAME - len(part) - 1
    text = f"{domain[-room:]} {part}"
    return x509.Name([*_ORGANISATION, x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _ca(
    name: x509.Name, key: _Key, issuer: x509.Name, by: _Key, below: int, domain: str, now: float
) -> x509.Certificate:
    return (
        _builder(name, key, issuer, by, now - _DAY, now + CA_LIFE)
        .add_extension(x509.BasicConstraints(ca=True, path_length=below), critical=True)
        .add_extension(_usage(key_cert_sign=True), critical=True)
        .add_extension(_constraints(domain), critical=True)
        .sign(by, hashes.SHA256())
    )


def _constraints(domain: str) -> x509.NameConstraints:
    """The one domain, and no name of another kind.

    For e-mail addresses and URIs the one name that is permitted is excluded as well. An empty name,
    which for DNS stands for all names, is no way to exclude them: OpenSSL takes it for none of
    them, and Java for a certificate that it cannot read.
    """
    none = [x509.RFC822Name(_NOBODY), x509.UniformResourceIdentifier(_NOBODY)]
    addresses = [x509.IPAddress(ipaddress.ip_network(each)) for each in ("0.0.0.0/0", "::/0")]
    return x509.NameConstraints([x509.DNSName(domain), *none], [*addresses, *none])


def _builder(
    name: x509.Name, key: _Key, issuer: x509.Name, by: _Key, begins: float, ends: float
) -> x509.CertificateBuilder:
    identifier = x509.AuthorityKeyIdentifier.from_issuer_public_key(by.public_key())
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(_moment(begins))
        .not_valid_after(_moment(ends))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(identifier, critical=False)
        .add_extension(_SERVER, critical=False)
    )


def _usage(*, digital_signature: bool = False, key_cert_sign: bool = False) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=digital_signature,
        key_cert_sign=key_cert_sign,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        crl_sign=False,
        encipher_only=False,
        decipher_only=False,
    )


def _moment(at: float) -> datetime.datetime:
    return datetime.datetime.fromtimestamp(int(at), datetime.UTC)


def _pem(certificate: x509.Certificate) -> str:
    return certificate.public_bytes(serialization.Encoding.PEM).decode()


def _key_pem(key: _Key) -> str:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    ).decode()
