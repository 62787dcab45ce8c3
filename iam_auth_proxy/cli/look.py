"""``status``, ``whoami`` and ``logout``: looking at a running proxy, and making it forget."""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Iterable, Mapping
from typing import Any

import click

from iam_auth_proxy import config
from iam_auth_proxy.cli.layout import PROGRAM, Command, Flag, Misused, styled
from iam_auth_proxy.cli.running import find, must_find
from iam_auth_proxy.cli.settings import bind_flag, config_flag, flag, json_flag, loader
from iam_auth_proxy.errors import Malformed
from iam_auth_proxy.names import Origin, parse_origin

_OPTIONS = {option.name: option for option in config.OPTIONS}


def _bind(bind: str | None, config_file: str | None) -> tuple[config.Bind, bool]:
    return loader({"bind": bind}, config_file)().bind, bool(bind)


def origin_of(url: str, ctx: click.Context | None = None) -> Origin:
    """The origin of a URL as people type it: without a scheme it is http.

    :raises Misused: it has none.
    """
    text = url if "://" in url else f"http://{url}"
    scheme, _, rest = text.partition("://")
    authority = rest.replace("?", "/").replace("#", "/").partition("/")[0]
    try:
        return parse_origin(f"{scheme.lower()}://{authority}")
    except Malformed as error:
        raise Misused(f"{url!r}: {error}", "Write http://HOST[:PORT]", ctx) from error


# -- status ----------------------------------------------------------------------------------------


@click.command(
    "status",
    cls=Command,
    params=[bind_flag(), json_flag(), config_flag()],
    short_help="Show the running proxy: identity, apps, sessions, errors.",
)
def status_command(bind: str | None, as_json: bool, config_file: str | None) -> int:
    """Show the running proxy: who signs in, the apps, held sessions, the last errors.

    Nothing is asked of AWS or of an app.
    """
    where, named = _bind(bind, config_file)
    document = must_find(where, named=named).ask("/status")
    if as_json:
        click.echo(json.dumps(document, indent=2))
        return 0
    for title, lines in _status(document):
        click.echo(styled(title, bold=True) if title else "", nl=bool(title))
        for line in lines:
            click.echo(f"  {line}")
    return 0


def _status(document: Mapping[str, Any]) -> Iterable[tuple[str, list[str]]]:
    addresses = " and ".join(document["addresses"])
    up = _time(document["uptime"])
    yield f"iam-auth-proxy {document['version']} on {addresses}, up {up}", []
    yield "Signing in as", [_identity(each) for each in document["identities"]]
    apps = [_app(app) for app in document["apps"]]
    yield "Apps", apps or [f"none; trust one: {PROGRAM} trust add http://app.internal"]
    if document["tunnels"]:
        yield "Bastions", [_tunnel(tunnel) for tunnel in document["tunnels"]]
    if document["sessions"]:
        yield "Held sessions", [_session(session) for session in document["sessions"]]
    if document["signed_out"]:
        yield "Signed out of", [str(origin) for origin in document["signed_out"]]
    counters = document["counters"]
    names = ("completed", "rejected", "refused", "unavailable")
    yield "Sign-ins", [", ".join(f"{counters.get(f'signins_{name}', 0)} {name}" for name in names)]
    if document["errors"]:
        yield "Last warnings", _entries(document["errors"])


def _identity(identity: Mapping[str, Any]) -> str:
    profile = f"profile {identity['profile']}: " if identity["profile"] else ""
    if not identity["arn"]:
        return f"{profile}not asked yet; ask: {PROGRAM} whoami"
    left = identity["expires_in"]
    return f"{profile}{identity['arn']}{f', {_time(left)} left' if left is not None else ''}"


def _app(app: Mapping[str, Any]) -> str:
    words = [str(app["origin"]), " ".join(app["proofs"])]
    words += [] if app["read"] else ["a tunnel, not read: nobody is signed in there"]
    words += [f"profile {app['profile']}"] if app["profile"] else []
    words += [f"via {app['via']}"] if app["via"] else []
    places = [f"{app[key]}/" for key in ("alias", "alias_address") if app[key]]
    words += [f"open {' or '.join(places)}"] if places else []
    words += ["trusted on another route than now"] if app["strayed"] else []
    words += [f"{app['sessions']} held"] if app["sessions"] else []
    words += [_token(app["service_token"])] if app.get("service_token") else []
    return "  ".join(word for word in words if word)


def _token(token: Mapping[str, Any]) -> str:
    if token["expires_in"] is None:
        return f"service token to {token['to']}: none made yet"
    left = _time(token["expires_in"])
    return f"service token {token['from']} to {token['to']}, {left} left, {token['key_used']}"


def _tunnel(tunnel: Mapping[str, Any]) -> str:
    said = f"; ssh said: {tunnel['words']}" if tunnel["words"] else ""
    return f"{tunnel['name']}  {tunnel['state']}{said}"


def _session(session: Mapping[str, Any]) -> str:
    left = session["expires_in"]
    until = f", {_time(left)} left" if left is not None else ""
    return f"{session['origin']} ({session['entrance']}) as {session['identity']}{until}"


def _entries(entries: Iterable[Mapping[str, Any]]) -> list[str]:
    """A line for each; what is said again and again stands once, with its last time."""
    said = [(_entry(entry), str(entry["time"])) for entry in entries]
    lines = []
    for text, same in itertools.groupby(said, key=lambda each: each[0]):
        times = [time[:19] + "Z" for _, time in same]
        again = f"  ({len(times)} times)" if len(times) > 1 else ""
        lines.append(f"{times[-1]}  {text}{again}")
    return lines


def _entry(entry: Mapping[str, Any]) -> str:
    names = [name for name in ("origin", "code", "detail") if name in entry]
    if entry.get("detail") == entry.get("origin"):
        names = [name for name in names if name != "detail"]
    fields = [f"{name}={entry[name]}" for name in names]
    text = "  ".join([str(entry["message"]), *fields])
    return "".join(char if char.isprintable() else "?" for char in text)


def _time(seconds: int) -> str:
    hours, minutes = seconds // 3600, seconds % 3600 // 60
    if hours >= 48:
        return f"{hours // 24} d"
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min" if minutes else f"{seconds} s"


# -- whoami ----------------------------------------------------------------------------------------

# With these, another identity than the running proxy's may be meant.
_WHO = ("profile", "region", "assume-role-arn", "trust", "proof", "login-role-arn")


@click.command(
    "whoami",
    cls=Command,
    params=[
        click.Argument(["url"], required=False),
        *(flag(_OPTIONS[name]) for name in _WHO),
        bind_flag(),
        json_flag(),
        config_flag(),
    ],
    short_help="Show which identity an app would see.",
)
def whoami_command(
    url: str | None, as_json: bool, config_file: str | None, bind: str | None, **given: Any
) -> int:
    """Show which AWS identity the app at URL would see, and with which proof.

    Nothing is asked of the app. A running proxy is asked; without one, or with flags
    that say who, the configuration is read and AWS is asked.
    """
    origin = origin_of(url) if url else None
    load = loader(given | {"bind": bind}, config_file)
    settings = load()
    proxy = None
    if not any(given.values()):
        proxy = find(settings.bind, named=bool(bind))
    if proxy is not None:
        found = proxy.ask("/whoami", {"origin": str(origin) if origin else ""})
    else:
        from iam_auth_proxy.proxy.process.build import whoami_of

        found = whoami_of(settings, os.environ, origin).document()
    if as_json:
        click.echo(json.dumps(found, indent=2))
        return 0
    click.echo(found["arn"])
    words = [f"account {found['account']}"]
    words += [f"profile {found['profile']}"] if found["profile"] else []
    words += [f"proof {found['proof']}"] if found["proof"] else []
    words += [f"key {found['key']}"] if found["key"] else []
    words += [f"open {found['alias']}/"] if found["alias"] else []
    to = found.get("service_token")
    words += [f"service token to {to} for programs"] if to else []
    click.echo(", ".join(words), err=True)
    return 0


# -- logout ----------------------------------------------------------------------------------------


@click.command(
    "logout",
    cls=Command,
    params=[
        click.Argument(["origin"], required=False, metavar="ORIGIN | --all"),
        Flag(["--all", "everywhere"], is_flag=True, help="Of all apps."),
        Flag(["--undo"], is_flag=True, help="Sign in there again without asking."),
        bind_flag(),
        json_flag(),
        config_flag(),
    ],
    short_help="Forget sessions, and ask before the next sign-in there.",
)
def logout_command(
    origin: str | None,
    everywhere: bool,
    undo: bool,
    bind: str | None,
    as_json: bool,
    config_file: str | None,
) -> int:
    """Forget the sessions held for ORIGIN, and ask before the next sign-in there.

    A browser's own cookies are the browser's: the app's logout ends those.
    """
    if bool(origin) == everywhere:
        raise Misused("say where", f"Run: {PROGRAM} logout ORIGIN, or: {PROGRAM} logout --all")
    where, named = _bind(bind, config_file)
    asked = {"origin": str(origin_of(origin)) if origin else "", "undo": undo}
    done = must_find(where, named=named).ask("/logout", asked)
    if as_json:
        click.echo(json.dumps(done, indent=2))
        return 0
    for each in done["origins"]:
        said = "signs in again at" if undo else "signed out of"
        click.echo(f"{said} {each}", err=True)
    if not undo:
        held = "held session" if done["ended"] == 1 else "held sessions"
        click.echo(f"{done['ended']} {held} forgotten", err=True)
    return 0
