"""The app's KMS key and accounts (``Home``), which every challenge names: looked up once."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from iam_auth_proxy.aws.base import Kms, Sts
from iam_auth_proxy.errors import AwsError, AwsUnavailable, Malformed, WrongAccount
from iam_auth_proxy.names import KeyArn, parse_key_arn
from iam_auth_proxy.protocol.identity import Identity
from iam_auth_proxy.server.settings import Settings

log = logging.getLogger(__name__)

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


class Homing:
    """Finds :class:`Home`, once. A failure is remembered for a few seconds, so that a flood of
    requests does not become a flood of calls.
    """

    def __init__(self, settings: Settings, aws: Callable[[], tuple[Kms, Sts]]) -> None:
        self._settings = settings
        self._aws = aws
        self._lock = threading.Lock()
        self._failure: tuple[float, str] | None = None
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

        :raises AwsUnavailable: AWS did not say, for whatever reason.
        """
        known = self._failure
        with self._lock:
            if self.home is not None:
                return self.home
            if self._failure is not None and self._failure is not known:
                raise AwsUnavailable(self._failure[1])
            if (
                self._failure is not None
                and self._failure[0] <= now < self._failure[0] + _RETRY_HOME
            ):
                raise AwsUnavailable(self._failure[1])
            try:
                self.home = self._ask()
            except (AwsError, AwsUnavailable, Malformed) as error:
                detail = f"the key {self._settings.kms_key} cannot be looked up: {error}"
                log.error("%s%s", detail, f" ({error.remedy})" if error.remedy else "")
                self._failure = now, detail
                raise AwsUnavailable(detail) from error
            return self.home

    def _ask(self) -> Home:
        kms, sts = self._aws()
        try:
            key = parse_key_arn(str(self._settings.kms_key))
        except Malformed:
            key = parse_key_arn(kms.key_arn(str(self._settings.kms_key)))
        accounts = self._settings.accounts or (sts.caller_identity().account,)
        return Home(key, accounts)
