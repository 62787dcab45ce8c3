"""Whether a caller may do something: identity, session and resource policies together.

Source: IAM User Guide, "Policy evaluation logic"; KMS Developer Guide, "Key policies" (without a
word of the key policy, an identity policy opens nothing).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import Enum

from iam_auth_proxy.local_aws.conditions import Context
from iam_auth_proxy.local_aws.errors import AuthError, Denial
from iam_auth_proxy.local_aws.policy import NOTHING, Policy, Verdict, evaluate
from iam_auth_proxy.local_aws.state import (
    Caller,
    Credential,
    Principal,
    ResourcePolicy,
    Role,
    User,
)


@dataclass(frozen=True, slots=True)
class Ask:
    """One question: an action on a resource of ``account``, in a context."""

    action: str
    resource: str
    account: str
    context: Context


def request_context(
    credential: Credential, *, now: float, region: str, source_ip: str
) -> dict[str, tuple[str, ...]]:
    """The condition keys that every request has. Absent ones are left out, as AWS does."""
    principal = credential.principal
    context: dict[str, tuple[str, ...]] = {
        "aws:currenttime": (datetime.fromtimestamp(now, UTC).isoformat(),),
        "aws:epochtime": (str(int(now)),),
        "aws:principalaccount": (principal.account,),
        "aws:principalarn": (principal.policy_arn,),
        "aws:principaltype": (_PRINCIPAL_TYPES[principal.kind],),
        "aws:requestedregion": (region,),
        "aws:securetransport": ("false",),
        "aws:sourceip": (source_ip,),
        "aws:userid": (principal.user_id,),
    }
    if principal.username is not None:
        context["aws:username"] = (principal.username,)
    if credential.mfa is not None:
        context["aws:multifactorauthpresent"] = ("true" if credential.mfa else "false",)
    if credential.issued is not None:
        issued = datetime.fromtimestamp(credential.issued, UTC)
        context["aws:tokenissuetime"] = (issued.isoformat(),)
        if credential.mfa:
            context["aws:multifactorauthage"] = (str(int(now - credential.issued)),)
    return context


_PRINCIPAL_TYPES = {
    Caller.ROOT: "Account",
    Caller.USER: "User",
    Caller.ROLE: "AssumedRole",
    Caller.FEDERATED: "FederatedUser",
}


def authorize(
    credential: Credential, ask: Ask, resource_policy: ResourcePolicy | None = None
) -> None:
    """Return if allowed.

    In one account, a resource without a policy needs the identity's word; one with a policy needs
    either a grant to the caller itself, or one to the account together with the identity's word.
    Across accounts both must speak. Session policies limit whatever the identity allows, and
    grants to the user or role; a grant that names the session's own ARN stands by itself.

    :raises AuthError: NOT_AUTHORIZED, with AWS's text.
    """
    identity = _identity_verdict(credential, ask)
    limits = [evaluate([p], ask.action, ask.resource, ask.context) for p in credential.limits]
    granted = _resource_verdict(credential, ask, resource_policy)
    if identity is Verdict.DENY:
        raise _refusal(credential, ask, "with an explicit deny in an identity-based policy")
    if Verdict.DENY in limits:
        raise _refusal(credential, ask, "with an explicit deny in a session policy")
    if granted.denied:
        raise _refusal(credential, ask, "with an explicit deny in a resource-based policy")
    same_account = credential.principal.account == ask.account
    by_identity = identity is Verdict.ALLOW
    if _Reach.SESSION in granted.reaches and (same_account or by_identity):
        return
    within_limits = all(limit is Verdict.ALLOW for limit in limits)
    to_principal = _Reach.PRINCIPAL in granted.reaches
    to_account = _Reach.ACCOUNT in granted.reaches
    if not same_account:
        allowed = by_identity and (to_principal or to_account)
    elif resource_policy is None:
        allowed = by_identity
    else:
        allowed = to_principal or (to_account and by_identity)
    if allowed and within_limits:
        return
    if allowed:
        why = "because no session policy allows the action"
    elif by_identity:
        why = "because no resource-based policy allows the action"
    else:
        why = "because no identity-based policy allows the action"
    raise _refusal(credential, ask, why)


def _refusal(credential: Credential, ask: Ask, why: str) -> AuthError:
    why = why.replace("the action", f"the {ask.action} action")
    return AuthError(
        Denial.NOT_AUTHORIZED,
        f"User: {credential.principal.arn} is not authorized to perform: {ask.action} "
        f"on resource: {ask.resource} {why}",
    )


def _identity_verdict(credential: Credential, ask: Ask) -> Verdict:
    owner = credential.owner
    if owner is None:
        return Verdict.ALLOW  # root
    return evaluate(_policies(owner), ask.action, ask.resource, ask.context)


def _policies(owner: User | Role) -> list[Policy]:
    return list(owner.policies.values()) or [NOTHING]


class _Reach(Enum):
    """Whom a statement's principal means, seen from the caller."""

    ACCOUNT = "the caller's account, which then decides by its own policies"
    PRINCIPAL = "the user or role"
    SESSION = "this very session"


@dataclass(frozen=True, slots=True)
class _Granted:
    denied: bool
    reaches: frozenset[_Reach]


def _resource_verdict(
    credential: Credential, ask: Ask, resource_policy: ResourcePolicy | None
) -> _Granted:
    denied, reaches = False, set()
    if resource_policy is not None:
        for statement in resource_policy.policy.statements:
            if not statement.applies(ask.action, ask.resource, ask.context):
                continue
            reached = {
                reach
                for name in statement.principals
                if (reach := _reach(credential.principal, name, resource_policy.ids))
            }
            if statement.allows:
                reaches |= reached
            elif reached:
                denied = True
    return _Granted(denied, frozenset(reaches))


def _reach(principal: Principal, name: str, ids: Mapping[str, str]) -> _Reach | None:
    if name == "*":
        # Assumed: AWS documents "*" for anonymous callers; within the account it then needs no
        # identity policy either.
        return _Reach.PRINCIPAL
    if name == principal.account or name.endswith(f":iam::{principal.account}:root"):
        return _Reach.ACCOUNT
    if name == principal.arn and principal.kind in {Caller.ROLE, Caller.FEDERATED}:
        return _Reach.SESSION
    if name == principal.policy_arn and ids[name] == principal.unique_id:
        return _Reach.PRINCIPAL
    return None
