"""``token issue`` and ``token check``, at the embedded AWS."""

from __future__ import annotations

import io
import json
import sys
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from iam_auth_proxy import policies
from iam_auth_proxy.local_aws import Keys, LocalAws, allow
from iam_auth_proxy.protocol.service_token import Caller, CallerType
from iam_auth_proxy.tokens.build import open_issuer
from tests.cli.conftest import Home

As = Callable[[Keys], None]
TO = "app-production"


@pytest.fixture
def act(local_aws: LocalAws, monkeypatch: pytest.MonkeyPatch) -> As:
    monkeypatch.setattr("botocore.endpoint.time", SimpleNamespace(sleep=lambda seconds: None))

    def become(keys: Keys) -> None:
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"):
            monkeypatch.delenv(name, raising=False)
        for name, value in (local_aws.env | keys.env).items():
            monkeypatch.setenv(name, value)

    return become


@pytest.fixture
def key(local_aws: LocalAws, act: As) -> str:
    key = local_aws.key("authnz")
    rights = [allow("kms:Encrypt", "kms:Decrypt", "kms:DescribeKey", resource=key.arn)]
    act(local_aws.user("alice", policies=rights).keys())
    return key.arn


def said(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text.encode())))


@pytest.mark.parametrize("form", ["curl-config", "headers", "json"])
def test_what_issue_writes_check_reads(
    home: Home, key: str, monkeypatch: pytest.MonkeyPatch, form: str
) -> None:
    data, words = home.run("token", "issue", "--to", TO, "--kms-key", key, "--format", form)
    assert "2/user/alice to app-production, for 10 min" in words
    assert data.strip() not in words
    said(monkeypatch, data)
    out, _ = home.run("token", "check", "--to", TO, "--kms-key", "alias/authnz")
    assert out.startswith("2/user/alice to app-production, for ")
    said(monkeypatch, data)
    out, _ = home.run("token", "check", "--to", TO, "--kms-key", key, "--json")
    assert json.loads(out)["key"] == key


def test_each_format(home: Home, key: str) -> None:
    given = ("token", "issue", "--to", TO, "--kms-key", key, "--from", "ci", "--type", "service")
    curl = home.run(*given)[0]
    assert curl.startswith('user = "2/service/ci:')
    headers = home.run(*given, "--format", "headers")[0].splitlines()
    assert headers[0] == "X-Auth-From: 2/service/ci"
    assert headers[1].startswith("X-Auth-Token: ")
    document = json.loads(home.run(*given, "--format", "json")[0])
    assert document["headers"]["X-Auth-Token"] == document["token"]
    assert document["not_after"] - document["not_before"] == 780


def test_version_1(home: Home, key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    given = ("--to", TO, "--kms-key", key)
    data, _ = home.run("token", "issue", *given, "--from", "ci", "--token-version", "1")
    assert data.startswith('user = "ci:')
    said(monkeypatch, data)
    assert home.run("token", "check", *given)[0].startswith("ci to")


def test_a_role_is_a_service(home: Home, local_aws: LocalAws, act: As) -> None:
    key = local_aws.key()
    trust = {"Version": "2012-10-17", "Statement": [
        {"Effect": "Allow", "Principal": {"AWS": f"arn:aws:iam::{local_aws.account}:root"},
         "Action": "sts:AssumeRole"}]}  # fmt: skip
    role = local_aws.role("deploy", trust, policies=[allow("kms:Encrypt", resource=key.arn)])
    act(role.session("whoever"))
    _, words = home.run("token", "issue", "--to", TO, "--kms-key", key.arn)
    assert "2/service/deploy to" in words
    act(local_aws.sso_role("Admin", "alice@example.com", policies=[allow("kms:Encrypt")]))
    _, words = home.run("token", "issue", "--to", TO, "--kms-key", key.arn, status=2)
    assert "--from NAME" in words
    _, words = home.run("token", "issue", "--to", TO, "--kms-key", key.arn, "--from", "alice")
    assert "2/user/alice to" in words


def test_what_the_policy_denies(home: Home, local_aws: LocalAws, act: As) -> None:
    key = local_aws.key()
    document = policies.token_user(TO, key.arn, mfa=False)
    act(local_aws.user("bob", policies=[document]).keys())
    given = ("token", "issue", "--to", TO, "--kms-key", key.arn)
    home.run(*given)
    _, words = home.run(*given, "--from", "alice", status=1)
    assert "kms:Encrypt" in words
    assert "[access-denied]" in words


def test_mfa(home: Home, local_aws: LocalAws, act: As, monkeypatch: pytest.MonkeyPatch) -> None:
    key = local_aws.key()
    ann = local_aws.user("ann", policies=[policies.token_user(TO, key.arn)])
    device = ann.mfa()
    act(ann.keys())
    given = ("token", "issue", "--to", TO, "--kms-key", key.arn)
    home.run(*given, status=1)
    said(monkeypatch, "")
    _, words = home.run(*given, "--mfa-serial-number", device.serial, status=3)
    assert "--mfa-token-code" in words
    _, words = home.run(
        *given, "--mfa-serial-number", device.serial, "--mfa-token-code", device.code()
    )
    assert "2/user/ann to" in words


@pytest.mark.parametrize(
    "more",
    [
        ["--kms-key", "sandbox"], ["--kms-key", "alias/x", "--from", "a/b"],
        ["--kms-key", "alias/x", "--from", "a", "--lifetime", "1"],
        ["--kms-key", "alias/x", "--from", "a", "--context", "to=x"],
        ["--kms-key", "alias/x", "--from", "a", "--context", "a=1", "--context", "a=2"],
        ["--kms-key", "alias/x", "--from", "a", "--type", "user", "--token-version", "1"],
        ["--kms-key", "alias/x", "--token-version", "4"],
        [],
    ],
)  # fmt: skip
def test_what_is_mistyped(home: Home, key: str, more: list[str]) -> None:
    home.run("token", "issue", "--to", TO, *more, status=2)


def test_aws_away(home: Home, key: str, local_aws: LocalAws, monkeypatch: Any) -> None:
    given = ("--to", TO, "--kms-key", key)
    data, _ = home.run("token", "issue", *given)
    local_aws.fault("kms", code="ThrottlingException", times=None)
    home.run("token", "issue", *given, status=6)
    said(monkeypatch, data)
    home.run("token", "check", *given, status=6)


# -- the six stories, and others -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "field"),
    [
        (lambda t: t | {"username": "4/user/alice"}, "version"),
        (lambda t: t | {"username": "x/user/alice"}, "version"),
        (lambda t: t | {"username": "2/service/alice"}, "user_type"),
        (lambda t: t | {"username": "2/user/bob"}, "context"),
        (lambda t: t | {"token": str(t["token"].encode())}, "token"),
        (lambda t: t | {"to": "other"}, "to"),
    ],
)
def test_check_names_the_field(
    home: Home, key: str, monkeypatch: pytest.MonkeyPatch, change: Any, field: str
) -> None:
    given = ("--to", TO, "--kms-key", key)
    token = json.loads(home.run("token", "issue", *given, "--format", "json")[0])
    said(monkeypatch, json.dumps(change(token)))
    data, words = home.run("token", "check", *given, status=1)
    assert data == ""
    assert f"\n  {field}: " in words
    assert "[bad-token]" in words
    assert token["token"] not in words


def test_check_of_a_long_one(home: Home, key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    given = ("--to", TO, "--kms-key", key)
    data, words = home.run("token", "issue", *given, "--lifetime", "999m")
    assert "at most an hour" in words
    said(monkeypatch, data)
    assert "\n  lifetime: " in home.run("token", "check", *given, status=1)[1]
    said(monkeypatch, data)
    home.run("token", "check", *given, "--max-lifetime", "24h")


def test_check_without_the_right_to_decrypt(
    home: Home, key: str, local_aws: LocalAws, act: As, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, _ = home.run("token", "issue", "--to", TO, "--kms-key", key)
    act(local_aws.user("poor").keys())
    said(monkeypatch, data)
    words = home.run("token", "check", "--to", TO, "--kms-key", key, status=1)[1]
    assert "AccessDenied" in words
    assert "--profile" in words


def test_check_of_nothing(home: Home, key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for text in ("", "hello", "[]", '{"username": "x"}'):
        said(monkeypatch, text)
        words = home.run("token", "check", "--to", TO, "--kms-key", key, status=2)[1]
        assert "no token on standard input" in words


def test_a_script_makes_its_own(key: str) -> None:
    issuer = open_issuer("alias/authnz", Caller("alice", CallerType.USER), TO)
    assert issuer.token(time.time()).key_arn == key
