"""What the commands of ``trust`` print."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from iam_auth_proxy import config
from iam_auth_proxy.cli import service_token
from iam_auth_proxy.cli.layout import PROGRAM
from iam_auth_proxy.names import parse_origin

if TYPE_CHECKING:
    from iam_auth_proxy.proxy.decisions.rules import AppTrust
    from iam_auth_proxy.proxy.decisions.trust import Trust


def _app(trust: Trust, origin: str) -> AppTrust | None:
    return None if "*" in origin else trust.listed(parse_origin(origin))


def described(trust: Trust, origin: str, rule: config.TrustRule) -> dict[str, object]:
    """All that holds, as ``--json`` prints it; what is not said is left out."""
    app = _app(trust, origin)
    proofs = app.proofs if app is not None else ("signed-identity",)
    found: dict[str, object] = {
        "origin": origin,
        "covered_by": str(rule) if str(rule) != origin else "",
        "profile": rule.profile,
        "proofs": [kind for kind in config.PROOFS if kind in proofs],
        "kms_keys": list(rule.keys),
        "via": app.via if app is not None else rule.via,
        "allow_from": [str(each) for each in rule.allow_from],
        "https": rule.https,
        "alias": app.alias if app is not None else "",
        "service_token": service_token.described(rule.service_token),
        "place": rule.place,
    }
    if app is not None:
        pin = app.pin
        found |= {
            "pinned_key": pin.key,
            "pinned_by": str(pin.accepted) if pin.key else "",
            "pinned_proof": str(pin.proof or ""),
            "pinned_path": pin.path,
            "pinned_route": pin.route,
        }
    return {name: value for name, value in found.items() if value}


def summary(trust: Trust, rule: config.TrustRule) -> str:
    """A rule in a few words."""
    app = _app(trust, str(rule))
    proofs = app.proofs if app is not None else ("signed-identity",)
    words = [" or ".join(kind for kind in config.PROOFS if kind in proofs)]
    if rule.keys:
        words.append(f"{len(rule.keys)} key{'s' if len(rule.keys) > 1 else ''} listed")
    elif app is not None and app.pin.key:
        words.append(f"key pinned ({app.pin.accepted})")
    else:
        words.append("the first key it shows")
    if rule.profile:
        words.append(f"profile {rule.profile}")
    if rule.via:
        words.append(f"via {rule.via}")
    if app is not None and app.alias:
        words.append(f"as http://{app.alias}.localhost")
    elif rule.https:
        words.append(f"by {rule.https}")
    if rule.service_token is not None:
        words.append(f"service token ({service_token.in_words(rule.service_token)})")
    return ", ".join(words)


def unwritten(
    apps: Iterable[Mapping[str, Any]], written: Iterable[Mapping[str, object]]
) -> list[tuple[str, str, str]]:
    """Rows (origin, in a few words, place) of what a running proxy trusts and no file says.

    :param apps: the proxy's, as ``status`` has them.
    :param written: the files', as :func:`described`.
    """
    known = {each["origin"]: each["proofs"] for each in written}
    place = f"the running proxy alone; see: {PROGRAM} status"
    rows = []
    for app in apps:
        # None of its own: a wildcard's, or of an app that strayed from its route.
        proofs = [kind for kind in config.PROOFS if kind in app["proofs"]]
        if app["origin"] not in known or (proofs and proofs != known[app["origin"]]):
            words = [" or ".join(proofs or config.PROOFS[:1])]
            words += [f"profile {app['profile']}"] if app["profile"] else []
            words += [f"via {app['via']}"] if app["via"] else []
            rows.append((str(app["origin"]), ", ".join(words), place))
    return rows


def unread(rule: config.TrustRule) -> tuple[str, str] | None:
    """Why nobody is signed in to an app that is listed, and the command that mends it.

    None: the proxy can read what is said to the app, or has no need to.
    """
    from iam_auth_proxy.proxy.https.ca import Authorities, default_folder

    if not (rule.is_read or rule.https or rule.service_token):
        command = f"{PROGRAM} trust add {shlex.quote(str(rule))} --https alias"
        return "nobody is signed in there yet: its https is a tunnel, and not read", command
    if rule.https == config.HTTPS[1] and not Authorities(default_folder()).covers(rule.host):
        return "its local CA is missing, so its https is not read", f"{PROGRAM} ca add {rule.host}"
    return None


def say_unread(rule: config.TrustRule) -> None:
    """What :func:`unread` found."""
    found = unread(rule)
    if found is not None:
        what, command = found
        print(f"{what[0].upper()}{what[1:]}. Run:", file=sys.stderr)
        print(f"  {command}", file=sys.stderr)


def say_profile(rule: config.TrustRule) -> None:
    """That its AWS profile does not exist, where it does not."""
    from iam_auth_proxy.aws.profiles import profiles

    if rule.profile and rule.profile not in profiles():
        where = "See: aws configure list-profiles"
        print(f"There is no AWS profile {rule.profile!r} yet. {where}", file=sys.stderr)


def say_local(rule: config.TrustRule, settings: config.Settings) -> None:
    """That an app of this machine wants more than trust, where that is not said."""
    from iam_auth_proxy.proxy.commands.noproxy import is_local

    if is_local(rule.host) and not settings.allow_targets:
        print(
            "The proxy leads nobody to this machine unless it runs with "
            f"--allow-target {rule.host}; browsers do not ask it for such names.",
            file=sys.stderr,
        )


def say_alias(trust: Trust, rule: config.TrustRule, settings: config.Settings) -> None:
    """Where a browser opens it, if not at its own address."""
    from iam_auth_proxy.proxy.https.aliases import url_of

    app = _app(trust, str(rule))
    url = url_of(app.alias, f":{settings.bind.port or ''}") if app is not None else ""
    if url:
        print(f"Open it as {url}/ while the proxy runs.", file=sys.stderr)


def again(rule: config.TrustRule) -> str:
    """The command that makes an entry again."""
    words = [PROGRAM, "trust", "add", str(rule)]
    words += ["--profile", rule.profile] if rule.profile else []
    words += [word for key in rule.keys for word in ("--kms-key", key)]
    words += [word for kind in rule.proofs for word in ("--proof", kind)]
    words += ["--via", rule.via] if rule.via else []
    words += [word for each in rule.allow_from for word in ("--allow-from", str(each))]
    words += ["--https", rule.https] if rule.https else []
    words += ["--alias", rule.alias] if rule.alias else []
    if rule.service_token is not None:
        words += service_token.flags_of(rule.service_token)
    return shlex.join(words)
