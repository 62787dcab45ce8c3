"""Flags made of the table of options, and the configuration that a command reads."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

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


def bind_flag() -> Flag:
    """``--bind``, of every command that asks a running proxy: which one is meant."""
    made = flag(next(option for option in config.OPTIONS if option.name == "bind"))
    made.group = "Flags"
    made.help = "Where the proxy listens. [default:\xa0as\xa0configured]"
    return made


Checks = Mapping[str, Callable[[str], object]]


def loader(
    given: Mapping[str, Any],
    config_file: str | None,
    *,
    runs: bool = False,
    checks: Checks | None = None,
) -> Callable[[], config.Settings]:
    """Reads the configuration, again and again: for the start, and for each SIGHUP.

    :param runs: it is for a proxy, which needs the passwords and files that the options name too.
    :param checks: further ones, by option name.
    """
    flags = {
        option.name: "true" if value is True else value
        for option in config.OPTIONS
        if (value := given.get(option.attribute))
    }
    own = _named(config_file)
    files = files_of(config_file)

    def load() -> config.Settings:
        from iam_auth_proxy.relay.addresses import parse_target
        from iam_auth_proxy.relay.via import parse_connect_to, parse_via

        of_text: dict[str, Callable[[str], object]] = {
            "socks-proxy": parse_via,
            "connect-to": parse_connect_to,
            "allow-target": parse_target,
        }
        return config.load(
            flags,
            os.environ,
            files,
            required=own,
            checks={**of_text, **(_OF_A_RUN if runs else {}), **(checks or {})},
            check_via=_named_via if runs else lambda via: parse_via(via.socks),
            system=[config.SYSTEM_FILE],
        )

    return load


def files_of(config_file: str | None) -> list[Path]:
    """The person's ``config.toml``, and the operator's; neither need exist."""
    return [_named(config_file) or config.user_file(), config.SYSTEM_FILE]


def _named(config_file: str | None) -> Path | None:
    named = config_file or os.environ.get(f"{config.ENV_PREFIX}CONFIG", "")
    return Path(os.path.expanduser(named)) if named else None


def _socks_proxy(text: str) -> None:
    from iam_auth_proxy.proxy.upstream.vias import default_via

    default_via(text, os.environ)


def _client_auth(path: str) -> None:
    from iam_auth_proxy.proxy.listeners.clientauth import load

    load(path)


def _named_via(via: config.ViaSettings) -> None:
    from iam_auth_proxy.proxy.upstream.vias import named_via

    named_via(via)


_OF_A_RUN: Final[Checks] = {"socks-proxy": _socks_proxy, "client-auth": _client_auth}
