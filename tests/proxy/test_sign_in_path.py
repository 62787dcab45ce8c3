"""Apps whose gate has another path than /auth: signed in to as all others."""

from __future__ import annotations

from collections.abc import AsyncIterator
from urllib.parse import quote

import pytest

from iam_auth_proxy.names import parse_origin
from tests.proxy.conftest import Person, Rig
from tests.support.bound_app import BoundApp, bound_app

APP = "http://app.test"
ORIGIN = parse_origin(APP)
PATH = "/sso/login"


@pytest.fixture
async def app(person: Person) -> AsyncIterator[BoundApp]:
    async with bound_app(person.aws, person.server, person.key.arn, APP, path=PATH) as app:
        yield app


@pytest.fixture
async def started(rig: Rig, app: BoundApp) -> Rig:
    await rig.start(("app.test", app.port), trust=[APP])
    return rig


async def test_by_the_dance(started: Rig, app: BoundApp, person: Person) -> None:
    client = started.client()
    answer = await client.open(f"{APP}/a?x=1")
    assert (answer.status, answer.text) == (200, f"GET 0 bytes of {person.keys.arn}")
    assert client.asked[1].startswith(f"{APP}{PATH}?return_url=%2Fa%3Fx%3D1&ticket=")
    assert [asked.target for asked in app.asked] == ["/a?x=1", PATH, "/a?x=1"]
    assert (await client.send(f"{APP}/b")).status == 200


async def test_by_a_replay(started: Rig, app: BoundApp) -> None:
    assert (await started.program().send(f"{APP}/a")).status == 200
    assert app.targets("POST") == [PATH]


async def test_a_page_at_auth_is_the_apps_own(started: Rig, app: BoundApp) -> None:
    """Also one that looks like a ticket's, and as what a sign-in returns to."""
    client = started.client()
    assert (await client.open(f"{APP}/a")).status == 200
    for target in (f"/auth?return_url=%2Fa&ticket={'x' * 22}", "/auth/x"):
        await client.send(f"{APP}{target}")
        assert app.asked[-1].target == target
    client.cookies.clear()
    started.ticking.ahead += 60
    answer = await client.send(f"{APP}/auth/x")
    assert f"return_url={quote('/auth/x', safe='')}&" in answer.one("Location")


async def test_its_own_pages_are_no_place_to_return_to(started: Rig) -> None:
    answer = await started.client().send(f"{APP}{PATH}/whoami")
    assert f"{PATH}?return_url=%2F&" in answer.one("Location")


async def test_a_ticket_of_another_run_starts_again(started: Rig) -> None:
    client = started.client()
    await client.open(f"{APP}/a")
    answer = await client.send(f"{APP}{PATH}?return_url=%2Fa&ticket={'x' * 22}")
    assert (answer.status, answer.one("Location")) == (302, "/a")


async def test_another_path_than_before_gets_nothing(started: Rig, app: BoundApp) -> None:
    """Somebody else's page of that origin would have the proof sent to itself."""
    started.signins.trust.check_path(ORIGIN, "/sso")
    answer = await started.client().send(f"{APP}/a")
    assert (answer.status, "[bad-challenge]" in answer.text) == (502, True)
    assert not app.handed_over
