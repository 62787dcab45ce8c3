"""From what is typed to what a room is asked for."""

import os
import subprocess
import sys
import types
from collections.abc import Callable, MutableMapping
from pathlib import Path
from typing import Any, TextIO

import pytest
from click.shell_completion import BashComplete

from iam_auth_proxy import __version__, config
from iam_auth_proxy.cli.commands import cli
from iam_auth_proxy.cli.outcome import status_of
from iam_auth_proxy.errors import ConfigError


class Daemon(types.ModuleType):
    """Stands in for the proxy: what was asked of it is what is tested here."""

    def __init__(self) -> None:
        super().__init__("iam_auth_proxy.proxy.commands.daemon")
        self.settings: list[config.Settings] = []
        self.reload: Callable[[], config.Settings] | None = None
        self.status = 0

    def run(
        self,
        settings: config.Settings,
        *,
        reload: Callable[[], config.Settings],
        environ: MutableMapping[str, str],
        out: TextIO,
    ) -> int:
        assert environ is os.environ
        assert out is sys.stderr
        self.settings.append(settings)
        self.reload = reload
        return self.status


@pytest.fixture
def daemon(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Daemon:
    import iam_auth_proxy.proxy.commands

    stand_in = Daemon()
    monkeypatch.setitem(sys.modules, stand_in.__name__, stand_in)
    monkeypatch.setattr(iam_auth_proxy.proxy.commands, "daemon", stand_in, raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(config, "SYSTEM_FILE", tmp_path / "etc" / "config.toml")
    return stand_in


# -- run -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("start", [[], ["run"]])
def test_bare_flags_are_flags_of_run(daemon: Daemon, start: list[str]) -> None:
    assert status_of([*start, "--bind", ":9090", "--profile=dev"]) == 0
    [settings] = daemon.settings
    assert settings.bind.port == 9090
    assert settings.profile == "dev"


@pytest.mark.parametrize("args", [[], ["run"]])
def test_nothing_typed_is_run(daemon: Daemon, args: list[str]) -> None:
    assert status_of(args) == 0
    assert len(daemon.settings) == 1


def test_the_originals_command_line(daemon: Daemon) -> None:
    role = "arn:aws:iam::111122223333:role/Login"
    serial = "arn:aws:iam::111122223333:mfa/alice"
    args = [
        *(f"--assume-role-arn={role}", "--assume-role-external-id=abc"),
        *("--assume-role-session-name=alice", "--assume-role-policy={}", "--session-duration=2h"),
        *("--region=eu-west-1", f"--mfa-serial-number={serial}", "--mfa-token-code=123456"),
        *("--socks-proxy=127.0.0.1:8081", "--bind=:8080", "--log-level=warn", "--log-format=json"),
    ]
    assert status_of(args) == 0
    [settings] = daemon.settings
    assert settings.assume_role_arn == role
    assert settings.assume_role_external_id == "abc"
    assert settings.assume_role_session_name == "alice"
    assert settings.assume_role_policy == "{}"
    assert settings.session_duration == 7200
    assert settings.region == "eu-west-1"
    assert settings.mfa_serial_number == serial
    assert settings.mfa_token_code == "123456"
    assert settings.socks_proxy == "127.0.0.1:8081"
    assert settings.log_level == "warning"
    assert settings.log_format == "json"


def test_flags_that_repeat_and_switches(daemon: Daemon) -> None:
    args = ["--trust", "http://a.test", "--trust=http://b.test", "--quiet"]
    assert status_of([*args, "--connect-to", "a.test:80:127.0.0.1:8081"]) == 0
    [settings] = daemon.settings
    assert [str(rule) for rule in settings.trust] == ["http://a.test", "http://b.test"]
    assert settings.connect_to == ("a.test:80:127.0.0.1:8081",)
    assert settings.quiet


def test_every_option_has_its_flag_variable_and_key() -> None:
    flags = {name for param in cli.commands["run"].params for name in param.opts}
    for option in config.OPTIONS:
        assert f"--{option.name}" in flags
        assert option.variable == "IAM_AUTH_PROXY_" + option.name.upper().replace("-", "_")


def test_the_environment(daemon: Daemon, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IAM_AUTH_PROXY_PROFILE", "environ")
    monkeypatch.setenv("IAM_AUTH_PROXY_REGION", "eu-west-2")
    assert status_of(["--region", "eu-west-1"]) == 0
    [settings] = daemon.settings
    assert (settings.profile, settings.region) == ("environ", "eu-west-1")


def test_the_users_file_the_systems_and_one_that_is_named(
    daemon: Daemon, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def write(path: Path, text: str) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    system = write(config.SYSTEM_FILE, 'profile = "system"\nregion = "eu-west-1"\n')
    user = write(config.user_file(), 'profile = "user"\n')
    named = write(tmp_path / "named.toml", 'profile = "named"\n')
    assert status_of([]) == 0
    assert status_of(["--config", str(named)]) == 0
    monkeypatch.setenv("IAM_AUTH_PROXY_CONFIG", str(named))
    assert status_of([]) == 0
    assert [settings.profile for settings in daemon.settings] == ["user", "named", "named"]
    assert [settings.region for settings in daemon.settings] == ["eu-west-1"] * 3
    assert [settings.files for settings in daemon.settings] == [
        (user, system),
        (named, system),
        (named, system),
    ]


def test_reload_reads_again_and_keeps_the_flags(daemon: Daemon) -> None:
    assert status_of(["--profile", "flag"]) == 0
    assert daemon.reload is not None
    file = config.user_file()
    file.parent.mkdir(parents=True)
    file.write_text('profile = "user"\nregion = "eu-west-1"\n')
    fresh = daemon.reload()
    assert (fresh.profile, fresh.region) == ("flag", "eu-west-1")
    file.write_text("regoin = 1")
    with pytest.raises(ConfigError):
        daemon.reload()


def test_the_daemons_status_is_the_commands(daemon: Daemon) -> None:
    daemon.status = 3
    assert status_of([]) == 3


@pytest.mark.parametrize(
    "given",
    [
        ("--socks-proxy", "ftp://a:1"),
        ("--connect-to", "a"),
        ("--allow-target", "not a target"),
        ("--bind", "0.0.0.0:80"),
        ("--trust", "a.test"),
    ],
)
def test_what_the_relay_cannot_read_is_a_configuration_problem(
    daemon: Daemon, given: tuple[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert status_of(list(given)) == 2
    assert daemon.settings == []
    assert f"\n  {given[0]}: " in capsys.readouterr().err


# -- the others ------------------------------------------------------------------------------------


@pytest.mark.parametrize("flag", ["-v", "--version"])
@pytest.mark.parametrize("before", [[], ["run"], ["run", "--bind", "nonsense"]])
def test_the_version(flag: str, before: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert status_of([*before, flag]) == 0
    assert capsys.readouterr() == (f"iam-auth-proxy {__version__}\n", "")


def stand_in(monkeypatch: pytest.MonkeyPatch, name: str, run: Callable[..., int]) -> None:
    module = types.ModuleType(name)
    module.__dict__["run"] = run
    parent, _, child = name.rpartition(".")
    monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setattr(sys.modules[parent], child, module, raising=False)


@pytest.mark.parametrize(
    ("args", "asked"),
    [
        ([], (None, None, ())),
        (["--port", "4566", "--env-file", "f"], (4566, "f", ())),
        (["--", "make", "test"], (None, None, ("make", "test"))),
        (["pytest", "-q", "--port"], (None, None, ("pytest", "-q", "--port"))),
        (["--port=0", "--", "sh", "-c", "exit 3"], (0, None, ("sh", "-c", "exit 3"))),
    ],
)
def test_local_aws(
    monkeypatch: pytest.MonkeyPatch, args: list[str], asked: tuple[Any, ...]
) -> None:
    seen: list[tuple[Any, ...]] = []

    def run(*given: Any) -> int:
        seen.append(given)
        return 7

    import iam_auth_proxy.local_aws

    assert iam_auth_proxy.local_aws
    stand_in(monkeypatch, "iam_auth_proxy.local_aws.command", run)
    assert status_of(["local-aws", *args]) == 7
    assert seen == [(*asked, sys.stdout, sys.stderr)]


@pytest.mark.parametrize(("args", "once"), [([], False), (["--once"], True)])
def test_demo(monkeypatch: pytest.MonkeyPatch, args: list[str], once: bool) -> None:
    stand_in(monkeypatch, "iam_auth_proxy.demo", lambda **given: int(given != {"once": once}))
    assert status_of(["demo", *args]) == 0


# -- completion ------------------------------------------------------------------------------------


def completions(words: str) -> list[str]:
    """What a shell would offer for a command line that ends where the cursor is."""
    *typed, incomplete = words.split(" ")[1:]
    found = BashComplete(cli, {}, "iam-auth-proxy", "X").get_completions(typed, incomplete)
    return [item.value for item in found]


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        (
            "iam-auth-proxy ",
            sorted(cli.commands),
        ),
        ("iam-auth-proxy lo", ["local-aws", "logout"]),
        ("iam-auth-proxy help lo", ["local-aws", "logout"]),
        ("iam-auth-proxy help trust a", ["accept-key", "add"]),
        ("iam-auth-proxy --assume-role-e", ["--assume-role-external-id"]),
        ("iam-auth-proxy --bind :80 --log-f", ["--log-format"]),
        ("iam-auth-proxy --log-level w", ["warning"]),
        ("iam-auth-proxy run --sign-in ", ["auto", "inline", "redirect"]),
        ("iam-auth-proxy completion z", ["zsh"]),
        ("iam-auth-proxy trust a", ["accept-key", "add"]),
        ("iam-auth-proxy trust add http://a.test --proof se", ["session-credentials"]),
        ("iam-auth-proxy --profile x --cacert ca", ["ca"]),
        ("iam-auth-proxy --profile x lo", []),
    ],
)
def test_what_the_shell_is_offered(words: str, offered: list[str]) -> None:
    assert sorted(completions(words)) == offered


def test_the_flags_of_both_the_program_and_run_are_offered_once() -> None:
    offered = completions("iam-auth-proxy -")
    assert len(offered) == len(set(offered))
    assert {f"--{option.name}" for option in config.OPTIONS} <= set(offered)
    assert {"--help", "--version", "--config"} <= set(offered)


def test_the_script_of_bash_evaluates_and_completes(tmp_path: Path) -> None:
    program = tmp_path / "iam-auth-proxy"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m iam_auth_proxy "$@"\n')
    program.chmod(0o755)
    script = """
        set -eu
        eval "$(iam-auth-proxy completion bash)"
        COMP_WORDS=(iam-auth-proxy --log-fo) COMP_CWORD=1
        _iam_auth_proxy_completion iam-auth-proxy
        printf '%s\\n' "${COMPREPLY[@]}"
    """
    answer = subprocess.run(
        ["bash", "--norc", "-c", script],
        env={**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (answer.stdout, answer.stderr) == ("--log-format\n", "")


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_script_for_each_shell(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert status_of(["completion", shell]) == 0
    script, said = capsys.readouterr()
    assert f"_IAM_AUTH_PROXY_COMPLETE={shell}_complete" in script
    assert said == ""
