"""A file of roots for programs that take one: what the system trusts, and then ours.

A program that is told of a file trusts what is in it and nothing else. So ours alone are never in
one, and it is made again when the system's changes: the first line says of what it was made.
"""

from __future__ import annotations

import hashlib
import ssl
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from iam_auth_proxy.errors import IamAuthError
from iam_auth_proxy.files import locked, replace_file
from iam_auth_proxy.proxy.https.ca import Authorities

VARIABLES: Final = (
    "SSL_CERT_FILE",  # OpenSSL, and so Python and Ruby; Go. GnuTLS, so Debian's wget, has none
    "CURL_CA_BUNDLE",
    "REQUESTS_CA_BUNDLE",
    "GIT_SSL_CAINFO",
    "NODE_EXTRA_CA_CERTS",
)

NAME: Final = "bundle.crt"
"""In the folder of the CAs; none is called so, since a domain has two labels."""

# Where distributions have theirs; OpenSSL's own answer comes first.
_SYSTEM: Final = (
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
)
_MARK: Final = "# iam-auth-proxy: made of "


class NoSystemBundle(IamAuthError):
    """There is no file of what the system trusts, and ours alone would be no replacement."""

    code = "no-system-bundle"
    public_default = "No file was found with the certificates that this system trusts."
    remedy_default = "Install the package ca-certificates, or set SSL_CERT_FILE to such a file."


def current(folder: Path, roots: Sequence[str], environ: Mapping[str, str]) -> Path:
    """The bundle, made or made again where it has to be.

    :param folder: of the CAs.
    :param roots: PEM of each.
    :param environ: ``SSL_CERT_FILE`` counts as the system's, where it is not this bundle.
    :raises NoSystemBundle: there is nothing to add ours to.
    :raises OSError: it cannot be written.
    """
    path = folder / NAME
    source = _system(path, environ)
    theirs = source.read_text("utf-8", "replace")
    digest = hashlib.sha256("\0".join([theirs, *roots]).encode()).hexdigest()
    first = f"{_MARK}{source} {digest}\n"
    if _first_line(path) != first:
        with locked(folder / ".lock"):
            replace_file(path, "\n".join([first + theirs, *roots]))
    return path


def refresh(authorities: Authorities, environ: Mapping[str, str]) -> None:
    """Makes the bundle again, if there is one and it has to be: shells may point to it.

    :raises NoAuthority: a CA cannot be read.
    """
    if (authorities.folder / NAME).exists():
        of(authorities, environ)


def of(authorities: Authorities, environ: Mapping[str, str]) -> Path:
    """The bundle with the roots of all CAs; see :func:`current`.

    :raises NoAuthority: a CA cannot be read.
    """
    roots = [authorities.root(domain).pem for domain in authorities.domains()]
    return current(authorities.folder, roots, environ)


def exports(path: Path) -> dict[str, str]:
    """The environment variables that name the bundle, with their values."""
    return dict.fromkeys(VARIABLES, str(path))


def _system(path: Path, environ: Mapping[str, str]) -> Path:
    """:raises NoSystemBundle: there is none."""
    named = environ.get("SSL_CERT_FILE", "")
    # If SSL_CERT_FILE is our own bundle already (from `env --ca`), use what it was made of.
    named = _source_of(named) or named
    for each in (named, ssl.get_default_verify_paths().openssl_cafile, *_SYSTEM):
        if each and Path(each) != path and Path(each).is_file() and not _source_of(each):
            return Path(each)
    raise NoSystemBundle


def _source_of(each: str) -> str:
    """What a bundle of ours was made of; empty where it is none."""
    first = _first_line(Path(each)) if each else ""
    return first.removeprefix(_MARK).rpartition(" ")[0] if first.startswith(_MARK) else ""


def _first_line(path: Path) -> str:
    try:
        with path.open(encoding="utf-8", errors="replace") as file:
            return file.readline(4096)
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        return ""
