"""Tokens to and from the original, python-kmsauth 0.6.3, both ways."""

from __future__ import annotations

import time
from typing import Any

import kmsauth
import pytest
from kmsauth import services

from iam_auth_proxy.errors import BadServiceToken
from iam_auth_proxy.protocol import service_token
from iam_auth_proxy.protocol.service_token import Caller, CallerType
from tests.tokens.conftest import ALICE, CI, OLD_CI, TO, Stage

pytestmark = pytest.mark.filterwarnings("ignore:datetime.datetime.utcnow:DeprecationWarning")

CALLERS = [ALICE, CI, OLD_CI, Caller("a.b+c=d,e@example.com", CallerType.USER)]


@pytest.fixture(autouse=True)
def no_clients_of_other_tests(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(services, "CLIENT_CACHE", {})


def original_validator(stage: Stage, **how: Any) -> Any:
    region = stage.aws.region
    given = {"auth_key": [stage.services.arn], "user_auth_key": [stage.users.arn]} | how
    return kmsauth.KMSTokenValidator(to_auth_context=TO, region=region, **given)


def original_generator(stage: Stage, caller: Caller, **how: Any) -> Any:
    key = stage.users if caller.type is CallerType.USER else stage.services
    context = caller.context(TO, how.pop("extra", None))
    return kmsauth.KMSTokenGenerator(
        key.arn, context, stage.aws.region, token_version=caller.version, **how
    )


@pytest.mark.parametrize("caller", CALLERS, ids=str)
def test_the_original_accepts_ours(stage: Stage, caller: Caller) -> None:
    token = stage.seal(caller)
    found = original_validator(stage).decrypt_token(str(caller), token.text)
    assert service_token.write_payload(token.window).decode() == _dumps(found["payload"])


def _dumps(payload: dict[str, str]) -> str:
    return '{{"not_before": "{not_before}", "not_after": "{not_after}"}}'.format(**payload)


@pytest.mark.parametrize("caller", CALLERS, ids=str)
def test_ours_accepts_the_originals(stage: Stage, caller: Caller) -> None:
    generator = original_generator(stage, caller)
    username, token = generator.get_username(), generator.get_token().decode()
    assert username == str(caller)
    verified = stage.verifier(min_version=1).verify(username, token, time.time())
    assert verified.caller == caller
    assert verified.window.lifetime == 600
    if caller.version == 1:
        with pytest.raises(BadServiceToken) as refused:
            stage.verifier().verify(username, token, time.time())
        assert refused.value.field == "version"


def test_further_context(stage: Stage) -> None:
    extra = {"action": "create_resource"}
    ours = stage.seal(CI, extra=extra)
    original_validator(stage, extra_context=extra).decrypt_token(str(CI), ours.text)
    with pytest.raises(kmsauth.TokenValidationError):
        original_validator(stage).decrypt_token(str(CI), ours.text)
    theirs = original_generator(stage, CI, extra=extra).get_token().decode()
    assert stage.verifier(extra=extra).verify(str(CI), theirs, time.time())
    with pytest.raises(BadServiceToken, match="context"):
        stage.verifier().verify(str(CI), theirs, time.time())


def test_a_key_by_its_alias(stage: Stage) -> None:
    ours = stage.seal(CI, "alias/services")
    original_validator(stage, auth_key=["alias/services"]).decrypt_token(str(CI), ours.text)


def test_the_longest_that_the_original_accepts(stage: Stage) -> None:
    fits = stage.seal(CI, lifetime=57 * 60)
    assert fits.window.lifetime == 3600
    original_validator(stage).decrypt_token(str(CI), fits.text)
    too_long = stage.seal(CI, lifetime=57 * 60 + 1)
    with pytest.raises(kmsauth.TokenValidationError, match="lifetime"):
        original_validator(stage).decrypt_token(str(CI), too_long.text)


@pytest.mark.parametrize("lifetime", [60, 120, 180])
def test_short_tokens_are_alive(stage: Stage, lifetime: int) -> None:
    """The original's, of up to three minutes, are dead before they are sent."""
    ours = stage.seal(CI, lifetime=lifetime)
    original_validator(stage).decrypt_token(str(CI), ours.text)
    theirs = original_generator(stage, CI, token_lifetime=lifetime // 60 - 1).get_token()
    with pytest.raises(kmsauth.TokenValidationError, match="Invalid time validity"):
        original_validator(stage).decrypt_token(str(CI), theirs)
