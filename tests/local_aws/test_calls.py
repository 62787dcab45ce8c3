"""The record of calls, and faults (fact 20): what a client of AWS may meet."""

from __future__ import annotations

import json
import threading
import time
from typing import Any

import pytest
from botocore.config import Config
from botocore.exceptions import (
    ClientError,
    ConnectionClosedError,
    IncompleteReadError,
    ReadTimeoutError,
)
from botocore.parsers import ResponseParserError

from iam_auth_proxy.local_aws import LocalAws, allow
from tests.support.local_aws import presign, refused, sign

ONCE = Config(retries={"total_max_attempts": 1}, read_timeout=0.2)


@pytest.fixture
def sts(aws: LocalAws) -> Any:
    return aws.client("sts", aws.user("alice").keys(), config=ONCE)


# -- the record -----------------------------------------------------------------------------------


def test_calls_are_recorded(aws: LocalAws) -> None:
    key = aws.key()
    alice = aws.user("alice", policies=[allow("kms:Encrypt")])
    keys = alice.keys()
    aws.client("sts", keys).get_session_token(DurationSeconds=900)
    kms = aws.client("kms", keys)
    kms.encrypt(KeyId=key.arn, Plaintext=b"planted-secret", EncryptionContext={"to": "app"})
    refused(kms.describe_key, KeyId=key.arn)
    session, encrypt, describe = aws.calls
    assert (session.service, session.action, session.status) == ("sts", "GetSessionToken", 200)
    assert session.parameters == {"DurationSeconds": "900"}
    assert (encrypt.principal, encrypt.account) == (alice.arn, "111122223333")
    assert (encrypt.context, encrypt.region) == ({"to": "app"}, "eu-west-1")
    assert (describe.status, describe.code) == (400, "AccessDeniedException")
    aws.clear_calls()
    assert aws.calls == []


def test_no_secret_is_recorded_or_shown(aws: LocalAws) -> None:
    alice = aws.user("alice", policies=[allow("*")])
    device, keys, key = alice.mfa(), alice.keys(), aws.key()
    code = device.code()
    made = aws.client("sts", keys).get_session_token(SerialNumber=device.serial, TokenCode=code)
    aws.client("kms", keys).encrypt(KeyId=key.arn, Plaintext=b"planted-secret")
    aws.client("iam", keys).create_access_key()
    presign(aws, keys).send(aws)
    session = made["Credentials"]
    shown = repr(aws.calls) + repr(keys) + repr(list(aws.state.sessions.values()))
    shown += repr(aws.state.accounts) + repr(aws.state.kms_keys)
    for secret in (
        "planted-secret",
        "cGxhbnRlZC1zZWNyZXQ",
        keys.secret_access_key,
        session["SecretAccessKey"],
        session["SessionToken"],
        code,
    ):
        assert secret not in shown


def test_unauthenticated_calls_are_recorded_without_a_name(aws: LocalAws, sts: Any) -> None:
    unknown = aws.client("sts", aws.user("bob").keys())
    aws.state.accounts["111122223333"].users["bob"].keys.clear()
    refused(unknown.get_caller_identity)
    call = aws.calls[-1]
    assert (call.service, call.action, call.principal, call.status) == ("sts", "-", "", 403)


def test_calls_of_many_threads(aws: LocalAws) -> None:
    request = sign(aws, aws.user("alice").keys())
    threads = [
        threading.Thread(target=lambda: [request.send(aws) for _ in range(5)]) for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [call.status for call in aws.calls] == [200] * 40


# -- faults ---------------------------------------------------------------------------------------


def test_a_throttle_is_absorbed_by_retries(aws: LocalAws) -> None:
    client = aws.client("sts", aws.user("alice").keys())
    fault = aws.fault("sts", "GetCallerIdentity", "Throttling", 400, "Rate exceeded", times=1)
    assert client.get_caller_identity()["Account"] == "111122223333"
    assert [call.status for call in aws.calls] == [400, 200]
    assert (fault.hits, aws.calls[0].code) == (1, "Throttling")


def test_a_fault_in_the_services_own_format(aws: LocalAws) -> None:
    root = aws.root()
    aws.fault("kms", code="ThrottlingException", times=None)
    kms = aws.client("kms", root, config=ONCE)
    for _ in range(2):
        assert refused(kms.list_aliases) == ("ThrottlingException", 400)
    aws.clear_faults()
    kms.list_aliases()
    aws.fault(
        "sts", code="RegionDisabledException", status=403, when=lambda c: c.region == "eu-west-1"
    )
    assert refused(aws.client("sts", root).get_caller_identity)[0] == "RegionDisabledException"
    aws.fault("kms", "Encrypt", "KMSInternalException", 500)
    kms.list_aliases()  # another action


def test_a_fault_waits_for_its_call(aws: LocalAws, sts: Any) -> None:
    aws.fault("sts", code="First", when=lambda call: call.principal.endswith("/bob"))
    aws.fault("sts", code="Second")
    assert refused(sts.get_caller_identity)[0] == "Second"
    sts.get_caller_identity()


def test_a_delay(aws: LocalAws, sts: Any) -> None:
    aws.fault("sts", delay=0.05)
    before = time.monotonic()
    sts.get_caller_identity()
    assert time.monotonic() - before >= 0.05
    aws.fault("sts", delay=30)
    with pytest.raises(ReadTimeoutError):
        sts.get_caller_identity()
    assert len(aws.calls) == 2  # and closing does not wait for the 30 seconds


def test_a_dropped_connection(aws: LocalAws, sts: Any) -> None:
    aws.fault("sts", drop=True)
    with pytest.raises(ConnectionClosedError):
        sts.get_caller_identity()
    assert aws.calls[-1].status == 0


def test_a_truncated_answer(aws: LocalAws, sts: Any) -> None:
    aws.fault("sts", truncate=True)
    with pytest.raises((IncompleteReadError, ConnectionClosedError, ResponseParserError)):
        sts.get_caller_identity()


def test_a_redirect(aws: LocalAws) -> None:
    aws.fault("sts", status=302, body=b"", headers={"Location": "http://evil.example/"})
    answer = presign(aws, aws.user("alice").keys()).send(aws)
    assert (answer.status, answer.headers["Location"]) == (302, "http://evil.example/")


@pytest.mark.parametrize(
    "body",
    [
        b"<html>",
        b"x" * 1_000_000,
        b"<GetCallerIdentityResult><Arn>arn:aws:iam::1:root</Arn></GetCallerIdentityResult>",
    ],
)
def test_any_body_in_place_of_the_answer(aws: LocalAws, body: bytes) -> None:
    aws.fault("sts", body=body, headers={"content-type": "text/html"})
    answer = presign(aws, aws.user("alice").keys()).send(aws)
    assert (answer.status, answer.body, answer.headers["content-type"]) == (200, body, "text/html")


def test_a_fault_is_only_for_authenticated_calls(aws: LocalAws) -> None:
    aws.fault("sts", body=json.dumps({}).encode())
    keys = aws.user("alice").keys()
    wrong = sign(aws, keys)
    changed = type(wrong)(wrong.method, wrong.target, wrong.headers, wrong.body + b"&x=1")
    assert changed.send(aws).status == 403
    client = aws.client("sts", keys, config=ONCE)
    with pytest.raises((ResponseParserError, ClientError, KeyError)):
        assert client.get_caller_identity()["Arn"]
