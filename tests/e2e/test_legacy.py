"""Our proxy against an app that speaks the original protocol alone; and against hostile ones."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator

import pytest

from iam_auth_proxy.local_aws import allow
from tests.e2e.conftest import USER_ARN, Stack, curl
from tests.support.legacy_app import LegacyApp
from tests.support.processes import Proxy

pytestmark = pytest.mark.e2e

APP = "http://legacy.test"
# Not given by default: it is worth nearly all of the person's rights.
PROOF = ("--proof", "session-credentials")
# What a browser says of a page that it loads, which is then sent through /auth.
PAGE = ("-H", "Upgrade-Insecure-Requests: 1")


@pytest.fixture
def legacy(stack: Stack) -> Iterator[LegacyApp]:
    with LegacyApp(stack.aws, stack.ready.server, stack.ready.key.arn) as app:
        yield app


def mapped(app: LegacyApp, host: str = "legacy.test") -> list[str]:
    return [*PROOF, "--connect-to", f"{host}:80:127.0.0.1:{app.port}"]


def statuses(shown: str) -> list[str]:
    return re.findall(r"^HTTP/1\.\d (\d+)", shown, re.MULTILINE)


@pytest.mark.parametrize("mode", ["auto", "redirect"])
def test_sign_in(stack: Stack, legacy: LegacyApp, mode: str) -> None:
    with stack.proxy("--trust", APP, "--sign-in", mode, *mapped(legacy)) as proxy:
        shown = curl(proxy, *PAGE, "-D", "-", f"{APP}/private?x=1")
    assert statuses(shown) == ["302", "302", "200"]
    assert f"you are {USER_ARN}" in shown
    assert legacy.asked[0] == legacy.asked[2] == "/private?x=1"
    assert legacy.asked[1].startswith("/auth?token=")
    assert set(legacy.host_fields) == {"legacy.test"}
    in_urls = "token=" in shown
    assert in_urls is (mode == "redirect")


def test_a_program_is_just_served(stack: Stack, legacy: LegacyApp) -> None:
    with stack.proxy("--trust", APP, *mapped(legacy)) as proxy:
        shown = [curl(proxy, "-D", "-", f"{APP}/private", cookies=False) for _ in range(3)]
        assert len(proxy.events("signed in")) == 1, "its session is held"
    assert [statuses(each) for each in shown] == [["200"]] * 3
    assert all(f"you are {USER_ARN}" in each for each in shown)


def test_the_cookie_gets_what_the_app_left_out(stack: Stack, legacy: LegacyApp) -> None:
    with stack.proxy("--trust", APP, *mapped(legacy)) as proxy:
        shown = curl(proxy, *PAGE, "-D", "-", f"{APP}/private")
    cookie = re.search(r"^Set-Cookie: (.*?)\r?$", shown, re.MULTILINE)
    assert cookie is not None
    assert cookie[1].endswith("; Path=/; SameSite=Lax")
    assert "Cache-Control: private, no-store" in shown


def test_a_stranger_costs_no_aws_call(stack: Stack, legacy: LegacyApp) -> None:
    before = len(stack.aws.calls)
    with stack.proxy(*mapped(legacy)) as proxy:
        shown = curl(proxy, "-D", "-", f"{APP}/private")
    assert statuses(shown) == ["403"]
    assert f"iam-auth-proxy trust add {APP}" in shown
    assert "not-trusted" in shown
    assert len(stack.aws.calls) == before
    assert "example-user" not in shown


def test_a_page_from_elsewhere_is_not_signed_in(stack: Stack, legacy: LegacyApp) -> None:
    before = len(stack.aws.calls)
    with stack.proxy("--trust", APP, *mapped(legacy)) as proxy:
        shown = curl(proxy, "-D", "-", "-H", "Origin: http://evil.example", f"{APP}/private")
    assert statuses(shown) == ["401"], "the app's own answer, as it came"
    assert "who are you?" in shown
    assert len(stack.aws.calls) == before


def context(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def challenge(stack: Stack, **changes: str) -> list[tuple[str, str]]:
    fields = {
        "WWW-Authenticate": f'IAM realm="{stack.aws.account}"',
        "Iam-Auth-Kms-Key-Id": stack.ready.key.arn,
        "Iam-Auth-Kms-Encryption-Context": context('{"salt":"s"}'),
    }
    fields |= {name.replace("_", "-"): value for name, value in changes.items()}
    return [(name, value) for name, value in fields.items() if value]


def ask(stack: Stack, fields: list[tuple[str, str]], *flags: str) -> tuple[str, Proxy]:
    with (
        LegacyApp(stack.aws, stack.ready.server, stack.ready.key.arn, challenge=fields) as app,
        stack.proxy("--trust", APP, *flags, *mapped(app)) as proxy,
    ):
        return curl(proxy, "-D", "-", f"{APP}/private"), proxy


@pytest.mark.parametrize(
    ("change", "status", "code"),
    [
        ({"WWW_Authenticate": 'IAM realm="222222222222"'}, "403", "wrong-account"),
        ({"WWW_Authenticate": 'IAM realm="12"'}, "502", "bad-challenge"),
        ({"Iam_Auth_Kms_Key_Id": "not a key"}, "502", "bad-challenge"),
        ({"Iam_Auth_Kms_Key_Id": ""}, "502", "bad-challenge"),
        ({"Iam_Auth_Kms_Encryption_Context": "!"}, "502", "bad-challenge"),
        ({"Iam_Auth_Kms_Encryption_Context": context("[]")}, "502", "bad-challenge"),
    ],
)
def test_each_broken_challenge_has_its_page(
    stack: Stack, change: dict[str, str], status: str, code: str
) -> None:
    shown, _ = ask(stack, challenge(stack, **change))
    assert statuses(shown) == [status]
    assert f"[{code}]" in shown


def test_another_scheme_goes_through_untouched(stack: Stack) -> None:
    fields = [("WWW-Authenticate", 'Basic realm="IAM"')]
    shown, _ = ask(stack, fields)
    assert statuses(shown) == ["401"]
    assert "who are you?" in shown


def test_a_key_of_another_account_gets_nothing_sealed(stack: Stack) -> None:
    """The flaw of the original: live credentials for whatever key a page names."""
    with_other = type(stack.aws)(accounts=("111122223333", "999988887777"))
    with with_other as aws:
        thief = aws.key(
            account="999988887777",
            policy={
                "Version": "2012-10-17",
                "Statement": [
                    {
                        "Effect": "Allow",
                        "Principal": {"AWS": "*"},
                        "Action": "kms:*",
                        "Resource": "*",
                    }
                ],
            },
        )
        user = aws.user("careless", policies=[allow("kms:Encrypt", resource="*")])
        fields = challenge(stack, Iam_Auth_Kms_Key_Id=thief.arn)
        with (
            LegacyApp(aws, user.keys(), thief.arn, challenge=fields) as app,
            stack.proxy(
                "--trust",
                APP,
                *mapped(app),
                env=stack.env(user.keys(), AWS_ENDPOINT_URL=aws.url),
            ) as proxy,
        ):
            shown = curl(proxy, "-D", "-", f"{APP}/private")
        assert statuses(shown) == ["403"]
        assert "[wrong-key]" in shown
        assert [call.action for call in aws.calls if call.service == "kms"] == []
