"""The HTTP server: loopback, exact bytes, and clean ends."""

from __future__ import annotations

import http.client
import socket
import threading
import time
from collections.abc import Iterator
from urllib.parse import urlsplit

import pytest

from iam_auth_proxy.local_aws import LocalAws
from iam_auth_proxy.local_aws.endpoint import Reply
from iam_auth_proxy.local_aws.server import Server
from iam_auth_proxy.local_aws.wire import Answer, Request
from tests.support.local_aws import sign


@pytest.fixture
def seen() -> list[Request]:
    return []


@pytest.fixture
def server(seen: list[Request]) -> Iterator[Server]:
    def handle(request: Request, source_ip: str) -> Reply:
        seen.append(request)
        return Reply(Answer(200, (("X-From", source_ip),), b"hello"))

    running = Server(handle)
    running.start()
    yield running
    running.close()


def talk(server: Server, data: bytes) -> bytes:
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as connection:
        connection.sendall(data)
        connection.shutdown(socket.SHUT_WR)
        received = b""
        while part := connection.recv(65536):
            received += part
        return received


def test_the_target_and_fields_come_as_they_were_sent(server: Server, seen: list[Request]) -> None:
    talk(server, b"GET //a/%2e%2E//b?x=1&x=%20 HTTP/1.1\r\nHost: h\r\nX-Two: 1\r\nx-two: 2\r\n\r\n")
    assert seen[0].target == "//a/%2e%2E//b?x=1&x=%20"
    assert seen[0].all("x-two") == ["1", "2"]


def test_head_has_no_body(server: Server) -> None:
    head, _, body = talk(server, b"HEAD / HTTP/1.1\r\nHost: h\r\n\r\n").partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200")
    assert body == b""


def test_continue_is_sent_before_the_body(server: Server, seen: list[Request]) -> None:
    with socket.create_connection(("127.0.0.1", server.port), timeout=5) as connection:
        connection.sendall(
            b"PUT /x HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n"
        )
        assert connection.recv(100).startswith(b"HTTP/1.1 100 ")
        connection.sendall(b"body")
        assert connection.recv(1000).startswith(b"HTTP/1.1 200 ")
    assert seen[0].body == b"body"


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        (b"Transfer-Encoding: chunked\r\n", b"411"),
        (b"Content-Length: x\r\n", b"411"),
        (b"Content-Length: -1\r\n", b"411"),
        (b"Content-Length: 1\r\nContent-Length: 2\r\n", b"411"),
        (b"Content-Length: \xb2\r\n", b"411"),  # a digit to str.isdigit()
        (b"Content-Length: 99999999999\r\n", b"413"),
        (b"Content-Length: " + b"9" * 5000 + b"\r\n", b"413"),
    ],
)
def test_bodies_that_are_not_taken(
    server: Server, seen: list[Request], fields: bytes, status: bytes
) -> None:
    answer = talk(server, b"POST / HTTP/1.1\r\nHost: h\r\n" + fields + b"\r\n")
    assert answer.startswith(b"HTTP/1.1 " + status)
    assert seen == []


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\r\n",
        b"nonsense\r\n\r\n",
        b"\x16\x03\x01\x02\x00",
        b"\x16\x03\x01 https, where http is spoken\r\n\r\n",
        b"GET",
        b"GET /" + b"a" * 70000 + b" HTTP/1.1\r\n\r\n",
    ],
    ids=lambda data: repr(data[:20]),
)
def test_nonsense_does_not_stop_it(
    server: Server, seen: list[Request], data: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    try:
        talk(server, data)
    except ConnectionResetError:
        pass  # it was not read to its end
    assert b"hello" in talk(server, b"GET / HTTP/1.1\r\nHost: h\r\n\r\n")
    assert "defect" not in caplog.text


def test_a_body_that_ends_early_is_no_request(server: Server, seen: list[Request]) -> None:
    answer = talk(server, b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 10\r\n\r\nhalf")
    assert (answer, seen) == (b"", [])


def test_calls_are_not_held_up_by_delayed_acknowledgements(aws: LocalAws) -> None:
    """Unbuffered writes with Nagle's algorithm would cost 40 ms a call."""
    parts = urlsplit(aws.url)
    request = sign(aws, aws.user("alice").keys())
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port)
    before = time.monotonic()
    for _ in range(20):
        connection.request("POST", "/", request.body, dict(request.headers))
        assert connection.getresponse().read()
    connection.close()
    assert time.monotonic() - before < 20 * 0.03


def test_closing_cuts_idle_connections_and_leaves_no_thread() -> None:
    with LocalAws() as aws:
        before = threading.active_count()
        parts = urlsplit(aws.url)
        idle = socket.create_connection((parts.hostname, parts.port))
        aws.client("sts", aws.user("alice").keys()).get_caller_identity()
        assert threading.active_count() > before
    assert idle.recv(1) == b""
    idle.close()
    assert not [t for t in threading.enumerate() if t.name.startswith("local-aws")]
    with pytest.raises(RuntimeError):
        _ = aws.url
    with pytest.raises(RuntimeError):
        _ = aws.env


def test_only_on_loopback(aws: LocalAws) -> None:
    assert aws.url.startswith("http://127.0.0.1:")
    with pytest.raises(OSError, match=r"in use"), LocalAws(port=urlsplit(aws.url).port or 0):
        pass
