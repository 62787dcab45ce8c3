"""Sessions as cookies; what test_gate.py does not see through the gate."""

from __future__ import annotations

from iam_auth_proxy.names import parse_origin
from iam_auth_proxy.protocol import identity as identities
from iam_auth_proxy.protocol.keyring import KeyRing, StaticRings
from iam_auth_proxy.server.replay import MemoryReplay
from iam_auth_proxy.server.sessions import Sessions
from iam_auth_proxy.server.settings import load
from tests.server.conftest import ANN, KEY, NOW, ORIGIN, SECRET, request

SITE = parse_origin(ORIGIN)


def sessions(**values: object) -> Sessions:
    given = {"kms_key": KEY, "secret_key": SECRET, "origins": [ORIGIN], "legacy": True} | values
    return Sessions(load(given), StaticRings(KeyRing.from_secret(SECRET)), MemoryReplay())


def begin(store: Sessions) -> str:
    identity = identities.parse(ANN, "AIDA12345678901234567")
    return store.begin(identity, SITE, "session-credentials", NOW).partition(";")[0]


def test_a_renewal_keeps_the_sign_in_and_its_end() -> None:
    store = sessions(cookie_name="sid")
    cookie = begin(store)
    assert cookie.startswith("sid=")
    first = store.read(request(cookie=cookie), SITE, NOW).visitor
    assert first is not None
    (renewed,) = store.renewal(first.session, SITE, NOW + 3000)
    second = store.read(request(cookie=renewed.partition(";")[0]), SITE, NOW + 6000).visitor
    assert second is not None
    assert second.session.id == first.session.id
    assert second.session.issued == first.session.issued == NOW
    assert second.session.expires == first.session.expires == NOW + 43200


def test_no_cookie_is_not_stale() -> None:
    visit = sessions().read(request(cookie="other=1; iam-auth2=x"), SITE, NOW)
    assert (visit.visitor, visit.stale) == (None, False)
    for value in ("", "x", "x" * 5000, "%00"):
        visit = sessions().read(request(cookie=f"iam-auth={value}"), SITE, NOW)
        assert (visit.visitor, visit.stale) == (None, True), value


def test_an_ended_session_stays_ended_when_its_cookie_was_renewed() -> None:
    store = sessions()
    visitor = store.read(request(cookie=begin(store)), SITE, NOW).visitor
    assert visitor is not None
    (renewed,) = store.renewal(visitor.session, SITE, NOW + 3000)
    store.end(visitor.session, NOW)
    visit = store.read(request(cookie=renewed.partition(";")[0]), SITE, NOW + 3000)
    assert (visit.visitor, visit.stale) == (None, True)


def test_a_full_memory_of_ended_sessions_does_not_stop_a_logout() -> None:
    store = sessions()
    store._ended = MemoryReplay(limit=0)
    visitor = store.read(request(cookie=begin(store)), SITE, NOW).visitor
    assert visitor is not None
    store.end(visitor.session, NOW)
