"""The gate on a key ring that rotates. Workers are gates, each with its own reading of one store.

The ring, its store and what a worker holds of it are the real ones; KMS and the disk are in memory,
and the clock is an argument.
"""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from iam_auth_proxy.errors import StoreUnavailable
from iam_auth_proxy.keys.live import LiveRings
from iam_auth_proxy.protocol import handoff as handoffs
from iam_auth_proxy.protocol.keyring import KeyVersion
from iam_auth_proxy.protocol.lifecycle import Policy
from iam_auth_proxy.server import Gate
from iam_auth_proxy.server.facts import Allow, Answer, Reply
from iam_auth_proxy.server.rings import GAP
from iam_auth_proxy.testing import signed_in
from tests.server.conftest import (
    ANN,
    NOW,
    ORIGIN,
    SECRET,
    Dance,
    FakeAws,
    GateMaker,
    auth_target,
    challenge_of,
    cookie_of,
    fields,
    request,
    session_cookies,
    sign_in,
    token,
)
from tests.support.memory_store import MemoryKms, MemoryObjects, ring_store

POLICY = Policy()
POLL = POLICY.poll
SALT = "pepper"


@dataclass
class Worker:
    """One process: a gate, and what it has read of the ring."""

    rings: LiveRings
    gate: Gate

    def poll(self, now: float) -> None:
        self.rings.poll(now)

    def lets_in(self, cookie: str, now: float) -> bool:
        return isinstance(self.gate.check(request(cookie=cookie), now), Allow)


class Shop:
    """Several workers, and the store that they share."""

    def __init__(self, aws: FakeAws, make_gate: GateMaker) -> None:
        self.aws = aws
        self.objects = MemoryObjects()
        self.kms = MemoryKms()
        self.ring = ring_store(self.objects, self.kms)
        self._make_gate = make_gate

    def worker(self, now: float | None = NOW, **settings: object) -> Worker:
        """A process that has read the ring, unless ``now`` is None."""
        rings = LiveRings(lambda: ring_store(self.objects, self.kms), "the ring")
        settings = {"secret_key": None, "keyring": "s3://bucket/prefix/ring"} | settings
        worker = Worker(rings, self._make_gate(rings=rings, **settings))
        if now is not None:
            worker.poll(now)
        return worker

    def primary(self, now: float) -> str:
        return self.ring.load().ring.primary(now).id

    def disable_primary(self, now: float) -> str:
        """Its successor signs at once."""
        gone = self.primary(now)
        self.ring.disable([gone], now)
        return gone


@pytest.fixture
def shop(aws: FakeAws, make_gate: GateMaker) -> Shop:
    shop = Shop(aws, make_gate)
    shop.ring.create(POLICY, NOW - 86_400)
    return shop


def key_of(cookie: str) -> str:
    return cookie.partition("=")[2].partition(".")[0]


def replied(answer: Answer | None, status: int) -> Reply:
    assert isinstance(answer, Reply), answer
    assert answer.status == status, answer
    return answer


# -- rotation --------------------------------------------------------------------------------------


def test_a_rotation_logs_nobody_out(shop: Shop) -> None:
    one, two = shop.worker(), shop.worker()
    now = NOW
    cookie = old = cookie_of(Dance(shop.aws, one.gate).sign_in())
    assert key_of(cookie) == shop.primary(NOW)
    shop.ring.rotate(NOW)
    while now < NOW + POLICY.max_session - 1:
        for number, worker in enumerate((one, two)):
            if now // POLL % 2 == number:  # they poll at other times, and not too often
                worker.poll(now)
            answer = worker.gate.check_offline(request(cookie=cookie), now)
            assert isinstance(answer, Allow), (now - NOW, answer)
            for renewed in answer.set_cookies:
                cookie = renewed.partition(";")[0]
        now += POLL
    assert key_of(cookie) == shop.primary(now) != key_of(old)
    one.poll(now)
    # The key retires once nothing that it signed can be in use.
    assert one.rings.at(now).get(key_of(old))
    assert not one.rings.at(NOW + POLICY.propagation + POLICY.overlap).get(key_of(old))


@pytest.mark.parametrize("issued", [-10.0, 10.0])
def test_a_sign_in_that_is_under_way_completes_over_a_rotation(shop: Shop, issued: float) -> None:
    """Begun at one worker before the new key signs, or after; ended at the other, after that."""
    signs = NOW + POLICY.propagation
    one, two = shop.worker(), shop.worker()
    shop.ring.rotate(NOW)
    one.poll(NOW + POLL)
    two.poll(NOW + POLL)
    dance = Dance(shop.aws, one.gate, now=signs + issued)
    dance.gate = two.gate
    shop.aws.calls.clear()
    cookie = cookie_of(dance.sign_in(signs + 60))
    assert key_of(cookie) == shop.primary(signs + 60)
    assert shop.aws.calls.count("Decrypt") == 1
    assert one.lets_in(cookie, signs + 60)


@pytest.mark.parametrize("later", [0, 5, 899])
def test_the_legacy_salt_is_in_step_over_a_rotation(shop: Shop, later: int) -> None:
    """The original proxy brings no nonce: this epoch's salt is tried, and then the last one's."""
    signs = NOW + POLICY.propagation
    one, two = shop.worker(), shop.worker()
    shop.ring.rotate(NOW)
    one.poll(NOW + POLL)
    two.poll(NOW + POLL)
    for begun in range(int(signs) - 1000, int(signs) + 2000, 100):
        credentials = shop.aws.credentials(expires=begun + 900)
        text = token(shop.aws, one.gate, credentials, begun)
        shop.aws.calls.clear()
        reply = replied(two.gate.check(request(auth_target(text)), begun + later), 302)
        assert shop.aws.calls.count("Decrypt") <= 2
        assert one.lets_in(cookie_of(reply), begun + later)


def test_no_rotation_changes_a_salt_that_was_given_out(aws: FakeAws, make_gate: GateMaker) -> None:
    """Published and signing within one epoch: that has the key with which it began."""
    shop = Shop(aws, make_gate)
    shop.ring.create(Policy(poll=1, skew=0, read=0, outage=0), NOW - 86_400)
    assert NOW % 900 == 0
    worker = shop.worker()
    dance = Dance(aws, worker.gate, now=NOW + 10)
    text = token(aws, worker.gate, aws.credentials(), NOW + 10)
    old = shop.primary(NOW)
    shop.ring.rotate(NOW + 20)
    worker.poll(NOW + 22)
    assert worker.rings.at(NOW + 22).primary.id != old
    aws.calls.clear()
    replied(worker.gate.check(dance.post(), NOW + 60), 303)
    replied(worker.gate.check(request(auth_target(text)), NOW + 60), 302)
    assert aws.calls.count("Decrypt") == 2


# -- a worker that is behind -----------------------------------------------------------------------


def test_an_unknown_key_is_read_once_and_off_the_loop(shop: Shop) -> None:
    ahead, behind = shop.worker(), shop.worker()
    shop.disable_primary(NOW)
    ahead.poll(NOW)
    cookie = cookie_of(Dance(shop.aws, ahead.gate).sign_in())
    calls = shop.objects.calls
    assert behind.gate.check_offline(request(cookie=cookie), NOW) is None
    assert shop.objects.calls == calls, "the store was asked on the event loop"
    assert isinstance(behind.gate.check_online(request(cookie=cookie), NOW), Allow)
    assert isinstance(behind.gate.check_offline(request(cookie=cookie), NOW), Allow)


def test_made_up_keys_burn_no_readings(shop: Shop) -> None:
    worker = shop.worker()
    cookie = cookie_of(Dance(shop.aws, worker.gate).sign_in())
    calls = shop.objects.calls
    waited = 0
    for number in range(200):
        made_up = f"iam-auth={number:012x}.{cookie.partition('.')[2]}"
        answer = worker.gate.check_offline(request(cookie=made_up), NOW)
        if answer is None:
            waited += 1
            answer = worker.gate.check_online(request(cookie=made_up), NOW)
        replied(answer, 401)
    assert waited == 1
    assert shop.objects.calls - calls <= 3
    assert worker.gate.check_offline(request(cookie=made_up), NOW + GAP) is None


def test_a_cookie_with_an_unknown_key_is_left_to_those_who_know_it(shop: Shop) -> None:
    ahead, behind = shop.worker(), shop.worker()
    shop.disable_primary(NOW)
    ahead.poll(NOW)
    cookie = cookie_of(Dance(shop.aws, ahead.gate).sign_in())
    shop.objects.down = True
    reply = replied(behind.gate.check(request(cookie=cookie), NOW), 401)
    assert not session_cookies(reply)
    bad = cookie[:-1] + ("A" if cookie[-1] != "A" else "B")
    reply = replied(ahead.gate.check(request(cookie=bad), NOW), 401)
    assert ["Max-Age=0" in each for each in session_cookies(reply)] == [True]


def test_a_nonce_with_an_unknown_key_is_read_once(shop: Shop) -> None:
    ahead, behind = shop.worker(), shop.worker()
    shop.disable_primary(NOW)
    ahead.poll(NOW)
    dance = Dance(shop.aws, ahead.gate)
    hand_over = dance.post()
    assert behind.gate.check_offline(hand_over, NOW) is None
    reply = replied(behind.gate.check_online(hand_over, NOW), 303)
    assert ahead.lets_in(cookie_of(reply), NOW)
    # Of a made-up key: refused as before, and once the store was just read, at once.
    forged = Dance(shop.aws, ahead.gate)
    made_up = "f" * 12 + forged.nonce[12:]
    forged.nonce, forged.cookie = made_up, forged.cookie.replace(forged.nonce, made_up)
    reply = replied(behind.gate.check_offline(forged.post(), NOW), 403)
    assert fields(reply, "iam-auth-error") == ["bad-nonce"]
    replied(behind.gate.check(forged.post(), NOW + GAP), 403)


def test_an_app_with_sessions_of_its_own_reads_too(shop: Shop) -> None:
    ahead, behind = shop.worker(), shop.worker()
    shop.disable_primary(NOW)
    ahead.poll(NOW)
    dance = Dance(shop.aws, ahead.gate)
    handoff = handoffs.parse_form(dance.body(), auth_path="/auth")
    given = {"origin": ahead.gate.settings.origins[0], "cookies": [dance.cookie]}
    assert behind.gate.accept(handoff, NOW, **given).arn == ANN  # type: ignore[arg-type]


@pytest.mark.parametrize("protocol", ["bound", "legacy"])
def test_salts_that_a_disabled_key_changed_are_read_once(shop: Shop, protocol: str) -> None:
    """The successor is known, and with it its nonces; but not yet that its salts count."""
    shop.ring.rotate(NOW - 60)
    ahead, behind = shop.worker(), shop.worker()
    shop.disable_primary(NOW)
    ahead.poll(NOW)
    if protocol == "bound":
        hand_over, status = Dance(shop.aws, ahead.gate).post(), 303
    else:
        text = token(shop.aws, ahead.gate, shop.aws.credentials())
        hand_over, status = request(auth_target(text)), 302
    assert behind.gate.check_offline(hand_over, NOW) is None
    replied(behind.gate.check_online(hand_over, NOW), status)


# -- a disabled key --------------------------------------------------------------------------------


def test_what_a_disabled_key_signed_is_refused_once_that_was_read(shop: Shop) -> None:
    one, two = shop.worker(), shop.worker()
    cookie = cookie_of(Dance(shop.aws, one.gate).sign_in())
    begun = Dance(shop.aws, one.gate)
    shop.disable_primary(NOW)
    for worker in (one, two):
        assert worker.lets_in(cookie, NOW)
        worker.poll(NOW + POLL)
        assert not worker.lets_in(cookie, NOW + POLL)
        reply = replied(worker.gate.check(begun.post(), NOW + POLL), 403)
        assert fields(reply, "iam-auth-error") == ["bad-nonce"]
    fresh = cookie_of(Dance(shop.aws, one.gate, now=NOW + POLL).sign_in())
    assert two.lets_in(fresh, NOW + POLL)


def test_a_renewal_with_another_key_does_not_outlive_the_disabled_one(shop: Shop) -> None:
    """Whoever knows the old key has a session of the new one by coming once."""
    one = shop.worker()
    thief = cookie_of(Dance(shop.aws, one.gate).sign_in())  # or made with that key
    known = shop.primary(NOW)
    shop.ring.rotate(NOW)
    later = NOW + POLICY.propagation
    one.poll(NOW + POLL)
    kept = cookie_of(Dance(shop.aws, one.gate, now=later).sign_in())
    for now in (NOW + 1800, later, later + 600):
        answer = one.gate.check(request(cookie=thief), now)
        assert isinstance(answer, Allow)
        thief = answer.set_cookies[0].partition(";")[0]
    assert key_of(thief) == shop.primary(later) != known
    shop.ring.disable([known], later + 610)
    one.poll(later + 610 + POLL)
    assert not one.lets_in(thief, later + 610 + POLL)
    assert one.lets_in(kept, later + 610 + POLL)


# -- a store that is down --------------------------------------------------------------------------


def test_the_last_good_ring_serves_on(shop: Shop) -> None:
    worker = shop.worker()
    cookie = cookie_of(Dance(shop.aws, worker.gate).sign_in())
    assert worker.gate.health(NOW).ok
    shop.objects.down = True
    for _ in range(3):
        worker.poll(NOW + POLL)
    health = worker.gate.health(NOW + POLL)
    assert (health.ok, health.read_at) == (False, NOW)
    assert worker.lets_in(cookie, NOW + POLL)
    assert worker.lets_in(cookie_of(Dance(shop.aws, worker.gate).sign_in()), NOW + POLL)
    shop.objects.down = False
    worker.poll(NOW + 2 * POLL)
    assert worker.gate.health(NOW + 2 * POLL).ok


def test_a_ring_that_was_never_read(shop: Shop) -> None:
    """503, and not 401 or 403: nobody said no. It ends with the first reading that is good."""
    cookie = cookie_of(Dance(shop.aws, shop.worker().gate).sign_in())
    hand_over = Dance(shop.aws, shop.worker().gate).post()
    shop.objects.down = True
    worker = shop.worker(None, public=["/healthz"])
    gate = worker.gate
    for facts in (
        request(cookie=cookie),
        request(),
        request("/auth"),
        request("/auth/whoami"),
        request("/auth/logout", method="POST", headers={"origin": ORIGIN}),
        hand_over,
    ):
        assert gate.check_offline(facts, NOW) is None
        reply = replied(gate.check_online(facts, NOW), 503)
        assert fields(reply, "iam-auth-error") == ["store-unavailable"]
        assert fields(reply, "retry-after")
    # What needs no key is answered all the same.
    assert isinstance(gate.check_offline(request("/healthz", cookie=cookie), NOW), Allow)
    replied(gate.check_offline(request("/auth", method="PUT"), NOW), 405)
    health = gate.health(NOW)
    assert (health.ok, health.read_at) == (False, 0.0)
    with pytest.raises(StoreUnavailable):
        signed_in(gate, ANN, now=NOW)
    shop.objects.down = False
    assert gate.check_offline(request(cookie=cookie), NOW + GAP) is None
    assert isinstance(gate.check_online(request(cookie=cookie), NOW + GAP), Allow)
    assert gate.health(NOW + GAP).ok


def test_sign_ins_are_limited_while_the_ring_is_not_there(shop: Shop) -> None:
    hand_over = Dance(shop.aws, shop.worker().gate).post()
    shop.objects.down = True
    gate = shop.worker(None).gate
    statuses = [getattr(gate.check(hand_over, NOW), "status", 0) for _ in range(40)]
    assert statuses == [503] * 30 + [429] * 10


def test_the_tests_of_an_app_have_cookies_of_the_ring(shop: Shop) -> None:
    worker = shop.worker(None)
    cookie = signed_in(worker.gate, ANN, now=NOW)
    assert key_of(cookie) == shop.primary(NOW)
    assert worker.lets_in(cookie, NOW)


# -- moving over from a secret key -----------------------------------------------------------------


def move(shop: Shop, now: float, salt: str) -> None:
    """What ``keyring import --from-env`` does."""
    shop.ring.imported(SECRET.encode(), salt, now, moving=3600)


@pytest.mark.parametrize("salt", [SALT, ""])
class TestMovingOver:
    def test_logs_nobody_out(self, shop: Shop, make_gate: GateMaker, salt: str) -> None:
        before = make_gate(salt=salt or None)
        cookie = cookie_of(Dance(shop.aws, before).sign_in())
        assert key_of(cookie) == KeyVersion.of(SECRET.encode()).id
        move(shop, NOW, salt)
        worker = shop.worker(NOW)
        answer = worker.gate.check_offline(request(cookie=cookie), NOW + 1000)
        assert isinstance(answer, Allow)
        (renewed,) = answer.set_cookies
        assert key_of(renewed) == shop.primary(NOW)  # the secret signs no more
        until = NOW + 3600 + POLICY.overlap
        assert worker.rings.at(until - 1).get(key_of(cookie))
        assert not worker.rings.at(until).get(key_of(cookie))

    @pytest.mark.parametrize("later", [1.0, 200.0])
    def test_completes_a_bound_sign_in_that_is_under_way(
        self, shop: Shop, make_gate: GateMaker, salt: str, later: float
    ) -> None:
        dance = Dance(shop.aws, make_gate(salt=salt or None))
        move(shop, NOW, salt)
        worker = shop.worker(NOW)
        dance.gate = worker.gate
        shop.aws.calls.clear()
        cookie = cookie_of(dance.sign_in(NOW + later))
        assert shop.aws.calls.count("Decrypt") == 1
        assert worker.lets_in(cookie, NOW + later)

    @pytest.mark.parametrize("later", [1.0, 899.0])
    def test_completes_a_legacy_sign_in_that_is_under_way(
        self, shop: Shop, make_gate: GateMaker, salt: str, later: float
    ) -> None:
        before = make_gate(salt=salt or None)
        text = token(shop.aws, before, shop.aws.credentials())
        move(shop, NOW, salt)
        worker = shop.worker(NOW)
        shop.aws.calls.clear()
        reply = replied(worker.gate.check(request(auth_target(text)), NOW + later), 302)
        assert shop.aws.calls.count("Decrypt") <= 4
        assert worker.lets_in(cookie_of(reply), NOW + later)

    def test_gives_out_salts_of_the_ring(self, shop: Shop, make_gate: GateMaker, salt: str) -> None:
        move(shop, NOW, salt)
        asked = challenge_of(replied(shop.worker().gate.check(request(), NOW), 401))
        was = challenge_of(replied(make_gate(salt=salt or None).check(request(), NOW), 401))
        assert asked.context != was.context


def test_without_the_import_nobody_is_taken_over(shop: Shop, make_gate: GateMaker) -> None:
    """That the tests above see something."""
    before = make_gate(salt=SALT)
    cookie = cookie_of(Dance(shop.aws, before).sign_in())
    dance = Dance(shop.aws, before)
    worker = shop.worker()
    assert not worker.lets_in(cookie, NOW)
    replied(worker.gate.check(dance.post(), NOW + GAP), 403)


def test_a_salt_may_stay_fixed(shop: Shop) -> None:
    worker = shop.worker(salt=SALT)
    asked = challenge_of(replied(worker.gate.check(request(), NOW), 401))
    assert asked.context == {"salt": SALT}
    assert worker.lets_in(sign_in(shop.aws, worker.gate), NOW)
