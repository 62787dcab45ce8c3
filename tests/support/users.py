"""Another user of this machine, for the tests of who may connect."""

from __future__ import annotations

import os
import subprocess
import sys

NOBODY = 65534

_NEEDS_ROOT = (
    "this test connects as another user, which only root can become. Run the tests as root, in a "
    "container, or as the root of a user namespace: unshare --map-root-user --map-auto make test"
)


class Stranger:
    """A connection that another user made, and keeps until :meth:`close`.

    :param address: ``HOST:PORT`` without brackets, which it connects to from a port of the same
        host; or the path of a unix socket.
    :param farewell: what it does at :meth:`close`: Python statements about its socket ``s``.
    """

    # The interpreter may lie where only root looks, so it is root that starts it.
    _SCRIPT = f"""
import os, socket, sys
os.setgroups([]); os.setgid({NOBODY}); os.setuid({NOBODY})
where = sys.argv[1]
if where.startswith("/"):
    s = socket.socket(socket.AF_UNIX)
    s.connect(where)
else:
    host, _, port = where.rpartition(":")
    s = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    s.bind((host, 0))
    s.connect((host, int(port)))
print("connected", flush=True)
sys.stdin.readline()
exec(sys.argv[2])
"""

    def __init__(self, address: str, farewell: str = "s.close()") -> None:
        assert os.geteuid() == 0, _NEEDS_ROOT
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", self._SCRIPT, address, farewell],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd="/",
        )
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == b"connected\n"

    def close(self) -> None:
        """It goes, and its process with it."""
        self._process.communicate(b"\n", timeout=10)
