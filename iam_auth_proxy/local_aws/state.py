"""What the embedded AWS knows: accounts, users, roles, credentials, keys. Plain data.

Everything lives in one :class:`State`, changed only under its lock. Principals and credentials are
frozen; users and roles are records whose policies are read anew at each request, as AWS does.
"""

from __future__ import annotations

import base64
import secrets
import threading
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Final

from iam_auth_proxy import names
from iam_auth_proxy.local_aws.errors import PolicyError
from iam_auth_proxy.local_aws.policy import Policy

_ID_LETTERS: Final = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"


def new_id(prefix: str) -> str:
    """A unique id of IAM: ``AIDA…`` user, ``AROA…`` role, ``AKIA…``/``ASIA…`` access key."""
    return prefix + "".join(secrets.choice(_ID_LETTERS) for _ in range(16))


def new_secret() -> str:
    """A secret access key: 40 characters of base64."""
    return base64.b64encode(secrets.token_bytes(30)).decode()


class Caller(StrEnum):
    """Kinds of principal, as STS tells them apart."""

    ROOT = "root"
    USER = "user"
    ROLE = "role"
    FEDERATED = "federated"


@dataclass(frozen=True, slots=True)
class Principal:
    """Who is calling.

    :param arn: GetCallerIdentity's Arn; ``assumed-role/ROLE/SESSION`` without the role's path.
    :param user_id: its UserId.
    :param policy_arn: what policies name: the role's own ARN for a role session, else ``arn``.
    :param unique_id: AIDA/AROA id, which survives a rename and exposes a recreated name.
    :param username: of an IAM user only.
    """

    kind: Caller
    account: str
    arn: str
    user_id: str
    policy_arn: str
    unique_id: str
    username: str | None = None


@dataclass(frozen=True, slots=True)
class Credential:
    """An access key, long-term or of a session.

    :param token: the session token; empty for a long-term key.
    :param expires: seconds since the epoch; ``None`` for a long-term key.
    :param mfa: aws:MultiFactorAuthPresent: ``None`` (absent) for a long-term key.
    :param limits: session policies, each of which must allow too.
    :param issued: aws:TokenIssueTime, seconds since the epoch.
    """

    access_key_id: str
    secret: str = field(repr=False)
    principal: Principal
    owner: User | Role | None = field(repr=False)
    token: str = field(default="", repr=False)
    expires: float | None = None
    mfa: bool | None = None
    limits: tuple[Policy, ...] = field(default=(), repr=False)
    issued: float | None = None

    @property
    def temporary(self) -> bool:
        return self.expires is not None


@dataclass(slots=True)
class MfaDevice:
    """A virtual MFA device. ``last_step``: the newest code that was used; codes work once."""

    serial: str
    seed: bytes = field(repr=False)
    user: User | None = field(default=None, repr=False)
    enabled_at: float | None = None
    last_step: int = -1


@dataclass(slots=True)
class AccessKey:
    """A long-term key of a user or, with ``user`` None, of an account's root."""

    credential: Credential
    created: float
    active: bool = True


@dataclass(slots=True, eq=False)
class User:
    """An IAM user."""

    principal: Principal
    name: str
    path: str
    created: float
    policies: dict[str, Policy] = field(default_factory=dict, repr=False)
    keys: dict[str, AccessKey] = field(default_factory=dict, repr=False)
    deleted: bool = False


@dataclass(frozen=True, slots=True)
class ResourcePolicy:
    """A policy on a key or role, with the unique ids its principals had when it was saved."""

    policy: Policy
    ids: Mapping[str, str]


@dataclass(slots=True, eq=False)
class Role:
    """An IAM role. ``max_session`` in seconds."""

    account: str
    name: str
    path: str
    role_id: str
    arn: str
    trust: ResourcePolicy = field(repr=False)
    max_session: int
    created: float
    policies: dict[str, Policy] = field(default_factory=dict, repr=False)
    deleted: bool = False


@dataclass(slots=True, eq=False)
class Key:
    """A symmetric KMS key in one region. Multi-Region twins share ``key_id`` and ``material``."""

    account: str
    region: str
    key_id: str
    arn: str
    material: bytes = field(repr=False)
    policy: ResourcePolicy = field(repr=False)
    created: float
    description: str = ""
    multi_region: bool = False
    state: str = "Enabled"
    deletion: float | None = None


@dataclass(slots=True)
class Account:
    """One account. Names are case-insensitively unique, so the dicts are keyed in lower case."""

    number: str
    root: Principal
    root_keys: dict[str, AccessKey] = field(default_factory=dict, repr=False)
    users: dict[str, User] = field(default_factory=dict)
    roles: dict[str, Role] = field(default_factory=dict)
    devices: dict[str, MfaDevice] = field(default_factory=dict)


class State:
    """All accounts of one partition. Hold :attr:`lock` while reading or changing it."""

    def __init__(self, accounts: tuple[str, ...], region: str) -> None:
        self.lock = threading.RLock()
        self.partition = next(
            (name for name in names.PARTITIONS if names.region_belongs(name, region)), ""
        )
        if not self.partition:
            raise ValueError(f"{region!r} is not an AWS region")
        if not accounts or not all(names.is_account_id(number) for number in accounts):
            raise ValueError("an account is twelve digits, and there must be one")
        self.region = region
        self.token_size = 700  # bytes of the session tokens that are made from now on
        self.accounts = {number: self._account(number) for number in accounts}
        self.sessions: dict[str, Credential] = {}
        self.kms_keys: dict[str, Key] = {}
        self.aliases: dict[str, str] = {}  # alias ARN -> key ARN

    def _account(self, number: str) -> Account:
        arn = f"arn:{self.partition}:iam::{number}:root"
        return Account(number, Principal(Caller.ROOT, number, arn, number, arn, number))

    # -- looking up ----------------------------------------------------------------------------

    def credential(self, access_key_id: str) -> Credential | None:
        """The live credential with this id; ``None`` if unknown, inactive or its owner deleted.

        A session of a key that was deactivated later still works; one of a deleted user does not.
        (Assumed; AWS does not document either.)
        """
        session = self.sessions.get(access_key_id)
        if session is not None:
            return None if session.owner is not None and session.owner.deleted else session
        for account in self.accounts.values():
            for keys in (account.root_keys, *(user.keys for user in account.users.values())):
                key = keys.get(access_key_id)
                if key is not None:
                    return key.credential if key.active else None
        return None

    def unique_id(self, arn: str) -> str | None:
        """The id of the user or role with this ARN; session ARNs and roots stand for themselves.

        :returns: ``None`` for a user or role that does not exist.
        """
        kind, _, rest = arn.split(":", 5)[5].partition("/")
        account = self.accounts.get(arn.split(":")[4])
        name = rest.rpartition("/")[2].lower()
        if kind == "user":
            user = account.users.get(name) if account else None
            return user.principal.unique_id if user and user.principal.arn == arn else None
        if kind == "role":
            role = account.roles.get(name) if account else None
            return role.role_id if role and role.arn == arn else None
        return arn

    def bind(self, policy: Policy) -> ResourcePolicy:
        """Replace the principals of a policy by their unique ids, as AWS does on saving.

        :raises PolicyError: a principal that does not exist.
        """
        ids: dict[str, str] = {}
        for name in policy.principals:
            if name.startswith("arn:"):
                unique = self.unique_id(name)
                if unique is None or not name.startswith(f"arn:{self.partition}:"):
                    raise PolicyError(f"the principal {name} does not exist")
                ids[name] = unique
        return ResourcePolicy(policy, ids)

    # -- making --------------------------------------------------------------------------------

    def add_user(self, account: str, name: str, path: str, now: float) -> User:
        """A new user; the caller has checked that the name is free."""
        unique = new_id("AIDA")
        arn = f"arn:{self.partition}:iam::{account}:user{path}{name}"
        principal = Principal(Caller.USER, account, arn, unique, arn, unique, name)
        user = User(principal, name, path, now)
        self.accounts[account].users[name.lower()] = user
        return user

    def add_access_key(self, account: str, user: User | None, now: float) -> AccessKey:
        """A new long-term key, of the account's root where ``user`` is ``None``."""
        owner = self.accounts[account]
        principal = user.principal if user else owner.root
        credential = Credential(new_id("AKIA"), new_secret(), principal, user)
        key = AccessKey(credential, now)
        (user.keys if user else owner.root_keys)[credential.access_key_id] = key
        return key

    def add_role(
        self, account: str, name: str, path: str, trust: Policy, max_session: int, now: float
    ) -> Role:
        """A new role; the caller has checked that the name is free."""
        arn = f"arn:{self.partition}:iam::{account}:role{path}{name}"
        role = Role(account, name, path, new_id("AROA"), arn, self.bind(trust), max_session, now)
        self.accounts[account].roles[name.lower()] = role
        return role

    def add_session(
        self,
        principal: Principal,
        owner: User | Role | None,
        *,
        now: float,
        seconds: int,
        token_size: int,
        mfa: bool,
        limits: tuple[Policy, ...] = (),
    ) -> Credential:
        """A new session that ends ``seconds`` after ``now``; ``token_size`` in bytes."""
        token = base64.b64encode(secrets.token_bytes(token_size)).decode()[:token_size]
        session = Credential(
            new_id("ASIA"),
            new_secret(),
            principal,
            owner,
            token=token,
            expires=float(int(now) + seconds),
            mfa=mfa,
            limits=limits,
            issued=now,
        )
        self.sessions[session.access_key_id] = session
        return session

    def role_principal(self, role: Role, session_name: str) -> Principal:
        """The principal of a session of ``role``."""
        return Principal(
            Caller.ROLE,
            role.account,
            f"arn:{self.partition}:sts::{role.account}:assumed-role/{role.name}/{session_name}",
            f"{role.role_id}:{session_name}",
            role.arn,
            role.role_id,
        )

    def federated_principal(self, account: str, name: str) -> Principal:
        """The principal of GetFederationToken; ``name`` is whatever its caller said."""
        arn = f"arn:{self.partition}:sts::{account}:federated-user/{name}"
        return Principal(Caller.FEDERATED, account, arn, f"{account}:{name}", arn, arn)

    def end_session(self, access_key_id: str, now: float) -> None:
        """Let a session end at ``now``.

        :raises KeyError: no session has this access key id.
        """
        session = self.sessions[access_key_id]
        self.sessions[access_key_id] = replace(session, expires=now)

    def add_key(
        self,
        account: str,
        region: str,
        policy: Policy,
        now: float,
        *,
        twin_of: Key | None = None,
        multi_region: bool = False,
    ) -> Key:
        """A new KMS key, or the twin of a multi-Region key in another region."""
        key_id = str(uuid.uuid4())
        if multi_region:
            key_id = "mrk-" + uuid.uuid4().hex
        if twin_of is not None:
            key_id = twin_of.key_id
        key = Key(
            account,
            region,
            key_id,
            f"arn:{self.partition}:kms:{region}:{account}:key/{key_id}",
            twin_of.material if twin_of else secrets.token_bytes(32),
            self.bind(policy),
            now,
            multi_region=multi_region or twin_of is not None,
        )
        self.kms_keys[key.arn] = key
        return key
