"""The local CA in a browser of ours, and in no other.

Firefox keeps its roots in its profile, which is ours. Chromium looks for them below the home, not
in its profile: so it gets a home of its own, with everything of the person's in it by links but for
the database of roots. The person's own databases stay as they are.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Final

from iam_auth_proxy.errors import IamAuthError
from iam_auth_proxy.proxy.https.browsers import Browser
from iam_auth_proxy.proxy.https.ca import Authorities
from iam_auth_proxy.proxy.https.rootstores import Argv, NssDatabase, Root, must_have_certutil

# Chromium takes the first of these that exists; one is ours, and the other is not to be found.
_DATABASE: Final = ".pki/nssdb"
_OWN: Final = {"": (".pki", ".local"), ".local": ("share",), ".local/share": ("pki",)}
"""Folder below the home -> what is not the person's in it."""


class NotTrusting(IamAuthError):
    """A browser cannot be made to trust the local CA; it can be used without that."""

    code = "not-trusting"
    public_default = "This browser will not trust the local CA."


def prepare(browser: Browser, authorities: Authorities, home: Path) -> dict[str, str]:
    """Has a browser trust the CAs that there are, and no others of this program's.

    :param home: the person's own.
    :returns: what differs in the browser's environment.
    :raises NotTrusting: that cannot be done here; the detail says why, the remedy what to do.
    :raises OSError: its folders cannot be written.
    """
    domains = authorities.domains()
    own = browser.profile.with_name(f"{browser.profile.name}-home")
    database = NssDatabase(browser.profile if browser.is_firefox else own / _DATABASE, "ours")
    if not domains and not database.exists:
        return {}
    if not browser.is_firefox and (browser.in_snap or not sys.platform.startswith("linux")):
        what = "it looks for roots in places that are not its own"
        raise NotTrusting(what, remedy="Run: iam-auth-proxy ca install")
    if not browser.is_firefox:
        furnish(own, home)
    try:
        must_have_certutil()
        _hold(database, [authorities.root(domain) for domain in domains])
    except IamAuthError as error:
        raise NotTrusting(str(error), remedy=error.remedy) from error
    return {} if browser.is_firefox else {"HOME": str(own)}


def _hold(database: NssDatabase, roots: Sequence[Root]) -> None:
    held = database.held(_ask)
    stale = [each for each in held if not any(database.is_root(each, root) for root in roots)]
    fresh = [root for root in roots if not any(database.is_root(each, root) for each in held)]
    for argv in [*database.forget(stale), *(database.trust(fresh) if fresh else ())]:
        done = subprocess.run(argv, capture_output=True, text=True, errors="replace", check=False)
        if done.returncode:
            said = (done.stderr or done.stdout).strip().splitlines()
            raise NotTrusting(said[-1] if said else f"{argv[0]} ended with {done.returncode}")


def _ask(argv: Argv) -> str:
    done = subprocess.run(argv, capture_output=True, text=True, errors="replace", check=False)
    return "" if done.returncode else done.stdout


# -- a home ----------------------------------------------------------------------------------------


def furnish(own: Path, home: Path) -> None:
    """Makes ``own`` a home with all that is in ``home``, but for databases of roots.

    :raises OSError: it cannot be made.
    """
    for below, hidden in _OWN.items():
        folder = own / below
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        wanted = {name: home / below / name for name in _names(home / below, hidden)}
        for name in _names(folder, ()):
            link = folder / name
            if link.is_symlink() and os.readlink(link) != str(wanted.get(name)):
                link.unlink(missing_ok=True)
        for name, target in wanted.items():
            _link(folder / name, target)


def _names(folder: Path, hidden: Iterable[str]) -> Iterator[str]:
    try:
        found = os.listdir(folder)
    except (FileNotFoundError, NotADirectoryError):
        return
    yield from (name for name in found if name not in hidden)


def _link(link: Path, target: Path) -> None:
    try:
        link.symlink_to(target)
    except FileExistsError:
        pass  # it is there, or the browser has made something of its own of that name
