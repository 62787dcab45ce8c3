"""``config show | check | path``: what is in force, and where each value came from."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Iterator
from typing import Any

import click

from iam_auth_proxy import config
from iam_auth_proxy.cli.layout import Command, Group
from iam_auth_proxy.cli.settings import config_flag, files_of, flag, json_flag, loader
from iam_auth_proxy.config.sources import near
from iam_auth_proxy.config.values import masked, shown
from iam_auth_proxy.errors import ConfigError, Malformed, Problem


@click.group("config", cls=Group, short_help="What is configured, and where it was written.")
def config_commands() -> None:
    """What is configured, and where it was written.

    show and check take the flags of run too, and tell what they would come to.
    """


def _flags_of_run() -> list[click.Parameter]:
    flags = [flag(option) for option in config.OPTIONS]
    for each in flags:
        each.hidden = True
    return [json_flag(), config_flag(), *flags]


@config_commands.command(
    "show",
    cls=Command,
    params=_flags_of_run(),
    short_help="Show each value, and where it came from.",
)
def show_command(as_json: bool, config_file: str | None, **given: Any) -> int:
    """Show each value and where it came from: a flag, a variable, a line, the default.

    It takes the flags of run, to show what they would come to. Secrets are not shown.
    Which apps are trusted, trust list shows.
    """
    settings = loader(given, config_file)()
    rows = [(option.name, *_in_force(option, settings)) for option in config.OPTIONS]
    for via in settings.vias.values():
        rows.append((f"via.{via.name}", [via.socks or f"ssh://{via.ssh_bastion}"], [via.place]))
    if as_json:
        described = {
            name: {"value": values if len(values) != 1 else values[0], "from": places}
            for name, values, places in rows
        }
        print(json.dumps(described, indent=2))
        return 0
    width = max(len(name) for name, _, _ in rows)
    for name, values, places in rows:
        for index, (value, place) in enumerate(zip(values or [""], places, strict=False)):
            print(f"{name if index == 0 else '':<{width}}  {value or '-'}  ({place})")
    return 0


def _in_force(option: config.Option, settings: config.Settings) -> tuple[list[str], list[str]]:
    """The texts of an option, and the place of each."""
    chosen = settings.chosen.get(option.name, ())
    if not chosen:
        return ([option.default] if option.default else []), ["default"]
    texts = ["(set, not shown)" if option.secret else masked(text) for _, text in chosen]
    return texts, [place for place, _ in chosen]


@config_commands.command(
    "check",
    cls=Command,
    params=_flags_of_run(),
    short_help="Check all of it, without starting anything.",
)
def check_command(as_json: bool, config_file: str | None, **given: Any) -> int:
    """Check the configuration and trust.toml: every problem at once, each by its line.

    It takes the flags of run too, and looks at the files and AWS profiles that are
    named. Exit status 2 where something is wrong.
    """
    from iam_auth_proxy.cli.trustwords import unread
    from iam_auth_proxy.proxy.decisions.trustfile import trust_of
    from iam_auth_proxy.proxy.listeners.listen import check_bind

    settings: config.Settings | None = None
    problems: list[Problem] = []
    rules: tuple[config.TrustRule, ...] = ()
    try:
        checks = {"bind": check_bind, "profile": _known_profile}
        settings = loader(given, config_file, runs=True, checks=checks)()
    except ConfigError as error:
        problems += error.problems
        problems += _problems_of_stores(config_file)
    if settings is not None:
        try:
            rules = tuple(trust_of(settings).rules)
        except ConfigError as error:
            problems += error.problems
        problems += _missing_profiles(settings, rules)
    warnings: list[Problem] = []
    if settings is not None:
        warnings += settings.warnings
        for rule in rules:
            hint = unread(rule)
            if hint is not None:
                warnings.append(Problem(str(rule), f"{hint[0]}. Run: {hint[1]}"))
    if as_json:
        print(
            json.dumps(
                {
                    "ok": not problems,
                    "problems": [{"place": each.place, "text": each.text} for each in problems],
                    "warnings": [{"place": each.place, "text": each.text} for each in warnings],
                },
                indent=2,
            )
        )
        return 2 if problems else 0
    for warning in warnings:
        print(f"Warning: {warning}", file=sys.stderr)
    if problems:
        raise ConfigError(problems)
    assert settings is not None
    read = ", ".join(str(path) for path in settings.files) or "there is no config.toml"
    print(f"All is well: {read}; trusted apps: {len(rules)}.", file=sys.stderr)
    return 0


def _problems_of_stores(config_file: str | None) -> Iterator[Problem]:
    """What is wrong with trust.toml by itself."""
    from iam_auth_proxy.proxy.decisions.trustfile import TrustFile

    for path in config.trust_files(files_of(config_file), [config.SYSTEM_FILE]):
        try:
            TrustFile(path).load()
        except ConfigError as error:
            yield from error.problems


def _known_profile(name: str) -> None:
    """:raises Malformed: AWS's files have no such profile."""
    from iam_auth_proxy.aws.profiles import profiles

    known = profiles()
    if name not in known:
        raise Malformed(f"there is no such AWS profile{near(name, known)}")


def _missing_profiles(
    settings: config.Settings, rules: Iterable[config.TrustRule]
) -> Iterator[Problem]:
    """The profiles that nobody has, of the apps and of AWS's own variables."""
    named = [(rule.place, rule.profile) for rule in rules]
    if not settings.profile:  # boto3 looks at the one before the other
        variables = ("AWS_DEFAULT_PROFILE", "AWS_PROFILE")
        named += [(name, os.environ[name]) for name in variables if os.environ.get(name)][:1]
    for place, profile in named:
        try:
            if profile:
                _known_profile(profile)
        except Malformed as error:
            yield Problem(place, f"{shown(profile)}: {error}")


@config_commands.command(
    "path",
    cls=Command,
    params=[json_flag(), config_flag()],
    short_help="Print where your config.toml is, or would be.",
)
def path_command(as_json: bool, config_file: str | None) -> int:
    """Print where your config.toml is, or would be; --json prints the other files too."""
    named = config_file or os.environ.get(f"{config.ENV_PREFIX}CONFIG", "")
    own = os.path.expanduser(named) if named else str(config.user_file())
    if not as_json:
        print(own)
        return 0
    paths = {
        "config": own,
        "trust": os.path.join(os.path.dirname(own), "trust.toml"),
        "system_config": str(config.SYSTEM_FILE),
        "system_trust": str(config.SYSTEM_FILE.with_name("trust.toml")),
    }
    print(json.dumps(paths, indent=2))
    return 0
