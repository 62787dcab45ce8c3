"""The steps of a sign-in that the proxy performs (numbers as in the README's picture).

Steps 4 to 7 make the token (``sealing``). For a navigation, step 8 sends the browser to ``/auth``
(or where the app takes its sign-ins) with a one-time ticket, or in the original's literal form with
the token; when the ticket comes back (step 9), the proxy hands the token to the app (step 10,
``handover``) and passes on the app's redirect and cookie (step 16). For a page's own requests and
for programs it does all of that by itself, and the request is repeated with the session.

Parallel challenges of one origin to one client share one sign-in (``jobs``). After a logout nothing
signs in there until the person says so.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Hashable
from functools import partial

from iam_auth_proxy.aws.base import Principals
from iam_auth_proxy.errors import AppRefused, SignedOut
from iam_auth_proxy.names import Origin
from iam_auth_proxy.protocol import handoff as handoffs
from iam_auth_proxy.protocol.challenge import Bound
from iam_auth_proxy.protocol.handoff import AUTH_PATH, Handoff
from iam_auth_proxy.protocol.proof import ProofKind
from iam_auth_proxy.proxy.decisions.limits import Pace
from iam_auth_proxy.proxy.decisions.trust import Trust
from iam_auth_proxy.proxy.signin import handover, tickets
from iam_auth_proxy.proxy.signin.appside import AppSide, Fetch
from iam_auth_proxy.proxy.signin.handover import Challenged, redirect, relayed, return_url
from iam_auth_proxy.proxy.signin.held import HeldSessions
from iam_auth_proxy.proxy.signin.jobs import HandedOver, Job, Jobs, SignedIn, StartAgain, Tasks
from iam_auth_proxy.proxy.signin.prover import AskMfa, OffLoop, Prover
from iam_auth_proxy.proxy.signin.sealing import ProfilesFor, Sealed
from iam_auth_proxy.proxy.signin.servicetokens import ServiceTokens
from iam_auth_proxy.proxy.signin.sessions import Sessions, client_key
from iam_auth_proxy.proxy.signin.tickets import Tickets, TicketUrl
from iam_auth_proxy.relay.exchange import Exchange, Reply

log = logging.getLogger(__name__)


class SignIns:
    """Performs sign-ins and remembers those under way.

    :ivar sessions: what they came to.
    :ivar tokens: service tokens, which take the place of sign-ins where an app wants them.
    :param profiles_for: the local profiles of an account, to name them where another is asked for.
    :param clock: wall-clock seconds; credentials and sessions expire by it.
    :param monotonic: seconds for tickets and sharing.
    """

    def __init__(
        self,
        *,
        principals: Principals,
        trust: Trust,
        off_loop: OffLoop,
        fetch: Fetch,
        ask_mfa: AskMfa | None,
        clock: Callable[[], float],
        monotonic: Callable[[], float],
        profiles_for: ProfilesFor = lambda account: (),
    ) -> None:
        self._tasks = Tasks()
        self._prover = Prover(
            principals, trust, off_loop, ask_mfa, clock, profiles_for, self._tasks
        )
        self._app = AppSide(fetch, clock)
        self.sessions = Sessions(lambda: self.trust, self._sign_in_ahead, self._tasks, clock)
        self.tokens = ServiceTokens(
            self._prover.service_token, self._is_now, self._tasks, clock, monotonic
        )
        self._clock = clock
        self._monotonic = monotonic
        self._tickets: Tickets[Job] = Tickets()
        self._jobs = Jobs()
        self._pace = Pace()

    @property
    def trust(self) -> Trust:
        """Whose challenges are answered."""
        return self._prover.trust

    @property
    def principals(self) -> Principals:
        """Who signs in."""
        return self._prover.principals

    @property
    def held(self) -> HeldSessions:
        """The sessions of programs."""
        return self.sessions.held

    @property
    def signed_out_of(self) -> set[Origin]:
        """Where the person signed out."""
        return self.sessions.signed_out_of

    @property
    def renewed(self) -> int:
        """Sessions that were renewed ahead; ``completed`` counts them too."""
        return self.sessions.renewed

    @property
    def completed(self) -> int:
        """Sign-ins that the app accepted."""
        return self._app.completed

    @property
    def rejected(self) -> int:
        """Tokens that the app did not accept."""
        return self._app.rejected

    @property
    def refused(self) -> int:
        """Sign-ins that came to no token: AWS, or the rules of trust, said no."""
        return self._prover.refused

    @property
    def unavailable(self) -> int:
        """Sign-ins that came to no token because AWS did not answer."""
        return self._prover.unavailable

    @property
    def in_progress(self) -> int:
        """Sign-ins and hand-overs under way."""
        return len(self._tasks)

    def reconfigure(self, principals: Principals, trust: Trust) -> None:
        """From now on; sign-ins under way end as they began, and no further request joins them."""
        self._prover.reconfigure(principals, trust)
        self.forget()

    def stop_asking(self) -> None:
        """See :meth:`Prover.stop_asking`."""
        self._prover.stop_asking()

    async def close(self) -> None:
        """End what is under way."""
        await self._tasks.close()

    # -- what is remembered ------------------------------------------------------------------------

    def forget(self, origin: Origin | None = None) -> int:
        """Drop the sessions of an origin, or of all, and what is known of it.

        :return: how many sessions were held.
        """
        self._jobs.forget(origin)
        self.tokens.forget(origin)
        return self.sessions.forget(origin)

    def signed_out(self, origin: Origin) -> int:
        """The person signed out there: nothing signs in again before :meth:`signs_in_again`.

        :return: how many sessions were held.
        """
        self._jobs.forget(origin, void=True)
        self.signed_out_of.add(origin)
        self.trust.forget(origin)
        log.info("signed out", extra={"origin": str(origin)})
        return self.forget(origin)

    def signs_in_again(self, origin: Origin) -> None:
        """Undoes a logout: the person wants to be signed in there again."""
        self.signed_out_of.discard(origin)

    def known_identity(self, profile: str) -> str:
        """The ARN that this profile was last seen to have; empty where AWS was not asked yet."""
        return self._prover.known.get(profile, "")

    # -- the dance ---------------------------------------------------------------------------------

    async def redirect_with_token(self, exchange: Exchange, challenged: Challenged) -> Reply:
        """Step 8 in the original's form: the token in the URL, relative to the scheme."""
        self._take_turn(exchange.origin, self._monotonic())
        sealed = await self._seal(exchange.origin, self._profile(exchange.origin), challenged)
        assert isinstance(sealed.token, bytes)  # decide() sends no bound challenge here
        handoff = Handoff(sealed.token, return_url(exchange.request, AUTH_PATH))
        location = f"//{exchange.origin.authority}{handoffs.write(AUTH_PATH, handoff)}"
        return redirect(location)

    async def redirect_with_ticket(self, exchange: Exchange, challenged: Challenged) -> Reply:
        """Step 8: to :meth:`ticket_path` on the app's own origin, with a ticket."""
        client = client_key(exchange)
        job = self._job(exchange, challenged, replay=False)
        await asyncio.shield(job.sealed)
        path = self.ticket_path(exchange.origin)
        if path is None:
            raise self.trust.untrusted(exchange.origin)
        back = return_url(exchange.request, challenged.path, path)
        ticket = self._tickets.issue(exchange.origin, client, back, job, self._monotonic())
        return redirect(tickets.write_url(path, TicketUrl(ticket, back)))

    def ticket_path(self, origin: Origin) -> str | None:
        """Where this origin's browsers come with tickets; None: it is a stranger.

        That is where it takes its sign-ins, as it was pinned: no page of the app is there.
        """
        app = self.trust.app(origin)
        return None if app is None else app.pin.path or AUTH_PATH

    async def redeem(self, exchange: Exchange, url: TicketUrl) -> Reply:
        """Steps 9 to 16: the token goes to the app, the app's redirect and cookie come back.

        A ticket that is not good (spent, late, after a restart) starts again at return_url.

        :raises PathError: the app could not be asked.
        :raises IamAuthError: the app said why it does not sign us in.
        """
        job = self._tickets.redeem(url, exchange.origin, client_key(exchange), self._monotonic())
        if (
            job is None
            or job.is_void()
            or (job.handed_over is None and not job.fresh(self._clock()))
        ):
            return redirect(url.return_url)
        done = await self._handed_over(job, url.return_url)
        answer = done.answer
        if job.is_void():
            return redirect(url.return_url)
        if not handover.accepted(answer):
            bound = done.challenged.challenge.bound is not None
            if not done.retried and handover.starts_again(answer, bound=bound):
                # The salt was rotated in between, or the token is too old: from the start.
                return redirect(url.return_url)
            if handover.error_code(answer):
                raise handover.refusal(answer, exchange.origin)
        if not job.is_over():
            self.sessions.keep(exchange, done)
        path = done.challenged.path
        return relayed(answer, job.return_url, url.return_url, exchange.origin, path)

    # -- the replay --------------------------------------------------------------------------------

    def gave(self, exchange: Exchange, challenged: Challenged) -> bool:
        """Whether this very request came with the session that this client was just given."""
        job = self._jobs.get(self._key(exchange, challenged))
        if job is None or job.handed_over is None or not job.handed_over.done():
            return False
        if job.handed_over.cancelled() or job.handed_over.exception():
            return False
        granted = job.handed_over.result().granted
        return granted is not None and granted.carried_by(exchange.request.headers)

    async def session(self, exchange: Exchange, challenged: Challenged, *, hold: bool) -> SignedIn:
        """Sign in, for a request that is then repeated.

        :param hold: keep the session for the programs that come in by this entrance.
        :raises StartAgain: with the answer to the request repeated without a session.
        :raises PathError: the app could not be asked.
        :raises IamAuthError: there is no session.
        """
        job = self._job(exchange, challenged, replay=True)
        shared = job.handed_over is not None and job.handed_over.done()
        await asyncio.shield(job.sealed)
        done = await self._handed_over(job, return_url(exchange.request, challenged.path))
        if job.is_void():
            raise SignedOut(f"signed out of {exchange.origin} while signing in")
        if not handover.accepted(done.answer):
            if challenged.challenge.bound is None and handover.starts_again(
                done.answer, bound=False
            ):
                raise StartAgain
            raise handover.refusal(done.answer, exchange.origin)
        if done.granted is None:
            raise AppRefused(
                f"{exchange.origin} answered the sign-in with {done.answer.status} and no cookie",
                public="The app took the sign-in and gave no session.",
                remedy="Tell the app's owner.",
            )
        signed_in = SignedIn(done, job, shared)
        if hold and not signed_in.is_over():
            self.sessions.hold(exchange.entrance.name, job.origin, done)
        return signed_in

    async def _sign_in_ahead(
        self, origin: Origin, profile: str, bound: Bound, *, wanted: Callable[[], bool]
    ) -> HandedOver | None:
        """See :class:`~iam_auth_proxy.proxy.signin.sessions.SignInAhead`.

        :raises IamAuthError: there is no session; PathError: the app could not be asked.
        """
        # Asked as a program would: with the client certificate for this app, where there is one.
        identified = origin in self.trust.clients
        fresh = await self._app.challenge(origin, bound, identified=identified)
        if fresh is None or self._profile(origin) != profile or not wanted():
            return None
        self._take_turn(origin, self._monotonic())
        sealed = await self._seal(origin, profile, fresh, unasked=True)
        if not wanted():
            return None
        done = await self._app.hand_over(
            origin, fresh, sealed, "/", profile=profile, identified=identified
        )
        return done if done.granted is not None else None

    # -- sealing -----------------------------------------------------------------------------------

    def _take_turn(self, origin: Origin, now: float) -> None:
        """One sign-in more.

        :raises TooManyRequests: they come too fast.
        """
        app = self.trust.app(origin)
        self._pace.take(origin, now, wildcard=app is not None and app.wildcard)

    def _profile(self, origin: Origin) -> str:
        app = self.trust.app(origin)
        if app is None:
            raise self.trust.untrusted(origin)
        return app.profile

    def _key(self, exchange: Exchange, challenged: Challenged) -> Hashable:
        """What two challenges have in common that one sign-in answers; a nonce is not of it."""
        challenge = challenged.challenge
        return (
            exchange.origin,
            exchange.identified,
            client_key(exchange),
            self._profile(exchange.origin),
            challenge.realm,
            challenge.key,
            tuple(sorted(challenge.context.items())),
            None if challenge.bound is None else challenge.bound.proofs,
            challenged.path,
        )

    def _job(self, exchange: Exchange, challenged: Challenged, *, replay: bool) -> Job:
        origin = exchange.origin
        now, wall = self._monotonic(), self._clock()
        profile = self._profile(origin)

        def begin() -> Job:
            self._take_turn(origin, now)
            sealed = self._tasks.begin(self._seal(origin, profile, challenged))
            shown = exchange.identified
            return Job(origin, profile, challenged, now, wall, sealed, identified=shown)

        sent = exchange.request.headers if replay else None
        return self._jobs.join(self._key(exchange, challenged), begin, now, wall, sent)

    async def _seal(
        self, origin: Origin, profile: str, challenged: Challenged, *, unasked: bool = False
    ) -> Sealed:
        sealed = await self._prover.seal(origin, profile, challenged.challenge, unasked=unasked)
        arn = sealed.identity.arn
        self.sessions.turned_out(profile, sealed.kind, arn)
        if sealed.kind is ProofKind.SIGNED_IDENTITY:
            self.tokens.is_now(profile, arn)
        return sealed

    def _is_now(self, profile: str, arn: str) -> None:
        """A service token was made: it says who a profile is as well as a sign-in does."""
        self.sessions.turned_out(profile, ProofKind.SIGNED_IDENTITY, arn)
        self.tokens.is_now(profile, arn)

    # -- handing over ------------------------------------------------------------------------------

    async def _handed_over(self, job: Job, back: str) -> HandedOver:
        if job.handed_over is None:
            job.return_url = back
            job.handed_over = self._tasks.begin(self._hand_over(job))
        return await asyncio.shield(job.handed_over)

    async def _hand_over(self, job: Job) -> HandedOver:
        """Step 10; once more with a fresh challenge where the app says that this one is spent."""
        challenged, sealed = job.challenged, job.sealed.result()
        origin, back = job.origin, job.return_url
        hand_over = partial(self._app.hand_over, profile=job.profile, identified=job.identified)
        done = await hand_over(origin, challenged, sealed, back)
        bound = challenged.challenge.bound
        if bound is None or not handover.starts_again(done.answer, bound=True):
            return done
        fresh = await self._app.challenge(origin, bound, identified=job.identified)
        if fresh is None:
            return done
        sealed = await self._seal(origin, job.profile, fresh)
        return await hand_over(origin, fresh, sealed, back, retried=True)
