"""Stores of trusted root certificates: NSS databases (Chromium, Firefox) and the system's.

Nothing is changed here. A store says which commands would change it, so that they can be shown
before any of them runs; what a store holds is asked of a command, too, or read.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final, Protocol

from iam_auth_proxy.errors import IamAuthError

Argv = list[str]
Ask = Callable[[Argv], str]
"""Runs a command that changes nothing; what it printed, or empty where it failed."""

CERTUTIL: Final = "certutil"
PACKAGES: Final = {"debian": "libnss3-tools", "fedora": "nss-tools"}
"""What :data:`CERTUTIL` comes with."""

_OURS: Final = "iam-auth-proxy"


class NoCertutil(IamAuthError):
    """NSS databases cannot be read or changed without its own program."""

    code = "no-certutil"
    public_default = "certutil is missing, which Chromium's and Firefox' databases need."


@dataclass(frozen=True, slots=True)
class Root:
    """What is to be trusted.

    :ivar mark: no other root has it, not even the next one of the same domain.
    :ivar file: holds it as PEM, which is ``pem``.
    :ivar sha1: its hash, by which macOS and Windows find it.
    """

    domain: str
    mark: str
    file: Path
    sha1: str
    pem: str = field(repr=False)

    @property
    def nickname(self) -> str:
        """In an NSS database, and so in a browser's list."""
        return f"{_OURS} {self.domain} {self.mark}"


@dataclass(frozen=True, slots=True)
class Held:
    """A root of ours that a store holds; ``name`` is the store's own for it."""

    name: str
    trusted: bool = True


class RootStore(Protocol):
    """A store of trusted root certificates, and the commands that change it."""

    @property
    def name(self) -> str:
        """For people."""

    def held(self, ask: Ask) -> list[Held]:
        """The roots of ours that it holds, also those of earlier CAs."""

    def is_of(self, held: Held, domain: str) -> bool:
        """Whether it is a root of that domain, of this or of an earlier CA."""

    def is_root(self, held: Held, root: Root) -> bool:
        """Whether it is this very root, and trusted."""

    def trust(self, roots: Sequence[Root]) -> list[Argv]:
        """The commands that add these."""

    def forget(self, held: Sequence[Held]) -> list[Argv]:
        """The commands that remove these."""


# -- NSS -------------------------------------------------------------------------------------------

# Below the home: where Chromium looks, of old and now; then Chromium in a snap and in a flatpak.
_CHROMIUM: Final = (
    ".pki/nssdb",
    ".local/share/pki/nssdb",
    "snap/chromium/current/.pki/nssdb",
    ".var/app/org.chromium.Chromium/.pki/nssdb",
    ".var/app/com.google.Chrome/.pki/nssdb",
)
_FIREFOX: Final = (
    ".mozilla/firefox",
    ".config/mozilla/firefox",
    "snap/firefox/common/.mozilla/firefox",
    ".var/app/org.mozilla.firefox/.mozilla/firefox",
)
_DATABASE: Final = "cert9.db"
_SERVERS_ONLY: Final = "C,,"  # trusted to name servers; not people, not programs
_ROW: Final = re.compile(r"(.+?)\s+([A-Za-z]*,[A-Za-z]*,[A-Za-z]*)\s*")


@dataclass(frozen=True, slots=True)
class NssDatabase:
    """A folder with a ``cert9.db``, which need not exist yet."""

    folder: Path
    whose: str

    @property
    def name(self) -> str:
        """For people."""
        return f"{self.whose}: {self.folder}"

    @property
    def exists(self) -> bool:
        """Whether there is one already."""
        return (self.folder / _DATABASE).exists()

    def held(self, ask: Ask) -> list[Held]:
        """By ``certutil -L``, where there is a database."""
        rows = map(_ROW.fullmatch, ask(self._certutil("-L")).splitlines() if self.exists else ())
        return [
            Held(row[1], row[2] == _SERVERS_ONLY)
            for row in rows
            if row and row[1].startswith(f"{_OURS} ")
        ]

    def is_of(self, held: Held, domain: str) -> bool:
        """By the nickname, without its mark."""
        return held.name.rpartition(" ")[0] == f"{_OURS} {domain}"

    def is_root(self, held: Held, root: Root) -> bool:
        """By the nickname, and as it is trusted."""
        return held.trusted and held.name == root.nickname

    def trust(self, roots: Sequence[Root]) -> list[Argv]:
        """``certutil -A`` for each; first the database, where there is none."""
        made = [] if self.exists else [["mkdir", "-p", "-m", "700", str(self.folder)]]
        made += [] if self.exists else [self._certutil("-N", "--empty-password")]
        return made + [
            self._certutil("-A", "-t", _SERVERS_ONLY, "-n", root.nickname, "-i", str(root.file))
            for root in roots
        ]

    def forget(self, held: Sequence[Held]) -> list[Argv]:
        """``certutil -D`` for each."""
        return [self._certutil("-D", "-n", each.name) for each in held]

    def _certutil(self, *args: str) -> Argv:
        return [CERTUTIL, "-d", f"sql:{self.folder}", *args]


def nss_databases(home: Path) -> list[NssDatabase]:
    """Those of a person; where Chromium has none yet, the one that it would find."""
    chromium = [NssDatabase(home / below, "Chromium and Chrome") for below in _CHROMIUM]
    there = [each for each in chromium if each.exists]
    firefox = [path.parent for below in _FIREFOX for path in (home / below).glob(f"*/{_DATABASE}")]
    return [*(there or chromium[:1]), *(NssDatabase(each, "Firefox") for each in sorted(firefox))]


def unasked(home: Path) -> list[NssDatabase]:
    """The databases that are there and cannot be read, for want of certutil."""
    if shutil.which(CERTUTIL) is not None:
        return []
    return [each for each in nss_databases(home) if each.exists]


def must_have_certutil() -> None:
    """:raises NoCertutil: it is not there, with the package that has it."""
    if shutil.which(CERTUTIL) is None:
        fedora = shutil.which("dnf") is not None
        package = PACKAGES["fedora" if fedora else "debian"]
        how = f"sudo dnf install {package}" if fedora else f"sudo apt install {package}"
        raise NoCertutil(remedy=f"Run: {how}")


# -- the system's store ----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class SystemStore:
    """A folder of roots, and the command that makes everything else of it.

    :ivar after_removal: what ``update`` needs besides where a root was removed.
    :ivar java: a hook of that command which is told of what was removed by us alone: Debian's own
        does not notice, so Java would go on to trust it.
    """

    folder: Path
    update: tuple[str, ...]
    after_removal: tuple[str, ...] = ()
    sudo: tuple[str, ...] = ()
    java: Path | None = None

    @property
    def name(self) -> str:
        """For people."""
        return f"the system: {self.folder}"

    def held(self, ask: Ask) -> list[Held]:
        """The paths of ours. They are read, so nothing is asked."""
        return [Held(str(path)) for path in sorted(self.folder.glob(f"{_OURS}-*.crt"))]

    def is_of(self, held: Held, domain: str) -> bool:
        """By the file's name."""
        return Path(held.name) == self._path(domain)

    def is_root(self, held: Held, root: Root) -> bool:
        """By what is in the file."""
        try:
            return self.is_of(held, root.domain) and Path(held.name).read_text("ascii") == root.pem
        except (OSError, UnicodeDecodeError):
            return False

    def trust(self, roots: Sequence[Root]) -> list[Argv]:
        """``install`` for each, and the update."""
        mode = ["install", "-D", "-m", "644"]
        copied = [
            [*self.sudo, *mode, str(root.file), str(self._path(root.domain))] for root in roots
        ]
        return [*copied, [*self.sudo, *self.update]] if copied else []

    def forget(self, held: Sequence[Held]) -> list[Argv]:
        """``rm``, and the update."""
        files = [each.name for each in held]
        if not files:
            return []
        commands = [["rm", *files], [*self.update, *self.after_removal]]
        if self.java is not None and self.java.exists():
            gone = shlex.join(f"-/etc/ssl/certs/{Path(each).stem}.pem" for each in files)
            hook = shlex.quote(str(self.java))
            commands.append(["sh", "-c", f"printf '%s\\n' {gone} | {hook}"])
        return [[*self.sudo, *argv] for argv in commands]

    def _path(self, domain: str) -> Path:
        return self.folder / f"{_OURS}-{domain}.crt"


SYSTEM_STORES: Final = (
    # Debian and Ubuntu: update-ca-certificates(8). Without --fresh, links to what is gone stay.
    SystemStore(
        Path("/usr/local/share/ca-certificates"),
        ("update-ca-certificates",),
        ("--fresh",),
        java=Path("/etc/ca-certificates/update.d/jks-keystore"),
    ),
    # Fedora and RHEL: update-ca-trust(8).
    SystemStore(Path("/etc/pki/ca-trust/source/anchors"), ("update-ca-trust", "extract")),
)


def system_store() -> SystemStore | None:
    """This system's; None where it has none that is known here."""
    path = f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin"
    for store in SYSTEM_STORES:
        program, *args = store.update
        found = shutil.which(program, path=path)
        if found:
            sudo = () if os.geteuid() == 0 else ("sudo",)
            return replace(store, update=(found, *args), sudo=sudo)
    return None


def elsewhere(root: Root, platform: str) -> tuple[str, str]:
    """For macOS and Windows: the command that trusts a root, and the one that undoes it."""
    if platform == "darwin":
        keychain, file = "~/Library/Keychains/login.keychain-db", shlex.quote(str(root.file))
        return (
            f"security add-trusted-cert -r trustRoot -p ssl -k {keychain} {file}",
            f"security delete-certificate -Z {root.sha1} -t {keychain}",
        )
    return (
        f'certutil -user -addstore Root "{root.file}"',
        f"certutil -user -delstore Root {root.sha1}",
    )
