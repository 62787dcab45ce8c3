"""aiohttp's server, imported without the price of its client.

``import aiohttp`` makes the TLS contexts of its client and reads every authority of the system into
one of them: a fifth of the time that the proxy takes to start, for a client that it never uses. So
OpenSSL is pointed at no file while that happens. (A client made in this process all the same would
find the authorities by their directory, or be given a context of its own.)
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

_FILE: Final = "SSL_CERT_FILE"  # X509_get_default_cert_file_env(3)


@contextmanager
def _no_authorities() -> Iterator[None]:
    before = os.environ.get(_FILE)
    os.environ[_FILE] = os.devnull
    try:
        yield
    finally:
        if before is None:
            del os.environ[_FILE]
        else:
            os.environ[_FILE] = before


with _no_authorities():
    from aiohttp import web

__all__ = ["web"]
