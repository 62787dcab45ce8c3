"""Real Chromium behind a proxy, with a fresh profile."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from playwright.sync_api import BrowserContext, sync_playwright

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
    pac = (
        "function FindProxyForURL(url, host) {"
        f"return dnsDomainIs(host, '.test') ? 'PROXY {address}' : 'PROXY 127.0.0.1:9'; }}"
    )
    encoded = base64.b64encode(pac.encode()).decode()
    url = f"data:application/x-ns-proxy-autoconfig;base64,{encoded}"
    with chromium(profile, f"--proxy-pac-url={url}", *flags) as context:
        yield context


@contextmanager
def chromium(profile: Path, *flags: str) -> Iterator[BrowserContext]:
    """Chromium without any proxy but the one that the flags say."""
    with sync_playwright() as playwright:
        context = playwright.chromium.launch_persistent_context(
            str(profile), executable_path=program("chromium"), args=[*FLAGS, *flags]
        )
        try:
            yield context
        finally:
            context.close()
