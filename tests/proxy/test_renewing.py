"""Browsers' sessions are renewed ahead: off the path of every request, and never unasked for."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import pytest

from iam_auth_proxy.aws.credentials import AwsPrincipals, CredentialSettings
from iam_auth_proxy.config import TrustRule
from iam_auth_proxy.config.values import parse_trust
from iam_auth_proxy.local_aws import Keys, allow
from iam_auth_proxy.names import parse_origin
from iam_auth_proxy.proxy.decisions.trust import Trust
from iam_auth_proxy.proxy.decisions.trustfile import TrustFile
from iam_auth_proxy.proxy.signin.kept import KeptSession
from iam_auth_proxy.proxy.signin.renewal import RETRY_AFTER
from iam_auth_proxy.relay.exchange import Exchange, RequestHead, ResponseHead
from iam_auth_proxy.server.facts import Reply, RequestFacts
from tests.proxy.conftest import Answer, Client, Person, Rig, ShiftedClock
from tests.support.bound_app import BoundApp, bound_app
from tests.support.legacy_app import LegacyApp

APP = "http://app.test"
ORIGIN = parse_origin(APP)
FETCH = {"User_Agent": "Mozilla/5.0", "Origin": APP}
REISSUED = 55
"""Seconds after which the gate of these tests sets its cookie anew; within its skew."""

T = TypeVar("T")
Become = Callable[[Keys | None], None]


@pytest.fixture
async def app(person: Person) -> AsyncIterator[BoundApp]:
    async with bound_app(
        person.aws, person.server, person.key.arn, APP, max_session=43200, idle=200
    ) as app:
        yield app


@pytest.fixture
async def started(rig: Rig, app: BoundApp) -> Rig:
    await rig.start(("app.test", app.port), trust=[APP])
    return rig


@pytest.fixture
async def browser(started: Rig) -> Client:
    """Signed in by its page, and near the end of its session."""
    client = started.client()
    assert (await fetch(client, "/a")).status == 200
    near_the_end(started)
    return client


async def fetch(client: Client, target: str = "/x", **more: str) -> Answer:
    """What the app's own page asks for; without a session it is sent again with one."""
    answer = await client.send(f"{APP}{target}", **{**FETCH, **more})
    if answer.status == 307:
        return await client.send(f"{APP}{target}", **{**FETCH, **more})
    return answer


def kept(rig: Rig) -> KeptSession:
    (session,) = rig.signins.sessions.kept
    return session


def near_the_end(rig: Rig) -> None:
    kept(rig).due.at = rig.wall()


async def renewed(rig: Rig, client: Client, target: str = "/b") -> KeptSession:
    """A request that begins a renewal, and the session once the next one is there."""
    session = kept(rig)
    answer = await fetch(client, target)
    assert (answer.status, answer.all("Set-Cookie")) == (200, [])
    await rig.until(lambda: session.next is not None)
    return session


async def nothing_begun(rig: Rig, app: BoundApp, handed: int = 1) -> None:
    await rig.until(lambda: not rig.signins.in_progress)
    assert len(app.handed_over) == handed
    assert rig.signins.renewed == 0


# -- how it goes -----------------------------------------------------------------------------------


async def test_off_the_path_and_given_in_the_next_answer(
    started: Rig, app: BoundApp, person: Person, browser: Client
) -> None:
    before = dict(browser.cookies)
    person.aws.clear_calls()
    app.sts.checks, asked = 0, len(app.asked)
    await renewed(started, browser)
    assert sorted((each.method, each.target) for each in app.asked[asked:]) == [
        ("GET", "/auth"),
        ("GET", "/b"),
        ("POST", "/auth"),
    ]
    calls = person.calls()
    calls.remove("GetCallerIdentity")  # the app's check, by the person's signature
    assert calls == ["Encrypt"], "one AWS call, and nobody waited for it"
    answer = await fetch(browser, "/c?public=1")
    assert answer.status == 200
    assert answer.one("Set-Cookie").startswith("iam-auth=")
    assert "private" in answer.one("Cache-Control")
    assert "public" not in answer.one("Cache-Control")
    assert browser.cookies != before
    assert started.signins.renewed == 1
    again = await fetch(browser, "/d")
    assert (again.status, again.all("Set-Cookie")) == (200, [])
    assert len(app.handed_over) == 2
    assert kept(started).expires - started.wall() == pytest.approx(43200, abs=10)
    assert kept(started).expires - kept(started).due.at == 600


async def test_nothing_of_the_browser_goes_along(
    started: Rig, app: BoundApp, browser: Client
) -> None:
    asked = len(app.asked)
    await renewed(started, browser)
    for each in app.asked[asked:]:
        if each.target == "/auth":
            assert not each.all("Origin")
            assert not [value for value in each.all("Cookie") if "iam-auth=" in value]


async def test_a_session_of_the_dance_is_renewed_too(started: Rig, app: BoundApp) -> None:
    client = started.client("Mozilla/5.0")
    assert (await client.open(f"{APP}/a")).status == 200
    near_the_end(started)
    await renewed(started, client)
    assert (await fetch(client)).all("Set-Cookie")
    assert (await client.send(f"{APP}/c")).status == 200
    assert len(app.handed_over) == 2


async def test_and_of_a_program_with_a_jar(started: Rig, app: BoundApp) -> None:
    client = started.program(keeps=True)
    await client.send(f"{APP}/a")
    near_the_end(started)
    session = kept(started)
    await client.send(f"{APP}/b")
    await started.until(lambda: session.next is not None)
    assert (await client.send(f"{APP}/c")).all("Set-Cookie")
    assert (await client.send(f"{APP}/d")).status == 200
    assert len(app.handed_over) == 2


async def test_and_one_that_was_begun_by_a_body_too_long_to_be_kept(
    started: Rig, app: BoundApp
) -> None:
    started.relay.keep_bodies(0)
    client = started.client("Mozilla/5.0")
    answer = await client.send(f"{APP}/a", "POST", b"x" * (8 << 20), Origin=APP)
    assert answer.status == 307
    assert (await client.send(f"{APP}/a", "POST", b"x", Origin=APP)).status == 200
    near_the_end(started)
    await renewed(started, client)
    assert (await fetch(client)).all("Set-Cookie")


async def test_given_once(started: Rig, app: BoundApp, browser: Client) -> None:
    await renewed(started, browser)
    old = dict(browser.cookies)
    answers = await asyncio.gather(*(fetch(browser, f"/{n}") for n in range(10)))
    assert [answer.status for answer in answers] == [200] * 10
    assert len([answer for answer in answers if answer.all("Set-Cookie")]) == 1
    browser.cookies = old
    late = await fetch(browser)
    assert (late.status, late.all("Set-Cookie")) == (200, [])
    await nothing_left(started)
    assert len(app.handed_over) == 2


async def nothing_left(rig: Rig) -> None:
    await rig.until(lambda: not rig.signins.in_progress)


async def test_many_requests_begin_one_renewal(
    started: Rig, app: BoundApp, browser: Client
) -> None:
    browser.keeps = False
    await asyncio.gather(*(fetch(browser, f"/{n}") for n in range(20)))
    await nothing_left(started)
    assert len(app.handed_over) == 2


# -- for whom --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "http://evil.test"},
        {"Origin": "null"},
        {"Sec_Fetch_Site": "cross-site"},
        {"Sec_Fetch_Site": "same-site"},
        {"Sec_Fetch_Site": "same-origin", "Sec_Purpose": "prefetch"},
        {"Upgrade_Insecure_Requests": "1"},
        {"Sec_Fetch_Site": "none", "Sec_Fetch_Mode": "navigate", "Sec_Fetch_Dest": "document"},
        {"Referer": "http://evil.test/"},
        {},
    ],
)
async def test_only_where_the_proxy_may_speak(
    started: Rig, app: BoundApp, browser: Client, headers: dict[str, str]
) -> None:
    """Neither begun nor given, though the cookie goes along; and then it is, to the app's page."""

    async def send() -> Answer:
        browser.program = True  # no fields but these
        answer = await browser.send(f"{APP}/b", **{"User_Agent": "Mozilla/5.0", **headers})
        browser.program = False
        return answer

    answer = await send()
    assert (answer.status, answer.all("Set-Cookie")) == (200, [])
    await nothing_begun(started, app)
    await renewed(started, browser)
    answer = await send()
    assert (answer.status, answer.all("Set-Cookie")) == (200, [])
    assert (await fetch(browser)).all("Set-Cookie")


async def test_only_with_the_very_cookie(
    started: Rig, app: BoundApp, browser: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A request without it was perhaps meant to have none, such as ``credentials: "omit"``."""
    real = app.see

    def see(facts: RequestFacts) -> RequestFacts | Reply:
        return Reply(200, ()) if facts.path == "/open" else real(facts)

    monkeypatch.setattr(app, "see", see)
    bare = started.client()
    others = [{}, {"Cookie": "iam-auth=x"}, {"Cookie": "theirs=1"}]
    for other in others:
        assert (await fetch(bare, "/open", **other)).status == 200
    await nothing_begun(started, app)
    await renewed(started, browser)
    for other in others:
        assert not (await fetch(bare, "/open", **other)).all("Set-Cookie")
    assert (await fetch(browser)).all("Set-Cookie")


async def test_only_for_the_client_that_was_given_it(
    started: Rig, app: BoundApp, browser: Client
) -> None:
    thief = started.client()
    thief.cookies = dict(browser.cookies)
    assert (await fetch(thief, User_Agent="Mozilla/5.0 (thief)")).status == 200
    await nothing_begun(started, app)
    await renewed(started, browser)
    answer = await fetch(thief, User_Agent="Mozilla/5.0 (thief)")
    assert (answer.status, answer.all("Set-Cookie")) == (200, [])


async def test_a_page_that_may_speak_to_it_counts_as_its_own(
    rig: Rig, app: BoundApp, person: Person
) -> None:
    friend = "http://friend.test"
    rule = replace(parse_trust(APP), allow_from=(parse_origin(friend),))
    await rig.start(("app.test", app.port), rules=[rule])
    client = rig.client()
    await fetch(client, "/a")
    near_the_end(rig)
    session = kept(rig)
    await fetch(client, Origin=friend)
    await rig.until(lambda: session.next is not None)
    assert (await fetch(client, Origin=friend)).all("Set-Cookie")


async def test_a_request_with_a_held_session_is_no_clients_own(started: Rig, app: BoundApp) -> None:
    client = started.program()
    await client.send(f"{APP}/a")
    near_the_end(started)
    assert (await client.send(f"{APP}/b")).status == 200
    await nothing_begun(started, app)


@pytest.mark.parametrize("status", [403, 421, 500, 503])
async def test_only_where_the_app_took_the_request(
    started: Rig, app: BoundApp, browser: Client, status: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = app.see

    def see(facts: RequestFacts) -> RequestFacts | Reply:
        return real(facts) if facts.path == "/auth" else Reply(status, ())

    monkeypatch.setattr(app, "see", see)
    assert (await fetch(browser)).status == status
    await nothing_begun(started, app)


async def test_an_upgrade_is_given_nothing(started: Rig, browser: Client) -> None:
    class Upgrade(Exchange):
        upgrade = True  # type: ignore[assignment]  # a property of every other exchange

    session = await renewed(started, browser)
    headers = [(b"Origin", APP.encode()), (b"User-Agent", b"Mozilla/5.0")]
    pairs = "; ".join(f"{name}={value}" for name, value in browser.cookies.items())
    request = RequestHead(b"GET", b"/ws", [*headers, (b"Cookie", pairs.encode())])
    answer = ResponseHead(101, [])
    assert started.steering.after(Upgrade(ORIGIN, "127.0.0.1:1", request), answer) is None
    assert answer.headers == []
    assert session.next is not None
    plain = ResponseHead(200, [])
    assert started.steering.after(Exchange(ORIGIN, "127.0.0.1:1", request), plain) is None
    assert plain.get_all(b"set-cookie"), "which any other would"


async def test_a_legacy_session_is_not(rig: Rig, legacy: LegacyApp) -> None:
    await rig.start(("legacy.test", legacy.port))
    assert (await rig.client().open("http://legacy.test/a")).status == 200
    assert not len(rig.signins.sessions.kept)


# -- the app's own cookie --------------------------------------------------------------------------


async def test_the_cookie_that_the_app_sets_anew_is_followed(
    started: Rig, app: BoundApp, browser: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept(started).due.at += 3600
    first = dict(browser.cookies)
    with monkeypatch.context() as patch:
        later(patch)
        assert (await fetch(browser)).all("Set-Cookie")
    assert browser.cookies != first
    near_the_end(started)
    await renewed(started, browser)
    assert (await fetch(browser)).all("Set-Cookie")
    assert started.signins.renewed == 1


async def test_an_answer_that_sets_it_anew_is_left_alone(
    started: Rig, app: BoundApp, browser: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = await renewed(started, browser)
    assert session.next is not None
    assert session.next.granted is not None
    (fresh,) = session.next.granted.set_cookies
    with monkeypatch.context() as patch:
        later(patch)
        assert (await fetch(browser)).one("Set-Cookie") != fresh.decode()
    assert (await fetch(browser)).one("Set-Cookie") == fresh.decode()


def later(patch: pytest.MonkeyPatch, seconds: float = REISSUED) -> None:
    """By the gate's clock."""
    ahead = ShiftedClock(time.time)
    ahead.ahead = seconds
    patch.setattr("iam_auth_proxy.server.aiohttp.time.time", ahead)


async def test_a_session_that_the_app_refuses_is_not_waited_for(
    started: Rig, app: BoundApp, browser: Client
) -> None:
    session = await renewed(started, browser)
    app.deaf = 1
    assert (await fetch(browser)).status == 200
    assert kept(started) is not session, "a sign-in, as at every challenge"
    assert len(app.handed_over) == 3
    assert not (await fetch(browser)).all("Set-Cookie")


async def test_past_its_end_nothing_is_renewed(
    started: Rig, app: BoundApp, browser: Client
) -> None:
    kept(started).expires = started.wall()
    assert (await fetch(browser)).status == 200
    await nothing_begun(started, app)
    assert not len(started.signins.sessions.kept)


# -- what ends it ----------------------------------------------------------------------------------


def forget(rig: Rig) -> None:
    rig.signins.forget(ORIGIN)


def sign_out(rig: Rig) -> None:
    rig.signins.signed_out(ORIGIN)


def sign_out_and_in(rig: Rig) -> None:
    rig.signins.signed_out(ORIGIN)
    rig.signins.signs_in_again(ORIGIN)


def reload(rig: Rig) -> None:
    rig.signins.reconfigure(AwsPrincipals(CredentialSettings()), rig.signins.trust)


def another_word(rig: Rig) -> None:
    rig.signins._prover.trust = Trust([replace(parse_trust(APP), profile="other")])


def another_key(rig: Rig) -> None:
    rig.signins._prover.trust = Trust([parse_trust(f"{APP}={rig.aws.key().arn}")])


def no_word(rig: Rig) -> None:
    rig.signins._prover.trust = Trust([])


ENDS = [forget, sign_out, sign_out_and_in, reload, another_word, another_key, no_word]


@pytest.mark.parametrize("end", ENDS)
async def test_it_is_never_given_after(
    started: Rig, app: BoundApp, browser: Client, end: Callable[[Rig], None]
) -> None:
    await renewed(started, browser)
    end(started)
    answer = await fetch(browser)
    assert (answer.status, answer.all("Set-Cookie")) == (200, [])
    assert len(app.handed_over) == 2
    assert not len(started.signins.sessions.kept)


@pytest.mark.parametrize("end", ENDS)
async def test_it_is_never_begun_after(
    started: Rig, app: BoundApp, browser: Client, end: Callable[[Rig], None]
) -> None:
    end(started)
    assert (await fetch(browser)).status == 200
    await nothing_begun(started, app)


@pytest.mark.parametrize("end", [forget, sign_out, sign_out_and_in, reload])
async def test_one_under_way_is_dropped(
    started: Rig, app: BoundApp, browser: Client, end: Callable[[Rig], None]
) -> None:
    """Before anything is handed over."""
    async with aws_waits(started) as waiting:
        await fetch(browser)
        await waiting.wait()
        end(started)
    await nothing_begun(started, app)
    assert not (await fetch(browser)).all("Set-Cookie")


@asynccontextmanager
async def aws_waits(rig: Rig) -> AsyncIterator[asyncio.Event]:
    """No call to AWS ends within; set once there is one."""
    real, waiting, go = rig.off_loop, asyncio.Event(), asyncio.Event()

    async def slow(fn: Callable[..., T], *args: object, deadline: float) -> T:
        waiting.set()
        await go.wait()
        return await real(fn, *args, deadline=deadline)

    rig.off_loop = slow  # type: ignore[assignment]  # it is called and closed, no more
    try:
        yield waiting
    finally:
        rig.off_loop = real
        go.set()


@pytest.mark.parametrize("dance", [False, True])
async def test_a_session_begun_before_a_reload_is_not(
    started: Rig, app: BoundApp, dance: bool
) -> None:
    """Its client gets it, but the proxy does nothing with it."""
    client = started.client()
    async with aws_waits(started) as waiting:
        page = client.open(f"{APP}/a") if dance else fetch(client)
        asked = asyncio.get_running_loop().create_task(page)
        await waiting.wait()
        reload(started)
    assert (await asked).status == 200
    assert len(app.handed_over) == 1
    assert not len(started.signins.sessions.kept)


async def test_a_logout_by_the_apps_own_page(started: Rig, app: BoundApp, browser: Client) -> None:
    await renewed(started, browser)
    old = dict(browser.cookies)
    answer = await browser.send(f"{APP}/auth/logout", "POST", b"x", **FETCH)
    assert "iam-auth=;" in answer.one("Set-Cookie")
    assert not len(started.signins.sessions.kept)
    browser.cookies = old
    assert (await fetch(browser)).status == 403


async def test_another_identity(
    started: Rig, app: BoundApp, person: Person, browser: Client, become: Become
) -> None:
    """The renewal itself finds out, or another sign-in of the profile."""
    old = kept(started)
    bob = person.aws.user("bob", policies=[allow("kms:Encrypt", resource=person.key.arn)])
    become(bob.keys())
    started.signins.principals.forget()
    await fetch(browser)
    await nothing_begun(started, app)
    assert old not in started.signins.sessions.kept
    answer = await fetch(browser)
    assert (answer.text, answer.all("Set-Cookie")) == (f"GET 0 bytes of {person.keys.arn}", [])


async def test_another_identity_at_another_sign_in(
    started: Rig, app: BoundApp, person: Person, browser: Client, become: Become
) -> None:
    session = await renewed(started, browser)
    bob = person.aws.user("bob", policies=[allow("kms:Encrypt", resource=person.key.arn)])
    become(bob.keys())
    started.signins.principals.forget()
    assert (await fetch(started.client(), User_Agent="Mozilla/5.0 x")).text.endswith(bob.arn)
    assert session not in started.signins.sessions.kept
    assert not (await fetch(browser)).all("Set-Cookie")


async def test_what_the_person_writes_into_trust_toml_counts_at_once(
    rig: Rig, app: BoundApp, tmp_path: Path
) -> None:
    store = TrustFile(tmp_path / "trust.toml")
    await rig.start(("app.test", app.port), trust=[])
    rig.signins._prover.trust = Trust([], stores=[store])
    rule = TrustRule("http", "app.test", 80)
    store.add(rule)
    client = rig.client()
    await fetch(client, "/a")
    near_the_end(rig)
    await renewed(rig, client)
    assert store.remove(rule)
    answer = await fetch(client)
    assert (answer.status, answer.all("Set-Cookie")) == (200, [])


# -- failures --------------------------------------------------------------------------------------


async def test_a_failure_costs_nobody_anything_and_is_tried_once_more(
    started: Rig, app: BoundApp, person: Person, browser: Client
) -> None:
    person.aws.fault("kms", "Encrypt", code="AccessDeniedException", times=5)

    async def refused() -> int:
        answer = await fetch(browser)
        assert (answer.status, answer.all("Set-Cookie")) == (200, [])
        await nothing_left(started)
        return started.signins.refused

    assert await refused() == 1
    assert kept(started).due.at - started.wall() == pytest.approx(RETRY_AFTER, abs=10)
    assert await refused() == 1, "not at once"
    near_the_end(started)
    assert await refused() == 2
    near_the_end(started)
    assert await refused() == 2, "and not again"
    assert started.signins.renewed == 0


async def test_an_app_that_gives_no_challenge_for_the_asking(
    started: Rig, app: BoundApp, person: Person, browser: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    person.aws.clear_calls()
    real = app.see

    def see(facts: RequestFacts) -> RequestFacts | Reply:
        return Reply(404, ()) if facts.path == "/auth" else real(facts)

    monkeypatch.setattr(app, "see", see)
    assert (await fetch(browser)).status == 200
    await nothing_begun(started, app)
    assert person.calls() == []
