"""The helpers with requests and httpx themselves, over a server that redirects elsewhere."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx
import pytest
import requests

from iam_auth_proxy.aws.base import Encrypted
from iam_auth_proxy.errors import ConfigError
from iam_auth_proxy.protocol.service_token import Caller, parse_basic
from iam_auth_proxy.tokens.auth import ServiceTokenAuth, for_httpx
from iam_auth_proxy.tokens.issuer import Issuer

KEY = "arn:aws:kms:eu-west-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab"
Seen = list[tuple[str, str]]


class Kms:
    def __init__(self) -> None:
        self.threads: list[threading.Thread] = []

    def encrypt(self, key: str, plaintext: bytes, context: Mapping[str, str]) -> Encrypted:
        self.threads.append(threading.current_thread())
        return Encrypted(b"blob", key)


@pytest.fixture
def seen() -> Seen:
    return []


@pytest.fixture
def port(seen: Seen) -> Iterator[int]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            seen.append(
                (self.headers["Host"].partition(":")[0], self.headers["Authorization"] or "")
            )
            away = self.path == "/away"
            self.send_response(302 if away else 200)
            if away:
                self.send_header("Location", f"http://localhost:{self.server.server_port}/")
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *arguments: object) -> None:
            """No access log."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server.server_port
        server.shutdown()
        thread.join(10)


def auth(port: int, kms: Kms | None = None) -> ServiceTokenAuth:
    issuer = Issuer(kms or Kms(), KEY, Caller("ci"), "app")
    return ServiceTokenAuth(issuer, f"http://127.0.0.1:{port}", allow_http=True)


def callers(seen: Seen) -> list[tuple[str, bool]]:
    """(host, whether it got the token)."""
    for _, value in seen:
        assert not value or parse_basic(value) == ("2/service/ci", "YmxvYg==")
    return [(host, bool(value)) for host, value in seen]


def test_requests(port: int, seen: Seen) -> None:
    kms = Kms()
    with requests.Session() as session:
        session.trust_env = False
        session.auth = auth(port, kms)
        for path in ("/", "/", "/away"):
            session.get(f"http://127.0.0.1:{port}{path}", timeout=10)
        session.get(f"http://localhost:{port}/", timeout=10)
    here, there = ("127.0.0.1", True), ("localhost", False)
    assert callers(seen) == [here, here, here, there, there]
    assert len(kms.threads) == 1


@pytest.mark.parametrize("wrapped", [False, True])
def test_httpx(port: int, seen: Seen, wrapped: bool) -> None:
    given = for_httpx(auth(port)) if wrapped else auth(port)
    with httpx.Client(auth=given, follow_redirects=True, trust_env=False) as client:
        client.get(f"http://127.0.0.1:{port}/away")
        client.get(f"http://localhost:{port}/")
    assert callers(seen) == [("127.0.0.1", True), ("localhost", False), ("localhost", False)]


async def test_httpx_does_not_block_the_loop(port: int, seen: Seen) -> None:
    kms = Kms()
    async with httpx.AsyncClient(auth=for_httpx(auth(port, kms)), trust_env=False) as client:
        await client.get(f"http://127.0.0.1:{port}/")
    assert callers(seen) == [("127.0.0.1", True)]
    assert kms.threads != [threading.current_thread()]


def test_plain_http_has_to_be_asked_for() -> None:
    issuer = Issuer(Kms(), KEY, Caller("ci"), "app")
    with pytest.raises(ConfigError, match=r"^origin of ServiceTokenAuth: .*allow_http=True$"):
        ServiceTokenAuth(issuer, "http://app.internal")
    with pytest.raises(ConfigError, match="origin"):
        ServiceTokenAuth(issuer, "https://app.internal/path")


@pytest.mark.parametrize(
    ("url", "there"),
    [
        ("https://app.internal/x?y", True),
        ("HTTPS://APP.internal:443/", True),
        ("https://u:p@app.internal/", True),
        ("http://app.internal/", False),
        ("https://app.internal:8443/", False),
        ("https://app.internal.evil.test/", False),
        ("https://app.internal@evil.test/", False),
        ("https:///x", False),
        ("//app.internal/", False),
    ],
)
def test_where_the_token_goes(url: str, there: bool) -> None:
    made = ServiceTokenAuth(Issuer(Kms(), KEY, Caller("ci"), "app"), "https://app.internal")
    assert made.concerns(url) is there
