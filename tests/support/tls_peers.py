"""Peers that speak TLS, well and badly, on loopback: for what the relay makes of each.

:data:`PEERS` has them by the names that ``tests/vectors/tls_failures.json`` uses.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import os
import socket
import ssl
import threading
import warnings
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import trustme
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tests.support.upstreams import listening

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"
HOST = "app.test"
DAY = datetime.timedelta(days=1)


def server_context(leaf: trustme.LeafCert) -> ssl.SSLContext:
    """A server's, with this certificate and its chain."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    leaf.configure_cert(context)
    return context


def authority_file(authority: trustme.CA, folder: Path) -> str:
    """The authority's certificate, as ``--cacert`` takes it."""
    path = folder / "authority.pem"
    authority.cert_pem.write_to_path(str(path))
    return str(path)


def key_pair(leaf: trustme.LeafCert, folder: Path, name: str = "client") -> tuple[str, str]:
    """(certificate with its chain, key): the paths of two PEM files."""
    certificate, key = folder / f"{name}.pem", folder / f"{name}.key"
    certificate.write_bytes(b"".join(blob.bytes() for blob in leaf.cert_chain_pems))
    key.write_bytes(leaf.private_key_pem.bytes())
    key.chmod(0o600)
    return str(certificate), str(key)


def self_signed(folder: Path, name: str = HOST) -> ssl.SSLContext:
    """A server's context with a certificate that only it vouches for."""
    key = ec.generate_private_key(ec.SECP256R1())
    called = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"{name}\u202e\n<b>")])
    now = datetime.datetime.now(datetime.UTC)
    builder = x509.CertificateBuilder().subject_name(called).issuer_name(called)
    builder = builder.public_key(key.public_key()).serial_number(x509.random_serial_number())
    builder = builder.not_valid_before(now - DAY).not_valid_after(now + DAY)
    builder = builder.add_extension(
        x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False
    )
    return _loaded(key, builder.sign(key, hashes.SHA256()), folder / "self-signed.pem")


async def answering(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """An app that says hello to every request."""
    while await reader.readuntil(b"\r\n\r\n"):
        writer.write(OK)


@contextlib.asynccontextmanager
async def speaking(
    context: ssl.SSLContext | None, serve: Serve = answering, host: str = "127.0.0.1"
) -> AsyncIterator[int]:
    """A server; gives its port. Closes what ``serve`` leaves open, and says so (close_notify)."""
    tasks: set[asyncio.Task[None]] = set()

    async def client(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        try:
            await serve(reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError, ssl.SSLError):
            pass  # the client went
        except asyncio.CancelledError:
            pass  # the test is over
        finally:
            tasks.discard(task)
            writer.close()

    server = await asyncio.start_server(client, host, 0, ssl=context)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks)


@contextlib.asynccontextmanager
async def blunt(context: ssl.SSLContext) -> AsyncIterator[int]:
    """A server whose handshakes are OpenSSL's alone: the loops' send no alert when they fail."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            client.settimeout(5)
            with (
                contextlib.suppress(OSError),
                context.wrap_socket(client, True, do_handshake_on_connect=False) as made,
            ):
                try:
                    made.do_handshake()
                except ssl.SSLError:
                    made.shutdown(socket.SHUT_WR)
                    # Beneath TLS, until the client goes: a reset would take the alert with it.
                    while socket.socket.recv(made, 65536):
                        pass
                while made.recv(65536):
                    made.sendall(OK)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield listener.getsockname()[1]
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        await asyncio.to_thread(thread.join)


def half_close(writer: asyncio.StreamWriter) -> None:
    """FIN beneath TLS, which is not told."""
    with socket.socket(fileno=os.dup(writer.get_extra_info("socket").fileno())) as sock:
        sock.shutdown(socket.SHUT_WR)


# -- bad ones --------------------------------------------------------------------------------------

Peer = Callable[[trustme.CA, Path], contextlib.AbstractAsyncContextManager[int]]


def _with(context: Callable[[trustme.CA, Path], ssl.SSLContext]) -> Peer:
    return lambda authority, folder: speaking(context(authority, folder))


def _bluntly(context: Callable[[trustme.CA, Path], ssl.SSLContext]) -> Peer:
    return lambda authority, folder: blunt(context(authority, folder))


def _now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC)


def _valid(begin: datetime.timedelta, end: datetime.timedelta) -> Peer:
    return _with(
        lambda authority, _: server_context(
            authority.issue_cert(HOST, not_before=_now() + begin, not_after=_now() + end)
        )
    )


def _named(*names: str) -> Peer:
    return _with(lambda authority, _: server_context(authority.issue_cert(*names)))


def _nameless(authority: trustme.CA, folder: Path) -> ssl.SSLContext:
    """The host is a common name, as it was before 2000, and there are no other names."""
    key = ec.generate_private_key(ec.SECP256R1())
    root = x509.load_pem_x509_certificate(authority.cert_pem.bytes())
    signs = serialization.load_pem_private_key(authority.private_key_pem.bytes(), None)
    assert isinstance(signs, ec.EllipticCurvePrivateKey)
    called = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, HOST)])
    builder = x509.CertificateBuilder().subject_name(called).issuer_name(root.subject)
    builder = builder.public_key(key.public_key()).serial_number(x509.random_serial_number())
    builder = builder.not_valid_before(_now() - DAY).not_valid_after(_now() + DAY)
    return _loaded(key, builder.sign(signs, hashes.SHA256()), folder / "nameless.pem")


def _loaded(
    key: ec.EllipticCurvePrivateKey, certificate: x509.Certificate, file: Path
) -> ssl.SSLContext:
    plain = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    pem = serialization.Encoding.PEM
    file.write_bytes(key.private_bytes(pem, *plain) + certificate.public_bytes(pem))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(file)
    return context


def _below(authority: trustme.CA, folder: Path) -> ssl.SSLContext:
    """The certificate in between is not sent."""
    leaf = authority.create_child_ca().issue_cert(HOST)
    file = folder / "alone.pem"
    file.write_bytes(leaf.private_key_pem.bytes() + leaf.cert_chain_pems[0].bytes())
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(file)
    return context


def _old(authority: trustme.CA, folder: Path) -> ssl.SSLContext:
    context = server_context(authority.issue_cert(HOST))
    context.set_ciphers("DEFAULT@SECLEVEL=0")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # deprecated, and that is the point
        context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1
    return context


def _wants_client(authority: trustme.CA, version: ssl.TLSVersion) -> ssl.SSLContext:
    context = server_context(authority.issue_cert(HOST))
    authority.configure_trust(context)
    context.verify_mode = ssl.CERT_REQUIRED
    context.maximum_version = version
    return context


def _raw(serve: Serve) -> Peer:
    return lambda authority, folder: listening(serve)


def _says(answer: bytes) -> Peer:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(65536)
        writer.write(answer)
        await reader.read()

    return _raw(serve)


def _alert(number: int) -> Peer:
    return _says(bytes([0x15, 3, 3, 0, 2, 2, number]))  # RFC 8446 section 6


async def _stalls(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read()


async def _hangs_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read(65536)


@contextlib.asynccontextmanager
async def cut_after(port: int, size: int) -> AsyncIterator[int]:
    """A way to ``port`` that ends after so many bytes from there."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", port)
        try:
            pump = asyncio.create_task(_pump(reader, far_writer))
            left = size
            while left and (data := await far_reader.read(left)):
                left -= len(data)
                writer.write(data)
            await writer.drain()
            pump.cancel()
        finally:
            far_writer.transport.abort()

    async with listening(serve) as here:
        yield here


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65536):
        writer.write(data)


@contextlib.asynccontextmanager
async def _cut(authority: trustme.CA, size: int) -> AsyncIterator[int]:
    async with (
        speaking(server_context(authority.issue_cert(HOST))) as port,
        cut_after(port, size) as here,
    ):
        yield here


PEERS: dict[str, Peer] = {
    "good": _named(HOST),
    "expired": _valid(-30 * DAY, -2 * DAY),
    "not yet valid": _valid(2 * DAY, 30 * DAY),
    "another name": _named("other.test", "*.other.test", "a.test", "b.test", "c.test", "d.test"),
    "an address": _named("127.0.0.1"),
    "a common name alone": _with(_nameless),
    "self-signed": _with(lambda _, folder: self_signed(folder)),
    "an unknown authority": _with(lambda *_: server_context(trustme.CA().issue_cert(HOST))),
    "no certificate in between": _with(_below),
    "TLS 1.0 alone": _bluntly(_old),
    "stalls in the handshake": _raw(_stalls),
    "hangs up at once": _raw(_hangs_up),
    "dies in the handshake": lambda authority, _: _cut(authority, 200),
    "plain HTTP": _says(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n"),
    "something else": _says(b"SSH-2.0-OpenSSH_9.2p1\r\n"),
    "another version by alert": _alert(70),
    "another name by alert": _alert(112),
    "another protocol by alert": _alert(120),
    "a fault by alert": _alert(80),
    "a client certificate, TLS 1.3": _bluntly(
        lambda a, _: _wants_client(a, ssl.TLSVersion.TLSv1_3)
    ),
    "a client certificate, TLS 1.2": _bluntly(
        lambda a, _: _wants_client(a, ssl.TLSVersion.TLSv1_2)
    ),
}
