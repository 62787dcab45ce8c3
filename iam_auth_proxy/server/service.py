"""Service tokens at the gate: Basic, or ``X-Auth-From`` with ``X-Auth-Token``, before a session.

As Confidant has it: Basic with a username comes first, then the pair of fields, then the session.
What a request brings must hold: after a bad token no session counts. One field of the pair without
the other says nothing, and neither does Basic without a username.

Where tokens are accepted these fields are the gate's, and no app sees them. Where they are not,
they are nothing special, and the app's own.
"""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass, field
from typing import Final

from iam_auth_proxy.errors import (
    AwsError,
    AwsUnavailable,
    BadServiceToken,
    Refused,
    TooManyRequests,
)
from iam_auth_proxy.names import parse_key_arn
from iam_auth_proxy.protocol import identity as identities
from iam_auth_proxy.protocol import service_token
from iam_auth_proxy.protocol.service_token import FROM_FIELD, TOKEN_FIELD
from iam_auth_proxy.protocol.session import Session
from iam_auth_proxy.server import own
from iam_auth_proxy.server.factory import Aws
from iam_auth_proxy.server.facts import RequestFacts
from iam_auth_proxy.server.front import Place
from iam_auth_proxy.server.limits import SignInLimits
from iam_auth_proxy.server.sessions import Visitor
from iam_auth_proxy.server.settings import Settings
from iam_auth_proxy.server.verifier import admits
from iam_auth_proxy.tokens.diagnosis import Rationed
from iam_auth_proxy.tokens.verifier import Verified, Verifier

log = logging.getLogger(__name__)

PROOF: Final = "service-token"
"""What a session says that is none, but stands for a token."""

_PAIR = frozenset({FROM_FIELD.lower(), TOKEN_FIELD.lower()})
_AUTHORIZATION = "authorization"


@dataclass(frozen=True, slots=True)
class Presented:
    """What a request brings, of which nothing has been checked."""

    username: str
    token: str = field(repr=False)


class ServiceTokens:
    """The gate's side of service tokens.

    :param limits: how often tokens that turn out bad may have KMS asked.
    """

    def __init__(self, settings: Settings, aws: Aws, limits: SignInLimits | None = None) -> None:
        self._allow = settings.allow
        self._limits = SignInLimits() if limits is None else limits
        accepts = settings.accepts()
        self._verifier = None
        if accepts is not None:
            self._verifier = Verifier(
                accepts,
                lambda: aws()[0],
                cache_size=settings.token_cache_size,
                explain=Rationed(time.monotonic),
            )

    def hidden(self, facts: RequestFacts) -> frozenset[str]:
        """The fields of a request that are not for the app."""
        if self._verifier is None:
            return frozenset()
        basic = any(_is_basic(value) for value in facts.all(_AUTHORIZATION))
        return _PAIR | {_AUTHORIZATION} if basic else _PAIR

    def read(self, facts: RequestFacts) -> Presented | None:
        """The token that the request brings, if it brings one.

        :raises BadServiceToken: it brings what cannot be read.
        """
        if self._verifier is None:
            return None
        basics = [value for value in facts.all(_AUTHORIZATION) if _is_basic(value)]
        if basics and len(facts.all(_AUTHORIZATION)) > 1:
            raise BadServiceToken("Authorization is repeated", field="authorization")
        pair = service_token.parse_basic(basics[0]) if basics else None
        if pair is not None:
            return Presented(*pair)
        names, texts = (facts.all(name.lower()) for name in (FROM_FIELD, TOKEN_FIELD))
        if not names or not texts:
            return None
        if len(names) > 1 or len(texts) > 1:
            raise BadServiceToken(f"{FROM_FIELD} or {TOKEN_FIELD} is repeated", field="token")
        return Presented(names[0], texts[0])

    def known(self, presented: Presented, place: Place, now: float) -> Visitor | None:
        """Whose token it is, without AWS; None where it is worth asking.

        :raises Refused: it is not accepted, or its caller is not allowed here.
        :raises TooManyRequests: too many were bad.
        """
        assert self._verifier is not None
        verified = self._verifier.known(presented.username, presented.token, now)
        if verified is not None:
            return self._visitor(verified, place)
        wait = self._limits.admit(place.client, now)
        if wait:
            raise TooManyRequests(f"service tokens of {place.client or '-'}", retry_after=wait)
        return None

    def verify(self, presented: Presented, place: Place, now: float) -> Visitor:
        """The same after :meth:`known` said None. Blocks.

        :raises Refused: it is not accepted, or its caller is not allowed here.
        :raises AwsUnavailable: that could not be found out.
        :raises Misconfigured: the same, and our identity, a key or the clock is at fault.
        """
        assert self._verifier is not None
        try:
            verified = self._verifier.verify(presented.username, presented.token, now)
        except (AwsError, AwsUnavailable) as error:
            self._limits.give_back(place.client)
            raise own.fault(error, "a service token cannot be checked") from error
        self._limits.give_back(place.client)
        log.info(
            "%s at %s from %s until %d, session %s",
            verified.caller, place.origin, place.client or "-", verified.window.not_after,
            _session_id(verified),
        )  # fmt: skip
        return self._visitor(verified, place)

    def _visitor(self, verified: Verified, place: Place) -> Visitor:
        partition = parse_key_arn(verified.key_arn).partition
        identity = identities.of_token(verified.caller, verified.account, partition)
        if not admits(self._allow, identity, PROOF):
            raise Refused(
                f"{identity.arn} has a service token and is not allowed",
                public="This service token's caller is not allowed here.",
                remedy="Ask the app's owner to allow it.",
            )
        session = Session(
            id=_session_id(verified),
            origin=str(place.origin),
            arn=identity.arn,
            user_id=identity.user_id,
            account=identity.account,
            partition=identity.partition,
            kind=identity.kind,
            proof=PROOF,
            issued=verified.window.not_before,
            expires=verified.window.not_after,
        )
        return Visitor(session, identity)


def _session_id(verified: Verified) -> str:
    """The same for a token at every worker, so that it can be revoked by it."""
    return f"token-{verified.id}"


def _is_basic(value: str) -> bool:
    return value.partition(" ")[0].lower() == "basic"
