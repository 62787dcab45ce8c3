"""Making tokens, and making them again in time."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest

from iam_auth_proxy.aws.base import Encrypted
from iam_auth_proxy.errors import AwsUnavailable, Malformed, WrongKey
from iam_auth_proxy.protocol.service_token import Caller, CallerType, Window
from iam_auth_proxy.tokens.issuer import Issuer

KEY = "arn:aws:kms:eu-west-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab"
ALICE = Caller("alice", CallerType.USER)
NOW = 1_800_000_000.0


@dataclass
class Sealer:
    used: str = KEY
    fault: Exception | None = None
    asked: list[tuple[str, bytes, dict[str, str]]] = field(default_factory=list)

    def encrypt(self, key: str, plaintext: bytes, context: Mapping[str, str]) -> Encrypted:
        if self.fault is not None:
            raise self.fault
        self.asked.append((key, plaintext, dict(context)))
        return Encrypted(b"blob %d" % len(self.asked), self.used)


def issuer(sealer: Sealer, key: str = KEY, caller: Caller = ALICE, **how: Any) -> Issuer:
    return Issuer(sealer, key, caller, "app", **how)


def test_what_is_sealed() -> None:
    sealer = Sealer()
    token = issuer(sealer, extra={"action": "read"}).issue(NOW + 0.9)
    assert sealer.asked == [
        (
            KEY,
            b'{"not_before": "20270115T075700Z", "not_after": "20270115T081000Z"}',
            {"to": "app", "from": "alice", "user_type": "user", "action": "read"},
        )
    ]
    assert token.window == Window(int(NOW) - 180, int(NOW) + 600)
    assert (token.text, token.key_arn, token.to) == ("YmxvYiAx", KEY, "app")
    assert "YmxvYiAx" not in repr(token)


def test_is_used_until_it_is_nearly_over() -> None:
    sealer = Sealer()
    made = issuer(sealer)
    first = made.token(NOW)
    assert made.token(NOW + 449) is first
    second = made.token(NOW + 451)
    assert second.text != first.text
    assert len(sealer.asked) == 2


def test_while_kms_is_silent_the_last_one_serves() -> None:
    sealer = Sealer()
    made = issuer(sealer)
    first = made.token(NOW)
    sealer.fault = AwsUnavailable("no")
    assert made.token(NOW + 500) is first
    with pytest.raises(AwsUnavailable):
        made.token(NOW + 601)


def test_one_call_for_many_threads() -> None:
    sealer = Sealer()
    made = issuer(sealer)
    barrier, found = threading.Barrier(8), []

    def ask() -> None:
        barrier.wait()
        found.append(made.token(NOW).text)

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert len(set(found)) == len(sealer.asked) == 1


def test_kms_uses_the_key_that_was_named() -> None:
    other = KEY.replace("1234abcd", "9999abcd")
    with pytest.raises(WrongKey):
        issuer(Sealer(other)).issue(NOW)
    assert issuer(Sealer(other), "alias/x").issue(NOW).key_arn == other


@pytest.mark.parametrize(
    "how",
    [
        {"lifetime": 59}, {"lifetime": 86401}, {"skew": -1}, {"skew": 3601}, {"key": "sandbox"},
        {"extra": {"from": "x"}}, {"lifetime": float("nan")},
    ],
)  # fmt: skip
def test_what_it_is_not_made_with(how: dict[str, Any]) -> None:
    with pytest.raises(Malformed):
        issuer(Sealer(), **how)
