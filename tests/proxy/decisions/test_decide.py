"""For whom the proxy speaks, and what it makes of a 401."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from iam_auth_proxy.errors import BadChallenge, NotTrusted, SignedOut
from iam_auth_proxy.names import Origin, parse_key_reference, parse_origin
from iam_auth_proxy.protocol import challenge
from iam_auth_proxy.protocol.challenge import Bound, Challenge
from iam_auth_proxy.protocol.proof import ProofKind
from iam_auth_proxy.proxy.decisions.decide import (
    Ask,
    Authority,
    Dance,
    Refuse,
    Replay,
    SignInMode,
    authority,
    decide,
    is_aside,
    is_challenge,
    ruling,
)
from iam_auth_proxy.relay.exchange import RequestHead, ResponseHead
from iam_auth_proxy.relay.message import parse_request, route
from tests.support import vectors

GRAFANA = Origin("http", "grafana.internal", 80)
CHALLENGE = Challenge(
    "111122223333",
    parse_key_reference(
        "arn:aws:kms:eu-west-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab"
    ),
    {"salt": "s"},
)


def head(method: str, headers: list[list[str]]) -> RequestHead:
    """As the relay hands it on: what it takes out nobody behind it can go by."""
    sent = {name.lower() for name, _ in headers}
    lines = [f"{method} http://grafana.internal/ HTTP/1.1"]
    lines += [] if "host" in sent else ["Host: grafana.internal"]
    lines += ["Connection: Upgrade"] if "upgrade" in sent and "connection" not in sent else []
    lines += [f"{name}: {value}" for name, value in headers]
    request = parse_request("\r\n".join([*lines, "", ""]).encode("latin-1"))
    route(request)
    return request


def cases() -> Iterator[object]:
    document = json.loads((vectors.FOLDER / "authority.json").read_text())
    for group in document["groups"]:
        for number, case in enumerate(group["cases"]):
            label = f"{group['verdict']}-{group['why'][:40]}-{number}"
            yield pytest.param(case, group["verdict"], id=label)


@pytest.mark.parametrize(("case", "verdict"), [*cases()])
def test_authority(case: dict[str, object], verdict: str) -> None:
    target = parse_origin(str(case["target"]))
    headers = case["headers"]
    assert isinstance(headers, list)
    assert authority(head(str(case["method"]), headers), target) is Authority(verdict)


def recorded() -> Iterator[object]:
    for file in ("authority_chromium.json", "authority_chromium_https.json"):
        for case in json.loads((vectors.FOLDER / file).read_text())["cases"]:
            scheme = case["target"].partition(":")[0]
            yield pytest.param(case, id=f"{scheme}-{case['kind']}-by-{case['page']}")


@pytest.mark.parametrize("case", [*recorded()])
def test_authority_over_what_chromium_sends(case: dict[str, Any]) -> None:
    target = parse_origin(case["target"])
    assert authority(head(case["method"], case["headers"]), target) is Authority(case["verdict"])


NAMES = "Origin Referer Sec-Fetch-Site Sec-Fetch-Dest Upgrade User-Agent Purpose Accept"
names = st.sampled_from(NAMES.split(" "))
values = st.sampled_from(
    ["http://grafana.internal", "http://evil.example/", "null", "none", "same-origin", "", "1"]
) | st.text(st.characters(codec="latin-1"), max_size=30)


@given(st.lists(st.tuples(names, values), max_size=6))
def test_a_foreign_origin_never_gets_anything(fields: list[tuple[str, str]]) -> None:
    headers = [(name.encode(), value.encode("latin-1")) for name, value in fields]
    foreign = [(b"Origin", b"http://evil.example"), *headers]
    assert authority(RequestHead(b"GET", b"/", foreign), GRAFANA) is Authority.NOTHING


@given(st.sampled_from([b"POST", b"PUT", b"DELETE", b"PATCH"]), st.lists(st.tuples(names, values)))
def test_only_safe_methods_dance(method: bytes, fields: list[tuple[str, str]]) -> None:
    headers = [(name.encode(), value.encode("latin-1")) for name, value in fields]
    assert authority(RequestHead(method, b"/", headers), GRAFANA) is not Authority.DANCE


class App:
    allow_from: tuple[Origin, ...] = (Origin("https", "portal.internal", 443),)


class Everyone:
    def app(self, origin: Origin) -> App:
        return App()

    def untrusted(self, origin: Origin) -> NotTrusted:
        raise AssertionError


class Nobody:
    def app(self, origin: Origin) -> None:
        return None

    def untrusted(self, origin: Origin) -> NotTrusted:
        return NotTrusted(f"{origin} is not trusted")


def answer(
    status: int = 401,
    drop: str = "",
    add: list[tuple[str, str]] | None = None,
    of: Challenge = CHALLENGE,
) -> ResponseHead:
    fields = [field for field in challenge.write(of) if field[0] != drop] + (add or [])
    encoded = [(name.encode(), value.encode()) for name, value in fields]
    return ResponseHead(status, encoded)


BOUND = Challenge(
    CHALLENGE.realm,
    CHALLENGE.key,
    CHALLENGE.context,
    Bound(frozenset([ProofKind.SIGNED_IDENTITY]), "n" * 22),
)
GREEDY = Challenge(
    CHALLENGE.realm,
    CHALLENGE.key,
    CHALLENGE.context,
    Bound(frozenset([ProofKind.SESSION_CREDENTIALS]), "n" * 22),
)
CURL = head("GET", [["User-Agent", "curl/8"]])
IMAGE = head("GET", [["User-Agent", "Mozilla/5.0"]])
PAGE = head("GET", [["User-Agent", "Mozilla/5.0"], ["Upgrade-Insecure-Requests", "1"]])
FETCH = head("GET", [["User-Agent", "Mozilla/5.0"], ["Origin", str(GRAFANA)]])
TYPED = head(
    "GET",
    [["Sec-Fetch-Site", "none"], ["Sec-Fetch-Mode", "navigate"], ["Sec-Fetch-Dest", "document"]],
)
POST = head("POST", [["User-Agent", "Mozilla/5.0"], ["Origin", str(GRAFANA)]])
SOCKET = head("GET", [["Origin", str(GRAFANA)], ["Upgrade", "websocket"]])


def test_the_rule_that_matched_is_said() -> None:
    rules = {request: ruling(request, GRAFANA) for request in (CURL, IMAGE, PAGE, FETCH, TYPED)}
    assert [verdict.rule for verdict in rules.values()] == [7, 6, 5, 2, 3]
    assert [request for request, verdict in rules.items() if verdict.program] == [CURL]


def test_pages_that_the_person_allows_may_speak() -> None:
    portal = head("POST", [["Origin", "https://portal.internal"], ["User-Agent", "Mozilla/5.0"]])
    assert authority(portal, GRAFANA) is Authority.NOTHING
    assert authority(portal, GRAFANA, App.allow_from) is Authority.REPLAY
    assert decide(portal, answer(), GRAFANA, Everyone()) == Replay(CHALLENGE, program=False)
    for other in ("http://portal.internal", "https://portal.internal:444", "null"):
        assert authority(head("POST", [["Origin", other]]), GRAFANA, App.allow_from) is (
            Authority.NOTHING
        )


@pytest.mark.parametrize(
    "fields",
    [
        [["Origin", str(GRAFANA)]],
        [["Sec-Fetch-Site", "same-origin"]],
        [["Sec-Fetch-Site", "same-origin"], ["Origin", str(GRAFANA)]],
        [["Referer", f"{GRAFANA}/shell"]],
    ],
)
def test_a_page_of_the_app_in_another_sites_frame(fields: list[list[str]]) -> None:
    """Where the browser says so it gets nothing; elsewhere the browser has to show its cookie."""
    own = [["User-Agent", "Mozilla/5.0"], *fields]
    for value in ("none", "inactive", "active"):
        framed = head("GET", [*own, ["Sec-Fetch-Storage-Access", value]])
        assert authority(framed, GRAFANA) is Authority.NOTHING
    found = decide(head("GET", own), answer(), GRAFANA, Everyone())
    assert found == Replay(CHALLENGE, program=False, framed=True)


def test_pages_that_the_person_allows_are_other_sites() -> None:
    fields = [["Origin", "https://portal.internal"], ["Sec-Fetch-Storage-Access", "active"]]
    portal = head("POST", [*fields, ["User-Agent", "Mozilla/5.0"]])
    assert decide(portal, answer(), GRAFANA, Everyone()) == Replay(CHALLENGE, program=False)


@pytest.mark.parametrize("of", [CHALLENGE, BOUND], ids=["legacy", "bound"])
def test_a_trusted_challenge_is_answered(of: Challenge) -> None:
    everyone = Everyone()
    assert decide(PAGE, answer(of=of), GRAFANA, everyone) == Dance(of)
    assert decide(TYPED, answer(of=of), GRAFANA, everyone) == Dance(of)
    assert decide(CURL, answer(of=of), GRAFANA, everyone) == Replay(of, program=True)
    for request in (FETCH, POST):
        found = decide(request, answer(of=of), GRAFANA, everyone)
        assert found == Replay(of, program=False, framed=True)
    assert decide(SOCKET, answer(of=of), GRAFANA, everyone) == Replay(of, program=False)


def test_the_originals_form_is_for_the_originals_challenge() -> None:
    def answered(request: RequestHead, of: Challenge) -> object:
        mode = SignInMode.REDIRECT
        return decide(request, answer(of=of), GRAFANA, Everyone(), mode=mode)

    for request in (CURL, PAGE, FETCH):
        assert answered(request, CHALLENGE) == Dance(CHALLENGE, literal=True)
    assert answered(POST, CHALLENGE) == Replay(CHALLENGE, program=False, framed=True)
    assert answered(SOCKET, CHALLENGE) == Replay(CHALLENGE, program=False)
    assert answered(PAGE, BOUND) == Dance(BOUND), "no bound token is ever in a URL"
    assert answered(IMAGE, CHALLENGE) is None


def test_inline_replays_only_what_the_browser_vouches_for() -> None:
    """A frame of another site looks like a page on plain http; the cookie is withheld from it."""

    def answered(request: RequestHead) -> object:
        return decide(request, answer(), GRAFANA, Everyone(), mode=SignInMode.INLINE)

    assert answered(TYPED) == Replay(CHALLENGE, program=False)
    assert answered(PAGE) == Dance(CHALLENGE)
    own = head("GET", [["Referer", f"{GRAFANA}/"], ["Upgrade-Insecure-Requests", "1"]])
    assert answered(own) == Dance(CHALLENGE)
    assert answered(IMAGE) is None


@pytest.mark.parametrize("status", [200, 302, 400, 403, 407, 500])
def test_only_a_401_is_looked_at(status: int) -> None:
    assert decide(CURL, answer(status), GRAFANA, Everyone()) is None


def test_another_scheme_goes_through() -> None:
    basic = ResponseHead(401, [(b"WWW-Authenticate", b'Basic realm="x"')])
    assert decide(CURL, basic, GRAFANA, Everyone()) is None


@pytest.mark.parametrize("trust", [Everyone(), Nobody()])
def test_a_request_without_authority_gets_the_apps_answer(trust: Everyone | Nobody) -> None:
    assert decide(IMAGE, answer(), GRAFANA, trust) is None
    assert decide(IMAGE, answer(of=BOUND), GRAFANA, trust) is None
    assert decide(IMAGE, answer(), GRAFANA, trust, signed_out={GRAFANA}) is None


def test_a_stranger_is_refused_whatever_it_sent() -> None:
    replies = [answer(), answer(drop="Iam-Auth-Kms-Key-Id"), answer(of=BOUND), answer(of=GREEDY)]
    for request in (CURL, FETCH, POST, SOCKET):
        for reply in replies:
            verdict = decide(request, reply, GRAFANA, Nobody())
            assert isinstance(verdict, Refuse)
            assert isinstance(verdict.error, NotTrusted)


def test_the_person_is_asked_about_a_stranger_where_they_look() -> None:
    """And only about what the confirm page may grant."""
    assert decide(PAGE, answer(of=BOUND), GRAFANA, Nobody()) == Ask("trust", BOUND)
    for reply in (answer(), answer(of=GREEDY), answer(of=BOUND, drop="Iam-Auth-Nonce")):
        assert isinstance(decide(PAGE, reply, GRAFANA, Nobody()), Refuse)


def test_a_malformed_challenge_is_the_apps_fault() -> None:
    verdict = decide(CURL, answer(drop="Iam-Auth-Kms-Key-Id"), GRAFANA, Everyone())
    assert isinstance(verdict, Refuse)
    assert isinstance(verdict.error, BadChallenge)


def test_what_is_a_challenge() -> None:
    assert is_challenge(answer())
    assert is_challenge(answer(drop="Iam-Auth-Kms-Key-Id")), "a malformed one as well"
    assert not is_challenge(answer(drop="WWW-Authenticate"))


@pytest.mark.parametrize(
    ("method", "headers", "aside"),
    [
        ("GET", {"Sec-Purpose": "prefetch;prerender"}, True),
        ("GET", {"Purpose": "prefetch"}, True),
        ("GET", {"User-Agent": "Mozilla/5.0", "Accept": "image/avif,image/webp,*/*;q=0.8"}, True),
        ("HEAD", {"User-Agent": "Mozilla/5.0", "Accept": "Image/*"}, True),
        ("GET", {"User-Agent": "Mozilla/5.0", "Accept": "text/html,image/avif,*/*;q=0.8"}, False),
        ("GET", {"User-Agent": "Mozilla/5.0", "Accept": "*/*"}, False),
        ("GET", {"User-Agent": "Mozilla/5.0"}, False),
        ("POST", {"User-Agent": "Mozilla/5.0", "Accept": "image/*"}, False),
        ("GET", {"User-Agent": "curl/8.0", "Accept": "image/*"}, False),
    ],
)
def test_what_is_fetched_aside(method: str, headers: dict[str, str], aside: bool) -> None:
    assert is_aside(head(method, [[name, value] for name, value in headers.items()])) is aside


@pytest.mark.parametrize("mode", SignInMode)
def test_after_a_logout_a_person_is_asked_and_nobody_else_gets_in(mode: SignInMode) -> None:
    def answered(request: RequestHead) -> object:
        return decide(request, answer(), GRAFANA, Everyone(), mode=mode, signed_out={GRAFANA})

    for request in (PAGE, TYPED):
        assert answered(request) == Ask("again", CHALLENGE)
    for request in (CURL, FETCH, POST, SOCKET):
        verdict = answered(request)
        assert isinstance(verdict, Refuse)
        assert isinstance(verdict.error, SignedOut)
