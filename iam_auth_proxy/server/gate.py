"""The gate: request facts in, ``Allow`` or ``Reply`` out (steps 3 and 11 to 18).

A request passes with a valid session of an identity that is allowed, or with a service token
(``service``), which comes before a session where both are there. Without one it is answered
with a challenge, which iam-auth-proxy answers with ``POST /auth``, and the original with
``GET /auth``; that brings the session. The gate's own pages are ``/auth``, ``/auth/whoami`` and
``/auth/logout``.

The gate is synchronous and knows no framework. :meth:`Gate.check_offline` decides everything that
needs no AWS; where it answers None, :meth:`Gate.check_online` blocks for as long as AWS takes.
:meth:`Gate.check` is both. None of them raises.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Final, Self, TypeVar

from iam_auth_proxy.aws.base import Kms, Sts
from iam_auth_proxy.errors import (
    AwsUnavailable,
    BadServiceToken,
    ConfigError,
    ForeignPage,
    IamAuthError,
    Malformed,
    Misconfigured,
    NonceKeyUnknown,
    Refused,
    StoreUnavailable,
    TooManyRequests,
)
from iam_auth_proxy.names import Origin
from iam_auth_proxy.protocol.handoff import BoundHandoff, Handoff
from iam_auth_proxy.protocol.identity import Identity
from iam_auth_proxy.protocol.keyring import Health, Rings
from iam_auth_proxy.protocol.proof import ProofKind
from iam_auth_proxy.server import answers, factory, pages, replay, settings
from iam_auth_proxy.server.announce import announce
from iam_auth_proxy.server.bound import BoundSignIn
from iam_auth_proxy.server.contexts import Contexts
from iam_auth_proxy.server.facts import Allow, Answer, Reply, RequestFacts
from iam_auth_proxy.server.front import Front, Place
from iam_auth_proxy.server.handshake import check_page
from iam_auth_proxy.server.home import Homing
from iam_auth_proxy.server.legacy import LegacySignIn
from iam_auth_proxy.server.limits import SignInLimits
from iam_auth_proxy.server.refusals import Refusals
from iam_auth_proxy.server.replay import Stores
from iam_auth_proxy.server.service import Presented, ServiceTokens
from iam_auth_proxy.server.sessions import Sessions, Visit, Visitor
from iam_auth_proxy.server.settings import Settings
from iam_auth_proxy.server.signing_in import OtherIdentity, SigningIn
from iam_auth_proxy.server.verifier import Verifier, admits

log = logging.getLogger(__name__)

T = TypeVar("T")


class Gate:
    """One app's gate. The keyword arguments are those of :data:`settings.SETTINGS`.

    ``origins`` is required here; :meth:`from_env` behaves as the original where it is absent.
    Nothing is asked of AWS before the first request.

    :param kms: instead of a boto3 client; ``sts`` as well.
    :param stores: instead of those that ``replay`` names: what remembers used proofs.
    :param rings: the key ring, instead of the one that ``keyring`` names.
    :raises ConfigError: with every problem.
    """

    def __init__(
        self,
        in_force: Settings | None = None,
        /,
        *,
        kms: Kms | None = None,
        sts: Sts | None = None,
        stores: Stores | None = None,
        limits: SignInLimits | None = None,
        rings: Rings | None = None,
        **values: object,
    ) -> None:
        if in_force is not None and values:
            raise TypeError(f"settings are in force, so {min(values)}= would not count")
        self.settings: Final = in_force or settings.load(values, rings=rings is not None)
        self._rings = factory.rings(self.settings, rings)
        stores = replay.open_stores(self.settings.replay) if stores is None else stores
        self._stores = stores
        self._front = Front(self.settings.origins, self.settings.trusted_proxies)
        self._sessions = Sessions(self.settings, self._rings, stores.sessions)
        self._limits = SignInLimits() if limits is None else limits
        aws = factory.clients(self.settings, kms, sts)
        self._homing = Homing(self.settings, aws)
        self._tokens = ServiceTokens(self.settings, aws)
        self._contexts = Contexts(self.settings, self._rings)
        verifier = Verifier(aws, self.settings.allow)
        self._bound = BoundSignIn(self.settings, self._rings, self._contexts, verifier, stores)
        legacy = LegacySignIn(self.settings, self._contexts, verifier, stores.proofs)
        self._signing_in = SigningIn(
            self.settings, self._bound, legacy, self._homing, self._sessions, self._rings,
            stores.proofs,
        )  # fmt: skip
        path = self.settings.path
        self._whoami, self._logout = path + "/whoami", path + "/logout"
        self._refusals = Refusals(self.settings.help_url, self._logout, self._signing_in)
        self.paths: Final = (path, self._whoami, self._logout)
        announce(self.settings)

    @classmethod
    def from_env(
        cls,
        environ: Mapping[str, str] | None = None,
        *,
        kms: Kms | None = None,
        sts: Sts | None = None,
        rings: Rings | None = None,
        **values: object,
    ) -> Self:
        """A gate with its settings from the environment; arguments come before variables.

        With the original's variables alone (``AWS_ACCOUNT_ID SECRET_KEY KMS_KEY_ID KMS_SALT``) it
        behaves as the original: it takes session credentials, and any Host. With
        ``IAM_AUTH_ORIGINS`` besides it takes every proof of the bound protocol too.

        :param environ: instead of ``os.environ``.
        :raises ConfigError: with every problem.
        """
        environ = os.environ if environ is None else environ
        in_force = settings.load(values, environ, warn=log.warning, rings=rings is not None)
        return cls(in_force, kms=kms, sts=sts, rings=rings)

    # -- the key ring ------------------------------------------------------------------------------

    def start(self, now: float) -> None:
        """Read the key ring now, rather than at the first request; for the start of an app. Blocks.

        Where AWS or the store does not answer, the app may start all the same: requests get 503
        until they do, and :meth:`health` and the log say so. A gate with a secret key has nothing
        to read. Servers that fork their workers call this in each worker, if at all.

        :raises ConfigError: waiting does not mend it: there is no such ring, it does not open, or
            AWS refuses to show it.
        """
        self._rings.start(now)

    def health(self, now: float) -> Health:
        """Whether the key ring is fresh, and from when it is; for an app's health page.

        A ring that is not fresh serves on. One that was never read (``read_at`` is 0) does not.
        """
        return self._rings.health(now)

    def close(self) -> None:
        """Follow the key ring no longer, and close the replay file; for tests, and for apps that
        drop a gate and live on. Requests are answered after it, too; one that is under way may get
        503.
        """
        self._rings.close()
        self._stores.close()

    # -- requests ----------------------------------------------------------------------------------

    def check(self, facts: RequestFacts, now: float) -> Answer:
        """What becomes of the request. Blocks where AWS has to be asked."""
        answer = self.check_offline(facts, now)
        return self.check_online(facts, now) if answer is None else answer

    def check_offline(self, facts: RequestFacts, now: float) -> Answer | None:
        """The same without AWS, in microseconds; None where AWS has to be asked."""
        return self._guarded(self._decide, facts, now)

    def check_online(self, facts: RequestFacts, now: float) -> Answer:
        """Goes on where :meth:`check_offline` answered None. Blocks."""
        return self._guarded(self._ask_aws, facts, now)

    def takes_body(self, facts: RequestFacts) -> bool:
        """For adapters: whether this is the one request whose body the gate wants to see.

        They add it to the facts, at most one byte more than ``handoff.MAX_FORM`` of it. All other
        bodies are the app's.
        """
        return self._signing_in.takes_body(facts)

    def unavailable(self, facts: RequestFacts, error: AwsUnavailable) -> Reply:
        """For adapters: the answer where :meth:`check` took too long."""
        return self._refusals.answer(facts, error)

    def misconfigured(self, facts: RequestFacts, error: ConfigError) -> Reply:
        """For adapters: the answer of an app that the gate cannot be mounted in."""
        log.error("the gate is not mounted: %s", error)
        wrong = Misconfigured(str(error))
        return answers.refusal(facts, wrong, pages.problem(wrong, self.settings.help_url))

    def accept(
        self,
        handoff: Handoff | BoundHandoff,
        now: float,
        *,
        origin: Origin | None = None,
        cookies: Sequence[str] = (),
    ) -> Identity:
        """Whose proof this is, for apps with a session mechanism of their own. Blocks.

        The proof is spent by this. Neither a session nor a rate limit is involved. That a bound
        hand-over does not come from another site (Origin, Sec-Fetch-Site) is the app's to check.

        :param origin: of a bound hand-over: what the request asked for; one of ``origins``.
        :param cookies: of a bound hand-over: the values of the request's Cookie fields.
        :raises Refused: see protocol section 5 for the codes.
        :raises Malformed: what was sealed is not a proof.
        :raises AwsUnavailable: it could not be checked; StoreUnavailable as well.
        :raises Misconfigured: the same, and this app's own AWS identity, key or clock is at fault.
        """
        self._rings.wait(now)
        return self._signing_in.accept(handoff, now, origin, cookies)

    def new_cookie(
        self,
        identity: Identity,
        origin: Origin,
        now: float,
        proof: ProofKind = ProofKind.SIGNED_IDENTITY,
    ) -> str:
        """A Set-Cookie value for a session of this identity at this origin.

        Blocks where the key ring has not been read yet.

        :raises StoreUnavailable: it cannot be.
        """
        self._rings.wait(now)
        return self._sessions.begin(identity, origin, proof.value, now)

    def revoke(self, session_id: str, now: float) -> None:
        """End a session that somebody else holds: its ``id`` is in the log of its sign-in.

        A service token is refused by the id in the log of its first use, ``token-...``. Whoever may
        use the KMS key makes another, so that is for a token that was stolen.

        It is over in every worker that shares the replay store. An identity as a whole, by session
        or token, is shut out by ``allow``, whose answer holds at once, and every session by
        ``sessions_issued_after``.

        Where ``replay`` is ``memory``, it is over in this process and nowhere else, and a warning
        says so.

        :raises StoreUnavailable: it could not be remembered, so it is not over.
        :raises StoreFull: the same.
        """
        self._sessions.revoke(session_id, now + self.settings.max_session, now)
        if isinstance(self._stores.sessions, replay.MemoryReplay):
            log.warning(
                "%r is over in this process alone (%d), since used proofs and ended sessions are "
                "in its memory: every other one goes on taking it. Set IAM_AUTH_REPLAY=file:PATH "
                "for the app and here, or shut its owner out by allow",
                session_id, os.getpid(),
            )  # fmt: skip

    # -- deciding ----------------------------------------------------------------------------------

    def _guarded(
        self, step: Callable[[RequestFacts, float], T], facts: RequestFacts, now: float
    ) -> T | Reply:
        try:
            return step(facts, now)
        except IamAuthError as error:
            return self._refusals.answer(facts, error)

    def _decide(self, facts: RequestFacts, now: float) -> Answer | None:
        if facts.path not in self.paths and self.settings.public.covers(facts):
            return self._public(facts, now)
        place = self._front.locate(facts)
        check_page(facts, self.settings.origins)
        token = self._token(facts)
        if token is not None:
            caller = self._tokens.known(token, place, now)
            return None if caller is None else self._by_token(facts, caller, now)
        if facts.path == self.settings.path:
            return self._auth(facts, place, now)
        if not self._rings.ready(now):
            return None
        visit = self._sessions.read(facts, place.origin, now)
        if visit.unknown and self._rings.may_reread(now):
            return None
        return self._by_session(facts, place, visit, now)

    def _by_token(self, facts: RequestFacts, caller: Visitor, now: float) -> Answer:
        if self._sessions.ended(caller.session.id, now):
            raise BadServiceToken(f"{caller.session.id} was revoked", field="token")
        return self._pass(facts, caller)

    def _by_session(
        self, facts: RequestFacts, place: Place, visit: Visit, now: float
    ) -> Answer | None:
        if facts.path == self._logout:
            return self._end(facts, place, visit, now)
        if visit.visitor is None:
            return self._challenge(facts, place, visit, now)
        return self._visitor(facts, place, visit.visitor, now)

    def _token(self, facts: RequestFacts) -> Presented | None:
        """A sign-in and a logout are about sessions, so there no token counts."""
        if facts.path in (self.settings.path, self._logout):
            return None
        return self._tokens.read(facts)

    def _public(self, facts: RequestFacts, now: float) -> Allow:
        """Nothing is asked of a public path, not even a known Host: health checks have none.

        To a WebSocket that another page opens everybody is nobody there.
        """
        try:
            place = self._front.locate(facts)
            check_page(facts, self.settings.origins)
            visitor = self._sessions.read(facts, place.origin, now).visitor
        except (Malformed, ForeignPage, StoreUnavailable):
            visitor = None
        hidden = self._tokens.hidden(facts)
        if visitor is None or not self._admits(visitor):
            return Allow(hidden=hidden)
        return Allow(visitor.identity, visitor.session, hidden=hidden)

    def _visitor(self, facts: RequestFacts, place: Place, visitor: Visitor, now: float) -> Answer:
        if not self._admits(visitor):
            raise OtherIdentity(
                f"{visitor.identity.arn} has a session and is not allowed",
                public="Your AWS identity is not allowed here.",
                remedy="Ask the app's owner to allow it, or sign out and come as another.",
            )
        return self._pass(
            facts, visitor, self._sessions.renewal(visitor.session, place.origin, now)
        )

    def _pass(self, facts: RequestFacts, visitor: Visitor, cookies: tuple[str, ...] = ()) -> Answer:
        if facts.path != self._whoami:
            return Allow(visitor.identity, visitor.session, cookies, self._tokens.hidden(facts))
        if facts.method not in ("GET", "HEAD"):
            return self._wrong_method(facts, "GET, HEAD")
        return answers.whoami(facts, visitor, cookies)

    def _admits(self, visitor: Visitor) -> bool:
        if not self._homing.covers(visitor.identity):
            return False
        return admits(self.settings.allow, visitor.identity, visitor.session.proof)

    def _challenge(
        self, facts: RequestFacts, place: Place, visit: Visit, now: float
    ) -> Reply | None:
        home = self._homing.home
        if home is None:
            return None
        context = self._contexts.of(self._contexts.epoch(now))
        bound = self._bound.offer(place.origin, now) if self._bound.on else None
        reply = answers.challenge(facts, place.origin, home, context, bound, self.settings.help_url)
        # A cookie whose key is unknown here may be good in all other workers: it is left alone.
        if visit.stale and not (visit.unknown and self._rings.rotates):
            reply = answers.with_cookie(reply, self._sessions.clear(place.origin))
        return reply

    def _auth(self, facts: RequestFacts, place: Place, now: float) -> Reply | None:
        """What can be said of a sign-in without AWS; None if it is worth asking."""
        if not self.takes_body(facts) and facts.method != "GET":
            return self._wrong_method(facts, "GET, POST" if self._bound.on else "GET")
        ready = self._rings.ready(now)
        if facts.method == "GET" and not facts.query:
            # Asks for nothing but a fresh challenge (the proxy does, before it renews a session).
            return self._challenge(facts, place, Visit(), now) if ready else None
        try:
            if ready:
                self._signing_in.read(facts, place, now)
        except NonceKeyUnknown:
            if not self._rings.may_reread(now):
                raise
        wait = self._limits.admit(place.client, now)
        if wait:
            raise TooManyRequests(f"sign-ins of {place.client or '-'}", retry_after=wait)
        return None

    def _end(self, facts: RequestFacts, place: Place, visit: Visit, now: float) -> Reply:
        if facts.method != "POST":
            return answers.wrong_method(facts, "POST", pages.sign_out(self._logout))
        if facts.all("origin") != [str(place.origin)]:
            raise Refused(
                "a logout from another site, or without Origin",
                public="Only a page of this app itself can sign you out.",
                remedy=f"Open {self._logout} in your browser, and press the button there.",
            )
        if visit.visitor is not None:
            self._sessions.end(visit.visitor.session, now)
            log.info("%s signed out of %s", visit.visitor.identity.arn, place.origin)
        return answers.signed_out(facts, self._sessions.clear(place.origin))

    def _wrong_method(self, facts: RequestFacts, allow: str) -> Reply:
        return answers.wrong_method(facts, allow, pages.wrong_method(allow))

    # -- asking AWS --------------------------------------------------------------------------------

    def _ask_aws(self, facts: RequestFacts, now: float) -> Answer:
        """What could not be decided: a service token, a sign-in, a challenge without a KMS key, or
        anything for which the key ring has to be read.
        """
        place = self._front.locate(facts)
        token = self._token(facts)
        if token is not None:
            return self._by_token(facts, self._tokens.verify(token, place, now), now)
        self._rings.wait(now)
        if self._lacks_key(facts, place, now):
            self._rings.reread(now)
        visit = self._sessions.read(facts, place.origin, now)
        if facts.path == self.settings.path:
            if facts.query or facts.method != "GET":
                return self._signing_in.answer(facts, place, visit.visitor, now)
            visit = Visit()
        if visit.visitor is None and facts.path != self._logout:
            self._homing.find(now)
        answer = self._by_session(facts, place, visit, now)
        assert answer is not None  # the KMS key is known now
        return answer

    def _lacks_key(self, facts: RequestFacts, place: Place, now: float) -> bool:
        """Whether the request names a key that is not in the ring.

        :raises Refused: as :meth:`SigningIn.read`; Malformed as well.
        """
        if self._sessions.read(facts, place.origin, now).unknown:
            return True
        if self.takes_body(facts):
            try:
                self._signing_in.read(facts, place, now)
            except NonceKeyUnknown:
                return True
        return False
