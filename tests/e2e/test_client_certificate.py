"""An app behind nginx that asks for a client certificate: who is seen to have one there."""

from __future__ import annotations

import subprocess
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import trustme

from tests.e2e.conftest import USER_ARN, Stack, example
from tests.support.intercepted import make_ca
from tests.support.processes import PATIENCE, Proxy, base_env, free_port, nginx, program
from tests.support.tls_peers import authority_file, key_pair

pytestmark = pytest.mark.e2e

APP, WIKI = "https://app.test", "https://wiki.test"


@dataclass
class Scene:
    """Two names of one app: ``app.test`` is intercepted, ``wiki.test`` has an alias.

    :ivar log: of nginx: who asked for what, and the answer's status.
    """

    proxy: Proxy
    ours: Path
    log: Path

    def seen(self, last: str) -> list[tuple[str, str, str]]:
        """(method and target, status, subject of the client certificate), up to this target.

        nginx writes it down when it has answered, which is a moment later.
        """
        pause = threading.Event()
        for _ in range(int(PATIENCE / 0.02)):
            lines = self.log.read_text().splitlines()
            if any(f" {last}|200|" in line or f" {last}|401|" in line for line in lines[-1:]):
                return [tuple(line.split("|")) for line in lines]  # type: ignore[misc]  # three
            pause.wait(0.02)
        raise AssertionError(self.log.read_text())

    def curl(self, *args: str) -> str:
        argv = [program("curl"), "-sS", "-m", "30", "-x", self.proxy.url, "--cacert", self.ours]
        argv += ["--http1.1", *args]
        done = subprocess.run(argv, capture_output=True, text=True, env=base_env(), check=True)
        return done.stdout


def server(name: str, port: int, app_port: int, folder: Path, verify: str) -> str:
    return (
        f"server {{ listen 127.0.0.1:{port} ssl; server_name {name};\n"
        f"  ssl_certificate {folder}/{name}.pem; ssl_certificate_key {folder}/{name}.key;\n"
        f"  ssl_client_certificate {folder}/authority.pem; ssl_verify_client {verify};\n"
        f"  access_log {folder}/log who;\n"
        f"  location / {{ proxy_pass http://127.0.0.1:{app_port}; proxy_set_header Host $http_host;"
        " proxy_set_header X-Forwarded-Proto https; } }\n"
    )


@pytest.fixture(scope="module")
def scene(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    folder, authority, env = tmp_path_factory.mktemp("tls"), trustme.CA(), stack.env()
    ports = {"app.test": free_port(), "wiki.test": free_port()}
    theirs = authority_file(authority, folder)
    for name in ports:
        key_pair(authority.issue_cert(name), folder, name)
    mine = key_pair(authority.issue_cert("me@corp.test", common_name="me"), folder)
    config = folder / "config.toml"
    config.write_text(
        f'cacert = "{theirs}"\n'
        + "connect_to = ["
        + ", ".join(f'"{name}:443:127.0.0.1:{port}"' for name, port in ports.items())
        + "]\n"
        + "".join(
            f'[[app]]\norigin = "{origin}"\nhttps = "{way}"\n'
            f'client_cert = "{mine[0]}"\nclient_key = "{mine[1]}"\n'
            for origin, way in ((APP, "intercept"), (WIKI, "alias"))
        )
    )
    ours = make_ca(env, "app.test")
    settings = {"IAM_AUTH_ORIGINS": f"{APP},{WIKI}", "IAM_AUTH_TRUSTED_PROXIES": "127.0.0.1"}
    with example(stack.aws, stack.ready, **settings) as (app, app_port):
        http = "log_format who '$request_method $request_uri|$status|$ssl_client_s_dn';\n"
        http += server("app.test", ports["app.test"], app_port, folder, "optional")
        http += server("wiki.test", ports["wiki.test"], app_port, folder, "on")
        (folder / "log").touch()
        with nginx(http, folder / "nginx", ports["wiki.test"]):
            proxy = Proxy("--config", str(config), env=env)
            try:
                yield Scene(proxy, ours, folder / "log")
                assert "Traceback" not in proxy.output + app.output
            finally:
                assert proxy.stop() == 0, proxy.output


def test_a_program_is_known_by_it_and_its_sign_in_too(scene: Scene) -> None:
    assert scene.curl(f"{APP}/check") == f"ok {USER_ARN}\n"
    scene.curl(f"{APP}/check?last")
    assert [(what, who.startswith("CN=me,")) for what, _, who in scene.seen("/check?last")] == [
        ("GET /check", True),
        ("POST /auth", True),
        ("GET /check", True),
        ("GET /check?last", True),
    ]


@pytest.mark.parametrize(
    "fields",
    [
        ["Sec-Fetch-Site: cross-site", "Sec-Fetch-Dest: image"],
        ["Origin: https://evil.test"],
        ["Referer: https://evil.test/", "User-Agent: Mozilla/5.0"],
        ["Sec-Purpose: prefetch"],
        ["Sec-Fetch-Site: cross-site", "Sec-Fetch-Mode: navigate", "Sec-Fetch-Dest: document"],
        ["Upgrade-Insecure-Requests: 1"],
    ],
    ids=["image", "fetch", "referred", "prefetch", "led", "unsaid"],
)
def test_what_the_proxy_does_not_speak_for_has_none(
    scene: Scene, fields: list[str], request: pytest.FixtureRequest
) -> None:
    """Though a connection with one is there, idle."""
    target = f"/check?{request.node.callspec.id}"
    scene.curl(f"{APP}/check")
    scene.curl(*(word for field in fields for word in ("-H", field)), f"{APP}{target}")
    assert scene.seen(target)[-1] == (f"GET {target}", "401", "-")


def test_an_app_that_insists_works_under_an_alias(scene: Scene) -> None:
    port = scene.proxy.port
    navigation = ["Sec-Fetch-Site: none", "Sec-Fetch-Mode: navigate", "Sec-Fetch-Dest: document"]
    fields = [word for field in navigation for word in ("-H", field)]
    url = f"http://wiki.localhost:{port}/check?alias"
    argv = [program("curl"), "-sS", "-m", "30", *fields, url]
    done = subprocess.run(argv, capture_output=True, text=True, env=base_env(), check=True)
    assert done.stdout == f"ok {USER_ARN}\n"
    (*_, last) = scene.seen("/check?alias")
    assert last[1] == "200"
    assert last[2].startswith("CN=me,")
