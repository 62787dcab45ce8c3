"""From the command line to an exit status: whatever happens ends in words and a number."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Final, NoReturn

import click

from iam_auth_proxy.cli.commands import cli
from iam_auth_proxy.cli.layout import PROGRAM, Misused, nearest, styled
from iam_auth_proxy.cli.running import Told
from iam_auth_proxy.errors import CannotListen, ConfigError, IamAuthError

# As shells report a process that SIGINT ended.
_INTERRUPTED: Final = 130
# Of a command that runs another, where not that one failed: coreutils do the same.
_OURS: Final = 125


def main(args: Sequence[str] | None = None) -> NoReturn:
    """The entry point: ends the process with the command's status, never with a traceback."""
    sys.exit(status_of(sys.argv[1:] if args is None else list(args)))


def status_of(args: list[str]) -> int:
    """Runs a command line; what went wrong is on stderr.

    :returns: 0 ok, 1 failed, 2 usage or configuration, 3 AWS login needed, 4 not trusted, 5 the app
        refused, 6 AWS or the network unavailable; or that of the command that was run, and 125
        where that is not what failed.
    """
    try:
        result = cli.main(args, prog_name=PROGRAM, standalone_mode=False)
    except Exception as error:  # noqa: BLE001  # each is explained, those nobody thought of too
        status = _explained(error, args)
        return _OURS if _runs_another(args) and status != _INTERRUPTED else status
    return result if isinstance(result, int) else 0


def _explained(error: Exception, args: Sequence[str]) -> int:
    """Says what went wrong; the exit status for it."""
    match error:
        case click.UsageError():
            what, remedy = _usage_problem(error, args), _usage_remedy(error, args)
            return _complain(what, remedy, error.exit_code)
        case Told():
            return _complain(str(error), error.remedy, error.exit_status, error.code)
        case click.ClickException():
            return _complain(error.format_message(), "", error.exit_code)
        case ConfigError():
            problems = "".join(f"\n  {problem}" for problem in error.problems)
            these = "these" if len(error.problems) > 1 else "this"
            cannot = isinstance(error, CannotListen)
            what = "the proxy cannot listen" if cannot else "the configuration cannot be used"
            return _complain(
                f"{what}:{problems}",
                f"Correct {these}, or see: {_command(args)} --help",
                error.exit_status,
                error.code,
            )
        case IamAuthError():
            detail = "" if str(error) == error.public else f"\n  {error}"
            return _complain(error.public + detail, error.remedy, error.exit_status, error.code)
        case click.Abort():  # Ctrl-C, outside of a command that handles signals itself
            return _INTERRUPTED
        case OSError():  # a full disk, a descriptor that is closed: the machine's fault
            where = f"{error.filename}: " if error.filename else ""
            return _complain(f"{where}{error.strerror or error}", "", 1, "system")
    # The last resort: the place in our code tells a maintainer what a traceback would.
    from iam_auth_proxy.proxy.process.logs import describe

    what, where = describe(error)
    _complain(f"this is a bug: {what} at {where}", "Please report this line.", 1, "internal")
    raise SystemExit(_OURS if _runs_another(args) else 1) from error


def _runs_another(args: Sequence[str]) -> bool:
    """Whether the status is that of a command that was run, and ours has to be another."""
    return list(args[:1]) == ["exec"] or list(args[:2]) == ["secret", "exec"]


def _complain(what: str, remedy: str, status: int, code: str = "") -> int:
    """What happened / the one thing to do / code; returns ``status``."""
    lines = [f"{styled(f'{PROGRAM}:', fg='red', bold=True)} {what}", *([remedy] if remedy else [])]
    click.echo("\n".join(lines) + (f"   [{code}]" if code else ""), err=True)
    return status


def _command(args: Sequence[str]) -> str:
    """The command that was typed, without what it was given."""
    words = [PROGRAM]
    group: click.Group = cli
    for word in args:
        command = group.commands.get(word)
        if command is None or word == "run":  # whose help is the program's
            break
        words.append(word)
        if not isinstance(command, click.Group):
            break
        group = command
    return " ".join(words)


def _usage_problem(error: click.UsageError, args: Sequence[str]) -> str:
    if isinstance(error, click.NoSuchOption):
        return f"there is no flag {_as_typed(error, args)}"
    if isinstance(error, click.MissingParameter) and error.param is not None:
        name = f"{error.param.opts[0]} " if isinstance(error.param, click.Option) else ""
        return f"{name}{error.param.make_metavar(error.ctx or click.Context(cli))} is missing"
    if isinstance(error, click.BadParameter) and error.param is not None:
        return f"{_name(error.param, error.ctx)}: {error.message.rstrip('.')}"
    text = error.format_message().rstrip(".")
    return text[:1].lower() + text[1:]


def _name(param: click.Parameter, ctx: click.Context | None) -> str:
    """As it is typed: an argument has no name but for what stands in its place."""
    option = isinstance(param, click.Option)
    return param.opts[0] if option else param.make_metavar(ctx or click.Context(cli))


def _usage_remedy(error: click.UsageError, args: Sequence[str]) -> str:
    if isinstance(error, Misused):
        return error.remedy
    if isinstance(error, click.NoSuchOption) and error.ctx is not None:
        known = [name for param in error.ctx.command.params for name in param.opts]
        long = [name for name in known if name.startswith("--")]
        guess = nearest("--" + _as_typed(error, args).lstrip("-"), long)
        if guess:
            return f"Did you mean {guess}?"
    path = error.ctx.command_path if error.ctx is not None else PROGRAM
    return f"See: {path.removesuffix(' run')} --help"


def _as_typed(error: click.NoSuchOption, args: Sequence[str]) -> str:
    """``-bind``, of which click only reports the ``-b``."""
    name = error.option_name
    typed = [arg.partition("=")[0] for arg in args if arg.startswith(name)]
    return name if name.startswith("--") or not typed else typed[0]
