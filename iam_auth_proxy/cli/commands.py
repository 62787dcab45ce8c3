"""The commands. Each imports what it needs when it runs, so that none pays for another's."""

from __future__ import annotations

import os
import sys
from typing import Any, Final

import click

from iam_auth_proxy import __version__, config
from iam_auth_proxy.cli.catalogue import Catalogue
from iam_auth_proxy.cli.layout import (
    HELP,
    PROGRAM,
    VERSION,
    Command,
    Commands,
    Flag,
    Misused,
    Number,
)
from iam_auth_proxy.cli.loading import loading
from iam_auth_proxy.cli.settings import completer, config_flag, flag, loader

COMPLETE_VARIABLE = "_IAM_AUTH_PROXY_COMPLETE"
"""Where click's completion scripts say that it is the shell that asks."""


def _show_version(ctx: click.Context, _: click.Parameter, given: bool) -> None:
    if given and not ctx.resilient_parsing:
        click.echo(f"{PROGRAM} {__version__}")
        ctx.exit()


def _version() -> Flag:
    return Flag(
        VERSION,
        is_flag=True,
        is_eager=True,
        expose_value=False,
        callback=_show_version,
        help="Show the version.",
    )


_CLI: Final = "iam_auth_proxy.cli"
_ELSEWHERE: Final = Catalogue(
    {
        "browser": f"{_CLI}.browser:browser_command",
        "exec": f"{_CLI}.exec:exec_command",
        "token": f"{_CLI}.token:token_commands",
        "status": f"{_CLI}.look:status_command",
        "whoami": f"{_CLI}.look:whoami_command",
        "logout": f"{_CLI}.look:logout_command",
        "trust": f"{_CLI}.trust:trust_commands",
        "config": f"{_CLI}.config:config_commands",
        "ca": f"{_CLI}.ca:ca_commands",
        "service": f"{_CLI}.service:service_commands",
        "env": f"{_CLI}.policies:env_command",
        "keyring": f"{_CLI}.keyring:keyring_commands",
        "secret": f"{_CLI}.secret:secret_commands",
        "policies": f"{_CLI}.policies:policies_command",
    }
)
"""The commands that have a module of their own."""


@click.group(
    cls=Commands,
    commands=_ELSEWHERE,
    context_settings={"help_option_names": HELP},
    params=[_version()],
)
def cli() -> None:
    """Sign in to internal web apps with the AWS identity you already have.

    Point a browser, or any HTTP client, at this proxy. When an app that you trust
    asks who you are, the proxy proves it with your AWS credentials, and the request
    goes through.
    """


cli.sections = {
    "Use it": ("run", "browser", "exec", "token", "demo"),
    "Look": ("status", "whoami", "logout"),
    "Set up": ("trust", "config", "ca", "service", "client-auth", "env", "completion"),
    "Serve": ("keyring", "secret", "policies", "local-aws"),
}


# -- run -------------------------------------------------------------------------------------------


def _run_params() -> list[click.Parameter]:
    """The original's flags, ``--version`` among them, then the others and ``--config``."""
    flags = [flag(option) for option in config.OPTIONS]
    original = [each for each in flags if each.group == config.ORIGINAL_GROUP]
    return [*original, _version(), *flags[len(original) : -1], config_flag(), flags[-1]]


@cli.command(
    "run",
    cls=Command,
    params=_run_params(),
    context_settings={"allow_extra_args": True},
    short_help=f"Run the proxy; {PROGRAM} [flags] is the same.",
)
@click.pass_context
def run_command(ctx: click.Context, /, config_file: str | None, **given: Any) -> int:
    """Run the proxy until it is told to stop.

    Ctrl-C or SIGTERM ends it when the requests under way are done; SIGHUP reads the
    configuration again.
    """
    if ctx.args:
        first = ctx.args[0]
        if first in cli.commands:
            raise Misused("the command comes before the flags", f"Run: {PROGRAM} {first} ...", ctx)
        raise Misused(f"{first!r} is not a flag", f"See: {PROGRAM} --help", ctx)
    load = loader(given, config_file, runs=True)
    settings = load()
    with loading():
        from iam_auth_proxy.proxy.commands import daemon

    return daemon.run(settings, reload=load, environ=os.environ, out=sys.stderr)


# -- the others ------------------------------------------------------------------------------------


@cli.command(
    "demo",
    cls=Command,
    short_help="Watch a sign-in, in a clone: embedded AWS, example app, proxy.",
)
@click.option("--once", cls=Flag, is_flag=True, help="End after the sign-in.")
def demo_command(once: bool) -> int:
    """Start an embedded AWS, the example app and the proxy, and sign in through them.

    Each step is told as it happens. Afterwards everything stays up to be played with.
    It runs in a clone of the project, which has the example app: make demo
    """
    from iam_auth_proxy import demo

    return demo.run(once=once)


@cli.command(
    "completion",
    cls=Command,
    short_help="Print the completion script of bash, zsh or fish.",
    options_metavar="",
)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion_command(shell: str) -> int:
    """Print the script that completes commands and flags.

    \b
      bash, in ~/.bashrc:   eval "$(iam-auth-proxy completion bash)"
      zsh, in ~/.zshrc:     eval "$(iam-auth-proxy completion zsh)"
      fish:                 iam-auth-proxy completion fish | source
    """
    from click.shell_completion import get_completion_class

    complete = get_completion_class(shell)
    assert complete is not None
    click.echo(complete(cli, {}, PROGRAM, COMPLETE_VARIABLE).source())
    return 0


@cli.command(
    "local-aws",
    cls=Command,
    # What follows the first word is the command's own, with and without "--" before it.
    context_settings={"allow_interspersed_args": False},
    short_help="Run an embedded AWS on loopback, for tests.",
)
@click.option(
    "--port",
    cls=Flag,
    type=Number(0, 65535),
    metavar="N",
    help="Port to listen on. [default:\xa0any\xa0free\xa0one]",
)
@click.option(
    "--env-file",
    cls=Flag,
    metavar="FILE",
    shell_complete=completer((), file=True),
    help="Write the exports to FILE, for your eyes only, and do not print them.",
)
@click.argument("command", nargs=-1, type=click.UNPROCESSED, metavar="[-- CMD...]")
def local_aws_command(port: int | None, env_file: str | None, command: tuple[str, ...]) -> int:
    """Run an embedded AWS that verifies what AWS verifies, on loopback only.

    It has STS, KMS and IAM, and S3 and DynamoDB where moto is installed (make demo
    does that). It keeps nothing.

    It prints shell exports of an endpoint, a ready user and a key, and then serves
    until it is told to stop. With CMD it runs that in such an environment instead,
    and ends with it.
    """
    from iam_auth_proxy.local_aws.command import run

    return run(port, env_file, command, sys.stdout, sys.stderr)


@cli.command(
    "client-auth",
    cls=Command,
    short_help="Give somebody a password for your proxy (--client-auth).",
    options_metavar="",
)
@click.argument("action", type=click.Choice(["add"]), metavar="add")
@click.argument("file", metavar="FILE")
@click.argument("user", metavar="USER")
def client_auth_command(action: str, file: str, user: str) -> int:
    """Write USER and a hashed password into FILE, for --client-auth FILE.

    \b
    The password is asked for at a terminal, or is the first line of standard input.
    If it is empty, one is made and printed, once. Whoever has it acts as you.
    """
    import secrets

    from iam_auth_proxy.proxy.listeners import clientauth

    if sys.stdin.isatty():
        text = click.prompt(
            "Password (empty: one is made)",
            default="",
            hide_input=True,
            show_default=False,
            err=True,
        )
    else:
        text = sys.stdin.readline().rstrip("\r\n")
    password = text or secrets.token_urlsafe(18)
    clientauth.add(file, user, password)
    click.echo(f"{user} is in {file}. A running proxy reads it on SIGHUP.", err=True)
    if not text:
        click.echo(password)
    return 0
