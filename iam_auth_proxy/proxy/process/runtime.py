"""Where running proxies are found: a folder of this user's own, with a socket for each of them.

``$XDG_RUNTIME_DIR/iam-auth-proxy/control-8080.sock``: named after the port, or after the path of a
proxy on a unix socket. The folder has to be this user's alone: whoever could put another socket in
its place would be taken for the proxy.
"""

from __future__ import annotations

import hashlib
import os
import stat
import warnings
from pathlib import Path
from typing import Final

from iam_auth_proxy.config import Bind

_PREFIX: Final = "control-"
_SUFFIX: Final = ".sock"


def folder() -> Path:
    """The folder, which need not exist."""
    from platformdirs import user_runtime_path

    with warnings.catch_warnings():
        # Where nothing of a login says so (cron, su), it warns of the one that it takes instead;
        # make() looks whether others could have made it.
        warnings.simplefilter("ignore")
        return user_runtime_path("iam-auth-proxy")


def make(path: Path) -> None:
    """Makes the folder, for nobody else.

    :raises OSError: it cannot be made, or is not this user's alone.
    """
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    path.mkdir(mode=0o700, exist_ok=True)
    problem = _exposure(path)
    if problem:
        raise PermissionError(problem)


def _exposure(path: Path) -> str:
    """How others could change what is in the folder; empty where they cannot."""
    own, above = path.lstat(), path.parent.stat()
    if not stat.S_ISDIR(own.st_mode) or own.st_uid != os.geteuid():
        return f"{path} is not a folder of yours"
    if own.st_mode & 0o077:
        return f"{path} is open to others: chmod 700 {path}"
    # Who may write above can put another folder in its place, but for the sticky bit.
    open_above = above.st_mode & 0o022 and not above.st_mode & stat.S_ISVTX
    if open_above or above.st_uid not in (0, os.geteuid()):
        return f"{path.parent} is not yours alone"
    return ""


def name_of(address: str) -> str:
    """The socket's name for a proxy at ``127.0.0.1:8080``, ``[::1]:8080`` or ``unix:/path``."""
    if address.startswith("unix:"):
        digest = hashlib.sha256(os.fsencode(address[5:])).hexdigest()
        return f"{_PREFIX}unix-{digest[:12]}{_SUFFIX}"
    return f"{_PREFIX}{address.rpartition(':')[2]}{_SUFFIX}"


def name_for(bind: Bind) -> str:
    """The socket name of a proxy that is bound so; see :func:`name_of`."""
    return name_of(f"unix:{bind.path}" if bind.path else f":{bind.port}")


def sockets(path: Path) -> list[Path]:
    """The sockets in the folder; some may be of proxies that are gone."""
    try:
        return sorted(path.glob(f"{_PREFIX}*{_SUFFIX}"))
    except OSError:
        return []
