"""``--cacert``: a company's authority besides the usual ones, for the calls to AWS."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme
from botocore.httpsession import get_cert_path

from iam_auth_proxy.aws.authorities import bundle
from iam_auth_proxy.aws.credentials import AwsPrincipal, CredentialSettings
from iam_auth_proxy.errors import AwsUnavailable
from iam_auth_proxy.local_aws import LocalAws


@pytest.fixture
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def https(local_aws: LocalAws, authority: trustme.CA) -> Iterator[int]:
    """A port where TLS ends before the embedded AWS."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    listener = socket.create_server(("127.0.0.1", 0))

    def pump(source: socket.socket, sink: socket.socket) -> None:
        try:
            while data := source.recv(65536):
                sink.sendall(data)
            sink.shutdown(socket.SHUT_WR)
        except OSError:
            pass  # one of the two went away

    def end_tls(raw: socket.socket) -> None:
        try:
            near = context.wrap_socket(raw, server_side=True)
        except (ssl.SSLError, OSError):
            raw.close()  # the client did not like our certificate
            return
        far = socket.create_connection(("127.0.0.1", int(local_aws.url.rpartition(":")[2])))
        with near, far:
            back = threading.Thread(target=pump, args=(far, near), daemon=True)
            back.start()
            pump(near, far)
            back.join(10)

    def serve() -> None:
        while True:
            try:
                raw, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=end_tls, args=(raw,), daemon=True).start()

    server = threading.Thread(target=serve, daemon=True)
    server.start()
    yield listener.getsockname()[1]
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()
    server.join(10)


def test_the_bundle_holds_both(tmp_path: Path, authority: trustme.CA) -> None:
    own = tmp_path / "own.pem"
    authority.cert_pem.write_to_path(str(own))
    both = Path(bundle(str(own))).read_bytes()
    assert Path(str(get_cert_path(True))).read_bytes() in both
    assert authority.cert_pem.bytes() in both
    other = tmp_path / "usual.pem"
    other.write_bytes(b"the usual\n")
    assert Path(bundle(str(own), str(other))).read_bytes().startswith(b"the usual\n")


def test_calls_are_verified_against_it(
    https: int,
    authority: trustme.CA,
    local_aws: LocalAws,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    keys = local_aws.user("alice").keys()
    for name, value in {**local_aws.env, **keys.env}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"https://127.0.0.1:{https}")
    own = tmp_path / "own.pem"
    authority.cert_pem.write_to_path(str(own))
    now = local_aws.now()
    trusting = AwsPrincipal(CredentialSettings(further_authorities=str(own)))
    assert trusting.identity(now).arn == keys.arn
    with pytest.raises(AwsUnavailable, match="CERTIFICATE_VERIFY_FAILED"):
        AwsPrincipal(CredentialSettings()).identity(now)
