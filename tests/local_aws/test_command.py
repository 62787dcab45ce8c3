"""``local-aws`` as people run it: in a process of its own."""

from __future__ import annotations

import io
import os
import shlex
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import boto3
import pytest

from iam_auth_proxy.local_aws.calls import Call
from iam_auth_proxy.local_aws.command import _Lines, _Signals, run
from tests.support.local_aws import refused

NAMES = [
    "AWS_ENDPOINT_URL",
    "AWS_REGION",
    "AWS_DEFAULT_REGION",
    "AWS_EC2_METADATA_DISABLED",
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_ACCOUNT_ID",
    "KMS_KEY_ID",
    "LOCAL_AWS_SERVER_ACCESS_KEY_ID",
    "LOCAL_AWS_SERVER_SECRET_ACCESS_KEY",
    "LOCAL_AWS_ROOT_ACCESS_KEY_ID",
    "LOCAL_AWS_ROOT_SECRET_ACCESS_KEY",
]
IN_THE_WAY = ["AWS_PROFILE", "AWS_DEFAULT_PROFILE", "AWS_SESSION_TOKEN", "AWS_SECURITY_TOKEN"]
SCRIPT = (
    "import sys; from iam_auth_proxy.local_aws.command import run; "
    "sys.exit(run(int(sys.argv[1]), sys.argv[2] or None, sys.argv[3:], sys.stdout, sys.stderr))"
)


def arguments(command: Sequence[str] = (), port: int = 0, env_file: object = "") -> list[str]:
    return [sys.executable, "-c", SCRIPT, str(port), str(env_file), *command]


def parse(text: str) -> dict[str, str]:
    """Shell exports, as a shell would read them."""
    first, *words = [shlex.split(line) for line in text.splitlines()]
    assert first == ["unset", *IN_THE_WAY]
    assert all(word[0] == "export" and len(word) == 2 for word in words)
    return {word[1].partition("=")[0]: word[1].partition("=")[2] for word in words}


@contextmanager
def serving(**more: Any) -> Iterator[tuple[subprocess.Popen[str], dict[str, str]]]:
    """The command without a command of its own, its exports read from wherever it puts them."""
    process = subprocess.Popen(
        arguments(**more),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        if "env_file" in more:
            assert process.stderr is not None
            process.stderr.readline()  # it is written by then
            yield process, parse(more["env_file"].read_text())
        else:
            lines = [process.stdout.readline() for _ in ["unset", *NAMES]]
            yield process, parse("".join(lines))
    finally:
        process.kill()
        process.communicate()


def client(service: str, env: dict[str, str], prefix: str = "AWS") -> Any:
    make: Any = boto3.client  # the stubs know services by literal name only
    return make(
        service,
        endpoint_url=env["AWS_ENDPOINT_URL"],
        region_name=env["AWS_REGION"],
        aws_access_key_id=env[f"{prefix}_ACCESS_KEY_ID"],
        aws_secret_access_key=env[f"{prefix}_SECRET_ACCESS_KEY"],
    )


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_exports_a_ready_user_and_ends_cleanly(number: int) -> None:
    with serving() as (process, env):
        assert list(env) == NAMES
        key = env["KMS_KEY_ID"]
        sts, kms = client("sts", env), client("kms", env)
        arn = f"arn:aws:iam::{env['AWS_ACCOUNT_ID']}:user/example-user"
        assert sts.get_caller_identity()["Arn"] == arn
        sts.get_session_token(DurationSeconds=900)
        blob = kms.encrypt(KeyId=key, Plaintext=b"x")["CiphertextBlob"]
        denied = ("AccessDeniedException", 400)
        assert refused(kms.decrypt, CiphertextBlob=blob) == denied
        server = client("kms", env, "LOCAL_AWS_SERVER")
        server.describe_key(KeyId=key)
        opened = server.decrypt(CiphertextBlob=blob, KeyId=key)
        assert opened["Plaintext"] == b"x"
        refusal = refused(server.encrypt, KeyId=key, Plaintext=b"x")
        assert refusal == denied
        root = client("iam", env, "LOCAL_AWS_ROOT")
        root.create_user(UserName="carol")
        process.send_signal(number)
        out, log = process.communicate(timeout=10)
        assert (process.returncode, out) == (0, "")
        lines = log.splitlines()
        assert lines[0].startswith(f"local-aws: embedded AWS on {env['AWS_ENDPOINT_URL']}, ")
        assert lines[1:4] == [
            f"sts GetCallerIdentity {arn} 200",
            f"sts GetSessionToken {arn} 200",
            f"kms Encrypt {arn} 200",
        ]
        assert f"kms Decrypt {arn} 400 AccessDeniedException" in lines
        for name in NAMES:
            if "SECRET" in name:
                assert env[name] not in log


@pytest.mark.parametrize(
    ("code", "status"),
    [
        ("raise SystemExit(7)", 7),
        ("import os; os.kill(os.getpid(), 9)", 137),
        ("import os; os.kill(os.getpid(), 15)", 143),
        ("pass", 0),
    ],
)
def test_a_commands_status_is_ours(code: str, status: int) -> None:
    out, log = io.StringIO(), io.StringIO()
    assert run(0, None, [sys.executable, "-c", code], out, log) == status
    assert (out.getvalue(), log.getvalue()) == ("", "")


def test_a_command_runs_in_the_environment() -> None:
    code = (
        "import boto3, os; print(boto3.client('sts').get_caller_identity()['Arn']);"
        "print('AWS_PROFILE' in os.environ, 'AWS_SESSION_TOKEN' in os.environ)"
    )
    in_the_way = {"AWS_PROFILE": "none", "AWS_SESSION_TOKEN": "stale"}
    done = subprocess.run(
        arguments([sys.executable, "-c", code]),
        capture_output=True,
        text=True,
        timeout=20,
        env={**os.environ, **in_the_way},
        check=True,
    )
    arn = "arn:aws:iam::111122223333:user/example-user"
    assert done.stdout == f"{arn}\nFalse False\n"
    assert done.stderr == f"sts GetCallerIdentity {arn} 200\n"


def test_a_command_that_cannot_be_run(tmp_path: Path) -> None:
    log = io.StringIO()
    assert run(0, None, ["/no/such"], io.StringIO(), log) == 127
    assert log.getvalue() == "local-aws: /no/such: command not found\n"
    log = io.StringIO()
    assert run(0, None, [str(tmp_path)], io.StringIO(), log) == 126
    assert log.getvalue() == f"local-aws: {tmp_path}: Permission denied\n"


def test_a_signal_before_the_command_has_started_ends_it_too() -> None:
    with _Signals() as signals:
        os.kill(os.getpid(), signal.SIGTERM)
        signals.wait()
        sleeping = [sys.executable, "-c", "import signal; signal.pause()"]
        with subprocess.Popen(sleeping) as child:
            assert signals.wait_for(child) == -signal.SIGTERM
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signals_go_on_to_the_command(number: int) -> None:
    code = (
        "import os, signal, sys\n"
        "for n in (2, 15): signal.signal(n, lambda n, f: sys.exit(40 + n))\n"
        f"os.kill(os.getppid(), {int(number)})\n"
        "signal.pause()"
    )
    command = [sys.executable, "-c", code]
    assert run(0, None, command, io.StringIO(), io.StringIO()) == 40 + number


def test_a_port_in_use() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        log = io.StringIO()
        port = taken.getsockname()[1]
        assert run(port, None, (), io.StringIO(), log) == 2
    said = f"local-aws: cannot listen on 127.0.0.1:{port}: Address already in use. "
    assert log.getvalue() == said + "Take another --port\n"


def test_an_env_file_that_cannot_be_written(tmp_path: Path) -> None:
    for path in (tmp_path / "none" / "env", tmp_path):
        out, log = io.StringIO(), io.StringIO()
        assert run(0, str(path), (), out, log) == 2
        assert out.getvalue() == ""
        assert log.getvalue().startswith(f"local-aws: cannot write {path}: ")
    assert list(tmp_path.iterdir()) == []


class _EndsUs(io.StringIO):
    """Ends the command as soon as it has printed its exports."""

    def flush(self) -> None:
        os.kill(os.getpid(), signal.SIGTERM)


def test_a_file_holds_the_exports_and_the_terminal_does_not(tmp_path: Path) -> None:
    file = tmp_path / "env"
    with serving(env_file=file) as (process, env):
        assert list(env) == NAMES
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
        assert list(tmp_path.iterdir()) == [file]
        assert process.stderr is not None
        # Read as the line before it was: communicate() does not see what came with that.
        assert process.stderr.readline().endswith(f" are in {file}; in a shell: . {file}\n")
        process.terminate()
        out, _ = process.communicate(timeout=10)
        assert (process.returncode, out) == (0, "")


def test_a_shell_takes_them_whatever_it_had(tmp_path: Path) -> None:
    out = _EndsUs()
    assert run(None, None, (), out, io.StringIO()) == 0
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    (tmp_path / "env").write_text(out.getvalue())
    script = f". {tmp_path}/env; env"
    had = dict.fromkeys([*IN_THE_WAY, "AWS_ACCESS_KEY_ID"], "stale")
    done = subprocess.run(["sh", "-eu", "-c", script], env=had, capture_output=True, text=True)
    assert "stale" not in done.stdout
    assert "AWS_ACCESS_KEY_ID=AKIA" in done.stdout


def test_no_control_characters_of_a_client_reach_the_terminal() -> None:
    log = io.StringIO()
    _Lines(log).call(
        Call("sts", "Get\x1b[2J\nkms Encrypt root 200", status=501, code="NotImplemented")
    )
    assert log.getvalue() == "sts Get?[2J?kms Encrypt root 200 - 501 NotImplemented\n"


def test_a_reader_of_the_log_who_leaves_stops_nothing() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    code = "import boto3; print(boto3.client('sts').get_caller_identity()['Account'])"
    with os.fdopen(writing, "w") as log:
        done = subprocess.run(
            arguments([sys.executable, "-c", code]),
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            timeout=20,
        )
    assert (done.returncode, done.stdout) == (0, "111122223333\n")
