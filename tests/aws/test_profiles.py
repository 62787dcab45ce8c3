"""Which profiles belong to an account."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from iam_auth_proxy.aws.profiles import profiles_for

ONE, TWO = "111111111111", "222222222222"
FILE = f"""
[default]
region = eu-west-1

[profile sso]
sso_session = corp
sso_account_id = {ONE}
sso_role_name = Developer

[profile across]
source_profile = sso
role_arn = arn:aws:iam::{TWO}:role/team/Developer
mfa_serial = arn:aws:iam::{ONE}:mfa/ann

[profile device]
mfa_serial = arn:aws:iam::{ONE}:mfa/ann

[profile China]
role_arn = arn:aws-cn:iam::{ONE}:role/Developer

[profile said]
aws_account_id = {TWO}

[profile login]
login_session = arn:aws:iam::{TWO}:user/ann

[profile own device]
mfa_serial = GAHT12345678

[profile broken]
role_arn = arn:aws
sso_account_id = {ONE}

[sso-session corp]
sso_start_url = https://corp.example/start
sso_region = eu-west-1
sso_account_id = {ONE}
"""


@pytest.fixture
def config() -> Path:
    file = Path(os.environ["AWS_CONFIG_FILE"])
    file.write_text(FILE)
    return file


def test_the_profiles_of_an_account(config: Path) -> None:
    assert profiles_for(ONE) == ("sso", "device", "China")
    assert profiles_for(TWO) == ("across", "said", "login")
    assert profiles_for("333333333333") == ()
    assert profiles_for("") == profiles_for("GAHT12345678") == ()


@pytest.mark.parametrize("text", ["[profile", "= = =", "[profile a]\nrole_arn\n", "\x00\xff"])
def test_files_that_cannot_be_read_name_nothing(config: Path, text: str) -> None:
    config.write_bytes(text.encode("latin-1"))
    assert profiles_for(ONE) == ()


def test_no_files_at_all(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(name, str(tmp_path / "none"))
    assert profiles_for(ONE) == ()


def test_a_profile_that_does_not_exist_is_no_obstacle(
    config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_PROFILE", "production")
    assert profiles_for(TWO) == ("across", "said", "login")


def test_importing_it_loads_no_botocore() -> None:
    code = "import sys, iam_auth_proxy.aws.profiles; sys.exit('botocore' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
