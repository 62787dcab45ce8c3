"""``iam-auth-proxy exec -- CMD``: a private proxy for one command."""

from __future__ import annotations

import os
import sys
from typing import Any

import click

from iam_auth_proxy import config
from iam_auth_proxy.cli.layout import PROGRAM, Command, Misused
from iam_auth_proxy.cli.loading import loading
from iam_auth_proxy.cli.settings import config_flag, flag, loader

# Its listener is its own.
_OF_LISTENERS = ("bind", "alias-port", "client-auth", "allow-other-users")


@click.command(
    "exec",
    cls=Command,
    params=[
        *(flag(option) for option in config.OPTIONS if option.name not in _OF_LISTENERS),
        config_flag(),
        click.Argument(["command"], nargs=-1, type=click.UNPROCESSED, metavar="-- CMD..."),
    ],
    # What follows the first word is the command's own, with and without "--" before it.
    context_settings={"allow_interspersed_args": False},
    short_help="Run one command behind a proxy of its own.",
)
def exec_command(command: tuple[str, ...], config_file: str | None, **given: Any) -> int:
    """Run CMD with a proxy of its own, which ends with it.

    CMD finds it by http_proxy and https_proxy, which hold a password that nobody else
    knows. Programs without a cookie jar stay signed in. The exit status is CMD's; 125
    if the proxy could not be made, 126 or 127 if CMD could not be run.

    \b
      iam-auth-proxy exec --trust http://app.internal -- curl http://app.internal/
    """
    if not command:
        raise Misused("there is no command to run", f"Write: {PROGRAM} exec -- CMD...")
    settings = loader(given, config_file, runs=True)()
    with loading():
        from iam_auth_proxy.proxy.commands import children, mfa, program

    try:
        return program.run(
            settings,
            command,
            environ=os.environ,
            out=sys.stderr,
            ask_mfa=mfa.terminal_prompt(sys.stdin, sys.stderr),
        )
    except children.CannotRun as error:
        click.echo(f"{PROGRAM} exec: {error}", err=True)
        return error.status
