"""The AWS side of a sign-in: sealing off the event loop, and asking for an MFA code."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Final, Protocol, TypeVar

from iam_auth_proxy.aws.base import Principal, Principals
from iam_auth_proxy.config import ServiceTokenRule
from iam_auth_proxy.errors import AwsUnavailable, IamAuthError, MfaNeeded, Stopping
from iam_auth_proxy.names import Origin
from iam_auth_proxy.protocol.challenge import Challenge
from iam_auth_proxy.protocol.proof import ProofKind
from iam_auth_proxy.proxy.decisions.trust import Trust
from iam_auth_proxy.proxy.signin.jobs import Tasks
from iam_auth_proxy.proxy.signin.sealing import ProfilesFor, Sealed, seal
from iam_auth_proxy.proxy.signin.servicetokens import Made, make

log = logging.getLogger(__name__)

AWS_DEADLINE: Final = 30.0

T = TypeVar("T")


class OffLoop(Protocol):
    """Runs a synchronous call off the event loop, with a deadline in seconds."""

    async def __call__(self, fn: Callable[..., T], *args: object, deadline: float) -> T: ...


# Asks the person for a code of the device with this serial number.
AskMfa = Callable[[str], Awaitable[str]]


class Prover:
    """Makes tokens.

    :ivar refused: sign-ins that came to no token: AWS, or the rules of trust, said no.
    :ivar unavailable: sign-ins that came to no token because AWS did not answer.
    :ivar known: the ARN that a profile was last seen to have.
    :param clock: wall-clock seconds.
    """

    def __init__(
        self,
        principals: Principals,
        trust: Trust,
        off_loop: OffLoop,
        ask_mfa: AskMfa | None,
        clock: Callable[[], float],
        profiles_for: ProfilesFor,
        tasks: Tasks,
    ) -> None:
        self.principals = principals
        self.trust = trust
        self.refused = 0
        self.unavailable = 0
        self.known: dict[str, str] = {}
        self._off_loop = off_loop
        self._ask_mfa = ask_mfa
        self._clock = clock
        self._profiles_for = profiles_for
        self._tasks = tasks
        self._mfa: dict[str, asyncio.Task[None]] = {}
        self._prompts: set[asyncio.Task[str]] = set()
        self._stopping = False

    def stop_asking(self) -> None:
        """The proxy ends: nobody is asked any more, and who waits for an answer is told so."""
        self._stopping = True
        for prompt in self._prompts:
            prompt.cancel()

    def reconfigure(self, principals: Principals, trust: Trust) -> None:
        """Uses these settings from now on."""
        self.principals = principals
        self.trust = trust
        self.known.clear()

    async def seal(
        self, origin: Origin, profile: str, challenge: Challenge, *, unasked: bool = False
    ) -> Sealed:
        """The proof that the challenge asks for.

        :param unasked: nobody waits for this, and so nobody is asked for a code.
        :raises IamAuthError: as :func:`~iam_auth_proxy.proxy.signin.sealing.seal`.
        """

        def call(principal: Principal, now: float) -> Sealed:
            return seal(principal, self.trust, origin, challenge, self._profiles_for, now)

        try:
            sealed = await self._as(profile, call, unasked=unasked)
        except AwsUnavailable:
            self.unavailable += 1
            raise
        except IamAuthError:
            self.refused += 1
            raise
        if sealed.kind is ProofKind.SIGNED_IDENTITY:
            self.known[profile] = sealed.identity.arn
        said = {"origin": str(origin), "key": sealed.key_arn, "proof": sealed.kind.value}
        log.info("token sealed", extra=said)
        return sealed

    async def service_token(
        self, origin: Origin, profile: str, rule: ServiceTokenRule, *, unasked: bool = False
    ) -> Made:
        """A service token of this profile's identity, for the requests to this origin.

        :param unasked: as for :meth:`seal`.
        :raises NotTrusted: it is a stranger by now, or on this route.
        :raises IamAuthError: as :func:`~iam_auth_proxy.proxy.signin.servicetokens.make`.
        """

        def call(principal: Principal, now: float) -> Made:
            made = make(principal, rule, now)
            self.trust.check_route(origin)
            return made

        made = await self._as(profile, call, unasked=unasked)
        self.known[profile] = made.arn
        return made

    async def _as(self, profile: str, call: Callable[[Principal, float], T], *, unasked: bool) -> T:
        """What a call as the person behind a profile gives; once a code was entered if need be."""
        principal = self.principals.of(profile)
        try:
            return await self._off_loop(call, principal, self._clock(), deadline=AWS_DEADLINE)
        except MfaNeeded as needed:
            if self._ask_mfa is None or unasked:
                raise
            await self._enter_mfa(self._ask_mfa, principal, profile, needed)
        return await self._off_loop(call, principal, self._clock(), deadline=AWS_DEADLINE)

    async def _enter_mfa(
        self, ask: AskMfa, principal: Principal, profile: str, needed: MfaNeeded
    ) -> None:
        """One question at a time; its answer is everybody's who waits, a refusal too.

        It stays open where nobody waits any more: a page that is loaded anew, or a program that
        had no patience, comes back, and what the person has typed so far would be lost to it. The
        code is good for all that comes later, and the question ends by itself soon.
        """
        asking = self._mfa.get(profile)
        if asking is None or asking.done():
            asking = self._tasks.begin(self._ask_and_enter(ask, principal, needed.serial))
            self._mfa[profile] = asking
        await asyncio.shield(asking)

    async def _ask_and_enter(self, ask: AskMfa, principal: Principal, serial: str) -> None:
        with suppress(MfaNeeded):
            # Another request may have entered a code meanwhile; then there is no need to ask.
            await self._off_loop(principal.identity, self._clock(), deadline=AWS_DEADLINE)
            return
        code = await self._answer(ask, serial)
        await self._off_loop(principal.enter_mfa, code, deadline=AWS_DEADLINE)

    async def _answer(self, ask: AskMfa, serial: str) -> str:
        async def question() -> str:
            return await ask(serial)

        if self._stopping:
            raise Stopping(f"no question about {serial}")
        prompt = self._tasks.begin(question())
        self._prompts.add(prompt)
        try:
            return await prompt
        except asyncio.CancelledError:
            if self._stopping:
                raise Stopping(f"the question about {serial} was open") from None
            raise
        finally:
            self._prompts.discard(prompt)
