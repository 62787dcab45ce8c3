"""KMS: symmetric keys, aliases, key policies, and encryption bound to a context.

Every public function but :func:`default_policy` is the operation of its name.

Source: AWS KMS API Reference, one page per operation; KMS Developer Guide, "Key states of AWS KMS
keys", "Multi-Region keys", "Encryption context".
"""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Final

from iam_auth_proxy.local_aws import ciphertext
from iam_auth_proxy.local_aws.errors import AuthError, Denial, PolicyError, ServiceError
from iam_auth_proxy.local_aws.invocation import Handler, Invocation
from iam_auth_proxy.local_aws.parameters import Parameters
from iam_auth_proxy.local_aws.policy import Document, Kind, Policy, read_policy
from iam_auth_proxy.local_aws.state import Key
from iam_auth_proxy.local_aws.wire import Json

PLAINTEXT_LIMIT: Final = 4096
_CIPHERTEXT_LIMIT: Final = 6144
_KEY_ID_LIMIT: Final = 2048
_POLICY_LIMIT: Final = 32_768
_ALIAS_NAME: Final = r"alias/[A-Za-z0-9/_-]+"
_ALGORITHM: Final = "SYMMETRIC_DEFAULT"


def default_policy(partition: str, account: str) -> Document:
    """What KMS gives a key without a policy: the account decides by its own IAM policies."""
    return {
        "Version": "2012-10-17",
        "Id": "key-default-1",
        "Statement": [
            {
                "Sid": "Enable IAM User Permissions",
                "Effect": "Allow",
                "Principal": {"AWS": f"arn:{partition}:iam::{account}:root"},
                "Action": "kms:*",
                "Resource": "*",
            }
        ],
    }


# -- using keys ------------------------------------------------------------------------------------


def encrypt(call: Invocation, parameters: Parameters) -> Mapping[str, Json]:
    """Up to 4096 bytes, bound to the encryption context."""
    spelled = _spelled(parameters)
    plaintext = parameters.blob("Plaintext", PLAINTEXT_LIMIT)
    context = parameters.string_map("EncryptionContext")
    _refuse_extras(parameters)
    key = _usable(call, spelled, "kms:Encrypt", context)
    blob = ciphertext.seal(key, plaintext, context)
    return {"CiphertextBlob": _b64(blob), "KeyId": key.arn, "EncryptionAlgorithm": _ALGORITHM}


def decrypt(call: Invocation, parameters: Parameters) -> Mapping[str, Json]:
    """With KeyId the blob must be that key's; without, any key that may be used will do."""
    blob = parameters.blob("CiphertextBlob", _CIPHERTEXT_LIMIT)
    spelled = parameters.optional_text("KeyId", 1, _KEY_ID_LIMIT)
    context = parameters.string_map("EncryptionContext")
    _refuse_extras(parameters)
    try:
        sealed = ciphertext.read(blob)
        if spelled is None:
            key = _key_of(call, sealed)
            _authorize(call, key, "kms:Decrypt", context, spelled="")
            _check_state(key)
        else:
            key = _usable(call, spelled, "kms:Decrypt", context)
            if not sealed.made_by(key):
                raise ServiceError(
                    "IncorrectKeyException",
                    400,
                    "The key ID in the request does not identify a CMK that can perform this "
                    "operation.",
                )
        plaintext = ciphertext.unseal(key, sealed, context)
    except ciphertext.Unreadable as error:
        # KMS says no more than the code, whatever was wrong.
        raise ServiceError("InvalidCiphertextException", 400) from error
    return {"Plaintext": _b64(plaintext), "KeyId": key.arn, "EncryptionAlgorithm": _ALGORITHM}


def generate_data_key(call: Invocation, parameters: Parameters) -> Mapping[str, Json]:
    """A fresh key, in plain and encrypted: for more than Encrypt takes."""
    spelled = _spelled(parameters)
    context = parameters.string_map("EncryptionContext")
    spec = parameters.only("KeySpec", "AES_256", "AES_128")
    size = {"AES_256": 32, "AES_128": 16}.get(spec or "", 0)
    size = size or parameters.integer("NumberOfBytes", 1, 1024, 0)
    _refuse_extras(parameters)
    key = _usable(call, spelled, "kms:GenerateDataKey", context)
    plaintext = os.urandom(size)
    blob = ciphertext.seal(key, plaintext, context)
    return {"CiphertextBlob": _b64(blob), "Plaintext": _b64(plaintext), "KeyId": key.arn}


# -- keys ------------------------------------------------------------------------------------------


def create_key(call: Invocation, parameters: Parameters) -> Mapping[str, Json]:
    account = call.caller.principal.account
    text = parameters.optional_text("Policy", 1, _POLICY_LIMIT)
    description = parameters.optional_text("Description", 0, 8192) or ""
    multi_region = parameters.boolean("MultiRegion")
    parameters.boolean("BypassPolicyLockoutSafetyCheck")
    parameters.only("KeyUsage", "ENCRYPT_DECRYPT")
    parameters.only("KeySpec", _ALGORITHM)
    parameters.only("CustomerMasterKeySpec", _ALGORITHM)
    parameters.only("Origin", "AWS_KMS")
    parameters.done()
    call.authorize("kms:CreateKey", "*", account)
    policy = _policy(text or json.dumps(default_policy(call.state.partition, account)))
    try:
        key = call.state.add_key(account, call.region, policy, call.now, multi_region=multi_region)
    except PolicyError as error:
        raise ServiceError("MalformedPolicyDocumentException", 400, str(error)) from error
    key.description = description
    return {"KeyMetadata": _metadata(key)}


def describe_key(call: Invocation, parameters: Parameters) -> Mapping[str, Json]:
    key = _permitted(call, parameters, "kms:DescribeKey")
    return {"KeyMetadata": _metadata(key)}


def enable_key(call: Invocation, parameters: Parameters) -> None:
    key = _permitted(call, parameters, "kms:EnableKey")
    _refuse_pending(key)
    key.state = "Enabled"


def disable_key(call: Invocation, parameters: Parameters) -> None:
    key = _permitted(call, parameters, "kms:DisableKey")
    _refuse_pending(key)
    key.state = "Disabled"


def schedule_key_deletion(call: Invocation, parameters: Parameters) -> Mapping[str, Json]:
    days = parameters.integer("PendingWindowInDays", 7, 30, 30)
    key = _permitted(call, parameters, "kms:ScheduleKeyDeletion")
    _refuse_pending(key)
    key.state = "PendingDeletion"
    key.deletion = call.now + days * 86_400
    return {
        "KeyId": key.arn,
        "DeletionDate": key.deletion,
        "KeyState": key.state,
        "PendingWindowInDays": days,
    }


def cancel_key_deletion(call: Invocation, parameters: Parameters) -> Mapping[str, Json]:
    key = _permitted(call, parameters, "kms:CancelKeyDeletion")
    if key.state != "PendingDeletion":
        raise _invalid_state(key, "is not pending deletion")
    key.state, key.deletion = "Disabled", None
    return {"KeyId": key.arn}


def get_key_policy(call: Invocation, parameters: Parameters) -> Mapping[str, Json]:
    name = parameters.only("PolicyName", "default") or "default"
    key = _permitted(call, parameters, "kms:GetKeyPolicy")
    return {"Policy": key.policy.policy.text, "PolicyName": name}


def put_key_policy(call: Invocation, parameters: Parameters) -> None:
    text = parameters.text("Policy", 1, _POLICY_LIMIT)
    parameters.only("PolicyName", "default")
    parameters.boolean("BypassPolicyLockoutSafetyCheck")
    key = _permitted(call, parameters, "kms:PutKeyPolicy")
    try:
        key.policy = call.state.bind(_policy(text))
    except PolicyError as error:
        raise ServiceError("MalformedPolicyDocumentException", 400, str(error)) from error


# -- aliases ---------------------------------------------------------------------------------------


def create_alias(call: Invocation, parameters: Parameters) -> None:
    alias, key = _alias_and_target(call, parameters, "kms:CreateAlias")
    if alias in call.state.aliases:
        raise ServiceError(
            "AlreadyExistsException", 400, f"An alias with the name {alias} already exists"
        )
    call.state.aliases[alias] = key.arn


def update_alias(call: Invocation, parameters: Parameters) -> None:
    alias, key = _alias_and_target(call, parameters, "kms:UpdateAlias")
    if alias not in call.state.aliases:
        raise ServiceError("NotFoundException", 400, f"Alias {alias} is not found.")
    call.state.aliases[alias] = key.arn


def delete_alias(call: Invocation, parameters: Parameters) -> None:
    alias = _alias_arn(call, parameters.text("AliasName", 1, 256, _ALIAS_NAME))
    parameters.done()
    account = call.caller.principal.account
    if alias not in call.state.aliases:
        raise ServiceError("NotFoundException", 400, f"Alias {alias} is not found.")
    call.authorize("kms:DeleteAlias", alias, account)
    _authorize(call, call.state.kms_keys[call.state.aliases[alias]], "kms:DeleteAlias", {})
    del call.state.aliases[alias]


def list_aliases(call: Invocation, parameters: Parameters) -> Mapping[str, Json]:
    spelled = parameters.optional_text("KeyId", 1, _KEY_ID_LIMIT)
    parameters.integer("Limit", 1, 1000, 50)
    parameters.done()
    account = call.caller.principal.account
    call.authorize("kms:ListAliases", "*", account)
    wanted = _find(call, spelled, "kms:ListAliases").arn if spelled else None
    prefix = f"arn:{call.state.partition}:kms:{call.region}:{account}:"
    listed: list[Json] = [
        {
            "AliasName": alias.removeprefix(prefix),
            "AliasArn": alias,
            "TargetKeyId": arn.rpartition("/")[2],
        }
        for alias, arn in sorted(call.state.aliases.items())
        if alias.startswith(prefix) and wanted in {None, arn}
    ]
    return {"Aliases": listed, "Truncated": False}


OPERATIONS: Final[Mapping[str, Handler]] = {
    "CancelKeyDeletion": cancel_key_deletion,
    "CreateAlias": create_alias,
    "CreateKey": create_key,
    "Decrypt": decrypt,
    "DeleteAlias": delete_alias,
    "DescribeKey": describe_key,
    "DisableKey": disable_key,
    "EnableKey": enable_key,
    "Encrypt": encrypt,
    "GenerateDataKey": generate_data_key,
    "GetKeyPolicy": get_key_policy,
    "ListAliases": list_aliases,
    "PutKeyPolicy": put_key_policy,
    "ScheduleKeyDeletion": schedule_key_deletion,
    "UpdateAlias": update_alias,
}


# -- finding a key, and asking for it -------------------------------------------------------------


def _spelled(parameters: Parameters) -> str:
    return parameters.text("KeyId", 1, _KEY_ID_LIMIT)


def _refuse_extras(parameters: Parameters) -> None:
    parameters.only("EncryptionAlgorithm", _ALGORITHM)
    parameters.done()


def _permitted(call: Invocation, parameters: Parameters, action: str) -> Key:
    """The key that KeyId spells, all parameters taken, the action allowed."""
    spelled = _spelled(parameters)
    parameters.done()
    key = _find(call, spelled, action)
    _authorize(call, key, action, {}, spelled=spelled)
    return key


def _usable(call: Invocation, spelled: str, action: str, context: Mapping[str, str]) -> Key:
    """The key that is spelled so, allowed for ``action`` with this context, and enabled."""
    key = _find(call, spelled, action)
    _authorize(call, key, action, context, spelled=spelled)
    _check_state(key)
    return key


def _find(call: Invocation, spelled: str, action: str) -> Key:
    """By key ARN, alias ARN, key id or alias; the last two in the caller's account and region."""
    arn = spelled
    if not spelled.startswith("arn:"):
        home = f"arn:{call.state.partition}:kms:{call.region}:{call.caller.principal.account}:"
        arn = home + (spelled if spelled.startswith("alias/") else f"key/{spelled}")
    parts = arn.split(":", 5)
    if len(parts) != 6 or parts[:3] != ["arn", call.state.partition, "kms"]:
        raise ServiceError("NotFoundException", 400, f"Invalid arn {spelled}")
    if parts[3] != call.region:
        raise ServiceError("NotFoundException", 400, f"Invalid arn {parts[3]}")
    is_alias = parts[5].startswith("alias/")
    key = call.state.kms_keys.get(call.state.aliases.get(arn, "") if is_alias else arn)
    if key is not None:
        return key
    if parts[4] != call.caller.principal.account:
        # Another account's key that is not there looks like one that is not shared.
        raise AuthError(
            Denial.NOT_AUTHORIZED,
            f"User: {call.caller.principal.arn} is not authorized to perform: {action} on "
            f"resource: {arn} because the resource does not exist in this Region, no "
            f"resource-based policies allow access, or a resource-based policy explicitly "
            f"denies access",
        )
    if is_alias:
        raise ServiceError("NotFoundException", 400, f"Alias {arn} is not found.")
    raise ServiceError("NotFoundException", 400, f"Key '{arn}' does not exist")


def _key_of(call: Invocation, sealed: ciphertext.Sealed) -> Key:
    for key in call.state.kms_keys.values():
        if key.region == call.region and sealed.made_by(key):
            return key
    raise AuthError(
        Denial.NOT_AUTHORIZED,
        "The ciphertext refers to a customer master key that does not exist, does not exist in "
        "this region, or you are not allowed to access.",
    )


def _authorize(
    call: Invocation, key: Key, action: str, context: Mapping[str, str], spelled: str = ""
) -> None:
    if len({name.lower() for name in context}) != len(context):
        # kms:EncryptionContext:KEY ignores the case of KEY, so a policy could not tell them apart.
        raise ServiceError("ValidationException", 400, "context keys differ only in case")
    keys: dict[str, tuple[str, ...]] = {"kms:calleraccount": (call.caller.principal.account,)}
    if context:
        keys["kms:encryptioncontextkeys"] = tuple(context)
        keys["kms:encryptionalgorithm"] = (_ALGORITHM,)
    for name, value in context.items():
        keys[f"kms:encryptioncontext:{name.lower()}"] = (value,)
    alias = spelled.partition(":alias/")[2] if spelled.startswith("arn:") else ""
    if alias or spelled.startswith("alias/"):
        keys["kms:requestalias"] = (f"alias/{alias}" if alias else spelled,)
    call.authorize(action, key.arn, key.account, keys, key.policy)


def _check_state(key: Key) -> None:
    if key.state == "Disabled":
        raise ServiceError("DisabledException", 400, f"{key.arn} is disabled.")
    if key.state == "PendingDeletion":
        raise _invalid_state(key, "is pending deletion")
    if key.state != "Enabled":
        raise _invalid_state(key, f"is in state {key.state}")


def _refuse_pending(key: Key) -> None:
    if key.state == "PendingDeletion":
        raise _invalid_state(key, "is pending deletion")


def _invalid_state(key: Key, what: str) -> ServiceError:
    return ServiceError("KMSInvalidStateException", 400, f"{key.arn} {what}.")


# -- small parts -----------------------------------------------------------------------------------


def _policy(text: str) -> Policy:
    try:
        return read_policy(text, Kind.RESOURCE)
    except PolicyError as error:
        raise ServiceError("MalformedPolicyDocumentException", 400, str(error)) from error


def _alias_arn(call: Invocation, name: str) -> str:
    account = call.caller.principal.account
    return f"arn:{call.state.partition}:kms:{call.region}:{account}:{name}"


def _alias_and_target(call: Invocation, parameters: Parameters, action: str) -> tuple[str, Key]:
    """An alias and its key in the caller's account; the action is needed on both."""
    alias = _alias_arn(call, parameters.text("AliasName", 1, 256, _ALIAS_NAME))
    spelled = parameters.text("TargetKeyId", 1, _KEY_ID_LIMIT)
    parameters.done()
    key = _find(call, spelled, action)
    call.authorize(action, alias, call.caller.principal.account)
    _authorize(call, key, action, {})
    return alias, key


def _metadata(key: Key) -> Mapping[str, Json]:
    metadata: dict[str, Json] = {
        "AWSAccountId": key.account,
        "KeyId": key.key_id,
        "Arn": key.arn,
        "CreationDate": key.created,
        "Enabled": key.state == "Enabled",
        "Description": key.description,
        "KeyUsage": "ENCRYPT_DECRYPT",
        "KeyState": key.state,
        "Origin": "AWS_KMS",
        "KeyManager": "CUSTOMER",
        "CustomerMasterKeySpec": _ALGORITHM,
        "KeySpec": _ALGORITHM,
        "EncryptionAlgorithms": [_ALGORITHM],
        "MultiRegion": key.multi_region,
    }
    if key.deletion is not None:
        metadata["DeletionDate"] = datetime.fromtimestamp(key.deletion, UTC)
    return metadata


def _b64(data: bytes) -> str:
    return base64.b64encode(data).decode()
