"""For whom the proxy speaks, and what it makes of a 401."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from iam_auth_proxy.errors import BadChallenge, NotTrusted
from iam_auth_proxy.names import Origin, parse_key_reference, parse_origin
from iam_auth_proxy.protocol import challenge
from iam_auth_proxy.protocol.challenge import Challenge
from iam_auth_proxy.proxy.decide import (
    Authority,
    Refuse,
    SessionEnded,
    SignIn,
    authority,
    decide,
)
from iam_auth_proxy.relay.exchange import RequestHead, ResponseHead
from tests.support import vectors

GRAFANA = Origin("http", "grafana.internal", 80)
CHALLENGE = Challenge(
    "111122223333",
    parse_key_reference(
        "arn:aws:kms:eu-west-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab"
    ),
    {"salt": "s"},
)


def head(method: str, headers: list[list[str]]) -> RequestHead:
    return RequestHead(
        method.encode(), b"/", [(name.encode(), value.encode()) for name, value in headers]
    )


def cases() -> Iterator[object]:
    document = json.loads((vectors.FOLDER / "authority.json").read_text())
    for group in document["groups"]:
        for number, case in enumerate(group["cases"]):
            label = f"{group['verdict']}-{group['why'][:40]}-{number}"
            yield pytest.param(case, group["verdict"], id=label)


@pytest.mark.parametrize(("case", "verdict"), [*cases()])
def test_authority(case: dict[str, object], verdict: str) -> None:
    target = parse_origin(str(case["target"]))
    headers = case["headers"]
    assert isinstance(headers, list)
    assert authority(head(str(case["method"]), headers), target) is Authority(verdict)


def recorded() -> Iterator[object]:
    document = json.loads((vectors.FOLDER / "authority_chromium.json").read_text())
    for case in document["cases"]:
        yield pytest.param(case, id=f"{case['kind']}-by-{case['page']}")


@pytest.mark.parametrize("case", [*recorded()])
def test_authority_over_what_chromium_sends(case: dict[str, Any]) -> None:
    target = parse_origin(case["target"])
    assert authority(head(case["method"], case["headers"]), target) is Authority(case["verdict"])


NAMES = "Origin Referer Sec-Fetch-Site Sec-Fetch-Dest Upgrade User-Agent Purpose Accept"
names = st.sampled_from(NAMES.split(" "))
values = st.sampled_from(
    ["http://grafana.internal", "http://evil.example/", "null", "none", "same-origin", "", "1"]
) | st.text(st.characters(codec="latin-1"), max_size=30)


@given(st.lists(st.tuples(names, values), max_size=6))
def test_a_foreign_origin_never_gets_anything(fields: list[tuple[str, str]]) -> None:
    headers = [(name.encode(), value.encode("latin-1")) for name, value in fields]
    foreign = [(b"Origin", b"http://evil.example"), *headers]
    assert authority(RequestHead(b"GET", b"/", foreign), GRAFANA) is Authority.NOTHING


@given(st.sampled_from([b"POST", b"PUT", b"DELETE", b"PATCH"]), st.lists(st.tuples(names, values)))
def test_only_safe_methods_dance(method: bytes, fields: list[tuple[str, str]]) -> None:
    headers = [(name.encode(), value.encode("latin-1")) for name, value in fields]
    assert authority(RequestHead(method, b"/", headers), GRAFANA) is not Authority.DANCE


class Everyone:
    def trusts(self, origin: Origin) -> bool:
        return True

    def untrusted(self, origin: Origin) -> NotTrusted:
        raise AssertionError


class Nobody:
    def trusts(self, origin: Origin) -> bool:
        return False

    def untrusted(self, origin: Origin) -> NotTrusted:
        return NotTrusted(f"{origin} is not trusted")


def answer(
    status: int = 401, drop: str = "", add: list[tuple[str, str]] | None = None
) -> ResponseHead:
    fields = [field for field in challenge.write(CHALLENGE) if field[0] != drop] + (add or [])
    encoded = [(name.encode(), value.encode()) for name, value in fields]
    return ResponseHead(status, b"", encoded)


CURL = head("GET", [["User-Agent", "curl/8"]])
IMAGE = head("GET", [["User-Agent", "Mozilla/5.0"]])


def test_a_trusted_challenge_is_answered() -> None:
    assert decide(CURL, answer(), GRAFANA, Everyone()) == SignIn(CHALLENGE)


@pytest.mark.parametrize("status", [200, 302, 400, 403, 407, 500])
def test_only_a_401_is_looked_at(status: int) -> None:
    assert decide(CURL, answer(status), GRAFANA, Everyone()) is None


def test_another_scheme_goes_through() -> None:
    basic = ResponseHead(401, b"", [(b"WWW-Authenticate", b'Basic realm="x"')])
    assert decide(CURL, basic, GRAFANA, Everyone()) is None


@pytest.mark.parametrize("trust", [Everyone(), Nobody()])
def test_a_request_without_authority_gets_the_apps_answer(trust: Everyone | Nobody) -> None:
    assert decide(IMAGE, answer(), GRAFANA, trust) is None


def test_a_stranger_is_refused_whatever_it_sent() -> None:
    for reply in (answer(), answer(drop="Iam-Auth-Kms-Key-Id")):
        verdict = decide(CURL, reply, GRAFANA, Nobody())
        assert isinstance(verdict, Refuse)
        assert isinstance(verdict.error, NotTrusted)


def test_a_malformed_challenge_is_the_apps_fault() -> None:
    verdict = decide(CURL, answer(drop="Iam-Auth-Kms-Key-Id"), GRAFANA, Everyone())
    assert isinstance(verdict, Refuse)
    assert isinstance(verdict.error, BadChallenge)


def test_what_cannot_be_repeated_by_a_redirect_is_not_redirected() -> None:
    post = head("POST", [["User-Agent", "curl/8"]])
    socket = head("GET", [["Origin", str(GRAFANA)], ["Upgrade", "websocket"]])
    assert decide(post, answer(), GRAFANA, Everyone()) == SessionEnded()
    assert decide(socket, answer(), GRAFANA, Everyone()) == SessionEnded()
