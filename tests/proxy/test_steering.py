"""What the relay is told, and the page of each thing that can go wrong: by real faults of AWS."""

from __future__ import annotations

import asyncio
import json
import os
import re
import socket
import struct
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import pytest

from iam_auth_proxy import policies
from iam_auth_proxy.aws.credentials import CredentialSettings
from iam_auth_proxy.errors import MfaNeeded
from iam_auth_proxy.local_aws import Keys, allow, trust
from iam_auth_proxy.names import parse_origin
from iam_auth_proxy.proxy.decisions.limits import Loops
from tests.proxy.conftest import APP, Answer, Client, Person, Rig, challenge, exchange
from tests.support.legacy_app import LegacyApp
from tests.support.processes import free_port

Become = Callable[[Keys | None], None]
HTML, JSON, TEXT = "text/html,*/*", "application/json", "text/plain"


def guarded(answer: Answer) -> None:
    """security.md, "pages we serve under an app's origin"."""
    policy = answer.one("Content-Security-Policy")
    assert policy == (
        "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'; sandbox"
    )
    assert answer.one("X-Content-Type-Options") == "nosniff"
    assert answer.one("Cache-Control") == "no-store"
    assert answer.one("Referrer-Policy") == "no-referrer"
    assert "Accept" in answer.one("Vary")
    assert not [name for name, _ in answer.headers if name.lower().startswith("access-control")]
    assert not answer.all("Set-Cookie")
    if answer.one("Content-Type").startswith("text/html"):
        assert not re.search(r"<(script|img|iframe|form|link|object)|\son\w+=", answer.text)


@dataclass
class Case:
    """Something that goes wrong.

    :ivar says: what the page says happened; ``remedy``: the one thing to do.
    """

    happen: Callable[[Person, Become, pytest.MonkeyPatch], CredentialSettings | None]
    status: int
    code: str
    says: str
    remedy: str
    key: str = ""


def setting(**values: str) -> CredentialSettings:
    return CredentialSettings(**values)  # type: ignore[arg-type]  # all of these are texts


def no_credentials(person: Person, become: Become, patch: pytest.MonkeyPatch) -> None:
    become(None)


def expired(person: Person, become: Become, patch: pytest.MonkeyPatch) -> None:
    role = person.aws.role("dev", trust(person.aws.account))
    keys = role.session("ann")
    person.aws.expire(keys.access_key_id)
    become(keys)


def unknown_key(person: Person, become: Become, patch: pytest.MonkeyPatch) -> None:
    become(Keys("AKIAAAAAAAAAAAAAAAAA", "s" * 40))


def wrong_secret(person: Person, become: Become, patch: pytest.MonkeyPatch) -> None:
    become(Keys(person.keys.access_key_id, "s" * 40))


def no_sso_login(person: Person, become: Become, patch: pytest.MonkeyPatch) -> CredentialSettings:
    become(None)
    patch.setenv("HOME", os.path.dirname(os.environ["AWS_CONFIG_FILE"]))
    with open(os.environ["AWS_CONFIG_FILE"], "w") as file:
        file.write(
            "[profile 'my dev']\nsso_session = corp\nsso_account_id = 111122223333\n"
            "sso_role_name = Dev\n[sso-session corp]\nsso_region = eu-west-1\n"
            "sso_start_url = https://corp.awsapps.com/start\n"
            "sso_registration_scopes = sso:account:access\n"
        )
    return setting(profile="my dev")


def no_profile(person: Person, become: Become, patch: pytest.MonkeyPatch) -> CredentialSettings:
    with open(os.environ["AWS_CONFIG_FILE"], "w") as file:
        file.write("[profile production]\nregion = eu-west-1\n")
    return setting(profile="producton")


def role_session(person: Person, become: Become, patch: pytest.MonkeyPatch) -> None:
    allowed = allow("kms:Encrypt", resource=person.key.arn)
    become(person.aws.role("dev", trust(person.aws.account), policies=[allowed]).session("ann"))


def sso_session(person: Person, become: Become, patch: pytest.MonkeyPatch) -> None:
    become(person.aws.sso_role("Admin", "ann@example.com"))


def denied(person: Person, become: Become, patch: pytest.MonkeyPatch) -> None:
    become(person.aws.user("bob").keys())


def key_state(state: str) -> Callable[[Person, Become, pytest.MonkeyPatch], None]:
    def happen(person: Person, become: Become, patch: pytest.MonkeyPatch) -> None:
        person.key.state = state

    return happen


def fault(
    service: str = "kms", action: str = "Encrypt", **how: object
) -> Callable[[Person, Become, pytest.MonkeyPatch], None]:
    def happen(person: Person, become: Become, patch: pytest.MonkeyPatch) -> None:
        person.aws.fault(service, action, times=None, **how)  # type: ignore[arg-type]  # as given

    return happen


def skew(seconds: float) -> Callable[[Person, Become, pytest.MonkeyPatch], None]:
    def happen(person: Person, become: Become, patch: pytest.MonkeyPatch) -> None:
        person.aws.skew(seconds)

    return happen


def nobody_there(person: Person, become: Become, patch: pytest.MonkeyPatch) -> None:
    patch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{free_port()}")


def mfa_device(person: Person, become: Become) -> tuple[str, str]:
    user = person.aws.user("mia", policies=[allow("kms:Encrypt", resource=person.key.arn)])
    device = user.mfa()
    become(user.keys())
    return device.serial, device.code()


def mfa_needed(person: Person, become: Become, patch: pytest.MonkeyPatch) -> CredentialSettings:
    return setting(mfa_serial=mfa_device(person, become)[0])


def mfa_wrong(person: Person, become: Become, patch: pytest.MonkeyPatch) -> CredentialSettings:
    serial, code = mfa_device(person, become)
    return setting(mfa_serial=serial, mfa_code=f"{(int(code) + 1) % 1_000_000:06}")


def mfa_reused(person: Person, become: Become, patch: pytest.MonkeyPatch) -> CredentialSettings:
    serial, code = mfa_device(person, become)
    keys = Keys(os.environ["AWS_ACCESS_KEY_ID"], os.environ["AWS_SECRET_ACCESS_KEY"])
    person.aws.client("sts", keys).get_session_token(SerialNumber=serial, TokenCode=code)
    return setting(mfa_serial=serial, mfa_code=code)


def fine(person: Person, become: Become, patch: pytest.MonkeyPatch) -> None:
    pass


FOREIGN_REGION = "arn:aws:kms:us-east-2:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab"
MISSING = "arn:aws:kms:eu-west-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab"

CASES = {
    "no credentials": Case(
        no_credentials, 403, "login-needed", "no valid AWS credentials", "aws sso login"
    ),
    "expired": Case(expired, 403, "login-needed", "session has expired", "AWS credentials"),
    "unknown access key": Case(
        unknown_key, 403, "login-needed", "does not know these credentials", "AWS credentials"
    ),
    "wrong secret key": Case(
        wrong_secret, 403, "login-needed", "does not belong to the access key", "AWS credentials"
    ),
    "no SSO login": Case(
        no_sso_login,
        403,
        "login-needed",
        "no valid AWS credentials",
        "aws sso login --profile 'my dev'",
    ),
    "no such profile": Case(
        no_profile, 403, "login-needed", "profile does not exist", "--profile production"
    ),
    "role session": Case(
        role_session,
        403,
        "session-credentials",
        "AWS makes none for a role",
        "Ask the app's owner",
    ),
    "SSO session": Case(
        sso_session,
        403,
        "session-credentials",
        "AWS makes none for a role",
        "Ask the app's owner",
    ),
    "kms:Encrypt denied": Case(
        denied,
        403,
        "access-denied",
        "may not call kms:Encrypt",
        "allow kms:Encrypt on {key} for arn:aws:iam::111122223333:user/bob",
    ),
    "key disabled": Case(
        key_state("Disabled"), 403, "key-unusable", "key cannot be used", "Tell the app's owner"
    ),
    "key pending deletion": Case(
        key_state("PendingDeletion"), 403, "key-unusable", "key cannot be", "Tell the app's owner"
    ),
    "no such key": Case(
        fine, 403, "key-unusable", "key cannot be used", "Tell the app's owner", key=MISSING
    ),
    "key of another region": Case(
        fine, 403, "key-unusable", "key cannot be", "Tell the app's owner", key=FOREIGN_REGION
    ),
    "KMS throttled": Case(
        fault(code="ThrottlingException"),
        503,
        "aws-unavailable",
        "AWS did not answer",
        "Try again in a few seconds",
    ),
    "STS throttled": Case(
        fault("sts", "GetSessionToken", code="Throttling"),
        503,
        "aws-unavailable",
        "AWS did not answer",
        "Try again",
    ),
    "KMS broken inside": Case(
        fault(code="KMSInternalException", status=500), 503, "aws-unavailable", "AWS did", "again"
    ),
    "not listening": Case(
        nobody_there, 503, "aws-unavailable", "AWS did not answer", "Check the network"
    ),
    "dropped": Case(
        fault("*", "*", drop=True), 503, "aws-unavailable", "AWS did not answer", "network"
    ),
    "cut": Case(fault(truncate=True), 503, "aws-unavailable", "AWS did not answer", "again"),
    "captive portal": Case(
        fault(body=b"<html>Log in to the WiFi", status=200),
        503,
        "aws-unavailable",
        "AWS did not answer",
        "again",
    ),
    "ten seconds": Case(
        fault(delay=10.0), 503, "aws-unavailable", "AWS did not answer", "Try again"
    ),
    "clock behind": Case(
        skew(40 * 60), 403, "clock-skew", "It is 40 min behind AWS", "timedatectl set-ntp true"
    ),
    "clock ahead, KMS alone": Case(
        skew(-7 * 60), 403, "clock-skew", "It is 7 min ahead of AWS", "timedatectl set-ntp true"
    ),
    "region not active": Case(
        fault("sts", "GetSessionToken", code="RegionDisabledException", status=403),
        403,
        "aws-refused",
        "STS is not active",
        "--region",
    ),
    "MFA code wrong": Case(
        mfa_wrong, 403, "mfa-refused", "did not accept the MFA code", "wait for the next one"
    ),
    "MFA code used before": Case(
        mfa_reused, 403, "mfa-refused", "did not accept the MFA code", "wait for the next one"
    ),
    "MFA without a terminal": Case(
        mfa_needed, 403, "mfa-needed", "needs a code", "--mfa-token-code"
    ),
}


@pytest.mark.parametrize("name", CASES)
async def test_each_failure_has_its_page(
    name: str, rig: Rig, person: Person, become: Become, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = CASES[name]
    settings = case.happen(person, become, monkeypatch)
    rig.aws_deadline = 0.5 if name == "ten seconds" else 30.0
    fields = challenge(person, **({"Iam_Auth_Kms_Key_Id": case.key} if case.key else {}))
    with LegacyApp(person.aws, person.server, person.key.arn, challenge=fields) as app:
        await rig.start(("legacy.test", app.port), settings=settings)
        answer = await rig.client().open(f"{APP}/private", Accept=HTML)
        assert not [target for target in app.asked if target.startswith("/auth")]
    guarded(answer)
    page = unescape(answer.text)
    assert answer.status == case.status, page
    assert f"Code: <code>{case.code}</code>" in answer.text
    assert case.says in page
    assert case.remedy.format(key=person.key.arn) in page
    assert answer.all("Retry-After") == (["5"] if case.status == 503 else [])
    assert (rig.signins.unavailable, rig.signins.refused) == (
        (1, 0) if case.status == 503 else (0, 1)
    )


def unescape(page: str) -> str:
    for entity, char in (("&#39;", "'"), ("&#34;", '"'), ("&lt;", "<"), ("&gt;", ">")):
        page = page.replace(entity, char)
    return page.replace("&amp;", "&")


async def test_the_same_in_json_and_text(
    rig: Rig, person: Person, legacy: LegacyApp, become: Become
) -> None:
    become(person.aws.user("bob").keys())
    await rig.start(("legacy.test", legacy.port))
    shown = {media: await rig.client().send(f"{APP}/p", Accept=media) for media in (JSON, TEXT)}
    for answer in shown.values():
        guarded(answer)
        assert answer.status == 403
    document = json.loads(shown[JSON].text)
    assert shown[JSON].one("Content-Type") == "application/json; charset=utf-8"
    assert document.keys() == {"error", "message", "remedy", "policy"}
    assert document["error"] == "access-denied"
    assert document["policy"] == policies.user(None, person.key.arn), "the original's has no origin"
    assert person.key.arn in document["remedy"]
    assert shown[TEXT].one("Content-Type") == "text/plain; charset=utf-8"
    assert shown[TEXT].text == (
        f"iam-auth-proxy: {document['message']}\n  {document['remedy']}   [access-denied]\n"
        f"{policies.dumps(document['policy'])}\n"
    )
    page = unescape((await rig.client().send(f"{APP}/p", Accept=HTML)).text)
    assert policies.dumps(document["policy"]) in page


# -- strangers and other accounts ------------------------------------------------------------------


async def test_a_stranger_gets_no_call_and_no_name(
    rig: Rig, person: Person, legacy: LegacyApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_PROFILE", "planted-profile")
    await rig.start(("legacy.test", legacy.port), trust=["http://another.test"])
    for media in (HTML, JSON, TEXT):
        answer = await rig.client().open(f"{APP}/private", Accept=media)
        guarded(answer)
        assert answer.status == 403
        page = unescape(answer.text)
        assert f"iam-auth-proxy trust add {APP}" in page
        for secret in ("planted-profile", "user/ann", person.keys.arn, "another.test", "/home"):
            assert secret not in answer.text
    assert not person.calls()
    assert rig.steering.challenges_refused == 3


async def test_another_account_is_told_which(rig: Rig, person: Person) -> None:
    fields = challenge(person, WWW_Authenticate='IAM realm="222222222222"')
    with LegacyApp(person.aws, person.server, person.key.arn, challenge=fields) as app:
        await rig.start(("legacy.test", app.port))
        answer = await rig.client().open(f"{APP}/private")
    assert (answer.status, person.calls()) == (403, ["GetCallerIdentity"])
    assert "AWS account 222222222222; yours is of 111122223333" in answer.text
    assert f"iam-auth-proxy trust add {APP} --profile NAME" in answer.text
    assert "[wrong-account]" in answer.text


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"WWW_Authenticate": 'IAM realm="<script>alert(1)</script>"'}, "bad-challenge"),
        ({"Iam_Auth_Kms_Key_Id": "alias/<script>alert(1)</script>"}, "bad-challenge"),
        ({"Iam_Auth_Kms_Encryption_Context": "<script>alert(1)</script>"}, "bad-challenge"),
        (
            {"Iam_Auth_Kms_Key_Id": "arn:aws:kms:eu-west-1:999999999999:key/<script>"},
            "bad-challenge",
        ),
    ],
)
@pytest.mark.parametrize("media", [HTML, JSON, TEXT])
async def test_what_a_challenge_says_is_not_repeated(
    rig: Rig, person: Person, change: dict[str, str], code: str, media: str
) -> None:
    fields = challenge(person, **change)
    with LegacyApp(person.aws, person.server, person.key.arn, challenge=fields) as app:
        await rig.start(("legacy.test", app.port))
        answer = await rig.client().open(f"{APP}/<script>?<script>", Accept=media)
    guarded(answer)
    assert answer.status == 502
    assert code in answer.text
    assert "script>" not in answer.text
    assert not person.calls()


async def test_hostile_values_of_aws_are_escaped(
    rig: Rig, person: Person, legacy: LegacyApp, become: Become
) -> None:
    """A path of IAM may hold any printable character, and a message of AWS anything at all."""
    evil = person.aws.user("eve", path="/<script>alert(1)</script>/")
    become(evil.keys())
    await rig.start(("legacy.test", legacy.port))
    answer = await rig.client().open(f"{APP}/a", Accept=HTML)
    assert "&lt;script&gt;alert(1)" in answer.text
    guarded(answer)
    person.aws.fault(
        "kms", "Encrypt", code="SomethingNew", message="<script>alert(1)</script>", times=None
    )
    answer = await rig.client().open(f"{APP}/a", Accept=HTML)
    assert "Code: <code>aws-refused</code>" in answer.text
    assert "AWS says: &lt;script&gt;alert(1)&lt;/script&gt;." in answer.text
    assert "<script>" not in answer.text
    guarded(answer)


async def test_hostile_profile_names_are_quoted_and_escaped(
    rig: Rig, person: Person, legacy: LegacyApp, become: Become, profile: Callable[[str], None]
) -> None:
    become(None)
    name = "<script>;rm -rf ~"
    profile(f"[profile '{name}']\nregion = eu-west-1\n")
    await rig.start(("legacy.test", legacy.port), settings=setting(profile=name))
    answer = await rig.client().open(f"{APP}/a", Accept=HTML)
    guarded(answer)
    assert "--profile '<script>;rm -rf ~'" in unescape(answer.text)


# -- requests that are not signed in ---------------------------------------------------------------


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "http://evil.test"},
        {"Origin": "null"},
        {"Sec_Fetch_Site": "cross-site"},
        {"User_Agent": "Mozilla/5.0"},
        {"Purpose": "prefetch"},
    ],
)
async def test_the_apps_own_401_goes_through(
    rig: Rig, person: Person, legacy: LegacyApp, headers: dict[str, str]
) -> None:
    await rig.start(("legacy.test", legacy.port))
    answer = await rig.program().open(f"{APP}/a", **headers)
    assert (answer.status, answer.text) == (401, "who are you?")
    assert answer.one("Iam-Auth-Kms-Key-Id") == person.key.arn
    assert not person.calls()


# -- loops -----------------------------------------------------------------------------------------


async def test_a_client_without_cookies_is_told_so(
    rig: Rig, person: Person, legacy: LegacyApp
) -> None:
    await rig.start(("legacy.test", legacy.port))
    client = rig.client()
    for _ in range(3):
        answer = await client.send(f"{APP}/a")
        assert answer.status == 302
        await client.send(f"{APP}{answer.one('Location')}")
        client.cookies.clear()
    answer = await client.send(f"{APP}/a")
    assert answer.status == 401
    assert answer.one("WWW-Authenticate") == 'IAM realm="111122223333"'
    assert "must keep cookies" in answer.text
    assert (await client.send(f"{APP}/elsewhere")).status == 302, "another page is another matter"
    rig.ticking.ahead = 10.0
    assert (await client.send(f"{APP}/a")).status == 302


def test_loops_are_forgotten() -> None:
    loops = Loops(turns=1, seconds=10.0, limit=2)
    app = parse_origin(APP)
    assert not loops.turn(("a", app, b"/"), 0.0)
    assert loops.turn(("a", app, b"/"), 9.0)
    assert not loops.turn(("a", app, b"/"), 10.0)
    for client in "bcd":
        assert not loops.turn((client, app, b"/"), 11.0)
    assert len(loops._seen) == 2


# -- the path to the app ---------------------------------------------------------------------------


async def test_a_dead_app_has_its_page(rig: Rig, person: Person) -> None:
    await rig.start(("legacy.test", free_port()))
    answer = await rig.client().send(f"{APP}/a", Accept=HTML)
    guarded(answer)
    assert answer.status == 502
    assert answer.one("Proxy-Status") == "iam-auth-proxy; error=connection_refused"
    assert "refused the connection" in answer.text
    assert "Check that the app is running" in answer.text


async def test_an_app_that_nobody_trusts_yet_and_that_cannot_be_reached(
    rig: Rig, person: Person
) -> None:
    """What can be done is the same, and names nothing of the person's."""
    await rig.start(("legacy.test", free_port()), trust=[])
    answer = await rig.client().send(f"{APP}/a")
    assert answer.status == 502
    assert "refused the connection" in answer.text
    assert "Check that the app is running" in answer.text


async def test_refusals_of_the_relay_are_plain(rig: Rig, person: Person) -> None:
    await rig.start()
    answer = Answer.parse(await exchange(rig.port, b"GET http://a.test/ HTTP/1.1\r\n\r\n"))
    guarded(answer)
    assert answer.status == 400
    assert answer.text == (
        "iam-auth-proxy: Bad Request: The request has no Host.\n"
        "  Check the program that sent it, and its proxy settings.   [refused]\n"
    )


# -- MFA -------------------------------------------------------------------------------------------


# Three sign-ins that found no code, and the look whether there is a session before a question.
ALL_WAIT = 4


class Prompts:
    """A person who is asked for codes, and answers when told to."""

    def __init__(self, answer: Callable[[str], Awaitable[str]]) -> None:
        self.asked = 0
        self._answer = answer

    async def __call__(self, serial: str) -> str:
        self.asked += 1
        return await self._answer(serial)


async def test_everybody_who_waits_shares_one_question(
    rig: Rig, person: Person, legacy: LegacyApp, become: Become
) -> None:
    user = person.aws.user("mia", policies=[allow("kms:Encrypt", resource=person.key.arn)])
    device = user.mfa()
    become(user.keys())

    async def answer(serial: str) -> str:
        assert serial == device.serial
        await rig.until(lambda: rig.aws_done == ALL_WAIT)
        return device.code()

    prompts = Prompts(answer)
    await rig.start(
        ("legacy.test", legacy.port), settings=setting(mfa_serial=device.serial), ask_mfa=prompts
    )
    clients = [rig.client(name) for name in "abc"]
    answers = await _together(clients)
    assert [each.status for each in answers] == [200, 200, 200]
    assert prompts.asked == 1


async def test_everybody_who_waits_shares_a_refusal(
    rig: Rig, person: Person, legacy: LegacyApp, become: Become
) -> None:
    """Otherwise eight requests would keep a person who went home busy for a quarter of an hour."""

    async def answer(serial: str) -> str:
        await rig.until(lambda: rig.aws_done == ALL_WAIT)
        raise MfaNeeded(serial)

    prompts = Prompts(answer)
    serial, _ = mfa_device(person, become)
    await rig.start(
        ("legacy.test", legacy.port), settings=setting(mfa_serial=serial), ask_mfa=prompts
    )
    answers = await _together([rig.client(name) for name in "abc"])
    assert [each.status for each in answers] == [403, 403, 403]
    assert prompts.asked == 1


async def _together(clients: list[Client]) -> list[Answer]:
    return list(await asyncio.gather(*(each.open(f"{APP}/a") for each in clients)))


async def test_the_question_outlives_who_caused_it(
    rig: Rig, person: Person, legacy: LegacyApp, become: Become
) -> None:
    """Whoever loads the page anew joins it: the digits typed so far count."""
    serial, code = mfa_device(person, become)
    entered = asyncio.Event()

    async def answer(serial: str) -> str:
        await entered.wait()
        return code

    prompts = Prompts(answer)
    await rig.start(
        ("legacy.test", legacy.port), settings=setting(mfa_serial=serial), ask_mfa=prompts
    )
    _, writer = await asyncio.open_connection("127.0.0.1", rig.port)
    writer.write(f"GET {APP}/a HTTP/1.1\r\nHost: legacy.test\r\n\r\n".encode())
    await rig.until(lambda: prompts.asked == 1)
    linger = struct.pack("ii", 1, 0)  # closes with a reset
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    writer.close()
    await rig.until(lambda: rig.relay.counters.abandoned == 1)
    again = asyncio.ensure_future(rig.program().send(f"{APP}/a"))
    await rig.until(lambda: rig.relay.clients == 1)
    entered.set()
    assert (await again).status == 200
    assert prompts.asked == 1


async def test_the_end_of_the_proxy_takes_the_question_back(
    rig: Rig, person: Person, legacy: LegacyApp, become: Become
) -> None:
    """Who waits for it gets a page, and nobody is asked from then on."""

    async def answer(serial: str) -> str:
        await rig.until(lambda: rig.aws_done == ALL_WAIT)
        rig.signins.stop_asking()
        await asyncio.Event().wait()
        raise AssertionError

    prompts = Prompts(answer)
    serial, _ = mfa_device(person, become)
    await rig.start(
        ("legacy.test", legacy.port), settings=setting(mfa_serial=serial), ask_mfa=prompts
    )
    answers = await _together([rig.client(name) for name in "abc"])
    answers.append(await rig.client("d").open(f"{APP}/a"))
    assert [each.status for each in answers] == [503] * 4
    assert all("The proxy is stopping." in each.text for each in answers)
    assert prompts.asked == 1
