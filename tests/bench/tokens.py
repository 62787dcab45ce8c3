"""Service tokens: the verifier against python-kmsauth's, in one process.

KMS is one that answers at once, or after a while; for new tokens also the embedded one, by boto3
and HTTP, which is what a new token costs in the end.
"""

from __future__ import annotations

import base64
import gc
import logging
import os
import threading
import time
import tracemalloc
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import kmsauth

from iam_auth_proxy.aws.base import ClientSettings, Decrypted, Encrypted
from iam_auth_proxy.aws.base import Kms as KmsClient
from iam_auth_proxy.aws.clients import make_clients
from iam_auth_proxy.local_aws import Keys, LocalAws, allow
from iam_auth_proxy.names import parse_key_reference
from iam_auth_proxy.protocol.service_token import Caller, Window, write_payload
from iam_auth_proxy.tokens.accepts import Accepts
from iam_auth_proxy.tokens.issuer import Issuer
from iam_auth_proxy.tokens.verifier import Verifier
from tests.bench.contestants import Field
from tests.bench.figures import Figure, absolute, against
from tests.bench.rows import (
    KMS_ALONE,
    KMSAUTH,
    OURS,
    TOKEN_CALLS,
    TOKENS,
    TOKENS_KMS,
    TOKENS_MEMORY,
    TOKENS_NEW,
)
from tests.bench.settings import Settings, say

CALLER: Final = "2/service/ci"
THREADS: Final = 50
_KEY: Final = "arn:aws:kms:eu-west-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab"
_AT_ONCE: Final = 20_000
# Three times what either remembers by default.
_NEW: Final = 3 * 4096
_REAL: Final = 200
_MEASURED_ONCE: Final = 1  # memory does not drift as time does, and tracing it takes long
_SLOW: Final = 320
_WORKERS: Final = 16
_DELAY: Final = 0.02
"""Seconds."""

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
        if self._delay:  # no sleep is for nothing, not even one of 0 s
            time.sleep(self._delay)
        if named:
            return {"KeyId": _KEY, "Plaintext": self._plaintext}
        return Decrypted(self._plaintext, _KEY)

    def encrypt(self, key: str, plaintext: bytes, context: Mapping[str, str]) -> Encrypted:
        raise NotImplementedError

    def key_arn(self, key: str) -> str:
        raise NotImplementedError


def measure(field: Field, settings: Settings) -> list[Figure]:
    """Tokens a second, known and new; what remembering costs; and how often KMS is asked."""
    known, new, slow = _Samples(), _Samples(), _Samples()
    memory, calls = _Samples(), list[float]()
    tokens = [_token() for _ in range(_NEW)]
    with LocalAws() as aws:
        real = _sealed(aws)
        for _ in range(settings.alternations):
            both = {OURS: _ours_by_boto3(aws, real), KMSAUTH: _theirs_by_boto3(aws, real)}
            for name, rate in _rates_of_new(both, real.tokens).items():
                new.add(name, rate)
                say(f"{name}: {rate:,.0f} new tokens/s")
    for _ in range(settings.alternations):
        for name, make in {OURS: _ours, KMSAUTH: _theirs}.items():
            known.add(name, _rate(make(Kms()), tokens[0]))
            slow.add(name, _rate_of_all(make(Kms(_DELAY)), tokens[:_SLOW]))
            if len(memory.by_name.get(name, [])) < _MEASURED_ONCE:
                memory.add(name, _memory(make(Kms()), tokens))
            say(f"{name}: {known.last:,.0f} known tokens/s")
        slow.add(KMS_ALONE, _rate_of_all(_kms_alone(Kms(_DELAY)), tokens[:_SLOW]))
        kms = Kms(delay=0.05)
        _all_at_once(_ours(kms), tokens[0])
        calls.append(float(kms.calls))
    return [
        against(TOKENS, known.by_name),
        against(TOKENS_NEW, new.by_name),
        against(TOKENS_KMS, slow.by_name),
        against(TOKENS_MEMORY, memory.by_name),
        absolute(TOKEN_CALLS, calls),
    ]


class _Samples:
    """:ivar by_name: one for each alternation, by whose they are."""

    def __init__(self) -> None:
        self.by_name: dict[str, list[float]] = {}
        self.last = 0.0

    def add(self, name: str, value: float) -> None:
        self.by_name.setdefault(name, []).append(value)
        self.last = value


def _token() -> str:
    return base64.b64encode(os.urandom(206)).decode()


@dataclass(frozen=True, slots=True)
class _Real:
    """Tokens that the embedded KMS opens, and the keys of an app that may have it do so."""

    key: str
    app: Keys
    tokens: list[str]


def _sealed(aws: LocalAws) -> _Real:
    key = aws.key("services")
    app = aws.user("app", policies=[allow("kms:*", resource=key.arn)]).keys()
    issuer = Issuer(_client(aws, app), key.arn, Caller("ci"), "app")
    return _Real(key.arn, app, [issuer.issue(time.time()).text for _ in range(_REAL)])


def _client(aws: LocalAws, keys: Keys) -> KmsClient:
    given = (keys.access_key_id, keys.secret_access_key, "")
    settings = ClientSettings(keys=given, kms_endpoint=aws.url)
    return make_clients(region_name=aws.region, settings=settings)[0]


def _ours_by_boto3(aws: LocalAws, real: _Real) -> Verify:
    accepts = Accepts(to="app", service_keys=(parse_key_reference(real.key),))
    kms = _client(aws, real.app)
    verifier = Verifier(accepts, lambda: kms)
    return lambda username, token: verifier.verify(username, token, time.time())


def _theirs_by_boto3(aws: LocalAws, real: _Real) -> Verify:
    credentials = {
        "AccessKeyId": real.app.access_key_id,
        "SecretAccessKey": real.app.secret_access_key,
        "SessionToken": "",
    }
    validator = kmsauth.KMSTokenValidator(
        [real.key], None, "app", aws.region, aws_creds=credentials, endpoint_url=aws.url
    )
    verify: Verify = validator.decrypt_token
    return verify


def _rates_of_new(verifies: Mapping[str, Verify], tokens: list[str]) -> dict[str, float]:
    """By turns, token by token: who else is at work on this machine disturbs both alike."""
    taken = dict.fromkeys(verifies, 0.0)
    for token in tokens:
        for name, verify in verifies.items():
            begun = time.perf_counter()
            verify(CALLER, token)
            taken[name] += time.perf_counter() - begun
    return {name: len(tokens) / seconds for name, seconds in taken.items()}


def _rate_of_all(verify: Verify, tokens: list[str]) -> float:
    """With threads that each take the next one."""
    left = iter(tokens)
    taking = threading.Lock()

    def work() -> None:
        while True:
            with taking:
                token = next(left, None)
            if token is None:
                return
            verify(CALLER, token)

    begun = time.perf_counter()
    _in_threads(work, _WORKERS)
    return len(tokens) / (time.perf_counter() - begun)


def _memory(verify: Verify, tokens: list[str]) -> float:
    """MB that are held once all of them were verified."""
    tracemalloc.start()
    try:
        gc.collect()
        before = tracemalloc.get_traced_memory()[0]
        for token in tokens:
            verify(CALLER, token)
        gc.collect()
        return (tracemalloc.get_traced_memory()[0] - before) / 1e6
    finally:
        tracemalloc.stop()


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

    _in_threads(ask, THREADS)


def _in_threads(work: Callable[[], None], count: int) -> None:
    threads = [threading.Thread(target=work) for _ in range(count)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()


def _kms_alone(kms: Kms) -> Verify:
    return lambda username, token: kms.decrypt()


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
