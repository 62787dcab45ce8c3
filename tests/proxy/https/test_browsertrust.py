"""A browser of ours trusts the local CA, and the person's own databases stay as they are."""

import os
from pathlib import Path

import pytest

from iam_auth_proxy.proxy.https import browsertrust, rootstores
from iam_auth_proxy.proxy.https.browsers import Browser
from iam_auth_proxy.proxy.https.browsertrust import NotTrusting, furnish, prepare
from iam_auth_proxy.proxy.https.ca import Authorities
from iam_auth_proxy.proxy.https.rootstores import NssDatabase
from tests.proxy.https.test_rootstores import ask
from tests.support.processes import program

NOW = 1_800_000_000.0


@pytest.fixture
def authorities(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Authorities:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    program("certutil")
    return Authorities(tmp_path / "data" / "iam-auth-proxy" / "ca")


@pytest.fixture
def home(tmp_path: Path) -> Path:
    found = tmp_path / "home"
    for below in (".pki/nssdb", ".local/share/pki/nssdb", ".local/share/fonts", ".config/gtk-3.0"):
        (found / below).mkdir(parents=True)
    (found / ".Xauthority").write_text("cookie")
    (found / "Downloads").mkdir()
    return found


def held(folder: Path) -> list[str]:
    return [each.name for each in NssDatabase(folder, "").held(ask)]


CHROMIUM = Browser("/usr/bin/chromium")
FIREFOX = Browser("/usr/bin/firefox")


def test_without_a_ca_nothing_is_made(authorities: Authorities, home: Path, tmp_path: Path) -> None:
    assert prepare(CHROMIUM, authorities, home) == {}
    assert prepare(FIREFOX, authorities, home) == {}
    assert not (tmp_path / "data").exists()


def test_chromium_gets_a_home(authorities: Authorities, home: Path) -> None:
    authorities.add("app.test", NOW)
    before = sorted(home.rglob("*"))
    environ = prepare(CHROMIUM, authorities, home)
    own = Path(environ["HOME"])
    assert own.is_relative_to(authorities.folder.parent)
    assert held(own / ".pki/nssdb") == [authorities.root("app.test").nickname]
    assert (own / ".Xauthority").read_text() == "cookie"
    assert (own / "Downloads").samefile(home / "Downloads")
    assert (own / ".local/share/fonts").samefile(home / ".local/share/fonts")
    assert not (own / ".local/share/pki").exists()
    assert sorted(home.rglob("*")) == before
    assert own.stat().st_mode & 0o077 == 0


def test_it_follows_what_there_is(authorities: Authorities, home: Path) -> None:
    authorities.add("app.test", NOW)
    own = Path(prepare(CHROMIUM, authorities, home)["HOME"])
    authorities.add("other.test", NOW)
    (home / "new").touch()
    (home / "Downloads").rmdir()
    prepare(CHROMIUM, authorities, home)
    assert len(held(own / ".pki/nssdb")) == 2
    assert (own / "new").exists()
    assert not (own / "Downloads").is_symlink()
    for domain in ("app.test", "other.test"):
        authorities.remove(domain)
    prepare(CHROMIUM, authorities, home)
    assert held(own / ".pki/nssdb") == []


def test_firefox_has_it_in_its_profile(authorities: Authorities, home: Path) -> None:
    authorities.add("app.test", NOW)
    assert prepare(FIREFOX, authorities, home) == {}
    assert held(FIREFOX.profile) == [authorities.root("app.test").nickname]


def test_what_the_browser_made_itself_stays(home: Path, tmp_path: Path) -> None:
    own = tmp_path / "own"
    own.mkdir()
    (own / "Downloads").write_text("a file of its own")
    furnish(own, home)
    furnish(own, home)
    assert (own / "Downloads").read_text() == "a file of its own"
    assert os.readlink(own / ".config") == str(home / ".config")


def test_without_certutil_it_says_so(
    authorities: Authorities, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    authorities.add("app.test", NOW)
    monkeypatch.setattr(rootstores.shutil, "which", lambda name: None)
    with pytest.raises(NotTrusting, match="certutil is missing") as missing:
        prepare(CHROMIUM, authorities, home)
    assert missing.value.remedy == "Run: sudo apt install libnss3-tools"


def test_a_snap_and_a_mac_look_elsewhere(
    authorities: Authorities, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    authorities.add("app.test", NOW)
    with pytest.raises(NotTrusting) as refused:
        prepare(Browser("/snap/bin/chromium"), authorities, home)
    assert refused.value.remedy == "Run: iam-auth-proxy ca install"
    monkeypatch.setattr(browsertrust.sys, "platform", "darwin")
    with pytest.raises(NotTrusting):
        prepare(CHROMIUM, authorities, home)


def test_what_certutil_says(authorities: Authorities, home: Path) -> None:
    authorities.add("app.test", NOW)
    FIREFOX.profile.mkdir(parents=True)
    (FIREFOX.profile / "cert9.db").write_text("damaged")
    with pytest.raises(NotTrusting, match="certutil: function failed"):
        prepare(FIREFOX, authorities, home)


def test_a_ca_that_cannot_be_read(authorities: Authorities, home: Path) -> None:
    authorities.add("app.test", NOW)
    authorities.file("app.test").write_text("")
    with pytest.raises(NotTrusting) as refused:
        prepare(CHROMIUM, authorities, home)
    assert "ca remove app.test" in refused.value.remedy
