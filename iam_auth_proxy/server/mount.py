"""What the adapters share: how AWS is waited for, and an app that has the gate's paths already."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from iam_auth_proxy.errors import ConfigError, Problem
from iam_auth_proxy.server.gate import Gate

THREADS: Final = 8
"""Sign-ins that are checked at once; more wait for their turn."""

WSGI_THREADS: Final = 3
"""The same where each holds one of the server's own threads, of which there are few."""

WSGI_PATIENCE: Final = 1.0
"""Seconds that one more waits for its turn there."""

BODY_DEADLINE: Final = 10.0
"""Seconds for the body of a sign-in to come, which is one small form."""

DEADLINE: Final = 20.0
"""Seconds that a sign-in may take: at most two Decrypts and one GetCallerIdentity."""


def conflict(gate: Gate, paths: Iterable[str]) -> ConfigError | None:
    """The error that says how to mount the gate where the app has one of its paths already.

    :param paths: the app's own routes, as they are written there.
    """
    for path in paths:
        if path.rstrip("/") in gate.paths:
            text = (
                f"the app has a route {path} of its own, which the gate would hide. Give that "
                'route another path, or mount the gate elsewhere with path="/iam-auth" (the '
                "original proxy signs in at /auth alone)"
            )
            return ConfigError([Problem("path=", text)])
    return None
