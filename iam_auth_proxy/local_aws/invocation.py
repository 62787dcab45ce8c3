"""What a handler of an operation gets: who asks, when, where, and the way to ask for permission."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from iam_auth_proxy.local_aws.authorize import Ask, authorize, request_context
from iam_auth_proxy.local_aws.parameters import Parameters
from iam_auth_proxy.local_aws.state import Credential, ResourcePolicy, State
from iam_auth_proxy.local_aws.wire import Json


@dataclass(frozen=True, slots=True)
class Invocation:
    """One authenticated call. ``now``: AWS's clock, seconds since the epoch."""

    state: State
    caller: Credential
    now: float
    region: str
    source_ip: str

    def authorize(
        self,
        action: str,
        resource: str,
        account: str,
        keys: Mapping[str, tuple[str, ...]] | None = None,
        policy: ResourcePolicy | None = None,
    ) -> None:
        """Return if the caller may do ``action`` on ``resource``, which belongs to ``account``.

        :param keys: the service's own condition keys, in lower case.
        :raises AuthError: it may not.
        """
        context = request_context(
            self.caller, now=self.now, region=self.region, source_ip=self.source_ip
        )
        context.update(keys or {})
        authorize(self.caller, Ask(action, resource, account, context), policy)


Handler = Callable[[Invocation, Parameters], Mapping[str, Json] | None]
"""Runs one operation; ``None`` where the operation returns nothing.

Raises :class:`.errors.ServiceError`, :class:`.errors.AuthError` or :class:`.errors.NotEmulated`.
"""
