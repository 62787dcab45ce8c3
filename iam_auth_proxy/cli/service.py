"""``service``: the proxy as a systemd service of one's own login."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

import click

from iam_auth_proxy.cli.layout import PROGRAM, Command, Group
from iam_auth_proxy.cli.running import Told
from iam_auth_proxy.cli.settings import config_flag, loader
from iam_auth_proxy.cli.units import SERVICE, SOCKET, is_ours, units

_SYSTEMCTL: Final = ("systemctl", "--user")


@click.group("service", cls=Group, short_help="Run the proxy as a service of your login (systemd).")
def service_commands() -> None:
    """Run the proxy as a systemd service of your own login.

    Its port is held from login on, and the first connection starts it. Each command
    that is run, and each file that is written, is said first.
    """


@service_commands.command(
    "install", cls=Command, params=[config_flag()], short_help="Install and start it."
)
def install_command(config_file: str | None) -> int:
    """Write the units, and enable them. It listens where your configuration says."""
    _must_have_systemd()
    bind = loader({}, config_file)().bind
    wanted = units([*_program(), *_named(config_file)], bind)
    changed = {name: text for name, text in wanted.items() if _read(name) != text}
    for name in changed:
        found = _read(name)
        if found and not is_ours(found):
            raise Told(
                f"{_path(name)} is not of this command's making",
                f"Move it away, or put your changes into a drop-in: systemctl --user edit {name}",
                "foreign-unit",
            )
    if changed and any(_read(name) for name in wanted):
        _run("stop", SOCKET, SERVICE)
    for name, text in changed.items():
        path = _path(name)
        click.echo(f"writing {path}", err=True)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, "utf-8")
    _run("daemon-reload")
    _run("enable", "--now", SOCKET)
    click.echo(f"It listens. Undo: {PROGRAM} service uninstall", err=True)
    return 0


@service_commands.command("uninstall", cls=Command, params=[], short_help="Undo what install did.")
def uninstall_command() -> int:
    """Stop and disable the units, and remove their files. Your configuration stays."""
    _must_have_systemd()
    there = [name for name in (SOCKET, SERVICE) if _read(name)]
    for name in there:
        if not is_ours(_read(name)):
            raise Told(
                f"{_path(name)} is not of this command's making",
                f"Remove it yourself: systemctl --user disable --now {name}",
                "foreign-unit",
            )
    if there:
        _run("disable", "--now", *there)
    for name in there:
        click.echo(f"removing {_path(name)}", err=True)
        _path(name).unlink()
    if there:
        _run("daemon-reload")
    else:
        click.echo("There is nothing to undo.", err=True)
    return 0


@service_commands.command("status", cls=Command, params=[], short_help="What systemd says of it.")
def status_command() -> int:
    """Show what systemd says of both units; the exit status is systemd's own."""
    _must_have_systemd()
    return subprocess.run(
        [*_SYSTEMCTL, "--no-pager", "status", SOCKET, SERVICE], check=False
    ).returncode


def _program() -> list[str]:
    """What runs this program, by paths that do not depend on PATH."""
    beside = Path(sys.executable).parent / PROGRAM
    if os.access(beside, os.X_OK):
        return [str(beside)]
    return [sys.executable, "-m", "iam_auth_proxy"]


def _named(config_file: str | None) -> list[str]:
    return ["--config", str(Path(config_file).absolute())] if config_file else []


def _path(name: str) -> Path:
    """systemd.unit(5): $XDG_CONFIG_HOME/systemd/user."""
    from platformdirs import user_config_path

    return user_config_path() / "systemd" / "user" / name


def _read(name: str) -> str:
    try:
        return _path(name).read_text("utf-8", "replace")
    except FileNotFoundError:
        return ""


def _run(*args: str) -> None:
    """Says a command, and runs it.

    :raises Told: it failed.
    """
    argv = [*_SYSTEMCTL, *args]
    click.echo(f"$ {shlex.join(argv)}", err=True)
    done = subprocess.run(argv, check=False)
    if done.returncode:
        raise Told(
            f"systemctl ended with {done.returncode}",
            f"See: systemctl --user status {SOCKET} {SERVICE}",
            "systemctl",
        )


def _must_have_systemd() -> None:
    """:raises Told: nobody would run the units."""
    if shutil.which(_SYSTEMCTL[0]):
        probe = subprocess.run(
            [*_SYSTEMCTL, "show-environment"], capture_output=True, text=True, check=False
        )
        if probe.returncode == 0:
            return
        why = probe.stderr.strip().splitlines()
        what = f"no service manager of your login answers ({why[0] if why else 'systemctl'})"
    else:
        what = "there is no systemd here"
    remedy = f"Let your desktop's autostart, or a terminal, run: {PROGRAM}"
    raise Told(what, remedy, "no-systemd")
