"""What is handed over, and what is made of the app's answer."""

from __future__ import annotations

import pytest

from iam_auth_proxy.aws.base import CallerIdentity
from iam_auth_proxy.errors import AppRefused, BadChallenge
from iam_auth_proxy.names import parse_key_reference, parse_origin
from iam_auth_proxy.protocol import handoff
from iam_auth_proxy.protocol.challenge import Bound, Challenge
from iam_auth_proxy.protocol.envelope import Envelope
from iam_auth_proxy.protocol.proof import ProofKind
from iam_auth_proxy.proxy.signin import handover
from iam_auth_proxy.proxy.signin.handover import MAX_LIFE, Challenged, granted, relayed, return_url
from iam_auth_proxy.proxy.signin.sealing import Sealed
from iam_auth_proxy.relay.exchange import Fetched, RequestHead

APP = parse_origin("http://app.test")
KEY = "arn:aws:kms:eu-west-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab"
NONCE = "n" * 22
BOUND = Challenge(
    "111122223333",
    parse_key_reference(KEY),
    {},
    Bound(frozenset([ProofKind.SIGNED_IDENTITY]), NONCE, "/sso/in"),
)
SEALED = Sealed(
    Envelope(b"wrapped", b"i" * 12, b"s" * 40),
    ProofKind.SIGNED_IDENTITY,
    CallerIdentity("111122223333", "arn", "id"),
    KEY,
)
COOKIE = (b"Set-Cookie", b"iam_auth_nonce=" + NONCE.encode() + b"; Path=/")
Fields = list[tuple[bytes, bytes]]


def test_a_bound_hand_over() -> None:
    challenged = Challenged.of(BOUND, [COOKIE, (b"Set-Cookie", b"other=1")], APP)
    request, body = handover.write(challenged, SEALED, "/private?x=1", APP)
    assert (request.method, request.target) == (b"POST", b"/sso/in")
    assert request.headers == [
        (b"Host", b"app.test"),
        (b"Accept", b"*/*"),
        (b"Content-Type", b"application/x-www-form-urlencoded"),
        (b"Cookie", b"iam_auth_nonce=" + NONCE.encode()),
    ]
    form = handoff.parse_form(body, auth_path="/sso/in")
    assert (form.nonce, form.proof, form.return_url) == (NONCE, SEALED.kind, "/private?x=1")


@pytest.mark.parametrize("cookies", [[], [COOKIE, COOKIE], [(b"Set-Cookie", b"iam_auth_nonce=x")]])
def test_a_bound_challenge_without_its_one_cookie(cookies: Fields) -> None:
    with pytest.raises(BadChallenge):
        Challenged.of(BOUND, cookies, APP)


def test_no_nonce_is_shown() -> None:
    assert NONCE not in repr(Challenged(Challenge("1" * 12, BOUND.key, {}), NONCE))


def answered(*fields: tuple[bytes, bytes]) -> Fetched:
    return Fetched(303, [(b"Location", b"/a"), *fields])


def test_what_is_granted() -> None:
    given = granted(
        answered(
            COOKIE,
            (b"Set-Cookie", b"s=1; HttpOnly"),
            (b"Set-Cookie", b"t=2; Path=/x; SameSite=Strict"),
            (b"Set-Cookie", b"old=; Max-Age=0"),
            (b"Set-Cookie", b"tls=1; Secure"),
            (b"Iam-Auth-Expires-In", b"43200"),
        ),
        "/sso/in",
        APP,
    )
    assert [(cookie.pair, cookie.path) for cookie in given.cookies] == [
        (b"s=1", b"/sso"),
        (b"t=2", b"/x"),
    ]
    assert given.set_cookies == (
        b"s=1; HttpOnly; Path=/sso; SameSite=Lax",
        b"t=2; Path=/x; SameSite=Strict",
        b"old=; Max-Age=0; Path=/sso; SameSite=Lax",
        b"tls=1; Secure; Path=/sso; SameSite=Lax",
    )
    assert given.life == 43200
    assert "s=1" not in repr(given)


def test_no_session_is_said() -> None:
    for fields in ([], [COOKIE], [(b"Set-Cookie", b"s=; Max-Age=0")]):
        with pytest.raises(AppRefused):
            granted(answered(*fields), "/auth", APP)


@pytest.mark.parametrize(
    ("values", "life"),
    [
        ([], None),
        ([b"60"], 60.0),
        ([b"999999999"], MAX_LIFE),
        ([b"9999999999"], None),
        ([b"-1"], None),
        ([b"1e3"], None),
        ([b""], None),
        ([b"60", b"60"], None),
        (["٦".encode()], None),
    ],
)
def test_how_long_it_lives(values: list[bytes], life: float | None) -> None:
    fields = [(b"iam-auth-expires-in", value) for value in values]
    assert granted(answered((b"Set-Cookie", b"s=1"), *fields), "/auth", APP).life == life


def test_the_nonces_cookie_is_not_for_the_browser() -> None:
    reply = relayed(answered(COOKIE, (b"Set-Cookie", b"s=1")), "/a", "/b", APP)
    assert [value for name, value in reply.headers if name == b"Set-Cookie"] == [
        b"s=1; Path=/; SameSite=Lax"
    ]


def test_whose_word_a_code_is() -> None:
    def code(*fields: tuple[bytes, bytes]) -> str:
        return handover.error_code(Fetched(403, list(fields)))

    said = (b"Iam-Auth-Error", b"not-allowed")
    assert code(said) == "not-allowed"
    assert code(said, said) == code((b"Iam-Auth-Error", b"<b>")) == code() == ""


@pytest.mark.parametrize(
    ("target", "back"),
    [
        (b"/", "/"),
        (b"/private?x=1", "/private?x=1"),
        (b"//evil.test/", "/"),
        (b"/a\\b", "/"),
        (b"/auth?token=x", "/"),
        (b"/sso/in", "/"),
        (b"/caf\xe9", "/"),
    ],
)
def test_where_the_client_goes_afterwards(target: bytes, back: str) -> None:
    request = RequestHead(b"GET", target, [(b"Host", b"app.test")])
    assert return_url(request, "/auth", "/sso/in") == back
