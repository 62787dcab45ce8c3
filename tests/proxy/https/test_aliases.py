"""An app on https under its name of .localhost: who is let in, and what of the session is seen."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import trustme
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st

from iam_auth_proxy.config import TrustRule, parse_trust
from iam_auth_proxy.names import parse_origin
from iam_auth_proxy.proxy.decisions.decide import SignInMode
from iam_auth_proxy.proxy.decisions.trust import Trust
from iam_auth_proxy.proxy.https.aliases import WELCOME, Aliases, app_of, url_of
from iam_auth_proxy.proxy.listeners.clientauth import OneSecret
from iam_auth_proxy.proxy.listeners.entrance import Entrance
from iam_auth_proxy.proxy.signin.cookies import SetCookie
from iam_auth_proxy.relay.exchange import Exchange, Reply, RequestHead
from iam_auth_proxy.relay.forward import Forward
from tests.proxy.conftest import Answer, Person, Rig, exchange
from tests.proxy.test_asking import Questions, asked
from tests.support.bound_app import BoundApp, bound_app
from tests.support.tls_peers import authority_file, server_context
from tests.support.vectors import FOLDER

APP = "https://wiki.test"
ORIGIN = parse_origin(APP)
SESSION = "__Host-iam-auth"
# As Chromium says it: who opens a page, and the app's own page that asks for something.
TYPED = {
    "Sec-Fetch-Site": "none",
    "Sec-Fetch-Mode": "navigate",
    "Sec-Fetch-Dest": "document",
    "Upgrade-Insecure-Requests": "1",
    "User-Agent": "Mozilla/5.0",
    "Accept": "text/html",
}
LINKED = {**TYPED, "Sec-Fetch-Site": "cross-site"}
OWN = {
    "Sec-Fetch-Site": "same-origin",
    "Sec-Fetch-Mode": "cors",
    "Sec-Fetch-Dest": "empty",
    "User-Agent": "Mozilla/5.0",
}


def rule(text: str = APP, name: str = "wiki", **said: Any) -> TrustRule:
    return replace(parse_trust(text), https="alias", alias=name, **said)


@dataclass
class Wiki:
    """A client of ``http://wiki.localhost``, and what is behind it."""

    rig: Rig
    app: BoundApp
    questions: Questions

    @property
    def url(self) -> str:
        return f"http://wiki.localhost:{self.rig.port}"

    async def send(
        self,
        path: str = "/a",
        fields: dict[str, str] | None = None,
        method: str = "GET",
        body: bytes = b"",
        host: str = "",
    ) -> Answer:
        lines = [
            f"{method} {path} HTTP/1.1",
            f"Host: {host or self.url.removeprefix('http://')}",
            "Connection: close",
            *(f"{name}: {value}" for name, value in (fields or {}).items()),
            *([f"Content-Length: {len(body)}"] if body else []),
        ]
        head = ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")
        return Answer.parse(await exchange(self.rig.port, head + body))

    def cookies(self) -> list[str]:
        """What the app was sent last."""
        return [pair for each in self.app.asked[-1].all("Cookie") for pair in each.split("; ")]


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


def routes(application: web.Application) -> None:
    async def redirect(request: web.Request) -> web.Response:
        raise web.HTTPFound(f"{APP}/there?x=1")

    async def cookies(request: web.Request) -> web.Response:
        answer = web.Response(text="set", headers={"Strict-Transport-Security": "max-age=1"})
        for value in ("a=1; Domain=wiki.test; Secure", "__Host-b=2; Secure; Path=/"):
            answer.headers.add("Set-Cookie", value)
        answer.headers.add("Set-Cookie", f"{SESSION}=anew; Secure; Path=/; HttpOnly")
        return answer

    application.router.add_get("/redirect", redirect)
    application.router.add_get("/cookies", cookies)


Start = Callable[..., Any]


@pytest.fixture
async def start(
    rig: Rig, person: Person, authority: trustme.CA, tmp_path: Path
) -> AsyncIterator[Start]:
    context = server_context(authority.issue_cert("wiki.test"))
    async with bound_app(
        person.aws, person.server, person.key.arn, APP, tls=context, routes=routes
    ) as app:

        async def begin(**said: Any) -> Wiki:
            questions = Questions()
            cacert = authority_file(authority, tmp_path)
            given: dict[str, Any] = {"rules": [rule()], **said}
            await rig.start(("wiki.test", app.port), cacert=cacert, questions=questions, **given)
            return Wiki(rig, app, questions)

        yield begin


@pytest.fixture
async def wiki(start: Start) -> Wiki:
    found: Wiki = await start()
    return found


# -- signing in ------------------------------------------------------------------------------------


async def test_a_page_that_is_opened_is_just_there(wiki: Wiki, person: Person) -> None:
    answer = await wiki.send("/a?b", TYPED)
    assert (answer.status, answer.text) == (200, f"GET 0 bytes of {person.keys.arn}")
    assert answer.all("Set-Cookie") == []
    assert [each.target for each in wiki.app.asked] == ["/a?b", "/auth", "/a?b"]
    assert {each.all("Host")[0] for each in wiki.app.asked} == {"wiki.test"}
    (cookie,) = wiki.cookies()
    assert cookie.startswith(f"{SESSION}=")


async def test_the_session_is_held_for_whatever_comes_next(wiki: Wiki, person: Person) -> None:
    await wiki.send("/a", TYPED)
    person.aws.clear_calls()
    own = {**OWN, "Origin": wiki.url, "Referer": f"{wiki.url}/a", "Cookie": "mine=1"}
    answers = [
        await wiki.send("/b", OWN),
        await wiki.send("/c", own, "POST", b"body"),
        await wiki.send("/d"),  # a program
    ]
    assert [answer.status for answer in answers] == [200, 200, 200]
    assert [answer.all("Set-Cookie") for answer in answers] == [[], [], []]
    assert len(wiki.app.handed_over) == 1
    assert person.calls() == []
    posted = next(each for each in wiki.app.asked if each.method == "POST" and each.target == "/c")
    assert posted.all("Origin") == [APP]
    assert posted.all("Referer") == [f"{APP}/a"]
    assert posted.all("Cookie")[0].startswith(f"mine=1; {SESSION}=")


async def test_programs_need_no_more_than_the_name(wiki: Wiki, person: Person) -> None:
    answer = await wiki.send("/a", {"User-Agent": "curl/8"})
    assert (answer.status, answer.text) == (200, f"GET 0 bytes of {person.keys.arn}")
    assert answer.all("Set-Cookie") == []


async def test_a_program_that_is_told_of_the_proxy(wiki: Wiki, person: Person) -> None:
    answer = await wiki.rig.program().send(f"{wiki.url}/a")
    assert (answer.status, answer.text) == (200, f"GET 0 bytes of {person.keys.arn}")
    assert answer.all("Set-Cookie") == []
    page = {"Origin": "http://evil.test"}
    assert (await wiki.rig.program().send(f"{wiki.url}/a", **page)).status == 403


async def test_a_post_is_signed_in_and_repeated(wiki: Wiki, person: Person) -> None:
    body = b"x" * 300_000
    answer = await wiki.send("/a", {**OWN, "Origin": wiki.url}, "POST", body)
    assert answer.text == f"POST {len(body)} bytes of {person.keys.arn}"


async def test_what_cannot_be_repeated_is_sent_again_to_the_alias(
    wiki: Wiki, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Forward, "repeatable", property(lambda self: False))
    own = {**OWN, "Origin": wiki.url}
    answer = await wiki.send("/a?b", own, "POST", b"x" * 1000)
    assert (answer.status, answer.one("Location")) == (307, f"{wiki.url}/a?b")
    assert answer.all("Set-Cookie") == []
    assert (await wiki.send("/a?b", own, "POST", b"x" * 1000)).status == 200
    wiki.app.deaf = 100
    statuses = [(await wiki.send("/a", own, "POST", b"x")).status for _ in range(3)]
    assert statuses == [401, 307, 401], "a client that does as it is told hears so"


async def test_whoever_redirects_signs_in_here_all_the_same(start: Start) -> None:
    """``--sign-in redirect`` would put a token into a URL of a name that takes none."""
    wiki = await start(mode=SignInMode.REDIRECT)
    assert (await wiki.send("/a", TYPED)).status == 200


async def test_no_ticket_is_taken(wiki: Wiki) -> None:
    target = "/auth?iam-auth-ticket=x&return_url=/"
    answer = await wiki.send(target, TYPED)
    assert answer.status == 400  # the app's own word
    assert [each.target for each in wiki.app.asked] == [target]
    assert answer.all("Set-Cookie") == []


async def test_a_session_that_ended_is_begun_anew(wiki: Wiki) -> None:
    await wiki.send("/a", TYPED)
    wiki.app.expired.add("/b")
    answer = await wiki.send("/b", OWN)
    assert (answer.status, answer.all("Set-Cookie")) == (200, [])
    assert len(wiki.app.handed_over) == 2


async def test_fifty_at_once_are_one_sign_in(wiki: Wiki) -> None:
    answers = await asyncio.gather(*(wiki.send(f"/{n}", OWN) for n in range(50)))
    assert {answer.status for answer in answers} == {200}
    assert [answer.all("Set-Cookie") for answer in answers if answer.all("Set-Cookie")] == []
    assert len(wiki.app.handed_over) == 1


# -- cookies ---------------------------------------------------------------------------------------


async def test_the_apps_own_cookies_pass_and_the_session_does_not(wiki: Wiki) -> None:
    await wiki.send("/a", TYPED)
    answer = await wiki.send("/cookies", OWN)
    assert answer.all("Set-Cookie") == ["a=1; Secure", "__Host-b=2; Secure; Path=/"]
    assert answer.all("Strict-Transport-Security") == []
    # What the app made of the session is what goes along from now on.
    await wiki.send("/b", OWN)
    seen = [value for each in wiki.app.asked for value in each.all("Cookie")]
    assert seen.count(f"{SESSION}=anew") == 1


async def test_what_the_first_answer_makes_of_the_session_counts(wiki: Wiki) -> None:
    """An app may keep more in its session than who it is."""
    answer = await wiki.send("/cookies", TYPED)
    assert answer.all("Set-Cookie") == ["a=1; Secure", "__Host-b=2; Secure; Path=/"]
    await wiki.send("/b", OWN)
    seen = [value for each in wiki.app.asked for value in each.all("Cookie")]
    assert seen.count(f"{SESSION}=anew") == 1


async def test_a_session_of_the_apps_own_name_stays_here_from_the_first_answer_on(
    rig: Rig, person: Person, authority: trustme.CA, tmp_path: Path
) -> None:
    context = server_context(authority.issue_cert("wiki.test"))
    async with bound_app(
        *(person.aws, person.server, person.key.arn, APP),
        tls=context,
        routes=routes,
        cookie_name="b",
    ) as app:
        cacert = authority_file(authority, tmp_path)
        await rig.start(("wiki.test", app.port), cacert=cacert, rules=[rule()])
        wiki = Wiki(rig, app, Questions())
        answer = await wiki.send("/cookies", TYPED)
        assert (answer.status, answer.all("Set-Cookie")) == (200, ["a=1; Secure"])


async def test_a_session_of_another_name_stays_here_too(wiki: Wiki) -> None:
    """One that was begun before the app was known by an alias, or renewed under another name."""
    await wiki.send("/a", TYPED)
    (session,) = wiki.rig.signins.held
    session.cookies[b"a"] = SetCookie(b"a", b"0")
    answer = await wiki.send("/cookies", OWN)
    assert answer.all("Set-Cookie") == ["__Host-b=2; Secure; Path=/"]
    assert session.cookies[b"a"].value == b"1"


@pytest.mark.parametrize("signed_in", [False, True])
async def test_a_planted_session_is_nobodys(wiki: Wiki, signed_in: bool) -> None:
    """Whoever listens on another port of this name can set cookies for it."""
    if signed_in:
        await wiki.send("/a", TYPED)
    planted = {**TYPED, "Cookie": f"{SESSION}=planted; a=1; __Host-iam_auth_nonce=planted"}
    assert (await wiki.send("/b", planted)).status == 200
    seen = [value for each in wiki.app.asked for value in each.all("Cookie")]
    assert not any("planted" in value for value in seen)
    assert any(value.startswith("a=1") for value in seen)
    assert any(pair.startswith(f"{SESSION}=") for pair in wiki.cookies())


async def test_no_nonce_goes_to_a_browser(start: Start) -> None:
    wiki = await start(rules=[rule(proofs=("session-credentials",))])
    answer = await wiki.send("/a", TYPED)
    assert answer.status != 200
    assert answer.all("Set-Cookie") == []


async def test_a_redirect_to_the_app_leads_to_the_alias(wiki: Wiki) -> None:
    await wiki.send("/a", TYPED)
    answer = await wiki.send("/redirect", TYPED)
    assert (answer.status, answer.one("Location")) == (302, f"{wiki.url}/there?x=1")


# -- who is let in ---------------------------------------------------------------------------------


def foreign() -> list[Any]:
    """What Chromium sends for whatever another site's page can do, with what it says on loopback.

    The recording is of a plain-http name, to which it does not say ``Sec-Fetch-*``: without them,
    what looks like a page may be anybody's.
    """
    cases = json.loads((FOLDER / "authority_chromium.json").read_text("utf-8"))["cases"]
    found = []
    for case in cases:
        if case["page"] != "other.test" or case["method"] not in ("GET", "POST", "PUT", "OPTIONS"):
            continue
        found.append(pytest.param(case, {}, id=f"{case['kind']}-bare"))
        for site in ("cross-site", "same-site"):
            said = {"Sec-Fetch-Site": site}
            found.append(pytest.param(case, said, id=f"{case['kind']}-{site}"))
    return found


@pytest.fixture(scope="module")
def gate() -> Callable[..., bool]:
    """Whether a request is let in, without an app behind it."""
    aliases = Aliases(lambda: Trust([rule()]), {"localhost:8080"}, lambda: 0.0)

    def admits(method: str, target: str, headers: list[list[str]], **more: bool) -> bool:
        fields = [(name.encode(), value.encode("latin-1")) for name, value in headers]
        request = RequestHead(method.encode(), target.encode(), fields, **more)
        asked = Exchange(ORIGIN, "127.0.0.1:1", request, alias=b"http://wiki.localhost:8080")
        return not isinstance(aliases.admit(asked), Reply)

    return admits


def test_no_answer_of_whatever_status_brings_a_nonce() -> None:
    aliases = Aliases(lambda: Trust([rule()]), {"localhost:8080"}, lambda: 0.0)
    request = RequestHead(b"GET", b"/", [])
    asked = Exchange(ORIGIN, "127.0.0.1:1", request, alias=b"http://wiki.localhost:8080")
    value = b"__Host-iam_auth_nonce=x; Path=/; Secure"
    assert aliases.outside(asked, [(b"Set-Cookie", value), (b"set-cookie", b"a=1")]) == [
        (b"set-cookie", b"a=1")
    ]


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE"])
async def test_a_click_opens_no_more_than_a_page(wiki: Wiki, method: str) -> None:
    answer = await wiki.send("/a", LINKED, method)
    assert answer.status == 403
    assert b"href" not in answer.body
    assert b"href" in (await wiki.send("/a", LINKED)).body


@pytest.mark.parametrize(("case", "more"), foreign())
def test_nothing_that_another_page_does_is_let_in(
    gate: Callable[..., bool], case: dict[str, Any], more: dict[str, str]
) -> None:
    headers = [[name, value.replace("app.test", "wiki.test")] for name, value in case["headers"]]
    socket = case["kind"] == "websocket"
    headers += [[name, value] for name, value in more.items()]
    assert not gate(case["method"], case["target"], headers, websocket=socket)


@pytest.mark.parametrize(
    ("fields", "let_in"),
    [
        (TYPED, True),
        (OWN, True),
        ({"User-Agent": "curl/8"}, True),
        ({"User-Agent": "Mozilla/5.0"}, False),
        ({"Origin": "http://wiki.localhost:8080"}, True),
        ({"Origin": "http://wiki.localhost:8081", **OWN}, False),
        ({"Origin": "http://localhost:8080", **OWN}, False),
        ({"Origin": "http://docs.localhost:8080", **OWN}, False),
        ({"Origin": APP, **OWN}, False),
        ({"Origin": "null", **OWN}, False),
        ({**OWN, "Sec-Fetch-Site": "same-site"}, False),
        (LINKED, False),
        # A browser that does not say Sec-Fetch-Site here: a click on a page of the app.
        ({"User-Agent": "Mozilla/5.0", "Upgrade-Insecure-Requests": "1"}, False),
        (
            {
                "User-Agent": "Mozilla/5.0",
                "Upgrade-Insecure-Requests": "1",
                "Referer": "http://wiki.localhost:8080/a",
            },
            True,
        ),
        ({"User-Agent": "Mozilla/5.0", "Referer": f"{APP}/a"}, False),
        ({**OWN, "Sec-Purpose": "prefetch"}, False),
    ],
)
def test_who_is_let_in(gate: Callable[..., bool], fields: dict[str, str], let_in: bool) -> None:
    assert gate("GET", "/", [[name, value] for name, value in fields.items()]) is let_in


_SAID = st.fixed_dictionaries(
    {},
    optional={
        "Origin": st.sampled_from(
            ["http://wiki.localhost:8080", "http://evil.test", APP, "null", "http://localhost:8080"]
        ),
        "Sec-Fetch-Site": st.sampled_from(["none", "same-origin", "same-site", "cross-site", "x"]),
        "Sec-Fetch-Mode": st.sampled_from(["navigate", "cors", "no-cors", "websocket"]),
        "Sec-Fetch-Dest": st.sampled_from(["document", "iframe", "empty", "image"]),
        "Referer": st.sampled_from(["http://wiki.localhost:8080/a", "http://evil.test/", APP]),
        "Upgrade-Insecure-Requests": st.just("1"),
        "User-Agent": st.sampled_from(["Mozilla/5.0", "curl/8", "AppleCoreMedia/1.0"]),
        "Sec-Purpose": st.just("prefetch"),
    },
)


@given(said=_SAID, method=st.sampled_from(["GET", "HEAD", "POST", "OPTIONS"]), socket=st.booleans())
def test_whoever_is_let_in_was_vouched_for(
    gate: Callable[..., bool], said: dict[str, str], method: str, socket: bool
) -> None:
    if not gate(method, "/", [[name, value] for name, value in said.items()], websocket=socket):
        return
    assert "Sec-Purpose" not in said
    origin, site = said.get("Origin"), said.get("Sec-Fetch-Site")
    if origin is not None:
        assert origin == "http://wiki.localhost:8080"
    elif site is not None:
        assert site in ("none", "same-origin")
    elif said.get("Referer") != "http://wiki.localhost:8080/a":
        # A program; a browser says Origin with every unsafe method, and what it is.
        assert {*said} <= {"User-Agent", "Upgrade-Insecure-Requests"}
        assert "Upgrade-Insecure-Requests" not in said or method not in ("GET", "HEAD")
        assert said.get("User-Agent", "curl/8") == "curl/8"


async def test_what_is_refused_reaches_no_app(wiki: Wiki, person: Person) -> None:
    await wiki.send("/a", TYPED)
    before, calls = len(wiki.app.asked), len(person.aws.calls)
    frame = {**LINKED, "Sec-Fetch-Dest": "iframe"}
    for fields, method in ((frame, "GET"), ({"Origin": "http://evil.test"}, "POST")):
        answer = await wiki.send("/do", fields, method)
        assert (answer.status, "cross-site" in answer.text) == (403, True)
        assert answer.all("Set-Cookie") == []
        assert "<a " not in answer.text
        assert answer.one("Cross-Origin-Resource-Policy") == "same-origin"
        assert "frame-ancestors 'none'" in answer.one("Content-Security-Policy")
    assert len(wiki.app.asked) == before
    assert len(person.aws.calls) == calls


async def test_a_link_of_another_site_opens_by_a_click(wiki: Wiki) -> None:
    answer = await wiki.send('/a?b="><script>', LINKED)
    assert answer.status == 403
    assert f'<a href="{wiki.url}/a?b=&#34;&gt;&lt;script&gt;">' in answer.text
    assert answer.one("Cross-Origin-Opener-Policy") == "same-origin"
    policy = answer.one("Content-Security-Policy")
    assert "frame-ancestors 'none'" in policy
    assert "default-src 'none'" in policy
    assert wiki.app.asked == []


async def test_and_so_does_one_that_came_by_the_apps_service_worker(wiki: Wiki) -> None:
    passed_on = {**LINKED, "Sec-Fetch-Dest": "empty"}
    answer = await wiki.send("/a", passed_on)
    assert (answer.status, f'<a href="{wiki.url}/a">' in answer.text) == (403, True)
    assert wiki.app.asked == []
    assert (await wiki.send("/a", {**passed_on, "Sec-Fetch-Site": "none"})).status == 200


async def test_a_target_cannot_make_another_links_host(wiki: Wiki) -> None:
    answer = await wiki.send("//evil.test/", LINKED)
    assert f'<a href="{wiki.url}//evil.test/">' in answer.text


# -- which names -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("host", "served"),
    [
        ("wiki.localhost:8080", True),
        ("WIKI.LocalHost:8080", True),
        ("localhost:8080", False),
        ("127.0.0.1:8080", False),
        ("[::1]:8080", False),
        ("wiki.localhost", False),
        ("wiki.localhost:8081", False),
        ("wiki.localhost.:8080", False),
        ("a.wiki.localhost:8080", False),
        ("docs.localhost:8080", False),
        (".localhost:8080", False),
        ("wiki.127.0.0.1:8080", False),
        ("wiki.test", False),
        ("wiki.evil.test:8080", False),
        ("", False),
    ],
)
def test_names_that_are_an_app(host: str, served: bool) -> None:
    hosts = {"localhost:8080", "127.0.0.1:8080"}
    aliases = Aliases(lambda: Trust([rule()]), hosts, lambda: 0.0)
    found = aliases.serves(host.encode(), Entrance("local", peers=None))
    assert found == (ORIGIN if served else None)


def test_names_are_for_this_machine() -> None:
    aliases = Aliases(lambda: Trust([rule()]), {"localhost:8080"}, lambda: 0.0)
    network = Entrance("network", peers=None, local=False)
    assert aliases.serves(b"wiki.localhost:8080", network) is None
    assert aliases.serves(b"wiki.localhost", network) is None


async def test_a_listener_with_a_password_asks_for_it_and_keeps_it(wiki: Wiki) -> None:
    door = Entrance("local", peers=None, credentials=OneSecret("secret"))
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: wiki.rig.relay.connection(None, door), "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        wiki.rig.hosts.add(f"localhost:{port}")
        head = f"GET /a HTTP/1.1\r\nHost: wiki.localhost:{port}\r\nConnection: close\r\n"
        answer = Answer.parse(await exchange(port, f"{head}\r\n".encode()))
        assert (answer.status, answer.one("WWW-Authenticate")[:6]) == (401, "Basic ")
        assert wiki.app.asked == []
        given = "Authorization: Basic " + base64.b64encode(b"x:secret").decode()
        assert Answer.parse(await exchange(port, f"{head}{given}\r\n\r\n".encode())).status == 200
    assert not any(each.all("Authorization") for each in wiki.app.asked)


def test_a_program_with_a_proxy_of_its_own_knows_no_port() -> None:
    aliases = Aliases(lambda: Trust([rule()]), {"localhost:8080"}, lambda: 0.0)
    private = Entrance("exec-1", peers=None, private=True)
    assert aliases.serves(b"wiki.localhost", private) == ORIGIN
    assert aliases.serves(b"wiki.localhost:8080", private) is None


def test_addresses_of_aliases() -> None:
    trust = Trust([rule()])
    assert url_of("wiki", "127.0.0.1:8080") == "http://wiki.localhost:8080"
    assert url_of("wiki", "[::1]:80") == "http://wiki.localhost"
    assert (url_of("wiki", ""), url_of("", "127.0.0.1:8080")) == ("", "")
    known = parse_origin("http://wiki.localhost:8080")
    assert app_of(known, trust, "127.0.0.1:8080") == ORIGIN
    assert app_of(known, trust, "127.0.0.1:8081") == known
    assert app_of(ORIGIN, trust, "127.0.0.1:8080") == ORIGIN


async def test_an_app_that_is_listed_no_more(wiki: Wiki) -> None:
    await wiki.send("/a", TYPED)
    wiki.rig.signins.reconfigure(wiki.rig.signins.principals, Trust([]))
    assert (await wiki.send("/a", TYPED)).status == 421


async def test_pages_of_another_app_that_is_let_in(start: Start) -> None:
    portal = parse_origin("https://portal.test")
    rules = [rule(allow_from=(portal,)), rule("https://portal.test", "portal")]
    wiki = await start(rules=rules)
    page = f"http://portal.localhost:{wiki.rig.port}"
    other = f"http://other.localhost:{wiki.rig.port}"
    cross = {**OWN, "Sec-Fetch-Site": "cross-site"}
    assert (await wiki.send("/a", {**cross, "Origin": page})).status == 200
    assert (await wiki.send("/a", {**cross, "Origin": other})).status == 403


# -- asking the person -----------------------------------------------------------------------------


async def logged_out(wiki: Wiki) -> Answer:
    own = {**OWN, "Origin": wiki.url, "Content-Length": "0"}
    return await wiki.send("/auth/logout", own, "POST")


async def test_a_logout_sticks_until_the_person_says_so(wiki: Wiki) -> None:
    await wiki.send("/a", TYPED)
    left = await logged_out(wiki)
    assert left.one("Iam-Auth-Signed-Out") == "1"
    assert left.all("Set-Cookie") == []
    assert wiki.rig.signins.signed_out_of == {ORIGIN}
    assert (await wiki.send("/b", OWN)).status == 403
    answer = await wiki.send("/a?b", TYPED)
    assert asked(answer)
    (question,) = wiki.questions.asked
    assert (question.kind, question.way_back) == ("again", f"{wiki.url}/a?b")
    assert len(wiki.app.handed_over) == 1

    # A yes leads back once, and to that very page: from the proxy's own address, another site's.
    wiki.rig.steering.answered(question, "once")
    assert (await wiki.send("/other", LINKED)).status == 403
    assert (await wiki.send("/a?b", {**LINKED, "Sec-Fetch-Dest": "iframe"})).status == 403
    assert (await wiki.send("/a?b", LINKED)).status == 200
    assert (await wiki.send("/a?b", LINKED)).status == 403


async def test_a_way_back_is_not_kept_for_long(wiki: Wiki) -> None:
    await wiki.send("/a", TYPED)
    await logged_out(wiki)
    await wiki.send("/a", TYPED)
    (question,) = wiki.questions.asked
    wiki.rig.steering.answered(question, "once")
    wiki.rig.ticking.ahead += WELCOME
    assert (await wiki.send("/a", LINKED)).status == 403


async def test_a_no_leads_nowhere(wiki: Wiki) -> None:
    await wiki.send("/a", TYPED)
    await logged_out(wiki)
    await wiki.send("/a", TYPED)
    (question,) = wiki.questions.asked
    wiki.rig.steering.answered(question, "no")
    assert (await wiki.send("/a", LINKED)).status == 403


async def test_a_key_that_changed_is_asked_about(wiki: Wiki, person: Person) -> None:
    await wiki.send("/a", TYPED)
    other = person.aws.key()
    wiki.app.gate.settings = replace(wiki.app.gate.settings, kms_key=other.arn)
    wiki.rig.signins.trust._pins[ORIGIN] = replace(  # as if another one had been seen before
        wiki.rig.signins.trust._pins[ORIGIN], key=other.arn
    )
    wiki.rig.signins.trust._apps.clear()
    wiki.rig.signins.forget()
    answer = await wiki.send("/a?b", TYPED)
    assert asked(answer)
    (question,) = wiki.questions.asked
    assert (question.kind, question.way_back) == ("key", f"{wiki.url}/a?b")
    assert (await wiki.send("/b", OWN)).status == 403


# -- WebSockets ------------------------------------------------------------------------------------


def handshake(origin: str) -> dict[str, str]:
    return {
        "Origin": origin,
        "Upgrade": "websocket",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": base64.b64encode(b"k" * 16).decode(),
        "User-Agent": "Mozilla/5.0",
    }


async def test_a_websocket_of_the_apps_own_page(wiki: Wiki, person: Person) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", wiki.rig.port)
    fields = {**handshake(wiki.url), "Host": wiki.url.removeprefix("http://")}
    lines = ["GET /ws HTTP/1.1", "Connection: Upgrade"]
    lines += [f"{name}: {value}" for name, value in fields.items()]
    writer.write(("\r\n".join(lines) + "\r\n\r\n").encode())
    head = await reader.readuntil(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 101 ")
    assert b"et-cookie" not in head.lower()
    said = await reader.readexactly(2 + len(person.keys.arn))
    assert said[2:].decode() == person.keys.arn
    writer.close()
    assert wiki.app.asked[-1].all("Origin") == [APP]


@pytest.mark.parametrize("origin", ["http://evil.test", APP, "null"])
async def test_no_other_pages_websocket(wiki: Wiki, origin: str) -> None:
    await wiki.send("/a", TYPED)
    before = len(wiki.app.asked)
    fields = {**handshake(origin), "Connection": "Upgrade"}
    lines = [f"GET /ws HTTP/1.1\r\nHost: {wiki.url.removeprefix('http://')}"]
    lines += [f"{name}: {value}" for name, value in fields.items()]
    head = ("\r\n".join(lines) + "\r\n\r\n").encode()
    reader, writer = await asyncio.open_connection("127.0.0.1", wiki.rig.port)
    writer.write(head)
    assert (await reader.readline()).startswith(b"HTTP/1.1 403 ")
    writer.close()
    assert len(wiki.app.asked) == before
