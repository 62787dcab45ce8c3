"""The steps of a sign-in, with the real relay, AWS client and a legacy app."""

from __future__ import annotations

import asyncio
import io
from collections.abc import AsyncIterator

import pytest

from iam_auth_proxy.names import parse_origin
from iam_auth_proxy.proxy.decisions.decide import SignInMode
from iam_auth_proxy.proxy.signin.handover import relayed
from iam_auth_proxy.proxy.signin.jobs import SHARED_FOR
from iam_auth_proxy.proxy.signin.tickets import LIFE
from iam_auth_proxy.relay.exchange import Fetched
from tests.proxy.conftest import APP, Answer, Client, Person, Rig, ScriptedApp, challenge
from tests.support.legacy_app import LegacyApp
from tests.support.sockets import vanish
from tests.support.upstreams import listening

COLD = ["GetCallerIdentity", "GetSessionToken", "Encrypt"]
SIGNED_IN = b"HTTP/1.1 302 Found\r\nLocation: /x\r\nSet-Cookie: s=1\r\nContent-Length: 0\r\n\r\n"


def auths(app: LegacyApp) -> list[str]:
    return [target for target in app.asked if target.startswith("/auth?")]


@pytest.fixture
async def started(rig: Rig, legacy: LegacyApp) -> Rig:
    """A proxy before the legacy app."""
    await rig.start(("legacy.test", legacy.port))
    return rig


@pytest.fixture
async def scripted(rig: Rig, person: Person) -> AsyncIterator[ScriptedApp]:
    """A proxy before an app whose answer at /auth is the test's."""
    app = ScriptedApp(challenge(person), SIGNED_IN)
    async with listening(app.serve) as port:
        await rig.start(("legacy.test", port))
        yield app


# -- how often AWS and the app are asked -----------------------------------------------------------


async def test_cold_and_warm(started: Rig, legacy: LegacyApp, person: Person) -> None:
    first = await started.client().open(f"{APP}/private?x=1")
    assert (first.status, first.text) == (200, f"you are {person.keys.arn}")
    assert person.calls() == COLD
    person.aws.clear_calls()
    second = await started.client("another/1").open(f"{APP}/private?x=1")
    assert second.status == 200
    assert person.calls() == ["Encrypt"], "a warm sign-in makes one AWS call"
    assert legacy.asked[0] == legacy.asked[2] == "/private?x=1"
    assert started.signins.completed == 2


async def test_fifty_parallel_challenges_share_one_sign_in(
    started: Rig, legacy: LegacyApp, person: Person
) -> None:
    clients = [started.client() for _ in range(50)]
    urls = [f"{APP}/page/{number}?n={number}" for number in range(50)]
    pages = [client.open(url) for client, url in zip(clients, urls, strict=True)]
    answers = await asyncio.gather(*pages)
    assert {answer.status for answer in answers} == {200}
    assert {client.asked[-1] for client in clients} == set(urls), "each is where it wanted to be"
    assert all(client.asked[0] == client.asked[-1] for client in clients)
    assert all(client.cookies.keys() == {"session"} for client in clients)
    assert person.calls() == COLD
    assert len(auths(legacy)) == 1
    assert started.signins.completed == 1


async def test_another_client_has_a_sign_in_of_its_own(
    started: Rig, legacy: LegacyApp, person: Person
) -> None:
    one, other = started.client("one/1"), started.client("other/1")
    answers = await asyncio.gather(one.open(f"{APP}/a"), other.open(f"{APP}/b"))
    assert [answer.status for answer in answers] == [200, 200]
    assert len(auths(legacy)) == 2
    assert sorted(person.calls()) == sorted([*COLD, "Encrypt"])


async def test_a_client_challenged_after_the_hand_over_starts_again(
    started: Rig, legacy: LegacyApp
) -> None:
    """It did not get, or not keep, the cookie; perhaps it signed out."""
    client = started.client()
    await client.open(f"{APP}/a")
    client.cookies.clear()
    assert (await client.open(f"{APP}/a")).status == 200
    assert len(auths(legacy)) == 2


async def test_a_failed_sign_in_is_not_shared_with_later_ones(started: Rig, person: Person) -> None:
    person.aws.fault("kms", "Encrypt", code="AccessDeniedException", times=1)
    answers = await asyncio.gather(*(started.client().open(f"{APP}/{n}") for n in range(5)))
    assert {answer.status for answer in answers} == {403}, "those under way share its failure"
    assert person.calls() == COLD
    assert (await started.client().open(f"{APP}/later")).status == 200
    assert (started.signins.refused, started.signins.completed) == (1, 1)


async def test_sharing_ends(started: Rig, person: Person) -> None:
    client = started.client()
    assert (await client.send(f"{APP}/a")).status == 302
    assert (await client.send(f"{APP}/b")).status == 302
    assert person.calls() == COLD
    started.ticking.ahead = SHARED_FOR
    assert (await client.send(f"{APP}/c")).status == 302
    assert person.calls() == [*COLD, "Encrypt"]


async def test_a_client_that_goes_away_cancels_nobody_else(started: Rig, person: Person) -> None:
    fault = person.aws.fault("kms", "Encrypt", delay=0.5)
    head = f"GET {APP}/gone HTTP/1.1\r\nHost: x\r\nUser-Agent: tests/1\r\n\r\n".encode()
    _, writer = await asyncio.open_connection("127.0.0.1", started.port)
    writer.write(head)
    await started.until(lambda: fault.hits == 1)
    stays = asyncio.create_task(started.client().open(f"{APP}/stays"))
    await started.until(lambda: started.relay.clients == 2)
    vanish(writer)
    await started.until(lambda: started.relay.clients == 1)
    assert (await stays).status == 200
    assert person.calls() == COLD, "the one that stayed joined the sign-in of the one that went"


async def test_a_client_that_goes_away_during_the_hand_over(
    rig: Rig, person: Person, scripted: ScriptedApp
) -> None:
    scripted.go = asyncio.Event()
    client = rig.client()
    one, other = await ticket(client, f"{APP}/x"), await ticket(client, f"{APP}/y")
    _, writer = await asyncio.open_connection("127.0.0.1", rig.port)
    writer.write(f"GET {one} HTTP/1.1\r\nHost: x\r\nUser-Agent: tests/1\r\n\r\n".encode())
    await rig.until(lambda: len(scripted.auths) == 1)
    stays = asyncio.create_task(client.send(other))
    await rig.until(lambda: rig.relay.clients == 2)
    vanish(writer)
    await rig.until(lambda: rig.relay.clients == 1)
    scripted.go.set()
    answer = await stays
    assert (answer.status, answer.all("Set-Cookie")) == (302, ["s=1; Path=/; SameSite=Lax"])
    assert len(scripted.auths) == 1


# -- the wall clock --------------------------------------------------------------------------------


async def test_session_credentials_are_renewed_ahead(started: Rig, person: Person) -> None:
    assert (await started.client().open(f"{APP}/a")).status == 200
    person.aws.clear_calls()
    started.wall.ahead = 900 - 300 + 5
    assert (await started.client("b").open(f"{APP}/a")).status == 200
    assert sorted(person.calls()) == ["Encrypt", "GetSessionToken"]


async def test_a_laptop_that_slept_signs_in_with_fresh_credentials(
    started: Rig, person: Person
) -> None:
    """Timers did not run meanwhile, nor did the monotonic clock."""
    assert (await started.client().open(f"{APP}/a")).status == 200
    person.aws.clear_calls()
    started.wall.ahead = 20 * 60
    assert (await started.client("b").open(f"{APP}/a")).status == 200
    assert "GetSessionToken" in person.calls()


async def test_a_token_that_expired_in_sleep_is_not_handed_over(
    started: Rig, legacy: LegacyApp
) -> None:
    client = started.client()
    where = (await client.send(f"{APP}/a?b=c")).one("Location")
    started.wall.ahead = 20 * 60
    again = await client.send(f"{APP}{where}")
    assert (again.status, again.one("Location")) == (302, "/a?b=c")
    assert not auths(legacy)
    assert (await client.open(f"{APP}/a?b=c")).status == 200


# -- tickets ---------------------------------------------------------------------------------------


async def ticket(client: Client, url: str = f"{APP}/a") -> str:
    answer = await client.send(url)
    assert answer.status == 302
    return APP + answer.one("Location")


async def started_again(answer: Answer, at: str = "/a") -> None:
    assert (answer.status, answer.one("Location")) == (302, at)
    assert not answer.all("Set-Cookie")
    assert answer.one("Cache-Control") == "private, no-store"
    assert answer.one("Referrer-Policy") == "no-referrer"


async def test_a_ticket_is_good_once(started: Rig, legacy: LegacyApp) -> None:
    client = started.client()
    url = await ticket(client)
    assert (await client.send(url)).all("Set-Cookie")
    await started_again(await client.send(url))
    assert len(auths(legacy)) == 1


async def test_a_ticket_is_good_for_its_own_client(started: Rig, legacy: LegacyApp) -> None:
    url = await ticket(started.client())
    await started_again(await started.client("thief/1").send(url))
    assert not auths(legacy)


async def test_a_ticket_is_good_for_its_own_origin(
    rig: Rig, legacy: LegacyApp, person: Person
) -> None:
    await rig.start(
        ("legacy.test", legacy.port),
        ("twin.test", legacy.port),
        trust=[APP, "http://twin.test"],
    )
    client = rig.client()
    url = await ticket(client)
    await started_again(await client.send(url.replace("legacy.test", "twin.test")))
    assert not auths(legacy)


async def test_a_ticket_is_good_for_a_minute(started: Rig, legacy: LegacyApp) -> None:
    client = started.client()
    url = await ticket(client)
    started.ticking.ahead = LIFE + 0.1
    await started_again(await client.send(url))
    assert not auths(legacy)


async def test_a_ticket_of_another_run_starts_again(started: Rig, legacy: LegacyApp) -> None:
    url = f"{APP}/auth?return_url=%2Fa&ticket={'A' * 22}"
    await started_again(await started.client().send(url))
    assert not legacy.asked, "no ticket ever reaches an app"


async def test_no_ticket_is_looked_at_for_a_stranger(
    rig: Rig, legacy: LegacyApp, person: Person
) -> None:
    await rig.start(("legacy.test", legacy.port), trust=[])
    await rig.client().send(f"{APP}/auth?return_url=%2Fa&ticket={'A' * 22}")
    assert legacy.asked == [f"/auth?return_url=%2Fa&ticket={'A' * 22}"], "its own URL, as it came"


async def test_the_apps_own_auth_path_is_the_apps(rig: Rig, scripted: ScriptedApp) -> None:
    targets = [f"/auth{query}" for query in ("", "?", "?x=1", "?ticket=short&return_url=/a")]
    for target in targets:
        await rig.client().send(f"{APP}{target}")
    assert [head.split(b" ")[1].decode() for head in scripted.heads] == targets


@pytest.mark.parametrize("target", ["//evil.test/", "/a\\b", "/auth", "/%2e%2e/x", "/a/../b"])
async def test_a_page_that_cannot_be_returned_to_ends_at_the_root(
    started: Rig, target: str
) -> None:
    answer = await started.client().send(f"{APP}{target}")
    assert answer.status in (302, 400)
    if answer.status == 302:
        assert answer.one("Location").startswith("/auth?return_url=%2F&ticket=")


# -- the hand-over ---------------------------------------------------------------------------------


async def test_nothing_of_the_browser_goes_along(
    rig: Rig, scripted: ScriptedApp, person: Person
) -> None:
    client = rig.client()
    client.cookies["theirs"] = "planted-cookie"
    extra = {
        "Authorization": "Bearer planted-authorization",
        "X_Api_Key": "planted-header",
        "Referer": f"{APP}/planted-referer",
    }
    await client.send(await ticket(client), **extra)
    (head,) = scripted.auths
    names = {line.split(b":")[0].lower() for line in head.split(b"\r\n")[1:] if line}
    assert names <= {b"host", b"accept", b"cdn-loop"}
    assert b"planted" not in head
    assert b"\r\nHost: legacy.test\r\n" in head


async def test_cookies_get_what_the_app_left_out(rig: Rig, scripted: ScriptedApp) -> None:
    cookies = [
        "a=1",
        "b=2; Path=/app; SameSite=None; Secure",
        "c=3; HttpOnly; samesite=strict",
        "d=4; path=/x",
    ]
    fields = "".join(f"Set-Cookie: {cookie}\r\n" for cookie in cookies)
    scripted.at_auth = (
        f"HTTP/1.1 302 Found\r\nLocation: /a\r\n{fields}Cache-Control: public, max-age=60\r\n"
        "Referrer-Policy: unsafe-url\r\nX-Other: kept\r\nContent-Length: 0\r\n\r\n"
    ).encode()
    client = rig.client()
    answer = await client.send(await ticket(client))
    assert answer.all("Set-Cookie") == [
        "a=1; Path=/; SameSite=Lax",
        "b=2; Path=/app; SameSite=None; Secure",
        "c=3; HttpOnly; samesite=strict; Path=/",
        "d=4; path=/x; SameSite=Lax",
    ]
    assert answer.all("Cache-Control") == ["private, no-store"]
    assert answer.all("Referrer-Policy") == ["no-referrer"]
    assert answer.one("X-Other") == "kept"


def auth_answer(status: str, *fields: str, body: str = "") -> bytes:
    lines = [f"HTTP/1.1 {status}", *fields, f"Content-Length: {len(body)}", "", body]
    return "\r\n".join(lines).encode()


@pytest.mark.parametrize("status", ["403 Forbidden", "500 Oops", "200 OK", "503 Busy"])
async def test_the_apps_own_words_come_through(
    rig: Rig, scripted: ScriptedApp, status: str
) -> None:
    scripted.at_auth = auth_answer(status, "Content-Type: text/x", body="the app's own words")
    client = rig.client()
    answer = await client.send(await ticket(client))
    assert answer.status == int(status[:3])
    assert (answer.text, answer.one("Content-Type")) == ("the app's own words", "text/x")
    assert (rig.signins.completed, rig.signins.rejected) == (0, 1)


async def test_an_app_that_refuses_every_token_gets_an_end(
    rig: Rig, scripted: ScriptedApp, person: Person
) -> None:
    """401 at /auth: the salt was rotated in between, perhaps; from the start, but not for ever."""
    scripted.at_auth = scripted._challenge
    answer = await rig.client().open(f"{APP}/a", hops=30)
    assert answer.status == 401
    assert "again and again" in answer.text
    assert answer.one("WWW-Authenticate").startswith("IAM realm=")
    assert len(scripted.auths) == 3


@pytest.mark.parametrize(
    ("at_auth", "status", "error"),
    [
        (b"garbage\r\n\r\n", 502, "http_protocol_error"),
        (b"HTTP/1.1 302 Found\r\nLocation: /a\r\nContent-Length: 9\r\n\r\ncut", 502, None),
        (auth_answer("302 Found", "Location: /a", body="x" * 300_000), 502, None),
        (b"HTTP/1.1 302 Found\r\n" + b"A: b\r\n" * 20_000 + b"\r\n", 502, None),
        (None, 504, "http_response_timeout"),
    ],
    ids=["garbage", "cut", "huge body", "huge head", "never"],
)
async def test_an_app_that_breaks_down_at_auth_has_its_page(
    rig: Rig, scripted: ScriptedApp, at_auth: bytes | None, status: int, error: str | None
) -> None:
    scripted.at_auth = at_auth
    rig.app_deadline = 0.3 if at_auth is None else 5.0
    scripted.closes = True
    client = rig.client()
    answer = await client.send(await ticket(client))
    assert answer.status == status
    assert "sandbox" in answer.one("Content-Security-Policy")
    assert answer.one("Proxy-Status").startswith("iam-auth-proxy; error=")
    if error:
        assert answer.one("Proxy-Status").endswith(f"error={error}")
    assert sum(rig.relay.counters.failed.values()) == 1
    assert rig.signins.completed == 0


async def test_a_redirect_elsewhere_is_the_apps_to_give(rig: Rig, scripted: ScriptedApp) -> None:
    scripted.at_auth = auth_answer("302 Found", "Location: http://elsewhere.test/welcome")
    client = rig.client()
    answer = await client.send(await ticket(client))
    assert answer.one("Location") == "http://elsewhere.test/welcome"


def test_only_the_return_url_is_each_clients_own() -> None:
    origin = parse_origin(APP)

    def location(given: str) -> bytes:
        answer = Fetched(302, [(b"Location", given.encode())])
        headers = dict(relayed(answer, "/sent", "/wanted", origin).headers)
        return headers[b"Location"]

    for spelling in ("/sent", f"{APP}/sent", "//legacy.test/sent"):
        assert location(spelling) == b"/wanted"
    for other in ("/sent?welcome", "http://else.test/sent", "/", "https://legacy.test/sent"):
        assert location(other) == other.encode()


# -- the original's form ---------------------------------------------------------------------------


async def test_the_literal_form(rig: Rig, legacy: LegacyApp, person: Person) -> None:
    await rig.start(("legacy.test", legacy.port), mode=SignInMode.REDIRECT)
    client = rig.client()
    first = await client.send(f"{APP}/private?x=1")
    assert first.one("Location").startswith("//legacy.test/auth?token=")
    assert first.one("Cache-Control") == "private, no-store"
    assert first.one("Referrer-Policy") == "no-referrer"
    answer = await rig.client().open(f"{APP}/private?x=1")
    assert answer.text == f"you are {person.keys.arn}"


# -- sizes -----------------------------------------------------------------------------------------


async def test_credentials_too_long_for_encrypt_are_said_to_be(
    started: Rig, person: Person
) -> None:
    person.aws.session_token_size = 4096
    answer = await started.client().open(f"{APP}/a")
    assert answer.status == 403
    assert "[session-credentials]" in answer.text
    assert "too long" in answer.text
    assert "Encrypt" not in person.calls()


async def test_a_long_user_agent_is_not_kept(started: Rig) -> None:
    client = started.client("x" * 60_000)
    assert (await client.open(f"{APP}/a")).status == 200
    assert all(len(str(key)) < 2_000 for key in started.signins._jobs._jobs)


# -- secrets ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("literal", [False, True], ids=["ticket", "literal"])
async def test_no_secret_is_said_anywhere(
    rig: Rig,
    legacy: LegacyApp,
    person: Person,
    literal: bool,
    logged: io.StringIO,
) -> None:
    """A whole sign-in and failures at debug level; then everything that was said is searched."""
    mode = SignInMode.REDIRECT if literal else SignInMode.AUTO
    await rig.start(("legacy.test", legacy.port), mode=mode)
    client = rig.client()
    client.cookies["theirs"] = "planted-cookie-value"
    auth = {"Authorization": "Bearer planted-bearer-value"}
    answers = [await client.send(f"{APP}/a", **auth)]
    where = answers[0].one("Location")
    url = f"http:{where}" if where.startswith("//") else f"{APP}{where}"
    answers.append(await client.send(url, **auth))
    answers.append(await client.send(f"{APP}/a", **auth))
    assert answers[-1].status == 200
    jobs = [*rig.signins._jobs._jobs.values()]
    session = rig.signins.principals.of().session_credentials(rig.wall())
    tokens = [target.split("token=")[1].split("&")[0] for target in auths(legacy)]
    said = "SignatureDoesNotMatch: your secret is " + person.keys.secret_access_key
    for action in ("Encrypt", "GetSessionToken"):
        person.aws.fault("*", action, code="AccessDenied", message=said)
        rig.wall.ahead += 1000
        answers.append(await rig.client(action).open(f"{APP}/b", **auth))
        assert answers[-1].status == 403
    secrets = {
        "secret key": person.keys.secret_access_key,
        "session's secret key": session.secret_access_key,
        "session token": session.session_token,
        "token": tokens[0],
        "app's cookie": client.cookies["session"],
        "client's cookie": "planted-cookie-value",
        "client's authorization": "planted-bearer-value",
    }
    handed_over = [job.handed_over.result() for job in jobs if job.handed_over]
    states = [rig.signins, rig.signins.principals.of(), session, *jobs, *handed_over]
    shown = "\n".join(str(answer.headers) + answer.text for answer in answers[3:])
    held = "\n".join(repr(state) for state in states)
    assert '"token sealed"' in logged.getvalue()
    assert "SignatureDoesNotMatch" in logged.getvalue(), "what AWS said is in the log, but for"
    for name, secret in secrets.items():
        assert secret not in shown, f"{name} on a page"
        assert secret not in held, f"{name} in a repr"
        assert secret not in logged.getvalue(), f"{name} in the log"
    if not literal:
        assert all(tokens[0] not in str(answer.headers) for answer in answers)
