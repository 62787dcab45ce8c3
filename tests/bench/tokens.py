"""Service tokens: the verifier against python-kmsauth's, both with a KMS that answers at once."""

from __future__ import annotations

import base64
import logging
import os
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any, Final

import kmsauth

from iam_auth_proxy.aws.base import Decrypted, Encrypted
from iam_auth_proxy.names import parse_key_reference
from iam_auth_proxy.protocol.service_token import Window, write_payload
from iam_auth_proxy.tokens.accepts import Accepts
from iam_auth_proxy.tokens.verifier import Verifier
from tests.bench.contestants import Field
from tests.bench.figures import Figure, absolute, against
from tests.bench.rows import KMSAUTH, OURS, TOKEN_CALLS, TOKENS
from tests.bench.settings import Settings, say

CALLER: Final = "2/service/ci"
THREADS: Final = 50
_KEY: Final = "arn:aws:kms:eu-west-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab"
_AT_ONCE: Final = 20_000

Verify = Callable[[str, str], object]


class Kms:
    """Opens everything; kmsauth asks it as it asks boto3's client."""

    def __init__(self, delay: float = 0.0) -> None:
        self.calls = 0
        self._delay = delay
        now = int(time.time())
        self._plaintext = write_payload(Window(now - 180, now + 600))

    def decrypt(self, *arguments: object, **named: object) -> Any:
        self.calls += 1
        time.sleep(self._delay)
        if named:
            return {"KeyId": _KEY, "Plaintext": self._plaintext}
        return Decrypted(self._plaintext, _KEY)

    def encrypt(self, key: str, plaintext: bytes, context: Mapping[str, str]) -> Encrypted:
        raise NotImplementedError

    def key_arn(self, key: str) -> str:
        raise NotImplementedError


def measure(field: Field, settings: Settings) -> list[Figure]:
    """Tokens that are known, a second; and calls of KMS for one that many bring at once."""
    token = base64.b64encode(os.urandom(206)).decode()
    samples: dict[str, list[float]] = {OURS: [], KMSAUTH: []}
    makers = {OURS: _ours, KMSAUTH: _theirs}
    for _ in range(settings.alternations):
        for name, make in makers.items():
            samples[name].append(_rate(make(Kms()), token))
            say(f"{name}: {samples[name][-1]:,.0f} known tokens/s")
    calls = []
    for _ in range(settings.alternations):
        kms = Kms(delay=0.05)
        _all_at_once(_ours(kms), token)
        calls.append(float(kms.calls))
    return [against(TOKENS, samples), absolute(TOKEN_CALLS, calls)]


def _rate(verify: Verify, token: str) -> float:
    verify(CALLER, token)
    begun = time.perf_counter()
    for _ in range(_AT_ONCE):
        verify(CALLER, token)
    return _AT_ONCE / (time.perf_counter() - begun)


def _all_at_once(verify: Verify, token: str) -> None:
    barrier = threading.Barrier(THREADS)

    def ask() -> None:
        barrier.wait()
        verify(CALLER, token)

    threads = [threading.Thread(target=ask) for _ in range(THREADS)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()


def _ours(kms: Kms) -> Verify:
    accepts = Accepts(to="app", service_keys=(parse_key_reference(_KEY),))
    verifier = Verifier(accepts, lambda: kms)
    return lambda username, token: verifier.verify(username, token, time.time())


def _theirs(kms: Kms) -> Verify:
    logging.getLogger("botocore").setLevel(logging.ERROR)
    credentials = {"AccessKeyId": "x", "SecretAccessKey": "x", "SessionToken": "x"}
    validator = kmsauth.KMSTokenValidator([_KEY], None, "app", "eu-west-1", aws_creds=credentials)
    validator.kms_client = kms
    verify: Verify = validator.decrypt_token
    return verify
