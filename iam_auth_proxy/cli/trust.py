"""``trust list | show | add | remove | accept-key``: whose challenges are answered.

``add``, ``remove`` and ``accept-key`` change ``trust.toml`` beside your ``config.toml``; a proxy
that runs follows. They ask nothing: they say what they did, and how to undo it.
"""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click

from iam_auth_proxy import config
from iam_auth_proxy.cli import service_token
from iam_auth_proxy.cli import trustwords as words
from iam_auth_proxy.cli.layout import PROGRAM, Command, Flag, Group, Misused
from iam_auth_proxy.cli.running import Told, find
from iam_auth_proxy.cli.settings import bind_flag, completer, config_flag, json_flag, loader
from iam_auth_proxy.errors import Malformed, NotTrusted
from iam_auth_proxy.names import Origin, parse_key_arn, parse_origin

if TYPE_CHECKING:
    from iam_auth_proxy.proxy.decisions.trust import Trust
    from iam_auth_proxy.proxy.decisions.trustfile import TrustFile

_NOTHING = f"Nobody is trusted yet. For example: {PROGRAM} trust add http://grafana.internal"


@click.group("trust", cls=Group, short_help="Whom the proxy signs in to, and with which key.")
def trust_commands() -> None:
    """Whom the proxy signs in to, with which identity, proof and key.

    Apps are listed by command, which writes trust.toml, or by hand as [[app]] in
    config.toml. A running proxy follows the one at once, the other on SIGHUP.
    """


@trust_commands.command(
    "list",
    cls=Command,
    params=[bind_flag(), json_flag(), config_flag()],
    short_help="List the trusted apps.",
)
def list_command(bind: str | None, as_json: bool, config_file: str | None) -> int:
    """List the trusted apps, the most specific first, and where each is written.

    Below them is what holds in the running proxy alone, such as by its flags. --json
    prints what is written.
    """
    from iam_auth_proxy.proxy.decisions.trustfile import trust_of

    settings = loader({"bind": bind}, config_file)()
    trust = trust_of(settings)
    described = [words.described(trust, str(rule), rule) for rule in trust.rules]
    if as_json:
        print(json.dumps(described, indent=2))
        return 0
    rows = [(str(rule), words.summary(trust, rule), rule.place) for rule in trust.rules]
    rows += words.unwritten(_running_apps(settings.bind, named=bool(bind)), described)
    if not rows:
        print(_NOTHING, file=sys.stderr)
    widths = [max((len(row[column]) for row in rows), default=0) for column in (0, 1)]
    for origin, summary, place in rows:
        print(f"{origin:<{widths[0]}}  {summary:<{widths[1]}}  {place}")
    return 0


def _running_apps(bind: config.Bind, *, named: bool) -> Sequence[Mapping[str, Any]]:
    """The apps of the running proxy, as ``status`` has them; none where none runs.

    What keeps us from asking it is said, and is no failure: the files were read.
    """
    try:
        running = find(bind, named=named)
        apps: list[dict[str, Any]] = running.ask("/status")["apps"] if running else []
    except Told as error:
        what = f"What a running proxy trusts besides is not shown: {error}"
        print(f"{what}. {error.remedy}", file=sys.stderr)
        return []
    return apps


@trust_commands.command(
    "show",
    cls=Command,
    params=[click.Argument(["origin"]), json_flag(), config_flag()],
    short_help="Show all that holds for one app.",
)
def show_command(origin: str, as_json: bool, config_file: str | None) -> int:
    """Show all that holds for one app: what it may be given, and what was pinned."""
    trust = _trust(config_file)
    given = _rule(origin)
    rule = next((rule for rule in trust.rules if str(rule) == str(given)), None)
    if rule is None and not given.wildcard:
        target = Origin(given.scheme, given.host, given.port)
        rule = next((rule for rule in trust.rules if rule.covers(target)), None)
    if rule is None:
        raise _stranger(str(given))
    described = words.described(trust, str(given), rule)
    if as_json:
        print(json.dumps(described, indent=2))
        return 0
    for name, value in described.items():
        if rule.service_token is not None and name == "service_token":
            value = service_token.in_words(rule.service_token)
        for index, text in enumerate(value if isinstance(value, list) else [value]):
            print(f"{name if index == 0 else '':<13} {text}".rstrip())
    return 0


@trust_commands.command(
    "add",
    cls=Command,
    params=[
        click.Argument(["origin"]),
        Flag(["--profile"], metavar="NAME", help="Sign in there with this AWS profile."),
        Flag(
            ["--kms-key", "keys"],
            metavar="ARN",
            multiple=True,
            help="The app's key; without one, the first that it shows is pinned. Repeatable.",
        ),
        Flag(
            ["--proof", "proofs"],
            metavar="KIND",
            multiple=True,
            shell_complete=completer(config.PROOFS, file=False),
            help="What it may be given: signed-identity (worthless elsewhere), "
            "session-credentials (an original server: nearly all your rights). Repeatable.",
        ),
        Flag(["--via"], metavar="NAME", help="Reach it through [via.NAME], or direct."),
        Flag(
            ["--allow-from"],
            metavar="ORIGIN",
            multiple=True,
            help="Pages of this origin may cause a sign-in there. Repeatable.",
        ),
        Flag(
            ["--https"],
            metavar="WAY",
            shell_complete=completer(config.HTTPS, file=False),
            help="Reach this app on https by an alias, by intercept (with the local CA) "
            "or, without a sign-in, by a tunnel.",
        ),
        Flag(
            ["--alias"],
            metavar="NAME",
            help="Reach this app on https under http://NAME.localhost on the proxy's own port.",
        ),
        *service_token.FLAGS,
        config_flag(),
    ],
    short_help="Trust an app, or say more about it.",
)
def add_command(
    origin: str,
    profile: str | None,
    keys: tuple[str, ...],
    proofs: tuple[str, ...],
    via: str | None,
    allow_from: tuple[str, ...],
    https: str | None,
    alias: str | None,
    token_to: str | None,
    token_key: str | None,
    token_type: str | None,
    token_from: str | None,
    allow_http: bool,
    config_file: str | None,
) -> int:
    """Trust an app: answer its challenges from now on.

    ORIGIN is http://HOST[:PORT]; http://*.HOST covers the names below HOST, for the
    signed identity; https://HOST[:PORT] wants --https too. What is not said stays as it
    was. A change of its path or route that the proxy refused is taken from now on.
    """
    settings = _settings(config_file)
    _rule(origin, "Write http://HOST[:PORT]")
    table: dict[str, object] = {
        "origin": origin,
        "profile": profile or "",
        "kms_keys": list(keys),
        "proofs": list(proofs),
        "via": via or "",
        "allow_from": list(allow_from),
        "https": https or (config.HTTPS[0] if alias else ""),
        "alias": alias or "",
    } | service_token.table(token_to, token_key, token_type, token_from, allow_http)
    rule = _read(table, settings)
    _check_alias(rule, settings)
    store = _store(settings)
    store.add(rule)
    print(f"Trusted: {rule}. Written to {store.path}.", file=sys.stderr)
    trust = _trust(config_file)
    in_force = next(each for each in trust.rules if str(each) == str(rule))
    print(f"  {words.summary(trust, in_force)}", file=sys.stderr)
    words.say_alias(trust, in_force, settings)
    words.say_unread(in_force)
    words.say_profile(in_force)
    words.say_local(in_force, settings)
    for problem in config.unread([in_force]):
        print(f"  {problem.text}.", file=sys.stderr)
    print(f"Undo: {PROGRAM} trust remove {shlex.quote(str(rule))}", file=sys.stderr)
    return _overruled(rule, in_force)


def _overruled(rule: config.TrustRule, in_force: config.TrustRule) -> int:
    """Says what another entry, which comes first, says otherwise; the exit status."""
    names = ("profile", "proofs", "via", "allow_from", "https", "alias", "service_token")
    said = {name: getattr(rule, name) for name in names}
    lost = [name for name, value in said.items() if value and getattr(in_force, name) != value]
    if not set(rule.keys) <= set(in_force.keys):
        lost.append("kms_keys")
    if not lost:
        return 0
    print(
        f"But {in_force.place} comes first for {', '.join(lost)}: change it there.",
        file=sys.stderr,
    )
    return 1


@trust_commands.command(
    "remove",
    cls=Command,
    params=[click.Argument(["origin"]), config_flag()],
    short_help="Trust an app no longer.",
)
def remove_command(origin: str, config_file: str | None) -> int:
    """Trust an app no longer, and forget what was pinned for it."""
    settings = _settings(config_file)
    rule, store = _rule(origin), _store(settings)
    entry = next((each for each in store.load().rules if str(each) == str(rule)), None)
    removed = store.remove(rule)
    left = [each for each in _trust(config_file).rules if _still(each, rule)]
    if removed and entry is not None:
        print(f"Removed: {rule}, from {store.path}.", file=sys.stderr)
        print(f"Undo: {words.again(entry)}", file=sys.stderr)
    for each in left[:1]:
        what = "is" if str(each) == str(rule) else f"is covered by {each}, and so"
        print(f"{rule} {what} still trusted: {each.place}. Take it out there.", file=sys.stderr)
    if left:
        return 1
    if not removed:
        what = f"{rule} was not trusted."
        raise NotTrusted(what, public=what, remedy=f"See: {PROGRAM} trust list")
    return 0


def _still(each: config.TrustRule, removed: config.TrustRule) -> bool:
    if str(each) == str(removed):
        return True
    origin = Origin(removed.scheme, removed.host, removed.port)
    return not removed.wildcard and each.covers(origin)


@trust_commands.command(
    "accept-key",
    cls=Command,
    params=[click.Argument(["origin"]), click.Argument(["arn"]), config_flag()],
    short_help="Accept the app's new key.",
)
def accept_key_command(origin: str, arn: str, config_file: str | None) -> int:
    """Accept another key of an app, in place of the one that was pinned.

    Make sure of it first: ask the app's owner for the new key's ARN.
    """
    target, key = _origin(origin), _key(arn)
    settings = _settings(config_file)
    app = _trust(config_file).listed(target)
    if app is None:
        raise _stranger(str(target), key)
    if app.managed and key not in app.keys:
        raise NotTrusted(
            f"{target}: {app.place} lists its keys",
            public=f"This machine's operator lists the keys of {target}.",
            remedy="Ask whoever looks after that file to add the new key.",
        )
    store = _store(settings)
    store.accept_key(target, key)
    print(f"Accepted for {target}: {key}. Written to {store.path}.", file=sys.stderr)
    if app.keys:
        print(f"Accepted besides: {', '.join(app.keys)} ({app.place})", file=sys.stderr)
    if app.pin.key and app.pin.key not in (key, *app.keys):
        undo = shlex.join([PROGRAM, "trust", "accept-key", str(target), app.pin.key])
        print(f"No longer accepted: {app.pin.key}. Undo: {undo}", file=sys.stderr)
    return 0


# -- what they read --------------------------------------------------------------------------------


def _settings(config_file: str | None) -> config.Settings:
    return loader({}, config_file)()


def _trust(config_file: str | None) -> Trust:
    from iam_auth_proxy.proxy.decisions.trustfile import trust_of

    return trust_of(_settings(config_file))


def _store(settings: config.Settings) -> TrustFile:
    from iam_auth_proxy.proxy.decisions.trustfile import TrustFile

    return TrustFile(settings.trust_files[-1])


def _read(table: dict[str, object], settings: config.Settings) -> config.TrustRule:
    """The rule that the flags say; every problem at once, as for a file."""
    from iam_auth_proxy.errors import ConfigError, Problem

    flags = {
        "kms_keys": "--kms-key",
        "proofs": "--proof",
        "allow_from": "--allow-from",
        "service_token": "--token-to",
        "allow_http": "--allow-http",
    }
    places = {key: flags.get(key, f"--{key}") for key in table} | {"origin": "ORIGIN"}
    problems: list[Problem] = []
    app = config.App("ORIGIN", table, places)
    rule = config.read_app(app, "store", problems, vias=settings.vias)
    if problems or rule is None:
        raise ConfigError(problems)
    return rule


def _check_alias(rule: config.TrustRule, settings: config.Settings) -> None:
    """A name is one app's alone, whatever file says so.

    :raises ConfigError: it is another's.
    """
    from iam_auth_proxy.errors import ConfigError, Problem
    from iam_auth_proxy.proxy.decisions.trustfile import trust_of

    origin = Origin(rule.scheme, rule.host, rule.port)
    owner = trust_of(settings).aliases.get(rule.alias_name, origin)
    if owner != origin:
        text = f"the alias {rule.alias_name} is {owner}'s. Say another: --alias NAME"
        raise ConfigError([Problem(str(rule), text)])


def _rule(text: str, remedy: str = f"See: {PROGRAM} trust list") -> config.TrustRule:
    try:
        return config.parse_trust(text)
    except Malformed as error:
        raise Misused(f"{text!r}: {error}", remedy) from error


def _origin(text: str) -> Origin:
    try:
        return parse_origin(text.removesuffix("/"))
    except Malformed as error:
        raise Misused(f"{text!r}: {error}", f"See: {PROGRAM} trust list") from error


def _key(text: str) -> str:
    try:
        return str(parse_key_arn(text))
    except Malformed as error:
        raise Misused(f"{text!r}: {error}", "Ask the app's owner for the key's ARN.") from error


def _stranger(origin: str, key: str = "") -> NotTrusted:
    command = [PROGRAM, "trust", "add", origin, *(["--kms-key", key] if key else [])]
    what = f"{origin} is not trusted."
    return NotTrusted(what, public=what, remedy=f"Run: {shlex.join(command)}")
