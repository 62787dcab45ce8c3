"""Who stole the key of a local CA, and signs with it whatever he likes."""

from __future__ import annotations

import contextlib
import datetime
import ipaddress
import socket
import ssl
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

SOON = datetime.timedelta(days=1)


def dns(name: str) -> x509.GeneralName:
    return x509.DNSName(name)


def address(text: str) -> x509.GeneralName:
    return x509.IPAddress(ipaddress.ip_address(text))


def named(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


class Thief:
    """Has the file of a CA, which is all that there is to steal."""

    def __init__(self, file: Path) -> None:
        text = file.read_bytes()
        key = serialization.load_pem_private_key(text, None)
        assert isinstance(key, ec.EllipticCurvePrivateKey)
        self.key = key
        self.sent = x509.load_pem_x509_certificates(text)[:1]  # without the root
        self.now = datetime.datetime.now(datetime.UTC)

    def signs(
        self,
        names: Sequence[x509.GeneralName],
        subject: x509.Name | None = None,
        *,
        ca: bool = False,
        key: ec.EllipticCurvePrivateKey | None = None,
    ) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
        """A certificate without anything that he need not put in."""
        key = key or ec.generate_private_key(ec.SECP256R1())
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject or named("a server"))
            .issuer_name(self.sent[0].subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(self.now - SOON)
            .not_valid_after(self.now + SOON)
            .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key()),
                critical=False,
            )
            .add_extension(
                x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False
            )
        )
        if names:
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        return builder.sign(self.key, hashes.SHA256()), key

    def climbs(self) -> Thief:
        """Makes himself a CA below the one that he has, and uses that from now on."""
        certificate, key = self.signs([], named("a CA of his own"), ca=True)
        higher = Thief.__new__(Thief)
        higher.key, higher.now = key, self.now
        higher.sent = [certificate, *self.sent]
        return higher

    def writes(
        self, folder: Path, names: Sequence[x509.GeneralName], subject: x509.Name | None = None
    ) -> Path:
        """A chain with the key of its leaf, in a file."""
        certificate, key = self.signs(names, subject)
        file = folder / f"{certificate.serial_number:x}.pem"
        private = key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        chain = b"".join(
            each.public_bytes(serialization.Encoding.PEM) for each in (certificate, *self.sent)
        )
        file.write_bytes(private + chain)
        return file


def unconstrained(folder: Path) -> tuple[Path, str]:
    """A CA of the same shape that is held down by nothing: its file, and PEM of its root."""
    now = datetime.datetime.now(datetime.UTC)
    keys = [ec.generate_private_key(ec.SECP256R1()) for _ in range(2)]
    made = []
    for name, key in (("A free root", keys[0]), ("A free CA", keys[1])):
        made.append(
            x509.CertificateBuilder()
            .subject_name(named(name))
            .issuer_name(named("A free root"))
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - SOON)
            .not_valid_after(now + 2 * SOON)
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .add_extension(
                x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False
            )
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(keys[0].public_key()),
                critical=False,
            )
            .sign(keys[0], hashes.SHA256())
        )
    root, middle = (each.public_bytes(serialization.Encoding.PEM) for each in made)
    private = keys[1].private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    file = folder / "free.pem"
    file.write_bytes(private + middle + root)
    return file, root.decode()


@contextlib.contextmanager
def serving(chain: Path, body: bytes, host: str = "127.0.0.1") -> Iterator[int]:
    """An https server that shows a chain, and answers every request with ``body``; its port."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(chain)
    head = (
        "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n"
        f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    ).encode()

    def answer(connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):  # who refuses the chain leaves
            connection.settimeout(20)
            with context.wrap_socket(connection, server_side=True) as session:
                session.recv(65536)
                session.sendall(head + body)
                session.unwrap()

    def accept() -> None:
        with contextlib.suppress(OSError):  # closed
            while True:
                threading.Thread(target=answer, args=(listener.accept()[0],), daemon=True).start()

    with socket.create_server((host, 0)) as listener:
        thread = threading.Thread(target=accept, daemon=True)
        thread.start()
        yield int(listener.getsockname()[1])
        listener.shutdown(socket.SHUT_RDWR)
    thread.join(20)
