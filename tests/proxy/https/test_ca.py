"""The CAs of a folder, and the contexts that they give."""

import contextlib
import datetime
import os
import socket
import ssl
import stat
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from cryptography import x509

from iam_auth_proxy.errors import Malformed, NoAuthority
from iam_auth_proxy.proxy.https import ca, certificates
from iam_auth_proxy.proxy.https.ca import Authorities

NOW = datetime.datetime.now(datetime.UTC).timestamp()
DAY = 86_400


@pytest.fixture
def authorities(tmp_path: Path) -> Authorities:
    return Authorities(tmp_path / "data" / "ca")


def shown(context: ssl.SSLContext, host: str, root: str) -> tuple[x509.Certificate, ssl.SSLObject]:
    """A handshake in memory, by a client that trusts the root alone: the leaf, the client's end."""
    trusting = ssl.create_default_context(cadata=root)
    trusting.set_alpn_protocols(["h2", "http/1.1"])
    c_in, c_out, s_in, s_out = (ssl.MemoryBIO() for _ in range(4))
    client = trusting.wrap_bio(c_in, c_out, server_hostname=host)
    server = context.wrap_bio(s_in, s_out, server_side=True)
    for _ in range(4):
        for side in (client, server):
            with contextlib.suppress(ssl.SSLWantReadError):
                side.do_handshake()
            s_in.write(c_out.read())
            c_in.write(s_out.read())
    found = client.getpeercert(binary_form=True)
    assert found is not None
    return x509.load_der_x509_certificate(found), client


# -- files -----------------------------------------------------------------------------------------


def test_the_key_is_for_nobody_else(authorities: Authorities) -> None:
    old = os.umask(0)
    try:
        authorities.add("app.test", NOW)
    finally:
        os.umask(old)
    assert stat.S_IMODE(authorities.folder.stat().st_mode) == 0o700
    assert stat.S_IMODE(authorities.file("app.test").stat().st_mode) == 0o600


def test_the_key_of_the_root_is_written_nowhere(authorities: Authorities) -> None:
    made = authorities.add("app.test", NOW)
    texts = [path.read_text() for path in authorities.folder.iterdir()]
    assert sum(text.count("PRIVATE KEY-----") for text in texts) == 2  # one, its begin and end
    assert made.key.public_key() == made.intermediate.public_key() != made.root.public_key()
    assert authorities.root_file("app.test").read_text() == made.root_pem


def test_adding_again_changes_nothing(authorities: Authorities) -> None:
    first = authorities.add("app.test", NOW)
    again = authorities.add("APP.test", NOW + certificates.CA_LIFE - 1)
    assert again.fingerprint == first.fingerprint


def test_one_whose_time_is_over_is_made_anew(authorities: Authorities) -> None:
    first = authorities.add("app.test", NOW - certificates.CA_LIFE - 1)
    with pytest.raises(NoAuthority, match="is over") as refused:
        authorities.context("app.test", NOW)
    assert refused.value.remedy == "Run: iam-auth-proxy ca add app.test"
    assert authorities.add("app.test", NOW).fingerprint != first.fingerprint
    assert authorities.context("app.test", NOW)


def test_adding_one_invalidates_no_other(authorities: Authorities) -> None:
    first = authorities.add("app.test", NOW)
    before = authorities.context("app.test", NOW)
    authorities.add("other.test", NOW)
    assert authorities.domains() == ("app.test", "other.test")
    assert authorities.load("app.test").fingerprint == first.fingerprint
    assert authorities.context("app.test", NOW) is before


@pytest.mark.parametrize("domain", ["*", "com", "*.co.uk", "localhost", "127.0.0.1", "../x.y"])
def test_what_gets_no_ca(authorities: Authorities, domain: str) -> None:
    with pytest.raises(Malformed):
        authorities.add(domain, NOW)
    assert not authorities.folder.exists()


def test_removed(authorities: Authorities) -> None:
    authorities.add("app.test", NOW)
    authorities.context("app.test", NOW)
    assert authorities.remove("app.test")
    assert not authorities.remove("app.test")
    assert not authorities.covers("app.test")
    assert authorities.ready("app.test", NOW) is None
    assert [path.name for path in authorities.folder.iterdir()] == [".lock"]


def test_without_a_folder_there_is_nothing(authorities: Authorities) -> None:
    assert not authorities.remove("app.test")
    assert authorities.domains() == ()
    assert not authorities.covers("app.test")
    assert not authorities.folder.exists()


def damaged(authorities: Authorities) -> dict[str, str]:
    one, other = authorities.add("one.test", NOW), authorities.add("other.test", NOW)
    key, middle, root = one.dumps().replace("-----BEGIN", "\0-----BEGIN").split("\0")[1:]
    other_key, other_middle, other_root = (
        other.dumps().replace("-----BEGIN", "\0-----BEGIN").split("\0")[1:]
    )
    return {
        "a key, a CA and its root": key + middle,
        "a key, a CA": middle + root,
        "a key,": "",
        "the key is another CA's": other_key + middle + root,
        "not of its root": key + middle + other_root,
        "it is the CA of other.test": other_key + other_middle + other_root,
        "'ascii' codec": "\xfc",
    }


@pytest.mark.parametrize("number", range(7))
def test_a_damaged_file_is_not_used(authorities: Authorities, number: int) -> None:
    why, text = list(damaged(authorities).items())[number]
    authorities.file("one.test").write_text(text, "utf-8")
    with pytest.raises(NoAuthority, match=why) as refused:
        authorities.context("one.test", NOW)
    assert refused.value.remedy == "Make it anew: iam-auth-proxy ca remove one.test"
    assert "PRIVATE" not in str(refused.value) + refused.value.public
    with pytest.raises(NoAuthority, match=why):
        authorities.add("one.test", NOW)  # what is there is not lost by itself


def test_a_key_that_others_may_read_is_not_used(authorities: Authorities) -> None:
    authorities.add("app.test", NOW)
    authorities.file("app.test").chmod(0o640)
    with pytest.raises(NoAuthority, match="others may read"):
        authorities.context("app.test", NOW)


@pytest.mark.parametrize("text", [None, "", "\xfc", "of another CA"])
def test_the_roots_own_file_is_the_roots(authorities: Authorities, text: str | None) -> None:
    made = authorities.add("app.test", NOW)
    file = authorities.root_file("app.test")
    file.unlink()
    if text is not None:
        file.write_text(text, "latin-1")
    assert authorities.root("app.test").file == file
    assert file.read_text() == made.root_pem


def test_a_writer_that_fails_leaves_no_half(
    authorities: Authorities, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        authorities.add("app.test", NOW)
    assert not authorities.covers("app.test")
    assert [path.name for path in authorities.folder.iterdir()] == [".lock"]


# -- contexts --------------------------------------------------------------------------------------


def test_the_nearest_ca_speaks_for_a_host(authorities: Authorities) -> None:
    wide, narrow = authorities.add("example.com", NOW), authorities.add("in.example.com", NOW)
    for host, made in (("a.example.com", wide), ("a.in.example.com", narrow)):
        leaf, _ = shown(authorities.context(host, NOW), host, made.root_pem)
        assert leaf.issuer == made.intermediate.subject


@pytest.mark.parametrize("host", ["evil.test", "evilapp.test", "test", "127.0.0.1", "::1", ""])
def test_no_ca_speaks_for_others(authorities: Authorities, host: str) -> None:
    authorities.add("app.test", NOW)
    assert not authorities.covers(host)
    with pytest.raises(NoAuthority) as refused:
        authorities.context(host, NOW)
    assert refused.value.remedy == f"Run: iam-auth-proxy ca add {host}"


def test_what_is_spoken(authorities: Authorities) -> None:
    made = authorities.add("app.test", NOW)
    context = authorities.context("a.app.test", NOW)
    leaf, client = shown(context, "a.app.test", made.root_pem)
    assert client.selected_alpn_protocol() == "http/1.1"
    assert client.version() == "TLSv1.3"
    names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["a.app.test"]
    assert context.minimum_version is ssl.TLSVersion.TLSv1_2
    assert context.options & ssl.OP_NO_RENEGOTIATION


def test_the_chain_is_sent(authorities: Authorities) -> None:
    made = authorities.add("app.test", NOW)
    ours, theirs = socket.socketpair()
    context = authorities.context("app.test", NOW)

    def serve() -> None:
        with context.wrap_socket(theirs, server_side=True):
            pass

    thread = threading.Thread(target=serve)
    thread.start()
    trusting = ssl.create_default_context(cadata=made.root_pem)
    with trusting.wrap_socket(ours, server_hostname="app.test") as client:
        chain = client._sslobj.get_unverified_chain()  # type: ignore[attr-defined]  # public in 3.13
    thread.join()
    sent = [x509.load_pem_x509_certificate(each.public_bytes().encode()) for each in chain]
    assert [each.subject for each in sent][1:] == [made.intermediate.subject]


def test_a_leaf_is_kept_and_replaced_before_its_end(authorities: Authorities) -> None:
    authorities.add("app.test", NOW)
    assert authorities.ready("app.test", NOW) is None
    first = authorities.context("app.test", NOW)
    assert authorities.context("app.test", NOW + 6 * DAY - 2) is first
    assert authorities.ready("app.test", NOW) is first
    assert authorities.ready("app.test", NOW + 6 * DAY) is None
    assert authorities.context("app.test", NOW + 6 * DAY) is not first


def test_a_clock_that_was_set_back_gets_another_leaf(authorities: Authorities) -> None:
    authorities.add("app.test", NOW)
    first = authorities.context("app.test", NOW)
    assert authorities.context("app.test", NOW - 3_500) is first
    assert authorities.context("app.test", NOW - 3_700) is not first


def test_a_new_ca_counts_at_once(authorities: Authorities) -> None:
    authorities.add("app.test", NOW)
    authorities.context("app.test", NOW)
    authorities.remove("app.test")
    made = authorities.add("app.test", NOW)
    leaf, _ = shown(authorities.context("app.test", NOW), "app.test", made.root_pem)
    assert leaf.issuer == made.intermediate.subject


def test_the_oldest_contexts_go(authorities: Authorities, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ca, "CACHED", 2)
    authorities.add("app.test", NOW)
    first = authorities.context("1.app.test", NOW)
    authorities.context("2.app.test", NOW)
    authorities.context("1.app.test", NOW)
    authorities.context("3.app.test", NOW)
    assert authorities.ready("1.app.test", NOW) is first
    assert authorities.ready("2.app.test", NOW) is None


def test_many_threads_make_one_leaf(authorities: Authorities) -> None:
    authorities.add("app.test", NOW)
    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(lambda _: authorities.context("app.test", NOW), range(16)))
    assert len(set(map(id, made))) == 1


def test_no_key_of_a_leaf_is_left_behind(
    authorities: Authorities, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(ca.tempfile, "tempdir", str(tmp_path))
    monkeypatch.delattr(os, "memfd_create", raising=False)  # as on macOS
    authorities.add("app.test", NOW)
    before = sorted(tmp_path.rglob("*"))
    descriptors = len(os.listdir("/proc/self/fd"))
    assert authorities.context("app.test", NOW)
    assert sorted(tmp_path.rglob("*")) == before
    assert len(os.listdir("/proc/self/fd")) == descriptors
