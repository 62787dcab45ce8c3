"""The folder of the control sockets is this user's alone, or there are none."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from iam_auth_proxy.proxy.process import runtime


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    tmp_path.chmod(0o700)
    return tmp_path / "run" / "iam-auth-proxy"


def test_without_a_login_nobody_is_warned(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("XDG_RUNTIME_DIR")
    assert runtime.folder().name == "iam-auth-proxy"


def test_it_is_made_for_nobody_else(folder: Path) -> None:
    before = os.umask(0)
    try:
        runtime.make(folder)
    finally:
        os.umask(before)
    assert [each.stat().st_mode & 0o777 for each in (folder, folder.parent)] == [0o700, 0o700]
    runtime.make(folder)  # and found as it was


@pytest.mark.parametrize("mode", [0o750, 0o701, 0o722, 0o777])
def test_not_one_that_is_open_to_others(folder: Path, mode: int) -> None:
    runtime.make(folder)
    folder.chmod(mode)
    with pytest.raises(PermissionError, match="open to others: chmod 700"):
        runtime.make(folder)


def test_not_a_link_to_somewhere(folder: Path, tmp_path: Path) -> None:
    folder.parent.mkdir(0o700)
    (tmp_path / "mine").mkdir(0o700)
    folder.symlink_to(tmp_path / "mine")
    with pytest.raises(PermissionError, match="not a folder of yours"):
        runtime.make(folder)


def test_not_another_users(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runtime.make(folder)
    other = os.geteuid() + 1
    monkeypatch.setattr(os, "geteuid", lambda: other)
    with pytest.raises(PermissionError, match="not a folder of yours"):
        runtime.make(folder)


@pytest.mark.parametrize(("mode", "safe"), [(0o777, False), (0o720, False), (0o1777, True)])
def test_nor_where_others_could_put_another(folder: Path, mode: int, safe: bool) -> None:
    """The sticky bit keeps what is there."""
    runtime.make(folder)
    folder.parent.chmod(mode)
    if safe:
        runtime.make(folder)
    else:
        with pytest.raises(PermissionError, match="not yours alone"):
            runtime.make(folder)
