"""``ca add | list | install | uninstall | remove``: the local CA, and who trusts it."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from iam_auth_proxy import config
from iam_auth_proxy.cli.layout import PROGRAM, Command, Flag, Group, Misused
from iam_auth_proxy.cli.running import Told
from iam_auth_proxy.cli.settings import json_flag
from iam_auth_proxy.errors import IamAuthError, Malformed, NoAuthority

if TYPE_CHECKING:
    from iam_auth_proxy.proxy.https.ca import Authorities
    from iam_auth_proxy.proxy.https.rootstores import Argv, Root, RootStore

_STDERR = 2
"""What commands say is no data of ours."""


@click.group("ca", cls=Group, short_help="The local CA, for https apps that are intercepted.")
def ca_commands() -> None:
    """The local CA, for https apps that are intercepted: one for each domain.

    What it can name is that domain, with the names under it. No program trusts it
    before you say so.
    """


def _domain_argument() -> click.Argument:
    return click.Argument(["domain"])


def _yes_flag() -> Flag:
    return Flag(["-y", "--yes"], is_flag=True, help="Do not ask; for scripts.")


# -- add, list -------------------------------------------------------------------------------------


@ca_commands.command(
    "add", cls=Command, params=[_domain_argument()], short_help="Make the CA of a domain."
)
def add_command(domain: str) -> int:
    """Make the CA of DOMAIN, which stands for itself and for every name under it.

    Other domains' CAs stay as they are, and nothing trusts the new one yet.
    """
    name, authorities, now = _parsed(domain), _authorities(), time.time()
    before = authorities.load(name).mark if name in authorities.domains() else ""
    made = authorities.add(name, now)
    _refresh_bundle(authorities)
    if made.mark == before:
        click.echo(f"There is a CA for {name} already, until {_date(made.expires)}.", err=True)
        return 0
    click.echo(
        f"Made a CA for {name}, until {_date(made.expires)}: {authorities.file(name)}\n\n"
        f"It can name {name} and every name under it; no other domain, no IP address,\n"
        "no person and no program. The key of its root is gone already. Whoever gets hold of\n"
        "that file can pass for those names towards programs that trust this CA, until you\n"
        f"take the trust back: {PROGRAM} ca remove {name}\n\n"
        f"The browser that `{PROGRAM} browser` opens trusts it by itself.\n"
        f"Others do after: {PROGRAM} ca install. Programs of a shell: {PROGRAM} env --ca",
        err=True,
    )
    return 0


@ca_commands.command("list", cls=Command, params=[json_flag()], short_help="List the CAs.")
def list_command(as_json: bool) -> int:
    """List the CAs: domain, last day, fingerprint of the root, and what trusts it here."""
    authorities, now = _authorities(), time.time()
    rows = [_described(authorities, domain, now) for domain in authorities.domains()]
    if as_json:
        click.echo(json.dumps(rows, indent=2))
        return 0
    if not rows:
        click.echo(f"There is no CA. Make one: {PROGRAM} ca add DOMAIN", err=True)
    for row in rows:
        until = f"until {row['until']}" if row["until"] else ""
        click.echo("  ".join(part for part in (row["domain"], until, row["problem"]) if part))
        details = {"SHA-256": row["sha256"], "root": row["root"]}
        for title, text in details.items():
            if text:
                click.echo(f"  {title:<8} {text}")
        for store in row["trusted_by"]:
            click.echo(f"  trusted  {store}")
    return 0


def _described(authorities: Authorities, domain: str, now: float) -> dict[str, Any]:
    try:
        found = authorities.load(domain)
    except NoAuthority as error:
        nothing = dict.fromkeys(("until", "sha256", "root"), "")
        return {
            "domain": domain,
            "problem": f"{error}. {error.remedy}",
            **nothing,
            "trusted_by": [],
        }
    root = authorities.root(domain)
    over = f"Its time is over. Run: {PROGRAM} ca add {domain}"
    return {
        "domain": domain,
        "problem": over if now >= found.expires else "",
        "until": _date(found.expires),
        "sha256": found.fingerprint,
        "root": str(root.file),
        "trusted_by": [
            store.name
            for store in _stores_that_can_be_asked()
            if any(store.is_root(held, root) for held in store.held(_asked))
        ],
    }


# -- install, uninstall, remove --------------------------------------------------------------------


def _place_flags() -> list[click.Parameter]:
    return [
        Flag(["--system"], is_flag=True, help="Only the system's store (with sudo)."),
        Flag(["--nss"], is_flag=True, help="Only Chromium's and Firefox' databases."),
        _yes_flag(),
    ]


@ca_commands.command(
    "install",
    cls=Command,
    params=_place_flags(),
    short_help="Have your programs trust the CAs.",
)
def install_command(system: bool, nss: bool, yes: bool) -> int:
    """Have this system and your browsers trust the CAs.

    Each command is shown, and you are asked, before any of them runs. What is trusted
    already stays; earlier CAs of this program are taken out.
    """
    roots = _roots(_authorities())
    if not roots:
        raise Told("there is no CA to be trusted", f"Run: {PROGRAM} ca add DOMAIN", "no-ca", 2)
    if _is_elsewhere():
        _print_elsewhere([trust for trust, _ in _elsewhere(roots)])
        return 0
    commands: list[Argv] = []
    for store in _stores(system=system, nss=nss):
        held = store.held(_shown)
        stale = [each for each in held if not any(store.is_root(each, root) for root in roots)]
        fresh = [root for root in roots if not any(store.is_root(each, root) for each in held)]
        commands += [*store.forget(stale), *store.trust(fresh)]
    if not commands:
        click.echo("They are trusted already.", err=True)
        return 0
    _confirm(commands, yes)
    for argv in commands:
        _run(argv)
    names = ", ".join(root.domain for root in roots)
    click.echo(f"Trusted now: the CA for {names}. Restart browsers that are open.", err=True)
    click.echo(f"Undo: {PROGRAM} ca uninstall", err=True)
    return 0


@ca_commands.command(
    "uninstall",
    cls=Command,
    params=_place_flags(),
    short_help="Undo what install did.",
)
def uninstall_command(system: bool, nss: bool, yes: bool) -> int:
    """Take every CA of this program out of the system's store and your browsers.

    The CAs stay, and iam-auth-proxy browser goes on to trust them.
    """
    if _is_elsewhere():
        _print_elsewhere([undo for _, undo in _elsewhere(_roots(_authorities()))])
        return 0
    stores = _stores(system=system, nss=nss)
    commands = [argv for store in stores for argv in store.forget(store.held(_shown))]
    if not commands:
        click.echo("There is nothing to undo.", err=True)
        return 0
    _confirm(commands, yes)
    for argv in commands:
        _run(argv)
    click.echo("Trusted no more. Restart browsers that are open.", err=True)
    click.echo(f"Undo: {PROGRAM} ca install", err=True)
    return 0


@ca_commands.command(
    "remove",
    cls=Command,
    params=[_domain_argument(), _yes_flag()],
    short_help="Remove the CA of a domain, and the trust in it.",
)
def remove_command(domain: str, yes: bool) -> int:
    """Take the CA of DOMAIN out of the system's store and your browsers, and remove it.

    Its key goes in any case. What could not be taken out is said.
    """
    name, authorities = _parsed(domain), _authorities()
    files = [
        each for each in (authorities.file(name), authorities.root_file(name)) if each.exists()
    ]
    if not files:
        raise Told(f"there is no CA for {name}", f"See: {PROGRAM} ca list", "no-ca", 2)
    commands, left = _forgetting(authorities, name)
    _confirm([*commands, ["rm", *map(str, files)]], yes)
    failed = []
    for argv in commands:
        try:
            _run(argv)
        except Told as error:
            failed.append(f"{error}: {shlex.join(argv)}")
    authorities.remove(name)
    _refresh_bundle(authorities)
    click.echo(f"The CA for {name} is gone, and its key with it.", err=True)
    if failed or left:
        click.echo("Its root may still be trusted, which nobody can use any more:", err=True)
    for line in (*failed, *left):
        click.echo(f"  {line}", err=True)
    return 1 if failed else 0


def _forgetting(authorities: Authorities, domain: str) -> tuple[list[Argv], list[str]]:
    """The commands that take the roots of a domain out, and what is left to be done by hand."""
    from iam_auth_proxy.proxy.https import rootstores

    if _is_elsewhere():
        root = authorities.root(domain)
        return [], [rootstores.elsewhere(root, sys.platform)[1]]
    commands: list[Argv] = []
    for store in _stores_that_can_be_asked():
        commands += store.forget([e for e in store.held(_shown) if store.is_of(e, domain)])
    unasked = rootstores.unasked(Path.home())
    return commands, [f"{each.name} (for want of {rootstores.CERTUTIL})" for each in unasked]


# -- how -------------------------------------------------------------------------------------------


def _authorities() -> Authorities:
    from iam_auth_proxy.proxy.https import ca

    return ca.Authorities(ca.default_folder())


def _refresh_bundle(authorities: Authorities) -> None:
    """For shells that have the exports of ``env --ca`` already."""
    from iam_auth_proxy.proxy.https import bundle

    try:
        bundle.refresh(authorities, os.environ)
    except IamAuthError as error:  # of another CA, or of the system: this one was made, or removed
        click.echo(f"The bundle of {PROGRAM} env --ca is as before: {error}", err=True)


def _roots(authorities: Authorities) -> list[Root]:
    return [authorities.root(domain) for domain in authorities.domains()]


def _parsed(domain: str) -> str:
    """:raises Misused: no CA can speak for that."""
    try:
        return config.parse_domain(domain)
    except Malformed as error:
        remedy = f"Name the app's host, or your own domain that it is in: {PROGRAM} ca add DOMAIN"
        raise Misused(f"{domain!r}: {error}", remedy) from error


def _date(at: float) -> str:
    return time.strftime("%Y-%m-%d", time.gmtime(at))


def _stores(*, system: bool, nss: bool) -> list[RootStore]:
    """What was asked for; where nothing was, all that there is.

    :raises NoCertutil: the databases cannot be changed.
    :raises Told: the system has no store that is known.
    """
    from iam_auth_proxy.proxy.https import rootstores

    found: list[RootStore] = []
    store = rootstores.system_store() if system or not nss else None
    if store is not None:
        found.append(store)
    elif system:
        files = ", ".join(str(root.file) for root in _roots(_authorities()))
        remedy = f"Have your system trust: {files or 'nothing'}"
        raise Told("this system has no store that is known here", remedy, "no-store")
    if nss or not system:
        rootstores.must_have_certutil()
        found += rootstores.nss_databases(Path.home())
    return found


def _stores_that_can_be_asked() -> list[RootStore]:
    from iam_auth_proxy.proxy.https import rootstores

    if _is_elsewhere():
        return []
    store = rootstores.system_store()
    nss = [] if rootstores.unasked(Path.home()) else rootstores.nss_databases(Path.home())
    return [*([store] if store else []), *nss]


def _is_elsewhere() -> bool:
    return sys.platform in ("darwin", "win32")


def _elsewhere(roots: Sequence[Root]) -> list[tuple[str, str]]:
    from iam_auth_proxy.proxy.https import rootstores

    return [rootstores.elsewhere(root, sys.platform) for root in roots]


def _print_elsewhere(commands: Sequence[str]) -> None:
    """On standard output: it can be looked at, and then be given to a shell."""
    click.echo("Nothing was run. The commands for this system:", err=True)
    for command in commands:
        click.echo(command)


def _asked(argv: Argv) -> str:
    """Runs a command that changes nothing; what it prints, or nothing where it cannot be run."""
    try:
        done = subprocess.run(argv, capture_output=True, text=True, errors="replace", check=False)
    except OSError:
        return ""
    return "" if done.returncode else done.stdout


def _shown(argv: Argv) -> str:
    """The same, where each command is said."""
    click.echo(f"looking: {shlex.join(argv)}", err=True)
    return _asked(argv)


def _confirm(commands: Sequence[Argv], yes: bool) -> None:
    """Shows what will be run, and asks.

    :raises Told: it is not to be.
    """
    click.echo("These commands will be run:", err=True)
    for argv in commands:
        click.echo(f"  {shlex.join(argv)}", err=True)
    if yes:
        return
    try:
        wanted = click.confirm("Run them?", err=True)
    except click.Abort as error:
        if sys.stdin.isatty():
            raise
        remedy = "Run it at a terminal, or with --yes"
        raise Told("nobody is there to say yes, so nothing was changed", remedy, "no") from error
    if not wanted:
        raise Told("nothing was changed", "", "no")


def _run(argv: Argv) -> None:
    """Says a command, and runs it; a terminal is its own, to ask for a password.

    :raises Told: it failed.
    """
    click.echo(f"$ {shlex.join(argv)}", err=True)
    try:
        status = subprocess.run(argv, check=False, stdout=_STDERR).returncode
    except OSError as error:
        raise Told(
            f"{argv[0]}: {error.strerror}", "Install it, and try again.", "command"
        ) from error
    if status:
        remedy = "See what it says above, and try again: what was done already stays."
        raise Told(f"{argv[0]} ended with {status}", remedy, "command")
