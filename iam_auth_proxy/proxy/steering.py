"""What the relay asks, answered: the composition of ``decide``, ``signin`` and ``pages``."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Collection
from dataclasses import replace
from typing import Final

from iam_auth_proxy.errors import (
    AppRefused,
    IamAuthError,
    KeyChanged,
    PathError,
    SignedOut,
)
from iam_auth_proxy.names import Origin
from iam_auth_proxy.protocol import nonce as nonces
from iam_auth_proxy.protocol.handoff import SIGNED_OUT_FIELD
from iam_auth_proxy.proxy.asking import Answered, Asking, Asks, accept, place_of
from iam_auth_proxy.proxy.carrying import Carrying, carries_token
from iam_auth_proxy.proxy.decisions import unidentified
from iam_auth_proxy.proxy.decisions.clicks import SAFE
from iam_auth_proxy.proxy.decisions.decide import (
    Ask,
    Authority,
    Dance,
    Decision,
    Refuse,
    Replay,
    SignInMode,
    decide,
    is_aside,
    is_challenge,
    ruling,
)
from iam_auth_proxy.proxy.decisions.limits import Loops, likeness
from iam_auth_proxy.proxy.https.aliases import Aliases
from iam_auth_proxy.proxy.https.intercept import INTERCEPT, Interception
from iam_auth_proxy.proxy.memo import Memo, memo_of
from iam_auth_proxy.proxy.pages import explain
from iam_auth_proxy.proxy.signin import cookies
from iam_auth_proxy.proxy.signin.handover import Challenged, redirect
from iam_auth_proxy.proxy.signin.jobs import SignedIn, StartAgain
from iam_auth_proxy.proxy.signin.servicetokens import may_carry
from iam_auth_proxy.proxy.signin.sessions import client_key
from iam_auth_proxy.proxy.signin.signins import SignIns
from iam_auth_proxy.proxy.signin.tickets import TICKET, TicketUrl, parse_url
from iam_auth_proxy.relay.exchange import (
    REPEAT,
    Entrance,
    Exchange,
    Repeat,
    Reply,
    ResponseHead,
    TlsEnd,
)

log = logging.getLogger(__name__)

_SIGNED_OUT: Final = SIGNED_OUT_FIELD.lower().encode("ascii")

RETURNS: Final = 12
"""Like requests of one client that are sent back with a session within ten seconds. A page asks for
some things several times at once; browsers themselves follow 20 redirects of one."""


class Steering:
    """Implements :class:`~iam_auth_proxy.relay.exchange.Steering`.

    :param questions: asks the person; None where the proxy has no pages that a browser can reach.
    :param own_address: ``host:port`` of those pages.
    :param hosts: the values of Host for them, as they are now.
    :param alias_port: where each alias has an address of its own; 0: nowhere.
    :param interception: has the certificates of listed hosts; None: every tunnel stays one.
    :param monotonic: seconds.
    """

    def __init__(
        self,
        signins: SignIns,
        *,
        mode: SignInMode = SignInMode.AUTO,
        monotonic: Callable[[], float],
        questions: Asks | None = None,
        own_address: str = "",
        hosts: Collection[str] = (),
        alias_port: int = 0,
        interception: Interception | None = None,
    ) -> None:
        self.signins = signins
        self.mode = mode
        self._sessions = signins.sessions
        self._held = signins.sessions.held.origins  # nothing is hashed where nothing is held
        self._kept = signins.sessions.kept.origins
        self._loops = Loops()
        self._returns = Loops(turns=RETURNS)
        self._monotonic = monotonic
        self._asking = Asking(signins, questions, own_address)
        self._carrying = Carrying(signins, self._asking.stop)
        self._interception = interception
        self._aliases = Aliases(lambda: signins.trust, hosts, monotonic, alias_port)

    @property
    def challenges_refused(self) -> int:
        """Challenges that were neither answered nor asked about."""
        return self._asking.refused

    # -- the relay's questions ---------------------------------------------------------------------

    def before(self, exchange: Exchange) -> Awaitable[Reply | None] | None:
        """A ticket that comes back; what is added, and a body to keep; all else just goes on."""
        if exchange.alias:
            return self._before_alias(exchange)
        request = exchange.request
        if request.target.find(TICKET) >= 0:  # `in` tries for a number first, and costs more
            path = self.signins.ticket_path(exchange.origin)
            url = parse_url(request.target, path) if path is not None else None
            if url is not None:
                return self._redeem(exchange, url)
        held = bool(self._held) and exchange.origin in self._held
        adds = self.signins.trust.adds
        if (
            held
            or (adds and exchange.origin in adds)
            or request.method not in SAFE
            or not exchange.repeatable
        ):
            return self._prepare(exchange, held)
        return None

    def after(
        self, exchange: Exchange, answer: ResponseHead
    ) -> Awaitable[Reply | Repeat | None] | None:
        """A challenge of a trusted origin begins a sign-in; every other answer goes through."""
        if exchange.alias:
            return self._after_alias(exchange, answer)
        if answer.status != 401:
            if exchange.memo is not None or exchange.request.method == b"POST":
                self._settle(exchange, answer)
            if exchange.memo is None and self._kept and exchange.origin in self._kept:
                self._sessions.passed(exchange, answer)
            return None
        return self._challenged(exchange, answer)

    def _challenged(
        self, exchange: Exchange, answer: ResponseHead
    ) -> Awaitable[Reply | Repeat | None] | None:
        signins = self.signins
        memo = exchange.memo
        if isinstance(memo, Memo) and memo.held is not None:
            signins.sessions.held.drop(memo.held)
            memo.held = None
        changed = signins.trust.refresh()
        decision = decide(
            exchange.request,
            answer,
            exchange.origin,
            signins.trust,
            mode=self.mode,
            signed_out=signins.signed_out_of,
            admitted=memo.admitted if isinstance(memo, Memo) else None,
        )
        if decision is None:
            if signins.trust.trusts(exchange.origin):
                _drop_nonce_cookies(answer)
                if is_aside(exchange.request) and is_challenge(answer):
                    cookies.leave_removals_out(answer.headers)
            if isinstance(memo, Memo) and memo.withheld:
                return _now(self._asking.refuse(exchange, SignedOut(str(exchange.origin))))
            if changed and exchange.repeatable and not carries_token(exchange):
                return self._token_after_all(exchange, answer)
            self._settle(exchange, answer)
            return None
        if self._kept and exchange.origin in self._kept:
            self._sessions.refused(exchange)
        if isinstance(memo, Memo) and memo.signed_in is not None:
            signins.forget(exchange.origin)
            if not memo.signed_in.shared:
                return _now(explain.fruitless(exchange.origin, answer, accept(exchange)))
            memo.signed_in = None
        return self._act(exchange, answer, decision)

    # -- apps that are known by another name -------------------------------------------------------

    def serves(self, host: bytes, entrance: Entrance) -> Origin | None:
        """See :meth:`~iam_auth_proxy.proxy.https.aliases.Aliases.serves`."""
        return self._aliases.serves(host, entrance)

    def _before_alias(self, exchange: Exchange) -> Awaitable[Reply | None] | None:
        """No ticket is taken here: no browser is sent through ``/auth``."""
        admitted = self._aliases.admit(exchange)
        if isinstance(admitted, Reply):
            return _now(admitted)
        memo_of(exchange).admitted = admitted
        return self._prepare(exchange, held=True)

    def _after_alias(
        self, exchange: Exchange, answer: ResponseHead
    ) -> Awaitable[Reply | Repeat | None] | None:
        verdict = None
        if answer.status == 401:
            verdict = self._challenged(exchange, answer)
        else:
            self._settle(exchange, answer)
        if verdict is not None:
            return self._outside(exchange, answer, verdict)
        answer.headers[:] = self._aliases.outside(exchange, answer.headers)
        return None

    async def _outside(
        self,
        exchange: Exchange,
        answer: ResponseHead,
        verdict: Awaitable[Reply | Repeat | None],
    ) -> Reply | Repeat | None:
        """Whatever goes to the browser goes in the alias's name, and without the session."""
        found = await verdict
        if isinstance(found, Reply):
            return replace(found, headers=self._aliases.outside(exchange, found.headers))
        if found is None:
            answer.headers[:] = self._aliases.outside(exchange, answer.headers)
        return found

    # -- other questions of the relay --------------------------------------------------------------

    def reads_tunnel(self, origin: Origin) -> bool:
        """Browsers reach the WebSockets of plain-http apps through CONNECT."""
        return origin.scheme == "http" and self.signins.trust.trusts(origin)

    def ends_tls(self, origin: Origin) -> TlsEnd | None:
        """Hosts that the person listed for it, and no others."""
        if self._interception is None:
            return None
        trust = self.signins.trust
        trust.refresh()  # what was listed a moment ago counts for the next connection
        app = trust.app(origin)
        if app is None or app.https != INTERCEPT:
            return None
        return self._interception.of(origin)

    def failed(self, exchange: Exchange, error: PathError) -> Reply:
        """The page for a path that failed."""
        link = ""
        if exchange.origin in self.signins.trust.clients and not exchange.identified:
            error, link = unidentified.refused(exchange, error)
        return self._asking.stop(exchange, error, link=link)

    def refused(self, status: int, reason: str, client: str) -> Reply:
        """A request that is not forwarded. Its sender may be anybody, so nothing is quoted."""
        log.info("request refused", extra={"status": status, "reason": reason, "client": client})
        return explain.refused(status, reason)

    def answered(self, question: Answered, choice: str) -> None:
        """See :meth:`~iam_auth_proxy.proxy.asking.Asking.answered`."""
        self._asking.answered(question, choice)
        if choice != "no":
            self._aliases.welcome(question.way_back)

    # -- requests ----------------------------------------------------------------------------------

    def _prepare(self, exchange: Exchange, held: bool) -> Awaitable[Reply | None] | None:
        """What the proxy adds to a request, and keeps of it, within its authority."""
        if held or exchange.origin in self.signins.trust.adds:
            # trust.toml may have changed: nothing is added on the strength of trust taken back.
            self.signins.trust.refresh()
        app = self.signins.trust.app(exchange.origin)
        if app is None:
            return None
        request, memo = exchange.request, exchange.memo
        verdict = memo.admitted if isinstance(memo, Memo) else None
        admitted = verdict is not None
        if verdict is None:
            verdict = ruling(request, exchange.origin, app.allow_from)
        certified = admitted or verdict.certified
        exchange.identified = certified and exchange.origin in self.signins.trust.clients
        if not admitted and verdict.authority is not Authority.REPLAY:
            return None
        exchange.hold = request.method not in SAFE or not exchange.repeatable
        if may_carry(request, app, verdict, admitted=admitted):
            return self._carrying.add(exchange, app)  # no session besides: whoever is asked is one
        if held and self._holds_for(exchange, verdict.program):
            session = self._sessions.held_for(exchange)
            if session is not None and session.put_into(request.target, request.headers):
                memo = memo_of(exchange)
                memo.held = session
                if exchange.alias:  # begun before it was one, maybe
                    self._aliases.learn(exchange.origin, session.cookies)
        return None

    async def _token_after_all(
        self, exchange: Exchange, answer: ResponseHead
    ) -> Reply | Repeat | None:
        """Where the entry that says so was written after the request had gone."""
        waiting = self._prepare(exchange, held=False)
        reply = await waiting if waiting is not None else None
        if reply is None and carries_token(exchange):
            if exchange.repeatable:
                return REPEAT
            memo_of(exchange).token = None  # this answer is not to a request with it
        self._settle(exchange, answer)
        return reply

    def _holds_for(self, exchange: Exchange, program: bool) -> bool:
        """Whether the session stays here, and goes with the client's requests from now on."""
        return program or exchange.entrance.private or bool(exchange.alias)

    def _settle(self, exchange: Exchange, answer: ResponseHead) -> None:
        """An answer that goes through: what it says of sessions."""
        memo = exchange.memo
        if isinstance(memo, Memo):
            if memo.signed_in is not None and exchange.alias:
                memo.held = self._sessions.held_for(exchange)
            elif memo.signed_in is not None:
                cookies.give(answer.headers, memo.signed_in.granted.set_cookies)
                if not memo.signed_in.is_over():
                    self._sessions.keep(exchange, memo.signed_in.done, answer)
            if memo.held is not None:
                if memo.held.take_over(answer.headers):
                    self._sessions.served(memo.held)
                else:
                    self._sessions.held.drop(memo.held)
            if memo.token is not None:
                self._carrying.answered(memo.token, exchange.origin, answer)
        if exchange.request.method == b"POST" and answer.get_all(_SIGNED_OUT) == [b"1"]:
            self._signed_out(exchange)

    def _signed_out(self, exchange: Exchange) -> None:
        """A logout counts from a page of the app's own: no other may end what the person began."""
        origin = exchange.origin
        own = exchange.request.get_all(b"origin") == [str(origin).encode("ascii")]
        if own and self.signins.trust.trusts(origin):
            self.signins.signed_out(origin)

    async def _redeem(self, exchange: Exchange, url: TicketUrl) -> Reply:
        try:
            return await self.signins.redeem(exchange, url)
        except PathError:
            raise  # the relay counts it, says Proxy-Status, and asks for the page
        except IamAuthError as error:
            return self._asking.stop(exchange, error)

    # -- challenges --------------------------------------------------------------------------------

    async def _act(
        self, exchange: Exchange, answer: ResponseHead, decision: Decision
    ) -> Reply | Repeat | None:
        if isinstance(decision, Refuse):
            return self._asking.refuse(exchange, decision.error)
        if isinstance(decision, Ask):
            return self._asking.ask(exchange, decision)
        try:
            challenged = Challenged.of(decision.challenge, answer.headers, exchange.origin)
            if isinstance(decision, Replay):
                return await self._replay(exchange, answer, challenged, decision)
            return await self._dance(exchange, answer, challenged, decision)
        except PathError:
            raise
        except KeyChanged as changed:
            self.signins.forget(exchange.origin)
            asks = isinstance(decision, Dance) or decision.navigation
            if asks and changed.question:
                return self._asking.ask(exchange, decision, changed)
            return self._asking.stop(exchange, changed)
        except IamAuthError as error:
            return self._asking.stop(exchange, error, decision.challenge)

    async def _dance(
        self, exchange: Exchange, answer: ResponseHead, challenged: Challenged, decision: Dance
    ) -> Reply:
        origin, target = exchange.origin, exchange.request.target
        if self._loops.turn((client_key(exchange), origin, target), self._monotonic()):
            return explain.circling(origin, answer, accept(exchange))
        if decision.literal:
            return await self.signins.redirect_with_token(exchange, challenged)
        return await self.signins.redirect_with_ticket(exchange, challenged)

    async def _replay(
        self, exchange: Exchange, answer: ResponseHead, challenged: Challenged, decision: Replay
    ) -> Reply | Repeat | None:
        memo = memo_of(exchange)
        if not exchange.repeatable and self.signins.gave(exchange, challenged):
            # The client was told to send the request again, did so with its new session, and the
            # app still answers with a challenge.
            return explain.fruitless(exchange.origin, answer, accept(exchange))
        try:
            hold = self._holds_for(exchange, decision.program)
            signed_in = await self.signins.session(exchange, challenged, hold=hold)
        except StartAgain:
            if memo.restarted or not exchange.repeatable:
                raise AppRefused("the app challenges whoever hands over a proof") from None
            memo.restarted = True
            return REPEAT
        granted, request = signed_in.granted, exchange.request
        if decision.framed and not hold and not granted.named_by(request.headers):
            return self._leave_to_browser(exchange, answer, signed_in)
        if exchange.alias:
            self._aliases.learn(exchange.origin, [cookie.name for cookie in granted.cookies])
        if not exchange.repeatable:
            # The body is no longer at hand, so the client is told to repeat the request itself.
            if exchange.alias:
                return redirect(place_of(exchange), status=307)
            if self._was_sent_again(exchange):
                return explain.circling(exchange.origin, answer, accept(exchange))
            return self._send_again(exchange, signed_in)
        memo.held, memo.signed_in = None, signed_in
        fitting = [cookie for cookie in granted.cookies if cookie.goes_with(request.target)]
        cookies.put(request.headers, fitting)
        return REPEAT

    def _send_again(self, exchange: Exchange, signed_in: SignedIn) -> Reply:
        """The client makes its request anew, with the session that it is given here."""
        if not signed_in.is_over():
            self._sessions.keep(exchange, signed_in.done)
        given = signed_in.granted.set_cookies
        return redirect(place_of(exchange), status=307, set_cookies=given)

    def _was_sent_again(self, exchange: Exchange) -> bool:
        """Whether it is one too many: it came back each time, and without the session."""
        turn = client_key(exchange), exchange.origin, likeness(exchange.request)
        return self._returns.turn(turn, self._monotonic())

    def _leave_to_browser(
        self, exchange: Exchange, answer: ResponseHead, signed_in: SignedIn
    ) -> Reply | None:
        """A page of the app's own asks, without any cookie of a session, not even an old one.

        Either it is new, or in a frame of another site, where the browser neither keeps the cookie
        nor sends it: then the app's 401 is the answer. A WebSocket cannot be made anew.
        """
        if exchange.upgrade or self._was_sent_again(exchange):
            _drop_nonce_cookies(answer)
            return None
        return self._send_again(exchange, signed_in)


async def _now(reply: Reply) -> Reply:
    return reply


def _drop_nonce_cookies(answer: ResponseHead) -> None:
    """A nonce is between the app and the proxy; no browser needs to keep it."""
    kept = [
        (name, value)
        for name, value in answer.headers
        if name.lower() != b"set-cookie" or not nonces.is_nonce_cookie(value)
    ]
    if len(kept) != len(answer.headers):
        answer.headers[:] = kept
