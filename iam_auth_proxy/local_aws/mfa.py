"""Virtual MFA devices: IAM's operations on them, and STS's check of a code.

Source: AWS IAM API Reference; IAM User Guide, "Multi-factor authentication in IAM".
"""

from __future__ import annotations

import base64
import re
import secrets
from collections.abc import Mapping
from typing import Final

from iam_auth_proxy.local_aws import totp
from iam_auth_proxy.local_aws.entities import (
    NAME,
    PATH,
    exists,
    find_user,
    missing,
    timestamp,
)
from iam_auth_proxy.local_aws.errors import AuthError, Denial, ServiceError
from iam_auth_proxy.local_aws.invocation import Handler, Invocation
from iam_auth_proxy.local_aws.parameters import Parameters
from iam_auth_proxy.local_aws.state import Caller, MfaDevice
from iam_auth_proxy.local_aws.wire import Json

SEED_BYTES: Final = 40

_WRONG_SERIAL: Final = (
    "MultiFactorAuthentication failed, unable to validate MFA code. "
    "Please verify your MFA serial number is valid and associated with this user."
)
_WRONG_CODE: Final = "MultiFactorAuthentication failed with invalid MFA one time pass code."


def check_code(call: Invocation, parameters: Parameters) -> bool:
    """Take SerialNumber and TokenCode: ``False`` where neither is given, ``True`` where right.

    A code works once, for the user whose device it is.

    :raises AuthError: NOT_AUTHORIZED, a wrong serial number or code.
    """
    serial = parameters.optional_text("SerialNumber", 9, 256, r"[\w+=/:,.@-]*")
    code = parameters.optional_text("TokenCode", 6, 6)
    if serial is None and code is None:
        return False
    device = None
    if call.caller.principal.kind is Caller.USER:
        account = call.state.accounts[call.caller.principal.account]
        device = account.devices.get(serial or "")
    if device is None or device.enabled_at is None or device.user is not call.caller.owner:
        raise AuthError(Denial.NOT_AUTHORIZED, _WRONG_SERIAL)
    if code is None or not re.fullmatch("[0-9]{6}", code, re.ASCII):
        raise AuthError(Denial.NOT_AUTHORIZED, _WRONG_CODE)
    step = totp.matching_step(device.seed, code, call.now, after=device.last_step)
    if step is None:
        raise AuthError(Denial.NOT_AUTHORIZED, _WRONG_CODE)
    device.last_step = step
    return True


def create_virtual_mfa_device(call: Invocation, parameters: Parameters) -> Mapping[str, Json]:
    name = parameters.text("VirtualMFADeviceName", 1, 226, NAME)
    path = parameters.optional_text("Path", 1, 512, PATH) or "/"
    parameters.done()
    account = call.caller.principal.account
    serial = f"arn:{call.state.partition}:iam::{account}:mfa{path}{name}"
    call.authorize("iam:CreateVirtualMFADevice", serial, account)
    devices = call.state.accounts[account].devices
    if serial in devices:
        raise exists("MFADevice")
    devices[serial] = MfaDevice(serial, secrets.token_bytes(SEED_BYTES))
    # boto3 decodes the blob once more: the seed itself is base32 text.
    seed = base64.b64encode(base64.b32encode(devices[serial].seed)).decode()
    return {"VirtualMFADevice": {"SerialNumber": serial, "Base32StringSeed": seed}}


def enable_mfa_device(call: Invocation, parameters: Parameters) -> None:
    """Two consecutive codes show that the device and AWS agree; both are used up by it."""
    user = find_user(call, parameters, "iam:EnableMFADevice")
    device = _device(call, parameters)
    codes = [parameters.text(f"AuthenticationCode{number}", 6, 6, "[0-9]{6}") for number in (1, 2)]
    parameters.done()
    if device.user is not None:
        raise exists("MFADevice")
    first = totp.matching_step(device.seed, codes[0], call.now, after=-1)
    second = None
    if first is not None:
        later = (first + 1) * totp.STEP
        second = totp.matching_step(device.seed, codes[1], later, after=first)
    if first is None or second != first + 1:
        raise ServiceError(
            "InvalidAuthenticationCode", 403, "The two codes are not consecutive codes of it."
        )
    device.user, device.enabled_at, device.last_step = user, call.now, second


def deactivate_mfa_device(call: Invocation, parameters: Parameters) -> None:
    user = find_user(call, parameters, "iam:DeactivateMFADevice")
    device = _device(call, parameters)
    parameters.done()
    if device.user is not user:
        raise missing("MFA device", device.serial)
    device.user = device.enabled_at = None


def delete_virtual_mfa_device(call: Invocation, parameters: Parameters) -> None:
    device = _device(call, parameters)
    parameters.done()
    account = call.caller.principal.account
    call.authorize("iam:DeleteVirtualMFADevice", device.serial, account)
    if device.user is not None:
        raise ServiceError("DeleteConflict", 409, "MFA device must be deactivated first.")
    del call.state.accounts[account].devices[device.serial]


def list_mfa_devices(call: Invocation, parameters: Parameters) -> Mapping[str, Json]:
    user = find_user(call, parameters, "iam:ListMFADevices", default_to_caller=True)
    parameters.done()
    listed: list[Json] = [
        {
            "UserName": user.name,
            "SerialNumber": device.serial,
            "EnableDate": timestamp(device.enabled_at or 0),
        }
        for device in call.state.accounts[user.principal.account].devices.values()
        if device.user is user
    ]
    return {"MFADevices": listed, "IsTruncated": False}


OPERATIONS: Final[Mapping[str, Handler]] = {
    "CreateVirtualMFADevice": create_virtual_mfa_device,
    "DeactivateMFADevice": deactivate_mfa_device,
    "DeleteVirtualMFADevice": delete_virtual_mfa_device,
    "EnableMFADevice": enable_mfa_device,
    "ListMFADevices": list_mfa_devices,
}


def _device(call: Invocation, parameters: Parameters) -> MfaDevice:
    serial = parameters.text("SerialNumber", 9, 256, r"[\w+=/:,.@-]+")
    device = call.state.accounts[call.caller.principal.account].devices.get(serial)
    if device is None:
        raise missing("MFA device", serial)
    return device
