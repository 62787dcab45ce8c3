"""Sessions and tokens in the wrong hands or out of their time."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from iam_auth_proxy.errors import AwsUnavailable
from iam_auth_proxy.server import Gate
from iam_auth_proxy.server.facts import Allow, Reply
from tests.server.conftest import (
    ACCOUNT,
    NOW,
    FakeAws,
    GateMaker,
    auth_target,
    request,
    sign_in,
    token,
)

BOB = "arn:aws:iam::222222222222:user/bob"


def status(gate: Gate, *, target: str = "/", cookie: str = "", now: float = NOW) -> int:
    answer = gate.check(request(target, cookie=cookie), now)
    return answer.status if isinstance(answer, Reply) else 200


def test_a_token_that_came_with_a_session_is_spent_too(make_gate: GateMaker, aws: FakeAws) -> None:
    """Two tabs, two tokens: the second one arrives when the first has made the session.

    It would lie in the history and the logs, good for whoever reads them.
    """
    gate = make_gate()
    second = auth_target(token(aws, gate, aws.credentials()))
    cookie = sign_in(aws, gate)
    assert status(gate, target=second, cookie=cookie) == 302
    assert status(gate, target=second) == 403
    assert status(gate, target=second, cookie=cookie) == 302, "back in the history"


@pytest.mark.parametrize("key", ["alias/app", "arn:aws:kms:eu-west-1:111122223333:alias/app"])
def test_an_account_that_was_taken_out_is_out_at_once(
    make_gate: GateMaker, aws: FakeAws, key: str
) -> None:
    """Also while the key behind an alias has not been looked up: only challenges need it."""
    before = make_gate(accounts=[ACCOUNT, "222222222222"])
    ann, bob = sign_in(aws, before), sign_in(aws, before, BOB)
    after = make_gate(kms_key=key, accounts=[ACCOUNT])
    assert status(after, cookie=bob) == 403
    assert status(after, cookie=ann) == 200
    assert isinstance(after.check_offline(request(cookie=ann), NOW), Allow)


def test_a_partition_is_not_another_one_with_the_same_account(
    make_gate: GateMaker, aws: FakeAws
) -> None:
    cookie = sign_in(aws, make_gate())
    china = "arn:aws-cn:kms:cn-north-1:111122223333:alias/app"
    assert status(make_gate(kms_key=china), cookie=cookie) == 403


class CountingLock:
    """A lock; ``came`` is released once for everybody who asks for it."""

    def __init__(self) -> None:
        self.came = threading.Semaphore(0)
        self._lock = threading.Lock()

    def __enter__(self) -> None:
        self.came.release()
        self._lock.acquire()

    def __exit__(self, *exception: object) -> None:
        self._lock.release()


@pytest.fixture
def outage() -> Iterator[tuple[FakeAws, threading.Event, list[str]]]:
    """An AWS that answers nothing until it is told to, and then with a failure."""
    go_on, asked = threading.Event(), list[str]()

    class Silent(FakeAws):
        def _call(self, name: str) -> None:
            asked.append(name)
            go_on.wait(10)
            raise AwsUnavailable("no answer")

    yield Silent(), go_on, asked
    go_on.set()


def test_who_waited_for_an_answer_of_aws_does_not_ask_again(
    make_gate: GateMaker, outage: tuple[FakeAws, threading.Event, list[str]]
) -> None:
    """Each would hold a thread for as long as AWS is silent, one after the other."""
    aws, go_on, asked = outage
    gate = Gate(make_gate(kms_key="alias/app").settings, kms=aws, sts=aws)
    answers: list[int] = []
    # They came at different times, further apart than a failure is remembered.
    threads = [
        threading.Thread(target=lambda at=at: answers.append(status(gate, now=NOW + at * 30)))
        for at in range(8)
    ]
    gate._homing._lock = lock = CountingLock()
    for thread in threads:
        thread.start()
    for _ in threads:
        assert lock.came.acquire(timeout=10)
    go_on.set()
    for thread in threads:
        thread.join(10)
    assert answers == [503] * len(threads)
    assert len(asked) == 1
