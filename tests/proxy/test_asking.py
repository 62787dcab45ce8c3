"""Where the person is asked first: a stranger's page, a new key, an app that they left."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field

import pytest

from iam_auth_proxy.config import TrustRule
from iam_auth_proxy.names import Origin, parse_origin
from iam_auth_proxy.protocol.proof import ProofKind
from iam_auth_proxy.relay import client as relay_client
from iam_auth_proxy.relay.exchange import Exchange, RequestHead, ResponseHead
from tests.proxy.conftest import Answer, Client, Person, Rig
from tests.support.bound_app import BoundApp, bound_app
from tests.support.legacy_app import LegacyApp

APP = "http://app.test"
ORIGIN = parse_origin(APP)
LEGACY = "http://legacy.test"


@dataclass(frozen=True)
class Question:
    kind: str
    origin: Origin
    realm: str
    key: str
    old_key: str
    proof: ProofKind
    profile: str
    identity: str
    way_back: str


@dataclass
class Questions:
    """Keeps what was asked; ``full``: there is no room."""

    asked: list[Question] = field(default_factory=list)
    full: bool = False

    def ask(self, **what: object) -> str | None:
        if self.full:
            return None
        self.asked.append(Question(**what))  # type: ignore[arg-type]  # mypy checks the callers
        return f"/confirm/{len(self.asked)}"


@pytest.fixture
async def app(person: Person) -> AsyncIterator[BoundApp]:
    async with bound_app(person.aws, person.server, person.key.arn, APP) as app:
        yield app


def asked(answer: Answer, number: int = 1) -> bool:
    return (answer.status, answer.one("Location")) == (302, f"http://127.0.0.1:9/confirm/{number}")


# -- first contact ---------------------------------------------------------------------------------


async def test_a_stranger_is_asked_about_and_then_answered(
    rig: Rig, app: BoundApp, person: Person
) -> None:
    questions = Questions()
    await rig.start(("app.test", app.port), trust=[], questions=questions)
    client = rig.client()
    assert asked(await client.send(f"{APP}/private?x=1"))
    (question,) = questions.asked
    assert question == Question(
        kind="trust",
        origin=ORIGIN,
        realm=person.aws.account,
        key=person.key.arn,
        old_key="",
        proof=ProofKind.SIGNED_IDENTITY,
        profile="",
        identity="",
        way_back=f"{APP}/private?x=1",
    )
    assert not person.calls()
    rig.steering.answered(question, "no")
    assert asked(await client.send(f"{APP}/private?x=1"), 2)
    rig.steering.answered(question, "once")
    assert (await client.open(f"{APP}/private?x=1")).status == 200
    assert not any(call == "GetSessionToken" for call in person.calls())


async def test_what_is_no_page_gets_the_command(rig: Rig, app: BoundApp, person: Person) -> None:
    questions = Questions()
    await rig.start(("app.test", app.port), trust=[], questions=questions)
    for method, headers in (("GET", {}), ("POST", {}), ("POST", {"Origin": APP})):
        answer = await rig.program().send(f"{APP}/a", method, **headers)
        assert (answer.status, "[not-trusted]" in answer.text) == (403, True)
        assert f"iam-auth-proxy trust add {APP}" in answer.text
    assert not questions.asked
    assert not person.calls()


@pytest.mark.parametrize(
    ("peer", "is_here"),
    [
        ("192.0.2.1:5000", False),
        ("[2001:db8::1]:5000", False),
        ("[fe80::1%eth0]:5000", False),
        ("[::ffff:192.0.2.1]:5000", False),
        ("127.0.0.2:5000", True),
        ("[::1]:5000", True),
        ("[::ffff:127.0.0.1]:5000", True),
        ("unix:", True),
    ],
)
async def test_who_is_elsewhere_gets_the_command(
    rig: Rig, app: BoundApp, monkeypatch: pytest.MonkeyPatch, peer: str, is_here: bool
) -> None:
    """A loopback page would be one of the client's own machine, whoever answers there."""
    monkeypatch.setattr(relay_client, "peer_name", lambda transport: peer)
    questions = Questions()
    await rig.start(("app.test", app.port), trust=[], questions=questions)
    answer = await rig.client().send(f"{APP}/private")
    assert bool(questions.asked) is is_here
    if is_here:
        assert asked(answer)
    else:
        assert (answer.status, "[not-trusted]" in answer.text) == (403, True)
        assert f"iam-auth-proxy trust add {APP}" in answer.text


async def test_the_very_address_of_the_page_is_here(
    rig: Rig, app: BoundApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So a proxy that listens on an interface alone asks whoever sits at its own machine."""
    monkeypatch.setattr(relay_client, "peer_name", lambda transport: "192.0.2.7:5000")
    questions = Questions()
    for own_address, is_here in (("192.0.2.7:8080", True), ("192.0.2.77:8080", False)):
        await rig.start(
            ("app.test", app.port), trust=[], questions=questions, own_address=own_address
        )
        assert (await rig.client().send(f"{APP}/private")).status == (302 if is_here else 403)
        rig.server.close()
    assert len(questions.asked) == 1


async def test_no_room_for_a_question_is_a_page(rig: Rig, app: BoundApp) -> None:
    await rig.start(("app.test", app.port), trust=[], questions=Questions(full=True))
    answer = await rig.client().send(f"{APP}/a")
    assert (answer.status, "[not-trusted]" in answer.text) == (403, True)


async def test_an_original_app_is_not_asked_about(rig: Rig, legacy: LegacyApp) -> None:
    """The confirm page could not grant what it wants."""
    questions = Questions()
    await rig.start(("legacy.test", legacy.port), trust=[], questions=questions)
    answer = await rig.client().send(f"{LEGACY}/a")
    assert (answer.status, "[not-trusted]" in answer.text) == (403, True)
    assert not questions.asked


# -- another key -----------------------------------------------------------------------------------


async def test_a_new_key_of_the_same_account_is_a_question(
    rig: Rig, app: BoundApp, person: Person
) -> None:
    old = person.aws.key()
    questions = Questions()
    await rig.start(("app.test", app.port), trust=[f"{APP}={old.arn}"], questions=questions)
    client = rig.client()
    assert asked(await client.send(f"{APP}/a"))
    (question,) = questions.asked
    assert (question.kind, question.old_key, question.key) == ("key", old.arn, person.key.arn)
    assert "Encrypt" not in person.calls()
    answer = await rig.program().send(f"{APP}/a")
    assert (answer.status, "[key-changed]" in answer.text) == (403, True)
    assert "iam-auth-proxy trust accept-key" in answer.text


# -- a logout --------------------------------------------------------------------------------------


async def logout(client: Client, **headers: str) -> Answer:
    return await client.send(f"{APP}/auth/logout", "POST", Content_Length="0", **headers)


async def test_a_logout_sticks(rig: Rig, app: BoundApp, person: Person) -> None:
    questions = Questions()
    await rig.start(("app.test", app.port), trust=[APP], questions=questions)
    browser, program = rig.client("Mozilla/5.0"), rig.program()
    assert (await browser.open(f"{APP}/a")).status == 200
    assert (await program.send(f"{APP}/a")).status == 200
    calls = len(person.calls())
    left = await logout(browser, Origin=APP)
    assert left.status < 400
    assert left.one("Iam-Auth-Signed-Out") == "1"
    browser.cookies.clear()
    assert not len(rig.signins.held)

    answer = await program.send(f"{APP}/a")
    assert (answer.status, "[signed-out]" in answer.text) == (403, True)
    assert f"iam-auth-proxy logout --undo {APP}" in answer.text
    api = await browser.send(f"{APP}/api", Origin=APP)
    assert (api.status, "[signed-out]" in api.text) == (403, True)
    assert asked(await browser.send(f"{APP}/b"))
    assert questions.asked[0].kind == "again"
    assert questions.asked[0].identity == person.keys.arn
    assert len(person.calls()) == calls

    rig.steering.answered(questions.asked[0], "once")
    assert (await browser.open(f"{APP}/b")).status == 200
    assert (await program.send(f"{APP}/a")).status == 200


async def test_a_dance_that_a_logout_overtook_ends(rig: Rig, app: BoundApp) -> None:
    await rig.start(("app.test", app.port), trust=[APP], questions=Questions())
    client = rig.client()
    ticket = (await client.send(f"{APP}/a")).one("Location")
    rig.signins.signed_out(ORIGIN)
    answer = await client.send(f"{APP}{ticket}")
    assert (answer.one("Location"), answer.all("Set-Cookie")) == ("/a", [])
    assert not app.handed_over


@pytest.mark.parametrize("headers", [{}, {"Origin": "http://evil.test"}, {"Origin": "null"}])
async def test_no_other_page_signs_anybody_out(
    rig: Rig, app: BoundApp, headers: dict[str, str]
) -> None:
    await rig.start(("app.test", app.port), trust=[APP])
    assert (await rig.program().send(f"{APP}/a")).status == 200
    await logout(rig.program(), **headers)
    assert not rig.signins.signed_out_of
    assert (await rig.program().send(f"{APP}/a")).status == 200


@pytest.mark.parametrize(
    ("method", "origins", "said", "counts"),
    [
        (b"POST", [APP], [b"1"], True),
        (b"POST", ["http://evil.test"], [b"1"], False),
        (b"POST", ["null"], [b"1"], False),
        (b"POST", [], [b"1"], False),
        (b"POST", [APP, APP], [b"1"], False),
        (b"POST", [APP], [b"0"], False),
        (b"POST", [APP], [b"1", b"1"], False),
        (b"POST", [APP], [], False),
        (b"GET", [APP], [b"1"], False),
    ],
)
async def test_whatever_the_app_says_of_it(
    rig: Rig, app: BoundApp, method: bytes, origins: list[str], said: list[bytes], counts: bool
) -> None:
    await rig.start(("app.test", app.port), trust=[APP])
    headers = [(b"Origin", origin.encode()) for origin in origins]
    request = RequestHead(method, b"/bye", headers)
    answer = ResponseHead(303, [(b"Iam-Auth-Signed-Out", value) for value in said])
    for origin, trusted in ((parse_origin("http://stranger.test"), False), (ORIGIN, True)):
        if not trusted:
            request.headers = [(b"Origin", str(origin).encode()) for _ in origins]
        else:
            request.headers = headers
        assert rig.steering.after(Exchange(origin, "127.0.0.1:1", request), answer) is None
        assert (origin in rig.signins.signed_out_of) is (counts and trusted)


async def test_the_command_undoes_it(rig: Rig, app: BoundApp) -> None:
    await rig.start(("app.test", app.port), trust=[APP])
    assert (await rig.program().send(f"{APP}/a")).status == 200
    assert rig.signins.signed_out(ORIGIN) == 1
    assert (await rig.program().send(f"{APP}/a")).status == 403
    rig.signins.signs_in_again(ORIGIN)
    assert (await rig.program().send(f"{APP}/a")).status == 200


# -- whose identity --------------------------------------------------------------------------------


async def test_the_profiles_that_fit_are_named(rig: Rig, person: Person) -> None:
    async with bound_app(
        person.aws, person.server, person.key.arn, APP, accounts=["222222222222"]
    ) as app:
        found: list[str] = []
        await rig.start(
            ("app.test", app.port), trust=[APP], profiles_for=lambda account: tuple(found)
        )
        add = f"iam-auth-proxy trust add {APP} --profile"
        for profiles, words in (
            ([], f"With a profile of account 222222222222, run: {add} NAME"),
            (["ops"], f"Run: {add} ops"),
            (["my ops", "b"], f"Profiles of that account: my ops, b. Run: {add} 'my ops'"),
        ):
            found[:] = profiles
            answer = await rig.program().send(f"{APP}/a")
            assert (answer.status, "[wrong-account]" in answer.text) == (403, True)
            assert words in answer.text
        assert not app.handed_over


async def test_each_app_has_its_own_profile(
    rig: Rig, app: BoundApp, person: Person, profile: Callable[[str], None]
) -> None:
    bob = person.aws.user("bob")
    keys = bob.keys()
    profile(
        f"[profile bob]\naws_access_key_id = {keys.access_key_id}\n"
        f"aws_secret_access_key = {keys.secret_access_key}\n"
    )
    rule = TrustRule("http", "app.test", 80, profile="bob")
    await rig.start(("app.test", app.port), rules=[rule])
    answer = await rig.program().send(f"{APP}/a")
    assert (answer.status, "[access-denied]" in answer.text) == (403, True)
    assert bob.arn in answer.text
    assert not person.calls()
