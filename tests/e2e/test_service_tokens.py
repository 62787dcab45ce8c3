"""What the README tells script authors to type, with real programs."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from iam_auth_proxy import policies
from iam_auth_proxy.local_aws import LocalAws, allow
from iam_auth_proxy.server import Gate
from tests.server.apps import flask_app, serve_werkzeug
from tests.server.conftest import SECRET
from tests.support.processes import base_env, program

pytestmark = pytest.mark.e2e

GIVEN = "--to app-production --kms-key alias/services"
Type = Callable[[str], subprocess.CompletedProcess[str]]


@pytest.fixture
def port(local_aws: LocalAws, monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """An app whose role may decrypt, under Confidant's settings."""
    key = local_aws.key("services")
    rights = allow("kms:Decrypt", "kms:DescribeKey", resource=key.arn)
    settings = {
        "KMS_KEY_ID": key.arn, "AWS_ACCOUNT_ID": local_aws.account, "SECRET_KEY": SECRET,
        "AUTH_CONTEXT": "app-production", "AUTH_KEY": "alias/services",
    }  # fmt: skip
    app = local_aws.user("app", policies=[rights]).keys()
    for name, value in (local_aws.env | app.env | settings).items():
        monkeypatch.setenv(name, value)
    with serve_werkzeug(flask_app(Gate.from_env())) as port:
        yield port


@pytest.fixture
def type_(local_aws: LocalAws, port: int, tmp_path: Path) -> Type:
    """A shell of somebody who may make tokens as the service ci, and nothing else."""
    arn = local_aws.client("kms", local_aws.root()).describe_key(KeyId="alias/services")
    arn = arn["KeyMetadata"]["Arn"]
    policy = policies.token_service("app-production", "ci", arn)
    caller = local_aws.user("somebody", policies=[policy]).keys()
    env = base_env(**local_aws.env, **caller.env)
    env["PATH"] = f"{Path(sys.executable).parent}:{env['PATH']}"

    def run(line: str) -> subprocess.CompletedProcess[str]:
        line = line.replace("curl", f"{program('curl')} -sS -w ' %{{http_code}}'")
        line = line.replace("URL", f"http://127.0.0.1:{port}/")
        return subprocess.run(
            ["sh", "-c", line], env=env, capture_output=True, text=True, timeout=60, check=False
        )

    return run


def test_curl_calls_the_app(type_: Type) -> None:
    issue = f"iam-auth-proxy token issue {GIVEN} --from ci --type service"
    done = type_(f"{issue} | curl -K - URL")
    assert done.stdout == "kmsauth:service/ci 200", done.stderr
    done = type_(f"{issue} --format headers | curl -H @- URL")
    assert done.stdout == "kmsauth:service/ci 200", done.stderr


def test_nobody_elses_name(type_: Type) -> None:
    done = type_(f"iam-auth-proxy token issue {GIVEN} --from root --type service")
    assert done.returncode == 1
    assert done.stdout == ""
    assert "kms:Encrypt" in done.stderr


def test_check_tells_who_may_not_decrypt(type_: Type) -> None:
    issue = f"iam-auth-proxy token issue {GIVEN} --from ci --type service"
    done = type_(f"{issue} | iam-auth-proxy token check {GIVEN}")
    assert done.returncode == 1
    assert "Ask your AWS administrator to allow kms:DescribeKey" in done.stderr
