"""Service tokens as they are said. The cases are data: tests/vectors/service_tokens.json."""

from __future__ import annotations

import base64
import contextlib
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from iam_auth_proxy.errors import BadServiceToken, Malformed
from iam_auth_proxy.protocol import service_token as tokens
from iam_auth_proxy.protocol.service_token import Caller, CallerType, ServiceToken, Window
from tests.support import vectors

NAMES = st.text("abcXYZ019_+=,.@-", min_size=1, max_size=128)


def read(case: dict[str, Any]) -> object:
    if "username" in case:
        return tokens.parse_username(case["username"])
    if "payload" in case:
        return tokens.parse_payload(case["payload"].encode())
    if "token" in case:
        return tokens.parse_token(case["token"])
    return tokens.parse_basic(case["basic"])


@pytest.mark.parametrize("case", vectors.accepted("service_tokens"))
def test_is_read(case: dict[str, Any]) -> None:
    found = read(case)
    if isinstance(found, Caller):
        assert found == Caller(case["name"], CallerType(case["type"]), case["version"])
        assert str(found) == case["username"]
    elif isinstance(found, Window):
        assert found == Window(case["not_before"], case["not_after"])
    elif isinstance(found, bytes):
        assert found == bytes.fromhex(case["hex"])
        assert tokens.write_token(found) == case["token"]
    else:
        assert found == (case["pair"] and tuple(case["pair"]))


@pytest.mark.parametrize(("case", "error"), vectors.refused("service_tokens"))
def test_is_refused(case: dict[str, Any], error: str) -> None:
    with pytest.raises(BadServiceToken, match=re.escape(error)) as refused:
        read(case)
    assert refused.value.field == case["field"]
    assert str(refused.value).startswith(case["field"] + ": ")
    assert refused.value.status == 403
    assert refused.value.public == "The service token is not accepted."


def test_a_token_that_is_too_long_or_a_payload() -> None:
    assert len(tokens.parse_token("A" * tokens.MAX_TOKEN)) == tokens.MAX_TOKEN * 3 // 4
    with pytest.raises(BadServiceToken, match="over 2048"):
        tokens.parse_token("A" * (tokens.MAX_TOKEN + 4))
    with pytest.raises(BadServiceToken, match="over 1024"):
        tokens.parse_payload(b" " * 1025)


def test_the_payload_is_the_originals_to_the_byte() -> None:
    text = b'{"not_before": "20261121T204802Z", "not_after": "20261121T205802Z"}'
    assert tokens.write_payload(Window(1795294082, 1795294682)) == text


class TestCaller:
    def test_context_of_each_version(self) -> None:
        assert Caller("x").context("app") == {"to": "app", "from": "x", "user_type": "service"}
        assert Caller("x", CallerType.USER).context("app", {"action": "read"}) == {
            "action": "read", "to": "app", "from": "x", "user_type": "user",
        }  # fmt: skip
        # One with user_type is what no verifier of version 1 opens.
        assert Caller("x", version=1).context("app") == {"to": "app", "from": "x"}

    @pytest.mark.parametrize(
        ("name", "type", "version"),
        [
            ("", "service", 2), ("team/app", "service", 2), ("a b", "user", 2),
            ("x", "service", 0), ("x", "service", -1), ("x", "service", 3), ("x", "user", 1),
        ],
    )  # fmt: skip
    def test_that_there_is_not(self, name: str, type: str, version: int) -> None:
        with pytest.raises(Malformed):
            Caller(name, CallerType(type), version)


@pytest.mark.parametrize(
    "extra",
    [
        {"to": "x"}, {"From": "x"}, {"USER_TYPE": "x"}, {"a": "1", "A": "2"}, {"": "x"}, {"a": ""},
        {"a": "x\n"}, {"a\0": "x"}, {"a": "x" * 1025}, {"a": 1}, {str(n): "x" for n in range(14)},
    ],
)  # fmt: skip
def test_context_that_is_refused(extra: Any) -> None:
    with pytest.raises(Malformed):
        tokens.check_extra(extra)


def test_context_that_is_not() -> None:
    extra = {str(n): "x" for n in range(13)}
    assert tokens.check_extra(extra) == extra
    assert tokens.check_extra({}) == {}


class TestWindow:
    HOUR = Window(1000, 4600)

    @pytest.mark.parametrize("now", [970, 1000, 4600, 4630])
    def test_holds_to_both_its_ends_and_the_leeway(self, now: float) -> None:
        self.HOUR.check(now, max_lifetime=3600, leeway=30)

    @pytest.mark.parametrize(
        ("now", "max_lifetime", "field"),
        [(969, 3600, "not_before"), (4631, 3600, "not_after"), (2000, 3599, "lifetime")],
    )
    def test_says_what_does_not(self, now: float, max_lifetime: float, field: str) -> None:
        with pytest.raises(BadServiceToken) as refused:
            self.HOUR.check(now, max_lifetime=max_lifetime, leeway=30)
        assert refused.value.field == field

    def test_days_count(self) -> None:
        """The original compared the seconds of a timedelta, of which days are no part."""
        month = Window(0, 30 * 86400 + 300)
        with pytest.raises(BadServiceToken, match="2592300 s long"):
            month.check(100, max_lifetime=3600, leeway=0)

    def test_a_second_too_long_is_too_long(self) -> None:
        with pytest.raises(BadServiceToken, match="3601 s"):
            Window(0, 3601).check(100, max_lifetime=3600, leeway=0)


class TestServiceToken:
    TOKEN = ServiceToken(Caller("alice", CallerType.USER), "app", Window(0, 600), "c2VjcmV0")

    def test_is_carried_in_two_ways(self) -> None:
        assert self.TOKEN.headers() == {"X-Auth-From": "2/user/alice", "X-Auth-Token": "c2VjcmV0"}
        assert tokens.parse_basic(self.TOKEN.basic()) == ("2/user/alice", "c2VjcmV0")

    def test_does_not_show_itself(self) -> None:
        assert "c2VjcmV0" not in repr(self.TOKEN)


# -- any input -------------------------------------------------------------------------------------


@given(NAMES, st.sampled_from(CallerType))
def test_usernames_come_back(name: str, type: CallerType) -> None:
    caller = Caller(name, type)
    assert tokens.parse_username(str(caller)) == caller
    first = Caller(name, version=1)
    assert tokens.parse_username(str(first)) == first


@given(st.text() | st.text("12/userservic.", max_size=20))
def test_a_username_has_one_spelling(text: str) -> None:
    with contextlib.suppress(BadServiceToken):
        assert str(tokens.parse_username(text)) == text


@given(st.integers(-62135596800, 253402300799), st.integers(0, 86400 * 400))
def test_payloads_come_back(start: int, length: int) -> None:
    window = Window(start, min(start + length, 253402300799))
    assert tokens.parse_payload(tokens.write_payload(window)) == window


@given(st.binary() | st.text().map(str.encode))
def test_any_payload_is_read_or_refused(data: bytes) -> None:
    with contextlib.suppress(BadServiceToken):
        tokens.parse_payload(data)


@given(st.text() | st.binary().map(lambda data: base64.b64encode(data).decode()))
def test_a_token_has_one_spelling(text: str) -> None:
    with contextlib.suppress(BadServiceToken):
        assert tokens.write_token(tokens.parse_token(text)) == text


@given(st.text() | st.text().map(lambda text: f"Basic {text}"))
def test_any_authorization_is_read_or_refused(text: str) -> None:
    with contextlib.suppress(BadServiceToken):
        tokens.parse_basic(text)
