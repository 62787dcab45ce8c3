"""What STS says of the caller (step 14): ARN and UserId, taken apart together.

Shapes: AWS, *IAM identifiers*, and the answers of GetCallerIdentity:

=================  ===============================================  =================
kind               ARN                                              UserId
=================  ===============================================  =================
user               ``arn:P:iam::A:user/[path/]NAME``                ``AIDA...``
role               ``arn:P:sts::A:assumed-role/ROLE/SESSION``       ``AROA...:SESSION``
sso                the same, ROLE = ``AWSReservedSSO_SET_16hex``    ``AROA...:SESSION``
federated          ``arn:P:sts::A:federated-user/NAME``             ``A:NAME``
root               ``arn:P:iam::A:root``                            ``A``
=================  ===============================================  =================

Whoever comes with a service token is a ``service`` or a ``token-user``. STS has not been asked
about those, so they have no ARN, and no kind in common with those who have: see :func:`of_token`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from iam_auth_proxy.errors import Malformed
from iam_auth_proxy.names import PARTITIONS
from iam_auth_proxy.protocol.service_token import Caller, CallerType


class Kind(StrEnum):
    """What sort of principal called; of which the last two are known by a service token."""

    USER = "user"
    ROLE = "role"
    SSO = "sso"
    FEDERATED = "federated"
    ROOT = "root"
    SERVICE = "service"
    TOKEN_USER = "token-user"  # noqa: S105  # a kind


@dataclass(frozen=True, slots=True)
class Identity:
    """One caller, as STS named it.

    :param arn: as STS gave it. Of a service token: ``kmsauth:[ACCOUNT/]user/NAME`` or
        ``kmsauth:[ACCOUNT/]service/NAME``, which is no ARN and is never mistaken for one.
    :param user_id: stable over renames, and another after delete-and-recreate; the ARN is neither.
    :param name: user name without its path, role name, permission set, federated name, or "root".
        A federated name was chosen by its caller. A permission set is read from the role's name:
        that nobody else made a role of such a name, only the AROA id in ``user_id`` can show.
    :param path: of a user, ``/`` or ``/division/team/``; "" for the others, whose ARN hides it.
    :param session_name: of a role session. **Chosen by whoever assumed the role**, unless the
        role's trust policy forces it: for the log, never to authorise on.
    """

    arn: str
    user_id: str
    account: str
    partition: str
    kind: Kind
    name: str
    path: str = ""
    session_name: str = ""

    @property
    def unique_id(self) -> str:
        """``user_id`` without a session name: the principal itself (AIDA, AROA, account)."""
        return self.user_id.partition(":")[0] if self.session_name else self.user_id


_NAME = r"[A-Za-z0-9_+=,.@-]"
_IAM_PATH = r"/(?:[!-~]{1,510}/)?"  # IAM API reference, User.Path: at most 512 characters
_HEAD = r"arn:(?P<partition>[a-z-]{3,16}):%s::(?P<account>[0-9]{12}):"

_USER = re.compile(_HEAD % "iam" + rf"user(?P<path>{_IAM_PATH})(?P<name>{_NAME}{{1,64}})", re.ASCII)
_ROOT = re.compile(_HEAD % "iam" + r"(?P<name>root)", re.ASCII)
_ROLE = re.compile(
    _HEAD % "sts" + rf"assumed-role/(?P<name>{_NAME}{{1,64}})/(?P<session>{_NAME}{{2,64}})",
    re.ASCII,
)
_FEDERATED = re.compile(_HEAD % "sts" + rf"federated-user/(?P<name>{_NAME}{{2,32}})", re.ASCII)

_SSO_ROLE: Final = re.compile(rf"AWSReservedSSO_(?P<name>{_NAME}{{1,32}})_[0-9a-f]{{16}}", re.ASCII)
_ID = r"[A-Z0-9]{12,124}"
_USER_ID = re.compile(rf"AIDA{_ID}", re.ASCII)
_ROLE_ID = re.compile(rf"AROA{_ID}:(?P<session>{_NAME}{{2,64}})", re.ASCII)


def parse(arn: str, user_id: str) -> Identity:
    """The identity in GetCallerIdentity's ``Arn`` and ``UserId``.

    :raises Malformed: an ARN of no known shape or partition, or a UserId that does not go with it.
    """
    if match := _USER.fullmatch(arn):
        return _make(match, user_id, Kind.USER, _USER_ID.fullmatch(user_id) is not None)
    if match := _ROLE.fullmatch(arn):
        session = _ROLE_ID.fullmatch(user_id)
        agree = session is not None and session["session"] == match["session"]
        sso = _SSO_ROLE.fullmatch(match["name"])
        return _make(match, user_id, Kind.SSO if sso else Kind.ROLE, agree, sso or match)
    if match := _FEDERATED.fullmatch(arn):
        expected = f"{match['account']}:{match['name']}"
        return _make(match, user_id, Kind.FEDERATED, user_id == expected)
    if match := _ROOT.fullmatch(arn):
        return _make(match, user_id, Kind.ROOT, user_id == match["account"])
    raise Malformed("the caller's ARN is of no known shape")


def of_token(caller: Caller, account: str, partition: str) -> Identity:
    """Whom a service token is from, which holds.

    :param account: what the token's key stands for; empty: nothing is known of it.
    :param partition: of that key.
    """
    kind = Kind.SERVICE if caller.type is CallerType.SERVICE else Kind.TOKEN_USER
    scope = f"{account}/" if account else ""
    name = f"kmsauth:{scope}{caller.type}/{caller.name}"
    return Identity(name, name, account, partition, kind, caller.name)


def _make(
    match: re.Match[str],
    user_id: str,
    kind: Kind,
    agree: bool,
    named: re.Match[str] | None = None,
) -> Identity:
    if match["partition"] not in PARTITIONS:
        raise Malformed("the caller's ARN is of an unknown partition")
    if not agree:
        raise Malformed("the caller's UserId does not go with the ARN")
    groups = match.groupdict()
    return Identity(
        arn=match[0],
        user_id=user_id,
        account=match["account"],
        partition=match["partition"],
        kind=kind,
        name=(named or match)["name"],
        path=groups.get("path") or "",
        session_name=groups.get("session") or "",
    )
