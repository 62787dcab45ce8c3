"""``secret put|get|list|history|rm|rewrap|exec``: secrets at rest, sealed with KMS.

A secret comes in by standard input or a file and goes out by standard output or a descriptor: never
by an argument, which ``ps`` shows to everybody.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, BinaryIO, Final

import click

from iam_auth_proxy import config
from iam_auth_proxy.cli.layout import EVERYWHERE, PROGRAM, Command, Flag, Group, Misused, Number
from iam_auth_proxy.cli.loading import loading
from iam_auth_proxy.cli.settings import config_flag, flag, json_flag, loader

if TYPE_CHECKING:
    from iam_auth_proxy.keys.build import Place
    from iam_auth_proxy.keys.listing import Listing
    from iam_auth_proxy.keys.objects import Version
    from iam_auth_proxy.keys.secrets import SecretStore

_OPTIONS: Final = {option.name: option for option in config.OPTIONS}
_WHO: Final = ("profile", "region")
_OF_LAZYCRED: Final = "lazycred"


@click.group(
    "secret", cls=Group, short_help="Keep secrets in S3 or a folder, sealed with a KMS key."
)
def secret_commands() -> None:
    """Keep secrets in S3 or a folder, sealed with a KMS key.

    \b
    --store is s3://BUCKET/PREFIX, a folder, or lazycred: as lazycred is configured.
    """


def _quiet() -> Flag:
    return Flag(["--quiet"], is_flag=True, group=EVERYWHERE, help="Say nothing but errors.")


def _store_flags() -> list[click.Parameter]:
    prefix = config.ENV_PREFIX
    return [
        Flag(
            ["--store"],
            metavar="STORE",
            envvar=f"{prefix}STORE",
            help=f"Where they are kept (or {prefix}STORE).",
        ),
        Flag(
            ["--kms-key", "keys"],
            metavar="KEY",
            multiple=True,
            envvar=f"{prefix}KMS_KEY",
            help="KMS key that seals them, in any spelling; further ones may open them, too "
            f"(or {prefix}KMS_KEY).",
        ),
        Flag(
            ["--store-name"],
            metavar="NAME",
            envvar=f"{prefix}STORE_NAME",
            help="What the store is called in its records, where it was moved.",
        ),
        *(flag(_OPTIONS[name]) for name in _WHO),
        _quiet(),
        config_flag(),
    ]


class _Given:
    """The flags that all of these commands have, taken out of a command's arguments."""

    def __init__(self, given: dict[str, Any]) -> None:
        self.quiet = bool(given.pop("quiet"))
        self._store: str | None = given.pop("store")
        self._keys: Sequence[str] = given.pop("keys")
        self._name: str | None = given.pop("store_name")
        self._config_file: str | None = given.pop("config_file")
        self._who = {name: given.pop(name) for name in _WHO}

    def open(self) -> SecretStore:
        """The store.

        :raises Misused: it is not said which, or which KMS key is its.
        """
        place, keys, profile, region = self._place()
        if not keys:
            raise Misused("it is not said which KMS key seals them", "Say: --kms-key ARN")
        with loading():
            from iam_auth_proxy.keys.build import open_store
        return open_store(place, keys, profile=profile, region=region, name=self._name or "")

    def listing(self) -> Listing:
        """What the store holds, which takes no KMS key.

        :raises Misused: it is not said which store.
        """
        place, keys, profile, region = self._place()
        with loading():
            from iam_auth_proxy.keys.build import open_listing
        return open_listing(place, keys, profile=profile, region=region, name=self._name or "")

    def _place(self) -> tuple[Place, Sequence[str], str, str]:
        """Where the store is; its KMS keys, the profile and the region."""
        if not self._store:
            raise Misused(
                "it is not said where the secrets are",
                "Say: --store s3://BUCKET/PREFIX, or a folder",
            )
        settings = loader(self._who, self._config_file)()
        with loading():
            from iam_auth_proxy.keys import build, lazyconfig

        if self._store != _OF_LAZYCRED:
            place = build.parse_place(self._store)
            return place, self._keys, settings.profile, settings.region
        found = lazyconfig.find()
        keys, region = self._keys or (found.key,), settings.region or found.region
        return build.lazycred_place(found), keys, settings.profile, region

    def say(self, text: str) -> None:
        if not self.quiet:
            click.echo(text, err=True)

    def progress(self, total: int = 0, unit: str = "MiB", per: int = 1 << 20) -> _Progress:
        return _Progress(sys.stderr.isatty() and not self.quiet, total, unit, per)


class _Progress:
    """A line that is written over, once something has taken a second on a terminal."""

    def __init__(self, shown: bool, total: int, unit: str, per: int) -> None:
        self._shown = shown
        self._of = f" of {total // per}" if total else ""
        self._unit = unit
        self._per = per
        self._next = time.monotonic() + 1.0
        self._wrote = 0

    def __call__(self, done: int) -> None:
        now = time.monotonic()
        if self._shown and now >= self._next:
            line = f"{done // self._per}{self._of} {self._unit}"
            self._next, self._wrote = now + 0.2, len(line)
            click.echo(f"\r{line}", err=True, nl=False)

    def __enter__(self) -> _Progress:
        return self

    def __exit__(self, *exception: object) -> None:
        if self._wrote:
            click.echo(f"\r{' ' * self._wrote}\r", err=True, nl=False)


Decorator = Callable[[Callable[..., int]], click.Command]


def _command(name: str, *params: click.Parameter, help: str, usage: str) -> Decorator:
    return secret_commands.command(
        name,
        cls=Command,
        params=[*params, *_store_flags()],
        short_help=help,
        options_metavar=usage,
    )


def _name() -> click.Argument:
    return click.Argument(["name"], metavar="NAME")


def _if_version() -> Flag:
    return Flag(
        ["--if-version"],
        type=Number(min=0),
        metavar="N",
        help="Only if N is the newest version; 0: only if there is none yet.",
    )


# -- put, get --------------------------------------------------------------------------------------


@_command(
    "put",
    _name(),
    click.Argument(["file"], required=False, metavar="[FILE|-]"),
    _if_version(),
    Flag(
        ["--format", "format_"],
        type=click.Choice(["native", _OF_LAZYCRED]),
        default="native",
        metavar="FORMAT",
        help="lazycred: a record that lazycred reads, which is bound to no name.",
    ),
    json_flag(),
    help="Write a new version, from FILE or standard input.",
    usage="[flags]",
)
def put_command(
    name: str,
    file: str | None,
    if_version: int | None,
    format_: str,
    as_json: bool,
    **given: Any,
) -> int:
    """Write a new version of NAME, from FILE or standard input: the bytes as they are.

    At a terminal a line is asked for, and not shown. Nothing is written that does not
    open again.
    """
    flags = _Given(given)
    if format_ == _OF_LAZYCRED and if_version is not None:
        raise Misused("lazycred has no versions", "Leave --if-version out")
    store = flags.open()
    with _source(file) as (source, size), flags.progress(size) as progress:
        if format_ == _OF_LAZYCRED:
            wrote = store.put_lazycred(name, source.read())
        else:
            wrote = store.put(
                name, source, now=time.time(), if_version=if_version, progress=progress
            )
    if as_json:
        click.echo(json.dumps(asdict(wrote)))
    which = f"version {wrote.version}" if wrote.version else "as lazycred's"
    flags.say(f"{wrote.name}: {which}, {wrote.size} bytes")
    return 0


@contextlib.contextmanager
def _source(file: str | None) -> Iterator[tuple[BinaryIO, int]]:
    """Where the value comes from, and how long it is; 0 where nobody can say."""
    if file not in {None, "-"}:
        assert file is not None
        with open(file, "rb") as opened:
            yield opened, os.fstat(opened.fileno()).st_size
    elif file is None and sys.stdin.isatty():
        import io

        text = click.prompt("Value (one line, not shown)", hide_input=True, err=True)
        yield io.BytesIO(text.encode()), 0
    else:
        yield sys.stdin.buffer, 0


@_command(
    "get",
    _name(),
    Flag(
        ["--version", "version"],
        type=Number(min=1),
        metavar="N",
        help="This version, not the newest.",
    ),
    help="Print a secret: its bytes, and nothing else.",
    usage="[flags]",
)
def get_command(name: str, version: int | None, **given: Any) -> int:
    """Print the newest version of NAME: its bytes as they are, with no newline added.

    Nothing is printed before all of it was opened.
    """
    flags = _Given(given)
    store = flags.open()
    out = sys.stdout.buffer
    with flags.progress() as progress:
        store.copy(name, out, version, progress)
        out.flush()
    return 0


# -- list, history ---------------------------------------------------------------------------------


@_command("list", json_flag(), help="List the secrets; opens none.", usage="[flags]")
def list_command(as_json: bool, **given: Any) -> int:
    """List the newest versions, as the records say of themselves.

    None is opened: it takes no --kms-key.
    """
    _show(_Given(given).listing().list(), as_json)
    return 0


@_command("history", _name(), json_flag(), help="List a secret's versions.", usage="[flags]")
def history_command(name: str, as_json: bool, **given: Any) -> int:
    """List the versions of NAME, as the records say of themselves.

    None is opened: it takes no --kms-key.
    """
    _show(_Given(given).listing().history(name), as_json)
    return 0


def _show(versions: Sequence[Version], as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps([asdict(each) for each in versions], indent=2))
        return
    rows = [
        (
            each.name,
            str(each.version) if each.version else "lazycred",
            "deleted" if each.deleted else f"{each.size} bytes",
            f"{datetime.fromtimestamp(each.created, UTC):%Y-%m-%dT%H:%M:%SZ}"
            if each.created
            else "",
            each.key,
        )
        for each in versions
    ]
    if not rows:
        click.echo("There are no secrets.", err=True)
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = [f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)]
        click.echo("  ".join(cells).rstrip())


# -- rm, rewrap ------------------------------------------------------------------------------------


@_command(
    "rm",
    _name(),
    Flag(["--purge"], is_flag=True, help="Destroy the earlier versions, too."),
    _if_version(),
    help="Delete a secret; its earlier versions are kept.",
    usage="[flags]",
)
def rm_command(name: str, purge: bool, if_version: int | None, **given: Any) -> int:
    """Delete NAME. What it was can still be read by its version, unless --purge is given."""
    flags = _Given(given)
    flags.open().delete(name, now=time.time(), if_version=if_version, purge=purge)
    flags.say(f"{name}: deleted" + (", with all its versions" if purge else ""))
    return 0


@_command(
    "rewrap",
    click.Argument(["names"], nargs=-1, metavar="[NAME...]"),
    Flag(["--all", "everything"], is_flag=True, help="Every secret that is not deleted."),
    help="Put all versions under another KMS key.",
    usage="[flags]",
)
def rewrap_command(names: tuple[str, ...], everything: bool, **given: Any) -> int:
    """Put all versions of NAME under the first --kms-key; the others open them.

    \b
      iam-auth-proxy secret rewrap --all --kms-key NEW --kms-key OLD
    """
    flags = _Given(given)
    if bool(names) == everything:
        raise Misused("say which secrets", f"Run: {PROGRAM} secret rewrap NAME..., or --all")
    store = flags.open()
    wanted = names or [each.name for each in store.list()]
    changed = 0
    with flags.progress(len(wanted), "secrets", 1) as progress:
        for done, name in enumerate(wanted, 1):
            changed += len(store.rewrap(name))
            progress(done)
    flags.say(
        f"put under the new key: {_count(changed, 'version')} of {_count(len(wanted), 'secret')}"
    )
    return 0


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


# -- exec ------------------------------------------------------------------------------------------


@secret_commands.command(
    "exec",
    cls=Command,
    params=[
        Flag(
            ["--file", "files"],
            multiple=True,
            metavar="VAR=NAME",
            help="Put a path that reads as the secret NAME into VAR_FILE.",
        ),
        Flag(
            ["--env", "variables"],
            multiple=True,
            metavar="VAR=NAME",
            help="Put the secret itself into VAR, where your other programs can read it.",
        ),
        *_store_flags(),
        click.Argument(["command"], nargs=-1, type=click.UNPROCESSED, metavar="-- CMD..."),
    ],
    context_settings={"allow_interspersed_args": False},
    short_help="Run a command that finds secrets in files of its own.",
)
def exec_command(
    command: tuple[str, ...], files: tuple[str, ...], variables: tuple[str, ...], **given: Any
) -> int:
    """Run CMD with secrets, and end with its status; 125 if they cannot be had.

    --file keeps them out of environments: the path lasts for as long as CMD runs, is on
    no disk, and opens for your own user alone.

    \b
      iam-auth-proxy secret exec --file SECRET_KEY=web/key -- gunicorn app
    """
    flags = _Given(given)
    if not command:
        raise Misused("there is no command to run", f"Write: {PROGRAM} secret exec ... -- CMD...")
    in_files, in_variables = _pairs(files, "--file"), _pairs(variables, "--env")
    with loading():
        import asyncio

        from iam_auth_proxy.cli.secretfiles import secret_files
        from iam_auth_proxy.proxy.commands import children
        from iam_auth_proxy.proxy.process import rlimits

    before = rlimits.set_own()  # no core of ours holds them
    found = flags.open().get_many([*in_files.values(), *in_variables.values()])

    environ = dict(os.environ)
    for variable, name in in_variables.items():
        environ[variable] = _text(found[name].value, name)
    with secret_files([found[name].value for name in in_files.values()]) as paths:
        for variable, path in zip(in_files, paths, strict=True):
            environ[f"{variable}_FILE"] = path
        try:
            return asyncio.run(children.run(command, environ, before))
        except children.CannotRun as error:
            click.echo(f"{PROGRAM} secret exec: {error}", err=True)
            return error.status


def _pairs(given: Sequence[str], which: str) -> Mapping[str, str]:
    pairs: dict[str, str] = {}
    for each in given:
        variable, separator, name = each.partition("=")
        if not variable or not separator or not name:
            raise Misused(f"{which} {each!r} is not VAR=NAME", f"For example: {which} KEY=web/key")
        pairs[variable] = name
    return pairs


def _text(value: bytes, name: str) -> str:
    if b"\0" in value:
        raise Misused(f"the value of {name} has a zero byte, which no variable holds", "Use --file")
    return os.fsdecode(value)
