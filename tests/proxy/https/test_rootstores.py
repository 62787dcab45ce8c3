"""Where roots are trusted: certutil's databases and Debian's store, both for real."""

import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from iam_auth_proxy.proxy.https import rootstores
from iam_auth_proxy.proxy.https.ca import Authorities
from iam_auth_proxy.proxy.https.rootstores import (
    Argv,
    Held,
    NssDatabase,
    Root,
    RootStore,
    SystemStore,
)
from tests.support.processes import program

NOW = 1_800_000_000.0


def ask(argv: Argv) -> str:
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    return "" if done.returncode else done.stdout


def run(commands: list[Argv]) -> None:
    for argv in commands:
        subprocess.run(argv, check=True, capture_output=True)


@pytest.fixture
def authorities(tmp_path: Path) -> Authorities:
    return Authorities(tmp_path / "ca")


def made(authorities: Authorities, domain: str) -> Root:
    authorities.add(domain, NOW)
    return authorities.root(domain)


def store(folder: Path) -> SystemStore:
    (folder / "hooks").mkdir(parents=True)
    (folder / "certs").mkdir()
    (folder / "conf").write_text("\n")
    options = {"localcertsdir": "local", "etccertsdir": "certs", "hooksdir": "hooks"}
    args = [word for key, name in options.items() for word in (f"--{key}", str(folder / name))]
    update = (program("update-ca-certificates"), *args, "--certsconf", str(folder / "conf"))
    return SystemStore(folder / "local", update, ("--fresh",))


@pytest.fixture(params=["nss", "system"])
def root_store(request: pytest.FixtureRequest, tmp_path: Path) -> RootStore:
    program("certutil")
    return NssDatabase(tmp_path / "nss", "Nobody") if request.param == "nss" else store(tmp_path)


def test_trusted_and_forgotten(root_store: RootStore, authorities: Authorities) -> None:
    one, other = made(authorities, "one.test"), made(authorities, "one.test.example")
    assert root_store.held(ask) == []
    run(root_store.trust([one, other]))
    held = root_store.held(ask)
    assert [root_store.is_root(each, root) for each in held for root in (one, other)] == [
        *(True, False),
        *(False, True),
    ]
    assert [root_store.is_of(each, "one.test") for each in held] == [True, False]
    run(root_store.forget(held[:1]))
    assert root_store.held(ask) == held[1:]
    run(root_store.forget(held[1:]))
    assert root_store.held(ask) == []


def test_an_earlier_ca_is_told_apart(root_store: RootStore, authorities: Authorities) -> None:
    old = made(authorities, "one.test")
    run(root_store.trust([old]))
    authorities.remove("one.test")
    new = made(authorities, "one.test")
    (held,) = root_store.held(ask)
    assert root_store.is_of(held, "one.test")
    assert root_store.is_root(held, old)
    assert not root_store.is_root(held, new)
    run([*root_store.forget([held]), *root_store.trust([new])])
    (held,) = root_store.held(ask)
    assert root_store.is_root(held, new)


def test_what_is_not_ours_stays(tmp_path: Path, authorities: Authorities) -> None:
    database, root = NssDatabase(tmp_path / "nss", "Nobody"), made(authorities, "one.test")
    run(database.trust([]))
    theirs = ["certutil", "-d", f"sql:{tmp_path}/nss", "-A", "-t", "C,,", "-n", "Their own CA"]
    run([[*theirs, "-i", str(root.file)]])
    assert database.held(ask) == []
    system = store(tmp_path)
    system.folder.mkdir()
    (system.folder / "company.crt").write_text(root.pem)
    assert system.held(ask) == []


def test_one_that_is_held_and_not_trusted(tmp_path: Path, authorities: Authorities) -> None:
    database, root = NssDatabase(tmp_path / "nss", "Nobody"), made(authorities, "one.test")
    run(database.trust([root]))
    run([["certutil", "-d", f"sql:{tmp_path}/nss", "-M", "-t", "p,,", "-n", root.nickname]])
    assert database.held(ask) == [Held(root.nickname, trusted=False)]
    assert not database.is_root(database.held(ask)[0], root)


def test_debian_makes_a_bundle_of_it(tmp_path: Path, authorities: Authorities) -> None:
    system, root = store(tmp_path), made(authorities, "one.test")
    company = Authorities(tmp_path / "company")
    run([["install", "-D", str(made(company, "two.test").file), f"{system.folder}/company.crt"]])
    run(system.trust([root]))
    bundle = tmp_path / "certs" / "ca-certificates.crt"
    assert root.pem in bundle.read_text()
    run(system.forget(system.held(ask)))
    assert bundle.read_text() == company.root("two.test").pem
    links = [path for path in (tmp_path / "certs").iterdir() if path.is_symlink()]
    assert len(links) == 2  # one and its hash
    assert all(path.exists() for path in links)
    assert system.trust([]) == system.forget([]) == []


def test_java_is_told_of_what_went(tmp_path: Path, authorities: Authorities) -> None:
    hook, root = tmp_path / "hook", made(authorities, "one.test")
    system = replace(store(tmp_path), java=hook)
    run(system.trust([root]))
    hook.write_text(f"#!/bin/sh\ncat > {tmp_path}/told\n")
    hook.chmod(0o755)
    run(system.forget(system.held(ask)))
    assert (tmp_path / "told").read_text() == "-/etc/ssl/certs/iam-auth-proxy-one.test.pem\n"


def test_a_name_in_the_store_is_no_command(tmp_path: Path, authorities: Authorities) -> None:
    """Others than root may write to that folder: on some systems a group does."""
    system = replace(store(tmp_path), java=tmp_path / "a hook")
    run(system.trust([made(authorities, "one.test")]))
    name = "iam-auth-proxy-%s'; touch made; '$(touch made)"
    (system.folder / f"{name}.crt").write_text("x")
    (tmp_path / "a hook").write_text(f"#!/bin/sh\ncat > {tmp_path}/told\n")
    (tmp_path / "a hook").chmod(0o755)
    run(system.forget(system.held(ask)))
    lines = [f"-/etc/ssl/certs/{each}.pem" for each in (name, "iam-auth-proxy-one.test")]
    assert (tmp_path / "told").read_text().splitlines() == lines
    assert not Path("made").exists()


def test_the_databases_of_a_person(tmp_path: Path) -> None:
    assert [each.folder for each in rootstores.nss_databases(tmp_path)] == [tmp_path / ".pki/nssdb"]
    there = (".local/share/pki/nssdb", ".mozilla/firefox/abc.default", "snap/firefox/common/x")
    for below in there:
        (tmp_path / below).mkdir(parents=True)
        (tmp_path / below / "cert9.db").touch()
    (tmp_path / ".mozilla/firefox/Crash Reports").mkdir()
    found = rootstores.nss_databases(tmp_path)
    assert [each.folder for each in found] == [tmp_path / below for below in there[:2]]
    assert [each.whose for each in found] == ["Chromium and Chrome", "Firefox"]


@pytest.mark.parametrize(
    ("programs", "folder"),
    [
        (["update-ca-certificates"], "/usr/local/share/ca-certificates"),
        (["update-ca-trust"], "/etc/pki/ca-trust/source/anchors"),
        ([], ""),
    ],
)
def test_the_store_of_a_system(
    programs: list[str], folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        rootstores.shutil, "which", lambda name, path: f"/sbin/{name}" if name in programs else None
    )
    monkeypatch.setattr(rootstores.os, "geteuid", lambda: 1000)
    found = rootstores.system_store()
    assert (str(found.folder) if found else "") == folder
    if found:
        assert found.trust([])[:1] == []
        assert found.forget([Held("/x")])[0] == ["sudo", "rm", "/x"]


@pytest.mark.parametrize(
    ("dnf", "package"), [(False, "apt install libnss3"), (True, "dnf install nss-")]
)
def test_the_package_that_is_missing(
    dnf: bool, package: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / ".pki/nssdb").mkdir(parents=True)
    (tmp_path / ".pki/nssdb/cert9.db").touch()
    assert rootstores.unasked(tmp_path) == []
    monkeypatch.setattr(
        rootstores.shutil, "which", lambda name: "/usr/bin/dnf" if dnf and name == "dnf" else None
    )
    with pytest.raises(rootstores.NoCertutil) as missing:
        rootstores.must_have_certutil()
    assert package in missing.value.remedy
    assert [each.folder for each in rootstores.unasked(tmp_path)] == [tmp_path / ".pki/nssdb"]


def test_other_systems(authorities: Authorities) -> None:
    root = made(authorities, "one.test")
    trust, undo = rootstores.elsewhere(root, "darwin")
    assert trust.startswith("security add-trusted-cert")
    assert str(root.file) in trust
    assert root.sha1 in undo
    trust, undo = rootstores.elsewhere(root, "win32")
    assert trust == f'certutil -user -addstore Root "{root.file}"'
    assert undo == f"certutil -user -delstore Root {root.sha1}"
