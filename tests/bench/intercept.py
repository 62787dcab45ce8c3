"""TLS ended at the proxy, against mitmproxy: requests, new connections, latency and memory."""

from __future__ import annotations

import contextlib
import os
import resource
import ssl
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import trustme

from tests.bench import tls_load
from tests.bench.contestants import ANSWER, Field, start
from tests.bench.figures import Figure, absolute, against
from tests.bench.machine import MB, BenchError, on_core, rss
from tests.bench.mitmproxy import mitmproxy
from tests.bench.rows import (
    DIRECT,
    INTERCEPT_IDLE,
    INTERCEPT_LATENCY,
    INTERCEPT_NEW,
    INTERCEPT_RATE,
    MITMPROXY,
    OURS,
)
from tests.bench.settings import Settings, say
from tests.bench.size import CONNECTIONS
from tests.bench.tls_load import HOST, Way
from tests.support.intercepted import make_ca
from tests.support.processes import Proxy, base_env, free_port, nginx

_AT_ONCE = 8
"""New connections under way."""


def load(field: Field, settings: Settings) -> list[Figure]:
    """Each in turn, in the same order each time, after a second in which all get warm."""
    rates: dict[str, list[float]] = defaultdict(list)
    new: dict[str, list[float]] = defaultdict(list)
    added: dict[str, list[float]] = defaultdict(list)
    with _stage(field) as ways, on_core(field.load_core):
        for way in ways.values():
            tls_load.requests(way, 4, 1)
        for _ in range(settings.alternations):
            direct = 0.0
            for name, way in ways.items():
                rates[name].append(tls_load.requests(way, 32, settings.seconds))
                new[name].append(tls_load.new_connections(way, _AT_ONCE, settings.seconds))
                latency = tls_load.first_byte(way, settings.seconds)
                direct = latency if name == DIRECT else direct
                added[name].append(latency - direct)
                say(
                    f"{name}: {rates[name][-1]:,.0f} requests/s, {new[name][-1]:,.0f} new "
                    f"connections/s, first byte after {latency:.0f} us (+{latency - direct:.0f})"
                )
    del added[DIRECT]
    return [
        against(INTERCEPT_RATE, rates),
        against(INTERCEPT_NEW, new),
        against(INTERCEPT_LATENCY, added),
    ]


def idle(field: Field, settings: Settings) -> list[Figure]:
    """Resident memory with 1,000 connections inside TLS that had an answer each."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 4 * CONNECTIONS
    if hard != resource.RLIM_INFINITY and hard < wanted:
        raise BenchError(f"{wanted} open files are needed; the hard limit is {hard}")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted), hard))
    samples = []
    for _ in range(settings.alternations):
        with _origin(field) as (origin, authority), _ours(field, origin, authority) as (proxy, way):
            samples.append(_growth(proxy.process.pid, way) / MB)
        say(f"{CONNECTIONS} idle intercepted connections: {samples[-1]:+.1f} MB")
    return [absolute(INTERCEPT_IDLE, samples)]


def _growth(pid: int, way: Way) -> int:
    with contextlib.ExitStack() as stack:
        for count in (1, CONNECTIONS - 1):
            before = rss(pid)
            opened = [stack.enter_context(tls_load.connect(way)) for _ in range(count)]
            for connection in opened:
                tls_load.ask(connection, way)
        after = rss(pid)
        tls_load.ask(opened[0], way)  # the oldest is still there
    return after - before


# -- who is measured -------------------------------------------------------------------------------


@contextlib.contextmanager
def _stage(field: Field) -> Iterator[dict[str, Way]]:
    """The app itself, mitmproxy and our proxy, by name."""
    with (
        _origin(field) as (origin, authority),
        mitmproxy(field, authority) as (port, theirs),
        _ours(field, origin, authority) as (_, way),
    ):
        yield {
            DIRECT: Way(origin, _trusting(authority), HOST),
            # It has no --connect-to, so it is asked for a name that resolves.
            MITMPROXY: Way(port, _trusting(theirs), "localhost", f"localhost:{origin}"),
            OURS: way,
        }


@contextlib.contextmanager
def _origin(field: Field) -> Iterator[tuple[int, Path]]:
    """nginx with TLS for ``app.test``: its port, and the file of who vouches for it."""
    folder, authority, port = field.folder("tls"), trustme.CA(), free_port()
    (folder / "small").write_bytes(b"x" * ANSWER)
    authority.cert_pem.write_to_path(str(folder / "authority.pem"))
    authority.issue_cert(HOST, "localhost").private_key_and_cert_chain_pem.write_to_path(
        str(folder / "leaf")
    )
    config = f"""
        keepalive_requests 1000000000; keepalive_timeout 300s;
        sendfile on; tcp_nopush on; default_type application/octet-stream;
        server {{
            listen 127.0.0.1:{port} ssl backlog=2048; root {folder};
            ssl_certificate {folder}/leaf; ssl_certificate_key {folder}/leaf;
            ssl_session_cache shared:tls:10m;
        }}"""
    with on_core(field.load_core):
        server = nginx(config, folder / "run", port)
        with server:
            yield port, folder / "authority.pem"


@contextlib.contextmanager
def _ours(field: Field, origin: int, authority: Path) -> Iterator[tuple[Proxy, Way]]:
    """Our proxy with its defaults, every check on, and this one host listed."""
    env = base_env()
    root = make_ca(env, HOST)
    flags = [f"--intercept={HOST}", f"--cacert={authority}"]
    flags.append(f"--connect-to={HOST}:443:127.0.0.1:{origin}")
    with on_core(field.core):
        proxy = start(*flags, env={"XDG_DATA_HOME": env["XDG_DATA_HOME"]})
    with proxy:
        yield proxy, Way(proxy.port, _trusting(root), HOST, f"{HOST}:443")


def _trusting(file: Path) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=os.fspath(file))
    context.set_alpn_protocols(["http/1.1"])
    return context
