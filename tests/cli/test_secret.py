"""``secret …``: what is typed, what is printed, and how it ends."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from iam_auth_proxy.local_aws import LocalAws
from iam_auth_proxy.proxy.process import rlimits
from tests.cli.conftest import Home

PLANTED = "planted-secret-value"


@pytest.fixture
def aws(local_aws: LocalAws, monkeypatch: pytest.MonkeyPatch, home: Home) -> LocalAws:
    for name, value in {**local_aws.env, **local_aws.root().env}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("botocore.endpoint.time", SimpleNamespace(sleep=lambda seconds: None))
    return local_aws


@pytest.fixture
def store(aws: LocalAws, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A store in a folder, by the variables."""
    monkeypatch.setenv("IAM_AUTH_PROXY_STORE", str(tmp_path / "store"))
    monkeypatch.setenv("IAM_AUTH_PROXY_KMS_KEY", aws.key("alias/secrets").arn)
    return tmp_path / "store"


class Stdin(io.TextIOWrapper):
    def __init__(self, data: bytes) -> None:
        super().__init__(io.BytesIO(data))


def put(home: Home, monkeypatch: pytest.MonkeyPatch, name: str, value: bytes) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stdin", Stdin(value))
        home.run("secret", "put", name, "--quiet")


def test_put_get(home: Home, store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """L11: the original adds a newline, and prints nothing for what is empty or missing."""
    (tmp_path / "value").write_text("hello secret\n")
    data, words = home.run("secret", "put", "db", str(tmp_path / "value"))
    assert (data, words) == ("", "db: version 1, 13 bytes\n")
    assert home.run("secret", "get", "db") == ("hello secret\n", "")
    monkeypatch.setattr(sys, "stdin", Stdin(b"from a pipe"))
    data, _ = home.run("secret", "put", "db", "-", "--json", "--if-version", "1")
    assert json.loads(data)["version"] == 2
    assert home.run("secret", "get", "db")[0] == "from a pipe"
    assert home.run("secret", "get", "db", "--version", "1")[0] == "hello secret\n"


def test_list_history_rm(home: Home, store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert home.run("secret", "list")[0] == ""
    put(home, monkeypatch, "a", b"one")
    put(home, monkeypatch, "b/c", b"three")
    listed = home.run("secret", "list")[0].splitlines()
    assert [line.split()[:4] for line in listed] == [
        ["a", "1", "3", "bytes"],
        ["b/c", "1", "5", "bytes"],
    ]
    assert [each["name"] for each in json.loads(home.run("secret", "list", "--json")[0])] == [
        "a",
        "b/c",
    ]
    assert home.run("secret", "rm", "a")[1] == "a: deleted\n"
    _, words = home.run("secret", "get", "a", status=1)
    assert "The secret was deleted." in words
    assert "[no-such-secret]" in words
    history = home.run("secret", "history", "a")[0].splitlines()
    assert [line.split()[2] for line in history] == ["3", "deleted"]
    home.run("secret", "rm", "a", "--purge")
    assert len(home.run("secret", "history", "a")[0].splitlines()) == 1
    home.run("secret", "rm", "a", status=1)


def test_listing_takes_no_key(home: Home, store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(home, monkeypatch, "a", b"one")
    for args in (["list"], ["history", "a"]):
        with_key = home.run("secret", *args)
        assert with_key == home.run("secret", *args, "--kms-key", "alias/secrets")
        with monkeypatch.context() as patch:
            patch.delenv("IAM_AUTH_PROXY_KMS_KEY")
            assert home.run("secret", *args) == with_key
        home.run("secret", *args, "--kms-key", "no key", status=2)


def test_rewrap(home: Home, store: Path, aws: LocalAws, monkeypatch: pytest.MonkeyPatch) -> None:
    old, new = os.environ["IAM_AUTH_PROXY_KMS_KEY"], aws.key().arn
    put(home, monkeypatch, "a", b"one")
    put(home, monkeypatch, "b", b"two")
    _, words = home.run("secret", "get", "a", "--kms-key", new, status=1)
    assert f"--kms-key {old}" in words
    assert "[wrong-key]" in words
    _, words = home.run("secret", "rewrap", "--all", "--kms-key", new, "--kms-key", old)
    assert words == "put under the new key: 2 versions of 2 secrets\n"
    _, words = home.run("secret", "rewrap", "a", "--kms-key", old, "--kms-key", new)
    assert words == "put under the new key: 1 version of 1 secret\n"
    home.run("secret", "rewrap", "a", "--kms-key", new, "--kms-key", old)
    assert home.run("secret", "get", "a", "--kms-key", new)[0] == "one"
    for args in ([], ["--all", "a"]):
        home.run("secret", "rewrap", *args, status=2)


def test_honest_statuses(
    home: Home, store: Path, aws: LocalAws, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """L11: with the original, nearly everything ends with 0."""
    put(home, monkeypatch, "a", b"good")
    monkeypatch.setattr(sys, "stdin", Stdin(b"new"))
    aws.fault("kms", "Encrypt", code="ThrottlingException", times=None)
    assert "[aws-unavailable]" in home.run("secret", "put", "a", status=6)[1]
    aws.clear_faults()
    aws.fault("kms", "Decrypt", code="AccessDeniedException")
    assert "kms:Decrypt" in home.run("secret", "get", "a", status=1)[1]
    aws.clear_faults()
    _, words = home.run("secret", "put", "a", "--if-version", "7", status=1)
    assert "[version-conflict]" in words
    assert "a is at version 1, not 7" in words
    assert "Somebody else" not in words
    assert home.run("secret", "get", "a")[0] == "good"
    for args, status in (
        (["get", "b"], 1),
        (["get", "../b"], 1),
        (["put", "a", str(tmp_path / "missing")], 1),
        (["frobnicate"], 2),
        (["put"], 2),
        (["put", "a", "--format", "x"], 2),
        (["put", "a", "--format", "lazycred", "--if-version", "1"], 2),
        (["get", "a", "--store", "http://x"], 2),
        (["get", "a", "--kms-key", "nonsense"], 2),
        (["get", "a", "--store", "s3://X"], 2),
    ):
        _, words = home.run("secret", *args, status=status)
        assert words
        assert "bug" not in words
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    home.run("secret", "get", "a", status=3)
    monkeypatch.delenv("IAM_AUTH_PROXY_KMS_KEY")
    assert "--kms-key" in home.run("secret", "get", "a", status=2)[1]
    monkeypatch.delenv("IAM_AUTH_PROXY_STORE")
    assert "--store" in home.run("secret", "get", "a", status=2)[1]


def test_at_a_terminal_a_line_is_asked_for(
    home: Home, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(isatty=lambda: True))
    monkeypatch.setattr("click.prompt", lambda text, **kwargs: PLANTED)
    home.run("secret", "put", "a")
    assert home.run("secret", "get", "a")[0] == PLANTED


SHOW = """
import os
path = os.environ["KEY_FILE"]
want = "plan" "ted"
for _ in range(2):
    assert open(path).read() == want + "-secret-value"
assert os.environ["PLAIN"] == "in-env"
parent = os.getppid()
for listing in ("/proc/self/environ", f"/proc/{parent}/environ", f"/proc/{parent}/cmdline"):
    assert want not in open(listing).read()
print(path)
raise SystemExit(7)
"""


def test_exec(home: Home, store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(home, monkeypatch, "web/key", PLANTED.encode())
    put(home, monkeypatch, "plain", b"in-env")
    wanted = ["--file", "KEY=web/key", "--env", "PLAIN=plain"]
    done = subprocess.run(
        [
            *(sys.executable, "-m", "iam_auth_proxy", "secret", "exec", *wanted, "--"),
            *(sys.executable, "-c", SHOW),
        ],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (7, "")
    assert not os.path.exists(done.stdout.strip())


def test_exec_fails_as_ours(home: Home, store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rlimits, "set_own", lambda: rlimits.UNCHANGED)  # it is the tests' process
    put(home, monkeypatch, "zero", b"a\0b")
    for args, status in (
        (["--", "true"], 0),
        (["--", "no-such-command-here"], 127),
        ([], 125),
        (["--file", "X=none", "--", "true"], 125),
        (["--file", "X", "--", "true"], 125),
        (["--env", "X=zero", "--", "true"], 125),
    ):
        _, words = home.run("secret", "exec", *args, status=status)
        assert bool(words) == bool(status)


def test_where_there_is_no_memory_of_our_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from iam_auth_proxy.cli.secretfiles import secret_files

    monkeypatch.delattr(os, "memfd_create")
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    with secret_files([b"one", b"two"]) as paths:
        assert [Path(path).read_bytes() for path in paths] == [b"one", b"two"]
        assert {os.stat(path).st_mode & 0o777 for path in paths} == {0o600}
        assert Path(paths[0]).parent.stat().st_mode & 0o777 == 0o700
    assert list(tmp_path.iterdir()) == []


def test_nothing_secret_is_said(
    home: Home,
    store: Path,
    aws: LocalAws,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("DEBUG")
    put(home, monkeypatch, "a", PLANTED.encode())
    for args in (["list"], ["history", "a"], ["rm", "a"]):
        assert PLANTED not in "".join(home.run("secret", *args))
    assert PLANTED not in caplog.text
    assert not [
        path
        for path in store.rglob("*")
        if path.is_file() and PLANTED.encode() in path.read_bytes()
    ]


def test_progress(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    from iam_auth_proxy.cli import secret

    now = [0.0]
    monkeypatch.setattr(secret, "time", SimpleNamespace(monotonic=lambda: now[0]))
    with secret._Progress(True, 10 << 20, "MiB", 1 << 20) as progress:
        progress(1 << 20)
        now[0] = 1.1
        progress(2 << 20)
        progress(3 << 20)
    assert capsys.readouterr().err == "\r2 of 10 MiB\r           \r"
