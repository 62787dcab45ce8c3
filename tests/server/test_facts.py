"""Which header fields speak of an identity, and which answers may carry a cookie."""

from __future__ import annotations

import pytest

from iam_auth_proxy.server.facts import is_identity_header, may_carry


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


@pytest.mark.parametrize(
    ("value", "may"),
    [("public, max-age=60", False), ("max-age=60, S-MaxAge=9", False), ("private", True),
     ("", True), ("no-store", True), ('no-cache="x"', True)],
)  # fmt: skip
def test_no_session_goes_into_a_shared_cache(value: str, may: bool) -> None:
    assert may_carry([("Cache-Control", value)]) is may
    assert may_carry({"cache-control": value}) is may
    assert may_carry([])
