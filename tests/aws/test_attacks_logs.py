"""What AWS answers may hold secrets: half of it must not get into a message either."""

from __future__ import annotations

import base64
import logging
import traceback
from pathlib import Path

import pytest

from iam_auth_proxy.aws.clients import make_clients
from iam_auth_proxy.aws.login import Login
from iam_auth_proxy.errors import AwsUnavailable, LoginNeeded
from iam_auth_proxy.local_aws import LocalAws
from iam_auth_proxy.local_aws.policy import allow
from iam_auth_proxy.local_aws.ready import make_ready
from iam_auth_proxy.protocol.proof import SessionCredentials


@pytest.mark.parametrize("operation", ["get_session_token", "assume_role"])
def test_a_cut_answer_is_not_quoted(
    local_aws: LocalAws, monkeypatch: pytest.MonkeyPatch, operation: str
) -> None:
    """botocore's parser puts the whole body into its message, credentials and all."""
    for name, value in (local_aws.env | make_ready(local_aws).user.env).items():
        monkeypatch.setenv(name, value)
    login = Login()
    secret = "SECRET" * 6
    body = f"<Credentials><SecretAccessKey>{secret}</SecretAccessKey><SessionTok".encode()
    local_aws.fault("sts", times=None, status=200, body=body)
    arguments = {"RoleArn": "arn:aws:iam::111122223333:role/x", "RoleSessionName": "me"}
    with pytest.raises(AwsUnavailable) as refused:
        login.connections.call(
            "sts", "eu-west-1", operation, login.credentials(),
            **(arguments if operation == "assume_role" else {}),
        )  # fmt: skip
    assert secret not in str(refused.value)
    assert secret not in refused.value.public + refused.value.remedy
    assert secret not in "".join(traceback.format_exception(refused.value))


def test_nor_in_the_chain_of_credentials(
    local_aws: LocalAws, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    config = tmp_path / "config"
    config.write_text(
        "[profile role]\nrole_arn = arn:aws:iam::111122223333:role/x\n"
        "credential_source = Environment\n"
    )
    environ = local_aws.env | make_ready(local_aws).user.env | {"AWS_CONFIG_FILE": str(config)}
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    secret = "SECRET" * 6
    body = f"<Credentials><SecretAccessKey>{secret}</SecretAccessKey><SessionTok".encode()
    local_aws.fault("sts", times=None, status=200, body=body)
    with pytest.raises(AwsUnavailable) as refused:
        Login("role").credentials()
    assert secret not in "".join(traceback.format_exception(refused.value))


def test_an_app_that_logs_everything_logs_no_proof(
    local_aws: LocalAws, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """botocore's debug log has requests and answers in full, and an app's root logger has it."""
    ready = make_ready(local_aws)
    both = local_aws.user("both", policies=[allow("kms:*", resource=ready.key.arn)]).keys()
    for name, value in (local_aws.env | both.env).items():
        monkeypatch.setenv(name, value)
    kms, sts = make_clients(key=ready.key.arn)
    caplog.set_level(logging.DEBUG)
    proof, context = b"PLANTED-PLAINTEXT", {"salt": "x"}
    sealed = kms.encrypt(ready.key.arn, proof, context).ciphertext
    assert kms.decrypt(ready.key.arn, sealed, context).plaintext == proof
    planted = SessionCredentials("ASIA" + "P" * 16, "PLANTED-SECRET-KEY", "PLANTED-TOKEN", 2**31)
    with pytest.raises(LoginNeeded):
        sts.caller_identity(planted)
    said = "".join(
        f"{record.getMessage()} {record.args!r}" for record in caplog.records
    )  # what a formatter of JSON would write, too
    for secret in ("PLANTED", base64.b64encode(proof).decode(), base64.b64encode(sealed).decode()):
        assert secret not in said
    assert repr(sealed) not in said
    # Of other calls everything is said: it is the app's log.
    login = Login()
    login.connections.client("kms", "eu-west-1")
    assert any(record.name.startswith("botocore.") for record in caplog.records)
