"""Settings that were meant to narrow something, and must not quietly leave it open."""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from iam_auth_proxy.errors import ConfigError
from iam_auth_proxy.protocol.identity import Identity
from iam_auth_proxy.server.facts import Reply
from iam_auth_proxy.server.settings import load
from tests.server.conftest import (
    ACCOUNT,
    KEY,
    NOW,
    ORIGIN,
    SECRET,
    FakeAws,
    GateMaker,
    auth_target,
    request,
    token,
)

CODE = {"kms_key": KEY, "secret_key": SECRET, "origins": [ORIGIN], "legacy": True}
ENVIRON = {"KMS_KEY_ID": KEY, "SECRET_KEY": SECRET, "AWS_ACCOUNT_ID": ACCOUNT}


async def nobody(identity: Identity) -> bool:
    return False


class Nobody:
    async def __call__(self, identity: Identity) -> bool:
        return False


@pytest.mark.parametrize("function", [nobody, functools.partial(nobody), Nobody()])
def test_a_coroutine_function_is_refused(function: Callable[[Identity], Awaitable[bool]]) -> None:
    """What it gives back is true, whatever it would come to."""
    with pytest.raises(ConfigError, match="allow=: must be a plain function"):
        load(CODE | {"allow": function})


class Later:
    """Awaitable, and true as every object is."""

    def __await__(self) -> Any:
        yield


@pytest.mark.parametrize("answer", [Later(), "no", 0.0, None, (lambda: True)])
def test_only_true_lets_in(
    make_gate: GateMaker, aws: FakeAws, answer: object, caplog: pytest.LogCaptureFixture
) -> None:
    gate = make_gate(allow=lambda identity: answer)
    reply = gate.check(request(auth_target(token(aws, gate, aws.credentials()))), NOW)
    assert isinstance(reply, Reply)
    assert (reply.status, dict(reply.headers)["Iam-Auth-Error"]) == (403, "not-allowed")
    if answer is not None:
        assert "allow=" in caplog.text


@pytest.mark.parametrize("nothing", [[], (), "", " , "])
def test_no_origins_are_not_every_origin(nothing: object) -> None:
    with pytest.raises(ConfigError, match="origins=: is empty"):
        load(CODE | {"origins": nothing})


@pytest.mark.parametrize("name", ["ALLOW", "ORIGINS", "SESSIONS_ISSUED_AFTER"])
@pytest.mark.parametrize("text", ["", " "])
def test_an_empty_variable_does_not_open_the_door(name: str, text: str) -> None:
    """``IAM_AUTH_ALLOW=${ALLOWED}`` of a unit or compose file, where ALLOWED is not set."""
    variable = "IAM_AUTH_" + name
    with pytest.raises(ConfigError, match=f"{variable}: "):
        load({}, ENVIRON | {variable: text})


@pytest.mark.parametrize("name", ["ALLOWED_USERS", "USERS", "ALLOW_LIST", "ISSUED_AFTER"])
def test_every_unknown_variable_is_told(name: str) -> None:
    told: list[str] = []
    load({}, ENVIRON | {"IAM_AUTH_" + name: "x"}, warn=told.append)
    assert len(told) == 1
    assert told[0].startswith(f"IAM_AUTH_{name} is not a setting")


def test_what_kubernetes_sets_is_not_told() -> None:
    """For a service called ``iam-auth``, in every pod of its namespace."""
    address = "tcp://10.0.0.1:80"
    others = {
        "IAM_AUTH_SERVICE_HOST": "10.0.0.1", "IAM_AUTH_SERVICE_PORT": "80",
        "IAM_AUTH_SERVICE_PORT_HTTP": "80", "IAM_AUTH_PORT": address,
        "IAM_AUTH_PORT_80_TCP": address, "IAM_AUTH_PORT_80_TCP_ADDR": "10.0.0.1",
        "IAM_AUTH_APP_PORT_80_TCP_PROTO": "tcp",
    }  # fmt: skip
    told: list[str] = []
    load({}, ENVIRON | others, warn=told.append)
    assert told == []


def test_an_empty_variable_that_narrows_nothing_is_as_if_it_were_not_there() -> None:
    assert load({}, ENVIRON | {"IAM_AUTH_HELP_URL": "", "IAM_AUTH_ALLOW_FILE": ""}).help_url == ""
