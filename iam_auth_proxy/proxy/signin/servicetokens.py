"""The service tokens (kmsauth) that go with programs' requests, made ahead and shared.

Confidant, and any app that takes such tokens, knows no challenge: the token has to be there. So one
goes with each request to an app whose entry says so, where the proxy has the authority to speak,
and where the client brings no credentials of its own. It is made off the requests' path: the first
request waits for KMS, later ones take what is at hand, and one near its end is renewed while the
old one serves. A token is its bearer for ten minutes; it is kept in memory alone, and goes when the
person signs out, the configuration is read again, the entry or its profile says something else, or
the profile turns out to be another identity.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Protocol

from iam_auth_proxy.aws.base import Principal
from iam_auth_proxy.config import ServiceTokenRule
from iam_auth_proxy.errors import (
    AccessDenied,
    IamAuthError,
    KeyUnusable,
    TooManyRequests,
    Unnamed,
)
from iam_auth_proxy.names import Origin
from iam_auth_proxy.proxy.decisions.decide import Authority, Ruling
from iam_auth_proxy.proxy.decisions.limits import Pace
from iam_auth_proxy.proxy.decisions.rules import AppTrust
from iam_auth_proxy.proxy.signin.jobs import Tasks
from iam_auth_proxy.relay.exchange import RequestHead
from iam_auth_proxy.relay.fields import Headers

if TYPE_CHECKING:
    from iam_auth_proxy.protocol.service_token import ServiceToken

log = logging.getLogger(__name__)

AHEAD: Final = 150.0
"""Seconds before its end at which a token is renewed, as the issuer's own do."""

LAST_USE: Final = 30.0
"""Seconds before its end at which a token is not sent any more."""

AGAIN: Final = 60.0
"""Seconds after which a renewal that failed is tried again, and a refused token made anew."""

_AUTHORIZATION: Final = b"authorization"
_OWN_FIELDS: Final = b"x-auth-"


def may_carry(
    request: RequestHead, app: AppTrust, ruling: Ruling, *, admitted: bool = False
) -> bool:
    """Whether the app's service token goes with a request. Pure.

    Where the proxy may not speak for the client it adds nothing, and neither where a browser is
    about to be sent through the sign-in; nothing over http without a word of its own; and nothing
    beside credentials of the client's, which speaks for itself then.

    :param admitted: it was let in under an alias, where every request is vouched for.
    """
    rule = app.service_token
    if rule is None or not (admitted or ruling.authority is Authority.REPLAY):
        return False
    if app.origin.scheme != "https" and not rule.allow_http:
        return False
    return not any(_is_credential(name) for name, _ in request.headers)


def _is_credential(name: bytes) -> bool:
    # CGI and WSGI do not tell X_Auth_Token from X-Auth-Token.
    folded = name.lower().replace(b"_", b"-")
    return folded == _AUTHORIZATION or folded.startswith(_OWN_FIELDS)


@dataclass(frozen=True, slots=True)
class Made:
    """A token, and as whom it was made."""

    token: ServiceToken
    arn: str


def make(principal: Principal, rule: ServiceTokenRule, now: float) -> Made:
    """A new token. Blocks on AWS, for one call where the identity is known.

    The key is the person's own word. Which one an alias or a bare id stands for, KMS says, in the
    person's account and region.

    :raises Unnamed: the identity has no name that it could be from.
    :raises AwsError: KMS says no.
    :raises AwsUnavailable: KMS does not answer.
    """
    # Imported late: most proxies never make a token, and all of them should start fast.
    from iam_auth_proxy.protocol.service_token import CallerType
    from iam_auth_proxy.tokens.issuer import Issuer, OfPrincipal
    from iam_auth_proxy.tokens.naming import caller_of

    identity = principal.identity(now)
    caller = caller_of(identity, CallerType(rule.type) if rule.type else None, rule.name)
    issuer = Issuer(OfPrincipal(principal, lambda: now), rule.key, caller, rule.to)
    return Made(issuer.issue(now), identity.arn)


class Makes(Protocol):
    """:func:`make`, off the loop, as the person behind a profile."""

    def __call__(
        self, origin: Origin, profile: str, rule: ServiceTokenRule, *, unasked: bool
    ) -> Awaitable[Made]:
        """:param unasked: nobody waits for it, and so nobody is asked for an MFA code."""
        ...


@dataclass(slots=True, eq=False)
class Held:
    """A token at hand.

    :ivar fields: what goes into requests.
    :ivar due: from when on it is renewed ahead, in seconds since the epoch as all times here.
    :ivar blamed: the app has refused a request that went with it.
    """

    profile: str
    rule: ServiceTokenRule
    made: Made
    at: float
    fields: Headers = field(repr=False)
    due: float
    blamed: bool = False

    @property
    def token(self) -> ServiceToken:
        return self.made.token

    @property
    def said(self) -> bytes:
        """What may be shown of the token: nothing secret."""
        return f"{self.token.caller} to {self.token.to}".encode()

    def is_of(self, app: AppTrust) -> bool:
        """Whether it is what the app's entry says."""
        return (self.profile, self.rule) == (app.profile, app.service_token)

    def is_good(self, now: float) -> bool:
        """Whether it may be sent: neither nearly over nor, for a clock put back, not yet valid."""
        window = self.token.window
        return window.not_before <= now < window.not_after - LAST_USE


@dataclass(slots=True, eq=False)
class _Flight:
    profile: str
    rule: ServiceTokenRule
    task: asyncio.Task[Held] = field(repr=False)


class ServiceTokens:
    """Holds one token for each app, made once however many requests want it.

    :ivar made: tokens that KMS made; ``failed``: times that it made none.
    :param makes: makes them.
    :param turned_out: told which identity a profile is by now.
    :param clock: wall-clock seconds; ``monotonic`` for the pace.
    """

    def __init__(
        self,
        makes: Makes,
        turned_out: Callable[[str, str], None],
        tasks: Tasks,
        clock: Callable[[], float],
        monotonic: Callable[[], float],
    ) -> None:
        self.made = 0
        self.failed = 0
        self._makes = makes
        self._turned_out = turned_out
        self._tasks = tasks
        self._clock = clock
        self._monotonic = monotonic
        self._pace = Pace()
        self._held: dict[Origin, Held] = {}
        self._flights: dict[Origin, _Flight] = {}

    def __len__(self) -> int:
        return len(self._held)

    def held(self, origin: Origin) -> Held | None:
        """The token at hand for an app, good or not."""
        return self._held.get(origin)

    def forget(self, origin: Origin | None = None) -> None:
        """Drop the token of an app, or all; what is being made is nobody's later."""
        for kept in (self._held, self._flights):
            for each in [*kept] if origin is None else [origin]:
                kept.pop(each, None)

    def is_now(self, profile: str, arn: str) -> None:
        """A profile is this identity by now: tokens of another one that it was end."""
        for origin, held in [*self._held.items()]:
            if held.profile == profile and held.made.arn != arn:
                del self._held[origin]

    # -- for requests ------------------------------------------------------------------------------

    def at_hand(self, app: AppTrust) -> Held | None:
        """A good token, at once; it is renewed on the side where its end is near."""
        held = self._held.get(app.origin)
        if held is None:
            return None
        now = self._clock()
        if not held.is_of(app) or not held.is_good(now):
            del self._held[app.origin]
            return None
        if now >= held.due and app.origin not in self._flights:
            held.due = now + AGAIN
            self._begin(app, held.rule, unasked=True)
        return held

    async def get(self, app: AppTrust) -> Held:
        """A good token, made now, where none is at hand; who wants the same meanwhile shares it.

        :raises TooManyRequests: KMS was asked in vain too often.
        :raises IamAuthError: as :func:`make`.
        """
        rule = app.service_token
        assert rule is not None
        flight = self._flights.get(app.origin)
        if flight is None or (flight.profile, flight.rule) != (app.profile, rule):
            self._take_turn(app.origin)
            flight = self._begin(app, rule, unasked=False)
        return await asyncio.shield(flight.task)

    def refused(self, held: Held, origin: Origin, status: int) -> None:
        """The app answered 401 or 403 to a request with this token. It is said once of each.

        One that is not quite new is made again: its alias may stand for another key by now.
        """
        if not held.blamed:
            held.blamed = True
            token = held.token
            log.warning(
                "the app refused a service token, or its caller: its log says which",
                extra={
                    "origin": str(origin),
                    "code": f"http-{status}",
                    "detail": f"{token.caller} to {token.to}, key {token.key_arn}",
                },
            )
        if self._clock() >= held.at + AGAIN and self._held.get(origin) is held:
            del self._held[origin]

    # -- making ------------------------------------------------------------------------------------

    def _take_turn(self, origin: Origin) -> None:
        try:
            self._pace.take(origin, self._monotonic())
        except TooManyRequests as error:
            error.public = "KMS was asked for this app's service token too often."
            raise

    def _begin(self, app: AppTrust, rule: ServiceTokenRule, *, unasked: bool) -> _Flight:
        task = self._tasks.begin(self._make(app, rule, unasked))
        flight = self._flights[app.origin] = _Flight(app.profile, rule, task)

        def landed(done: asyncio.Task[Held]) -> None:
            if self._flights.get(app.origin) is flight:
                del self._flights[app.origin]
                if not done.cancelled() and done.exception() is None:
                    self._held[app.origin] = done.result()

        task.add_done_callback(landed)
        return flight

    async def _make(self, app: AppTrust, rule: ServiceTokenRule, unasked: bool) -> Held:
        origin = app.origin
        try:
            made = await self._makes(origin, app.profile, rule, unasked=unasked)
        except IamAuthError as error:
            self.failed += 1
            _explain(error, app, rule)
            if unasked:
                detail = {"origin": str(origin), "code": error.code, "detail": str(error)}
                log.warning("a service token was not renewed ahead", extra=detail)
            raise
        self.made += 1
        self._turned_out(app.profile, made.arn)
        token, now = made.token, self._clock()
        log.info(
            "service token made",
            extra={
                "origin": str(origin),
                "from": str(token.caller),
                "to": token.to,
                "key": token.key_arn,
                "identity": made.arn,
            },
        )
        fields = [(name.encode(), value.encode()) for name, value in token.headers().items()]
        due = token.window.not_after - AHEAD
        return Held(app.profile, rule, made, now, fields, due)


def _explain(error: IamAuthError, app: AppTrust, rule: ServiceTokenRule) -> None:
    """What to do about it: it is the person's own entry that is at fault, or a right of theirs."""
    if isinstance(error, Unnamed):
        error.remedy = (
            f"In service_token of {app.origin} ({app.place}), write the name that the policy of "
            'its key allows you: from = "NAME"'
        )
    elif isinstance(error, KeyUnusable):
        error.public = "The KMS key of this app's service token cannot be used."
        error.remedy = (
            f"Correct kms_key of {app.origin} ({app.place}): {rule.key} is looked up in the "
            "account and region of your AWS profile."
        )
    elif isinstance(error, AccessDenied):
        error.public = "Your AWS identity is not allowed to make this app's service token."
        key = f" --kms-key {rule.key}" if rule.key.startswith("arn:") else ""
        name = f" --from {rule.name}" if rule.type == "service" and rule.name else ""
        error.remedy = (
            "Your AWS administrator allows it with what this prints: "
            f"iam-auth-proxy policies token --to {rule.to}{key}{name}"
        )
