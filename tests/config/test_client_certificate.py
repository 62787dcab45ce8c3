"""``client_cert`` and ``client_key`` of an ``[[app]]``."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
import trustme
from cryptography.hazmat.primitives import serialization

from iam_auth_proxy.config import load
from iam_auth_proxy.config.values import ClientCertificate
from iam_auth_proxy.errors import ConfigError
from tests.support import tls_peers

AUTHORITY = trustme.CA()


@pytest.fixture
def pair(tmp_path: Path) -> tuple[str, str]:
    return tls_peers.key_pair(AUTHORITY.issue_cert("me@corp.test"), tmp_path)


def read(tmp_path: Path, text: str) -> ClientCertificate | None:
    file = tmp_path / "config.toml"
    file.write_text(text)
    (rule,) = load({}, {}, [file]).trust
    return rule.client


def wrong(tmp_path: Path, text: str) -> tuple[int, str]:
    """(line, what is said) of the only problem."""
    with pytest.raises(ConfigError) as caught:
        read(tmp_path, text)
    (problem,) = caught.value.problems
    return int(problem.place.rpartition(":")[2]), problem.text


def app(pair: tuple[str, str], origin: str = "https://a.test", more: str = "") -> str:
    certificate, key = pair
    files = f'client_cert = "{certificate}"\nclient_key = "{key}"\n'
    return f'[[app]]\norigin = "{origin}"\n{files}{more}'


def test_two_files(tmp_path: Path, pair: tuple[str, str]) -> None:
    assert read(tmp_path, app(pair)) == ClientCertificate(*pair)


def test_one_file(tmp_path: Path, pair: tuple[str, str]) -> None:
    both = tmp_path / "both.pem"
    both.write_bytes(Path(pair[0]).read_bytes() + Path(pair[1]).read_bytes())
    both.chmod(0o600)
    found = read(tmp_path, f'[[app]]\norigin = "https://a.test"\nclient_cert = "{both}"\n')
    assert found == ClientCertificate(str(both), str(both))


def test_a_path_of_home(
    tmp_path: Path, pair: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    home = ("~/client.pem", "~/client.key")
    assert read(tmp_path, app(home)) == ClientCertificate(*pair)


@pytest.mark.parametrize(
    ("origin", "more", "said"),
    [
        ("http://a.test", "", "http://a.test is not an https:// origin"),
        ("https://*.a.test", "", "a wildcard is shown no certificate"),
        ("https://a.test", 'https = "tunnel"\n', "the TLS of a tunnel is the client's own"),
    ],
)
def test_apps_that_have_none(
    tmp_path: Path, pair: tuple[str, str], origin: str, more: str, said: str
) -> None:
    line, text = wrong(tmp_path, app(pair, origin, more))
    assert line == 3
    assert said in text


def encrypt(path: str) -> None:
    key = serialization.load_pem_private_key(Path(path).read_bytes(), None)
    secret = serialization.BestAvailableEncryption(b"hunter2")
    pem = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, secret
    Path(path).write_bytes(key.private_bytes(*pem))


@pytest.mark.parametrize(
    ("change", "line", "said"),
    [
        (lambda certificate, key: os.unlink(certificate), 3, "No such file"),
        (lambda certificate, key: os.unlink(key), 4, "No such file"),
        (lambda certificate, key: os.chmod(key, 0o604), 4, "Run: chmod go-rwx "),
        (lambda certificate, key: os.chmod(key, 0o620), 4, "Run: chmod go-rwx "),
        (lambda certificate, key: Path(certificate).write_text("x"), 3, "not PEM"),
        (lambda certificate, key: encrypt(key), 4, "is encrypted"),
        (
            lambda certificate, key: AUTHORITY.issue_cert("you@x").private_key_pem.write_to_path(
                key
            ),
            3,
            "is not its key",
        ),
    ],
)
def test_files_that_cannot_be_used(
    tmp_path: Path,
    pair: tuple[str, str],
    change: Callable[[str, str], object],
    line: int,
    said: str,
) -> None:
    change(*pair)
    found = wrong(tmp_path, app(pair))
    assert found[0] == line
    assert said in found[1]


@pytest.mark.parametrize(
    ("text", "line", "said"),
    [
        ('client_key = "/x"', 3, "client_key is the key of a client_cert, and there is none"),
        ("client_cert = 3", 3, "client_cert must be the path of a PEM file"),
        ('client_cert = "a\\u0000b"', 3, "client_cert must be the path of a PEM file"),
        ('client_crt = "/x"', 3, "client_cert"),
    ],
)
def test_what_cannot_be_said(tmp_path: Path, text: str, line: int, said: str) -> None:
    found = wrong(tmp_path, f'[[app]]\norigin = "https://a.test"\n{text}\n')
    assert found[0] == line
    assert said in found[1]
