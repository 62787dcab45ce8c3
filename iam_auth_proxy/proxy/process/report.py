"""What a running proxy says of itself to its own user: identities, apps, sessions, counters."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from iam_auth_proxy import __version__
from iam_auth_proxy.config import TrustRule
from iam_auth_proxy.names import Origin
from iam_auth_proxy.proxy.process.build import Parts
from iam_auth_proxy.proxy.process.logs import Recent


def report(parts: Parts, addresses: Sequence[str], begun: float, recent: Recent) -> dict[str, Any]:
    """As JSON has it; seconds are whole. AWS is not asked.

    :param begun: when the proxy began, in seconds since the epoch.
    """
    now = time.time()
    signins = parts.signins
    signins.trust.refresh()
    rules = signins.trust.rules
    status = parts.status(next(iter(addresses), ""))
    return {
        "version": __version__,
        "pid": os.getpid(),
        "addresses": list(addresses),
        "uptime": int(now - begun),
        "identities": _identities(parts, rules, now),
        "apps": [_app(parts, rule, now) for rule in rules],
        "tunnels": [asdict(tunnel) for tunnel in parts.bastions.states()],
        "sessions": [
            {
                "origin": str(session.origin),
                "entrance": session.entrance,
                "identity": session.identity,
                "expires_in": _left(session.expires, now),
            }
            for session in signins.held
        ],
        "signed_out": sorted(str(origin) for origin in signins.signed_out_of),
        "counters": dict(status.counters),
        "gauges": dict(status.gauges),
        "errors": recent.entries(),
    }


def _identities(parts: Parts, rules: Sequence[TrustRule], now: float) -> list[dict[str, Any]]:
    """One for each profile that signs in somewhere; ``arn`` is empty where AWS was not asked."""
    found = []
    for profile in dict.fromkeys(["", *(rule.profile for rule in rules)]):
        seen = parts.signins.principals.of(profile).seen()
        found.append(
            {
                "profile": profile,
                "arn": seen.identity.arn if seen else "",
                "account": seen.identity.account if seen else "",
                "expires_in": _left(seen.expires, now) if seen else None,
            }
        )
    return found


def _app(parts: Parts, rule: TrustRule, now: float) -> dict[str, Any]:
    trust = parts.signins.trust
    origin = Origin(rule.scheme, rule.host, rule.port)
    app = None if rule.wildcard else trust.app(origin)
    return {
        "origin": str(rule),
        "profile": rule.profile,
        "proofs": sorted(app.proofs) if app else list(rule.proofs),
        "key": app.pin.key if app else "",
        "via": rule.via,
        "https": rule.https,
        "read": rule.is_read,
        "alias": parts.alias_of(origin) if app else "",
        "alias_address": parts.alias_address_of(origin) if app else "",
        # True: trusted when it was reached by another route than the present one.
        "strayed": app is None and not rule.wildcard,
        "sessions": sum(1 for session in parts.signins.held if rule.covers(session.origin)),
        "service_token": _token(parts, rule, origin, now),
    }


def _token(parts: Parts, rule: TrustRule, origin: Origin, now: float) -> dict[str, Any] | None:
    """The service token that is added there; ``from`` and ``key_used`` once there is one."""
    if rule.service_token is None:
        return None
    held = parts.signins.tokens.held(origin)
    good = held is not None and held.is_good(now)
    return {
        "to": rule.service_token.to,
        "kms_key": rule.service_token.key,
        "from": str(held.token.caller) if held is not None and good else "",
        "key_used": held.token.key_arn if held is not None and good else "",
        "expires_in": _left(held.token.window.not_after, now) if held and good else None,
    }


def _left(expires: float | None, now: float) -> int | None:
    if expires is None or expires == float("inf"):
        return None
    return max(0, int(expires - now))
