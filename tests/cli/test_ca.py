"""``ca``: what is said, asked and run. certutil is the real one; the home is the test's."""

import io
import json
import re
import subprocess
import sys
import time
from pathlib import Path

import click
import pytest

from iam_auth_proxy.cli import ca as commands
from iam_auth_proxy.proxy.https import ca, rootstores
from tests.cli.conftest import Home
from tests.support.processes import base_env, program
from tests.support.terminal import Terminal

DAY = 86_400


@pytest.fixture
def person(home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    """A person with databases of Chromium and Firefox, on a system without a store."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.setattr(rootstores, "SYSTEM_STORES", ())
    profile = tmp_path / ".mozilla" / "firefox" / "abc.default"
    profile.mkdir(parents=True)
    subprocess.run(
        [program("certutil"), "-d", f"sql:{profile}", "-N", "--empty-password"], check=True
    )
    return home


def authorities() -> ca.Authorities:
    return ca.Authorities(ca.default_folder())


def listed(person: Home) -> list[dict[str, object]]:
    found: list[dict[str, object]] = json.loads(person.run("ca", "list", "--json")[0])
    return found


def ran(words: str) -> list[str]:
    return re.findall(r"^\$ (.*)$", words, re.MULTILINE)


# -- add, list -------------------------------------------------------------------------------------


def test_add_says_what_it_can_do(person: Home) -> None:
    data, words = person.run("ca", "add", "*.App.test")
    assert data == ""
    assert "It can name app.test and every name under it; no other domain, no IP address" in words
    assert "Whoever gets hold of" in words
    assert f"{authorities().file('app.test')}\n" in words
    assert "ca remove app.test" in words
    fingerprint = authorities().load("app.test").fingerprint
    _, words = person.run("ca", "add", "app.test")
    assert words.startswith("There is a CA for app.test already, until 20")
    assert authorities().load("app.test").fingerprint == fingerprint


@pytest.mark.parametrize("domain", ["*", "com", "*.co.uk", "localhost", "10.0.0.1", "https://x.y"])
def test_what_gets_none(person: Home, domain: str) -> None:
    _, words = person.run("ca", "add", domain, status=2)
    assert repr(domain) in words
    assert "ca add DOMAIN" in words
    assert authorities().domains() == ()


def test_list(person: Home) -> None:
    assert person.run("ca", "list") == (
        "",
        "There is no CA. Make one: iam-auth-proxy ca add DOMAIN\n",
    )
    person.run("ca", "add", "app.test")
    authorities().add("old.test", time.time() - 731 * DAY)
    authorities().add("bad.test", time.time())
    authorities().file("bad.test").write_text("")
    rows = {row["domain"]: row for row in listed(person)}
    good = authorities().load("app.test")
    assert rows["app.test"]["sha256"] == good.fingerprint
    assert rows["app.test"]["problem"] == ""
    assert rows["app.test"]["root"] == str(authorities().root_file("app.test"))
    assert rows["old.test"]["problem"] == "Its time is over. Run: iam-auth-proxy ca add old.test"
    assert str(rows["bad.test"]["problem"]).endswith("iam-auth-proxy ca remove bad.test")
    data, _ = person.run("ca", "list")
    assert good.fingerprint in data
    assert len(data.splitlines()) == 7


# -- install, uninstall ----------------------------------------------------------------------------


def test_install_and_uninstall(person: Home, tmp_path: Path) -> None:
    person.run("ca", "add", "app.test")
    person.run("ca", "add", "other.test")
    _, words = person.run("ca", "install", "--yes")
    shown = re.findall(r"^  (.*)$", words.partition("will be run:\n")[2], re.MULTILINE)
    assert ran(words) == shown
    assert len(shown) == 2 + 4  # a database is made, and two roots go into two of them
    assert "Undo: iam-auth-proxy ca uninstall" in words
    assert [len(list(row["trusted_by"])) for row in listed(person)] == [2, 2]  # type: ignore[call-overload]  # of json

    _, words = person.run("ca", "install", "--yes")
    assert "They are trusted already." in words
    assert ran(words) == []
    assert words.count("looking: certutil") == 2

    _, words = person.run("ca", "uninstall", "--yes")
    assert len(ran(words)) == 4
    assert [row["trusted_by"] for row in listed(person)] == [[], []]
    _, words = person.run("ca", "uninstall", "--yes")
    assert "There is nothing to undo." in words
    assert authorities().domains() == ("app.test", "other.test")


def test_nothing_runs_without_a_yes(person: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    person.run("ca", "add", "app.test")
    monkeypatch.setattr(sys, "stdin", io.StringIO())
    _, words = person.run("ca", "install", status=1)
    assert "nobody is there to say yes" in words
    assert "--yes" in words
    monkeypatch.setattr(click, "confirm", lambda *_, **__: False)
    for command in (["install"], ["remove", "app.test"]):
        _, words = person.run("ca", *command, status=1)
        assert "nothing was changed" in words
        assert ran(words) == []
    assert listed(person)[0]["trusted_by"] == []
    person.run("ca", "install", "--yes")
    _, words = person.run("ca", "uninstall", status=1)
    assert ran(words) == []


def test_a_person_at_a_terminal_is_asked(person: Home, tmp_path: Path) -> None:
    person.run("ca", "add", "app.test")
    argv = [sys.executable, "-m", "iam_auth_proxy", "ca", "install", "--nss"]
    env = base_env(HOME=str(tmp_path), XDG_DATA_HOME=str(tmp_path / "data"))
    terminal = Terminal(argv, env)
    try:
        terminal.wait_for(r"Run them\? \[y/N\]")
        assert "$ certutil" not in terminal.output
        terminal.type("y\n")
        terminal.wait_for(r"Trusted now: the CA for app\.test")
        assert terminal.wait() == 0
    finally:
        terminal.close()


def test_a_ca_that_was_made_anew_takes_the_place_of_the_old(person: Home) -> None:
    person.run("ca", "add", "app.test")
    person.run("ca", "install", "--yes")
    authorities().remove("app.test")
    person.run("ca", "add", "app.test")
    assert listed(person)[0]["trusted_by"] == []
    _, words = person.run("ca", "install", "--yes")
    assert sum(" -D " in each for each in ran(words)) == 2
    assert sum(" -A " in each for each in ran(words)) == 2
    assert len(list(listed(person)[0]["trusted_by"])) == 2  # type: ignore[call-overload]  # of json


def test_the_systems_store_alone(
    person: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    person.run("ca", "add", "app.test")
    _, words = person.run("ca", "install", "--system", "--yes", status=1)
    assert "no store that is known here" in words
    assert str(authorities().root_file("app.test")) in words
    store = rootstores.SystemStore(tmp_path / "anchors", ("true", "extract"))
    monkeypatch.setattr(rootstores, "system_store", lambda: store)
    _, words = person.run("ca", "install", "--system", "--yes")
    assert [each.split()[0] for each in ran(words)] == ["install", "true"]
    assert listed(person)[0]["trusted_by"] == [store.name]
    _, words = person.run("ca", "uninstall", "--nss", "--yes")
    assert "nothing to undo" in words
    _, words = person.run("ca", "uninstall", "--yes")
    assert [each.split()[0] for each in ran(words)] == ["rm", "true"]


def test_a_command_that_fails(
    person: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    person.run("ca", "add", "app.test")
    store = rootstores.SystemStore(tmp_path / "anchors", ("false",))
    monkeypatch.setattr(rootstores, "system_store", lambda: store)
    _, words = person.run("ca", "install", "--system", "--yes", status=1)
    assert "false ended with 1" in words
    store = rootstores.SystemStore(tmp_path / "others", ("true",), sudo=("no-such-sudo",))
    monkeypatch.setattr(rootstores, "system_store", lambda: store)
    _, words = person.run("ca", "install", "--system", "--yes", status=1)
    assert "no-such-sudo: No such file" in words


def test_without_a_ca(person: Home) -> None:
    _, words = person.run("ca", "install", "--yes", status=2)
    assert "Run: iam-auth-proxy ca add DOMAIN" in words
    _, words = person.run("ca", "remove", "app.test", "--yes", status=2)
    assert "there is no CA for app.test" in words
    assert "ca list" in words


# -- remove ----------------------------------------------------------------------------------------


def test_remove_takes_the_trust_back_first(person: Home) -> None:
    person.run("ca", "add", "app.test")
    person.run("ca", "add", "other.test")
    person.run("ca", "install", "--yes")
    _, words = person.run("ca", "remove", "app.test", "--yes")
    assert len(ran(words)) == 2
    assert "The CA for app.test is gone, and its key with it." in words
    assert "may still be trusted" not in words
    assert [row["domain"] for row in listed(person)] == ["other.test"]
    assert len(list(listed(person)[0]["trusted_by"])) == 2  # type: ignore[call-overload]  # of json
    _, words = person.run("ca", "uninstall", "--yes")
    assert not any("app.test" in each for each in ran(words))


def test_remove_says_what_is_left(
    person: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    person.run("ca", "add", "app.test")
    person.run("ca", "install", "--yes")
    monkeypatch.setattr(rootstores.shutil, "which", lambda *_, **__: None)
    _, words = person.run("ca", "remove", "app.test", "--yes")
    assert "may still be trusted" in words
    assert f"Firefox: {tmp_path}/.mozilla/firefox/abc.default (for want of certutil)" in words
    assert authorities().domains() == ()


def test_remove_goes_on_when_a_command_fails(
    person: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    person.run("ca", "add", "app.test")
    store = rootstores.SystemStore(tmp_path / "anchors", ("false",))
    store.folder.mkdir()
    (store.folder / "iam-auth-proxy-app.test.crt").touch()
    monkeypatch.setattr(rootstores, "system_store", lambda: store)
    _, words = person.run("ca", "remove", "app.test", "--yes", status=1)
    assert "  false ended with 1: false" in words
    assert authorities().domains() == ()


def test_a_damaged_one_can_be_removed(person: Home) -> None:
    person.run("ca", "add", "app.test")
    person.run("ca", "install", "--yes")
    authorities().file("app.test").write_text("")
    _, words = person.run("ca", "install", "--yes", status=2)
    assert "iam-auth-proxy ca remove app.test" in words
    _, words = person.run("ca", "remove", "app.test", "--yes")
    assert len(ran(words)) == 2


# -- elsewhere -------------------------------------------------------------------------------------


@pytest.mark.parametrize("platform", ["darwin", "win32"])
def test_other_systems_get_the_commands(
    person: Home, platform: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    person.run("ca", "add", "app.test")
    root = authorities().root("app.test")
    monkeypatch.setattr(commands.sys, "platform", platform)
    trust, undo = rootstores.elsewhere(root, platform)
    assert person.run("ca", "install")[0] == f"{trust}\n"
    assert person.run("ca", "uninstall")[0] == f"{undo}\n"
    _, words = person.run("ca", "remove", "app.test", "--yes")
    assert undo in words


def test_nothing_heavy_is_imported_for_it() -> None:
    code = (
        "import sys; from iam_auth_proxy.cli.commands import cli; cli.commands['ca'];"
        "print([n for n in ('cryptography', 'ssl', 'subprocess') if n in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() in ("[]", "['subprocess']")
