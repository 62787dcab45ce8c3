"""A person's profiles, and to which accounts they belong, as far as the files here say."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from iam_auth_proxy.names import is_account_id

# What of a profile says its account, the most telling first: a profile with a role is of the
# role's account, wherever its source or its MFA device belong.
_SAYS: Final = ("role_arn", "sso_account_id", "aws_account_id", "login_session", "mfa_serial")


def profiles_for(account: str) -> tuple[str, ...]:
    """The profiles whose settings name this account, in the files' order; empty where none does.

    Reads AWS's configuration files and asks AWS nothing: a profile that holds keys alone says no
    account. Files that cannot be read name nothing, since whoever signs in is told of that already.

    :param account: twelve digits; anything else is nobody's.
    """
    if not is_account_id(account):
        return ()
    return tuple(name for name, settings in profiles().items() if _account(settings) == account)


def profiles() -> Mapping[str, Mapping[str, object]]:
    """Each profile of AWS's configuration files with its settings; none where those are unreadable.

    Asks AWS nothing.
    """
    # Imported here: a proxy that has just started does not need botocore yet.
    import botocore.session
    from botocore.exceptions import BotoCoreError

    try:
        config = botocore.session.Session().full_config
    except BotoCoreError:
        return {}
    found: Mapping[str, Mapping[str, object]] = config.get("profiles", {})
    return found


def _account(settings: Mapping[str, object]) -> str:
    for name in _SAYS:
        value = settings.get(name)
        if isinstance(value, str) and value:
            return value.split(":")[4] if value.count(":") >= 5 else value
    return ""
