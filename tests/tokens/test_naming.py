"""Whom the tokens of an identity are from."""

from __future__ import annotations

import pytest

from iam_auth_proxy.aws.base import CallerIdentity
from iam_auth_proxy.errors import Malformed, Unnamed
from iam_auth_proxy.protocol.service_token import CallerType
from iam_auth_proxy.tokens.naming import caller_of

USER, SERVICE = CallerType.USER, CallerType.SERVICE
STS = "arn:aws:sts::111122223333"
WHO = {
    "user": ("arn:aws:iam::111122223333:user/division/ann", "AIDAEXAMPLEEXAMPLE"),
    "role": (f"{STS}:assumed-role/ci/build-7", "AROAEXAMPLEEXAMPLE:build-7"),
    "sso": (
        f"{STS}:assumed-role/AWSReservedSSO_Dev_0123456789abcdef/ann@example.com",
        "AROAEXAMPLEEXAMPLE:ann@example.com",
    ),
    "federated": (f"{STS}:federated-user/ann", "111122223333:ann"),
    "root": ("arn:aws:iam::111122223333:root", "111122223333"),
}


def identity(kind: str) -> CallerIdentity:
    arn, user_id = WHO[kind]
    return CallerIdentity("111122223333", arn, user_id)


@pytest.mark.parametrize(
    ("kind", "type", "name", "version", "username"),
    [
        ("user", None, "", 2, "2/user/ann"),
        ("user", USER, "", 2, "2/user/ann"),
        ("user", SERVICE, "", 2, "2/service/ann"),
        ("user", None, "", 1, "ann"),
        ("role", None, "", 2, "2/service/ci"),
        ("role", SERVICE, "", 2, "2/service/ci"),
        ("role", None, "", 1, "ci"),
        ("role", USER, "ann", 2, "2/user/ann"),
        ("role", None, "ann", 2, "2/user/ann"),
        ("sso", None, "ann@example.com", 2, "2/user/ann@example.com"),
        ("sso", SERVICE, "ci", 2, "2/service/ci"),
        ("sso", None, "ci", 1, "ci"),
        ("root", None, "ann", 2, "2/user/ann"),
    ],
)
def test_who(kind: str, type: CallerType | None, name: str, version: int, username: str) -> None:
    assert str(caller_of(identity(kind), type, name, version)) == username


@pytest.mark.parametrize(
    ("kind", "type"),
    [
        ("role", USER),  # its sessions have no user name, and ${aws:username} stands for none
        *((kind, type) for kind in ("sso", "federated", "root") for type in (None, USER, SERVICE)),
    ],
)
def test_who_has_no_name_of_his_own(kind: str, type: CallerType | None) -> None:
    with pytest.raises(Unnamed) as refused:
        caller_of(identity(kind), type)
    assert WHO[kind][0] in str(refused.value)
    assert refused.value.status == 403


def test_no_name() -> None:
    with pytest.raises(Malformed):
        caller_of(identity("user"), None, "team/app")
