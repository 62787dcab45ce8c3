"""Every error is what happened, the one thing to do, and an exit status; never a traceback."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import click
import pytest

from iam_auth_proxy import errors
from iam_auth_proxy.cli.commands import cli
from iam_auth_proxy.cli.outcome import main, status_of
from iam_auth_proxy.errors import ConfigError, IamAuthError, Problem

PROGRAM = [sys.executable, "-m", "iam_auth_proxy"]
SECRET = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"


def said(capsys: pytest.CaptureFixture[str]) -> list[str]:
    out, err = capsys.readouterr()
    assert out == ""
    assert "Traceback" not in err
    return err.splitlines()


@pytest.fixture
def doing(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], object]], list[str]]:
    """Makes a command of any function; returns its command line."""

    def make(action: Callable[[], object]) -> list[str]:
        monkeypatch.setitem(cli.commands, "act", click.Command("act", callback=action))
        return ["act"]

    return make


def failing(error: BaseException) -> Callable[[], object]:
    def fail() -> object:
        raise error

    return fail


@pytest.mark.parametrize(
    ("args", "lines"),
    [
        (["--bnid", ":80"], ["there is no flag --bnid", "Did you mean --bind?"]),
        (["--assume-role"], ["there is no flag --assume-role", "Did you mean --assume-role-arn?"]),
        (["-bind", ":80"], ["there is no flag -bind", "Did you mean --bind?"]),
        (["-x"], ["there is no flag -x", "See: iam-auth-proxy --help"]),
        (["run", "--prfile", "x"], ["there is no flag --prfile", "Did you mean --profile?"]),
        (["--xyzzy"], ["there is no flag --xyzzy", "See: iam-auth-proxy --help"]),
        (["local-aws", "--prot"], ["there is no flag --prot", "Did you mean --port?"]),
        (["demoo"], ["there is no command 'demoo'", "Did you mean: iam-auth-proxy demo"]),
        (["help", "demoo"], ["there is no command 'demoo'", "Did you mean: iam-auth-proxy demo"]),
        (
            ["help", "trust", "lst"],
            ["there is no command 'lst'", "Did you mean: iam-auth-proxy trust list"],
        ),
        (["xyzzy"], ["there is no command 'xyzzy'", "See: iam-auth-proxy --help"]),
        (["--bind"], ["option '--bind' requires an argument", "See: iam-auth-proxy --help"]),
        (["--quiet=1"], ["option '--quiet' does not take a value", "See: iam-auth-proxy --help"]),
        (["run", "fast"], ["'fast' is not a flag", "See: iam-auth-proxy --help"]),
        (
            ["--profile", "x", "local-aws"],
            ["the command comes before the flags", "Run: iam-auth-proxy local-aws ..."],
        ),
        (["completion"], ["{bash|zsh|fish} is missing", "See: iam-auth-proxy completion --help"]),
        (
            ["completion", "tcsh"],
            [
                "{bash|zsh|fish}: 'tcsh' is not one of 'bash', 'zsh', 'fish'",
                "See: iam-auth-proxy completion --help",
            ],
        ),
        (
            ["token", "issue", "--kms-key", "alias/x"],
            ["--to AUDIENCE is missing", "See: iam-auth-proxy token issue --help"],
        ),
        (
            ["local-aws", "--port", "70000"],
            [
                "--port: '70000' is not a whole number from 0 to 65535",
                "See: iam-auth-proxy local-aws --help",
            ],
        ),
        (
            ["local-aws", "--port", "x"],
            [
                "--port: 'x' is not a whole number from 0 to 65535",
                "See: iam-auth-proxy local-aws --help",
            ],
        ),
        (
            ["secret", "get", "a", "--version", "0"],
            [
                "--version: '0' is not a whole number of 1 or more",
                "See: iam-auth-proxy secret get --help",
            ],
        ),
    ],
)
def test_usage(args: list[str], lines: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert status_of(args) == 2
    assert said(capsys) == [f"iam-auth-proxy: {lines[0]}", lines[1]]


def test_every_problem_of_the_configuration_at_once(capsys: pytest.CaptureFixture[str]) -> None:
    assert status_of(["--bind", "0.0.0.0:1", "--trust", "x", "--config", "/nowhere/c.toml"]) == 2
    first, *problems, last = said(capsys)
    assert first == "iam-auth-proxy: the configuration cannot be used:"
    places = sorted(problem.partition(": ")[0] for problem in problems)
    assert places == ["  --bind", "  --trust", "  /nowhere/c.toml"]
    assert last == "Correct these, or see: iam-auth-proxy --help   [configuration]"


def test_a_problem_is_said_once(capsys: pytest.CaptureFixture[str]) -> None:
    assert status_of(["config", "check", "--bind", "x", "--config", "/dev/null"]) == 2
    assert len([line for line in said(capsys) if "--bind: " in line]) == 1


def test_the_help_of_the_command_that_was_typed(capsys: pytest.CaptureFixture[str]) -> None:
    assert status_of(["trust", "add", "http://app", "--kms-key", "x"]) == 2
    assert said(capsys)[-1].startswith("Correct this, or see: iam-auth-proxy trust add --help ")
    assert status_of(["run", "--bind", "x"]) == 2
    assert said(capsys)[-1].startswith("Correct this, or see: iam-auth-proxy --help ")


def test_one_problem_reads_as_one(
    doing: Callable[[Callable[[], object]], list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    assert status_of(doing(failing(ConfigError([Problem("--bind", "is in use")])))) == 2
    assert said(capsys)[1:] == [
        "  --bind: is in use",
        "Correct this, or see: iam-auth-proxy act --help   [configuration]",
    ]


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (IamAuthError(), 1, "internal"),
        (errors.Malformed(), 1, "malformed"),
        (errors.LoginNeeded(), 3, "login-needed"),
        (errors.MfaNeeded("arn:aws:iam::111122223333:mfa/alice"), 3, "mfa-needed"),
        (errors.MfaRefused(), 3, "mfa-refused"),
        (errors.NotTrusted(), 4, "not-trusted"),
        (errors.AppRefused(), 5, "app-refused"),
        (errors.BadChallenge(), 5, "bad-challenge"),
        (errors.AwsUnavailable(), 6, "aws-unavailable"),
        (errors.PathError("x", error="connection_refused"), 6, "path"),
    ],
)
def test_each_error_has_its_status(
    doing: Callable[[Callable[[], object]], list[str]],
    capsys: pytest.CaptureFixture[str],
    error: IamAuthError,
    status: int,
    code: str,
) -> None:
    assert status_of(doing(failing(error))) == status
    lines = said(capsys)
    assert lines[0].startswith(f"iam-auth-proxy: {error.public}")
    assert lines[-1].endswith(f"   [{code}]")
    assert error.remedy in lines[-1]
    assert not lines[-1].startswith("["), "no line is a code alone"


def test_the_detail_stands_between(
    doing: Callable[[Callable[[], object]], list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    error = errors.LoginNeeded("the SSO session of dev ended", remedy="Run: aws sso login")
    assert status_of(doing(failing(error))) == 3
    assert said(capsys) == [
        "iam-auth-proxy: There are no valid AWS credentials.",
        "  the SSO session of dev ended",
        "Run: aws sso login   [login-needed]",
    ]


def test_a_bug_is_a_line_and_a_place(
    doing: Callable[[Callable[[], object]], list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as raised:
        status_of(doing(failing(KeyError(f"SecretAccessKey={SECRET}"))))
    assert raised.value.code == 1
    first, last = said(capsys)
    assert first.startswith("iam-auth-proxy: this is a bug: KeyError: ")
    assert " at cli/outcome.py:" in first
    assert SECRET not in first
    assert last == "Please report this line.   [internal]"


def test_an_error_of_clicks_own(
    doing: Callable[[Callable[[], object]], list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    assert status_of(doing(failing(click.FileError("x", "no space left")))) == 1
    assert said(capsys) == ["iam-auth-proxy: Could not open file 'x': no space left"]


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (OSError(28, "No space left on device"), "No space left on device"),
        (PermissionError(13, "Permission denied", "/etc/x"), "/etc/x: Permission denied"),
        (OSError("odd"), "odd"),
    ],
)
def test_the_machines_fault_is_no_bug(
    doing: Callable[[Callable[[], object]], list[str]],
    capsys: pytest.CaptureFixture[str],
    error: OSError,
    line: str,
) -> None:
    assert status_of(doing(failing(error))) == 1
    assert said(capsys) == [f"iam-auth-proxy: {line}   [system]"]


def test_an_interrupt_is_no_error(
    doing: Callable[[Callable[[], object]], list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    assert status_of(doing(failing(KeyboardInterrupt()))) == 130
    assert said(capsys) == [""]


@pytest.mark.parametrize("result", [None, "text"])
def test_a_command_that_returns_no_number_is_ok(
    doing: Callable[[Callable[[], object]], list[str]], result: object
) -> None:
    assert status_of(doing(lambda: result)) == 0


def test_main_ends_the_process(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as raised:
        main(["--version"])
    assert raised.value.code == 0


def test_red_where_a_terminal_watches(monkeypatch: pytest.MonkeyPatch) -> None:
    from iam_auth_proxy.cli.layout import styled

    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    assert styled("x", fg="red") == "\x1b[31mx\x1b[0m"
    monkeypatch.setenv("NO_COLOR", "1")
    assert styled("x", fg="red") == "x"


# -- as a process ----------------------------------------------------------------------------------


def run(*args: str, **environ: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*PROGRAM, *args],
        env={**os.environ, **environ},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_the_process_says_no_more_than_the_function(tmp_path: Path) -> None:
    answer = run("--bnid", XDG_CONFIG_HOME=str(tmp_path))
    assert answer.returncode == 2
    assert answer.stdout == ""
    assert answer.stderr == "iam-auth-proxy: there is no flag --bnid\nDid you mean --bind?\n"


def test_a_variable_that_is_no_option(tmp_path: Path) -> None:
    answer = run(IAM_AUTH_PROXY_PROFIL="x", XDG_CONFIG_HOME=str(tmp_path))
    assert answer.returncode == 2
    assert "did you mean IAM_AUTH_PROXY_PROFILE?" in answer.stderr


def test_a_reader_that_left_is_no_traceback() -> None:
    script = f"{sys.executable} -m iam_auth_proxy --help | head -1"
    answer = subprocess.run(
        ["bash", "-c", script], capture_output=True, text=True, timeout=60, check=False
    )
    assert answer.stdout == "Usage: iam-auth-proxy [flags]\n"
    assert answer.stderr == ""


def test_the_command_line_loads_no_room() -> None:
    code = (
        "import sys\n"
        "from iam_auth_proxy.cli import main\n"
        "try:\n    main(['--version'])\n"
        "except SystemExit:\n    pass\n"
        "rooms = {'aiohttp', 'asyncio', 'boto3', 'cryptography', 'ssl', 'logging', 'jinja2'}\n"
        "print(sorted(rooms & set(sys.modules)))\n"
        "print([n for n in sys.modules if n.startswith('iam_auth_proxy.')\n"
        "       and n.split('.')[1] not in ('cli', 'config', 'errors', 'names')])\n"
    )
    answer = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    assert answer.stdout.splitlines()[1:] == ["[]", "[]"]
