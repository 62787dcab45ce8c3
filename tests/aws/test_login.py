"""Whose credentials boto3 finds, and what is said where it finds none. All offline."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import pytest
from botocore.utils import ContainerMetadataFetcher

from iam_auth_proxy.aws.base import ClientSettings
from iam_auth_proxy.aws.clients import make_clients
from iam_auth_proxy.aws.credentials import AwsPrincipal, CredentialSettings
from iam_auth_proxy.aws.login import Login, region
from iam_auth_proxy.errors import (
    AccessDenied,
    AwsUnavailable,
    IamAuthError,
    LoginNeeded,
    MfaNeeded,
)
from iam_auth_proxy.local_aws import LocalAws, trust
from tests.support.identity_center import (
    identity_center,
    leave_token,
    move_token_cache,
    role_credentials,
)
from tests.support.processes import free_port

Profiles = Callable[..., None]
PLANTED = "planted-secret-access-key"


@pytest.mark.parametrize(
    ("configured", "environ", "of_profile", "of_key", "expected"),
    [
        ("r1", {"AWS_REGION": "r2", "AWS_DEFAULT_REGION": "r3"}, "r4", "r5", "r1"),
        ("", {"AWS_REGION": "r2", "AWS_DEFAULT_REGION": "r3"}, "r4", "r5", "r2"),
        ("", {"AWS_REGION": "", "AWS_DEFAULT_REGION": "r3"}, "r4", "r5", "r3"),
        ("", {}, "r4", "r5", "r4"),
        ("", {}, "", "r5", "r5"),
        ("", {}, "", "", "us-east-1"),
    ],
)
def test_the_region_for_sts(
    configured: str, environ: dict[str, str], of_profile: str, of_key: str, expected: str
) -> None:
    assert region(configured, environ, of_profile, of_key) == expected


def needed(login: Login) -> LoginNeeded:
    with pytest.raises(LoginNeeded) as caught:
        login.credentials()
    return caught.value


def test_a_machine_that_is_silent_about_its_role_is_an_outage(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It passes: nobody has to sign in, and no app is set up wrongly."""
    monkeypatch.setenv(
        "AWS_CONTAINER_CREDENTIALS_FULL_URI", f"http://127.0.0.1:{free_port()}/credentials"
    )
    monkeypatch.setattr(ContainerMetadataFetcher, "SLEEP_TIME", 0)
    with pytest.raises(AwsUnavailable):
        Login().credentials()


class TestProfiles:
    def test_credentials_and_region_of_a_profile(self, profile: Profiles) -> None:
        profile("dev", aws_access_key_id="AKIADEV", aws_secret_access_key=PLANTED, region="r1")
        login = Login("dev")
        found = login.credentials()
        assert (found.access_key, found.token, login.region) == ("AKIADEV", None, "r1")

    def test_aws_profile_is_boto3s(
        self, profile: Profiles, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        profile("dev", aws_access_key_id="AKIADEV", aws_secret_access_key=PLANTED)
        monkeypatch.setenv("AWS_PROFILE", "dev")
        assert Login().credentials().access_key == "AKIADEV"

    def test_a_named_profile_comes_before_keys_in_the_environment(
        self, profile: Profiles, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        profile("dev", aws_access_key_id="AKIADEV", aws_secret_access_key=PLANTED)
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAENV")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", PLANTED)
        assert Login("dev").credentials().access_key == "AKIADEV"
        assert Login().credentials().access_key == "AKIAENV"

    def test_a_profile_that_is_not_there_gets_near_names(self, profile: Profiles) -> None:
        profile("dev", region="r1")
        profile("prod", region="r1")
        with pytest.raises(LoginNeeded) as caught:
            Login("devv")
        assert caught.value.remedy == "It is 'devv'. Did you mean --profile dev?"
        assert "dev" not in caught.value.public
        with pytest.raises(LoginNeeded) as caught:
            Login("something-else")
        assert "aws configure list-profiles" in caught.value.remedy

    def test_a_profile_of_the_environment_that_is_not_there(
        self, profile: Profiles, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        profile("dev", region="r1")
        monkeypatch.setenv("AWS_PROFILE", "nosuch")
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAENV")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", PLANTED)
        authorities = tmp_path / "ca.pem"
        authorities.write_text("")
        for make in (Login, lambda: Login(further_authorities=str(authorities)), make_clients):
            with pytest.raises(LoginNeeded) as caught:
                make()
            assert "'nosuch', which the environment names (AWS_PROFILE)" in str(caught.value)
            assert "'nosuch', which the environment names" in caught.value.remedy
            assert "nosuch" not in caught.value.public
        assert Login("dev").region == "r1"

    def test_importing_reads_no_profile(self) -> None:
        environ = {**os.environ, "AWS_PROFILE": "nosuch"}
        command = [sys.executable, "-c", "import iam_auth_proxy.aws.login"]
        subprocess.run(command, env=environ, check=True)

    def test_a_file_that_cannot_be_parsed(self) -> None:
        Path(os.environ["AWS_CONFIG_FILE"]).write_text("[profile dev\nno = end")
        with pytest.raises(LoginNeeded) as caught:
            Login("dev")
        assert "~/.aws" in caught.value.remedy

    @pytest.mark.parametrize("name", ["", "dev"])
    def test_no_credentials(self, profile: Profiles, name: str) -> None:
        profile("dev", region="r1")
        error = needed(Login(name))
        expected = " --profile dev" if name else ""
        assert error.remedy == f"Sign in to AWS, for example with: aws sso login{expected}"

    def test_aws_login(self, profile: Profiles) -> None:
        profile("dev", login_session="arn:aws:iam::111122223333:user/alice", region="eu-west-1")
        assert needed(Login("dev")).remedy == "Run: aws login --profile dev"

    def test_empty_credentials(self, profile: Profiles, monkeypatch: pytest.MonkeyPatch) -> None:
        profile("dev", aws_access_key_id="", aws_secret_access_key="")
        assert "empty" in str(needed(Login("dev")))

    def test_half_of_the_credentials(self, profile: Profiles) -> None:
        profile("dev", aws_access_key_id="AKIADEV")
        error = needed(Login("dev"))
        assert "PartialCredentials" in str(error)
        assert error.remedy == "Correct profile dev in your AWS configuration."

    def test_a_source_that_is_not_there(self, profile: Profiles) -> None:
        profile("dev", role_arn="arn:aws:iam::111122223333:role/x", source_profile="nobody")
        error = needed(Login("dev"))
        assert '"nobody"' in str(error)
        assert error.remedy == "Correct profile dev in your AWS configuration."


class TestRemedies:
    """Where no profile holds the credentials, no command on a profile renews them."""

    def test_variables_come_before_what_a_profile_says(
        self, profile: Profiles, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        profile("default", sso_session="corp", sso_account_id="1", sso_role_name="r")
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIADEV")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", PLANTED)
        login = Login()
        login.credentials()
        assert "into the environment" in login.remedy

    def test_keys_that_were_given(self) -> None:
        login = Login(settings=ClientSettings(keys=("AKIADEV", PLANTED, "")))
        login.credentials()
        assert login.remedy == "Give fresh AWS credentials in place of these."

    async def test_the_role_of_a_container(self, monkeypatch: pytest.MonkeyPatch) -> None:
        given = {
            "AccessKeyId": "ASIADEV",
            "SecretAccessKey": PLANTED,
            "Token": "token",
            "Expiration": "2099-01-01T00:00:00Z",
        }
        async with identity_center(200, "", given) as url:  # answers anything with it
            monkeypatch.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", url)
            login = Login()
            await asyncio.to_thread(login.credentials)
        assert login.remedy == "See that this container still has its role."

    @pytest.mark.parametrize(
        ("source", "says"),
        [
            ("Environment", "into the environment"),
            ("EcsContainer", "this container still has its role"),
            ("Ec2InstanceMetadata", "this instance still has its role"),
        ],
    )
    def test_a_role_on_top_of_what_is_no_profile(
        self, profile: Profiles, source: str, says: str
    ) -> None:
        role = "arn:aws:iam::111122223333:role/ops"
        profile("ops", role_arn=role, credential_source=source, region="eu-west-1")
        assert says in Login("ops").remedy

    def test_a_web_identity(
        self, tmp_path: Path, profile: Profiles, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        role = "arn:aws:iam::111122223333:role/ops"
        absent = str(tmp_path / "token")
        profile("ops", role_arn=role, web_identity_token_file=absent, region="eu-west-1")
        assert "web_identity_token_file of profile ops" in needed(Login("ops")).remedy
        monkeypatch.setenv("AWS_ROLE_ARN", role)
        monkeypatch.setenv("AWS_WEB_IDENTITY_TOKEN_FILE", absent)
        assert "AWS_WEB_IDENTITY_TOKEN_FILE names" in needed(Login()).remedy


class TestSso:
    """boto3 reads what ``aws sso login`` left; without it no call is made."""

    @pytest.fixture
    def home(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        """Where the tokens are."""
        move_token_cache(tmp_path, monkeypatch)
        return tmp_path

    def token(self, home: Path, name: str, expires: str) -> None:
        leave_token(home, name, PLANTED, expires)

    def session_profile(self, profile: Profiles) -> None:
        with Path(os.environ["AWS_CONFIG_FILE"]).open("a") as config:
            config.write(
                "[sso-session corp]\nsso_start_url = https://corp.awsapps.com/start\n"
                "sso_region = eu-west-1\n"
            )
        profile("dev", sso_session="corp", sso_account_id="111122223333", sso_role_name="Developer")

    def legacy_profile(self, profile: Profiles) -> None:
        profile(
            "dev",
            sso_start_url="https://corp.awsapps.com/start",
            sso_region="eu-west-1",
            sso_account_id="111122223333",
            sso_role_name="Developer",
        )

    @pytest.mark.parametrize("kind", ["session", "legacy"])
    def test_without_a_token(self, aws: LocalAws, home: Path, profile: Profiles, kind: str) -> None:
        getattr(self, f"{kind}_profile")(profile)
        assert needed(Login("dev")).remedy == "Run: aws sso login --profile dev"
        assert aws.calls == []

    @pytest.mark.parametrize("kind", ["session", "legacy"])
    def test_with_a_token_that_has_expired(
        self, aws: LocalAws, home: Path, profile: Profiles, kind: str
    ) -> None:
        getattr(self, f"{kind}_profile")(profile)
        name = "corp" if kind == "session" else "https://corp.awsapps.com/start"
        self.token(home, name, "2020-01-01T00:00:00Z")
        error = needed(Login("dev"))
        assert "does not exist" not in str(error)
        assert error.remedy == "Run: aws sso login --profile dev"
        assert PLANTED not in f"{error!r} {error.__cause__!r}"
        assert aws.calls == []

    @pytest.mark.parametrize("level", [logging.INFO, logging.DEBUG])
    def test_it_is_said_once(
        self, home: Path, profile: Profiles, caplog: pytest.LogCaptureFixture, level: int
    ) -> None:
        """By us, in one sentence; botocore's own warnings of it are for a debug log."""
        self.session_profile(profile)
        self.token(home, "corp", "2020-01-01T00:00:00Z")
        with caplog.at_level(level):
            needed(Login("dev"))
        told = [each for each in caplog.records if each.getMessage().startswith("Refreshing")]
        expected = {"botocore.credentials"} if level == logging.DEBUG else set()
        assert {each.name for each in told} == expected
        assert not [each for each in caplog.records if each.levelno > logging.INFO]

    @pytest.mark.parametrize(
        ("code", "status", "kind"),
        [
            ("ForbiddenException", 403, AccessDenied),
            ("UnauthorizedException", 401, LoginNeeded),
            ("TooManyRequestsException", 429, AwsUnavailable),
        ],
    )
    async def test_what_identity_center_says(
        self,
        home: Path,
        profile: Profiles,
        monkeypatch: pytest.MonkeyPatch,
        code: str,
        status: int,
        kind: type[IamAuthError],
    ) -> None:
        monkeypatch.setattr("botocore.endpoint.time", SimpleNamespace(sleep=lambda seconds: None))
        self.session_profile(profile)
        self.token(home, "corp", "2099-01-01T00:00:00Z")
        async with identity_center(status, code, {}) as url:
            monkeypatch.setenv("AWS_ENDPOINT_URL_SSO", url)
            with pytest.raises(IamAuthError) as caught:
                await asyncio.to_thread(Login("dev").credentials)
        assert type(caught.value) is kind
        if isinstance(caught.value, AccessDenied):
            assert caught.value.action == "sso:GetRoleCredentials"

    async def test_after_aws_sso_login_it_works_by_itself(
        self, aws: LocalAws, home: Path, profile: Profiles, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        self.session_profile(profile)
        keys = aws.sso_role("Developer", "ann@example.com")
        given = role_credentials(keys, time.time() + 3600)
        who = AwsPrincipal(CredentialSettings(profile="dev", region="eu-west-1"), {})
        async with identity_center(200, "", given) as url:
            monkeypatch.setenv("AWS_ENDPOINT_URL_SSO", url)
            with pytest.raises(LoginNeeded, match="SSOTokenLoadError"):
                await asyncio.to_thread(who.identity, time.time())
            self.token(home, "corp", "2099-01-01T00:00:00Z")  # what `aws sso login` writes
            identity = await asyncio.to_thread(who.identity, time.time())
        assert identity.arn == keys.arn

    def test_a_role_on_top_of_sso_names_the_profile_below(
        self, home: Path, profile: Profiles
    ) -> None:
        """``aws sso login`` for the role's own profile finds no SSO configuration there."""
        self.session_profile(profile)
        profile("ops", role_arn="arn:aws:iam::111122223333:role/ops", source_profile="dev")
        assert needed(Login("ops")).remedy == "Run: aws sso login --profile dev"


class TestCredentialProcess:
    def process(self, tmp_path: Path, profile: Profiles, program: str) -> Login:
        script = tmp_path / "process.py"
        script.write_text(program)
        profile("dev", credential_process=f"{sys.executable} {script}")
        return Login("dev")

    def test_good(self, tmp_path: Path, profile: Profiles) -> None:
        made = {"Version": 1, "AccessKeyId": "ASIADEV", "SecretAccessKey": PLANTED}
        made["SessionToken"] = "token"
        found = self.process(tmp_path, profile, f"print('''{json.dumps(made)}''')").credentials()
        assert (found.access_key, found.token) == ("ASIADEV", "token")
        assert PLANTED not in repr(found)

    @pytest.mark.parametrize(
        "program",
        [
            f"print('{PLANTED} is no JSON')",
            "print('')",
            "print('[]')",
            "print('{}')",
            "print('{\"Version\": 1}')",
            "print('{\"Version\": 7}')",
            "import sys; sys.exit('no login')",
            "import sys; sys.stdout.buffer.write(b'\\xff')",
            'print(\'{"Version":1,"AccessKeyId":"A","SecretAccessKey":"S","SessionToken":"T",'
            '"Expiration":"2020-01-01T00:00:00Z"}\')',
            'print(\'{"Version":1,"AccessKeyId":"A","SecretAccessKey":"S","Expiration":"soon"}\')',
        ],
    )
    def test_bad(self, tmp_path: Path, profile: Profiles, program: str) -> None:
        error = needed(self.process(tmp_path, profile, program))
        assert "credential_process of profile dev" in error.remedy
        assert PLANTED not in f"{error!r} {error}"

    def test_absent(self, profile: Profiles) -> None:
        profile("dev", credential_process="/no/such/program")
        assert "FileNotFoundError" in str(needed(Login("dev")))

    def test_is_run_once_for_many_threads(self, tmp_path: Path, profile: Profiles) -> None:
        runs = tmp_path / "runs"
        login = self.process(
            tmp_path,
            profile,
            f"open({str(runs)!r}, 'a').write('x')\n"
            'print(\'{"Version":1,"AccessKeyId":"A","SecretAccessKey":"S"}\')',
        )
        with ThreadPoolExecutor(8) as pool:
            assert {c.access_key for c in pool.map(lambda _: login.credentials(), range(8))} == {
                "A"
            }
        assert runs.read_text() == "x"

    def test_that_hangs_does_not_take_every_thread_with_it(
        self, tmp_path: Path, profile: Profiles, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("iam_auth_proxy.aws.login.PATIENCE", 0.05)
        leave = tmp_path / "leave"
        login = self.process(
            tmp_path,
            profile,
            "import os, time\n"
            f"open({str(tmp_path / 'began')!r}, 'w').close()\n"
            f"while not os.path.exists({str(leave)!r}): time.sleep(0.01)\n"
            'print(\'{"Version":1,"AccessKeyId":"A","SecretAccessKey":"S"}\')',
        )
        with ThreadPoolExecutor(1) as pool:
            stuck = pool.submit(login.credentials)
            while not (tmp_path / "began").exists():
                time.sleep(0.01)
            with pytest.raises(AwsUnavailable):
                login.credentials()
            leave.touch()
            assert stuck.result(10).access_key == "A"
        assert login.credentials().access_key == "A"


class TestRolesInProfiles:
    """``role_arn`` in the profile itself: boto3 assumes it."""

    def test_assumed_by_boto3(self, aws: LocalAws, profile: Profiles) -> None:
        alice = aws.user("alice")
        aws.role("ops", trust(alice.arn))
        profile("base", alice.keys())
        profile(
            "ops",
            role_arn="arn:aws:iam::111122223333:role/ops",
            source_profile="base",
            region="eu-west-1",
        )
        assert Login("ops").credentials().token

    def test_not_allowed(self, aws: LocalAws, profile: Profiles) -> None:
        aws.role("ops", trust("444455556666"))
        profile("base", aws.user("alice").keys())
        profile(
            "ops",
            role_arn="arn:aws:iam::111122223333:role/ops",
            source_profile="base",
            region="eu-west-1",
        )
        with pytest.raises(AccessDenied) as caught:
            Login("ops").credentials()
        assert caught.value.action == "sts:AssumeRole"

    def test_keys_below_that_are_not_known_any_more(self, aws: LocalAws, profile: Profiles) -> None:
        alice = aws.user("alice")
        aws.role("ops", trust(alice.arn))
        keys = alice.keys()
        profile("base", keys)
        role = "arn:aws:iam::111122223333:role/ops"
        profile("ops", role_arn=role, source_profile="base", region="eu-west-1")
        alice.deactivate(keys)
        who = AwsPrincipal(CredentialSettings(profile="ops"), {})
        with pytest.raises(LoginNeeded) as caught:
            who.identity(time.time())
        assert caught.value.remedy.endswith("with: aws configure --profile base")

    def test_sts_down(self, aws: LocalAws, profile: Profiles) -> None:
        aws.fault("sts", drop=True, times=None)
        profile("base", aws.user("alice").keys())
        profile("ops", role_arn="arn:aws:iam::111122223333:role/ops", source_profile="base")
        with pytest.raises(AwsUnavailable):
            Login("ops").credentials()

    def test_a_code_is_never_asked_for_on_the_terminal(
        self,
        aws: LocalAws,
        profile: Profiles,
        monkeypatch: pytest.MonkeyPatch,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        def blocked(*args: object) -> str:
            raise AssertionError("a thread waits at the terminal")

        monkeypatch.setattr("getpass.getpass", blocked)
        monkeypatch.setattr("builtins.input", blocked)
        alice = aws.user("alice")
        device = alice.mfa()
        aws.role(
            "ops", trust(alice.arn, Condition={"Bool": {"aws:MultiFactorAuthPresent": "true"}})
        )
        profile("base", alice.keys())
        profile(
            "ops",
            role_arn="arn:aws:iam::111122223333:role/ops",
            source_profile="base",
            mfa_serial=device.serial,
            region="eu-west-1",
        )
        with caplog.at_level(logging.INFO), pytest.raises(MfaNeeded) as caught:
            Login("ops").credentials()
        assert caught.value.serial == device.serial
        assert "Traceback" not in caplog.text
        assert Login("ops", lambda serial: device.code()).credentials().token
