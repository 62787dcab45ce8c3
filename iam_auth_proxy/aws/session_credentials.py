"""The session credentials that an app of the original protocol gets: good for asking STS, no more.

GetSessionToken takes the long-term keys of an IAM user alone, and what it gives may do all that the
user may. Who is a session already (a role, SSO, federation) can give a session of a *login role*
instead, with a session policy that denies everything: GetCallerIdentity works all the same, and
nothing else does (STS API reference, GetCallerIdentity and AssumeRole).
"""

from __future__ import annotations

import re
from typing import Final

from botocore.credentials import Credentials

from iam_auth_proxy.aws.base import CallerIdentity
from iam_auth_proxy.aws.connections import Answer
from iam_auth_proxy.aws.login import Login
from iam_auth_proxy.errors import AccessDenied, Malformed, NoSessionCredentials
from iam_auth_proxy.protocol import identity as identities
from iam_auth_proxy.protocol.proof import SessionCredentials

SESSION_SECONDS: Final = 900
"""What the original asks of GetSessionToken, and the least that AWS gives."""

DENY_ALL: Final = (
    '{"Version":"2012-10-17","Statement":[{"Effect":"Deny","Action":"*","Resource":"*"}]}'
)

Obtained = tuple[SessionCredentials, CallerIdentity | None]
"""Credentials, and whose they are where the answer said so."""

_NOT_IN_NAMES = re.compile(r"[^\w+=,.@-]", re.ASCII)
_SHORTEST_NAME, _LONGEST_NAME = 2, 64  # AssumeRole, RoleSessionName
_NAMELESS = "iam-auth-proxy"


def user_session(login: Login, base: Credentials) -> Obtained:
    """GetSessionToken, with an IAM user's own keys.

    :raises NoSessionCredentials: AWS refuses.
    """
    try:
        answer = login.connections.call(
            "sts", login.region, "get_session_token", base, DurationSeconds=SESSION_SECONDS
        )
    except AccessDenied as error:
        raise NoSessionCredentials(str(error)) from error
    return _credentials(answer), None


def login_role_session(
    login: Login, base: Credentials, role: str, caller: CallerIdentity
) -> Obtained:
    """AssumeRole of the login role with a policy that denies everything.

    :param caller: whose name the session bears. An app must not take it for an identity unless the
        role's trust policy forces it.
    :raises AccessDenied: the role does not trust the caller, or the caller may not assume it.
    """
    try:
        answer = login.connections.call(
            "sts",
            login.region,
            "assume_role",
            base,
            role,
            RoleArn=role,
            RoleSessionName=session_name(caller),
            DurationSeconds=SESSION_SECONDS,
            Policy=DENY_ALL,
        )
    except AccessDenied as error:
        error.remedy = (
            f"Ask your AWS administrator to let {caller.arn} assume the login role {role}."
        )
        raise
    user = answer.part("AssumedRoleUser")
    arn = str(user["Arn"])
    account = arn.split(":")[4] if arn.count(":") >= 5 else ""
    return _credentials(answer), CallerIdentity(account, arn, str(user["AssumedRoleId"]))


def session_name(caller: CallerIdentity) -> str:
    """The caller's user or session name as a RoleSessionName: ``[\\w+=,.@-]{2,64}``."""
    try:
        identity = identities.parse(caller.arn, caller.user_id)
    except Malformed:
        return _NAMELESS  # a name for the log of an app, and nothing hangs on it
    name = _NOT_IN_NAMES.sub("-", identity.session_name or identity.name)[:_LONGEST_NAME]
    return name.ljust(_SHORTEST_NAME, "-")


def no_login_role() -> NoSessionCredentials:
    """Said to whom AWS makes no session credentials: why, and what the app's owner can do."""
    return NoSessionCredentials(
        "GetSessionToken refuses session credentials (role, SSO, federation), and no login role "
        "is configured (--login-role-arn)",
        public="This app asks for session credentials, and AWS makes none for a role or SSO login.",
        remedy="Ask the app's owner to accept the signed identity: with iam-auth-proxy's server "
        "module and IAM_AUTH_ORIGINS set, every AWS login can sign in.",
    )


def temporary(answer: Answer) -> tuple[Credentials, float]:
    """The credentials in an answer of STS, and when they expire."""
    made = answer.part("Credentials")
    credentials = Credentials(made["AccessKeyId"], made["SecretAccessKey"], made["SessionToken"])
    return credentials, made["Expiration"].timestamp()


def _credentials(answer: Answer) -> SessionCredentials:
    found, expires = temporary(answer)
    return SessionCredentials(found.access_key, found.secret_key, str(found.token), int(expires))
