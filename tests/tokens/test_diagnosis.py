"""The six stories of the confidant-users thread, and others, each told from the others."""

from __future__ import annotations

import time
from collections.abc import Mapping

import pytest

from iam_auth_proxy.errors import BadServiceToken, ConfigError
from iam_auth_proxy.protocol.service_token import (
    Caller,
    CallerType,
    Window,
    write_payload,
    write_token,
)
from iam_auth_proxy.tokens import diagnosis
from iam_auth_proxy.tokens.diagnosis import Rationed, explain
from tests.tokens.conftest import ALICE, CI, OLD_CI, TO, Stage


def sealed(stage: Stage, context: Mapping[str, str], key: str = "", minutes: int = 10) -> str:
    """As somebody's own script seals it."""
    now = int(time.time())
    payload = write_payload(Window(now - 180, now + 60 * minutes))
    return write_token(stage.kms.encrypt(key or stage.users.arn, payload, context).ciphertext)


def why(stage: Stage, username: str, token: str) -> tuple[str, str]:
    with pytest.raises(BadServiceToken) as error:
        stage.verifier(explain=explain).verify(username, token, time.time())
    return error.value.field, error.value.said


RIGHT = ALICE.context(TO)


def test_1_the_maximum_version_is_4(stage: Stage) -> None:
    with pytest.raises(ConfigError, match="max_version: there is no version 4"):
        stage.accepts(max_version=4)


def test_2_the_username_says_version_4(stage: Stage) -> None:
    field, said = why(stage, "4/user/alice", sealed(stage, RIGHT))
    assert field == "version"
    assert "SigV4 is something else" in said


def test_3_the_context_has_no_user_type(stage: Stage) -> None:
    field, said = why(stage, "2/user/alice", sealed(stage, {"to": TO, "from": "alice"}))
    assert field == "user_type"
    assert "without user_type" in said


def test_4_the_lifetime_is_999_minutes(stage: Stage) -> None:
    field, said = why(stage, "2/user/alice", sealed(stage, RIGHT, minutes=999))
    assert field == "lifetime"
    assert "at most 3600 s" in said


def test_5_ten_minutes_work(stage: Stage) -> None:
    token = sealed(stage, RIGHT)
    assert stage.verifier(explain=explain).verify("2/user/alice", token, time.time())


def test_6_the_token_is_the_text_of_bytes(stage: Stage) -> None:
    field, said = why(stage, "2/user/alice", str(sealed(stage, RIGHT).encode()))
    assert field == "token"
    assert "b'...'" in said


@pytest.mark.parametrize(
    ("username", "context", "field"),
    [
        ("2/user/alice", RIGHT | {"user_type": "service"}, "user_type"),
        ("2/user/alice", RIGHT | {"from": "2/user/alice"}, "from"),
        ("2/user/alice@example.com", RIGHT, "from"),
        ("2/user/alice", {"to": "alice", "from": TO, "user_type": "user"}, "to"),
        ("2/user/alice", RIGHT | {"to": "nobody-knows"}, "context"),
    ],
)
def test_other_mistakes(stage: Stage, username: str, context: dict[str, str], field: str) -> None:
    assert why(stage, username, sealed(stage, context))[0] == field


def test_version_1_with_the_type_in_its_context(stage: Stage) -> None:
    token = sealed(stage, CI.context(TO), stage.services.arn)
    with pytest.raises(BadServiceToken, match="its username is 2/service/ci") as error:
        stage.verifier(explain=explain, min_version=1).verify(str(OLD_CI), token, time.time())
    assert error.value.field == "version"


def test_further_context_is_missing(stage: Stage) -> None:
    token = sealed(stage, CI.context(TO), stage.services.arn)
    verifier = stage.verifier(explain=explain, extra={"action": "read"})
    with pytest.raises(BadServiceToken, match="context: it was sealed without action"):
        verifier.verify(str(CI), token, time.time())


def test_aws_that_goes_away_meanwhile(stage: Stage) -> None:
    token = sealed(stage, {"to": TO, "from": "alice"})
    asked = []

    def second(call: object) -> bool:
        asked.append(call)
        return len(asked) > 1

    stage.aws.fault("kms", "Decrypt", code="ThrottlingException", times=None, when=second)
    assert why(stage, "2/user/alice", token)[0] == "context"


def test_explanations_are_rationed(stage: Stage) -> None:
    now = [0.0]
    rationed = Rationed(lambda: now[0])
    token = sealed(stage, {"to": TO, "from": "alice"})
    from iam_auth_proxy.protocol.service_token import parse_token

    def ask() -> bool:
        found = rationed(stage.kms, stage.users.arn, parse_token(token), ALICE, stage.accepts())
        return found is not None

    assert [ask() for _ in range(7)] == [True] * diagnosis.AT_FIRST + [False] * 2
    now[0] = 59.0
    assert not ask()
    now[0] = 61.0
    assert [ask(), ask()] == [True, False]


def test_there_are_few_guesses(stage: Stage) -> None:
    token = sealed(stage, RIGHT | {"to": "nobody-knows"})
    stage.calls()
    email = Caller("alice@example.com", CallerType.USER)
    with pytest.raises(BadServiceToken):
        stage.verifier(explain=explain, extra={"a": "b"}).verify(str(email), token, time.time())
    assert len(stage.calls()) <= 8
