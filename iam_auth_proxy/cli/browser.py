"""``iam-auth-proxy browser``: a browser of its own, pointed at the proxy."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from iam_auth_proxy import config
from iam_auth_proxy.cli.layout import PROGRAM, Command, Flag, Misused
from iam_auth_proxy.cli.loading import loading
from iam_auth_proxy.cli.look import origin_of
from iam_auth_proxy.cli.running import Told, find
from iam_auth_proxy.cli.settings import completer, config_flag, flag, loader

if TYPE_CHECKING:
    from iam_auth_proxy.proxy.https.browsers import Browser


@click.command(
    "browser",
    cls=Command,
    params=[
        Flag(
            ["--browser", "path"],
            metavar="PATH",
            shell_complete=completer((), file=True),
            help="The browser to start. [default:\xa0Chromium, Chrome, Edge or Firefox]",
        ),
        *(flag(option) for option in config.OPTIONS),
        config_flag(),
        click.Argument(["words"], nargs=-1, type=click.UNPROCESSED, metavar="[URL] [-- FLAGS...]"),
    ],
    short_help="Open a browser with a profile of its own, through the proxy.",
)
def browser_command(
    words: tuple[str, ...], path: str | None, config_file: str | None, **given: Any
) -> int:
    """Open a browser with a profile of its own, whose apps go through the proxy.

    Nothing is installed and no other browser changes: this one alone trusts the local
    CA, where there is one. Where no proxy runs, one runs for as long as the browser is
    open. FLAGS are the browser's own.
    """
    url, more = (words[0], words[1:]) if words and not words[0].startswith("-") else ("", words)
    origin = origin_of(url) if url else None
    if url and "://" not in url:
        url = f"http://{url}"
    settings = loader(given, config_file)()
    with loading():
        from iam_auth_proxy.proxy.commands import browse, children
        from iam_auth_proxy.proxy.https import browsers

    browser = browsers.find(path or "")
    if browser is None:
        what = f"there is no browser {path!r}" if path else "no browser was found"
        raise Misused(what, f"Run: {PROGRAM} browser --browser PATH")

    def command(place: str, alias: str) -> list[str]:
        opened = f"{alias}/{_path(url)}" if alias else url
        return browser.command(f"http://{place}/proxy.pac", opened, more)

    opening = browse.Opening(command, {**os.environ, **_trusting(browser)})
    proxy = find(settings.bind, named=bool(given["bind"]))
    try:
        if proxy is None:
            return browse.run(
                settings, opening, origin, environ=os.environ, stdin=sys.stdin, out=sys.stderr
            )
        if any(value for name, value in given.items() if name not in ("bind", "quiet")):
            raise Misused(
                "a proxy runs already, which these flags would not change",
                f"End it, or take another port: {PROGRAM} browser --bind :PORT",
            )
        addresses = [each for each in proxy.ask("/status")["addresses"] if "unix:" not in each]
        if not addresses:
            remedy = f"Run: {PROGRAM} browser --bind :PORT"
            raise Told("the proxy listens where no browser reaches it", remedy, "no-address")
        alias = ""
        if origin is not None:
            alias = proxy.ask("/reach", {"origin": str(origin)})["alias"]
        return browse.beside(opening, addresses[0], alias)
    except children.CannotRun as error:
        click.echo(f"{PROGRAM} browser: {error}", err=True)
        return error.status


def _path(url: str) -> str:
    """What follows the first slash after a URL's host, or its query or fragment."""
    rest = url.partition("://")[2]
    end = next((at for at, char in enumerate(rest) if char in "/?#"), len(rest))
    return rest[end:].removeprefix("/")


def _trusting(browser: Browser) -> dict[str, str]:
    """What makes the browser trust the local CA, where there is one; or says why it will not."""
    from iam_auth_proxy.proxy.https import browsertrust, ca

    try:
        return browsertrust.prepare(browser, ca.Authorities(ca.default_folder()), Path.home())
    except browsertrust.NotTrusting as error:
        click.echo(f"{PROGRAM} browser: {error.public}\n  {error}", err=True)
        click.echo(error.remedy, err=True, nl=bool(error.remedy))
        return {}
