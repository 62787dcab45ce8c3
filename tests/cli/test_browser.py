"""``browser``: what it opens; tests/e2e/test_browser.py has how."""

from __future__ import annotations

import pytest

from iam_auth_proxy.cli.browser import _path


@pytest.mark.parametrize(
    ("url", "path"),
    [
        ("https://wiki.internal", ""),
        ("https://wiki.internal/", ""),
        ("https://wiki.internal/a/b?c#d", "a/b?c#d"),
        ("https://wiki.internal//a", "/a"),
        ("https://wiki.internal:8443?q=/x", "?q=/x"),
        ("https://wiki.internal#top", "#top"),
    ],
)
def test_what_is_opened_under_an_alias(url: str, path: str) -> None:
    assert _path(url) == path
