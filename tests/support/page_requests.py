"""What a real browser sends for everything a page can do: a catalogue, and its recorder.

``python -m tests.support.page_requests`` writes ``tests/vectors/authority_chromium.json`` and, for
apps on https, ``authority_chromium_https.json`` anew. The
verdicts are ours, written here beside each kind of request, before any was recorded: so a recording
never decides what is right.

Every kind is made by a page of the app itself, by a page of another site, and in a browser that
holds three cookies of the app: SameSite=Lax, SameSite=Strict and one that says nothing.
"""

from __future__ import annotations

import json
import socket
import socketserver
import ssl
import sys
import tempfile
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from io import BufferedIOBase
from pathlib import Path
from typing import cast
from urllib.parse import urlsplit

import trustme
from playwright.sync_api import Error, Page, sync_playwright

from tests.support.browser import browser, through
from tests.support.intercepted import at_home, trusting
from tests.support.vectors import FOLDER

APP = "app.test"
OTHER = "other.test"
FILE = FOLDER / "authority_chromium.json"
SECURE_FILE = FOLDER / "authority_chromium_https.json"
PATIENCE = 15.0

_SET_COOKIES = ("lax=1; SameSite=Lax", "strict=1; SameSite=Strict", "unsaid=1")


@dataclass(frozen=True)
class Kind:
    """One way to make a browser send something to ``/hit/NAME`` of the app.

    :ivar markup: what the page's body holds; ``HIT`` stands for the URL.
    :ivar script: run once the page is there.
    :ivar click: a selector to click instead.
    :ivar own: the verdict where the app's own page does it; empty where it cannot.
    :ivar other: the same for a page of another site.
    :ivar own_secure: ``own`` where the app is on https; empty: the same. There Sec-Fetch-Site tells
        pages apart, so a page of another site gets nothing whatever it does.
    :ivar moves: the page itself goes there.
    :ivar head: header fields of the page itself.
    """

    name: str
    markup: str = ""
    script: str = ""
    click: str = ""
    own: str = ""
    other: str = ""
    own_secure: str = ""
    moves: bool = False
    head: tuple[tuple[str, str], ...] = ()


_FORM = '<form id=f action="HIT" method={0}><input name=a value=b><button>go</button></form>'
_NO_REFERRER = (("Referrer-Policy", "no-referrer"),)

KINDS = (
    # -- navigations: the browser decides whether the cookie goes along --
    Kind("link", '<a href="HIT">x</a>', click="a", own="dance", other="dance", moves=True),
    Kind("link-blank", '<a href="HIT" target=_blank>x</a>', click="a", own="dance", other="dance"),
    Kind(
        "link-noreferrer",
        '<a href="HIT" rel=noreferrer>x</a>',
        click="a",
        own="dance",
        other="dance",
        moves=True,
    ),
    Kind("location", script="location.href = 'HIT'", own="dance", other="dance", moves=True),
    Kind("open", script="void window.open('HIT')", own="dance", other="dance"),
    Kind(
        "refresh",
        '<meta http-equiv=refresh content="0;url=HIT">',
        own="dance",
        other="dance",
        moves=True,
    ),
    Kind("form-get", _FORM.format("get"), click="button", own="dance", other="dance", moves=True),
    Kind("iframe", '<iframe src="HIT"></iframe>', own="dance", other="dance", own_secure="replay"),
    Kind(
        "iframe-sandbox",
        '<iframe sandbox src="HIT"></iframe>',
        own="dance",
        other="dance",
        own_secure="replay",
    ),
    Kind("object", '<object data="HIT"></object>', own="dance", other="dance", own_secure="replay"),
    Kind("embed", '<embed src="HIT">', own="dance", other="dance", own_secure="replay"),
    Kind("redirect", script="location.href = 'BOUNCE'", own="dance", other="dance", moves=True),
    # -- unsafe methods always say their Origin --
    Kind(
        "form-post",
        _FORM.format("post"),
        click="button",
        own="replay",
        other="nothing",
        moves=True,
    ),
    Kind(
        "form-post-noreferrer",
        _FORM.format("post"),
        click="button",
        own="nothing",  # Origin: null; the page hides itself
        other="nothing",
        moves=True,
        head=_NO_REFERRER,
    ),
    Kind(
        "form-post-multipart",
        _FORM.format('post enctype="multipart/form-data"'),
        click="button",
        own="replay",
        other="nothing",
        moves=True,
    ),
    Kind(
        "form-post-sandbox",
        '<iframe sandbox="allow-forms allow-scripts" srcdoc=\'<form id=f action="HIT" method=post>'
        "</form><script>f.submit()</script>'></iframe>",
        own="nothing",
        other="nothing",
    ),
    Kind("fetch-post", script="fetch('HIT', {method: 'POST', body: 'x'})", own="replay"),
    Kind(
        "fetch-post-no-cors",
        script="fetch('HIT', {method: 'POST', body: 'x', mode: 'no-cors', credentials: 'include'})",
        own="replay",
        other="nothing",
    ),
    Kind("fetch-put", script="fetch('HIT', {method: 'PUT', body: 'x'})", own="replay"),
    Kind("fetch-delete", script="fetch('HIT', {method: 'DELETE'})", own="replay"),
    Kind("beacon", script="navigator.sendBeacon('HIT', 'x')", own="replay", other="nothing"),
    Kind("ping", '<a href="#" ping="HIT">x</a>', click="a", own="replay", other="nothing"),
    Kind(
        "preflight",
        script="fetch('HIT', {method: 'PUT', body: 'x'}).catch(() => 0)",
        other="nothing",
    ),
    # -- reads by script --
    Kind("fetch", script="fetch('HIT')", own="replay"),
    Kind("fetch-omit", script="fetch('HIT', {credentials: 'omit'})", own="replay"),
    Kind("fetch-cors", script="fetch('HIT').catch(() => 0)", other="nothing"),
    Kind(
        "fetch-cors-include",
        script="fetch('HIT', {credentials: 'include'}).catch(() => 0)",
        other="nothing",
    ),
    Kind(
        "fetch-cors-omit",
        script="fetch('HIT', {credentials: 'omit'}).catch(() => 0)",
        other="nothing",
    ),
    Kind(
        "fetch-no-cors",
        script="fetch('HIT', {mode: 'no-cors', credentials: 'include'}).catch(() => 0)",
        own="replay",
        other="nothing",
    ),
    Kind(
        "fetch-accept-html",
        script="fetch('HIT', {headers: {Accept: 'text/html'}}).catch(() => 0)",
        own="replay",
        other="nothing",
    ),
    Kind(
        "fetch-forged-referrer",
        script="fetch('HIT', {mode: 'no-cors', referrer: 'http://app.test/',"
        " referrerPolicy: 'unsafe-url'}).catch(() => 0)",
        other="nothing",
    ),
    Kind(
        "fetch-noreferrer",
        script="fetch('HIT', {referrerPolicy: 'no-referrer', mode: 'no-cors'}).catch(() => 0)",
        own="nothing",  # nothing says which page it was
        other="nothing",
        own_secure="replay",  # Sec-Fetch-Site does
    ),
    Kind(
        "xhr",
        script="const x = new XMLHttpRequest(); x.open('GET', 'HIT'); x.send()",
        own="replay",
        other="nothing",
    ),
    Kind("event-source", script="new EventSource('HIT')", own="replay", other="nothing"),
    Kind(
        "event-source-credentials",
        script="new EventSource('HIT', {withCredentials: true})",
        own="replay",
        other="nothing",
    ),
    Kind("websocket", script="new WebSocket('WSHIT')", own="replay", other="nothing"),
    Kind("worker", script="new Worker('HIT')", own="replay"),
    Kind("module", script="import('HIT').catch(() => 0)", own="replay", other="nothing"),
    # -- parts of pages --
    Kind("img", '<img src="HIT">', own="replay", other="nothing"),
    Kind("img-crossorigin", '<img crossorigin src="HIT">', own="replay", other="nothing"),
    Kind(
        "img-unsafe-url",
        '<img referrerpolicy=unsafe-url src="HIT">',
        own="replay",
        other="nothing",
    ),
    Kind("img-redirected", '<img src="BOUNCE">', other="nothing"),
    Kind("script", '<script src="HIT"></script>', own="replay", other="nothing"),
    Kind("style", '<link rel=stylesheet href="HIT">', own="replay", other="nothing"),
    Kind(
        "font",
        "<style>@font-face {font-family: f; src: url('HIT')} body {font-family: f}</style>text",
        own="replay",
        other="nothing",
    ),
    Kind("video", '<video src="HIT"></video>', own="replay", other="nothing"),
    Kind("audio", '<audio src="HIT" preload=auto></audio>', own="replay", other="nothing"),
    Kind("favicon", '<link rel=icon href="HIT">', own="replay", other="nothing"),
    Kind("preload", '<link rel=preload as=image href="HIT">', own="replay", other="nothing"),
    # -- nobody's wish yet --
    Kind("prefetch", '<link rel=prefetch href="HIT">', own="nothing", other="nothing"),
)


@dataclass(frozen=True)
class Seen:
    """One request as the proxy got it."""

    method: str
    target: str
    headers: list[list[str]]
    tunnelled: bool


@dataclass
class Recorder:
    """An HTTP proxy that answers for every name itself, and keeps what is asked of ``/hit/``."""

    pages: dict[str, str] = field(default_factory=dict)
    heads: dict[str, tuple[tuple[str, str], ...]] = field(default_factory=dict)
    seen: dict[str, Seen] = field(default_factory=dict)
    address: str = ""
    tls: ssl.SSLContext | None = None
    arrived: threading.Condition = field(default_factory=threading.Condition)

    @property
    def scheme(self) -> str:
        """Of every URL."""
        return "https" if self.tls else "http"

    def wait(self, name: str) -> Seen:
        """The first request of that name."""
        with self.arrived:
            assert self.arrived.wait_for(lambda: name in self.seen, PATIENCE), f"no {name}"
            return self.seen[name]


class _Sender:
    """Writes all of it at once, as http.server wants."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self.closed = False

    def write(self, data: bytes) -> int:
        self._connection.sendall(data)
        return len(data)

    def flush(self) -> None:
        """Nothing is kept back."""

    def close(self) -> None:
        self.closed = True


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    recorder: Recorder

    def setup(self) -> None:
        self.inside = ""
        super().setup()

    def do_CONNECT(self) -> None:
        host, _, port = self.path.rpartition(":")
        if port != ("443" if self.recorder.tls else "80"):
            self.send_error(502)
            return
        self.inside = host
        self.send_response_only(200)
        self.end_headers()
        if self.recorder.tls is not None:
            self.connection = self.recorder.tls.wrap_socket(self.connection, server_side=True)
            self.setup_files()

    def setup_files(self) -> None:
        """The same streams as before, within TLS."""
        self.rfile = self.connection.makefile("rb")
        self.wfile = cast(BufferedIOBase, _Sender(self.connection))

    def do_GET(self) -> None:
        scheme = self.recorder.scheme
        url = urlsplit(self.path if not self.inside else f"{scheme}://{self.inside}{self.path}")
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        kind, _, name = url.path.strip("/").partition("/")
        answers = self.recorder
        if kind == "hit":
            headers = [[key, value] for key, value in self.headers.items()]
            with answers.arrived:
                seen = Seen(self.command, f"{scheme}://{url.hostname}", headers, bool(self.inside))
                answers.seen.setdefault(name, seen)
                answers.arrived.notify_all()
            self._answer(200, ("Content-Type", "text/html"), body=b"hit")
        elif kind == "bounce":
            self._answer(302, ("Location", f"{scheme}://{APP}/hit/{name}"))
        elif kind == "cookies":
            self._answer(200, *(("Set-Cookie", each) for each in _SET_COOKIES), body=b"set")
        else:
            page = answers.pages.get(f"{url.hostname}{url.path}", "")
            head = answers.heads.get(f"{url.hostname}{url.path}", ())
            body = f"<!doctype html><meta charset=utf-8><link rel=icon href=data:,>{page}"
            self._answer(200, ("Content-Type", "text/html"), *head, body=body.encode())

    do_POST = do_PUT = do_DELETE = do_OPTIONS = do_HEAD = do_GET

    def finish(self) -> None:
        with suppress(ConnectionError):  # a browser that goes elsewhere does not wait
            super().finish()
        if self.connection is not self.request:
            self.connection.close()  # TLS, which nobody else knows of

    def handle(self) -> None:
        with suppress(ConnectionError):
            super().handle()

    def _answer(self, status: int, *fields: tuple[str, str], body: bytes = b"") -> None:
        self.send_response_only(status)
        for name, value in fields:
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Nothing."""


@contextmanager
def recording(tls: ssl.SSLContext | None = None) -> Iterator[Recorder]:
    """A recorder on a free loopback port."""
    recorder = Recorder(tls=tls)
    handler = type("Handler", (_Handler,), {"recorder": recorder})
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), handler) as server:
        server.daemon_threads = True
        recorder.address = f"127.0.0.1:{server.server_address[1]}"
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield recorder
        finally:
            server.shutdown()
            thread.join()


@dataclass(frozen=True)
class Recorded:
    """A kind of request, who made it, what the verdict has to be, and what was sent."""

    name: str
    page: str
    verdict: str
    seen: Seen


def record(folder: Path) -> list[Recorded]:
    """Everything of the catalogue, made by a real browser whose profile is in ``folder``."""
    with recording() as recorder, browser(recorder.address, folder) as context:
        return _each(KINDS, context.new_page(), recorder)


def record_secure(folder: Path, kinds: Iterable[Kind] = KINDS) -> list[Recorded]:
    """The same where both sites are on https, in a browser that trusts who vouches for them."""
    authority, tls = trustme.CA(), ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(APP, OTHER).configure_cert(tls)
    authority.cert_pem.write_to_path(str(folder / "authority.pem"))
    home = trusting(folder / "home", folder / "authority.pem")
    with (
        recording(tls) as recorder,
        sync_playwright() as playwright,
        at_home(playwright.chromium, home, through(recorder.address)) as context,
    ):
        return _each(kinds, context.new_page(), recorder)


def _each(kinds: Iterable[Kind], page: Page, recorder: Recorder) -> list[Recorded]:
    found: list[Recorded] = []
    secure = recorder.tls is not None
    page.goto(f"{recorder.scheme}://{APP}/cookies")
    page.goto(f"{recorder.scheme}://{APP}/hit/typed")
    found.append(Recorded("typed", "none", "dance", recorder.wait("typed")))
    for kind in kinds:
        own = (kind.own_secure if secure else "") or kind.own
        other = "nothing" if secure and kind.other else kind.other
        for host, verdict in ((APP, own), (OTHER, other)):
            if verdict:
                seen = _make(page, recorder, kind, host)
                found.append(Recorded(kind.name, host, verdict, seen))
    return found


def _make(page: Page, recorder: Recorder, kind: Kind, host: str) -> Seen:
    name, scheme = f"{kind.name}-{host}", recorder.scheme

    def fill(text: str) -> str:
        return (
            text.replace("WSHIT", f"{scheme.replace('http', 'ws')}://{APP}/hit/{name}")
            .replace("HIT", f"{scheme}://{APP}/hit/{name}")
            .replace("BOUNCE", f"{scheme}://{host}/bounce/{name}")
            .replace("http://app.test/", f"{scheme}://{APP}/")
        )

    # What a page does by itself comes after its load, so that it is no part of the navigation.
    act = f"document.querySelector({kind.click!r}).click()" if kind.click else fill(kind.script)
    script = f"<script>onload = () => setTimeout(() => {{ {act} }})</script>" if act else ""
    recorder.pages[f"{host}/{name}"] = fill(kind.markup) + script
    recorder.heads[f"{host}/{name}"] = kind.head
    _go(page, f"{scheme}://{host}/{name}")
    seen = recorder.wait(name)
    if kind.moves:
        page.wait_for_url(f"**/hit/{name}*", wait_until="commit")
    return seen


def _go(page: Page, url: str) -> None:
    """There, even where the page before is about to go elsewhere."""
    while True:
        try:
            page.goto(url, wait_until="commit")
        except Error as error:
            if "interrupted by another navigation" not in str(error):
                raise
        else:
            return


def main() -> int:
    """Write the vectors."""
    for file, make, inside in ((FILE, record, 80), (SECURE_FILE, record_secure, 443)):
        with tempfile.TemporaryDirectory() as folder:
            _write(file, make(Path(folder)), inside)
    return 0


def _write(file: Path, found: list[Recorded], inside: int) -> None:
    document = {
        "about": "What Chromium sends through a proxy for everything a page can do, recorded by "
        "tests/support/page_requests.py, which also says each verdict and why. A case: the page's "
        "host ('none': typed), the request's method, target origin and header fields, whether it "
        f"came inside CONNECT app.test:{inside}; 'verdict' is what authority() has to say.",
        "cases": [
            {
                "kind": each.name,
                "page": each.page,
                "verdict": each.verdict,
                "method": each.seen.method,
                "target": each.seen.target,
                "tunnelled": each.seen.tunnelled,
                "headers": each.seen.headers,
            }
            for each in found
        ],
    }
    file.write_text(json.dumps(document, indent=1) + "\n", "utf-8")
    sys.stdout.write(f"{len(found)} requests written to {file.name}\n")


if __name__ == "__main__":
    sys.exit(main())
