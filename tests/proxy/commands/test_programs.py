"""Held sessions in force: whom they serve, how they end, and how they are renewed ahead."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from iam_auth_proxy.aws.credentials import AwsPrincipals, CredentialSettings
from iam_auth_proxy.config import TrustRule
from iam_auth_proxy.config.values import parse_trust
from iam_auth_proxy.local_aws import Keys, allow
from iam_auth_proxy.names import parse_origin
from iam_auth_proxy.proxy.decisions.trust import Trust
from iam_auth_proxy.proxy.decisions.trustfile import TrustFile
from iam_auth_proxy.proxy.signin.jobs import HandedOver
from iam_auth_proxy.relay.exchange import Everybody
from tests.proxy.conftest import Person, Rig, ShiftedClock
from tests.support.bound_app import BoundApp, bound_app

APP = "http://app.test"
ORIGIN = parse_origin(APP)
HOUR = 3600


class Private(Everybody):
    """The listener of one program and what it starts."""

    name = "exec"  # type: ignore[misc]  # Final in the one it is made of
    private = True  # type: ignore[misc]


@pytest.fixture
async def app(person: Person) -> AsyncIterator[BoundApp]:
    async with bound_app(
        person.aws, person.server, person.key.arn, APP, max_session=12 * HOUR, idle=HOUR
    ) as app:
        yield app


@pytest.fixture
async def started(rig: Rig, app: BoundApp) -> Rig:
    await rig.start(("app.test", app.port), trust=[APP])
    return rig


async def test_a_browser_never_goes_with_a_held_session(started: Rig, app: BoundApp) -> None:
    assert (await started.program().send(f"{APP}/a")).status == 200
    browser = {"User_Agent": "Mozilla/5.0", "Origin": APP, "Cookie": "iam-auth=over"}
    for headers in (browser, {"Referer": f"{APP}/x"}):
        handed = len(app.handed_over)
        started.ticking.ahead += 60
        answer = await started.program().send(f"{APP}/b", **headers)
        assert answer.status == 200
        assert len(app.handed_over) == handed + 1, "it was not sent: a sign-in was needed"
    page = await started.client().send(f"{APP}/c")
    assert page.status == 302
    assert not app.asked[-1].all("Cookie")


async def test_every_client_of_a_private_entrance_does(
    started: Rig, app: BoundApp, person: Person
) -> None:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(
        lambda: started.relay.connection(None, Private()), "127.0.0.1", 0
    )
    try:
        started.port = server.sockets[0].getsockname()[1]
        page = {"User_Agent": "Mozilla/5.0", "Origin": APP}
        assert (await started.program().send(f"{APP}/a", **page)).status == 200
        assert (await started.program().send(f"{APP}/b", **page)).status == 200
        assert len(app.handed_over) == 1
        evil = {"User_Agent": "Mozilla/5.0", "Origin": "http://evil.test"}
        assert (await started.program().send(f"{APP}/b", **evil)).status == 401, "but for"
        assert not app.asked[-1].all("Cookie")
    finally:
        server.close()


async def test_entrances_share_nothing(started: Rig, app: BoundApp) -> None:
    assert (await started.program().send(f"{APP}/a")).status == 200
    (session,) = started.signins.held
    assert session.entrance == Everybody.name
    assert started.signins.held.get("exec", ORIGIN, 0.0) is None


async def test_another_origin_of_the_same_app_gets_none_of_it(
    rig: Rig, app: BoundApp, person: Person
) -> None:
    await rig.start(
        ("app.test", app.port), ("twin.test", app.port), trust=[APP, "http://twin.test"]
    )
    assert (await rig.program().send(f"{APP}/a")).status == 200
    assert (await rig.program().send("http://twin.test/a")).status == 421
    assert not app.asked[-1].all("Cookie")


async def test_a_reload_ends_it(started: Rig, app: BoundApp, person: Person) -> None:
    assert (await started.program().send(f"{APP}/a")).status == 200
    started.signins.reconfigure(AwsPrincipals(CredentialSettings()), started.signins.trust)
    assert not len(started.signins.held)
    assert (await started.program().send(f"{APP}/a")).status == 200
    assert len(app.handed_over) == 2


class Delayed:
    """The app's answers to hand-overs, which wait for a word."""

    def __init__(self, rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
        self.answered = asyncio.Event()
        self.go = asyncio.Event()
        self._hand_over = rig.signins._app.hand_over
        monkeypatch.setattr(rig.signins._app, "hand_over", self)

    async def __call__(self, *args: Any, **kwargs: Any) -> HandedOver:
        done = await self._hand_over(*args, **kwargs)
        self.answered.set()
        await self.go.wait()
        return done


@pytest.mark.parametrize("late", [False, True], ids=["shared", "too old to be shared"])
@pytest.mark.parametrize("word", ["reload", "forget", "logout"])
async def test_what_ends_sessions_ends_those_that_are_about_to_be(
    started: Rig, app: BoundApp, monkeypatch: pytest.MonkeyPatch, word: str, late: bool
) -> None:
    """A sign-in ends as it began; its session is not kept for those who come after."""
    delayed = Delayed(started, monkeypatch)
    waiting = [asyncio.create_task(started.program().send(f"{APP}/a"))]
    await delayed.answered.wait()
    if late:
        started.ticking.ahead += 61
        delayed.answered.clear()
        waiting.append(asyncio.create_task(started.program().send(f"{APP}/a")))
        await delayed.answered.wait()
    if word == "reload":
        rules = [replace(parse_trust(APP), profile="another")]
        started.signins.reconfigure(AwsPrincipals(CredentialSettings()), Trust(rules))
    elif word == "forget":
        started.signins.forget(ORIGIN)
    else:
        started.signins.signed_out(ORIGIN)
    delayed.go.set()
    expected = 403 if word == "logout" else 200
    assert [answer.status for answer in await asyncio.gather(*waiting)] == [expected] * len(waiting)
    assert not len(started.signins.held)


async def test_a_session_is_held_under_the_profile_that_it_was_begun_with(
    rig: Rig, app: BoundApp, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = TrustFile(tmp_path / "trust.toml")
    rule = TrustRule("http", "app.test", 80)
    store.add(rule)
    await rig.start(("app.test", app.port), trust=[])
    rig.signins._prover.trust = Trust([], stores=[store])
    delayed = Delayed(rig, monkeypatch)
    waiting = asyncio.create_task(rig.program().send(f"{APP}/a"))
    await delayed.answered.wait()
    store.add(replace(rule, profile="another"))
    assert rig.signins.trust.refresh()
    delayed.go.set()
    assert (await waiting).status == 200
    assert (await rig.program().send(f"{APP}/a")).status == 403, "there is no such profile"
    assert not app.asked[-1].all("Cookie")


async def test_another_identity_ends_it(
    started: Rig, app: BoundApp, person: Person, become: Callable[[Keys | None], None]
) -> None:
    """It turns out at the next sign-in with the profile, wherever that is."""
    assert (await started.program().send(f"{APP}/a")).status == 200
    bob = person.aws.user("bob", policies=[allow("kms:Encrypt", resource=person.key.arn)])
    become(bob.keys())
    started.signins.principals.forget()
    started.ticking.ahead += 60
    assert (await started.client().open(f"{APP}/a")).text.endswith(bob.arn)
    assert not len(started.signins.held)
    assert (await started.program().send(f"{APP}/a")).text.endswith(bob.arn)


async def test_what_the_person_writes_into_trust_toml_counts_at_once(
    rig: Rig, app: BoundApp, person: Person, tmp_path: Path
) -> None:
    store = TrustFile(tmp_path / "trust.toml")
    await rig.start(("app.test", app.port), trust=[])
    rig.signins._prover.trust = Trust([], stores=[store])
    rule = TrustRule("http", "app.test", 80)
    store.add(rule)
    assert (await rig.program().send(f"{APP}/a")).status == 200
    assert len(rig.signins.held) == 1
    store.add(replace(rule, profile="another"))
    assert (await rig.program().send(f"{APP}/a")).status == 403, "there is no such profile"
    assert not app.asked[-1].all("Cookie")
    assert not len(rig.signins.held)


async def test_nor_is_it_used_for_an_origin_that_is_trusted_no_more(
    rig: Rig, app: BoundApp, tmp_path: Path
) -> None:
    store = TrustFile(tmp_path / "trust.toml")
    await rig.start(("app.test", app.port), trust=[])
    rig.signins._prover.trust = Trust([], stores=[store])
    rule = TrustRule("http", "app.test", 80)
    store.add(rule)
    assert (await rig.program().send(f"{APP}/a")).status == 200
    assert store.remove(rule)
    assert (await rig.program().send(f"{APP}/a")).status == 403
    assert not app.asked[-1].all("Cookie")


async def test_another_key_ends_it(started: Rig, app: BoundApp, person: Person) -> None:
    """Whoever it was that the app asked for it."""
    assert (await started.program().send(f"{APP}/a")).status == 200
    pinned = parse_trust(f"{APP}={person.aws.key().arn}")
    started.signins._prover.trust = Trust([pinned])
    answer = await started.client().send(f"{APP}/b")
    assert (answer.status, "[key-changed]" in answer.text) == (403, True)
    assert not len(started.signins.held)


async def test_the_apps_renewed_cookie_is_taken_over(
    started: Rig, app: BoundApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The gate sets it anew from time to time, for the idle limit."""
    assert (await started.program().send(f"{APP}/a")).status == 200
    (session,) = started.signins.held
    before = session.cookies
    ahead = ShiftedClock(time.time)
    ahead.ahead = HOUR / 2
    monkeypatch.setattr("iam_auth_proxy.server.aiohttp.time.time", ahead)
    answer = await started.program().send(f"{APP}/b")
    monkeypatch.undo()
    assert answer.status == 200
    assert answer.one("Set-Cookie").startswith("iam-auth=")
    (kept,) = session.cookies.values()
    assert answer.one("Set-Cookie").startswith(kept.pair.decode())
    assert before is session.cookies
    assert len(app.handed_over) == 1


# -- renewal ahead ---------------------------------------------------------------------------------


async def test_renewed_ahead_off_the_path(started: Rig, app: BoundApp) -> None:
    client = started.program()
    await client.send(f"{APP}/a")
    (session,) = started.signins.held
    assert session.expires is not None
    assert session.due is not None
    assert session.expires - started.wall() == pytest.approx(12 * HOUR, abs=10)
    assert session.expires - session.due.at == 600
    session.due.at = started.wall()
    asked = len(app.asked)
    assert (await client.send(f"{APP}/b")).status == 200
    await started.until(lambda: started.signins.renewed == 1)
    assert sorted((each.method, each.target) for each in app.asked[asked:]) == [
        ("GET", "/auth"),
        ("GET", "/b"),
        ("POST", "/auth"),
    ]
    (fresh,) = started.signins.held
    assert fresh is not session
    assert fresh.cookies != session.cookies
    assert (await client.send(f"{APP}/c")).status == 200
    assert len(app.handed_over) == 2


async def test_nobody_asks_and_nothing_is_renewed(started: Rig, app: BoundApp) -> None:
    """Past its limit it is over, and the next request signs in as any other."""
    await started.program().send(f"{APP}/a")
    (session,) = started.signins.held
    assert session.due is not None
    session.expires = session.due.at = started.wall()
    asked = len(app.asked)
    assert (await started.program().send(f"{APP}/b")).status == 200
    assert started.signins.renewed == 0
    assert [each.target for each in app.asked[asked:]] == ["/b", "/b"], "a session of a minute ago"


async def test_a_renewal_that_fails_costs_nobody_anything(
    started: Rig, app: BoundApp, person: Person
) -> None:
    await started.program().send(f"{APP}/a")
    (session,) = started.signins.held
    person.aws.fault("kms", "Encrypt", code="AccessDeniedException", times=1)
    assert session.due is not None
    session.due.at = started.wall()
    assert (await started.program().send(f"{APP}/b")).status == 200
    await started.until(lambda: started.signins.refused == 1 and not started.signins.in_progress)
    assert [*started.signins.held] == [session]
    assert (await started.program().send(f"{APP}/c")).status == 200
    assert started.signins.refused == 1, "and it is not tried again at once"
