"""A client that signs in as the original's proxy does, and no better.

It takes the 401 only with exactly one WWW-Authenticate field, throws every other field away but the
two it needs, sends its browser to a scheme-relative ``//HOST/auth?token=...&return_url=...`` with
the parameters in alphabetical order, and leaves the rest to the app.
"""

from __future__ import annotations

import base64
import http.client
import json
import re
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlencode

from iam_auth_proxy.local_aws import LocalAws
from iam_auth_proxy.local_aws.resources import Keys

HOST = "app.test"


@dataclass
class Answer:
    """One response."""

    status: int
    headers: list[tuple[str, str]]
    body: bytes

    def all(self, name: str) -> list[str]:
        """Every value of a field."""
        return [value for key, value in self.headers if key.lower() == name.lower()]

    @property
    def text(self) -> str:
        """The body."""
        return self.body.decode()


@dataclass
class Browser:
    """Speaks to the app, and keeps its cookies as a browser would; knows no AWS."""

    port: int
    host: str = HOST
    cookies: dict[str, str] = field(default_factory=dict)

    def get(self, target: str, **headers: str) -> Answer:
        """GET; underscores in names of header fields become dashes."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return self.send("GET", target, named)

    def send(
        self, method: str, target: str, headers: dict[str, str] | None = None, body: Any = None
    ) -> Answer:
        """One request on a connection of its own."""
        fields = {"Host": self.host, **(headers or {})}
        if self.cookies:
            fields["Cookie"] = "; ".join(f"{name}={value}" for name, value in self.cookies.items())
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        try:
            connection.request(method, target, body=body, headers=fields)
            response = connection.getresponse()
            answer = Answer(response.status, response.getheaders(), response.read())
        finally:
            connection.close()
        for cookie in answer.all("Set-Cookie"):
            name, _, value = cookie.partition(";")[0].partition("=")
            if "Max-Age=0" in cookie:
                self.cookies.pop(name, None)
            else:
                self.cookies[name] = value
        return answer


@dataclass
class OriginalProxy:
    """The original's proxy of one person."""

    aws: LocalAws
    keys: Keys

    def token(self, refused: Answer) -> str:
        """Steps 4 to 7."""
        (challenge,) = refused.all("WWW-Authenticate")
        match = re.fullmatch('IAM realm="(.*)"', challenge)
        assert match
        (key,) = refused.all("Iam-Auth-Kms-Key-Id")
        (context,) = refused.all("Iam-Auth-Kms-Encryption-Context")
        sts, kms = self.aws.client("sts", self.keys), self.aws.client("kms", self.keys)
        assert sts.get_caller_identity()["Account"] == match[1]
        credentials = sts.get_session_token(DurationSeconds=900)["Credentials"]
        credentials["Expiration"] = credentials["Expiration"].strftime("%Y-%m-%dT%H:%M:%SZ")
        sealed = kms.encrypt(
            KeyId=key,
            Plaintext=json.dumps(credentials, sort_keys=True, separators=(",", ":")).encode(),
            EncryptionContext=json.loads(base64.b64decode(context)),
        )
        return base64.b64encode(sealed["CiphertextBlob"]).decode()

    def location(self, refused: Answer, target: str, host: str = HOST) -> str:
        """Step 8: where the browser is sent."""
        arguments = {"return_url": target, "token": self.token(refused)}
        return f"//{host}/auth?{urlencode(arguments)}"

    def open(self, browser: Browser, target: str) -> Answer:
        """Steps 1 to 20; the last answer."""
        refused = browser.get(target)
        assert refused.status == 401, refused
        location = self.location(refused, target, browser.host)
        assert location.startswith(f"//{browser.host}/")
        answer = browser.get(location.removeprefix(f"//{browser.host}"))
        assert answer.status == 302, answer
        assert answer.all("Location") == [target]
        return browser.get(target)
