"""STS: who am I, and sessions of every kind.

Source: AWS STS API Reference, one page per operation; IAM User Guide, "Compare AWS STS
credentials".
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Final

from iam_auth_proxy.local_aws.errors import AuthError, Denial, PolicyError, ServiceError
from iam_auth_proxy.local_aws.invocation import Handler, Invocation
from iam_auth_proxy.local_aws.mfa import check_code
from iam_auth_proxy.local_aws.parameters import Parameters
from iam_auth_proxy.local_aws.policy import NOTHING, Policy, read_policy
from iam_auth_proxy.local_aws.state import Caller, Credential, Role
from iam_auth_proxy.local_aws.wire import Json

_SHORTEST: Final = 900
_LONGEST: Final = 129_600
_ROOT_LONGEST: Final = 3600
_CHAINED_LONGEST: Final = 3600
_POLICY_LENGTH: Final = 2048
_TOKEN_LENGTH: Final = 4096


def get_caller_identity(call: Invocation, parameters: Parameters) -> Mapping[str, Json]:
    """Needs no permission; even an explicit Deny changes nothing."""
    parameters.done()
    principal = call.caller.principal
    return {"Arn": principal.arn, "UserId": principal.user_id, "Account": principal.account}


def get_session_token(call: Invocation, parameters: Parameters) -> Mapping[str, Json]:
    """Needs no permission, and cannot be forbidden; long-term keys only."""
    seconds = _duration(call, parameters)
    with_mfa = check_code(call, parameters)
    size = _token_size(call, parameters)
    parameters.done()
    session = call.state.add_session(
        call.caller.principal,
        call.caller.owner,
        now=call.now,
        seconds=seconds,
        token_size=size,
        mfa=with_mfa,
    )
    return _credentials(session)


def get_federation_token(call: Invocation, parameters: Parameters) -> Mapping[str, Json]:
    """A session whose name is whatever its caller said; without a policy it may do nothing."""
    name = parameters.text("Name", 2, 32, r"[\w+=,.@-]*")
    seconds = _duration(call, parameters)
    policy = _session_policy(parameters)
    size = _token_size(call, parameters)
    parameters.done()
    principal = call.state.federated_principal(call.caller.principal.account, name)
    call.authorize("sts:GetFederationToken", principal.arn, principal.account)
    session = call.state.add_session(
        principal,
        call.caller.owner,
        now=call.now,
        seconds=seconds,
        token_size=size,
        mfa=False,
        limits=(policy or NOTHING,),
    )
    user = {"Arn": principal.arn, "FederatedUserId": principal.user_id}
    return {**_credentials(session), "FederatedUser": user, **_packed(policy)}


def assume_role(call: Invocation, parameters: Parameters) -> Mapping[str, Json]:
    """The role's trust policy decides, with the caller's own; chained for an hour at most."""
    arn = parameters.text("RoleArn", 20, 2048)
    name = parameters.text("RoleSessionName", 2, 64, r"[\w+=,.@-]*")
    seconds = parameters.integer("DurationSeconds", _SHORTEST, 43_200, 3600)
    external_id = parameters.optional_text("ExternalId", 2, 1224, r"[\w+=,.@:/-]*")
    with_mfa = check_code(call, parameters)
    policy = _session_policy(parameters)
    size = _token_size(call, parameters)
    parameters.done()
    if call.caller.principal.kind is Caller.ROOT:
        raise AuthError(Denial.NOT_AUTHORIZED, "Roles may not be assumed by root accounts.")
    keys = {"sts:rolesessionname": (name,)}
    if external_id is not None:
        keys["sts:externalid"] = (external_id,)
    if with_mfa:
        keys["aws:multifactorauthpresent"] = ("true",)
        keys["aws:multifactorauthage"] = ("0",)
    role = _role(call, arn)
    call.authorize("sts:AssumeRole", arn, role.account, keys, role.trust)
    if call.caller.principal.kind is Caller.ROLE and seconds > _CHAINED_LONGEST:
        raise ServiceError(
            "ValidationError",
            400,
            "The requested DurationSeconds exceeds the 1 hour session limit for roles assumed "
            "by role chaining",
        )
    if seconds > role.max_session:
        raise ServiceError(
            "ValidationError",
            400,
            "The requested DurationSeconds exceeds the MaxSessionDuration set for this role.",
        )
    session = call.state.add_session(
        call.state.role_principal(role, name),
        role,
        now=call.now,
        seconds=seconds,
        token_size=size,
        mfa=with_mfa,
        limits=(policy,) if policy else (),
    )
    user = {"Arn": session.principal.arn, "AssumedRoleId": session.principal.user_id}
    return {**_credentials(session), "AssumedRoleUser": user, **_packed(policy)}


OPERATIONS: Final[Mapping[str, Handler]] = {
    "AssumeRole": assume_role,
    "GetCallerIdentity": get_caller_identity,
    "GetFederationToken": get_federation_token,
    "GetSessionToken": get_session_token,
}


def check_caller(caller: Credential, action: str) -> None:
    """Which operations a session may call at all, whatever its policies say.

    :raises AuthError: NOT_AUTHORIZED.
    """
    if action == "GetCallerIdentity" or not caller.temporary:
        return
    if action in {"GetSessionToken", "GetFederationToken"}:
        raise AuthError(Denial.NOT_AUTHORIZED, f"Cannot call {action} with session credentials")
    from_session_token = caller.principal.kind in {Caller.USER, Caller.ROOT}
    if caller.principal.kind is Caller.FEDERATED or (from_session_token and action != "AssumeRole"):
        raise AuthError(Denial.NOT_AUTHORIZED, f"Cannot call {action} with these credentials")


# -- parts -----------------------------------------------------------------------------------------


def _role(call: Invocation, arn: str) -> Role:
    account = call.state.accounts.get(arn.split(":")[4] if arn.count(":") >= 5 else "")
    name = arn.rpartition("/")[2].lower()
    role = account.roles.get(name) if account else None
    if role is None or role.arn != arn:
        # The same answer as for a role that does not trust the caller: no oracle for names.
        raise AuthError(
            Denial.NOT_AUTHORIZED,
            f"User: {call.caller.principal.arn} is not authorized to perform: sts:AssumeRole "
            f"on resource: {arn}",
        )
    return role


def _duration(call: Invocation, parameters: Parameters) -> int:
    seconds = parameters.integer("DurationSeconds", _SHORTEST, _LONGEST, 43_200)
    if call.caller.principal.kind is Caller.ROOT:
        return min(seconds, _ROOT_LONGEST)
    return seconds


def _token_size(call: Invocation, parameters: Parameters) -> int:
    least = parameters.integer("MinimumSessionTokenSize", 0, _TOKEN_LENGTH, 0)
    return max(least, call.state.token_size)


def _session_policy(parameters: Parameters) -> Policy | None:
    text = parameters.optional_text("Policy", 1, _POLICY_LENGTH)
    if text is None:
        return None
    try:
        return read_policy(text)
    except PolicyError as error:
        raise ServiceError("MalformedPolicyDocument", 400, str(error)) from error


def _packed(policy: Policy | None) -> dict[str, Json]:
    # A percentage of an undocumented limit at AWS; of the 2048 characters here.
    return {"PackedPolicySize": len(policy.text) * 100 // _POLICY_LENGTH} if policy else {}


def _credentials(session: Credential) -> dict[str, Json]:
    assert session.expires is not None
    return {
        "Credentials": {
            "AccessKeyId": session.access_key_id,
            "SecretAccessKey": session.secret,
            "SessionToken": session.token,
            "Expiration": datetime.fromtimestamp(session.expires, UTC),
        },
        "SessionTokenSize": len(session.token),
    }
