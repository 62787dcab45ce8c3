"""Whom an identity's service tokens are from."""

from __future__ import annotations

from typing import Final

from iam_auth_proxy.aws.base import CallerIdentity
from iam_auth_proxy.errors import Unnamed
from iam_auth_proxy.protocol import identity as identities
from iam_auth_proxy.protocol.identity import Kind
from iam_auth_proxy.protocol.service_token import Caller, CallerType

_USUAL: Final = {Kind.USER: CallerType.USER, Kind.ROLE: CallerType.SERVICE}


def caller_of(
    identity: CallerIdentity, type: CallerType | None = None, name: str = "", version: int = 2
) -> Caller:
    """Whom a token of this identity is from.

    A user is himself, as ``${aws:username}`` in a policy has it, and a role the service of its
    name. A role's sessions have no user name, and a permission set is many people's: those need a
    ``name``, which the policy of the key has to allow.

    :param type: None: what the identity is; with a ``name``, a user.
    :param name: the name to claim; empty: the identity's own.
    :raises Unnamed: it has none of this type.
    :raises Malformed: there is no such caller.
    """
    if name:
        return Caller(name, type or _default(CallerType.USER, version), version)
    found = identities.parse(identity.arn, identity.user_id)
    usual = _USUAL.get(found.kind)
    if usual is None or (found.kind is Kind.ROLE and type is CallerType.USER):
        raise Unnamed(f"{identity.arn} has no name that a token's from could be")
    return Caller(found.name, type or _default(usual, version), version)


def _default(type: CallerType, version: int) -> CallerType:
    """Version 1 is for services alone."""
    return CallerType.SERVICE if version == 1 else type
