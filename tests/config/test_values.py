"""The grammars of configuration values: tests/vectors/config.json, and what holds for any text."""

import contextlib
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from iam_auth_proxy.config.values import (
    TrustRule,
    parse_bastion,
    parse_bind,
    parse_duration,
    parse_session_duration,
    parse_switch,
    parse_trust,
)
from iam_auth_proxy.errors import Malformed
from iam_auth_proxy.names import Origin

VECTORS: dict[str, Any] = json.loads(
    (Path(__file__).parent.parent / "vectors" / "config.json").read_text("utf-8")
)
KEY: str = VECTORS["trust"]["key"]
OTHER_KEY = KEY.replace("1234abcd", "ffffffff")
PARSERS: dict[str, Any] = {
    "duration": parse_duration,
    "session_duration": parse_session_duration,
    "bind": parse_bind,
    "bastion": parse_bastion,
    "trust": parse_trust,
}


def refused() -> list[Any]:
    return [
        pytest.param(name, text.replace("KEY", KEY), id=f"{name}: {text[:40]!r}: {why}")
        for name in PARSERS
        for text, why in VECTORS[name]["refused"]
    ]


@pytest.mark.parametrize(("name", "text"), refused())
def test_refused(name: str, text: str) -> None:
    with pytest.raises(Malformed) as raised:
        PARSERS[name](text)
    assert str(raised.value)


@pytest.mark.parametrize("text", VECTORS["bastion"]["accepted"])
def test_bastion(text: str) -> None:
    assert parse_bastion(text) == text


@pytest.mark.parametrize(("text", "seconds"), VECTORS["duration"]["accepted"])
def test_duration(text: str, seconds: float) -> None:
    assert parse_duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize(("text", "seconds"), VECTORS["session_duration"]["accepted"])
def test_session_duration(text: str, seconds: float) -> None:
    assert parse_session_duration(text) == seconds


@pytest.mark.parametrize(("text", "bind"), VECTORS["bind"]["accepted"])
def test_bind(text: str, bind: dict[str, object]) -> None:
    parsed = asdict(parse_bind(text))
    assert {**parsed, "hosts": list(parsed["hosts"])} == bind


@pytest.mark.parametrize(("text", "rule"), VECTORS["trust"]["accepted"])
def test_trust(text: str, rule: dict[str, object]) -> None:
    parsed = parse_trust(text.replace("KEY", KEY))
    assert parsed.keys == (KEY,) * int(str(rule["keys"]))
    said = {**asdict(parsed), "keys": len(parsed.keys)}
    assert {name: said[name] for name in rule} == rule


def test_a_file_lists_several_keys() -> None:
    assert parse_trust("http://a.test", [KEY, OTHER_KEY]).keys == (KEY, OTHER_KEY)


def test_a_key_in_the_origin_does_not_drop_the_listed_ones() -> None:
    assert parse_trust(f"http://a.test={KEY}", [OTHER_KEY, KEY]).keys == (KEY, OTHER_KEY)


def test_a_listed_key_is_checked() -> None:
    with pytest.raises(Malformed):
        parse_trust("http://a.test", ["alias/x"])


@pytest.mark.parametrize(
    ("rule", "origin", "covered"),
    [
        ("http://a.test", Origin("http", "a.test", 80), True),
        ("http://a.test", Origin("https", "a.test", 443), False),
        ("http://a.test", Origin("https", "a.test", 80), False),
        ("http://a.test", Origin("http", "a.test", 81), False),
        ("http://a.test", Origin("http", "b.a.test", 80), False),
        ("http://a.test", Origin("http", "a.test.", 80), False),
        (f"http://*.x.test={KEY}", Origin("http", "a.x.test", 80), True),
        (f"http://*.x.test={KEY}", Origin("http", "b.a.x.test", 80), True),
        (f"http://*.x.test={KEY}", Origin("http", "x.test", 80), False),
        (f"http://*.x.test={KEY}", Origin("http", "evilx.test", 80), False),
        (f"http://*.x.test={KEY}", Origin("http", "a.x.test.", 80), False),
        (f"http://*.x.test={KEY}", Origin("http", "a.x.test", 8080), False),
        (f"http://*.x.test={KEY}", Origin("http", "a.x.test.evil.com", 80), False),
    ],
)
def test_what_a_rule_covers(rule: str, origin: Origin, covered: bool) -> None:
    assert parse_trust(rule).covers(origin) is covered


@pytest.mark.parametrize(
    "text", ["http://a.test", "https://a.test:8443", f"http://*.x.test={KEY}", "http://[::1]:81"]
)
def test_a_rule_prints_as_it_is_written(text: str) -> None:
    assert str(parse_trust(text)) == text.partition("=")[0]


def test_where_a_rule_was_written_is_not_what_it_says() -> None:
    here = TrustRule("http", "a.test", 80, place="--trust")
    assert here == TrustRule("http", "a.test", 80, place="config.toml:3")


@pytest.mark.parametrize(
    ("text", "value"),
    [
        *[("true", True), ("1", True), ("YES", True), ("on", True)],
        *[("false", False), ("0", False), ("No", False), ("off", False)],
    ],
)
def test_switch(text: str, value: bool) -> None:
    assert parse_switch(text) is value


@pytest.mark.parametrize("text", ["", "2", "maybe", "tru", " true"])
def test_no_switch(text: str) -> None:
    with pytest.raises(Malformed):
        parse_switch(text)


ANY_TEXT = st.one_of(
    st.text(max_size=60),
    st.text(alphabet="0123456789.:[]*/=hmsnu-localtepx", max_size=40),
    st.from_regex(r"(https?://)?(\*\.)?[a-z0-9.\[\]:-]{0,30}(/|=.*)?", fullmatch=True),
)


@pytest.mark.parametrize("name", PARSERS)
@given(text=ANY_TEXT)
def test_any_text_is_parsed_or_malformed(name: str, text: str) -> None:
    with contextlib.suppress(Malformed):
        PARSERS[name](text)


@given(text=ANY_TEXT)
def test_whatever_is_called_local_is_loopback(text: str) -> None:
    try:
        bind = parse_bind(text)
    except Malformed:
        return
    loopback = all(host == "::1" or host.startswith("127.") for host in bind.hosts)
    assert bind.is_local == (bind.path.startswith("/") or loopback)


@given(hours=st.integers(0, 100), minutes=st.integers(0, 600), seconds=st.integers(1, 6000))
def test_durations_add_up(hours: int, minutes: int, seconds: int) -> None:
    assert parse_duration(f"{hours}h{minutes}m{seconds}s") == hours * 3600 + minutes * 60 + seconds
