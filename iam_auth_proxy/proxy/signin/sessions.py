"""The sessions in force: those held for programs, those that clients keep, and their renewal.

A session near its end is renewed ahead: a request that the app takes with it begins another
sign-in, which nobody waits for. A program's requests go with the new session from then on. A
browser keeps its cookie itself, so it is given the new one in the answer to its next request, if
that comes with the old one still, and if :func:`~iam_auth_proxy.proxy.decisions.decide.authority`
says *replay* of it; a page or a frame may not have been the person's wish, and what carries no
cookie may have been meant to. Whoever fails to be renewed finds the old session in force.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import Protocol

from iam_auth_proxy.errors import IamAuthError
from iam_auth_proxy.names import Origin
from iam_auth_proxy.protocol.challenge import Bound
from iam_auth_proxy.protocol.proof import ProofKind
from iam_auth_proxy.proxy.decisions.decide import Authority, ruling
from iam_auth_proxy.proxy.decisions.trust import AppTrust, Trust
from iam_auth_proxy.proxy.signin import cookies
from iam_auth_proxy.proxy.signin.held import HeldSession, HeldSessions
from iam_auth_proxy.proxy.signin.jobs import HandedOver, Tasks
from iam_auth_proxy.proxy.signin.kept import KeptSession, KeptSessions, can_be_kept
from iam_auth_proxy.proxy.signin.renewal import Due
from iam_auth_proxy.relay.exchange import Exchange, ResponseHead

log = logging.getLogger(__name__)

# Of a User-Agent, in a client's key: its sender may make it as long as a head.
_AGENT = 256
# The app did not take the request, or did not get to it.
_NOT_TAKEN = frozenset((401, 403, 421))


class SignInAhead(Protocol):
    """A sign-in that nobody waits for; None: it came to no session."""

    def __call__(
        self, origin: Origin, profile: str, bound: Bound, *, wanted: Callable[[], bool]
    ) -> Awaitable[HandedOver | None]:
        """:param wanted: whether it is still, asked before anything is proved."""
        ...


class Sessions:
    """Remembers sessions, and renews them.

    :ivar held: the sessions of programs; ``kept``: of clients with a cookie jar.
    :ivar signed_out_of: where the person signed out.
    :ivar renewed: sessions that were renewed ahead, and came into force.
    :param trust: whose challenges are answered now.
    :param clock: wall-clock seconds.
    """

    def __init__(
        self,
        trust: Callable[[], Trust],
        sign_in: SignInAhead,
        tasks: Tasks,
        clock: Callable[[], float],
    ) -> None:
        self.held = HeldSessions()
        self.kept = KeptSessions()
        self.signed_out_of: set[Origin] = set()
        self.renewed = 0
        self._trust = trust
        self._sign_in = sign_in
        self._tasks = tasks
        self._clock = clock

    def forget(self, origin: Origin | None = None) -> int:
        """Drop those of an origin, or all.

        :return: how many were held.
        """
        self.kept.end(lambda session: origin in (None, session.origin))
        return self.held.end(lambda session: origin in (None, session.origin))

    def turned_out(self, profile: str, kind: ProofKind, arn: str) -> None:
        """A profile is this identity by now: sessions of another one that it was end."""
        who = (profile, kind)
        self.held.end(lambda session: session.who == who and session.identity != arn)
        self.kept.end(
            lambda session: (session.app.profile, session.kind) == who and session.identity != arn
        )

    # -- of programs -------------------------------------------------------------------------------

    def hold(self, entrance: str, origin: Origin, done: HandedOver) -> None:
        """Keep the session for the programs that come in by this entrance.

        Where it is held already it stays as it is: the app may have set its cookies anew.
        """
        before = self.held.get(entrance, origin, self._clock())
        if before is not None and before.challenged is done.challenged:
            return
        if done.granted is not None and self._is_in_force(origin, done.profile) is not None:
            self.held.put(
                HeldSession(
                    entrance,
                    origin,
                    done.granted,
                    who=(done.profile, done.sealed.kind),
                    identity=done.sealed.identity.arn,
                    challenged=done.challenged,
                    begun=done.at,
                )
            )

    def held_for(self, exchange: Exchange) -> HeldSession | None:
        """The session held for this exchange's entrance and origin, and its profile's still."""
        session = self.held.get(exchange.entrance.name, exchange.origin, self._clock())
        if session is not None and self._is_in_force(exchange.origin, session.who[0]) is None:
            self.held.drop(session)
            return None
        return session

    def served(self, session: HeldSession) -> None:
        """The app took a request with this session."""
        if session.due is not None and session.due.is_due(self._clock()):
            session.due.begin()
            self._tasks.begin(self._renew_held(session, session.due))

    async def _renew_held(self, session: HeldSession, due: Due) -> None:
        entrance, origin = session.entrance, session.origin
        bound = session.challenged.challenge.bound
        assert bound is not None  # it would not be due

        def wanted() -> bool:
            return self.held.get(entrance, origin, self._clock()) is session

        done = await self._renew(origin, session.who[0], bound, due, wanted)
        if done is not None:
            self.renewed += 1
            self.hold(entrance, origin, done)

    # -- of clients with a cookie jar --------------------------------------------------------------

    def keep(
        self, exchange: Exchange, done: HandedOver, answer: ResponseHead | None = None
    ) -> None:
        """A client is given this session now.

        :param answer: to the request that was repeated with it.
        """
        app = self._is_in_force(exchange.origin, done.profile)
        if app is None or not can_be_kept(done):
            return
        self.kept.put(exchange.origin, client_key(exchange), app, done)
        session = self._carried(exchange) if answer is not None else None
        if session is not None and answer is not None:
            self.kept.follow(session, exchange.request.headers, answer.headers)

    def passed(self, exchange: Exchange, answer: ResponseHead) -> None:
        """An answer goes to a client, whose request went as it came. It may get a session here."""
        session = self._carried(exchange)
        if session is None:
            return
        now = self._clock()
        if now >= session.expires:
            self.kept.drop(session)
        elif self.kept.follow(session, exchange.request.headers, answer.headers):
            if session.next is not None:
                self._give(exchange, session, session.next, answer)
            elif (
                session.due.is_due(now)
                and answer.status < 500
                and answer.status not in _NOT_TAKEN
                and self._speaks_for(exchange, session)
            ):
                session.due.begin()
                self._tasks.begin(self._renew_kept(session))

    def refused(self, exchange: Exchange) -> None:
        """The app asked for a sign-in: what the request came with is no session any more."""
        session = self._carried(exchange)
        if session is not None:
            self.kept.drop(session)

    def _carried(self, exchange: Exchange) -> KeptSession | None:
        headers = exchange.request.headers
        return self.kept.carried(exchange.origin, client_key(exchange), headers)

    def _speaks_for(self, exchange: Exchange, session: KeptSession) -> bool:
        """Whether the proxy may act on this request, and by the very word that it was begun with.

        Where the person changed their mind, or a key was exchanged, the session is left to end.
        """
        origin = exchange.origin
        self._trust().refresh()
        app = self._is_in_force(origin, session.app.profile)
        if app is None or app != session.app:
            self.kept.drop(session)
            return False
        verdict = ruling(exchange.request, origin, app.allow_from)
        return verdict.authority is Authority.REPLAY

    def _give(
        self, exchange: Exchange, session: KeptSession, done: HandedOver, answer: ResponseHead
    ) -> None:
        """The new session, in an answer that does not set the old one anew: once."""
        assert done.granted is not None
        if exchange.upgrade or cookies.names_set(answer.headers) & {*session.names}:
            return  # the next answer will do
        if not self._speaks_for(exchange, session):
            return
        self.kept.drop(session)
        self.renewed += 1
        cookies.give(answer.headers, done.granted.set_cookies)
        self.keep(exchange, done)

    async def _renew_kept(self, session: KeptSession) -> None:
        def wanted() -> bool:
            return session in self.kept

        due, bound = session.due, session.bound
        session.next = await self._renew(session.origin, session.app.profile, bound, due, wanted)

    # -- of both -----------------------------------------------------------------------------------

    def _is_in_force(self, origin: Origin, profile: str) -> AppTrust | None:
        """The trust that a session of this profile goes with; None: there is none any more."""
        app = self._trust().app(origin)
        if app is None or app.profile != profile or origin in self.signed_out_of:
            return None
        return app

    async def _renew(
        self, origin: Origin, profile: str, bound: Bound, due: Due, wanted: Callable[[], bool]
    ) -> HandedOver | None:
        done = None
        try:
            done = await self._sign_in(origin, profile, bound, wanted=wanted)
        except IamAuthError as error:
            detail = {"origin": str(origin), "code": error.code, "detail": str(error)}
            log.warning("a session was not renewed ahead", extra=detail)
        if done is None:
            due.failed(self._clock())
        return done if wanted() else None


def client_key(exchange: Exchange) -> str:
    """What tells one client of this machine from another: where it came in, its address, its name.

    Ports differ between the connections of one browser, so they cannot be part of it.
    """
    agent = (exchange.request.get(b"user-agent") or b"")[:_AGENT].decode("latin-1")
    return f"{exchange.entrance.name} {exchange.client.rpartition(':')[0]} {agent}"
