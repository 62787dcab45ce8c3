"""What a stolen CA key is good for: nothing but the CA's domain, whoever verifies.

A thief has the file of the CA for app.test, and signs for other names. OpenSSL, GnuTLS, Java and
Chromium, which trust that CA, are shown his chains by a real server. Each of them accepts what is
right, and accepts everything of a CA that is held down by nothing: so it is the constraints that
they refuse.
"""

from __future__ import annotations

import datetime
import socket
import ssl
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization

from iam_auth_proxy.proxy.https.ca import Authorities
from tests.support.browser import chromium
from tests.support.intercepted import trusting
from tests.support.processes import Proxy, base_env, program
from tests.support.thief import Thief, address, dns, named, serving, unconstrained

pytestmark = pytest.mark.e2e

HOSTS = ("app.test", "a.b.app.test", "evil.test", "evilapp.test")
OPEN_WORD = "what the server says"


@dataclass
class Case:
    """What the thief signs, and the host that is asked for.

    :ivar names: of the certificate; ``subject`` where it says more than nothing.
    :ivar by_a_ca_of_his: whether he makes a CA of his own first.
    """

    host: str
    names: list[x509.GeneralName]
    subject: x509.Name | None = None
    by_a_ca_of_his: bool = False


RIGHT = {
    "the domain": Case("app.test", [dns("app.test")]),
    "a name under it": Case("a.b.app.test", [dns("a.b.app.test")]),
}
WRONG = {
    "another domain": Case("evil.test", [dns("evil.test")]),
    "an IP address": Case("127.0.0.1", [address("127.0.0.1")]),
    "a domain that ends like it": Case("evilapp.test", [dns("evilapp.test")]),
    "another one besides": Case("evil.test", [dns("app.test"), dns("evil.test")]),
    "an IP address besides": Case("127.0.0.1", [dns("app.test"), address("127.0.0.1")]),
    "an IP address as a name": Case("127.0.0.1", [dns("127.0.0.1")]),
    "a name that is no alternative one": Case("evil.test", [], named("evil.test")),
    "a CA of his own": Case("app.test", [dns("app.test")], by_a_ca_of_his=True),
}
# Most verifiers need no constraint to refuse these.
REFUSED_ANYWAY = "a name that is no alternative one", "an IP address as a name"


@dataclass
class World:
    """What was stolen, and whom the verifiers trust: the CA, and one that is held down by nothing.

    :ivar roots: a file with the roots of both.
    """

    folder: Path
    thief: Thief
    free: Thief
    roots: Path
    roots_apart: list[Path]
    answer: bytes

    def chain(self, case: Case, *, free: bool) -> Path:
        thief = self.free if free else self.thief
        thief = thief.climbs() if case.by_a_ca_of_his else thief
        return thief.writes(self.folder, case.names, case.subject)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    folder = tmp_path_factory.mktemp("stolen")
    authorities = Authorities(folder / "ca")
    authorities.add("app.test", time.time())
    free, free_root = unconstrained(folder)
    apart = [authorities.root_file("app.test"), folder / "free.crt"]
    apart[1].write_text(free_root)
    roots = folder / "roots.pem"
    roots.write_text("".join(path.read_text() for path in apart))
    thief = Thief(authorities.file("app.test"))
    return World(folder, thief, Thief(free), roots, apart, _list_of_revocations(thief))


def _list_of_revocations(thief: Thief) -> bytes:
    """For Java's keytool, which fetches such a list from any URL, and then prints it."""
    day = datetime.timedelta(days=1)
    builder = x509.CertificateRevocationListBuilder(
        issuer_name=named(OPEN_WORD), last_update=thief.now - day, next_update=thief.now + day
    )
    return builder.sign(thief.key, hashes.SHA256()).public_bytes(serialization.Encoding.DER)


# -- who verifies ----------------------------------------------------------------------------------

Refusal = str
"""Why a chain was refused; empty where it was accepted."""
Verify = Callable[[str, int], Refusal]


def by_openssl(world: World) -> Iterator[Verify]:
    def verify(host: str, port: int) -> Refusal:
        trusting = ssl.create_default_context(cafile=str(world.roots))
        try:
            with (
                socket.create_connection(("127.0.0.1", port), 20) as connection,
                trusting.wrap_socket(connection, server_hostname=host),
            ):
                return ""
        except ssl.SSLCertVerificationError as error:
            return error.verify_message

    yield verify


def by_gnutls(world: World) -> Iterator[Verify]:
    def verify(host: str, port: int) -> Refusal:
        trust = [f"--x509cafile={world.roots}", f"--verify-hostname={host}"]
        # No name of a server is an address (RFC 6066 section 3).
        sni = [] if host[0].isdigit() else [f"--sni-hostname={host}"]
        argv = [program("gnutls-cli"), *trust, *sni, "-p", str(port), "127.0.0.1"]
        done = _run(argv)
        assert "- Status: " in done.stdout, done.stdout + done.stderr
        status = done.stdout.partition("- Status: ")[2].splitlines()[0]
        return "" if "is trusted" in status and "NOT" not in status else status

    yield verify


def by_java(world: World) -> Iterator[Verify]:
    keytool, store = program("keytool"), world.folder / "trusted.p12"
    hosts = world.folder / "hosts"
    hosts.write_text("".join(f"127.0.0.1 {host}\n" for host in HOSTS))
    password = "changeit"
    for number, root in enumerate(world.roots_apart):
        kept = ["-keystore", str(store), "-storetype", "PKCS12", "-storepass", password]
        added = ["-importcert", "-noprompt", "-alias", str(number), "-file", str(root)]
        done = _run([keytool, *added, *kept])
        assert done.returncode == 0, done.stdout

    def verify(host: str, port: int) -> Refusal:
        trust = {"javax.net.ssl.trustStore": store, "javax.net.ssl.trustStorePassword": password}
        options = [f"-J-D{name}={value}" for name, value in trust.items()]
        options += [f"-J-Djdk.net.hosts.file={hosts}", "-J-XX:TieredStopAtLevel=1"]
        done = _run([keytool, *options, "-printcrl", "-file", f"https://{host}:{port}/"])
        assert (OPEN_WORD in done.stdout) is (done.returncode == 0), done.stdout
        return done.stdout if done.returncode else ""

    yield verify


def by_chromium(world: World) -> Iterator[Verify]:
    home = trusting(world.folder / "home", *world.roots_apart)
    flags = ["--host-resolver-rules=MAP *.test 127.0.0.1", "--no-proxy-server"]
    right = RIGHT["the domain"]
    with (
        serving(world.chain(right, free=False), b"a page") as port,
        chromium(world.folder / "profile", *flags, home=home) as context,
    ):
        page = context.new_page()
        page.goto(f"https://{right.host}:{port}/")
        failures: list[str] = []
        page.on("requestfailed", lambda request: failures.append(request.failure or "failed"))

        def verify(host: str, port: int) -> Refusal:
            failures.clear()
            # As a page's own request: a navigation waits 3 s for a captive portal to show itself.
            url = f"https://{host}:{port}/"
            went = page.evaluate("u => fetch(u, {mode: 'no-cors'}).then(() => 1, () => 0)", url)
            page.evaluate("0")  # what was said before its answer has been heard by now
            assert bool(went) is not bool(failures)
            return "".join(failures)

        yield verify


def _run(argv: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        argv,
        capture_output=True,
        text=True,
        errors="replace",
        stdin=subprocess.DEVNULL,
        env=base_env(LC_ALL="C"),
        timeout=60,
        check=False,
    )


# Verifier -> how it says that it is the constraints, or the length of the path.
VERIFIERS: dict[str, tuple[Callable[[World], Iterator[Verify]], tuple[str, ...]]] = {
    "OpenSSL": (by_openssl, ("subtree violation", "path length constraint exceeded")),
    "GnuTLS": (by_gnutls, ("violates the signer's constraints",)),
    "Java": (by_java, ("name constraints", "pathLenConstraint", "path length constraint")),
    "Chromium": (by_chromium, ("ERR_CERT_INVALID", "ERR_CERT_AUTHORITY_INVALID")),
}


@pytest.fixture(scope="module", params=VERIFIERS)
def verifier(request: pytest.FixtureRequest, world: World) -> Iterator[tuple[str, Verify]]:
    for verify in VERIFIERS[request.param][0](world):
        yield request.param, verify


def shown(world: World, verify: Verify, case: Case, *, free: bool = False) -> Refusal:
    with serving(world.chain(case, free=free), world.answer) as port:
        return verify(case.host, port)


@pytest.mark.parametrize("case", RIGHT)
def test_the_domain_of_the_ca_is_accepted(
    world: World, verifier: tuple[str, Verify], case: str
) -> None:
    assert shown(world, verifier[1], RIGHT[case]) == ""


@pytest.mark.parametrize("case", WRONG)
def test_everything_else_is_refused(world: World, verifier: tuple[str, Verify], case: str) -> None:
    name, verify = verifier
    refusal = shown(world, verify, WRONG[case])
    if case in REFUSED_ANYWAY:
        assert refusal
    else:
        assert any(each in refusal for each in VERIFIERS[name][1]), refusal or "accepted"


@pytest.mark.parametrize("case", ["another domain", "an IP address", "a CA of his own"])
def test_it_is_for_the_constraints(world: World, verifier: tuple[str, Verify], case: str) -> None:
    assert shown(world, verifier[1], WRONG[case], free=True) == ""


@pytest.mark.parametrize(
    "name",
    [
        address("::1"),
        x509.RFC822Name("someone@example.com"),
        x509.UniformResourceIdentifier("https://evil.test/"),
        dns("*.test"),
    ],
    ids=["IPv6", "e-mail", "URI", "wildcard"],
)
def test_names_of_other_kinds(world: World, name: x509.GeneralName) -> None:
    """No server need show them: they are verified as files. GnuTLS looks at no URI."""
    for free in (False, True):
        chain = world.chain(Case("app.test", [dns("app.test"), name]), free=free)
        certificates = world.folder / "chain.pem"
        certificates.write_text(
            "".join(
                each.public_bytes(serialization.Encoding.PEM).decode()
                for each in x509.load_pem_x509_certificates(chain.read_bytes())
            )
        )
        files = ["-CAfile", str(world.roots), "-untrusted", str(certificates), str(certificates)]
        done = _run([program("openssl"), "verify", "-purpose", "sslserver", *files])
        assert (done.returncode == 0) is free, done.stderr
        assert free or "subtree violation" in done.stderr
        argv = [f"--load-ca-certificate={world.roots}", f"--infile={certificates}"]
        done = _run([program("certtool"), "--verify", *argv])
        if not isinstance(name, x509.UniformResourceIdentifier):
            assert (done.returncode == 0) is free, done.stdout


@pytest.mark.parametrize(("free", "said"), [(False, "a local CA"), (True, "an app's page")])
def test_the_proxy_takes_none_from_an_app(world: World, free: bool, said: str) -> None:
    """Where the system trusts the CA, which is for this machine's own browsers."""
    with serving(world.chain(RIGHT["the domain"], free=free), b"an app's page") as port:
        reach = ["--connect-to", f"app.test:443:127.0.0.1:{port}", "--alias", "a=https://app.test"]
        proxy = Proxy(*reach, "--cacert", str(world.roots), env=base_env())
        try:
            resolve = f"a.localhost:{proxy.port}:127.0.0.1"
            url = f"http://a.localhost:{proxy.port}/"
            done = _run([program("curl"), "-sS", "--resolve", resolve, url])
        finally:
            proxy.stop()
    assert said in done.stdout, proxy.output
