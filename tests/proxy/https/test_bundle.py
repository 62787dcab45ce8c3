"""The bundle: what the system trusts, and ours."""

import ssl
from pathlib import Path

import pytest

from iam_auth_proxy.proxy.https import bundle
from iam_auth_proxy.proxy.https.ca import Authorities
from tests.support.processes import Proxy, base_env

NOW = 1_800_000_000.0


@pytest.fixture
def authorities(tmp_path: Path) -> Authorities:
    found = Authorities(tmp_path / "ca")
    found.add("one.test", NOW)
    return found


@pytest.fixture
def system(tmp_path: Path) -> Path:
    other = Authorities(tmp_path / "system")
    other.add("system.test", NOW)
    return other.root_file("system.test")


def made(authorities: Authorities, system: Path) -> Path:
    roots = [authorities.root(each).pem for each in authorities.domains()]
    return bundle.current(authorities.folder, roots, {"SSL_CERT_FILE": str(system)})


def names(path: Path) -> set[str]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(str(path))
    return {
        value.split()[0]
        for each in context.get_ca_certs()
        for part in each["subject"]
        for key, value in part
        if key == "commonName"
    }


def test_it_holds_both(authorities: Authorities, system: Path) -> None:
    assert names(made(authorities, system)) == {"one.test", "system.test"}


def test_it_is_written_when_something_changed(authorities: Authorities, system: Path) -> None:
    path = made(authorities, system)
    before = path.stat().st_ino
    assert made(authorities, system).stat().st_ino == before
    authorities.add("two.test", NOW)
    assert names(made(authorities, system)) == {"one.test", "two.test", "system.test"}
    third = Authorities(system.parent)
    third.add("third.test", NOW)
    system.write_text(system.read_text() + third.root("third.test").pem)
    assert names(made(authorities, system)) >= {"third.test", "system.test"}
    authorities.remove("one.test")
    assert "one.test" not in names(made(authorities, system))


def test_a_shell_that_has_our_exports_already(authorities: Authorities, system: Path) -> None:
    path = made(authorities, system)
    again = bundle.current(
        authorities.folder, [authorities.root("one.test").pem], bundle.exports(path)
    )
    assert again == path
    assert names(path) == {"one.test", "system.test"}


def test_without_anything_variables_say_it_is_the_systems(authorities: Authorities) -> None:
    path = bundle.current(authorities.folder, [authorities.root("one.test").pem], {})
    assert len(names(path)) > 20


def test_never_ours_alone(authorities: Authorities, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bundle, "_SYSTEM", ("/nonexistent",))
    monkeypatch.setattr(
        bundle.ssl, "get_default_verify_paths", lambda: type("P", (), {"openssl_cafile": ""})
    )
    for variable in ("", "/nonexistent", "/etc/ssl", str(authorities.folder / bundle.NAME)):
        with pytest.raises(bundle.NoSystemBundle):
            bundle.current(authorities.folder, [], {"SSL_CERT_FILE": variable})
    assert not (authorities.folder / bundle.NAME).exists()


def test_the_variables() -> None:
    found = bundle.exports(Path("/x"))
    assert set(found) >= {"SSL_CERT_FILE", "CURL_CA_BUNDLE", "REQUESTS_CA_BUNDLE"}
    assert set(found) >= {"NODE_EXTRA_CA_CERTS", "GIT_SSL_CAINFO"}
    assert set(found.values()) == {"/x"}


def test_a_proxy_that_starts_makes_it_again(system: Path) -> None:
    env = base_env(SSL_CERT_FILE=str(system))
    found = Authorities(Path(env["XDG_DATA_HOME"], "iam-auth-proxy", "ca"))
    found.add("one.test", NOW)
    path = bundle.of(found, env)
    system.write_text("")
    assert Proxy(env=env).stop() == 0
    assert names(path) == {"one.test"}, "the system trusts nothing any more"
    found.file("one.test").write_text("damaged")
    system.write_text("changed")
    proxy = Proxy(env=env)
    assert proxy.stop() == 0
    (warning,) = [line for line in proxy.lines if "the bundle of env --ca is as it was" in line]
    assert "one.test.pem" in warning
