"""nginx as an origin: streaming, ranges, keep-alive, compression and early close."""

from __future__ import annotations

import hashlib
import http.client
import re
import socket
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.processes import Proxy, base_env, free_port, nginx, program

pytestmark = pytest.mark.e2e

SIZE = 64 << 20


@dataclass
class Origin:
    """An nginx and a proxy that finds it as ``files.test``.

    :ivar behind: listens where nginx passes uploads on to.
    """

    proxy: Proxy
    port: int
    content: bytes
    behind: socket.socket
    log: Path

    def sent(self, path: str) -> list[int]:
        """Bytes of the bodies of its answers to this path, of those that are over."""
        lines = self.log.read_text().splitlines()
        return [int(line.split()[1]) for line in lines if line.split()[0] == path]

    def connections(self) -> int:
        """Those that nginx has open, the one that asks left aside."""
        asking = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        asking.request("GET", "/connections")
        found = re.search(r"Active connections: (\d+)", asking.getresponse().read().decode())
        asking.close()
        assert found is not None
        return int(found[1]) - 1


@pytest.fixture(scope="module")
def origin(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Origin]:
    folder: Path = tmp_path_factory.mktemp("nginx")
    content = hashlib.shake_128(b"content").digest(SIZE)
    (folder / "big").write_bytes(content)
    (folder / "small").write_bytes(b"small\n")
    (folder / "page.html").write_bytes(b"<p>compress me</p>" * 1000)
    port = free_port()
    listener = socket.create_server(("127.0.0.1", 0))
    listener.settimeout(10)
    behind = listener.getsockname()[1]
    log = folder / "answers"
    folder.chmod(0o755)
    config = f"""
      log_format answers "$uri $body_bytes_sent";
      server {{
        access_log {log} answers;
        listen 127.0.0.1:{port}; root {folder}; default_type application/octet-stream;
        types {{ text/html html; }}
        gzip on; gzip_proxied off;
        client_max_body_size 0;
        location = /slow {{ alias {folder}/big; limit_rate 1m; }}
        location = /upload {{
          proxy_pass http://127.0.0.1:{behind}; proxy_request_buffering off;
          proxy_http_version 1.1; proxy_set_header Connection "";
        }}
        location = /connections {{ stub_status; }}
        location = /too-big {{ client_max_body_size 1k; proxy_pass http://127.0.0.1:9; }}
        location = /redirect {{ return 302 http://elsewhere.test/x; }}
        keepalive_timeout 30s;
      }}"""
    flags = ["--connect-to", f"files.test:80:127.0.0.1:{port}"]
    with listener, nginx(config, folder / "run", port):
        proxy = Proxy(*flags, env=base_env())
        try:
            yield Origin(proxy, port, content, listener, log)
            assert "Traceback" not in proxy.output
        finally:
            assert proxy.stop() == 0


def fetch(origin: Origin, path: str, *args: str) -> bytes:
    argv = [program("curl"), "-sS", "-m", "60", "-x", origin.proxy.url, *args]
    done = subprocess.run(
        [*argv, f"http://files.test{path}"], capture_output=True, check=True, env=base_env()
    )
    return done.stdout


def connection(origin: Origin) -> http.client.HTTPConnection:
    return http.client.HTTPConnection("127.0.0.1", origin.proxy.port, timeout=30)


def test_a_large_download_is_whole(origin: Origin) -> None:
    assert hashlib.sha256(fetch(origin, "/big")).digest() == hashlib.sha256(origin.content).digest()


def test_a_range(origin: Origin) -> None:
    assert fetch(origin, "/big", "-r", "1000000-1000099") == origin.content[1000000:1000100]
    head = fetch(origin, "/big", "-r", "5-9", "-D", "-").partition(b"\r\n\r\n")[0]
    assert b"206 Partial Content" in head
    assert f"Content-Range: bytes 5-9/{SIZE}".encode() in head


def test_keep_alive_on_both_sides(origin: Origin) -> None:
    client = connection(origin)
    local: set[object] = set()
    for _ in range(20):
        client.request("GET", "http://files.test/small", headers={"Host": "files.test"})
        answer = client.getresponse()
        assert (answer.status, answer.read()) == (200, b"small\n")
        assert client.sock is not None
        local.add(client.sock.getsockname())
    client.close()
    assert len(local) == 1, "one connection of the client's"
    metrics = connection(origin)
    metrics.request("GET", "/metrics", headers={"Host": origin.proxy.address})
    text = metrics.getresponse().read().decode()
    metrics.close()
    reused = re.search(r"^iam_auth_proxy_reused_total (\d+)$", text, re.MULTILINE)
    assert reused is not None
    assert int(reused[1]) >= 19


def test_nginx_still_compresses(origin: Origin) -> None:
    """A Via field would switch its compression off: the reason that there is none."""
    plain = fetch(origin, "/page.html")
    packed = fetch(origin, "/page.html", "-H", "Accept-Encoding: gzip")
    assert len(packed) < len(plain) / 10


def test_a_head_has_no_body(origin: Origin) -> None:
    client = connection(origin)
    for _ in range(2):
        client.request("HEAD", "http://files.test/big", headers={"Host": "files.test"})
        answer = client.getresponse()
        assert answer.getheader("Content-Length") == str(SIZE)
        assert answer.read() == b""
    client.close()


def test_not_modified(origin: Origin) -> None:
    client = connection(origin)
    client.request("GET", "http://files.test/small")
    tag = client.getresponse()
    tag.read()
    etag = str(tag.getheader("ETag"))
    client.request("GET", "http://files.test/small", headers={"If-None-Match": etag})
    answer = client.getresponse()
    assert (answer.status, answer.read()) == (304, b"")
    client.close()


def test_a_client_that_leaves_early_costs_no_more(origin: Origin) -> None:
    """The origin's connection goes with the client's: a slow download does not run on."""
    before = origin.connections()
    with socket.create_connection(("127.0.0.1", origin.proxy.port)) as client:
        client.sendall(b"GET http://files.test/slow HTTP/1.1\r\nHost: files.test\r\n\r\n")
        assert client.recv(100).startswith(b"HTTP/1.1 200")
    pause = threading.Event()
    for _ in range(500):
        if sent := origin.sent("/slow"):
            break
        pause.wait(0.01)  # nginx tells nobody that it has given up
    assert sent, "nginx goes on sending"
    assert sent[0] < SIZE // 2
    assert origin.connections() <= before
    assert fetch(origin, "/small") == b"small\n"


def test_an_origin_that_answers_before_the_body_is_sent(origin: Origin) -> None:
    """413 and a closed connection while the upload is under way: the answer is what counts."""
    with socket.create_connection(("127.0.0.1", origin.proxy.port), 10) as client:
        client.sendall(
            b"POST http://files.test/too-big HTTP/1.1\r\nHost: files.test\r\n"
            b"Content-Length: %d\r\n\r\n" % (8 << 20)
        )
        client.sendall(b"x" * 1000)
        answer = http.client.HTTPResponse(client)
        answer.begin()
        assert answer.status == 413
        assert b"413 Request Entity Too Large" in answer.read()
    assert fetch(origin, "/small") == b"small\n"


def test_an_upload_that_does_not_stop_for_an_answer_gets_it(origin: Origin) -> None:
    """A client that writes all it has before it reads: the answer is not lost to a reset."""
    with socket.create_connection(("127.0.0.1", origin.proxy.port), 10) as client:
        size = 256 << 10
        client.sendall(
            b"POST http://files.test/too-big HTTP/1.1\r\nHost: files.test\r\n"
            b"Content-Length: %d\r\n\r\n" % size
        )
        client.sendall(b"x" * size)
        answer = http.client.HTTPResponse(client)
        answer.begin()
        assert answer.status == 413
        answer.read()


def test_an_upload_is_streamed(origin: Origin) -> None:
    """The origin has the first megabytes while the client keeps the last; then it has all."""
    piece = hashlib.shake_128(b"upload").digest(4 << 20)
    with socket.create_connection(("127.0.0.1", origin.proxy.port), 10) as client:
        client.sendall(
            b"POST http://files.test/upload HTTP/1.1\r\nHost: files.test\r\n"
            b"Content-Length: %d\r\n\r\n" % (2 * len(piece))
        )
        sending = threading.Thread(target=client.sendall, args=(piece,))
        sending.start()
        behind, _ = origin.behind.accept()
        with behind, behind.makefile("rb") as arriving:
            behind.settimeout(10)
            while arriving.readline() != b"\r\n":
                pass
            assert arriving.read(len(piece)) == piece, "nothing waits for the end of a body"
            sending.join()
            client.sendall(piece)
            assert arriving.read(len(piece)) == piece
            behind.sendall(b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n")
            assert client.recv(100).startswith(b"HTTP/1.1 204 ")


def test_redirects_go_through_as_they_are(origin: Origin) -> None:
    assert b"Location: http://elsewhere.test/x\r\n" in fetch(origin, "/redirect", "-D", "-")


def test_a_blind_tunnel(origin: Origin) -> None:
    """A blind tunnel to nginx; what runs inside is the client's own affair."""
    argv = [program("curl"), "-sS", "-m", "30", "-p", "-x", origin.proxy.url]
    done = subprocess.run(
        [*argv, "http://files.test/small"], capture_output=True, check=True, env=base_env()
    )
    assert done.stdout == b"small\n"
