"""Sign-ins that the client sees nothing of: the request goes out again, with the session."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from iam_auth_proxy.names import parse_origin
from iam_auth_proxy.proxy.decisions import limits
from iam_auth_proxy.proxy.decisions.limits import SIGN_INS
from iam_auth_proxy.proxy.steering import RETURNS
from iam_auth_proxy.relay.forward import Forward
from tests.proxy.conftest import Answer, Person, Rig, ScriptedApp, challenge
from tests.support.bound_app import BoundApp, bound_app
from tests.support.legacy_app import LegacyApp
from tests.support.upstreams import listening

APP = "http://app.test"
LEGACY = "http://legacy.test"
FETCH = {"User_Agent": "Mozilla/5.0", "Origin": APP}
OVER = {"Cookie": "iam-auth=over"}


@pytest.fixture
async def app(person: Person) -> AsyncIterator[BoundApp]:
    async with bound_app(person.aws, person.server, person.key.arn, APP) as app:
        yield app


@pytest.fixture
async def started(rig: Rig, app: BoundApp) -> Rig:
    await rig.start(("app.test", app.port), trust=[APP])
    return rig


def own_calls(person: Person, app: BoundApp) -> list[str]:
    """What the proxy asked of AWS; the app's own checks are made with the person's signature."""
    calls = person.calls()[::-1]
    for _ in range(app.sts.checks):
        calls.remove("GetCallerIdentity")
    return calls[::-1]


# -- programs --------------------------------------------------------------------------------------


async def test_a_program_is_signed_in_by_one_request(
    started: Rig, app: BoundApp, person: Person
) -> None:
    answer = await started.program().send(f"{APP}/a?public=1")
    assert (answer.status, answer.text) == (200, f"GET 0 bytes of {person.keys.arn}")
    assert [asked.target for asked in app.asked] == ["/a?public=1", "/auth", "/a?public=1"]
    assert own_calls(person, app) == ["GetCallerIdentity", "Encrypt"]
    assert "iam-auth=" in answer.one("Set-Cookie")
    assert "public" not in answer.one("Cache-Control")
    assert "private" in answer.one("Cache-Control")
    # What differs between the two requests is the session.
    first, _, second = app.asked
    assert [pair for pair in second.headers if pair[0] != "cookie"] == [*first.headers]
    assert [value.split("=")[0] for value in second.all("Cookie")] == ["iam-auth"]


async def test_a_warm_sign_in_is_one_call(started: Rig, app: BoundApp, person: Person) -> None:
    await started.program().send(f"{APP}/a")
    started.signins.forget()
    person.aws.clear_calls()
    app.sts.checks = 0
    assert (await started.program().send(f"{APP}/a")).status == 200
    assert own_calls(person, app) == ["Encrypt"]


async def test_the_hand_over_carries_the_nonces_cookie_alone(
    started: Rig, app: BoundApp, person: Person
) -> None:
    extra = {"Cookie": "theirs=planted", "Authorization": "planted", "Referer": f"{APP}/planted"}
    assert (await started.program().send(f"{APP}/a", **extra)).status == 200
    (handed,) = app.handed_over
    names = {name.lower() for name, _ in handed.headers}
    assert names <= {"host", "accept", "content-type", "content-length", "cookie", "cdn-loop"}
    (cookie,) = handed.all("Cookie")
    assert cookie.startswith("iam_auth_nonce=")
    assert ";" not in cookie
    assert b"planted" not in handed.body


async def test_cookies_of_the_request_stay(started: Rig, app: BoundApp) -> None:
    cookies = "a=1; iam-auth=stale; b=2"
    answer = await started.program().send(f"{APP}/a", Cookie=cookies)
    assert answer.status == 200
    (sent,) = app.asked[-1].all("Cookie")
    assert sent.startswith("a=1; b=2; iam-auth=")
    assert "stale" not in sent


async def test_the_next_request_of_a_program_needs_no_sign_in(
    started: Rig, app: BoundApp, person: Person
) -> None:
    await started.program().send(f"{APP}/a")
    person.aws.clear_calls()
    again = await started.program("wget/1").send(f"{APP}/b")
    assert (again.status, again.all("Set-Cookie")) == (200, [])
    assert person.calls() == []
    assert len(app.handed_over) == 1


async def test_a_program_with_a_jar_is_served_too(started: Rig, app: BoundApp) -> None:
    client = started.program(keeps=True)
    assert [(await client.send(f"{APP}/{n}")).status for n in range(3)] == [200, 200, 200]
    assert len(app.handed_over) == 1


async def test_an_expired_session_is_begun_anew(started: Rig, app: BoundApp) -> None:
    for client in (started.program(), started.program(keeps=True)):
        assert (await client.send(f"{APP}/a")).status == 200
        app.deaf = 1
        assert (await client.send(f"{APP}/b")).status == 200
        assert (await client.send(f"{APP}/c")).status == 200
    assert len(app.handed_over) == 3


async def test_fifty_at_once_are_one_sign_in(started: Rig, app: BoundApp, person: Person) -> None:
    answers = await asyncio.gather(*(started.program().send(f"{APP}/{n}") for n in range(50)))
    assert {answer.status for answer in answers} == {200}
    assert len(app.handed_over) == 1
    assert own_calls(person, app) == ["GetCallerIdentity", "Encrypt"]
    assert started.signins.completed == 1


async def test_a_late_401_uses_the_session_that_others_waited_for(
    started: Rig, app: BoundApp
) -> None:
    """It was sent before the session was there, and its answer took long."""
    client = started.program()
    await client.send(f"{APP}/a")
    started.signins.held.end()
    assert (await client.send(f"{APP}/b")).status == 200
    assert len(app.handed_over) == 1
    started.signins.held.end()
    started.ticking.ahead += 60
    assert (await client.send(f"{APP}/c")).status == 200
    assert len(app.handed_over) == 2


async def test_a_shared_session_that_ended_costs_a_sign_in_not_an_error(
    started: Rig, app: BoundApp
) -> None:
    client = started.program()
    await client.send(f"{APP}/a")
    started.signins.held.end()
    app.deaf = 2  # the request, and its repetition with the session of before
    assert (await client.send(f"{APP}/b")).status == 200
    assert len(app.handed_over) == 2


async def test_an_app_that_does_not_take_its_own_session_gets_an_end(
    started: Rig, app: BoundApp
) -> None:
    app.deaf = 100
    answer = await started.program().send(f"{APP}/a")
    assert (answer.status, "[loop]" in answer.text) == (401, True)
    assert answer.one("WWW-Authenticate").startswith("IAM realm=")
    assert len(app.handed_over) == 1
    assert not len(started.signins.held)


# -- the app's own pages ---------------------------------------------------------------------------


async def test_a_pages_own_request(started: Rig, app: BoundApp, person: Person) -> None:
    browser = started.client("Mozilla/5.0")
    answer = await browser.send(f"{APP}/api", "POST", b"x" * 5_000_000, **FETCH, **OVER)
    assert answer.status == 200
    assert answer.text == f"POST 5000000 bytes of {person.keys.arn}"
    assert browser.cookies.keys() == {"iam-auth"}
    assert (await browser.send(f"{APP}/api", **FETCH)).status == 200
    assert len(app.handed_over) == 1
    assert not len(started.signins.held), "nothing is held for a browser"


async def test_a_page_without_any_session_sends_its_request_again(
    started: Rig, app: BoundApp, person: Person
) -> None:
    """So that the browser decides whether the cookie goes along, as it does for a navigation."""
    browser = started.client("Mozilla/5.0")
    answer = await browser.send(f"{APP}/api?x", "POST", b"x" * 5_000_000, **FETCH)
    assert (answer.status, answer.one("Location")) == (307, f"{APP}/api?x")
    assert answer.one("Cache-Control") == "private, no-store"
    assert browser.cookies.keys() == {"iam-auth"}
    answer = await browser.send(f"{APP}/api?x", "POST", b"x" * 5_000_000, **FETCH)
    assert answer.text == f"POST 5000000 bytes of {person.keys.arn}"
    assert len(app.handed_over) == 1


async def test_all_that_a_page_asks_one_url_for_at_once(started: Rig, app: BoundApp) -> None:
    """Many queries of one URL, as of GraphQL; the browser sends them before it has the session."""
    browsers = [started.client("Mozilla/5.0") for _ in range(3 * RETURNS)]
    asked = [
        browser.send(f"{APP}/graphql", "POST", b"x" * size, **FETCH)
        for size, browser in enumerate(browsers, 1)
    ]
    assert {answer.status for answer in await asyncio.gather(*asked)} == {307}
    assert len(app.handed_over) == 1


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize("by", [{"Origin": APP}, {"Referer": f"{APP}/shell"}])
async def test_a_page_in_another_sites_frame_gets_no_session(
    started: Rig, app: BoundApp, person: Person, method: str, by: dict[str, str]
) -> None:
    """There the browser neither keeps nor sends it: its request goes nowhere but in a circle."""
    browser = started.client("Mozilla/5.0")
    browser.keeps = False
    headers = {"User_Agent": "Mozilla/5.0", "Upgrade_Insecure_Requests": "0", **by}
    answers = [await browser.send(f"{APP}/do", method, **headers) for _ in range(RETURNS + 1)]
    assert [answer.status for answer in answers] == [307] * RETURNS + [401]
    assert answers[-1].all("Set-Cookie") == []
    assert not [asked for asked in app.asked if asked.target == "/do" and asked.all("Cookie")]
    assert len(app.handed_over) == 1
    # Cookies of other names say nothing of the session's.
    answer = await browser.send(f"{APP}/do2", method, Cookie="theme=dark", **headers)
    assert answer.status == 307


@pytest.mark.parametrize(
    "headers",
    [
        {"User_Agent": "Mozilla/5.0", "Origin": "http://evil.test"},
        {"User_Agent": "Mozilla/5.0", "Origin": "null"},
        {"User_Agent": "Mozilla/5.0"},
        {"User_Agent": "Mozilla/5.0", "Referer": "http://evil.test/"},
        {"Sec_Fetch_Site": "cross-site"},
        {"Sec_Fetch_Site": "same-site"},
        {"Sec_Purpose": "prefetch"},
        {"User_Agent": "ocspd/1.0.3"},
    ],
)
async def test_what_another_page_causes_gets_nothing(
    started: Rig, app: BoundApp, person: Person, headers: dict[str, str]
) -> None:
    """Neither a sign-in nor the session that is held for programs."""
    assert (await started.program().send(f"{APP}/a")).status == 200
    calls, handed = len(person.calls()), len(app.handed_over)
    for method in ("GET", "POST"):
        answer = await started.program().send(f"{APP}/x", method, **headers)
        assert (answer.status, answer.all("Set-Cookie")) == (401, [])
        assert not app.asked[-1].all("Cookie")
    assert (len(person.calls()), len(app.handed_over)) == (calls, handed)


@pytest.mark.parametrize("tunnelled", [False, True], ids=["absolute-form", "CONNECT host:80"])
async def test_a_websocket_is_signed_in_before_the_upgrade(
    started: Rig, app: BoundApp, person: Person, tunnelled: bool
) -> None:
    """Browsers send those of plain-http origins through a tunnel."""
    reader, writer = await asyncio.open_connection("127.0.0.1", started.port)
    async with asyncio.timeout(10):
        if tunnelled:
            writer.write(b"CONNECT app.test:80 HTTP/1.1\r\nHost: app.test:80\r\n\r\n")
            assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200 ")
        target = "/ws" if tunnelled else f"{APP}/ws"
        head = (
            f"GET {target} HTTP/1.1\r\nHost: app.test\r\nOrigin: {APP}\r\n"
            "User-Agent: Mozilla/5.0\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
            "Cookie: iam-auth=over\r\n"
            "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        )
        writer.write(head.encode())
        answer = Answer.parse(await reader.readuntil(b"\r\n\r\n"))
        assert answer.status == 101
        assert "iam-auth=" in answer.one("Set-Cookie")
        (length,) = (await reader.readexactly(2))[1:]
        assert (await reader.readexactly(length)).decode() == person.keys.arn
    writer.close()


@pytest.mark.parametrize("purpose", ["Sec_Purpose", "Purpose"])
async def test_a_prefetch_costs_a_page_no_cookie(
    started: Rig, app: BoundApp, person: Person, purpose: str
) -> None:
    """Without it the page's WebSocket would not be signed in, and could not be made anew."""
    browser = {"User_Agent": "Mozilla/5.0", "Cookie": "iam-auth=over"}
    client = started.program()
    answer = await client.send(
        f"{APP}/later", Referer=f"{APP}/", **{purpose: "prefetch"}, **browser
    )
    assert (answer.status, answer.all("Set-Cookie")) == (401, [])
    assert person.calls() == []
    # Said again to the next request that is left alone: only what is fetched aside is kept from it.
    answer = await client.send(f"{APP}/later", Origin="null", **browser)
    assert answer.status == 401
    assert "; Max-Age=0" in answer.one("Set-Cookie")


async def test_a_late_favicon_costs_a_page_no_cookie(
    started: Rig, app: BoundApp, person: Person
) -> None:
    """Sent with the old cookie by a page that says no Referer, and answered after the sign-in."""
    browser = {"User_Agent": "Mozilla/5.0", "Cookie": "iam-auth=over"}
    client = started.program()
    page = await client.send(f"{APP}/do", Referer=f"{APP}/", **browser)
    assert "; Max-Age=0" not in page.one("Set-Cookie")
    handed = len(app.handed_over)
    accept = "image/avif,image/webp,image/apng,image/svg+xml,image/*,*/*;q=0.8"
    answer = await client.send(f"{APP}/favicon.ico", Accept=accept, **browser)
    assert (answer.status, answer.all("Set-Cookie")) == (401, [])
    assert len(app.handed_over) == handed
    # With a Referer it is the page's own, and brings the session that there is.
    answer = await client.send(f"{APP}/favicon.ico", Accept=accept, Referer=f"{APP}/", **browser)
    assert (answer.status, answer.all("Set-Cookie")) == (200, page.all("Set-Cookie"))
    assert len(app.handed_over) == handed


async def test_a_websocket_without_any_session_gets_none(started: Rig, app: BoundApp) -> None:
    """It may be in a frame of another site, and cannot be sent again."""
    reader, writer = await asyncio.open_connection("127.0.0.1", started.port)
    head = (
        f"GET {APP}/ws HTTP/1.1\r\nHost: app.test\r\nOrigin: {APP}\r\n"
        "User-Agent: Mozilla/5.0\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    )
    writer.write(head.encode())
    async with asyncio.timeout(10):
        answer = Answer.parse(await reader.readuntil(b"\r\n\r\n"))
    assert (answer.status, answer.all("Set-Cookie")) == (401, [])
    assert [asked.target for asked in app.asked if asked.method == "GET"] == ["/ws"]
    writer.close()


async def test_only_tunnels_to_trusted_plain_http_are_read(started: Rig) -> None:
    reads = started.steering.reads_tunnel
    assert reads(parse_origin(APP))
    for other in ("https://app.test", "http://app.test:81", "http://other.test"):
        assert not reads(parse_origin(other))


# -- what the app says of the hand-over ------------------------------------------------------------


async def test_a_challenge_that_went_stale_is_asked_for_again(started: Rig, app: BoundApp) -> None:
    """A slow MFA prompt outlives a nonce."""
    app.late = 1
    assert (await started.program().send(f"{APP}/a")).status == 200
    assert [asked.target for asked in app.asked] == ["/a", "/auth", "/auth", "/auth", "/a"]
    assert [asked.method for asked in app.asked] == ["GET", "POST", "GET", "POST", "GET"]


async def test_but_once(started: Rig, app: BoundApp) -> None:
    app.late = 100
    answer = await started.program().send(f"{APP}/a")
    assert answer.status == 403
    assert "too late" in answer.text
    assert "[expired]" in answer.text
    assert len(app.handed_over) == 2


async def test_the_same_for_a_page(started: Rig, app: BoundApp) -> None:
    app.late = 1
    client = started.client()
    assert (await client.open(f"{APP}/a")).status == 200
    assert client.asked == [f"{APP}/a", client.asked[1], f"{APP}/a"]
    app.late = 100
    answer = await started.client("b").open(f"{APP}/a")
    assert (answer.status, "[expired]" in answer.text) == (403, True)


@pytest.mark.parametrize(
    ("status", "code", "seen", "shown"),
    [
        (403, "not-allowed", 403, "[not-allowed]"),
        (403, "wrong-account", 403, "[wrong-account]"),
        (403, "replayed", 403, "[replayed]"),
        (403, "<script>", 502, "[app-refused]"),
        (503, "aws-unavailable", 503, "[aws-unavailable]"),
        (503, "misconfigured", 502, "[misconfigured]"),
        (503, "", 503, "[aws-unavailable]"),
        (500, "", 502, "[app-refused]"),
        (200, "", 502, "[app-refused]"),
        (303, "", 502, "[app-refused]"),
    ],
)
async def test_what_the_app_says_becomes_a_page(
    rig: Rig, person: Person, status: int, code: str, seen: int, shown: str
) -> None:
    said = f"Iam-Auth-Error: {code}\r\n" if code else ""
    raw = f"HTTP/1.1 {status} X\r\n{said}Content-Length: 4\r\n\r\nevil"
    app = ScriptedApp(challenge(person), raw.encode())
    async with listening(app.serve) as port:
        await rig.start(("legacy.test", port))
        answer = await rig.program().send(f"{LEGACY}/a")
    assert answer.status == seen
    assert shown in answer.text
    assert "evil" not in answer.text
    assert "script" not in answer.text
    assert answer.all("Retry-After") == (["5"] if seen == 503 else [])


# -- the original protocol -------------------------------------------------------------------------


async def test_an_app_of_the_original_protocol(rig: Rig, person: Person, legacy: LegacyApp) -> None:
    await rig.start(("legacy.test", legacy.port))
    client = rig.program()
    for method in ("GET", "POST", "GET"):
        answer = await client.send(f"{LEGACY}/a", method)
        assert (answer.status, answer.text) == (200, f"you are {person.keys.arn}")
    assert len([target for target in legacy.asked if target.startswith("/auth")]) == 1


async def test_an_original_that_challenges_the_hand_over_is_asked_twice(
    rig: Rig, person: Person
) -> None:
    """Its salt was rotated in between, perhaps."""
    app = ScriptedApp(challenge(person), None)
    app.at_auth = app._challenge
    async with listening(app.serve) as port:
        await rig.start(("legacy.test", port))
        answer = await rig.program().send(f"{LEGACY}/a")
    assert (answer.status, "[app-refused]" in answer.text) == (502, True)
    assert len(app.auths) == 2


# -- how often -------------------------------------------------------------------------------------


async def test_sign_ins_are_paced(started: Rig, app: BoundApp, person: Person) -> None:
    statuses = []
    for _ in range(SIGN_INS + 1):
        started.signins.forget()
        answer = await started.program().send(f"{APP}/a")
        statuses.append(answer.status)
    assert statuses == [200] * SIGN_INS + [429]
    assert answer.one("Retry-After") in ("1", "2", "3")
    assert "[too-many-requests]" in answer.text
    calls = len(person.calls())
    assert (await started.program().send(f"{APP}/a")).status == 429
    assert len(person.calls()) == calls
    started.ticking.ahead += 3
    assert (await started.program().send(f"{APP}/a")).status == 200


@pytest.mark.parametrize(
    ("trusted", "statuses"),
    [("http://*.corp.test", [200, 200, 429]), ("http://app.corp.test", [200] * 3)],
)
async def test_names_under_wildcards_are_paced_together(
    rig: Rig, person: Person, monkeypatch: pytest.MonkeyPatch, trusted: str, statuses: list[int]
) -> None:
    monkeypatch.setattr(limits, "WILDCARDS_SIGN_INS", 2)
    url = "http://app.corp.test"
    async with bound_app(person.aws, person.server, person.key.arn, url) as app:
        await rig.start(("app.corp.test", app.port), trust=[trusted])
        for status in statuses:
            rig.signins.forget()
            assert (await rig.program().send(f"{url}/a")).status == status


# -- bodies that cannot be kept --------------------------------------------------------------------


async def test_a_body_that_is_gone_is_asked_for_again(
    started: Rig, app: BoundApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Forward, "repeatable", property(lambda self: False))
    client = started.client("Mozilla/5.0")
    answer = await client.send(f"{APP}//x?a=b", "POST", b"body", **FETCH)
    assert (answer.status, answer.one("Location")) == (307, f"{APP}//x?a=b")
    assert (await client.send(f"{APP}//x?a=b", "POST", b"body", **FETCH)).status == 200
    program = started.program()
    assert (await program.send(f"{APP}/x", "POST", b"body")).status == 307
    assert (await program.send(f"{APP}/x", "POST", b"body")).status == 200


async def test_and_not_for_ever(
    started: Rig, app: BoundApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Forward, "repeatable", property(lambda self: False))
    app.deaf = 100
    client = started.client("Mozilla/5.0")
    statuses = [(await client.send(f"{APP}/x", "POST", b"body", **FETCH)).status for _ in range(2)]
    assert statuses == [307, 401]
    assert len(app.handed_over) == 1


async def test_nor_of_a_client_that_keeps_no_cookie(
    started: Rig, app: BoundApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither a browser nor a program that a session is held for, since it names a page."""
    monkeypatch.setattr(Forward, "repeatable", property(lambda self: False))
    client = started.program()
    sent = [await client.send(f"{APP}/x", "POST", b"body", Origin=APP) for _ in range(RETURNS + 1)]
    assert [answer.status for answer in sent] == [307] * RETURNS + [401]
    assert "[loop]" in sent[-1].text
    assert len(app.handed_over) == 1
