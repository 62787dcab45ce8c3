"""Real Chromium behind a proxy, with a fresh profile."""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from playwright.sync_api import Browser, BrowserContext, BrowserType, sync_playwright

from tests.support.processes import program

FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


@contextmanager
def browser(address: str, profile: Path, *flags: str) -> Iterator[BrowserContext]:
    """Chromium; ``*.test`` goes to the proxy at ``address``, all else nowhere."""
    with chromium(profile, through(address), *flags) as context:
        yield context


def through(address: str, *hosts: str) -> str:
    """The flag that sends ``*.test`` to the proxy at ``address``, and all else nowhere.

    :param hosts: these alone go to the proxy, and all else goes to the network.
    """
    listed = f"{json.dumps(hosts)}.indexOf(host) >= 0" if hosts else "dnsDomainIs(host, '.test')"
    otherwise = "DIRECT" if hosts else "PROXY 127.0.0.1:9"
    pac = (
        "function FindProxyForURL(url, host) {"
        f"return {listed} ? 'PROXY {address}' : '{otherwise}'; }}"
    )
    encoded = base64.b64encode(pac.encode()).decode()
    return f"--proxy-pac-url=data:application/x-ns-proxy-autoconfig;base64,{encoded}"


@contextmanager
def launched(*flags: str) -> Iterator[Browser]:
    """Chromium; every context of it is a profile of its own."""
    with sync_playwright() as playwright, another(playwright.chromium, *flags) as started:
        yield started


@contextmanager
def another(chromium: BrowserType, *flags: str) -> Iterator[Browser]:
    """One more, beside one that runs: there can be one Playwright in a thread."""
    started = chromium.launch(executable_path=program("chromium"), args=[*FLAGS, *flags])
    try:
        yield started
    finally:
        started.close()


@contextmanager
def chromium(profile: Path, *flags: str, home: Path | None = None) -> Iterator[BrowserContext]:
    """Chromium without any proxy but the one that the flags say.

    :param home: has its database of trusted roots, ``.pki/nssdb``.
    """
    env: dict[str, str | float | bool] = {**os.environ, **({"HOME": str(home)} if home else {})}
    with sync_playwright() as playwright:
        context = playwright.chromium.launch_persistent_context(
            str(profile), executable_path=program("chromium"), args=[*FLAGS, *flags], env=env
        )
        try:
            yield context
        finally:
            context.close()
