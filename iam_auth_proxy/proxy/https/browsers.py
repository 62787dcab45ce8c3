"""Browsers that are pointed at a proxy: which there are, and how each is started.

Nothing is installed: the browser gets a profile of its own, for nobody else's eyes, and the proxy's
PAC (``/proxy.pac``), so that only listed hosts come to the proxy.
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from iam_auth_proxy.files import replace_file

_ON_PATH: Final = (
    "chromium",
    "chromium-browser",
    "google-chrome",
    "google-chrome-stable",
    "microsoft-edge",
    "microsoft-edge-stable",
    "firefox",
)
_ON_MACOS: Final = (
    "/Applications/Chromium.app/Contents/MacOS/Chromium",
    "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",
    "/Applications/Microsoft Edge.app/Contents/MacOS/Microsoft Edge",
    "/Applications/Firefox.app/Contents/MacOS/firefox",
)

_CHROMIUM: Final = ("--no-first-run", "--no-default-browser-check")


@dataclass(frozen=True, slots=True)
class Browser:
    """A browser at ``path``."""

    path: str

    @property
    def is_firefox(self) -> bool:
        """Whether it takes Firefox' flags; otherwise Chromium's."""
        return "firefox" in Path(self.path).name.lower()

    @property
    def name(self) -> str:
        """As it is in the names of folders."""
        return Path(self.path).name.lower().replace(" ", "-")

    @property
    def in_snap(self) -> bool:
        """Whether it is in a snap: then it sees nothing of the home but its own folder."""
        return "snap" in Path(self.path).resolve().parts[:2] or Path(f"/snap/{self.name}").exists()

    @property
    def profile(self) -> Path:
        """The folder of its profile, which is made for it alone."""
        from platformdirs import user_data_path

        if self.in_snap:
            return Path.home() / "snap" / self.name / "common" / "iam-auth-proxy"
        return user_data_path("iam-auth-proxy") / f"browser-{self.name}"

    def command(self, pac: str, url: str, more: Sequence[str]) -> list[str]:
        """Makes the profile; what to run.

        :param pac: the URL of the PAC.
        :param url: the page to open; empty for the browser's own first page.
        :param more: further flags for the browser.
        :raises OSError: the profile cannot be made.
        """
        folder = self.profile
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        folder.chmod(0o700)
        pages = [url] if url else []
        if self.is_firefox:
            replace_file(folder / "user.js", _preferences(pac))
            return [self.path, "-no-remote", "-profile", str(folder), *more, *pages]
        own = [f"--user-data-dir={folder}", f"--proxy-pac-url={pac}", *_CHROMIUM]
        return [self.path, *own, *more, *pages]


def find(path: str = "") -> Browser | None:
    """The browser at ``path``, which may be a name; without one, the first that there is."""
    known = (*_ON_PATH, *(_ON_MACOS if sys.platform == "darwin" else ()))
    for each in (path,) if path else known:
        found = shutil.which(each)
        if found:
            return Browser(found)
    return None


def _preferences(pac: str) -> str:
    """Firefox' ``user.js``: read at each start, after what the person set there."""
    values = {
        "network.proxy.type": 2,  # a PAC
        "network.proxy.autoconfig_url": pac,
        # Where the proxy is down, listed hosts are not to be looked for elsewhere.
        "network.proxy.failover_direct": False,
        "browser.shell.checkDefaultBrowser": False,
        "browser.aboutwelcome.enabled": False,
    }
    return "".join(f"user_pref({json.dumps(k)}, {json.dumps(v)});\n" for k, v in values.items())
