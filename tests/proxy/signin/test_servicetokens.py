"""Service tokens that the proxy adds: to which requests, made how often, and how they end."""

from __future__ import annotations

import asyncio
import io
import json
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import trustme

from iam_auth_proxy.aws.base import ClientSettings
from iam_auth_proxy.aws.clients import make_clients
from iam_auth_proxy.aws.credentials import AwsPrincipals, CredentialSettings
from iam_auth_proxy.config import ServiceTokenRule, TrustRule
from iam_auth_proxy.config.values import parse_trust
from iam_auth_proxy.local_aws import Keys, allow, trust
from iam_auth_proxy.names import parse_key_reference, parse_origin
from iam_auth_proxy.proxy.decisions.decide import Authority, ruling
from iam_auth_proxy.proxy.decisions.limits import SIGN_INS
from iam_auth_proxy.proxy.decisions.rules import AppTrust, merge
from iam_auth_proxy.proxy.decisions.trust import Trust
from iam_auth_proxy.proxy.decisions.trustfile import TrustFile
from iam_auth_proxy.proxy.signin.servicetokens import AGAIN, AHEAD, Made, may_carry
from iam_auth_proxy.relay.exchange import Exchange
from iam_auth_proxy.tokens.accepts import Accepts
from iam_auth_proxy.tokens.issuer import LIFETIME
from iam_auth_proxy.tokens.verifier import Verifier
from tests.proxy.conftest import Answer, Person, Rig, exchange
from tests.proxy.decisions.test_decide import cases, head, recorded
from tests.support import vectors
from tests.support.bound_app import bound_app
from tests.support.tls_peers import authority_file, server_context
from tests.support.upstreams import listening

APP = "http://confidant.test"
ORIGIN = parse_origin(APP)
TO = "confidant-production"
Become = Callable[[Keys | None], None]


# -- to which requests -----------------------------------------------------------------------------


def rule(key: str = "alias/authnz", **change: Any) -> ServiceTokenRule:
    return replace(ServiceTokenRule(TO, key, allow_http=True), **change)


def policy_cases() -> Iterator[Any]:
    document = json.loads((vectors.FOLDER / "added_tokens.json").read_text())
    for group in document["groups"]:
        for number, case in enumerate(group["cases"]):
            label = f"{group['added']}-{group['why'][:40]}-{number}"
            yield pytest.param(case, group["added"], group["why"], id=label)


@pytest.mark.parametrize(("case", "added", "why"), [*policy_cases()])
def test_to_which_requests(case: dict[str, Any], added: bool, why: str) -> None:
    target = parse_origin(case["target"])
    request = head(case["method"], case["headers"])
    token = rule(allow_http=case.get("allow_http", False))
    app = AppTrust(target, service_token=token)
    assert may_carry(request, app, ruling(request, target)) is added
    without = replace(app, service_token=None)
    assert not may_carry(request, without, ruling(request, target))
    # Under an alias the judgement was another's; the client's own credentials and http stay so.
    admitted = may_carry(request, app, ruling(request, target), admitted=True)
    assert admitted or not added
    if "credentials" in why or "encrypted" in why or "underscores" in why:
        assert not admitted


def everything_that_is_sent() -> Iterator[Any]:
    for each in (*cases(), *recorded()):
        yield pytest.param(each.values[0], id=each.id)


@pytest.mark.parametrize("case", [*everything_that_is_sent()])
def test_never_without_authority_to_speak(case: dict[str, Any]) -> None:
    """``ruling`` is held to these cases; no other word than replay is one for a token."""
    target = parse_origin(case["target"])
    request = head(case["method"], case["headers"])
    said = ruling(request, target)
    app = AppTrust(target, service_token=rule())
    own = {name.lower() for name, _ in case["headers"]} & {"authorization"}
    expected = said.authority is Authority.REPLAY and not own
    assert may_carry(request, app, said) is expected


def test_not_for_a_wildcard() -> None:
    """The configuration refuses it; were there one, it would be nobody's."""
    everybody = replace(parse_trust("http://*.corp.test"), service_token=rule())
    trusted = Trust([everybody])
    assert merge([everybody])[0][0].service_token is not None
    app = trusted.app(parse_origin("http://evil.corp.test"))
    assert app is not None
    assert app.service_token is None


# -- an app like Confidant -------------------------------------------------------------------------


@dataclass
class Confidant:
    """Takes service tokens and nothing else: 401 without, 403 with a bad one or as ``says`` it.

    :ivar seen: the pairs of X-Auth fields of each request.
    """

    person: Person
    says: int = 200
    seen: list[tuple[str, str]] = field(default_factory=list)
    heads: list[bytes] = field(default_factory=list)
    port: int = 0

    def __post_init__(self) -> None:
        keys = self.person.server
        own = ClientSettings(keys=(keys.access_key_id, keys.secret_access_key, ""))
        kms = make_clients(region_name=self.person.aws.region, settings=own)[0]
        key = (parse_key_reference(self.person.key.arn),)
        accepts = Accepts(to=TO, service_keys=key, user_keys=key)
        self.verifier = Verifier(accepts, lambda: kms)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            await self._answer(reader, writer)

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        raw = await reader.readuntil(b"\r\n\r\n")
        self.heads.append(raw)
        fields = Answer.parse(b"HTTP/1.1 200 OK\r\n" + raw.split(b"\r\n", 1)[1])
        await reader.readexactly(int((fields.all("Content-Length") or ["0"])[0]))
        sent = fields.all("X-Auth-From") + fields.all("X-Auth-Token")
        status, text = 401, "who are you"
        if len(sent) == 2:
            self.seen.append((sent[0], sent[1]))
            status, text = self.says, sent[0]
        head = f"HTTP/1.1 {status} x\r\nContent-Length: {len(text)}\r\n\r\n{text}"
        writer.write(head.encode())
        await writer.drain()


@pytest.fixture
def may(person: Person) -> Person:
    """Ann may encrypt with the key; it has a name besides."""
    person.key.alias("authnz")
    return person


@pytest.fixture
async def app(may: Person) -> AsyncIterator[Confidant]:
    found = Confidant(may)
    async with listening(found.serve) as found.port:
        yield found


def rules(**change: Any) -> list[TrustRule]:
    return [replace(parse_trust(APP), service_token=rule(**change))]


async def start(rig: Rig, app: Confidant, settings: CredentialSettings | None = None) -> Rig:
    await rig.start(("confidant.test", app.port), rules=rules(), settings=settings)
    return rig


@pytest.fixture
async def started(rig: Rig, app: Confidant) -> Rig:
    return await start(rig, app)


def hold_up(rig: Rig) -> asyncio.Event:
    """From now on tokens are made only once this is set."""
    tokens, go = rig.signins.tokens, asyncio.Event()
    makes = tokens._makes

    async def later(*given: Any, **said: Any) -> Made:
        await go.wait()
        return await makes(*given, **said)

    tokens._makes = later
    return go


def encrypts(person: Person) -> int:
    return person.calls().count("Encrypt")


async def test_any_program_is_a_client_of_confidant(started: Rig, app: Confidant) -> None:
    for method, body in (("GET", b""), ("POST", b"{}"), ("DELETE", b"")):
        answer = await started.program().send(f"{APP}/v1/services", method, body)
        assert (answer.status, answer.text) == (200, "2/user/ann")
    assert len(set(app.seen)) == 1
    verified = await asyncio.to_thread(app.verifier.verify, *app.seen[0], time.time())
    assert str(verified.caller) == "2/user/ann"
    # Who it is, and the token; the rest came from memory.
    assert app.person.calls() == ["GetCallerIdentity", "Encrypt"]


async def test_one_call_for_fifty_at_once(started: Rig, app: Confidant) -> None:
    clients = [started.program() for _ in range(50)]
    answers = await asyncio.gather(*(each.send(f"{APP}/x") for each in clients))
    assert {each.status for each in answers} == {200}
    assert encrypts(app.person) == 1
    assert started.signins.tokens.made == 1


async def test_what_the_client_says_of_itself_stays(started: Rig, app: Confidant) -> None:
    client = started.program()
    assert (await client.send(f"{APP}/x", Authorization="Basic eDp5")).status == 401
    assert b"\r\nAuthorization: Basic eDp5\r\n" in app.heads[-1]
    assert b"x-auth" not in app.heads[-1].lower()
    answer = await client.send(f"{APP}/x", X_Auth_From="2/user/bob", X_Auth_Token="t")
    assert (answer.status, app.seen) == (200, [("2/user/bob", "t")])
    assert app.person.calls() == []


async def test_a_browser_gets_none(started: Rig, app: Confidant) -> None:
    assert (await started.program().send(f"{APP}/x")).status == 200
    calls = len(app.person.calls())
    browser = started.program("Mozilla/5.0")
    for fields in ({}, {"Upgrade_Insecure_Requests": "1"}, {"Origin": "http://evil.test"}):
        assert (await browser.send(f"{APP}/x", **fields)).status == 401
    assert len(app.seen) == 1
    assert len(app.person.calls()) == calls


async def test_nothing_is_added_to_what_chromium_sends(started: Rig) -> None:
    """A token is at hand, and the steering itself is asked about what a page can cause."""
    await started.program().send(f"{APP}/x")
    counted = {"replay": 0, "dance": 0, "nothing": 0}
    for given in [each.values[0] for each in recorded()]:
        origin = parse_origin(given["target"].replace("app.test", "confidant.test"))
        fields = [[n, v.replace("app.test", "confidant.test")] for n, v in given["headers"]]
        request = head(given["method"], fields)
        before = [*request.headers]
        assert started.steering.before(Exchange(origin, "127.0.0.1:1", request)) is None
        added = [name for name, _ in request.headers[len(before) :]]
        assert request.headers[: len(before)] == before
        wanted = given["verdict"] == "replay" and origin == ORIGIN
        assert added == ([b"X-Auth-From", b"X-Auth-Token"] if wanted else []), given["kind"]
        counted[given["verdict"]] += 1
    assert all(count > 5 for count in counted.values()), counted


async def test_not_over_http_unless_it_was_said(rig: Rig, app: Confidant) -> None:
    await rig.start(("confidant.test", app.port), rules=rules(allow_http=False))
    assert (await rig.program().send(f"{APP}/x")).status == 401
    assert app.person.calls() == []


async def test_who_answers_on_another_route_gets_none(started: Rig, app: Confidant) -> None:
    """By http it may be anybody of that name: the first route is pinned, as by a sign-in."""
    assert (await started.program().send(f"{APP}/x")).status == 200
    before = started.signins.trust
    known = before.app(ORIGIN)
    assert known is not None
    assert known.pin.route == "direct"
    elsewhere = Trust(rules(), route="socks5h://bastion:1080", before=before)
    started.signins.reconfigure(started.signins.principals, elsewhere)
    calls = len(app.person.calls())
    assert (await started.program().send(f"{APP}/x")).status == 401
    assert (len(app.seen), len(app.person.calls())) == (1, calls)
    started.signins.reconfigure(started.signins.principals, Trust(rules(), before=elsewhere))
    assert (await started.program().send(f"{APP}/x")).status == 200


async def test_an_entry_that_is_written_meanwhile(
    started: Rig, app: Confidant, tmp_path: Path
) -> None:
    """The app's 401 has the file read again, and the request is sent once more if that helps."""
    store = TrustFile(tmp_path / "trust.toml")
    store.add(parse_trust(APP))
    started.signins.reconfigure(started.signins.principals, Trust([], stores=[store]))
    assert (await started.program().send(f"{APP}/x")).status == 401
    store.add(parse_trust("http://other.test"))
    assert (await started.program().send(f"{APP}/x")).status == 401, "it changed, but not for it"
    store.add(rules()[0])
    browser = started.program("Mozilla/5.0")
    assert (await browser.send(f"{APP}/x")).status == 401, "and not for those"
    assert app.seen == []
    store.remove(parse_trust(APP))
    store.add(parse_trust(APP))
    assert (await started.program().send(f"{APP}/x")).status == 401
    store.add(rules()[0])
    answer = await started.program().send(f"{APP}/x", "POST", b"body")
    assert (answer.status, len(app.seen)) == (200, 1)
    assert [raw.startswith(b"POST ") for raw in app.heads[-2:]] == [True, True]


# -- whose it is -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "username"),
    [
        ({}, "2/service/ci"),
        ({"type": "service"}, "2/service/ci"),
        ({"name": "ann", "type": "user"}, "2/user/ann"),
        ({"name": "ann"}, "2/user/ann"),
    ],
)
async def test_as_a_role(
    rig: Rig, app: Confidant, become: Become, change: dict[str, str], username: str
) -> None:
    aws = app.person.aws
    role = aws.role("ci", trust(aws.account), policies=[allow("kms:Encrypt")])
    become(role.session("build-7"))
    await rig.start(("confidant.test", app.port), rules=rules(**change))
    assert (await rig.program().send(f"{APP}/x")).text == username


@pytest.mark.parametrize("type", ["", "user", "service"])
async def test_who_has_no_name_is_told_what_to_write(
    rig: Rig, app: Confidant, become: Become, type: str
) -> None:
    """A permission set is many people's."""
    become(app.person.aws.sso_role("Dev", "ann@example.com", policies=[allow("kms:Encrypt")]))
    placed = [replace(each, place="config.toml:7") for each in rules(type=type)]
    await rig.start(("confidant.test", app.port), rules=placed)
    answer = await rig.program().send(f"{APP}/x")
    assert answer.status == 403
    assert "[no-name]" in answer.text
    assert 'write the name that the policy of its key allows you: from = "NAME"' in answer.text
    assert "(config.toml:7)" in answer.text
    assert app.heads == []


# -- in time ---------------------------------------------------------------------------------------


async def test_it_is_renewed_ahead_and_nobody_waits(started: Rig, app: Confidant) -> None:
    tokens = started.signins.tokens
    await started.program().send(f"{APP}/x")
    started.wall.ahead += LIFETIME - AHEAD + 1
    go = hold_up(started)
    await asyncio.gather(*(started.program().send(f"{APP}/x") for _ in range(5)))
    assert (len(app.seen), len(set(app.seen)), tokens.made) == (6, 1, 1), "the old one served"
    go.set()
    await started.until(lambda: tokens.made == 2)
    await started.program().send(f"{APP}/x")
    assert len(set(app.seen)) == 2
    assert encrypts(app.person) == 2


async def test_a_renewal_that_comes_too_late_is_waited_for(started: Rig, app: Confidant) -> None:
    """It is joined, and not begun once more."""
    await started.program().send(f"{APP}/x")
    started.wall.ahead += LIFETIME - AHEAD + 1
    go = hold_up(started)
    await started.program().send(f"{APP}/x")
    started.wall.ahead += AHEAD
    waiting = asyncio.create_task(started.program().send(f"{APP}/x"))
    await started.until(lambda: started.signins.tokens.held(ORIGIN) is None)
    go.set()
    assert (await waiting).status == 200
    assert len(set(app.seen)) == 2
    assert encrypts(app.person) == 2


async def test_without_requests_nothing_is_renewed(started: Rig, app: Confidant) -> None:
    await started.program().send(f"{APP}/x")
    started.wall.ahead += 3600
    assert started.signins.in_progress == 0
    assert encrypts(app.person) == 1
    assert (await started.program().send(f"{APP}/x")).status == 200
    assert len(set(app.seen)) == 2, "what is over is not sent"


async def test_a_clock_that_is_put_back(started: Rig, app: Confidant) -> None:
    await started.program().send(f"{APP}/x")
    started.wall.ahead -= 3600
    await started.program().send(f"{APP}/x")
    assert len(set(app.seen)) == 2, "one that is not valid yet is not sent"


async def test_a_renewal_that_fails_leaves_the_old_one(started: Rig, app: Confidant) -> None:
    tokens = started.signins.tokens
    await started.program().send(f"{APP}/x")
    app.person.aws.fault("kms", "Encrypt", code="AccessDeniedException", times=None)
    started.wall.ahead += LIFETIME - AHEAD + 1
    for _ in range(3):
        assert (await started.program().send(f"{APP}/x")).status == 200
        await started.until(lambda: started.signins.in_progress == 0)
    assert tokens.failed == 1, "and is not tried again at once"
    started.wall.ahead += AGAIN
    assert (await started.program().send(f"{APP}/x")).status == 200
    await started.until(lambda: tokens.failed == 2)


# -- what AWS says ---------------------------------------------------------------------------------


async def test_an_outage_is_no_refusal(started: Rig, app: Confidant) -> None:
    fault = app.person.aws.fault("kms", "Encrypt", status=500, times=None)
    answer = await started.program().send(f"{APP}/x")
    assert (answer.status, answer.one("Retry-After")) == (503, "5")
    assert "AWS did not answer" in answer.text
    assert "[aws-unavailable]" in answer.text
    assert app.heads == [], "without its token the request went nowhere"
    assert fault.hits
    app.person.aws.clear_faults()
    assert (await started.program().send(f"{APP}/x")).status == 200


async def test_a_token_at_hand_outlives_an_outage(started: Rig, app: Confidant) -> None:
    await started.program().send(f"{APP}/x")
    app.person.aws.fault("*", status=500, times=None)
    for _ in range(3):
        assert (await started.program().send(f"{APP}/x")).status == 200


async def test_who_may_not(started: Rig, app: Confidant, become: Become) -> None:
    become(app.person.aws.user("bob").keys())
    answer = await started.program().send(f"{APP}/x")
    assert answer.status == 403
    assert "not allowed to make this app's service token" in answer.text
    assert f"iam-auth-proxy policies token --to {TO}" in answer.text
    assert "[access-denied]" in answer.text
    assert app.heads == []


async def test_a_key_that_is_not_there(rig: Rig, app: Confidant) -> None:
    await rig.start(("confidant.test", app.port), rules=rules(key="alias/other"))
    answer = await rig.program().send(f"{APP}/x")
    assert answer.status == 403
    assert "alias/other is looked up in the account and region of your AWS profile" in answer.text
    assert "[key-unusable]" in answer.text


async def test_nobody_is_logged_in(started: Rig, app: Confidant, become: Become) -> None:
    become(None)
    answer = await started.program().send(f"{APP}/x")
    assert answer.status == 403
    assert "[login-needed]" in answer.text
    become(app.person.keys)
    assert (await started.program().send(f"{APP}/x")).status == 200, "it is not remembered"


async def test_kms_is_not_asked_without_end(started: Rig, app: Confidant) -> None:
    app.person.aws.fault("kms", "Encrypt", code="AccessDeniedException", times=None)
    statuses = [(await started.program().send(f"{APP}/x")).status for _ in range(SIGN_INS + 2)]
    assert statuses == [403] * SIGN_INS + [429] * 2
    assert started.signins.tokens.failed == SIGN_INS
    started.ticking.ahead += 5
    assert (await started.program().send(f"{APP}/x")).status == 403


async def test_a_code_is_asked_for_once(rig: Rig, app: Confidant, become: Become) -> None:
    carol = app.person.aws.user("carol", policies=[allow("*")])
    asked: list[str] = []

    async def ask(serial: str) -> str:
        asked.append(serial)
        return mfa.code()

    mfa = carol.mfa()
    become(carol.keys())
    settings = CredentialSettings(mfa_serial=mfa.serial)
    await rig.start(("confidant.test", app.port), rules=rules(), settings=settings, ask_mfa=ask)
    answers = await asyncio.gather(*(rig.program().send(f"{APP}/x") for _ in range(3)))
    assert {each.text for each in answers} == {"2/user/carol"}
    assert len(asked) == 1


# -- what the app says -----------------------------------------------------------------------------


@pytest.mark.parametrize("status", [401, 403])
async def test_a_refusal_is_the_apps_own_and_says_what_was_sent(
    started: Rig, app: Confidant, status: int, logged: io.StringIO
) -> None:
    app.says = status
    for _ in range(3):
        answer = await started.program().send(f"{APP}/x")
        assert (answer.status, answer.text) == (status, "2/user/ann")
        assert answer.one("Iam-Auth-Service-Token") == f"2/user/ann to {TO}"
    entries = [json.loads(line) for line in logged.getvalue().splitlines()]
    (warned,) = [each for each in entries if "refused a service token" in each["message"]]
    assert warned["origin"] == APP
    assert f"2/user/ann to {TO}, key {app.person.key.arn}" in warned["detail"]
    assert encrypts(app.person) == 1
    # Its alias may stand for another key since.
    started.wall.ahead += AGAIN + 1
    await started.program().send(f"{APP}/x")
    await started.program().send(f"{APP}/x")
    assert encrypts(app.person) == 2
    app.says = 200
    answer = await started.program().send(f"{APP}/x")
    assert answer.status == 200
    assert answer.all("Iam-Auth-Service-Token") == []


# -- an app on https, under its alias --------------------------------------------------------------


async def test_under_an_alias(rig: Rig, may: Person, tmp_path: Path) -> None:
    """Each request that is let in is the person's: a page that they typed, the app's own, curl's.

    The app is our own gate, and by https there is nothing to allow.
    """
    url, authority = "https://wiki.test", trustme.CA()
    tls = server_context(authority.issue_cert("wiki.test"))
    key = may.key.arn
    settings = {"token_audience": TO, "user_keys": [key], "allow": ["token-user:ann"]}
    async with bound_app(may.aws, may.server, key, url, tls=tls, **settings) as wiki:
        token = ServiceTokenRule(TO, "alias/authnz")
        entry = replace(parse_trust(url), https="alias", alias="wiki", service_token=token)
        cacert = authority_file(authority, tmp_path)
        await rig.start(("wiki.test", wiki.port), rules=[entry], cacert=cacert)
        here = f"http://wiki.localhost:{rig.port}"
        typed = {
            "Sec_Fetch_Site": "none",
            "Sec_Fetch_Mode": "navigate",
            "Sec_Fetch_Dest": "document",
        }
        own = {"Sec_Fetch_Site": "same-origin", "User_Agent": "Mozilla/5.0"}
        for fields in (typed, own, {}):
            answer = await by_its_alias(rig, here, **fields)
            assert (answer.status, answer.text) == (200, "GET 0 bytes of kmsauth:user/ann")
        asked = len(wiki.asked)
        answer = await by_its_alias(rig, here, Sec_Fetch_Site="cross-site")
        assert (answer.status, len(wiki.asked)) == (403, asked)
        assert encrypts(may) == 1


async def by_its_alias(rig: Rig, url: str, **fields: str) -> Answer:
    host = url.removeprefix("http://")
    lines = [f"{name.replace('_', '-')}: {value}" for name, value in fields.items()]
    head = "\r\n".join(["GET /a HTTP/1.1", f"Host: {host}", "Connection: close", *lines, "", ""])
    return Answer.parse(await exchange(rig.port, head.encode()))


# -- how it ends -----------------------------------------------------------------------------------


async def test_a_logout_is_one(started: Rig, app: Confidant) -> None:
    await started.program().send(f"{APP}/x")
    started.signins.signed_out(ORIGIN)
    assert started.signins.tokens.held(ORIGIN) is None
    answer = await started.program().send(f"{APP}/x")
    assert answer.status == 403
    assert "You signed out of this app." in answer.text
    assert f"iam-auth-proxy logout --undo {APP}" in answer.text
    assert (len(app.heads), len(app.seen)) == (2, 1), "it is the app that wants to know who it is"
    assert encrypts(app.person) == 1
    started.signins.signs_in_again(ORIGIN)
    assert (await started.program().send(f"{APP}/x")).status == 200
    assert len(set(app.seen)) == 2


async def test_a_logout_while_one_is_made(started: Rig, app: Confidant) -> None:
    go = hold_up(started)
    waiting = asyncio.create_task(started.program().send(f"{APP}/x"))
    await started.until(lambda: bool(started.signins.in_progress))
    started.signins.signed_out(ORIGIN)
    go.set()
    assert "[signed-out]" in (await waiting).text
    assert app.seen == []
    assert len(started.signins.tokens) == 0


@pytest.mark.parametrize("entry", ["gone", "without", "another"])
async def test_an_entry_that_changes_while_one_is_made(
    started: Rig, app: Confidant, entry: str
) -> None:
    """It may take as long as an MFA code, and then it is not the entry of before that counts."""
    app.person.aws.key("other").alias("other")
    changed = {
        "gone": [],
        "without": [parse_trust(APP)],
        "another": rules(type="user", name="ann", key="alias/other"),
    }[entry]
    go = hold_up(started)
    waiting = asyncio.create_task(started.program().send(f"{APP}/x"))
    await started.until(lambda: bool(started.signins.in_progress))
    started.signins.reconfigure(started.signins.principals, Trust(changed))
    go.set()
    answer = await waiting
    assert answer.status == {"gone": 403, "without": 401, "another": 403}[entry]
    assert app.seen == []


async def test_a_reload_ends_it_and_another_key_is_used(
    started: Rig, app: Confidant, become: Become
) -> None:
    await started.program().send(f"{APP}/x")
    other = app.person.aws.key("other")
    become(app.person.aws.user("dan", policies=[allow("kms:Encrypt")]).keys())
    principals = AwsPrincipals(CredentialSettings())
    started.signins.reconfigure(principals, Trust(rules(key="alias/other")))
    await started.program().send(f"{APP}/x")
    held = started.signins.tokens.held(ORIGIN)
    assert held is not None
    assert held.token.key_arn == other.arn
    assert app.seen[-1][0] == "2/user/dan"


async def test_another_profile_or_entry_gets_another(started: Rig, app: Confidant) -> None:
    await started.program().send(f"{APP}/x")
    tokens = started.signins.tokens
    found = started.signins.trust.app(ORIGIN)
    assert found is not None
    held = tokens.held(ORIGIN)
    for other in (replace(found, profile="ops"), replace(found, service_token=rule(to="x"))):
        assert tokens.at_hand(found) is held
        assert tokens.at_hand(other) is None
        tokens._held[ORIGIN] = held  # type: ignore[assignment]  # it was there


async def test_another_identity_ends_it(started: Rig, app: Confidant) -> None:
    """A sign-in elsewhere may be what finds out that the profile is somebody else by now."""
    await started.program().send(f"{APP}/x")
    tokens = started.signins.tokens
    held = tokens.held(ORIGIN)
    assert held is not None
    tokens.is_now("", held.made.arn)
    tokens.is_now("ops", "arn:aws:iam::111122223333:user/bob")
    assert tokens.held(ORIGIN) is held
    tokens.is_now("", "arn:aws:iam::111122223333:user/bob")
    assert tokens.held(ORIGIN) is None


async def test_what_is_being_made_when_all_is_forgotten_is_nobodys(
    started: Rig, app: Confidant
) -> None:
    go = hold_up(started)
    waiting = asyncio.create_task(started.program().send(f"{APP}/x"))
    await started.until(lambda: bool(started.signins.in_progress))
    started.signins.forget()
    go.set()
    assert (await waiting).status == 200, "who asked before gets it"
    assert len(started.signins.tokens) == 0


# -- secrets ---------------------------------------------------------------------------------------


async def test_it_is_said_nowhere(started: Rig, app: Confidant, logged: io.StringIO) -> None:
    await started.program().send(f"{APP}/x")
    app.says = 403
    answer = await started.program().send(f"{APP}/x")
    token = app.seen[0][1]
    tokens = started.signins.tokens
    shown = logged.getvalue() + repr(tokens.held(ORIGIN)) + repr(answer) + repr(tokens._held)
    assert "service token made" in shown
    assert app.person.key.arn in shown, "which key that was, it says"
    for secret in (token, token[:40], app.person.keys.secret_access_key):
        assert secret not in shown
