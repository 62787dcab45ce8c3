"""Sessions held for programs."""

from __future__ import annotations

from iam_auth_proxy.names import Origin, parse_key_reference
from iam_auth_proxy.protocol.challenge import Bound, Challenge
from iam_auth_proxy.protocol.proof import ProofKind
from iam_auth_proxy.proxy.signin.cookies import SetCookie
from iam_auth_proxy.proxy.signin.handover import Challenged, Granted
from iam_auth_proxy.proxy.signin.held import LIMIT, MAX_COOKIES, HeldSession, HeldSessions

A = Origin("http", "a.test", 80)
KEY = parse_key_reference(
    "arn:aws:kms:eu-west-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab"
)
PROOFS = frozenset([ProofKind.SIGNED_IDENTITY])
BOUND = Challenged(Challenge("111122223333", KEY, {}, Bound(PROOFS, "n" * 22)))
LEGACY = Challenged(Challenge("111122223333", KEY, {}))


def session(
    *cookies: SetCookie,
    origin: Origin = A,
    entrance: str = "local",
    life: float | None = None,
    challenged: Challenged = BOUND,
    begun: float = 0.0,
) -> HeldSession:
    found = cookies or (SetCookie(b"s", b"1"),)
    return HeldSession(
        entrance,
        origin,
        Granted(found, (), life),
        who=("", ProofKind.SIGNED_IDENTITY),
        identity="arn",
        challenged=challenged,
        begun=begun,
    )


def test_to_exactly_that_origin_and_entrance() -> None:
    held = HeldSessions()
    one = session()
    held.put(one)
    assert held.get("local", A, 1.0) is one
    for other in (
        Origin("https", "a.test", 80),
        Origin("http", "a.test", 81),
        Origin("http", "b.a.test", 80),
        Origin("http", "a.test.", 80),
    ):
        assert held.get("local", other, 1.0) is None
    assert held.get("exec", A, 1.0) is None
    assert held.origins == {A: 1}


def test_a_clients_own_cookie_is_never_replaced() -> None:
    headers = [(b"Cookie", b"a=1; s=theirs")]
    assert not session().put_into(b"/", headers)
    assert headers == [(b"Cookie", b"a=1; s=theirs")]
    two = session(SetCookie(b"s", b"1"), SetCookie(b"t", b"2"))
    assert not two.put_into(b"/", headers), "nor is half a session sent"
    headers = [(b"Cookie", b"a=1")]
    assert two.put_into(b"/", headers)
    assert headers == [(b"Cookie", b"a=1; s=1; t=2")]


def test_where_its_path_does_not_lead() -> None:
    headers: list[tuple[bytes, bytes]] = []
    assert not session(SetCookie(b"s", b"1", b"/app")).put_into(b"/other", headers)
    assert not headers


def test_what_answers_say() -> None:
    one = session()
    assert one.take_over([(b"set-cookie", b"s=2; Path=/"), (b"Set-Cookie", b"other=1")])
    assert one.cookies == {b"s": SetCookie(b"s", b"2")}, "renewed; and nothing else is taken"
    assert not one.take_over([(b"Set-Cookie", b"s=; Max-Age=0")])
    assert not session().take_over([(b"Set-Cookie", b"s=" + b"x" * MAX_COOKIES)])


def test_it_is_over() -> None:
    held = HeldSessions()
    held.put(session(life=100.0))
    assert held.get("local", A, 99.0) is not None
    assert held.get("local", A, 100.0) is None
    assert (len(held), held.origins) == (0, {})


def test_when_it_is_renewed() -> None:
    one = session(life=1000.0, begun=5.0)
    assert one.due is not None
    assert one.due.at == 905.0
    assert session(life=1000.0, challenged=LEGACY).due is None
    assert session().due is None


def test_it_stays_small() -> None:
    held = HeldSessions()
    for port in range(1, LIMIT + 10):
        held.put(session(origin=Origin("http", "a.test", port)))
    assert len(held) == len(held.origins) == LIMIT
    held.put(session(SetCookie(b"s", b"x" * MAX_COOKIES), entrance="exec"))
    assert held.get("exec", A, 0.0) is None


def test_one_takes_the_place_of_another() -> None:
    held = HeldSessions()
    one, two = session(), session()
    held.put(one)
    held.put(two)
    held.drop(one)
    assert held.get("local", A, 0.0) is two
    assert held.origins == {A: 1}
    held.put(session(entrance="exec"))
    assert held.origins == {A: 2}
    assert held.end(lambda each: each.entrance == "exec") == 1
    assert [*held] == [two]
    assert held.end() == 1
    assert held.origins == {}


def test_no_secret_is_shown() -> None:
    assert "planted" not in repr(session(SetCookie(b"s", b"planted")))
