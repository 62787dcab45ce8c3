"""An embedded AWS with keys of users and of services, an app that opens, and people who seal."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import pytest

from iam_auth_proxy.aws.base import Kms
from iam_auth_proxy.aws.clients import make_clients
from iam_auth_proxy.local_aws import Keys, LocalAws, allow
from iam_auth_proxy.local_aws.resources import Key
from iam_auth_proxy.names import parse_key_reference
from iam_auth_proxy.protocol.service_token import Caller, CallerType, ServiceToken
from iam_auth_proxy.tokens.accepts import Accepts
from iam_auth_proxy.tokens.issuer import Issuer
from iam_auth_proxy.tokens.verifier import Verifier

TO = "app-production"
ALICE = Caller("alice", CallerType.USER)
CI = Caller("ci")
OLD_CI = Caller("ci", version=1)


@dataclass
class Stage:
    """:ivar kms: as an identity that may do everything with every key."""

    aws: LocalAws
    kms: Kms
    keys: Keys
    services: Key
    users: Key

    def accepts(self, **change: Any) -> Accepts:
        """Services and users, each with a key of their own."""
        given = {
            "to": TO,
            "service_keys": (parse_key_reference(self.services.arn),),
            "user_keys": (parse_key_reference(self.users.arn),),
        }
        for name in ("service_keys", "user_keys"):
            if name in change:
                change[name] = tuple(parse_key_reference(text) for text in change[name])
        if "scoped_keys" in change:
            scoped = change["scoped_keys"]
            change["scoped_keys"] = tuple((parse_key_reference(k), v) for k, v in scoped.items())
        return Accepts(**(given | change))

    def verifier(self, *, cache_size: int = 4096, explain: Any = None, **change: Any) -> Verifier:
        return Verifier(
            self.accepts(**change), lambda: self.kms, cache_size=cache_size, explain=explain
        )

    def seal(self, caller: Caller, key: str = "", to: str = TO, **how: Any) -> ServiceToken:
        """A token of ours."""
        key = key or (self.users if caller.type is CallerType.USER else self.services).arn
        now = how.pop("now", None) or time.time()
        return Issuer(self.kms, key, caller, to, **how).issue(now)

    def calls(self, *actions: str) -> list[str]:
        """The KMS calls since the last look."""
        found = [call.action for call in self.aws.calls if call.service == "kms"]
        self.aws.clear_calls()
        return [each for each in found if not actions or each in actions]


@pytest.fixture
def stage(local_aws: LocalAws, monkeypatch: pytest.MonkeyPatch) -> Stage:
    keys = local_aws.user("everyone", policies=[allow("kms:*")]).keys()
    for name, value in (local_aws.env | keys.env).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("botocore.endpoint.time", type("Now", (), {"sleep": lambda seconds: None}))
    kms = make_clients()[0]
    return Stage(local_aws, kms, keys, local_aws.key("services"), local_aws.key("users"))
