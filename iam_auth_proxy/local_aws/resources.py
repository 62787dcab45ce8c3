"""What is set up in an embedded AWS, as Python holds it: users, roles, keys, devices."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import dataclass, field

from iam_auth_proxy.local_aws import state as records
from iam_auth_proxy.local_aws import totp
from iam_auth_proxy.local_aws.kms import default_policy
from iam_auth_proxy.local_aws.policy import Document, Kind, read_policy


@dataclass(frozen=True, slots=True)
class Keys:
    """Credentials for a client: long-term keys, or with ``session_token`` those of a session.

    ``arn`` is what GetCallerIdentity says of them; ``expires`` seconds since the epoch.
    """

    access_key_id: str
    secret_access_key: str = field(repr=False)
    session_token: str = field(default="", repr=False)
    arn: str = ""
    expires: float | None = None

    @property
    def env(self) -> dict[str, str]:
        """As environment variables; AWS_SESSION_TOKEN only for a session."""
        names = {
            "AWS_ACCESS_KEY_ID": self.access_key_id,
            "AWS_SECRET_ACCESS_KEY": self.secret_access_key,
        }
        return {**names, "AWS_SESSION_TOKEN": self.session_token} if self.session_token else names

    @property
    def boto3(self) -> dict[str, str]:
        """As arguments of ``boto3.client`` and ``boto3.Session``."""
        return {name.lower(): value for name, value in self.env.items()}


class Mfa:
    """A virtual MFA device that is enabled for its user."""

    def __init__(self, device: records.MfaDevice, now: Callable[[], float]) -> None:
        self._device = device
        self._now = now

    @property
    def serial(self) -> str:
        """The device's ARN, which is AWS's SerialNumber."""
        return self._device.serial

    def code(self, now: float | None = None) -> str:
        """The six digits it shows at ``now``, by default on AWS's clock. Each works once."""
        return totp.code_at(self._device.seed, self._now() if now is None else now)


class User:
    """An IAM user of :meth:`LocalAws.user`."""

    def __init__(self, state: records.State, now: Callable[[], float], user: records.User) -> None:
        self._state = state
        self._now = now
        self._user = user
        self.name = user.name
        self.arn = user.principal.arn
        self.account = user.principal.account
        self.user_id = user.principal.user_id

    def keys(self) -> Keys:
        """A new long-term access key."""
        with self._state.lock:
            key = self._state.add_access_key(self.account, self._user, self._now())
        return keys_of(key.credential)

    def mfa(self) -> Mfa:
        """A new virtual MFA device, enabled; none of its codes has been used."""
        with self._state.lock:
            devices = self._state.accounts[self.account].devices
            serial = f"arn:{self._state.partition}:iam::{self.account}:mfa/{self.name}"
            while serial in devices:
                serial += "+"
            device = records.MfaDevice(
                serial, secrets.token_bytes(40), self._user, enabled_at=self._now()
            )
            devices[serial] = device
        return Mfa(device, self._now)

    def put_policy(self, policy: Document | str, name: str = "inline") -> None:
        """Set an inline policy; it holds from the next request on."""
        parsed = read_policy(policy)
        with self._state.lock:
            self._user.policies[name] = parsed

    def deactivate(self, keys: Keys) -> None:
        """Make one of the user's access keys inactive."""
        with self._state.lock:
            self._user.keys[keys.access_key_id].active = False

    def delete(self) -> None:
        """Delete the user with all that hangs on it."""
        with self._state.lock:
            account = self._state.accounts[self.account]
            self._user.deleted = True
            self._user.keys.clear()
            del account.users[self.name.lower()]
            for serial in [s for s, d in account.devices.items() if d.user is self._user]:
                del account.devices[serial]


class Role:
    """An IAM role of :meth:`LocalAws.role`."""

    def __init__(self, state: records.State, now: Callable[[], float], role: records.Role) -> None:
        self._state = state
        self._now = now
        self._role = role
        self.name = role.name
        self.arn = role.arn
        self.account = role.account
        self.role_id = role.role_id

    def session(self, name: str, *, seconds: int = 3600, policy: Document | None = None) -> Keys:
        """A session of the role without asking STS; ``policy`` is a session policy."""
        limits = () if policy is None else (read_policy(policy),)
        with self._state.lock:
            session = self._state.add_session(
                self._state.role_principal(self._role, name),
                self._role,
                now=self._now(),
                seconds=seconds,
                token_size=self._state.token_size,
                mfa=False,
                limits=limits,
            )
        return keys_of(session)

    def put_policy(self, policy: Document | str, name: str = "inline") -> None:
        """Set an inline policy; it holds from the next request on."""
        parsed = read_policy(policy)
        with self._state.lock:
            self._role.policies[name] = parsed


class Key:
    """A KMS key of :meth:`LocalAws.key`."""

    def __init__(self, state: records.State, now: Callable[[], float], key: records.Key) -> None:
        self._state = state
        self._now = now
        self._key = key
        self.arn = key.arn
        self.key_id = key.key_id
        self.account = key.account
        self.region = key.region

    @property
    def state(self) -> str:
        """``Enabled``, ``Disabled``, ``PendingDeletion``, ``PendingImport`` or ``Unavailable``."""
        return self._key.state

    @state.setter
    def state(self, state: str) -> None:
        check_key_state(state)
        with self._state.lock:
            self._key.state = state

    def put_policy(self, policy: Document | str) -> None:
        """Replace the key policy."""
        bound = self._state.bind(read_policy(policy, Kind.RESOURCE))
        with self._state.lock:
            self._key.policy = bound

    def alias(self, name: str) -> str:
        """Point ``alias/NAME`` (of the key's account and region) here; returns its ARN."""
        spelled = name if name.startswith("alias/") else f"alias/{name}"
        arn = f"arn:{self._state.partition}:kms:{self.region}:{self.account}:{spelled}"
        with self._state.lock:
            self._state.aliases[arn] = self.arn
        return arn

    def replica(self, region: str, policy: Document | str | None = None) -> Key:
        """The twin of a multi-Region key in another region, with a policy of its own."""
        if not self._key.multi_region:
            raise ValueError("only a multi-Region key has replicas")
        document = policy or default_policy(self._state.partition, self.account)
        with self._state.lock:
            twin = self._state.add_key(
                self.account,
                region,
                read_policy(document, Kind.RESOURCE),
                self._now(),
                twin_of=self._key,
            )
        return Key(self._state, self._now, twin)


_KEY_STATES = frozenset({"Enabled", "Disabled", "PendingDeletion", "PendingImport", "Unavailable"})


def check_key_state(state: str) -> None:
    if state not in _KEY_STATES:
        raise ValueError(f"{state!r} is not a key state")


def keys_of(credential: records.Credential) -> Keys:
    return Keys(
        credential.access_key_id,
        credential.secret,
        credential.token,
        credential.principal.arn,
        credential.expires,
    )
