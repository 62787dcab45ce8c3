"""The part of IAM that sets things up: users, access keys, inline policies, roles.

Every public function is the operation of its name. MFA devices are in :mod:`.mfa`.

Source: AWS IAM API Reference, one page per operation.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final
from urllib.parse import quote

from iam_auth_proxy.local_aws import mfa
from iam_auth_proxy.local_aws.entities import (
    NAME,
    PATH,
    authorize_iam,
    exists,
    find_role,
    find_user,
    missing,
    timestamp,
)
from iam_auth_proxy.local_aws.errors import AuthError, Denial, PolicyError, ServiceError
from iam_auth_proxy.local_aws.invocation import Handler, Invocation
from iam_auth_proxy.local_aws.parameters import Parameters
from iam_auth_proxy.local_aws.policy import Kind, Policy, read_policy
from iam_auth_proxy.local_aws.state import (
    AccessKey,
    Caller,
    Credential,
    Role,
    User,
)
from iam_auth_proxy.local_aws.wire import Json

_POLICY_LIMIT: Final = 131_072
_KEYS_PER_USER: Final = 2


def check_caller(caller: Credential) -> None:
    """IAM knows no federated session, and no session of GetSessionToken without MFA.

    :raises AuthError: UNKNOWN_KEY, as AWS puts it; not NOT_AUTHORIZED.
    """
    kind = caller.principal.kind
    if kind is Caller.FEDERATED:
        raise AuthError(Denial.UNKNOWN_KEY)
    if caller.temporary and kind in {Caller.USER, Caller.ROOT} and not caller.mfa:
        raise AuthError(Denial.UNKNOWN_KEY)


# -- users -----------------------------------------------------------------------------------------


def create_user(call: Invocation, parameters: Parameters) -> Mapping[str, Json]:
    name = parameters.text("UserName", 1, 64, NAME)
    path = parameters.optional_text("Path", 1, 512, PATH) or "/"
    parameters.done()
    account = call.caller.principal.account
    authorize_iam(call, "iam:CreateUser", f"user{path}{name}")
    if name.lower() in call.state.accounts[account].users:
        raise exists(f"User with name {name}")
    return {"User": _user_facts(call.state.add_user(account, name, path, call.now))}


def get_user(call: Invocation, parameters: Parameters) -> Mapping[str, Json]:
    user = find_user(call, parameters, "iam:GetUser", default_to_caller=True)
    parameters.done()
    return {"User": _user_facts(user)}


def list_users(call: Invocation, parameters: Parameters) -> Mapping[str, Json]:
    parameters.done()
    account = call.caller.principal.account
    authorize_iam(call, "iam:ListUsers", "user/")
    users = call.state.accounts[account].users.values()
    return {"Users": [_user_facts(user) for user in users], "IsTruncated": False}


def delete_user(call: Invocation, parameters: Parameters) -> None:
    user = find_user(call, parameters, "iam:DeleteUser")
    parameters.done()
    account = call.state.accounts[user.principal.account]
    holds_device = any(device.user is user for device in account.devices.values())
    if user.keys or user.policies or holds_device:
        raise ServiceError(
            "DeleteConflict", 409, "Cannot delete entity, must delete its parts first."
        )
    user.deleted = True
    del account.users[user.name.lower()]


# -- access keys -----------------------------------------------------------------------------------


def create_access_key(call: Invocation, parameters: Parameters) -> Mapping[str, Json]:
    user = find_user(call, parameters, "iam:CreateAccessKey", default_to_caller=True)
    parameters.done()
    if len(user.keys) >= _KEYS_PER_USER:
        raise ServiceError("LimitExceeded", 409, "Cannot exceed quota for AccessKeysPerUser: 2")
    key = call.state.add_access_key(user.principal.account, user, call.now)
    return {"AccessKey": {**_key_facts(user, key), "SecretAccessKey": key.credential.secret}}


def update_access_key(call: Invocation, parameters: Parameters) -> None:
    user = find_user(call, parameters, "iam:UpdateAccessKey", default_to_caller=True)
    status = parameters.text("Status", 1, 16, "Active|Inactive")
    _access_key(user, parameters).active = status == "Active"


def delete_access_key(call: Invocation, parameters: Parameters) -> None:
    user = find_user(call, parameters, "iam:DeleteAccessKey", default_to_caller=True)
    key = _access_key(user, parameters)
    del user.keys[key.credential.access_key_id]


def list_access_keys(call: Invocation, parameters: Parameters) -> Mapping[str, Json]:
    user = find_user(call, parameters, "iam:ListAccessKeys", default_to_caller=True)
    parameters.done()
    listed: list[Json] = [_key_facts(user, key) for key in user.keys.values()]
    return {"AccessKeyMetadata": listed, "IsTruncated": False}


# -- roles -----------------------------------------------------------------------------------------


def create_role(call: Invocation, parameters: Parameters) -> Mapping[str, Json]:
    name = parameters.text("RoleName", 1, 64, NAME)
    path = parameters.optional_text("Path", 1, 512, PATH) or "/"
    text = parameters.text("AssumeRolePolicyDocument", 1, _POLICY_LIMIT)
    longest = parameters.integer("MaxSessionDuration", 3600, 43_200, 3600)
    parameters.optional_text("Description", 0, 1000)
    parameters.done()
    account = call.caller.principal.account
    authorize_iam(call, "iam:CreateRole", f"role{path}{name}")
    if path.startswith("/aws-reserved/"):
        raise ServiceError("InvalidInput", 400, "The path /aws-reserved/ belongs to AWS.")
    if name.lower() in call.state.accounts[account].roles:
        raise exists(f"Role with name {name}")
    try:
        role = call.state.add_role(
            account, name, path, _policy(text, Kind.TRUST), longest, call.now
        )
    except PolicyError as error:
        raise _malformed(error) from error
    return {"Role": _role_facts(role)}


def get_role(call: Invocation, parameters: Parameters) -> Mapping[str, Json]:
    role = find_role(call, parameters, "iam:GetRole")
    parameters.done()
    return {"Role": _role_facts(role)}


def delete_role(call: Invocation, parameters: Parameters) -> None:
    role = find_role(call, parameters, "iam:DeleteRole")
    parameters.done()
    if role.policies:
        raise ServiceError(
            "DeleteConflict", 409, "Cannot delete entity, must delete policies first."
        )
    role.deleted = True
    del call.state.accounts[role.account].roles[role.name.lower()]


def update_assume_role_policy(call: Invocation, parameters: Parameters) -> None:
    role = find_role(call, parameters, "iam:UpdateAssumeRolePolicy")
    text = parameters.text("PolicyDocument", 1, _POLICY_LIMIT)
    parameters.done()
    try:
        role.trust = call.state.bind(_policy(text, Kind.TRUST))
    except PolicyError as error:
        raise _malformed(error) from error


# -- inline policies -------------------------------------------------------------------------------


def put_user_policy(call: Invocation, parameters: Parameters) -> None:
    _put_policy(find_user(call, parameters, "iam:PutUserPolicy").policies, parameters)


def put_role_policy(call: Invocation, parameters: Parameters) -> None:
    _put_policy(find_role(call, parameters, "iam:PutRolePolicy").policies, parameters)


def get_user_policy(call: Invocation, parameters: Parameters) -> Mapping[str, Json]:
    user = find_user(call, parameters, "iam:GetUserPolicy")
    return {"UserName": user.name, **_get_policy(user.policies, parameters)}


def get_role_policy(call: Invocation, parameters: Parameters) -> Mapping[str, Json]:
    role = find_role(call, parameters, "iam:GetRolePolicy")
    return {"RoleName": role.name, **_get_policy(role.policies, parameters)}


def list_user_policies(call: Invocation, parameters: Parameters) -> Mapping[str, Json]:
    user = find_user(call, parameters, "iam:ListUserPolicies")
    parameters.done()
    return {"PolicyNames": list(user.policies), "IsTruncated": False}


def list_role_policies(call: Invocation, parameters: Parameters) -> Mapping[str, Json]:
    role = find_role(call, parameters, "iam:ListRolePolicies")
    parameters.done()
    return {"PolicyNames": list(role.policies), "IsTruncated": False}


def delete_user_policy(call: Invocation, parameters: Parameters) -> None:
    _delete_policy(find_user(call, parameters, "iam:DeleteUserPolicy").policies, parameters)


def delete_role_policy(call: Invocation, parameters: Parameters) -> None:
    _delete_policy(find_role(call, parameters, "iam:DeleteRolePolicy").policies, parameters)


OPERATIONS: Final[Mapping[str, Handler]] = {
    **mfa.OPERATIONS,
    "CreateAccessKey": create_access_key,
    "CreateRole": create_role,
    "CreateUser": create_user,
    "DeleteAccessKey": delete_access_key,
    "DeleteRole": delete_role,
    "DeleteRolePolicy": delete_role_policy,
    "DeleteUser": delete_user,
    "DeleteUserPolicy": delete_user_policy,
    "GetRole": get_role,
    "GetRolePolicy": get_role_policy,
    "GetUser": get_user,
    "GetUserPolicy": get_user_policy,
    "ListAccessKeys": list_access_keys,
    "ListRolePolicies": list_role_policies,
    "ListUserPolicies": list_user_policies,
    "ListUsers": list_users,
    "PutRolePolicy": put_role_policy,
    "PutUserPolicy": put_user_policy,
    "UpdateAccessKey": update_access_key,
    "UpdateAssumeRolePolicy": update_assume_role_policy,
}


# -- parts -----------------------------------------------------------------------------------------


def _access_key(user: User, parameters: Parameters) -> AccessKey:
    access_key_id = parameters.text("AccessKeyId", 16, 128, r"\w+")
    parameters.done()
    key = user.keys.get(access_key_id)
    if key is None:
        raise missing("Access Key", access_key_id)
    return key


def _put_policy(policies: dict[str, Policy], parameters: Parameters) -> None:
    name = parameters.text("PolicyName", 1, 128, NAME)
    text = parameters.text("PolicyDocument", 1, _POLICY_LIMIT)
    parameters.done()
    policies[name] = _policy(text, Kind.IDENTITY)


def _get_policy(policies: dict[str, Policy], parameters: Parameters) -> dict[str, Json]:
    name = _policy_name(policies, parameters)
    return {"PolicyName": name, "PolicyDocument": quote(policies[name].text)}


def _delete_policy(policies: dict[str, Policy], parameters: Parameters) -> None:
    del policies[_policy_name(policies, parameters)]


def _policy_name(policies: dict[str, Policy], parameters: Parameters) -> str:
    name = parameters.text("PolicyName", 1, 128, NAME)
    parameters.done()
    if name not in policies:
        raise missing("policy", name)
    return name


def _policy(text: str, kind: Kind) -> Policy:
    try:
        return read_policy(text, kind)
    except PolicyError as error:
        raise _malformed(error) from error


def _malformed(error: PolicyError) -> ServiceError:
    return ServiceError("MalformedPolicyDocument", 400, str(error))


def _user_facts(user: User) -> Mapping[str, Json]:
    return {
        "Path": user.path,
        "UserName": user.name,
        "UserId": user.principal.unique_id,
        "Arn": user.principal.arn,
        "CreateDate": timestamp(user.created),
    }


def _role_facts(role: Role) -> Mapping[str, Json]:
    return {
        "Path": role.path,
        "RoleName": role.name,
        "RoleId": role.role_id,
        "Arn": role.arn,
        "CreateDate": timestamp(role.created),
        # IAM gives policy documents percent-encoded (RFC 3986); boto3 decodes them.
        "AssumeRolePolicyDocument": quote(role.trust.policy.text),
        "MaxSessionDuration": role.max_session,
    }


def _key_facts(user: User, key: AccessKey) -> dict[str, Json]:
    return {
        "UserName": user.name,
        "AccessKeyId": key.credential.access_key_id,
        "Status": "Active" if key.active else "Inactive",
        "CreateDate": timestamp(key.created),
    }
