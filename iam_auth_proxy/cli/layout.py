"""How commands are found, and how help looks: two steady columns in 80 characters."""

from __future__ import annotations

import inspect
import os
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

import click
from click.formatting import wrap_text

from iam_auth_proxy import config

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

PROGRAM: Final = "iam-auth-proxy"

HELP: Final = ("-h", "--help", "--help-long", "--help-man")  # the last two are the original's
VERSION: Final = ("-v", "--version")
EVERYWHERE: Final = "Everywhere"
_OWN: Final = "Flags"

_WIDTH = 80
_HYPHEN = "\u2011"  # one that no line is broken at
_FLAG_COLUMN = 35
_COMMAND_COLUMN = 16
_SUBCOMMAND_COLUMN = 26

_EXAMPLES = f"""\
  {PROGRAM} trust add http://grafana.internal
  {PROGRAM} --profile dev --socks-proxy 127.0.0.1:8081"""

_EPILOGUE = f"""\
What a command does and takes: {PROGRAM} COMMAND --help

Every flag is also a variable, {config.ENV_PREFIX}<FLAG>, and a key of config.toml. A flag counts \
before its variable, that before your own file, and that before {config.SYSTEM_FILE}.

Exit status: 0 ok, 1 failed, 2 usage or configuration, 3 AWS login needed, 4 not trusted, 5 the \
app refused, 6 AWS or network unavailable."""


class Misused(click.UsageError):
    """Wrong usage, with the one thing to do about it."""

    def __init__(self, message: str, remedy: str, ctx: click.Context | None = None) -> None:
        super().__init__(message, ctx)
        self.remedy = remedy


def styled(text: str, **style: Any) -> str:
    """In colour, unless NO_COLOR or a dumb terminal; click drops it where nobody watches."""
    if os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb":
        return text
    return click.style(text, **style)


def nearest(word: str, known: Iterable[str]) -> str:
    """The known word most like ``word``; empty if none is."""
    import difflib  # most command lines are typed well

    return next(iter(difflib.get_close_matches(word, list(known), 1)), "")


class Number(click.IntRange):
    """A whole number from ``min``, to ``max`` where there is one.

    click says of another that it is not in a range like 0<=x<=65535, or is no "integer range".
    """

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """See the base class; what is wrong says what is right."""
        try:
            return super().convert(value, param, ctx)
        except click.BadParameter:
            most = self.max
            right = f"from {self.min} to {most}" if most is not None else f"of {self.min} or more"
            self.fail(f"{str(value)!r} is not a whole number {right}", param, ctx)


class Flag(click.Option):
    """An option that help lists under ``group``."""

    def __init__(self, *args: Any, group: str = _OWN, **attributes: Any) -> None:
        super().__init__(*args, **attributes)
        self.group = group


class Command(click.Command):
    """A command whose help has the layout of the program's."""

    def __init__(self, name: str | None, **attributes: Any) -> None:
        super().__init__(name, **{"options_metavar": "[flags]", **attributes})

    def get_help(self, ctx: click.Context) -> str:
        """Usage, what it does, and its flags."""
        text = inspect.cleandoc(self.help or "")
        return "\n".join([self.get_usage(ctx), "", _wrapped(text), *_flags(self.params)])


class Group(click.Group):
    """Commands of one noun: ``trust list``, ``trust add``. The noun alone shows its help."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Sends nothing at all to the help, and reads ``help COMMAND`` as ``COMMAND --help``."""
        if args[:1] == ["help"]:
            args = args[1:] if ctx.resilient_parsing else self._helped(args[1:])
        return super().parse_args(ctx, args or ([] if ctx.resilient_parsing else ["--help"]))

    def _helped(self, args: list[str]) -> list[str]:
        """The same with ``--help`` behind the command's last word, before all that it would run."""
        if not args or args[0] not in self.commands:
            return args or ["--help"]
        below = isinstance(self.commands[args[0]], click.Group)
        return [args[0], "help" if below else "--help", *args[1:]]

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """The command, or the nearest one in the complaint."""
        if args[0] not in self.commands and not ctx.resilient_parsing:
            guess = nearest(args[0], self.commands)
            path = ctx.command_path
            remedy = f"Did you mean: {path} {guess}" if guess else f"See: {path} --help"
            raise Misused(f"there is no command {args[0]!r}", remedy, ctx)
        return super().resolve_command(ctx, args)

    def get_help(self, ctx: click.Context) -> str:
        """Usage, what it is about, and its commands."""
        text = inspect.cleandoc(self.help or "")
        lines = [f"Usage: {ctx.command_path} COMMAND [flags]", "", _wrapped(text)]
        lines.append(_heading("Commands"))
        for name, command in self.commands.items():
            usage = " ".join(
                [name, *(each.make_metavar(ctx) for each in command.params if _is_argument(each))]
            )
            lines += _row(usage, command.get_short_help_str(_WIDTH), _SUBCOMMAND_COLUMN)
        return "\n".join([*lines, *_flags(self.params)])


def _is_argument(param: click.Parameter) -> bool:
    return isinstance(param, click.Argument)


class Commands(Group):
    """The program: bare flags go to ``run``, and help shows those and every command.

    :ivar sections: heading -> the names of its commands, in the order of help.
    """

    sections: Mapping[str, Sequence[str]] = {}

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Sends bare flags, and nothing at all, to ``run``."""
        bare = args[0].startswith("-") and args[0] not in HELP + VERSION if args else True
        # The shell asks what could follow: with nothing typed yet that is every command too.
        if bare and not (ctx.resilient_parsing and not args):
            args = ["run", *args]
        return super().parse_args(ctx, args)

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """The commands, and the flags of ``run``."""
        found = super().shell_complete(ctx, incomplete)
        if incomplete.startswith("-"):
            have = {item.value for item in found}
            flags = self.commands["run"].shell_complete(ctx, incomplete)
            found += [item for item in flags if item.value not in have]
        return found

    def get_help(self, ctx: click.Context) -> str:
        """The original's flags first, then the other groups, then the commands."""
        lines = [f"Usage: {PROGRAM} [flags]", f"       {PROGRAM} COMMAND [flags]", ""]
        lines += [_wrapped(inspect.cleandoc(self.help or ""))]
        lines += _flags(self.commands["run"].params)
        for title, names in self.sections.items():
            lines.append(_heading(title))
            for name in names:
                text = self.commands[name].get_short_help_str(_WIDTH)
                lines += _row(name, text, _COMMAND_COLUMN)
        lines += [_heading("Examples"), _EXAMPLES, "", _wrapped(_EPILOGUE)]
        return "\n".join(lines)


def _flags(params: Sequence[click.Parameter]) -> list[str]:
    """A command's own flags first, and last those of every command, in whatever order they are."""
    groups: dict[str, list[tuple[str, str]]] = {}
    for param in params:
        if isinstance(param, Flag) and not param.hidden:
            record = ", ".join(param.opts) + (f" {param.metavar}" if param.metavar else "")
            groups.setdefault(param.group, []).append((record, param.help or ""))
    everywhere = [("-h, --help", "Show this help."), *sorted(groups.pop(EVERYWHERE, []))]
    own = {title: rows for title, rows in groups.items() if title == _OWN}
    groups = own | groups | {EVERYWHERE: everywhere}
    lines: list[str] = []
    for title, rows in groups.items():
        lines.append(_heading(title))
        for record, text in rows:
            lines += _row(record, text, _FLAG_COLUMN)
    return lines


def _heading(title: str) -> str:
    return "\n" + styled(f"{title}:", bold=True)


def _row(record: str, text: str, column: int) -> list[str]:
    """A record and its text beside it, or below it where the record is too long."""
    first, *rest = _wrapped(text, _WIDTH - column).replace("\xa0", " ").splitlines()
    left = f"  {record}"
    below = [" " * column + line for line in rest]
    if len(left) <= column - 2:
        return [f"{left:<{column}}{first}", *below]
    return [left, " " * column + first, *below]


def _wrapped(text: str, width: int = _WIDTH) -> str:
    """Lines that end between words, and never at the hyphen of a command, flag or value."""
    whole = text.replace("-", _HYPHEN)
    return wrap_text(whole, width, preserve_paragraphs=True).replace(_HYPHEN, "-")
