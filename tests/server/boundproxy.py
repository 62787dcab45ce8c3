"""A client that signs in by the bound protocol, with botocore and the embedded AWS."""

from __future__ import annotations

import json
import os
import time
from dataclasses import dataclass
from datetime import UTC, datetime

from botocore.credentials import Credentials

from iam_auth_proxy.aws.signing import sign_identity
from iam_auth_proxy.local_aws import LocalAws
from iam_auth_proxy.local_aws.resources import Keys
from iam_auth_proxy.names import parse_key_arn, parse_origin
from iam_auth_proxy.protocol import challenge as challenges
from iam_auth_proxy.protocol.envelope import Envelope, bound_context, seal
from iam_auth_proxy.protocol.handoff import FORM_TYPE, BoundHandoff, write_form
from iam_auth_proxy.protocol.nonce import cookie_name, read_set_cookie
from iam_auth_proxy.protocol.proof import ProofKind
from tests.server.originalproxy import Answer, Browser

FORM = {"Content-Type": FORM_TYPE}


@dataclass
class BoundProxy:
    """The proxy of one person, who is whoever ``keys`` are."""

    aws: LocalAws
    keys: Keys
    kind: ProofKind = ProofKind.SIGNED_IDENTITY

    def form(self, refused: Answer, target: str, host: str = "app.test") -> tuple[bytes, str]:
        """What answers a challenge: the body, and the nonce's cookie."""
        headers = [(name.encode(), value.encode()) for name, value in refused.headers]
        asked, origin = challenges.parse(headers), parse_origin(f"http://{host}")
        assert asked is not None
        assert asked.bound is not None
        nonce = asked.bound.nonce
        assert read_set_cookie(headers, origin) == nonce
        context = bound_context(asked.context, origin, nonce, self.kind)
        data_key, iv = os.urandom(32), os.urandom(12)
        encrypted = self.aws.client("kms", self.keys).encrypt(
            KeyId=str(asked.key), Plaintext=data_key, EncryptionContext=context
        )
        sealed = seal(
            self.proof(str(asked.key), host, nonce), data_key=data_key, iv=iv, context=context
        )
        envelope = Envelope(encrypted["CiphertextBlob"], iv, sealed)
        body = write_form(BoundHandoff(envelope, target, nonce, self.kind))
        return body, f"{cookie_name(origin)}={nonce}"

    def proof(self, key: str, host: str, nonce: str) -> bytes:
        """What is sealed."""
        if self.kind is ProofKind.SIGNED_IDENTITY:
            signer = Credentials(
                self.keys.access_key_id,
                self.keys.secret_access_key,
                self.keys.session_token or None,
            )
            origin = parse_origin(f"http://{host}")
            made = sign_identity(signer, parse_key_arn(key), origin, nonce, time.time())
            return made.dumps()
        found = self.aws.client("sts", self.keys).get_session_token(DurationSeconds=900)
        credentials = found["Credentials"]
        expiration = credentials["Expiration"].astimezone(UTC)
        credentials["Expiration"] = datetime.strftime(expiration, "%Y-%m-%dT%H:%M:%SZ")
        return json.dumps(credentials).encode()

    def post(self, browser: Browser, refused: Answer, target: str = "/") -> Answer:
        """Hand it over, with the nonce's cookie and no other."""
        body, cookie = self.form(refused, target, browser.host)
        name, _, value = cookie.partition("=")
        kept, browser.cookies = browser.cookies, {name: value}
        answer = browser.send("POST", "/auth", FORM, body)
        del browser.cookies[name]
        browser.cookies = kept | browser.cookies
        return answer

    def open(self, browser: Browser, target: str) -> Answer:
        """From the challenge to the page."""
        refused = browser.get(target)
        assert refused.status == 401, refused
        answer = self.post(browser, refused, target)
        assert (answer.status, answer.all("Location")) == (303, [target]), answer
        return browser.get(target)
