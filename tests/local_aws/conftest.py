"""An embedded AWS whose clock stands still."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from iam_auth_proxy.local_aws import LocalAws
from tests.support.local_aws import Clock


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def aws(clock: Clock) -> Iterator[LocalAws]:
    """Two accounts, and a clock that stands still. Clients sign with the real time."""
    with LocalAws(accounts=("111122223333", "444455556666"), clock=clock) as running:
        yield running
