"""What an app's entry says of service tokens, and what it cannot say."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from iam_auth_proxy.config import App, ServiceTokenRule, load, parse_trust
from iam_auth_proxy.config.load import Settings
from iam_auth_proxy.config.service_token import read_service_token
from iam_auth_proxy.errors import ConfigError, Problem

ARN = "arn:aws:kms:eu-west-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab"
GOOD = '{ to = "confidant", kms_key = "alias/authnz" }'


def settings(tmp_path: Path, text: str) -> Settings:
    file = tmp_path / "config.toml"
    file.write_text(text)
    return load({}, {}, [file])


def problems(tmp_path: Path, text: str) -> list[tuple[str, str]]:
    with pytest.raises(ConfigError) as caught:
        settings(tmp_path, text)
    file = str(tmp_path / "config.toml")
    return [(each.place.replace(f"{file}:", ""), each.text) for each in caught.value.problems]


def app(*lines: str, origin: str = "https://c.test") -> str:
    return "\n".join(["[[app]]", f'origin = "{origin}"', *lines, ""])


@pytest.mark.parametrize(
    ("lines", "rule"),
    [
        ([f"service_token = {GOOD}"], ServiceTokenRule("confidant", "alias/authnz")),
        (
            [f'service_token = {{ to = "c", kms_key = "{ARN}", type = "user", from = "ann" }}'],
            ServiceTokenRule("c", ARN, "user", "ann"),
        ),
        (
            ['service_token = { to = "c", kms_key = "alias/a", type = "service", from = "" }'],
            ServiceTokenRule("c", "alias/a", "service"),
        ),
        (
            ["[app.service_token]", 'to = "c"', 'kms_key = "alias/a"'],
            ServiceTokenRule("c", "alias/a"),
        ),
    ],
)
def test_what_can_be_said(tmp_path: Path, lines: list[str], rule: ServiceTokenRule) -> None:
    found = settings(tmp_path, app('https = "alias"', *lines))
    assert found.trust[0].service_token == rule
    assert found.warnings == ()


def test_over_http_only_where_somebody_said_so(tmp_path: Path) -> None:
    lines = [f"service_token = {GOOD}", "allow_http = true"]
    (rule,) = settings(tmp_path, app(*lines, origin="http://c.test")).trust
    assert rule.service_token == ServiceTokenRule("confidant", "alias/authnz", allow_http=True)
    for refused in (lines[:1], [lines[0], "allow_http = false"]):
        [(place, text)] = problems(tmp_path, app(*refused, origin="http://c.test"))
        assert place == "3"
        assert "http://c.test is not encrypted" in text
        assert "allow_http = true" in text


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        (["service_token = 1"], "service_token must be like { to ="),
        (["service_token = []"], "service_token must be like { to ="),
        (['service_token = { to = "c" }'], "service_token needs kms_key: a KMS key"),
        (['service_token = { kms_key = "alias/a" }'], "service_token needs to: what the app"),
        (['service_token = { to = "a b", kms_key = "alias/a" }'], "visible ASCII"),
        (['service_token = { to = "c", kms_key = "authnz" }'], "not a KMS key"),
        (['service_token = { to = "c", kms_key = 1 }'], "service_token.kms_key must be a string"),
        (
            ['service_token = { to = "c", kms_key = "alias/a", type = "users" }'],
            "service_token.type: 'users': not one of user, service; did you mean user?",
        ),
        (
            ['service_token = { to = "c", kms_key = "alias/a", from = "team/app" }'],
            "service_token.from: 'team/app': 'team/app' is not a name",
        ),
        (
            ['service_token = { to = "c", kms_key = "alias/a", typ = "user" }'],
            "service_token.typ is not an option; did you mean type?",
        ),
        (["allow_http = true"], "allow_http is about a service_token, and there is none"),
        (["allow_http = 1", f"service_token = {GOOD}"], "allow_http must be true or false"),
    ],
)
def test_what_cannot(tmp_path: Path, lines: list[str], said: str) -> None:
    [(place, text)] = problems(tmp_path, app(*lines))
    assert place == "3"
    assert said in text


def test_never_for_a_wildcard(tmp_path: Path) -> None:
    """Whoever has a name under it would get the person's tokens."""
    origin = "https://*.corp.test"
    [(_, text)] = problems(tmp_path, app(f"service_token = {GOOD}", origin=origin))
    assert "a wildcard gets no service token" in text


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["to", "kms_key", "type", "from", "x"]), inner, max_size=5
        )
    ),
    max_leaves=8,
)


@given(anything, anything)
def test_whatever_stands_there_is_a_rule_or_a_problem(token: object, allowed: object) -> None:
    found: list[Problem] = []
    entry = App("here", {"service_token": token, "allow_http": allowed}, {})
    rule = read_service_token(entry, parse_trust("http://c.test"), found)
    assert (rule is None) == bool(found)
    if rule is not None:
        assert rule.allow_http
        assert rule.to
        assert rule.key


def test_a_tunnel_is_warned_of(tmp_path: Path) -> None:
    """Elsewhere, in trust.toml, may stand how the app is reached: so it is no error."""
    for lines in ([], ['https = "tunnel"']):
        [warning] = settings(tmp_path, app(f"service_token = {GOOD}", *lines)).warnings
    assert warning.place == f"{tmp_path / 'config.toml'}:1"
    assert "Run: iam-auth-proxy trust add https://c.test --https alias" in warning.text
    file = tmp_path / "config.toml"
    assert load({"intercept": ["c.test"]}, {}, [file]).warnings == ()
