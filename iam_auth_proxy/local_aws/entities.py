"""Finding IAM's users and roles, with the permission that the action on them needs."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Final

from iam_auth_proxy.local_aws.errors import ServiceError
from iam_auth_proxy.local_aws.invocation import Invocation
from iam_auth_proxy.local_aws.parameters import Parameters
from iam_auth_proxy.local_aws.state import Role, User

NAME: Final = r"[\w+=,.@-]+"
PATH: Final = r"/|/[!-~]+/"


def authorize_iam(call: Invocation, action: str, resource: str) -> None:
    """Return if the caller may do this to a resource (``user/NAME``) of its own account."""
    account = call.caller.principal.account
    call.authorize(action, f"arn:{call.state.partition}:iam::{account}:{resource}", account)


def find_user(
    call: Invocation, parameters: Parameters, action: str, *, default_to_caller: bool = False
) -> User:
    """The user that UserName names (or the caller), after the action on it was allowed."""
    name = parameters.optional_text("UserName", 1, 128, NAME)
    if name is None:
        name = call.caller.principal.username if default_to_caller else None
        if name is None:
            raise ServiceError("ValidationError", 400, "Must specify userName")
    user = call.state.accounts[call.caller.principal.account].users.get(name.lower())
    authorize_iam(call, action, f"user{user.path}{user.name}" if user else f"user/{name}")
    if user is None:
        raise missing("user", name)
    return user


def find_role(call: Invocation, parameters: Parameters, action: str) -> Role:
    """The role that RoleName names, after the action on it was allowed."""
    name = parameters.text("RoleName", 1, 64, NAME)
    role = call.state.accounts[call.caller.principal.account].roles.get(name.lower())
    authorize_iam(call, action, f"role{role.path}{role.name}" if role else f"role/{name}")
    if role is None:
        raise missing("role", name)
    return role


def exists(what: str) -> ServiceError:
    """The name is taken."""
    return ServiceError("EntityAlreadyExists", 409, f"{what} already exists.")


def missing(what: str, name: str) -> ServiceError:
    """There is nothing of that name."""
    return ServiceError("NoSuchEntity", 404, f"The {what} with name {name} cannot be found.")


def timestamp(seconds: float) -> datetime:
    """Seconds since the epoch, as answers spell them."""
    return datetime.fromtimestamp(seconds, UTC)
