"""The local CA: one for each domain whose listed hosts have their TLS ended here.

``DOMAIN.pem`` in this user's data folder holds the key of a CA and its certificates; it is written
as a whole, for nobody else to read. ``DOMAIN.crt`` beside it is the root alone, for whoever is to
trust it. Adding one touches no other, so nothing that is trusted already has to be trusted anew.

Certificates and their library are loaded when the first one is needed.
"""

from __future__ import annotations

import contextlib
import os
import ssl
import stat
import tempfile
import threading
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from iam_auth_proxy.config import parse_domain
from iam_auth_proxy.errors import Malformed, NoAuthority
from iam_auth_proxy.files import locked, replace_file

if TYPE_CHECKING:
    from iam_auth_proxy.proxy.https.certificates import Authority, Leaf
    from iam_auth_proxy.proxy.https.rootstores import Root

ORGANISATION: Final = "iam-auth-proxy"
"""What every CA says that it is of. An app has no certificate of one, so none is taken from an app:
else who stole a CA's key could pass for the app towards the proxy, too, where the system's store
trusts that CA."""

CACHED: Final = 256
"""Hosts whose contexts are kept; the one that was asked for the longest ago goes first."""

RENEW: Final = 86_400
"""Seconds before its end that a leaf is replaced: connections that are open outlive none."""

_SUFFIX: Final = ".pem"


def default_folder() -> Path:
    """Where this user's CAs are; it need not exist."""
    from platformdirs import user_data_path

    return user_data_path("iam-auth-proxy") / "ca"


@dataclass(slots=True)
class _Ready:
    context: ssl.SSLContext
    made_by: tuple[int, int]  # the CA's file, as it was
    begins: float
    ends: float


class Authorities:
    """The CAs of a folder; every method may be called from any thread.

    What ``iam-auth-proxy ca`` changes in the folder holds from then on, without a restart.

    :param folder: see :func:`default_folder`.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._making = threading.Lock()  # one leaf at a time
        self._lock = threading.Lock()  # the cache; held for no I/O
        self._ready: OrderedDict[str, _Ready] = OrderedDict()

    # -- what there is -----------------------------------------------------------------------------

    def domains(self) -> tuple[str, ...]:
        """The domains that have a CA, in order; reads the folder."""
        return tuple(sorted(path.stem for path in self.folder.glob(f"[!.]*{_SUFFIX}")))

    def covers(self, host: str) -> bool:
        """Whether a CA can speak for the host. Costs a stat(2) for each of its labels.

        :param host: as :func:`~iam_auth_proxy.names.parse_host` gives it.
        """
        return bool(self._domain_of(host))

    def load(self, domain: str) -> Authority:
        """The CA of a domain.

        :raises NoAuthority: there is none, or its file cannot be used.
        """
        from iam_auth_proxy.proxy.https import certificates

        path = self.file(domain)
        try:
            with path.open(encoding="ascii") as file:
                exposed = os.name == "posix" and os.fstat(file.fileno()).st_mode & 0o077
                text = file.read()
        except FileNotFoundError:
            raise _none(domain) from None
        except (OSError, UnicodeDecodeError) as error:
            raise _unusable(path, domain, str(error)) from error
        if exposed:
            raise NoAuthority(
                f"others may read {path}: its key may be known",
                remedy=f"Make it anew: iam-auth-proxy ca remove {domain}",
            )
        try:
            found = certificates.load_authority(text)
        except Malformed as error:
            raise _unusable(path, domain, str(error)) from error
        if found.domain != domain:
            raise _unusable(path, domain, f"it is the CA of {found.domain}")
        return found

    def root(self, domain: str) -> Root:
        """What is to be trusted, so that the CA of a domain is.

        :raises NoAuthority: as :meth:`load`.
        :raises OSError: its file is missing or another's, and cannot be written.
        """
        from iam_auth_proxy.proxy.https.rootstores import Root

        found, file = self.load(domain), self.root_file(domain)
        with locked(self.folder / ".lock"):
            if not file.exists() or file.read_text("utf-8", "replace") != found.root_pem:
                replace_file(file, found.root_pem)
        return Root(domain, found.mark, file, found.sha1, found.root_pem)

    def file(self, domain: str) -> Path:
        """Where the key and the certificates of a CA are."""
        return self.folder / f"{domain}{_SUFFIX}"

    def root_file(self, domain: str) -> Path:
        """Where the root of a CA is, which is no secret."""
        return self.folder / f"{domain}.crt"

    # -- what is sent ------------------------------------------------------------------------------

    def context(self, host: str, now: float) -> ssl.SSLContext:
        """The server's side of TLS for a host: a leaf of its own, and the chain.

        It blocks: for a few milliseconds where there is no leaf yet, or a new one is due.

        :param host: as :func:`~iam_auth_proxy.names.parse_host` gives it.
        :param now: epoch seconds.
        :raises NoAuthority: no CA speaks for the host, or the one that does is of no use any more.
        """
        with self._making:
            found = self.ready(host, now)
            if found is not None:
                return found
            domain = self._domain_of(host)
            if not domain:
                raise _none(host)
            made = self._make(domain, host, self._state(domain), now)
            with self._lock:
                self._ready[host] = made
                while len(self._ready) > CACHED:
                    self._ready.popitem(last=False)
            return made.context

    def ready(self, host: str, now: float) -> ssl.SSLContext | None:
        """The same where it is at hand, at the cost of a few stat(2); so for an event loop, too."""
        with self._lock:
            found = self._ready.get(host)
            if found is None:
                return None
            self._ready.move_to_end(host)
        domain = self._domain_of(host)
        usable = bool(domain) and self._state(domain) == found.made_by
        return found.context if usable and found.begins <= now < found.ends - RENEW else None

    def _make(self, domain: str, host: str, state: tuple[int, int], now: float) -> _Ready:
        from iam_auth_proxy.proxy.https import certificates

        authority = self.load(domain)
        if now >= authority.expires:
            raise NoAuthority(
                f"the time of the CA for {domain} is over",
                public="The time of the local CA for this app is over.",
                remedy=f"Run: iam-auth-proxy ca add {domain}",
            )
        leaf = certificates.make_leaf(authority, host, now)
        return _Ready(_context(leaf), state, leaf.begins, leaf.ends)

    def _state(self, domain: str) -> tuple[int, int]:
        try:
            found = self.file(domain).stat()
        except FileNotFoundError:
            return 0, 0  # removed just now
        return found.st_mtime_ns, found.st_ino

    def _domain_of(self, host: str) -> str:
        """The nearest domain with a CA, of the host and what it is under; or empty."""
        while host:
            if os.path.exists(f"{self.folder}/{host}{_SUFFIX}"):
                return host
            host = host.partition(".")[2]
        return ""

    # -- changes -----------------------------------------------------------------------------------

    def add(self, domain: str, now: float) -> Authority:
        """Makes the CA of a domain, in place of one whose time is over.

        :param domain: as :func:`~iam_auth_proxy.config.parse_domain` gives it.
        :returns: the new one, or the one that there is.
        :raises NoAuthority: there is one that cannot be used.
        :raises OSError: it cannot be written.
        """
        from iam_auth_proxy.proxy.https import certificates

        domain = parse_domain(domain)
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.folder.chmod(0o700)
        with locked(self.folder / ".lock"):
            if self.file(domain).exists():
                found = self.load(domain)
                if now < found.expires:
                    return found
            made = certificates.make_authority(domain, now)
            replace_file(self.root_file(domain), made.root_pem)
            replace_file(self.file(domain), made.dumps())
            return made

    def remove(self, domain: str) -> bool:
        """Removes the CA of a domain, whatever state its files are in; whether there was one."""
        if not self.folder.exists():
            return False
        with locked(self.folder / ".lock"):
            there = self.file(domain).exists()
            self.file(domain).unlink(missing_ok=True)
            self.root_file(domain).unlink(missing_ok=True)
            return there


def _none(host: str) -> NoAuthority:
    return NoAuthority(
        f"no local CA speaks for {host}", remedy=f"Run: iam-auth-proxy ca add {host}"
    )


def _unusable(path: Path, domain: str, why: str) -> NoAuthority:
    return NoAuthority(
        f"{path}: {why}",
        public="The local CA for this app cannot be used.",
        remedy=f"Make it anew: iam-auth-proxy ca remove {domain}",
    )


# -- the keys of leaves never have a name on a disk ------------------------------------------------


def _context(leaf: Leaf) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_RENEGOTIATION  # OpenSSL 1.1.1 would let clients
    context.set_alpn_protocols(["http/1.1"])
    with _passing(leaf.key + leaf.chain) as path:
        context.load_cert_chain(path)
    return context


@contextlib.contextmanager
def _passing(text: str) -> Iterator[str]:
    """A path for a library that reads only files: in memory, or else a file for as long as that."""
    if hasattr(os, "memfd_create") and Path("/proc/self/fd").is_dir():
        descriptor, path = os.memfd_create("leaf"), ""
        os.fchmod(descriptor, stat.S_IRUSR | stat.S_IWUSR)
    else:
        descriptor, path = tempfile.mkstemp()
    try:
        with os.fdopen(descriptor, "w", encoding="ascii") as file:
            file.write(text)
            file.flush()
            yield path or f"/proc/self/fd/{descriptor}"
    finally:
        if path:
            os.unlink(path)
