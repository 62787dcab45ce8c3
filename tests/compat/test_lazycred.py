"""lazycred's own names, and the code that its documentation prints."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from iam_auth_proxy.compat import lazycred
from iam_auth_proxy.local_aws import LocalAws
from tests.support.processes import ROOT

SAMPLE = """{
    "region": "us-east-1",
    "s3_path": "eFart/credentials/",
    "key_alias": "eFart-key",
}
"""


@pytest.fixture
def aws(local_aws: LocalAws, monkeypatch: pytest.MonkeyPatch) -> Iterator[LocalAws]:
    for name, value in {**local_aws.env, **local_aws.root().env}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("botocore.endpoint.time", SimpleNamespace(sleep=lambda seconds: None))
    monkeypatch.setattr(lazycred, "_inline", None)
    local_aws.key("alias/eFart-key", region="us-east-1")
    local_aws.client("s3", local_aws.root(), region="us-east-1").create_bucket(Bucket="eFart")
    lazycred._opened.cache_clear()
    yield local_aws
    lazycred._opened.cache_clear()


@pytest.fixture
def configured(aws: LocalAws) -> None:
    lazycred.set_config(
        {"s3_path": "eFart/credentials/", "key_alias": "eFart-key", "region": "us-east-1"}
    )


def test_the_documented_python(configured: None, aws: LocalAws) -> None:
    key = "something"
    val = "Something Something Danger Zone"
    assert lazycred.put(key, val) is True
    assert lazycred.get(key) == val.encode()
    client = aws.client("s3", aws.root(), region="us-east-1")
    record = client.get_object(Bucket="eFart", Key="credentials/something")["Body"].read()
    assert list(json.loads(record)) == ["data", "key"]


def test_a_failure_is_false_or_none_and_destroys_nothing(
    configured: None, aws: LocalAws, caplog: pytest.LogCaptureFixture
) -> None:
    """L3: the original says True, and the secret is gone."""
    assert lazycred.put("a", b"good")
    aws.fault("kms", "Encrypt", code="AccessDeniedException")
    assert lazycred.put("a", b"new") is False
    assert "kms:Encrypt" in caplog.text
    assert lazycred.get("a") == b"good"
    assert lazycred.get("none") is None
    assert lazycred.put("a b", b"x") is False
    assert {record.name for record in caplog.records if record.levelname == "ERROR"} == {
        "LazyCredLogger"
    }


def test_text(configured: None) -> None:
    """L4: the original stores ``null`` for it, and says True."""
    assert lazycred.put("a", "für")
    assert lazycred.get("a") == "für".encode()
    wrong: Any = 5
    assert lazycred.put("a", wrong) is False
    assert lazycred.get("a") == "für".encode()


def test_a_configuration_counts_at_once(aws: LocalAws, tmp_path: Path, monkeypatch: Any) -> None:
    """L1, L2: the original remembers the first one, and that there was none."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert lazycred.put("a", b"x") is False
    (tmp_path / ".lazycred").write_text(SAMPLE)
    assert lazycred.put("a", b"x") is True
    lazycred.set_config({"s3_path": "nowhere/", "key_alias": "eFart-key", "region": "us-east-1"})
    assert lazycred.put("a", b"x") is False


def test_the_documented_commands(aws: LocalAws, tmp_path: Path) -> None:
    """L11: with the original all of these end with 0, and ``get`` adds a newline."""
    (tmp_path / ".lazycred").write_text(SAMPLE)
    (tmp_path / "db_creds.json").write_text('{"a": 1}\n')
    env = {**os.environ, "PYTHONPATH": str(ROOT), "HOME": str(tmp_path)}

    def run(*args: str, given: bytes = b"") -> tuple[int, bytes, bytes]:
        done = subprocess.run(
            [sys.executable, "-m", "iam_auth_proxy.compat.lazycred", *args],
            input=given,
            capture_output=True,
            cwd=tmp_path,
            env=env,
            timeout=60,
            check=False,
        )
        return done.returncode, done.stdout, done.stderr

    assert run("put", "db_credentials", "db_creds.json") == (0, b"", b"")
    assert run("get", "db_credentials") == (0, b'{"a": 1}\n', b"")
    assert run("put", "db_credentials", given=b"hello\0") == (0, b"", b"")
    assert run("get", "db_credentials") == (0, b"hello\0", b"")
    status, out, words = run("get", "SpaceBalls")
    assert (status, out) == (1, b"")
    assert words.startswith(b"ERROR:LazyCredLogger:Unable to get SpaceBalls")


@pytest.mark.parametrize("args", [[], ["get"], ["put"], ["frobnicate", "x"], ["get", "a", "b"]])
def test_usage(args: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert lazycred.main(args) == 1
    assert capsys.readouterr().out.startswith("Usage: lazycred put NAME [FILE]")


def test_a_file_that_is_not_there(configured: None, monkeypatch: pytest.MonkeyPatch) -> None:
    assert lazycred.main(["put", "a", "/no/such/file"]) == 1
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"x")))
    assert lazycred.main(["put", "a"]) == 0
