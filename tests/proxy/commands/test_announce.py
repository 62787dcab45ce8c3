"""The three lines at a terminal."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import pytest

from iam_auth_proxy import config
from iam_auth_proxy.aws.base import CallerIdentity
from iam_auth_proxy.errors import AwsUnavailable, LoginNeeded, MfaNeeded
from iam_auth_proxy.proxy.commands.announce import announce, what_next, where

ARN = "arn:aws:iam::111122223333:user/ann"
ANN = CallerIdentity("111122223333", ARN, "AIDA")


def settings(**flags: object) -> config.Settings:
    return config.load({name.replace("_", "-"): flags[name] for name in flags}, {}, [])  # type: ignore[arg-type]  # a test's shorthand


async def told(given: config.Settings, answer: CallerIdentity | Exception) -> list[str]:
    out = io.StringIO()

    async def ask() -> CallerIdentity:
        assert out.getvalue().count("\n") == 1, "the first line does not wait for AWS"
        if isinstance(answer, Exception):
            raise answer
        return answer

    await announce(ask, ["127.0.0.1:8080", "[::1]:8080"], given, out)
    return out.getvalue().splitlines()


async def test_three_lines_in_order() -> None:
    given = settings(profile="dev", trust=["http://*.corp.test=" + KEY, "http://app.test"])
    assert await told(given, ANN) == [
        "Listening on 127.0.0.1:8080 and [::1]:8080 (loopback only: that is :8080 here)",
        f"Signing in as {ARN}, profile dev",
        "Next: iam-auth-proxy browser http://app.test/  or  "
        "curl -x 127.0.0.1:8080 http://app.test/",
    ]


KEY = "arn:aws:kms:eu-west-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab"


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (
            LoginNeeded("secret detail", remedy="Run: aws sso login"),
            "Nobody to sign in as yet: There are no valid AWS credentials. Run: aws sso login",
        ),
        (
            MfaNeeded("arn:aws:iam::111122223333:mfa/ann"),
            "Nobody to sign in as yet: AWS needs a code of your MFA device. It is asked for here, "
            "at the first sign-in.",
        ),
        (
            AwsUnavailable("detail"),
            "Nobody to sign in as yet: AWS did not answer. Try again in a few seconds.",
        ),
    ],
)
async def test_nobody_yet(error: Exception, line: str) -> None:
    lines = await told(settings(), error)
    assert lines[1] == line
    assert len(lines) == 3


@pytest.mark.parametrize(
    ("flags", "why"),
    [
        ({"allow_other_users": "true"}, "every user of this machine (--allow-other-users)"),
        (
            {"client_auth": "users", "bind": "0.0.0.0:8080"},
            "whoever has a password of --client-auth; both are sent in plain, for anybody on the "
            "way to read",
        ),
    ],
)
async def test_who_else_acts_as_this_person(flags: dict[str, str], why: str) -> None:
    lines = await told(settings(**flags), ANN)
    assert lines[2] == f"Everyone who connects acts as {ARN}: {why}"
    lines = await told(settings(**flags), LoginNeeded("x"))
    assert lines[2] == f"Everyone who connects acts as you: {why}"


def test_without_trust_the_next_thing_is_to_trust() -> None:
    assert what_next("127.0.0.1:1", settings()).startswith("Next: trust an app, for example:")


def test_an_app_that_any_browser_opens() -> None:
    given = settings(alias=["wiki=https://wiki.test"])
    url = "http://wiki.localhost:8080/"
    assert what_next("127.0.0.1:8080", given) == f"Next: open {url}  or  curl {url}"
    assert what_next("unix:/run/a", given).startswith("Next: curl --unix-socket")


def test_an_app_on_https_that_nobody_signs_in_to() -> None:
    """Inside a tunnel, that is; another app comes before it."""
    given = settings(trust=["https://wiki.test"])
    said = "Next: iam-auth-proxy trust add https://wiki.test --https alias"
    assert what_next("127.0.0.1:8080", given) == said
    given = settings(trust=["https://wiki.test", "http://app.test"])
    assert "browser http://app.test/ " in what_next("127.0.0.1:8080", given)
    given = settings(intercept=["wiki.test"])
    assert "browser https://wiki.test/ " in what_next("127.0.0.1:8080", given)


def test_addresses() -> None:
    plain = replace(settings(), bind=config.parse_bind("127.0.0.1:1"))
    assert where(["127.0.0.1:1"], plain) == "Listening on 127.0.0.1:1"
    given = settings(trust=["http://app.test"])
    path = str(Path("/run/a b.sock"))
    url = "http://app.test/"
    command = f"curl --unix-socket '/run/a b.sock' --request-target {url} {url}"
    assert what_next(f"unix:{path}", given) == f"Next: {command}"
