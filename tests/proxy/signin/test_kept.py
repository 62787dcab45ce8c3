"""What is remembered of the sessions that clients keep."""

from __future__ import annotations

from iam_auth_proxy.aws.base import CallerIdentity
from iam_auth_proxy.names import Origin, parse_key_reference
from iam_auth_proxy.protocol.challenge import Bound, Challenge
from iam_auth_proxy.protocol.proof import ProofKind
from iam_auth_proxy.proxy.decisions.rules import AppTrust
from iam_auth_proxy.proxy.signin.cookies import SetCookie
from iam_auth_proxy.proxy.signin.handover import Challenged, Granted
from iam_auth_proxy.proxy.signin.jobs import HandedOver
from iam_auth_proxy.proxy.signin.kept import FOLLOWED, LIMIT, KeptSession, KeptSessions, can_be_kept
from iam_auth_proxy.proxy.signin.sealing import Sealed
from iam_auth_proxy.relay.exchange import Fetched

A, B = Origin("http", "a.test", 80), Origin("http", "b.test", 80)
KEY = parse_key_reference(
    "arn:aws:kms:eu-west-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab"
)
BOUND = Bound(frozenset([ProofKind.SIGNED_IDENTITY]), "n" * 22)
ARN = "arn:aws:iam::111122223333:user/ann"


def done(
    *some: SetCookie, life: float | None = 1000.0, bound: Bound | None = BOUND, at: float = 0.0
) -> HandedOver:
    identity = CallerIdentity("111122223333", ARN, "AIDA")
    return HandedOver(
        Fetched(303, ()),
        Challenged(Challenge("111122223333", KEY, {}, bound)),
        Sealed(b"", ProofKind.SIGNED_IDENTITY, identity, KEY.text),
        "",
        at,
        Granted(some or (SetCookie(b"s", b"1"),), (), life),
    )


def put(kept: KeptSessions, given: HandedOver, origin: Origin = A, client: str = "me") -> None:
    kept.put(origin, client, AppTrust(origin), given)


def cookie(value: bytes) -> list[tuple[bytes, bytes]]:
    return [(b"Host", b"a.test"), (b"cookie", value)]


def one(kept: KeptSessions) -> KeptSession:
    (session,) = kept
    return session


def test_by_its_very_cookie_client_and_origin() -> None:
    kept = KeptSessions()
    put(kept, done(at=7.0))
    session = one(kept)
    assert kept.carried(A, "me", cookie(b"a=1; s=1")) is session
    for headers in ([], cookie(b"s=2"), cookie(b"t=1"), cookie(b"s=1; s=1"), cookie(b"s=1; s=2")):
        assert kept.carried(A, "me", headers) is None
    assert kept.carried(A, "you", cookie(b"s=1")) is None
    assert kept.carried(B, "me", cookie(b"s=1")) is None
    assert (session.expires, session.due.at) == (1007.0, 907.0)
    assert kept.origins == {A: 1}


def test_all_of_its_cookies() -> None:
    """One of them may be nothing that only this client has."""
    kept = KeptSessions()
    put(kept, done(SetCookie(b"s", b"1"), SetCookie(b"lang", b"en")))
    assert kept.carried(A, "me", cookie(b"lang=en")) is None
    assert kept.carried(A, "me", cookie(b"lang=en; s=1")) is one(kept)


def test_a_window_of_its_own_is_another_session() -> None:
    kept = KeptSessions()
    put(kept, done(SetCookie(b"s", b"1")))
    put(kept, done(SetCookie(b"s", b"2")))
    put(kept, done(SetCookie(b"s", b"2")))
    assert len(kept) == 2, "and what is given to several requests is one"
    first, second = kept
    assert kept.carried(A, "me", cookie(b"s=1")) is first
    assert kept.carried(A, "me", cookie(b"s=2")) is second


def test_it_is_followed_when_the_app_sets_it_anew() -> None:
    kept = KeptSessions()
    put(kept, done())
    session, sent = one(kept), cookie(b"s=1")
    assert kept.follow(session, sent, [(b"Set-Cookie", b"s=2; Path=/"), (b"Set-Cookie", b"x=1")])
    assert kept.follow(session, sent, [(b"set-cookie", b"s=3")]), "requests that crossed"
    for value in (b"s=1", b"s=2", b"s=3"):
        assert kept.carried(A, "me", cookie(value)) is session
    for number in range(FOLLOWED):
        assert kept.follow(session, sent, [(b"Set-Cookie", b"s=a%d" % number)])
    assert kept.carried(A, "me", sent) is None
    assert kept.follow(session, cookie(b"s=a3"), [(b"Set-Cookie", b"garbage")])


def test_until_it_is_taken_away() -> None:
    for value in (b"s=x; Max-Age=0", b"s=; Expires=Thu, 01 Jan 1970 00:00:00 GMT"):
        kept = KeptSessions()
        put(kept, done())
        session = one(kept)
        session.next = done()
        assert not kept.follow(session, cookie(b"s=1"), [(b"Set-Cookie", value)])
        assert (len(kept), kept.origins, session.next) == (0, {}, None)


def test_the_least_seen_give_way() -> None:
    kept = KeptSessions()
    for number in range(LIMIT):
        put(kept, done(), client=str(number))
    assert kept.carried(A, "0", cookie(b"s=1")) is not None
    put(kept, done(), B)
    assert (len(kept), kept.origins) == (LIMIT, {A: LIMIT - 1, B: 1})
    assert kept.carried(A, "0", cookie(b"s=1")) is not None
    assert kept.carried(A, "1", cookie(b"s=1")) is None
    assert len(kept._clients) == LIMIT


def test_ended() -> None:
    kept = KeptSessions()
    put(kept, done())
    put(kept, done(), B)
    first, second = kept
    kept.end(lambda session: session.origin == A)
    kept.drop(first)
    assert [*kept] == [second]
    assert (first in kept, second in kept) == (False, True)
    kept.end()
    assert (len(kept), kept.origins, kept._clients) == (0, {}, {})


def test_what_can_be_kept() -> None:
    assert can_be_kept(done())
    assert not can_be_kept(done(life=None))
    assert not can_be_kept(done(bound=None))


def test_no_secret_is_held_or_shown() -> None:
    kept = KeptSessions()
    put(kept, done(SetCookie(b"s", b"planted")))
    session = one(kept)
    said = [repr(getattr(session, name)) for name in session.__slots__]
    assert not [text for text in [repr(session), *said] if "planted" in text]
