"""RFC 6238, appendix B (SHA-1; the last six of its eight digits)."""

from __future__ import annotations

import pytest

from iam_auth_proxy.local_aws import totp

SEED = b"12345678901234567890"


@pytest.mark.parametrize(
    ("now", "code"),
    [
        (59, "287082"),
        (1111111109, "081804"),
        (1111111111, "050471"),
        (1234567890, "005924"),
        (2000000000, "279037"),
        (20000000000, "353130"),
    ],
)
def test_known_codes(now: int, code: str) -> None:
    assert totp.code_at(SEED, now) == code
    assert totp.matching_step(SEED, code, now, after=-1) == now // 30


def test_the_neighbours_are_accepted_and_nothing_older_than_the_last() -> None:
    now = 1_000_000_000.0
    step = int(now // 30)
    for offset in (-1, 0, 1):
        code = totp.code_at(SEED, now + offset * 30)
        assert totp.matching_step(SEED, code, now, after=-1) == step + offset
        assert totp.matching_step(SEED, code, now, after=step + offset) is None
    for offset in (-2, 2):
        assert (
            totp.matching_step(SEED, totp.code_at(SEED, now + offset * 30), now, after=-1) is None
        )
