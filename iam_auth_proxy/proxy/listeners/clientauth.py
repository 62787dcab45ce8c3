"""The people who may use a proxy that others can reach: a file of users and hashed passwords.

One user a line, ``USER:$scrypt$ln=14,r=8,p=1$SALT$HASH`` (scrypt of RFC 7914 in the PHC string
format; base64 without padding), ``#`` begins a comment. ``iam-auth-proxy client-auth add`` writes
the lines. A password in plain is refused: such files get copied.

scrypt takes some 40 ms and 16 MiB, which is the point of it and too much for each request. So what
was right once is remembered, as a digest under a key of this process; and wrong ones are counted,
for each client's address before all of them together, and past the limit nothing is computed.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import hashlib
import hmac
import os
import re
import secrets
import stat
import tempfile
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Protocol

from iam_auth_proxy.errors import ConfigError, Problem

SHORTEST_PASSWORD: Final = 12
PLACE: Final = "--client-auth"

_USER = re.compile(r"[A-Za-z0-9._@+-]{1,64}")
_HASH = re.compile(r"\$scrypt\$ln=([0-9]{1,2}),r=8,p=1\$([A-Za-z0-9+/]{22})\$([A-Za-z0-9+/]{43})")
_LN: Final = 14
# What a file may ask of the event loop: 16 is 64 MiB and some 150 ms.
_LN_BOUNDS: Final = range(14, 17)
_MAX_FILE: Final = 256 * 1024
_MAX_CREDENTIALS: Final = 1024
_BASIC = re.compile(rb"basic +([A-Za-z0-9+/]+={0,2})", re.IGNORECASE)

# Wrong passwords that are computed: of one client, and of all, in so many seconds.
_FAILURES_OF_ONE: Final = 5
_FAILURES_OF_ALL: Final = 30
_PERIOD: Final = 60.0
_CLIENTS_COUNTED: Final = 1024


class Credentials(Protocol):
    """Whose requests an entrance takes."""

    def accept(self, user: bytes, password: bytes, client: str) -> bool:
        """Whether these are right. ``client`` is ``address:port``."""
        ...


def parse_basic(value: bytes | None) -> tuple[bytes, bytes] | None:
    """User and password of a ``Basic`` credential (RFC 7617); None for anything else."""
    if value is None or len(value) > _MAX_CREDENTIALS:
        return None
    match = _BASIC.fullmatch(value.strip(b" \t"))
    if match is None:
        return None
    try:
        user, separator, password = base64.b64decode(match[1], validate=True).partition(b":")
    except binascii.Error:
        return None
    return (user, password) if separator else None


class OneSecret:
    """The credential of one program: any user name, and a password that nobody else knows."""

    def __init__(self, secret: str) -> None:
        self._secret = secret.encode("ascii")

    def accept(self, user: bytes, password: bytes, client: str) -> bool:
        """See :class:`Credentials`."""
        return hmac.compare_digest(password, self._secret)


@dataclass(frozen=True, slots=True)
class Hashed:
    """A password's scrypt hash; ``ln`` is the logarithm of its cost."""

    ln: int
    salt: bytes = field(repr=False)
    hash: bytes = field(repr=False)

    @classmethod
    def of(cls, password: bytes) -> Hashed:
        """The hash of a password, with a fresh salt."""
        salt = secrets.token_bytes(16)
        return cls(_LN, salt, _scrypt(password, salt, _LN))

    def matches(self, password: bytes) -> bool:
        """Whether that is the password."""
        return hmac.compare_digest(_scrypt(password, self.salt, self.ln), self.hash)

    def dumps(self) -> str:
        """The PHC string."""
        salt, digest = (
            base64.b64encode(part).rstrip(b"=").decode("ascii") for part in (self.salt, self.hash)
        )
        return f"$scrypt$ln={self.ln},r=8,p=1${salt}${digest}"

    @classmethod
    def loads(cls, text: str) -> Hashed:
        """:raises ValueError: not such a string, or of a cost outside the bounds."""
        match = _HASH.fullmatch(text)
        if match is None:
            raise ValueError("not a hashed password")
        if int(match[1]) not in _LN_BOUNDS:
            raise ValueError(f"ln is {_LN_BOUNDS[0]} to {_LN_BOUNDS[-1]}")
        salt, digest = base64.b64decode(match[2] + "=="), base64.b64decode(match[3] + "=")
        return cls(int(match[1]), salt, digest)


def _scrypt(password: bytes, salt: bytes, ln: int) -> bytes:
    return hashlib.scrypt(password, salt=salt, n=1 << ln, r=8, p=1, maxmem=128 << 20, dklen=32)


class Users:
    """The users of a file.

    :param users: name -> hash.
    :param monotonic: seconds.
    """

    def __init__(
        self, users: Mapping[str, Hashed], monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._users = {name.encode("ascii"): hashed for name, hashed in users.items()}
        self._nobody = Hashed.of(secrets.token_bytes(16))
        self._key = secrets.token_bytes(32)
        self._right: dict[bytes, bytes] = {}
        self._failures = Failures()
        self._monotonic = monotonic

    def lets_in_all_of(self, others: Users) -> bool:
        """Whether whoever has a password of ``others`` has one of these."""
        return others._users.items() <= self._users.items()

    def accept(self, user: bytes, password: bytes, client: str) -> bool:
        """See :class:`Credentials`."""
        digest = hashlib.blake2b(user + b":" + password, key=self._key, digest_size=32).digest()
        known = self._right.get(user)
        if known is not None and hmac.compare_digest(known, digest):
            return True
        now = self._monotonic()
        address = client.rpartition(":")[0]
        if self._failures.too_many(address, now):
            return False
        # An unknown name takes as long as a known one, so that names cannot be found out.
        hashed = self._users.get(user, self._nobody)
        if hashed.matches(password) and user in self._users:
            self._right[user] = digest
            return True
        self._failures.count(address)
        return False


class Failures:
    """Counts wrong passwords, in periods."""

    def __init__(self) -> None:
        self._begun = 0.0
        self._of_all = 0
        self._of_one: OrderedDict[str, int] = OrderedDict()

    def too_many(self, client: str, now: float) -> bool:
        """Whether nothing is computed for this client at present."""
        if now - self._begun >= _PERIOD:
            self._begun, self._of_all = now, 0
            self._of_one.clear()
        return self._of_all >= _FAILURES_OF_ALL or self._of_one.get(client, 0) >= _FAILURES_OF_ONE

    def count(self, client: str) -> None:
        """Counts one more failure of this client."""
        self._of_all += 1
        self._of_one[client] = self._of_one.pop(client, 0) + 1
        while len(self._of_one) > _CLIENTS_COUNTED:
            self._of_one.popitem(last=False)


# -- the file --------------------------------------------------------------------------------------


def load(path: str) -> Users:
    """The users of ``path``.

    :raises ConfigError: with everything that is wrong with it.
    """
    file = Path(os.path.expanduser(path))
    lines = _read(file)
    problems: list[Problem] = []
    users: dict[str, Hashed] = {}
    for number, line in enumerate(lines, 1):
        text = line.strip()
        if not text or text.startswith("#"):
            continue
        name, _, hashed = text.partition(":")
        place = f"{file}:{number}"
        try:
            if not _USER.fullmatch(name):
                raise ValueError("a user's name is 1 to 64 letters, digits or ._@+-")
            if name in users:
                raise ValueError(f"{name} is there twice")
            users[name] = Hashed.loads(hashed)
        except ValueError as error:
            problems.append(Problem(place, f"{error}. Run: {_ADD.format(file=file)}"))
    if not users and not problems:
        problems.append(Problem(PLACE, f"{file} names nobody. Run: {_ADD.format(file=file)}"))
    if problems:
        raise ConfigError(problems)
    return Users(users)


_ADD: Final = "iam-auth-proxy client-auth add {file} USER"


def _read(file: Path) -> list[str]:
    try:
        with file.open("rb") as opened:
            status = os.fstat(opened.fileno())
            raw = opened.read(_MAX_FILE + 1)
        if status.st_uid not in (0, os.geteuid()) or stat.S_IMODE(status.st_mode) & 0o022:
            raise ConfigError([Problem(PLACE, f"others may write {file}. Run: chmod 600 {file}")])
        if len(raw) > _MAX_FILE:
            raise ConfigError([Problem(PLACE, f"{file} is too long")])
        return raw.decode("utf-8").splitlines()
    except FileNotFoundError as error:
        text = f"{file} is not there. Run: {_ADD.format(file=file)}"
        raise ConfigError([Problem(PLACE, text)]) from error
    except OSError as error:
        raise ConfigError([Problem(PLACE, f"{file}: {error.strerror}")]) from error
    except UnicodeDecodeError as error:
        raise ConfigError([Problem(PLACE, f"{file} is not UTF-8")]) from error


def add(path: str, user: str, password: str) -> None:
    """Give a user a password, or another one; the file is made where there is none, mode 0600.

    :raises ConfigError: a name or password outside the bounds, or a file that cannot be used.
    """
    file = Path(os.path.expanduser(path))
    if not _USER.fullmatch(user):
        raise ConfigError([Problem("USER", "1 to 64 letters, digits or ._@+-")])
    if len(password) < SHORTEST_PASSWORD:
        raise ConfigError([Problem("PASSWORD", f"has at least {SHORTEST_PASSWORD} characters")])
    lines = _read(file) if file.exists() else []
    kept = [line for line in lines if line.strip().partition(":")[0] != user]
    line = f"{user}:{Hashed.of(password.encode()).dumps()}"
    try:
        _write(file, "\n".join([*kept, line]) + "\n")
    except OSError as error:
        raise ConfigError([Problem(PLACE, f"{file}: {error.strerror}")]) from error


def _write(file: Path, text: str) -> None:
    """Replaces the file as a whole, readable to this user alone."""
    descriptor, name = tempfile.mkstemp(dir=file.parent, prefix=f".{file.name}.")
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as opened:
            opened.write(text)
            opened.flush()
            os.fsync(opened.fileno())
        Path(name).replace(file)
    except BaseException:
        with contextlib.suppress(OSError):
            Path(name).unlink()
        raise
