"""The app's KMS key and accounts (``Home``), which every challenge names: looked up once."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from iam_auth_proxy.aws.base import Kms, Sts
from iam_auth_proxy.errors import AwsError, AwsUnavailable, Malformed, Misconfigured, WrongAccount
from iam_auth_proxy.names import KeyArn, parse_key_arn
from iam_auth_proxy.protocol.identity import Identity
from iam_auth_proxy.server import own
from iam_auth_proxy.server.settings import Settings

_RETRY_HOME: Final = 5.0
"""Seconds."""


@dataclass(frozen=True, slots=True)
class Home:
    """What challenges say: the key, and the accounts whose identities may come in."""

    key: KeyArn
    accounts: tuple[str, ...]

    def covers(self, identity: Identity) -> bool:
        """Whether partition and account are ours, exactly."""
        return identity.partition == self.key.partition and identity.account in self.accounts

    def check(self, identity: Identity) -> None:
        """:meth:`covers`, or else:

        :raises WrongAccount: the identity is of another.
        """
        if not self.covers(identity):
            raise WrongAccount(f"{identity.arn} is of another account or partition")


@dataclass(frozen=True, slots=True)
class _Failure:
    # Not the error itself, whose traceback would grow with each request that it answers.
    at: float
    kind: type[AwsUnavailable] | type[Misconfigured]
    detail: str


class Homing:
    """Finds :class:`Home`, once. A failure is remembered for a few seconds, so that a flood of
    requests does not become a flood of calls.
    """

    def __init__(self, settings: Settings, aws: Callable[[], tuple[Kms, Sts]]) -> None:
        self._settings = settings
        self._aws = aws
        self._lock = threading.Lock()
        self._failure: _Failure | None = None
        self.home: Home | None = None
        if settings.accounts:
            try:
                self.home = Home(parse_key_arn(str(settings.kms_key)), settings.accounts)
            except Malformed:
                pass  # an id, an alias or an alias ARN: AWS knows which key it is

    def covers(self, identity: Identity) -> bool:
        """Whether partition and account are ours, as far as that is known without asking AWS."""
        if self.home is not None:
            return self.home.covers(identity)
        partition, accounts = self._settings.kms_key.partition, self._settings.accounts
        return identity.partition == (partition or identity.partition) and (
            not accounts or identity.account in accounts
        )

    def find(self, now: float) -> Home:
        """The key's ARN and the accounts, asking AWS where the settings do not say them.

        Whoever waits while another asks has his answer, a failure too.

        :raises AwsUnavailable: AWS did not answer.
        :raises Misconfigured: it did, and does not tell us; or we have nothing to ask it with.
        """
        known = self._failure
        with self._lock:
            if self.home is not None:
                return self.home
            failure = self._failure
            if failure is not None and (
                failure is not known or failure.at <= now < failure.at + _RETRY_HOME
            ):
                raise failure.kind(failure.detail)
            try:
                self.home = self._ask()
            except (AwsError, AwsUnavailable, Malformed) as error:
                wrong = own.fault(error, f"the key {self._settings.kms_key} cannot be looked up")
                self._failure = _Failure(now, type(wrong), str(wrong))
                raise wrong from error
            return self.home

    def _ask(self) -> Home:
        kms, sts = self._aws()
        try:
            key = parse_key_arn(str(self._settings.kms_key))
        except Malformed:
            key = parse_key_arn(kms.key_arn(str(self._settings.kms_key)))
        accounts = self._settings.accounts or (sts.caller_identity().account,)
        return Home(key, accounts)
