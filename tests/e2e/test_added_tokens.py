"""An app that takes kmsauth's tokens and nothing else, called by anything that goes by the proxy.

The app verifies with the original, python-kmsauth 0.6.3, the two fields that Confidant reads.
"""

from __future__ import annotations

import json
import ssl
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import kmsauth
import pytest
import trustme
from kmsauth import services

from iam_auth_proxy import policies
from iam_auth_proxy.local_aws import Keys, LocalAws, allow
from iam_auth_proxy.local_aws.resources import Key
from tests.support import other_site
from tests.support.browser import launched
from tests.support.intercepted import make_ca
from tests.support.processes import Proxy, base_env, program
from tests.support.tls_peers import authority_file, server_context

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.filterwarnings("ignore:datetime.datetime.utcnow:DeprecationWarning"),
]

APP = "http://confidant.test"
TO = "confidant-production"
TOKEN = ["--token-to", TO, "--token-key", "alias/authnz", "--allow-http"]


@dataclass
class Confidant:
    """401 without a token, 403 with a bad one, 200 and the caller's name with a good one.

    :ivar asked: the path of each request, and the fields that say who asks.
    """

    aws: LocalAws
    key: Key
    validator: Any
    port: int = 0
    asked: list[tuple[str, dict[str, str]]] = field(default_factory=list)

    def verdict(self, username: str | None, token: str | None) -> tuple[int, str]:
        if not username or not token:
            return 401, "who are you?"
        try:
            self.validator.decrypt_token(username, token)
        except kmsauth.TokenValidationError as error:
            return 403, str(error)
        return 200, self.validator.extract_username_field(username, "from")

    def added(self, prefix: str) -> list[dict[str, str]]:
        """The fields that say who asks, of the requests below a path."""
        return [fields for path, fields in self.asked if path.startswith(prefix)]


@contextmanager
def serving(server: ThreadingHTTPServer) -> Iterator[None]:
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def port_of(server: ThreadingHTTPServer) -> str:
    return f"127.0.0.1:{server.server_address[1]}"


def serve(app: Confidant, tls: ssl.SSLContext | None = None) -> ThreadingHTTPServer:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            names = ("X-Auth-From", "X-Auth-Token", "Authorization", "Cookie")
            said = {name: self.headers[name] for name in names if self.headers[name]}
            app.asked.append((self.path, said))
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            status, text = app.verdict(said.get("X-Auth-From"), said.get("X-Auth-Token"))
            body = text.encode()
            self.send_response(status)
            self.send_header("Content-Type", "text/html")
            self.send_header("Content-Length", str(len(body)))
            self.send_header("Access-Control-Allow-Origin", "*")
            self.end_headers()
            self.wfile.write(body)

        do_POST = do_PUT = do_GET  # the names that the base class looks for

        def log_message(self, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    if tls is not None:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
    return server


@dataclass
class Stage:
    app: Confidant
    ann: Keys
    home: Path

    def env(self, keys: Keys | None = None) -> dict[str, str]:
        env = base_env(**self.app.aws.env, **(keys or self.ann).env)
        names = {"XDG_CONFIG_HOME": "c", "XDG_RUNTIME_DIR": "r", "XDG_DATA_HOME": "d"}
        return env | {name: str(self.home / short) for name, short in names.items()}

    def run(self, *args: str, status: int = 0) -> str:
        argv = [sys.executable, "-m", "iam_auth_proxy", *args]
        done = subprocess.run(
            argv, env=self.env(), capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode == status, done.stderr
        return done.stdout + done.stderr

    def proxy(self, *flags: str) -> Proxy:
        to = f"confidant.test:80:127.0.0.1:{self.app.port}"
        return Proxy("--connect-to", to, *flags, env=self.env())

    def encrypts(self) -> int:
        return sum(call.action == "Encrypt" for call in self.app.aws.calls)


@pytest.fixture
def short() -> Iterator[Path]:
    """A folder: the paths of the sockets in it are short enough, wherever the tests' own are."""
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)


@pytest.fixture
def stage(monkeypatch: pytest.MonkeyPatch, short: Path) -> Iterator[Stage]:
    monkeypatch.setattr(services, "CLIENT_CACHE", {})
    (short / "r").mkdir(mode=0o700)
    with LocalAws() as aws:
        key = aws.key("authnz")
        server = aws.user("app", policies=[allow("kms:Decrypt", "kms:DescribeKey")]).keys()
        credentials = {
            "AccessKeyId": server.access_key_id,
            "SecretAccessKey": server.secret_access_key,
            "SessionToken": "",
        }
        validator = kmsauth.KMSTokenValidator(
            None, ["alias/authnz"], TO, aws.region, minimum_token_version=2,
            aws_creds=credentials, endpoint_url=aws.url,
        )  # fmt: skip
        # The policy that is printed for users, and nothing else.
        policy = policies.token_user(TO, key.arn, mfa=False)
        ann = aws.user("ann", policies=[policy]).keys()
        app = Confidant(aws, key, validator)
        http = serve(app)
        app.port = http.server_address[1]
        with serving(http):
            yield Stage(app, ann, short)


def curl(proxy: Proxy, *args: str) -> str:
    argv = [program("curl"), "-sS", "-m", "30", "-w", " %{http_code}", "-x", proxy.url, *args]
    done = subprocess.run(argv, capture_output=True, text=True, env=base_env(), check=False)
    assert done.returncode == 0, done.stderr + proxy.output
    return done.stdout


def test_curl_calls_confidant(stage: Stage) -> None:
    stage.run("trust", "add", APP, *TOKEN)
    with stage.proxy() as proxy:
        for _ in range(3):
            assert curl(proxy, f"{APP}/v1/services") == "ann 200"
        assert curl(proxy, "-d", "a=b", f"{APP}/v1/services") == "ann 200"
        assert curl(proxy, "-u", "2/user/bob:nonsense", f"{APP}/own").endswith(" 401")
        assert stage.app.added("/own") == [
            {"Authorization": stage.app.asked[-1][1]["Authorization"]}
        ]
        document = json.loads(stage.run("status", "--json"))
        [token] = [each["service_token"] for each in document["apps"]]
        assert (token["from"], token["key_used"]) == ("2/user/ann", stage.app.key.arn)
        assert 500 < token["expires_in"] <= 600
        assert f"service token 2/user/ann to {TO}, 9 min left" in stage.run("status")
        assert f"service token to {TO} for programs" in stage.run("whoami", APP)
        assert stage.encrypts() == document["counters"]["tokens_made"] == 1
    sent = stage.app.asked[0][1]["X-Auth-Token"]
    assert sent not in proxy.output
    assert "Traceback" not in proxy.output


def test_what_is_said_meanwhile_counts_for_the_next_request(stage: Stage) -> None:
    stage.run("trust", "add", APP)
    with stage.proxy() as proxy:
        assert curl(proxy, f"{APP}/a") == "who are you? 401"
        stage.run("trust", "add", APP, *TOKEN)
        assert curl(proxy, f"{APP}/b") == "ann 200"
        assert "1 held sessions" not in stage.run("logout", APP)
        said = curl(proxy, f"{APP}/c")
        assert f"iam-auth-proxy logout --undo {APP}" in said
        assert said.endswith(" 403")
        stage.run("logout", "--undo", APP)
        assert curl(proxy, f"{APP}/d") == "ann 200"
        stage.run("trust", "remove", APP)
        assert curl(proxy, f"{APP}/e") == "who are you? 401"
        assert stage.encrypts() == 2


def test_by_https_nothing_has_to_be_allowed(stage: Stage) -> None:
    """Where TLS is ended here, and under an alias: the same curl, and no word about http."""
    url, authority = "https://confidant.test", trustme.CA()
    theirs = authority_file(authority, stage.home)
    app = serve(stage.app, server_context(authority.issue_cert("confidant.test")))
    ours = make_ca(stage.env(), "confidant.test")
    flags = [f"--cacert={theirs}", f"--connect-to=confidant.test:443:{port_of(app)}"]
    with serving(app):
        for way in ("intercept", "alias"):
            stage.run("trust", "add", url, "--https", way, *TOKEN[:4])
            with stage.proxy(*flags) as proxy:
                if way == "intercept":
                    assert curl(proxy, "--cacert", str(ours), f"{url}/by/{way}") == "ann 200"
                else:
                    here = f"http://confidant.localhost:{proxy.port}/by/{way}"
                    assert curl(proxy, "--noproxy", "*", here) == "ann 200"
        with stage.proxy(*flags) as proxy:
            stage.run("trust", "add", url, "--https", "tunnel")
            assert curl(proxy, "--cacert", theirs, f"{url}/by/tunnel") == "who are you? 401"
    assert stage.app.added("/by/tunnel") == [{}]


def test_in_the_name_of_nobody_else(stage: Stage) -> None:
    """Its policy holds ann to her own name; KMS says so, and the page says what to do."""
    stage.run("trust", "add", APP, *TOKEN, "--token-from", "bob")
    with stage.proxy() as proxy:
        said = curl(proxy, f"{APP}/a")
        assert said.endswith(" 403")
        assert "iam-auth-proxy policies token --to confidant-production" in said
    assert stage.app.asked == []


def test_another_sites_page_gets_nothing_added(stage: Stage) -> None:
    """A token is at hand, and what Chromium sends for another site's page goes without it."""
    stage.run("trust", "add", APP, *TOKEN)
    kinds = other_site.WITHHELD
    with stage.proxy() as proxy, other_site.other_site() as port:
        assert curl(proxy, f"{APP}/by-program") == "ann 200"
        pac = f"--proxy-pac-url={proxy.url}/proxy.pac"
        names = f"--host-resolver-rules=MAP {other_site.HOST} 127.0.0.1:{port}"
        with launched(names, pac) as chromium:
            page = chromium.new_page()
            page.goto(f"http://{other_site.HOST}/")
            learnt: dict[str, str] = page.evaluate(
                "([kinds, url]) => attack(kinds, url)", [kinds, f"{APP}/attack/"]
            )
            assert not any("ann" in text for text in learnt.values())
            page.goto(f"{APP}/attack/typed")
            assert "who are you?" in page.content()
            # A page of the app's own may ask in the person's name, as a program does.
            own = page.evaluate("fetch('/own').then(answer => answer.text())")
            assert own == "ann"
        assert stage.encrypts() == 1
    attacks = stage.app.added("/attack/")
    assert len(attacks) >= len(kinds) // 2
    assert [fields for fields in attacks if fields] == []
