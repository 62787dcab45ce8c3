"""A minimal app that speaks only the original protocol, as the original's README describes it.

No nonce, no rotation, a static salt, a cookie of its own: what an app looked like before our server
module. It keeps a list of what it was asked.
"""

from __future__ import annotations

import base64
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self
from urllib.parse import parse_qs, urlsplit

from iam_auth_proxy.local_aws import Keys, LocalAws


class LegacyApp:
    """Serves on a loopback port; use as a context manager.

    :param challenge: header fields of the 401 in place of the usual three.
    """

    def __init__(
        self,
        aws: LocalAws,
        server: Keys,
        key: str,
        *,
        challenge: list[tuple[str, str]] | None = None,
    ) -> None:
        self.asked: list[str] = []
        self.host_fields: list[str | None] = []
        context = {"salt": "a-static-salt"}
        encoded = base64.b64encode(json.dumps(context).encode()).decode()
        fields = challenge or [
            ("WWW-Authenticate", f'IAM realm="{aws.account}"'),
            ("Iam-Auth-Kms-Key-Id", key),
            ("Iam-Auth-Kms-Encryption-Context", encoded),
        ]
        app = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                app.asked.append(self.path)
                app.host_fields.append(self.headers.get("Host"))
                if self.path.startswith("/auth?"):
                    self._auth()
                elif "session=" in (self.headers.get("Cookie") or ""):
                    cookies = dict(
                        part.strip().split("=", 1) for part in self.headers["Cookie"].split(";")
                    )
                    arn = base64.urlsafe_b64decode(cookies["session"]).decode()
                    self._answer(200, [], f"you are {arn}")
                else:
                    self._answer(401, fields, "who are you?")

            do_POST = do_GET

            def _auth(self) -> None:
                query = parse_qs(urlsplit(self.path).query)
                kms = aws.client("kms", server)
                opened = kms.decrypt(
                    CiphertextBlob=base64.b64decode(query["token"][0]), EncryptionContext=context
                )
                proof = json.loads(opened["Plaintext"])
                theirs = Keys(proof["AccessKeyId"], proof["SecretAccessKey"], proof["SessionToken"])
                caller = aws.client("sts", theirs).get_caller_identity()
                session = base64.urlsafe_b64encode(caller["Arn"].encode()).decode()
                back = query["return_url"][0]
                headers = [("Location", back), ("Set-Cookie", f"session={session}")]
                self._answer(302, headers, "")

            def _answer(self, status: int, headers: list[tuple[str, str]], text: str) -> None:
                self.send_response(status)
                for name, value in headers:
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                self.wfile.write(text.encode())

            def log_message(self, *args: Any) -> None:
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads = True

        self._server = Server(("127.0.0.1", 0), Handler)
        self.port: int = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
