"""How identity, session and resource policies combine: a table of who is let in."""

from __future__ import annotations

from typing import Any

import pytest

from iam_auth_proxy.local_aws import allow, deny
from iam_auth_proxy.local_aws.authorize import Ask, authorize, request_context
from iam_auth_proxy.local_aws.errors import AuthError
from iam_auth_proxy.local_aws.policy import Document, Kind, read_policy
from iam_auth_proxy.local_aws.state import Credential, ResourcePolicy, State

HERE, THERE = "111122223333", "444455556666"
ACTION, RESOURCE = "kms:Encrypt", f"arn:aws:kms:eu-west-1:{HERE}:key/k"
YES, NO = allow(ACTION), deny(ACTION)


def grant(*principals: str, refused: str = "") -> Document:
    """A key policy that allows all of KMS to ``principals``, and denies it to ``refused``."""
    statement = {"Effect": "Allow", "Action": "kms:*", "Resource": "*"}
    statements = [{**statement, "Principal": {"AWS": list(principals)}}]
    if refused:
        statements.append({**statement, "Effect": "Deny", "Principal": {"AWS": refused}})
    return {"Version": "2012-10-17", "Statement": statements}


ROOT = f"arn:aws:iam::{HERE}:root"
ALICE = f"arn:aws:iam::{HERE}:user/alice"
FOREIGN = f"arn:aws:iam::{THERE}:user/alice"


def caller(
    state: State, account: str, identity: list[Document], session: list[Document]
) -> Credential:
    user = state.accounts[account].users["alice"]
    user.policies.update((str(i), read_policy(p)) for i, p in enumerate(identity))
    return state.add_session(
        user.principal,
        user,
        now=0.0,
        seconds=900,
        token_size=16,
        mfa=False,
        limits=tuple(read_policy(p) for p in session),
    )


@pytest.mark.parametrize(
    ("account", "identity", "session", "resource", "allowed"),
    [
        (HERE, [YES], [], None, True),
        (HERE, [], [], None, False),
        (HERE, [YES, NO], [], None, False),
        (HERE, [YES], [YES], None, True),
        (HERE, [YES], [allow("s3:*")], None, False),
        (HERE, [YES], [YES, allow("s3:*")], None, False),
        (HERE, [YES], [YES, NO], None, False),
        (HERE, [], [YES], None, False),
        (HERE, [], [], grant(ALICE), True),
        (HERE, [], [], grant("*"), True),
        (HERE, [], [], grant(ROOT), False),
        (HERE, [YES], [], grant(ROOT), True),
        (HERE, [YES], [], grant(HERE), True),
        (HERE, [YES], [], grant(THERE), False),
        (HERE, [NO], [], grant(ALICE), False),
        (HERE, [YES], [], grant(ROOT, refused=ALICE), False),
        (HERE, [], [allow("s3:*")], grant(ALICE), False),
        (HERE, [], [NO], grant(ALICE), False),
        (THERE, [YES], [], None, False),
        (THERE, [YES], [], grant(ROOT), False),
        (THERE, [YES], [], grant(FOREIGN), True),
        (THERE, [YES], [], grant(THERE), True),
        (THERE, [], [], grant(FOREIGN), False),
        (THERE, [], [], grant("*"), False),
        (THERE, [YES], [], grant("*"), True),
        (THERE, [YES], [allow("s3:*")], grant(FOREIGN), False),
    ],
)
def test_who_is_let_in(
    account: str,
    identity: list[Document],
    session: list[Document],
    resource: Document | None,
    allowed: bool,
) -> None:
    state = State((HERE, THERE), "eu-west-1")
    for number in (HERE, THERE):
        state.add_user(number, "alice", "/", 0.0)
    credential = caller(state, account, identity, session)
    context = request_context(credential, now=0.0, region="eu-west-1", source_ip="127.0.0.1")
    ask = Ask(ACTION, RESOURCE, HERE, context)
    policy: ResourcePolicy | None = None
    if resource is not None:
        policy = state.bind(read_policy(resource, Kind.RESOURCE))
    if allowed:
        authorize(credential, ask, policy)
        return
    with pytest.raises(AuthError) as caught:
        authorize(credential, ask, policy)
    assert "is not authorized to perform: kms:Encrypt on resource: " in caught.value.message


def test_the_context_of_a_request() -> None:
    state = State((HERE,), "eu-west-1")
    user = state.add_user(HERE, "alice", "/", 0.0)
    key = state.add_access_key(HERE, user, 0.0).credential
    facts: dict[str, Any] = {"now": 60.0, "region": "eu-west-1", "source_ip": "127.0.0.1"}
    plain = request_context(key, **facts)
    assert plain["aws:username"] == ("alice",)
    assert "aws:multifactorauthpresent" not in plain
    session = state.add_session(user.principal, user, now=0.0, seconds=900, token_size=16, mfa=True)
    strong = request_context(session, **facts)
    assert strong["aws:multifactorauthpresent"] == ("true",)
    assert strong["aws:multifactorauthage"] == ("60",)
    root = request_context(
        state.add_access_key(HERE, None, 0.0).credential,
        **facts,
    )
    assert "aws:username" not in root
    assert root["aws:principaltype"] == ("Account",)
