"""The settings of service tokens, by our names and by Confidant's."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from iam_auth_proxy.errors import ConfigError, Malformed
from iam_auth_proxy.protocol.service_token import CallerType
from iam_auth_proxy.server import token_readers
from iam_auth_proxy.server.settings import load
from tests.server.conftest import ACCOUNT, KEY, ORIGIN, SECRET

CODE = {"kms_key": KEY, "secret_key": SECRET, "origins": [ORIGIN]}
ORIGINAL = {"AWS_ACCOUNT_ID": ACCOUNT, "SECRET_KEY": SECRET, "KMS_KEY_ID": KEY}
CONFIDANT = ORIGINAL | {
    "AUTH_CONTEXT": "confidant-production",
    "AUTH_KEY": "alias/authnz",
    "USER_AUTH_KEY": KEY,
    "SCOPED_AUTH_KEYS": json.dumps({"alias/cf-sandbox": "sandbox"}),
    "KMS_MINIMUM_TOKEN_VERSION": "1",
    "KMS_MAXIMUM_TOKEN_VERSION": "2",
    "KMS_AUTH_USER_TYPES": "user, service",
    "AUTH_TOKEN_MAX_LIFETIME": "90",
    "KMS_AUTH_TOKEN_CACHE_SIZE": "128",
}


def problems(environ: dict[str, str]) -> str:
    with pytest.raises(ConfigError) as caught:
        load({}, environ)
    return str(caught.value)


def test_confidants_names() -> None:
    found = load({}, CONFIDANT)
    assert found.token_cache_size == 128
    accepts = found.accepts()
    assert accepts is not None
    assert (accepts.to, accepts.min_version, accepts.max_version) == ("confidant-production", 1, 2)
    assert accepts.types == set(CallerType)
    assert accepts.max_lifetime == 5400
    services = [str(key) for key in accepts.keys(CallerType.SERVICE)]
    assert services == ["alias/authnz", "alias/cf-sandbox"]
    assert [account for _, account in accepts.scoped_keys] == ["sandbox"]


def test_our_names_come_first() -> None:
    ours = CONFIDANT | {
        "IAM_AUTH_TOKEN_AUDIENCE": "app",
        "IAM_AUTH_SERVICE_KEYS": "alias/a alias/b",
    }
    accepts = load({}, ours).accepts()
    assert accepts is not None
    assert accepts.to == "app"
    assert [str(key) for key in accepts.service_keys] == ["alias/a", "alias/b"]


def test_confidants_names_are_plain_words_and_count_only_together() -> None:
    """An AUTH_KEY of another library's must not stop an app, or open it."""
    others = ORIGINAL | {"AUTH_KEY": "not a key", "KMS_AUTH_USER_TYPES": "x", "USER_AUTH_KEY": KEY}
    assert load({}, others).accepts() is None
    assert load({}, ORIGINAL | {"AUTH_CONTEXT": "something"}).accepts() is None
    assert "AUTH_KEY: not a KMS key" in problems(others | {"AUTH_CONTEXT": "x"})


def test_version_2_only_by_default() -> None:
    accepts = load(CODE | {"token_audience": "app", "service_keys": [KEY]}).accepts()
    assert accepts is not None
    assert (accepts.min_version, accepts.max_version) == (2, 2)
    assert accepts.types == {CallerType.SERVICE}
    assert (accepts.max_lifetime, accepts.leeway) == (3600, 30)


@pytest.mark.parametrize(
    ("variables", "said"),
    [
        ({"KMS_MAXIMUM_TOKEN_VERSION": "4"}, "KMS_MAXIMUM_TOKEN_VERSION: there is no version 4"),
        ({"KMS_AUTH_USER_TYPES": '"user,service"'}, "without quotes"),
        ({"SCOPED_AUTH_KEYS": '{"sandbox-auth-key": "sandbox"}'}, "alias/NAME"),
        ({"SCOPED_AUTH_KEYS": "[]"}, "must be an object"),
        ({"SCOPED_AUTH_KEYS": '{"alias/a": "x", "alias/b": "x"}'}, "an account is named twice"),
        ({"SCOPED_AUTH_KEYS": '{"alias/a": "x", "alias/a": "y"}'}, "a key is repeated"),
        ({"SCOPED_AUTH_KEYS": '{"alias/a": "x/y"}'}, "an account is"),
        ({"AUTH_TOKEN_MAX_LIFETIME": "0"}, "between 1m and 24h"),
        ({"KMS_MINIMUM_TOKEN_VERSION": "2", "KMS_MAXIMUM_TOKEN_VERSION": "1"}, "is above"),
        ({"IAM_AUTH_TOKEN_CONTEXT": '{"user_type": "zzz"}'}, "a part of every token's context"),
        ({"IAM_AUTH_TOKEN_TYPES": ""}, "is empty"),
        ({"IAM_AUTH_TOKEN_LEEWAY": "6m"}, "at most 5m"),
        ({"KMS_AUTH_TOKEN_CACHE_SIZE": "-1"}, "a number from 0"),
    ],
)
def test_what_is_wrong_is_said_at_start(variables: dict[str, str], said: str) -> None:
    assert said in problems(CONFIDANT | variables)


def test_what_does_not_go_together() -> None:
    assert "IAM_AUTH_TOKEN_AUDIENCE or AUTH_CONTEXT: is needed" in problems(
        ORIGINAL | {"IAM_AUTH_SERVICE_KEYS": "alias/x"}
    )
    users = {"IAM_AUTH_TOKEN_AUDIENCE": "app", "IAM_AUTH_SERVICE_KEYS": "alias/x"}
    said = problems(ORIGINAL | users | {"IAM_AUTH_TOKEN_TYPES": "user service"})
    assert "there is no key of theirs" in said


READERS = [
    token_readers.read_audience, token_readers.read_keys, token_readers.read_scoped_keys,
    token_readers.read_types, token_readers.read_version, token_readers.read_lifetime,
    token_readers.read_leeway, token_readers.read_context, token_readers.read_size,
]  # fmt: skip


@pytest.mark.parametrize("reader", READERS)
@given(value=st.text(max_size=20) | st.integers() | st.booleans() | st.none() | st.floats())
def test_any_value_is_read_or_refused(reader: object, value: object) -> None:
    assert callable(reader)
    try:
        reader(value)
    except Malformed:
        pass
