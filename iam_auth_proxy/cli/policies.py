"""``policies`` and ``env``: texts to be put where others read them."""

from __future__ import annotations

import os
import shlex
from typing import Final

import click

from iam_auth_proxy import config
from iam_auth_proxy.cli.layout import PROGRAM, Command, Flag, Misused
from iam_auth_proxy.cli.look import origin_of
from iam_auth_proxy.cli.running import Told, find
from iam_auth_proxy.cli.settings import bind_flag, config_flag, loader
from iam_auth_proxy.errors import Malformed
from iam_auth_proxy.names import (
    KeyArn,
    Origin,
    check_audience,
    check_caller_name,
    is_account_id,
    parse_key_arn,
    parse_key_reference,
)

VARIABLES: Final = ("http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY")
_EXAMPLE: Final = KeyArn("aws", "eu-west-1", "111122223333", "00000000-0000-0000-0000-000000000000")


@click.command(
    "policies",
    cls=Command,
    params=[
        click.Argument(["whose"], type=click.Choice(["user", "server", "key", "token"])),
        Flag(["--app"], metavar="ORIGIN", help="The app. Needed, but for: token."),
        Flag(["--kms-key", "key"], metavar="ARN", help="Its key; else the one that is pinned."),
        Flag(
            ["--account"],
            metavar="ACCOUNT",
            help="Of the people who sign in, where it is not the key's. For: key.",
        ),
        Flag(
            ["--original"],
            is_flag=True,
            help="For the original protocol, whose sign-ins do not name the app.",
        ),
        Flag(["--to"], metavar="AUDIENCE", help="What the app calls itself. For: token."),
        Flag(
            ["--from", "service"],
            metavar="NAME",
            help="Of the service that makes tokens; else each user in his own name. For: token.",
        ),
        Flag(["--without-mfa"], is_flag=True, help="Ask no MFA of users. For: token."),
        config_flag(),
    ],
    short_help="Print the IAM and KMS policies of an app.",
)
def policies_command(
    whose: str,
    app: str | None,
    key: str | None,
    account: str | None,
    original: bool,
    to: str | None,
    service: str | None,
    without_mfa: bool,
    config_file: str | None,
) -> int:
    """Print the JSON of what an app needs at AWS.

    \b
      user     the people may sign in
      server   the app's role may open what they send
      key      the key's own policy, which lets people of another ACCOUNT in
      token    users, or a service, may make service tokens for AUDIENCE
    """
    from iam_auth_proxy import policies

    if whose == "token":
        return _print_token_policy(to, service, key, mfa=not without_mfa)
    if app is None:
        raise Misused("say which app", f"Run: {PROGRAM} policies {whose} --app ORIGIN")
    origin = origin_of(app)
    if account and not is_account_id(account):
        raise Misused(f"{account!r} is not an account id of 12 digits", f"See: {PROGRAM} --help")
    arn = _key(key) if key else _pinned(origin, config_file)
    named = None if original else origin
    if arn is None:
        arn = _EXAMPLE
        click.echo(f"No key of {origin} is known: put its ARN in place of {arn},", err=True)
        click.echo("or name it with --kms-key.", err=True)
    document = {
        "user": lambda: policies.user(named, str(arn)),
        "server": lambda: policies.server(str(arn)),
        "key": lambda: policies.of_key(named, arn, account or ""),
    }[whose]()
    click.echo(policies.dumps(document))
    return 0


def _print_token_policy(to: str | None, service: str | None, key: str | None, *, mfa: bool) -> int:
    from iam_auth_proxy import policies

    if to is None:
        command = f"{PROGRAM} policies token --to AUDIENCE --kms-key ARN"
        raise Misused("say for whom the tokens are", f"Run: {command}")
    arn = _key(key) if key else _EXAMPLE
    if not key:
        click.echo(f"Put the ARN of your key in place of {arn}, or use --kms-key.", err=True)
    try:
        check_audience(to)
        if service is not None:
            check_caller_name(service)
    except Malformed as error:
        raise Misused(str(error), f"See: {PROGRAM} policies --help") from error
    if service is None:
        document = policies.token_user(to, str(arn), mfa=mfa)
    else:
        document = policies.token_service(to, service, str(arn))
    click.echo(policies.dumps(document))
    return 0


def _key(text: str) -> KeyArn:
    try:
        return parse_key_arn(text)
    except Malformed as error:
        command = _describing(text)
        if command:
            what = f"--kms-key: {text!r}: a policy names its key by the key's ARN alone"
            raise Misused(what, f"For that, run: {command}") from error
        raise Misused(f"--kms-key: {text!r}: {error}", f"It is like {_EXAMPLE}") from error


def _describing(text: str) -> str:
    """The command that prints the ARN of a key in another spelling; empty where it is none."""
    try:
        key = parse_key_reference(text)
    except Malformed:
        return ""
    words = ["aws", "kms", "describe-key", "--key-id", str(key)]
    # The CLI goes to the configured region, which need not be that of an alias's ARN.
    words += ["--region", key.region] if key.region else []
    return shlex.join([*words, "--query", "KeyMetadata.Arn", "--output", "text"])


def _pinned(origin: Origin, config_file: str | None) -> KeyArn | None:
    """The key that is named or pinned for an app."""
    from iam_auth_proxy.proxy.decisions.trustfile import trust_of

    app = trust_of(loader({}, config_file)()).listed(origin)
    if app is None:
        return None
    key = app.pin.key or next(iter(app.keys), "")
    return parse_key_arn(key) if key else None


@click.command(
    "env",
    cls=Command,
    params=[
        Flag(
            ["--ca", "with_ca"],
            is_flag=True,
            help="Also have the shell's programs trust the local CA, besides what they trust.",
        ),
        bind_flag(),
        config_flag(),
    ],
    short_help="Print the proxy variables for a shell.",
)
def env_command(with_ca: bool, bind: str | None, config_file: str | None) -> int:
    """Print exports that point a shell's programs at the proxy that runs.

    Where none runs, they point at where it would listen. This machine's own names go
    past it, unless an app of this machine is listed or allowed.

    \b
      eval "$(iam-auth-proxy env)"
    """
    from iam_auth_proxy.proxy.commands import noproxy
    from iam_auth_proxy.proxy.decisions.trustfile import trust_of

    settings = loader({"bind": bind}, config_file)()
    running = find(settings.bind, named=bool(bind))
    apps = [(rule.host, rule.alias_name) for rule in trust_of(settings).rules]
    if running is not None:
        said = running.ask("/status")
        place = next((each for each in said["addresses"] if not each.startswith("unix:")), "")
        rules = [(config.parse_trust(app["origin"]), app["alias"]) for app in said["apps"]]
        apps += [(rule.host, alias) for rule, alias in rules]
    else:
        place = _place(settings.bind)
    if not place:
        remedy = f"Run: {PROGRAM} exec -- CMD..."
        raise Misused("no variable points programs at a unix socket", remedy)
    bundled = _bundled() if with_ca else {}
    exports = dict.fromkeys(VARIABLES, f"http://{place}")
    aliases = any(alias for _, alias in apps)
    hosts = [host for host, _ in apps]
    past = noproxy.exports(os.environ, hosts, settings.allow_targets, aliases=aliases)
    exports |= past
    for name, value in (exports | bundled).items():
        click.echo(f"export {name}={shlex.quote(value)}")
    click.echo("# Everything goes through the proxy then, but for what no_proxy names.")
    if past:
        click.echo("# Once you list an app of this machine, run this again in a new shell.")
    stuck = noproxy.in_the_way(os.environ, hosts, settings.allow_targets, aliases=aliases)
    if stuck:
        what = f"no_proxy has {', '.join(stuck)} already, so programs reach apps there past the"
        click.echo(f"{what} proxy.\nTake it out, or run this in a new shell.", err=True)
    if running is None:
        what = f"No proxy is running at {place} yet: until one does, programs reach nothing."
        click.echo(f"{what}\nRun: {PROGRAM}", err=True)
    return 0


def _place(bind: config.Bind) -> str:
    """``HOST:PORT`` of a proxy that is bound so; empty: it has none."""
    host = next(iter(bind.hosts), "")
    return f"[{host}]:{bind.port}" if ":" in host else f"{host}:{bind.port}" if host else ""


def _bundled() -> dict[str, str]:
    """:raises Told: there is no CA."""
    from iam_auth_proxy.proxy.https import bundle, ca

    authorities = ca.Authorities(ca.default_folder())
    if not authorities.domains():
        raise Told("there is no CA to be trusted", f"Run: {PROGRAM} ca add DOMAIN", "no-ca", 2)
    return bundle.exports(bundle.of(authorities, os.environ))
