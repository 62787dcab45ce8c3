"""Issuers with boto3 behind them: each asks with its own keys and its own patience."""

from __future__ import annotations

import time

import pytest

from iam_auth_proxy.aws.base import ClientSettings
from iam_auth_proxy.errors import AwsUnavailable, LoginNeeded
from iam_auth_proxy.local_aws import Keys, allow
from iam_auth_proxy.tokens.build import open_issuer
from iam_auth_proxy.tokens.issuer import Issuer
from tests.tokens.conftest import CI, TO, Stage


def issuer(stage: Stage, **how: object) -> Issuer:
    settings = ClientSettings(**how)  # type: ignore[arg-type]  # as the test says
    return open_issuer(stage.services.arn, CI, TO, settings=settings)


def as_given(keys: Keys, **change: str) -> dict[str, tuple[str, str, str]]:
    given = {
        "access": keys.access_key_id,
        "secret": keys.secret_access_key,
        "token": keys.session_token or "",
    } | change
    return {"keys": (given["access"], given["secret"], given["token"])}


def test_nobody_asks_with_the_timeouts_of_another(stage: Stage) -> None:
    """K19: the original's clients are shared, whatever was said of timeouts and connections."""
    patient = issuer(stage, read_timeout=30.0)
    hurried = issuer(stage, read_timeout=0.05)
    again = issuer(stage, read_timeout=30.0)
    stage.aws.fault("kms", "Encrypt", delay=0.4, times=None)
    assert patient.issue(time.time())
    with pytest.raises(AwsUnavailable):
        hurried.issue(time.time())
    assert again.issue(time.time())


def test_nobody_signs_with_the_secret_of_another(stage: Stage) -> None:
    """K20: the original's clients are shared by all who name the same access key."""
    good = issuer(stage, **as_given(stage.keys))
    assert good.issue(time.time())
    with pytest.raises(LoginNeeded):
        issuer(stage, **as_given(stage.keys, secret="another")).issue(time.time())
    assert good.issue(time.time())


def test_nobody_signs_with_the_session_of_another(stage: Stage) -> None:
    """K20, the session token."""
    session = stage.aws.sso_role("Dev", "ann@example.com", policies=[allow("kms:*")])
    assert session.session_token
    assert issuer(stage, **as_given(session)).issue(time.time())
    with pytest.raises(LoginNeeded):
        issuer(stage, **as_given(session, token="")).issue(time.time())
    with pytest.raises(LoginNeeded):
        issuer(stage, **as_given(session, token=session.session_token[:-4])).issue(time.time())


def test_keys_that_are_given_are_the_only_ones(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The environment's are somebody else's."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIA" + "X" * 16)
    assert issuer(stage, **as_given(stage.keys)).issue(time.time())
    shown = repr(ClientSettings(**as_given(stage.keys)))  # type: ignore[arg-type]  # as above
    assert stage.keys.secret_access_key not in shown


def test_another_kms(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    assert issuer(stage, kms_endpoint=stage.aws.url).issue(time.time())
    with pytest.raises(AwsUnavailable):
        issuer(stage).issue(time.time())
