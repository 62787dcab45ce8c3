"""The texts of ``policies`` and ``env``."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from iam_auth_proxy import policies
from iam_auth_proxy.cli.outcome import status_of
from iam_auth_proxy.cli.running import Running
from iam_auth_proxy.names import parse_key_arn, parse_origin

KEY = "arn:aws:kms:eu-west-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab"
APP = parse_origin("http://app.internal")
GIVEN = ["--app", "http://app.internal", "--kms-key", KEY]


@pytest.mark.parametrize(
    ("args", "document"),
    [
        (["user"], policies.user(APP, KEY)),
        (["user", "--original"], policies.user(None, KEY)),
        (["server"], policies.server(KEY)),
        (["key"], policies.of_key(APP, parse_key_arn(KEY), "")),
        (
            ["key", "--account", "222222222222"],
            policies.of_key(APP, parse_key_arn(KEY), "222222222222"),
        ),
    ],
)
def test_what_is_printed(
    args: list[str], document: policies.Document, capsys: pytest.CaptureFixture[str]
) -> None:
    assert status_of(["policies", *args, *GIVEN]) == 0
    out, err = capsys.readouterr()
    assert json.loads(out) == document
    assert err == ""


def test_the_key_that_is_trusted(capsys: pytest.CaptureFixture[str]) -> None:
    assert status_of(["policies", "user", "--app", "app.internal"]) == 0
    assert "put its ARN in place of" in capsys.readouterr().err
    assert status_of(["trust", "add", "http://app.internal", "--kms-key", KEY]) == 0
    capsys.readouterr()
    assert status_of(["policies", "user", "--app", "app.internal"]) == 0
    assert json.loads(capsys.readouterr().out) == policies.user(APP, KEY)


@pytest.mark.parametrize(
    ("args", "document"),
    [
        ([], policies.token_user("app", KEY)),
        (["--without-mfa"], policies.token_user("app", KEY, mfa=False)),
        (["--from", "ci"], policies.token_service("app", "ci", KEY)),
    ],
)
def test_service_tokens(
    args: list[str], document: policies.Document, capsys: pytest.CaptureFixture[str]
) -> None:
    assert status_of(["policies", "token", "--to", "app", "--kms-key", KEY, *args]) == 0
    assert json.loads(capsys.readouterr().out) == document
    assert status_of(["policies", "token", "--to", "app", *args]) == 0
    assert "Put the ARN of your key" in capsys.readouterr().err


@pytest.mark.parametrize(
    "args",
    [
        ["policies", "token"],
        ["policies", "token", "--to", "a b"],
        ["policies", "token", "--to", "app", "--from", "a/b"],
        ["policies", "user"],
        ["policies", "usr", *GIVEN],
        ["policies", "key", *GIVEN, "--account", "1"],
        ["policies", "user", "--app", "http://x", "--kms-key", "alias/x"],
        ["env", "--bind", "unix:/tmp/x"],
    ],
)
def test_what_is_wrong(args: list[str]) -> None:
    assert status_of(args) == 2


@pytest.mark.parametrize("whose", [["user", "--app", "http://x"], ["token", "--to", "app"]])
@pytest.mark.parametrize(
    ("key", "named"),
    [
        ("alias/x", "alias/x"),
        (KEY.rpartition("/")[2], KEY.rpartition("/")[2]),
        (
            "arn:aws:kms:eu-west-1:111122223333:alias/x",
            "arn:aws:kms:eu-west-1:111122223333:alias/x --region eu-west-1",
        ),
    ],
)
def test_a_policy_names_its_key_by_arn(
    whose: list[str], key: str, named: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """And the command that is said prints it."""
    assert status_of(["policies", *whose, "--kms-key", key]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines() == [
        f"iam-auth-proxy: --kms-key: {key!r}: a policy names its key by the key's ARN alone",
        f"For that, run: aws kms describe-key --key-id {named} "
        "--query KeyMetadata.Arn --output text",
    ]


def test_what_is_no_key(capsys: pytest.CaptureFixture[str]) -> None:
    assert status_of(["policies", "token", "--to", "app", "--kms-key", "x y"]) == 2
    assert capsys.readouterr().err.splitlines() == [
        "iam-auth-proxy: --kms-key: 'x y': not a KMS key ARN",
        "It is like arn:aws:kms:eu-west-1:111122223333:key/00000000-0000-0000-0000-000000000000",
    ]


def test_env(capsys: pytest.CaptureFixture[str]) -> None:
    assert status_of(["env", "--bind", "[::1]:9090"]) == 0
    told = capsys.readouterr()
    lines = told.out.splitlines()
    assert "export http_proxy='http://[::1]:9090'" in lines
    assert "export NO_PROXY=localhost,127.0.0.1,::1" in lines
    assert len([line for line in lines if line.startswith("export ")]) == 6
    assert "No proxy is running at [::1]:9090 yet" in told.err


def test_env_in_a_shell_that_it_set_up_before_an_app_of_this_machine_was_listed(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """no_proxy is never taken back: what is in it may be the person's own."""
    again = "# Once you list an app of this machine, run this again in a new shell."
    stuck = "no_proxy has localhost, 127.0.0.1, ::1 already, so programs reach apps there past the"
    assert status_of(["env"]) == 0
    told = capsys.readouterr()
    assert again in told.out
    assert stuck not in told.err
    monkeypatch.setenv("no_proxy", "localhost,127.0.0.1,::1")
    assert status_of(["trust", "add", "http://localhost:3000"]) == 0
    capsys.readouterr()
    assert status_of(["env"]) == 0
    told = capsys.readouterr()
    assert "no_proxy=" not in told.out
    assert again not in told.out
    assert f"{stuck} proxy.\nTake it out, or run this in a new shell.\n" in told.err


def test_env_points_at_the_proxy_that_runs(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Answers(Running):
        def ask(self, path: str, asked: Mapping[str, object] | None = None) -> dict[str, Any]:
            app = {"origin": "https://wiki.test", "alias": "http://wiki.localhost:8090"}
            return {"addresses": ["unix:/run/x", "127.0.0.1:8090"], "apps": [app]}

    monkeypatch.setattr(
        "iam_auth_proxy.cli.policies.find", lambda bind, named: Answers(Path("/nowhere"))
    )
    assert status_of(["env"]) == 0
    told = capsys.readouterr()
    assert "export https_proxy=http://127.0.0.1:8090" in told.out.splitlines()
    assert "export no_proxy=127.0.0.1,::1" in told.out.splitlines(), "its aliases are not past it"
    assert told.err == ""


def test_env_with_the_local_ca(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "o'neil"))
    assert status_of(["env", "--ca"]) == 2
    told = capsys.readouterr()
    assert told.out == ""
    assert "Run: iam-auth-proxy ca add DOMAIN" in told.err
    assert status_of(["ca", "add", "app.test"]) == 0
    assert status_of(["env", "--ca"]) == 0
    script = (
        capsys.readouterr().out + 'for n in http_proxy SSL_CERT_FILE; do eval "echo \\$$n"; done'
    )
    done = subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=True)
    proxy, file = done.stdout.splitlines()
    assert proxy == "http://127.0.0.1:8080"
    bundle = Path(file)
    assert bundle.stat().st_mode & 0o077 == 0
    root = bundle.with_name("app.test.crt").read_text()
    assert root in bundle.read_text()
    assert bundle.read_text().count("BEGIN CERTIFICATE") > 20, "never ours alone"

    assert status_of(["ca", "add", "other.test"]) == 0, "shells that have it follow"
    assert bundle.with_name("other.test.crt").read_text() in bundle.read_text()
    monkeypatch.setenv("HOME", str(tmp_path))
    assert status_of(["ca", "remove", "app.test", "--yes"]) == 0
    assert root not in bundle.read_text()
