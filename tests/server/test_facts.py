"""Which header fields speak of an identity."""

from __future__ import annotations

import pytest

from iam_auth_proxy.server.facts import is_identity_header


@pytest.mark.parametrize(
    "name",
    ["Remote-User", "REMOTE_USER", "X-Forwarded-User", "x_auth_request_email", "X-WebAuth-User"],
)
def test_identity(name: str) -> None:
    assert is_identity_header(name)


@pytest.mark.parametrize(
    "name", ["Host", "Cookie", "X-Forwarded-For", "X-Requested-With", "User-Agent"]
)
def test_not_identity(name: str) -> None:
    assert not is_identity_header(name)
