"""What an operator is told at the start: what the settings leave open."""

from __future__ import annotations

import logging

from iam_auth_proxy.server.settings import Settings

log = logging.getLogger(__name__)


def announce(in_force: Settings) -> None:
    """What the settings leave open, said once."""
    if in_force.legacy:
        log.warning(
            "session credentials are taken at GET %s: anybody's page can sign a visitor in as its "
            "own user (login CSRF), and proxies that answer every site's challenge can be made to "
            "sign in here. Close it with IAM_AUTH_LEGACY=false once nobody uses the original proxy",
            in_force.path,
        )
    accepts = in_force.accepts()
    if accepts is not None and accepts.min_version == 1:
        log.warning(
            "service tokens of version 1 are accepted: who may encrypt with a key of services "
            "without naming user_type is any of them. Close it with IAM_AUTH_TOKEN_MIN_VERSION=2 "
            "once nobody sends them"
        )
    if not in_force.origins:
        log.warning(
            "no origins are configured: any Host is answered, and session credentials are the only "
            "proof taken. Set IAM_AUTH_ORIGINS to what browsers call this app, such as "
            "http://app.internal"
        )
