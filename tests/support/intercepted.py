"""Apps on https behind nginx, a local CA, and homes that trust who is to be trusted.

Nothing of this machine's own stores is touched: a browser with a HOME of its own has an NSS
database of its own.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import trustme
from playwright.sync_api import BrowserContext, BrowserType

from tests.support.browser import FLAGS
from tests.support.processes import Child, nginx, program


def make_ca(env: Mapping[str, str], domain: str) -> Path:
    """``iam-auth-proxy ca add DOMAIN`` of a person; the file of its root."""
    argv = [sys.executable, "-m", "iam_auth_proxy", "ca", "add", domain]
    subprocess.run(argv, env=dict(env), check=True, capture_output=True)
    return Path(env["XDG_DATA_HOME"]) / "iam-auth-proxy" / "ca" / f"{domain}.crt"


def trusting(home: Path, *roots: Path) -> Path:
    """A home whose NSS database trusts these roots for servers; Chromium looks there."""
    database = home / ".pki" / "nssdb"
    database.mkdir(parents=True)
    certutil = [program("certutil"), "-d", f"sql:{database}"]
    subprocess.run([*certutil, "-N", "--empty-password"], check=True)
    for root in roots:
        argv = [*certutil, "-A", "-t", "C,,", "-n", root.name, "-i", str(root)]
        subprocess.run(argv, check=True)
    return home


@contextmanager
def at_home(chromium: BrowserType, home: Path, *flags: str) -> Iterator[BrowserContext]:
    """Chromium of that home, with a fresh profile."""
    context = chromium.launch_persistent_context(
        str(home / "profile"),
        executable_path=program("chromium"),
        args=[*FLAGS, *flags],
        env={**os.environ, "HOME": str(home), "XDG_DATA_HOME": str(home / "data")},
    )
    try:
        yield context
    finally:
        context.close()


@contextmanager
def behind_tls(
    folder: Path, authority: trustme.CA, apps: Mapping[str, int], port: int
) -> Iterator[Child]:
    """nginx that ends TLS for these hosts, each in front of an app on a loopback port."""
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o755)
    servers = []
    for host, app in apps.items():
        leaf = authority.issue_cert(host)
        file = folder / f"{host}.pem"
        chain = b"".join(blob.bytes() for blob in leaf.cert_chain_pems)
        file.write_bytes(leaf.private_key_pem.bytes() + chain)
        servers.append(
            f"""
            server {{
                listen 127.0.0.1:{port} ssl http2; server_name {host};
                ssl_certificate {file}; ssl_certificate_key {file};
                location / {{
                    proxy_pass http://127.0.0.1:{app};
                    proxy_http_version 1.1; proxy_buffering off; proxy_request_buffering off;
                    client_max_body_size 0;
                    proxy_set_header Host $http_host;
                    proxy_set_header X-Forwarded-Proto https;
                    proxy_set_header X-Forwarded-For $remote_addr;
                    proxy_set_header Upgrade $http_upgrade;
                    proxy_set_header Connection $connection_upgrade;
                }}
            }}"""
        )
    upgrade = "map $http_upgrade $connection_upgrade { default upgrade; '' ''; }"
    with nginx(upgrade + "".join(servers), folder / "run", port) as child:
        yield child
