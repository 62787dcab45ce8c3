"""The HTTP server under the embedded AWS: threads, loopback only, nothing of AWS in it."""

from __future__ import annotations

import logging
import re
import socket
import sys
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Final

from iam_auth_proxy.local_aws.endpoint import Reply
from iam_auth_proxy.local_aws.wire import Answer, Request

HOST: Final = "127.0.0.1"
BODY_LIMIT: Final = 64 << 20
_LENGTH: Final = re.compile("[ \t]*([0-9]+)[ \t]*", re.ASCII)
_LENGTH_DIGITS: Final = 20  # more say no more than that it is too long

_log = logging.getLogger(__name__)

Handle = Callable[[Request, str], Reply]
"""(request, the client's address) -> reply."""


class Server:
    """Serves ``handle`` on a loopback port from its own threads until it is closed.

    :param port: 0 for a free one.
    :raises OSError: the port is in use.
    """

    def __init__(self, handle: Handle, port: int = 0) -> None:
        self._http = _Http((HOST, port), _Handler)
        self._http.handle = handle
        self.port: int = self._http.server_address[1]
        self._thread = threading.Thread(
            target=self._http.serve_forever,
            kwargs={"poll_interval": 0.02},
            name="local-aws",
            daemon=True,
        )

    def start(self) -> None:
        """Begin to serve."""
        self._thread.start()

    def close(self) -> None:
        """Stop serving; open connections are cut, and their threads waited for."""
        if self._thread.is_alive():
            self._http.shutdown()
            self._thread.join()
        self._http.server_close()
        self._http.cut()


class _Http(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128
    allow_reuse_address = True
    handle: Handle

    def __init__(self, address: tuple[str, int], handler: type[BaseHTTPRequestHandler]) -> None:
        self._lock = threading.Lock()
        self._open: dict[socket.socket, threading.Thread] = {}
        self.closing = threading.Event()
        super().__init__(address, handler)

    def server_bind(self) -> None:
        # Without HTTPServer's reverse look-up of our own name, which may ask the network.
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(self.server_address)
        self.server_address = self.socket.getsockname()
        self.server_name, self.server_port = HOST, self.server_address[1]

    def process_request_thread(self, request: object, client_address: object) -> None:
        assert isinstance(request, socket.socket)
        with self._lock:
            self._open[request] = threading.current_thread()
        try:
            super().process_request_thread(request, client_address)
        finally:
            with self._lock:
                self._open.pop(request, None)

    def cut(self) -> None:
        """Cut every connection, and wait for its thread."""
        self.closing.set()
        with self._lock:
            left = list(self._open.items())
        for connection, _ in left:
            try:
                connection.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass  # the client was faster
        for _, thread in left:
            thread.join(timeout=5)

    def handle_error(self, request: object, client_address: object) -> None:
        if isinstance(sys.exception(), OSError):
            _log.debug("a client went away", exc_info=True)
        else:
            _log.error("a defect of the embedded AWS", exc_info=True)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_version = "local-aws"
    sys_version = ""
    # One segment per answer, sent at once: without both, each call costs 40 ms of delayed ACK.
    wbufsize = -1
    disable_nagle_algorithm = True
    timeout = 120
    server: _Http

    def handle_expect_100(self) -> bool:
        """Send "100 Continue" now: unflushed, it would cost each upload a second."""
        self.send_response_only(100)
        self.end_headers()
        self.wfile.flush()
        return True

    def parse_request(self) -> bool:
        """A request has begun to come: reading its head is a part of the time that a call takes."""
        self._begun = time.monotonic()
        return super().parse_request()

    def _serve(self) -> None:
        body = self._body()
        if body is None:
            return
        target = self.requestline.split(" ")[1] if self.requestline.count(" ") else self.path
        request = Request(self.command, target, tuple(self.headers.items()), body)
        reply = self.server.handle(request, str(self.client_address[0]))
        if reply.delay and self.server.closing.wait(self._begun + reply.delay - time.monotonic()):
            self.close_connection = True
            return
        if reply.drop:
            self.close_connection = True
            return
        self._send(reply.answer, truncate=reply.truncate)

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = do_PATCH = do_OPTIONS = _serve

    def _body(self) -> bytes | None:
        """The whole body; ``None`` after a refusal."""
        lengths = self.headers.get_all("Content-Length") or ["0"]
        stated = _LENGTH.fullmatch(lengths[0])
        if "Transfer-Encoding" in self.headers or len(lengths) != 1 or stated is None:
            self._refuse(411, "MissingContentLength")
            return None
        length = int(stated[1][:_LENGTH_DIGITS])
        if length > BODY_LIMIT:
            self._refuse(413, "RequestEntityTooLarge")
            return None
        body = self.rfile.read(length)
        if len(body) != length:
            self.close_connection = True
            return None
        return body

    def _refuse(self, status: int, code: str) -> None:
        self.close_connection = True
        self._send(Answer(status, (("Connection", "close"),), b"", code), truncate=False)

    def _send(self, answer: Answer, *, truncate: bool) -> None:
        self.send_response(answer.status)
        for name, value in answer.headers:
            if name.lower() not in {"content-length", "transfer-encoding", "connection"}:
                self.send_header(name, value)
        length = len(answer.body)
        if self.command == "HEAD":
            stated = [v for n, v in answer.headers if n.lower() == "content-length"]
            self.send_header("Content-Length", stated[0] if stated else "0")
        elif answer.status not in {204, 304}:
            self.send_header("Content-Length", str(length))
        if self.close_connection or truncate:
            self.close_connection = True
            self.send_header("Connection", "close")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(answer.body[: length // 2] if truncate else answer.body)

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        """Without the query: a presigned one is somebody's signature."""
        path = getattr(self, "path", "-")  # a request line that was not understood has none
        _log.debug("%s %s %s", self.command, path.partition("?")[0], code)

    def log_message(self, format: str, *args: object) -> None:
        _log.debug(format, *args)
