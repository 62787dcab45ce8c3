"""Files of the person's and of the operator's, in folders of the test's own."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from iam_auth_proxy import config
from iam_auth_proxy.cli.outcome import status_of


class Home:
    """The command line, and the four files that it may read."""

    def __init__(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.config = tmp_path / "home" / "iam-auth-proxy" / "config.toml"
        self.trust = self.config.with_name("trust.toml")
        self.system_config = tmp_path / "etc" / "config.toml"
        self.system_trust = self.system_config.with_name("trust.toml")
        for path in (self.config, self.system_config):
            path.parent.mkdir(parents=True)
        self._capsys = capsys

    def run(self, *args: str, status: int = 0) -> tuple[str, str]:
        """Data and words of a command that ends with ``status``."""
        ended = status_of(list(args))
        data, words = self._capsys.readouterr()
        assert ended == status, words
        return data, words


@pytest.fixture
def home(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Home:
    for variable in os.environ:
        if variable.startswith("IAM_AUTH_PROXY_"):
            monkeypatch.delenv(variable)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "home"))
    found = Home(tmp_path, capsys)
    monkeypatch.setattr(config, "SYSTEM_FILE", found.system_config)
    return found
