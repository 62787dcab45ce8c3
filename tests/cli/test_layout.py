"""Help: what stands where, and that it fits a terminal of 80 columns."""

import re

import click
import pytest
from click.testing import CliRunner

from iam_auth_proxy.cli.commands import cli
from iam_auth_proxy.cli.layout import PROGRAM
from iam_auth_proxy.config import OPTIONS

# The original's usage text, flag by flag; then those that its text leaves out.
ORIGINAL = [
    *("--assume-role-arn", "--assume-role-external-id", "--assume-role-session-name", "--region"),
    *("--mfa-serial-number", "--mfa-token-code", "--version", "--socks-proxy", "--bind"),
    *("--assume-role-policy", "--session-duration", "--log-level", "--log-format"),
]


def shown(*args: str, **more: str) -> str:
    result = CliRunner().invoke(cli, list(args), prog_name=PROGRAM, env=more)
    assert result.exit_code == 0, result.output
    assert result.stderr == ""
    return result.stdout


def test_the_golden_points_of_help() -> None:
    lines = shown("--help").splitlines()
    assert lines[:2] == ["Usage: iam-auth-proxy [flags]", "       iam-auth-proxy COMMAND [flags]"]
    assert [line for line in lines if re.fullmatch(r"[A-Z][\w ]*:", line)] == [
        *("Flags:", "Signing in:", "Apps on https:", "Reaching apps and AWS:", "Who may use it:"),
        *("Everywhere:", "Use it:", "Look:", "Set up:", "Serve:", "Examples:"),
    ]
    assert "  --assume-role-session-name NAME  Session name of the assumed role." in lines
    assert "  -v, --version                    Show the version." in lines
    assert "  -h, --help                       Show this help." in lines
    assert "  run           Run the proxy; iam-auth-proxy [flags] is the same." in lines
    assert "                                   :PORT of loopback. [default: :8080]" in lines
    assert " ".join(lines[-2:]) == (
        "Exit status: 0 ok, 1 failed, 2 usage or configuration, 3 AWS login needed, 4 not trusted,"
        " 5 the app refused, 6 AWS or network unavailable."
    )


def test_no_line_ends_inside_a_word() -> None:
    """A command, flag or value that is cut at its hyphen cannot be copied."""
    for args in (["--help"], ["token", "issue", "--help"], ["ca", "--help"]):
        assert not [line for line in shown(*args).splitlines() if line.endswith("-")]


def test_every_command_takes_flags_by_one_name() -> None:
    for args in (["trust", "list"], ["logout"], ["service", "install"]):
        first = shown(*args, "--help").splitlines()[0]
        assert first.startswith(f"Usage: iam-auth-proxy {' '.join(args)} [flags]")
        assert first.count("ORIGIN") <= 1


def test_the_originals_flags_come_first() -> None:
    first, _, others = shown("--help").partition("\nSigning in:\n")
    assert sorted(re.findall(r"^  (?:-\w, )?(--[\w-]+)", first, re.MULTILINE)) == sorted(ORIGINAL)
    for option in OPTIONS:
        assert f"--{option.name}" in first + others


@pytest.mark.parametrize("flag", ["-h", "--help", "--help-long", "--help-man"])
def test_the_aliases_of_help(flag: str) -> None:
    assert shown(flag) == shown("--help")


def test_the_hidden_aliases_are_hidden() -> None:
    assert "--help-long" not in shown("--help")
    assert "--help-man" not in shown("--help")


def every_command() -> list[tuple[str, ...]]:
    found: list[tuple[str, ...]] = []
    for name, command in cli.commands.items():
        found.append((name,))
        if isinstance(command, click.Group):
            found += [(name, below) for below in command.commands]
    return found


@pytest.mark.parametrize("command", [(), *every_command()])
def test_help_fits_eighty_columns_of_ascii(command: tuple[str, ...]) -> None:
    text = shown(*command, "--help")
    assert text.isascii()
    assert max(len(line) for line in text.splitlines()) <= 80
    assert not re.search(r" \n", text)


def test_every_command_is_in_one_section_and_has_one_line() -> None:
    names = [name for names in cli.sections.values() for name in names]
    assert sorted(names) == sorted(cli.commands)
    text = shown("--help")
    for name, command in cli.commands.items():
        assert re.search(rf"^  {name} +{re.escape(command.short_help or '')}$", text, re.MULTILINE)


@pytest.mark.parametrize("command", every_command())
def test_the_help_of_a_command(command: tuple[str, ...]) -> None:
    text = shown(*command, "--help")
    assert text.startswith(f"Usage: {PROGRAM} {' '.join(command)}")
    group = len(command) == 1 and isinstance(cli.commands[command[0]], click.Group)
    assert ("\nCommands:" in text) is group
    assert "  -h, --help" in text
    assert text == shown(*command, "--help-man")


@pytest.mark.parametrize("command", [(), *every_command()])
def test_help_is_a_word_too(command: tuple[str, ...]) -> None:
    assert shown("help", *command) == shown(*command, "--help")


def test_help_of_what_runs_commands_runs_none() -> None:
    for command in (("exec",), ("secret", "exec"), ("local-aws",)):
        assert shown("help", *command, "false", "x") == shown(*command, "--help")
    assert shown("trust", "help", "add") == shown("trust", "add", "--help")


@pytest.mark.parametrize("command", [(), *every_command()])
def test_a_commands_own_flags_come_first_and_those_of_all_last(command: tuple[str, ...]) -> None:
    text = shown(*command, "--help").partition("\nUse it:\n")[0]
    titles = [line for line in text.splitlines() if re.fullmatch(r"[A-Z][\w ]*:", line)]
    assert titles[-1] == "Everywhere:"
    assert "Flags:" not in titles[1:] or titles[0] == "Commands:"
    last = re.findall(r"^  (?:-\w, )?(--\w+)", text.partition("\nEverywhere:\n")[2], re.MULTILINE)
    assert last == ["--help", *sorted(last[1:])]


def test_a_noun_alone_shows_its_help() -> None:
    assert shown("trust") == shown("trust", "--help")
    assert "  accept-key ORIGIN ARN" in shown("trust")


def test_a_record_that_is_too_long_stands_above_its_text() -> None:
    assert (
        "  --connect-to HOST:PORT:ADDRESS:PORT\n"
        "                                   Dial ADDRESS:PORT for HOST:PORT."
    ) in shown("--help")


@pytest.mark.parametrize(
    ("environ", "bold"), [({}, True), ({"NO_COLOR": "1"}, False), ({"TERM": "dumb"}, False)]
)
def test_colour(environ: dict[str, str], bold: bool) -> None:
    environ = {"NO_COLOR": "", "TERM": "xterm", **environ}
    result = CliRunner().invoke(cli, ["--help"], env=environ, color=True)
    assert ("\x1b[1mFlags:\x1b[0m" in result.stdout) is bold


def test_every_flag_takes_a_value_or_is_a_switch() -> None:
    for param in cli.commands["run"].params:
        assert isinstance(param, click.Option)
        assert bool(param.metavar) is not param.is_flag
