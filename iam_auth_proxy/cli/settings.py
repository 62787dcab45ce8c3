"""Flags made of the table of options, and the configuration that a command reads."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from iam_auth_proxy import config
from iam_auth_proxy.cli.layout import EVERYWHERE, Flag

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem


def completer(
    choices: Sequence[str], *, file: bool
) -> Callable[[click.Context, click.Parameter, str], list[CompletionItem]]:
    def complete(
        ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        from click.shell_completion import CompletionItem

        if file:
            return [CompletionItem(incomplete, type="file")]
        return [CompletionItem(each) for each in choices if each.startswith(incomplete)]

    return complete


def flag(option: config.Option) -> Flag:
    """A flag of the table. Any text is taken: the configuration tells all problems at once."""
    default = f" [default:\xa0{option.default}]" if option.default and not option.switch else ""
    return Flag(
        [f"--{option.name}", option.attribute],
        metavar=option.metavar or None,
        help=option.help + default,
        group=option.group,
        multiple=option.repeat,
        # None, not False: click takes False to mean that the option's value is optional.
        is_flag=option.switch or None,
        shell_complete=completer(option.choices, file=option.metavar == "FILE"),
    )


def config_flag() -> Flag:
    """``--config``, of every command that reads the configuration."""
    return Flag(
        ["--config", "config_file"],
        metavar="FILE",
        group=EVERYWHERE,
        shell_complete=completer((), file=True),
        help="Read FILE in place of your own config.toml.",
    )


def json_flag() -> Flag:
    """``--json``, of every command that prints data."""
    return Flag(
        ["--json", "as_json"], is_flag=True, group=EVERYWHERE, help="Print JSON, for programs."
    )


def loader(given: Mapping[str, Any], config_file: str | None) -> Callable[[], config.Settings]:
    """Reads the configuration, again and again: for the start, and for each SIGHUP."""
    flags = {
        option.name: "true" if value is True else value
        for option in config.OPTIONS
        if (value := given.get(option.attribute))
    }
    named = config_file or os.environ.get(f"{config.ENV_PREFIX}CONFIG", "")
    own = Path(os.path.expanduser(named)) if named else None
    files = [own or config.user_file(), config.SYSTEM_FILE]

    def load() -> config.Settings:
        from iam_auth_proxy.relay.addresses import parse_target
        from iam_auth_proxy.relay.via import parse_connect_to, parse_via

        checks: dict[str, Callable[[str], object]] = {
            "socks-proxy": parse_via,
            "connect-to": parse_connect_to,
            "allow-target": parse_target,
        }
        system = [config.SYSTEM_FILE]
        return config.load(flags, os.environ, files, required=own, checks=checks, system=system)

    return load
