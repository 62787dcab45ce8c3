"""What the relay asks, answered: the composition of ``decide``, ``signin`` and ``pages``."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import Final, Protocol

from iam_auth_proxy.errors import (
    AppRefused,
    IamAuthError,
    KeyChanged,
    PathError,
    SignedOut,
)
from iam_auth_proxy.names import Origin
from iam_auth_proxy.protocol import nonce as nonces
from iam_auth_proxy.protocol.challenge import Challenge
from iam_auth_proxy.protocol.handoff import SIGNED_OUT_FIELD
from iam_auth_proxy.protocol.proof import ProofKind
from iam_auth_proxy.proxy import cookies
from iam_auth_proxy.proxy.decide import (
    Ask,
    Authority,
    Dance,
    Decision,
    Refuse,
    Replay,
    SignInMode,
    decide,
    ruling,
)
from iam_auth_proxy.proxy.handover import Challenged, Granted, redirect
from iam_auth_proxy.proxy.held import HeldSession
from iam_auth_proxy.proxy.limits import Loops
from iam_auth_proxy.proxy.pages import explain
from iam_auth_proxy.proxy.pages.stop import Stop
from iam_auth_proxy.proxy.signin import SignIns, StartAgain, client_key
from iam_auth_proxy.proxy.tickets import TICKET, TicketUrl, parse_url
from iam_auth_proxy.relay.exchange import REPEAT, Exchange, Repeat, Reply, ResponseHead

log = logging.getLogger(__name__)

_SIGNED_OUT: Final = SIGNED_OUT_FIELD.lower().encode("ascii")
_SAFE: Final = (b"GET", b"HEAD")


class Asks(Protocol):
    """Questions to the person, on the proxy's own address."""

    def ask(
        self,
        *,
        kind: str,
        origin: Origin,
        realm: str,
        key: str,
        old_key: str,
        proof: ProofKind,
        profile: str,
        identity: str,
        way_back: str,
    ) -> str | None:
        """The path of the page that asks; None where there is no room for another question."""
        ...


class Answered(Protocol):
    """A question that was answered."""

    @property
    def kind(self) -> str: ...
    @property
    def origin(self) -> Origin: ...
    @property
    def key(self) -> str: ...


class _Memo:
    """What steering remembers of one exchange.

    :ivar held: the held session that the request went with.
    :ivar granted: the session of the sign-in that this request caused.
    :ivar shared: that sign-in was another request's, and over before this one was challenged: its
        session may have ended since, and a sign-in of its own is owed still.
    :ivar restarted: the request was repeated as it came, for a fresh challenge.
    """

    __slots__ = ("granted", "held", "restarted", "shared")

    def __init__(self) -> None:
        self.held: HeldSession | None = None
        self.granted: Granted | None = None
        self.restarted = False
        self.shared = False


class Steering:
    """Implements :class:`~iam_auth_proxy.relay.exchange.Steering`.

    :param questions: asks the person; None where the proxy has no pages that a browser can reach.
    :param own_address: ``host:port`` of those pages.
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
    ) -> None:
        self.signins = signins
        self.mode = mode
        self.challenges_refused = 0
        self._held = signins.held.origins  # nothing is hashed where nothing is held
        self._loops = Loops()
        self._monotonic = monotonic
        self._questions = questions
        self._own_address = own_address

    # -- the relay's questions ---------------------------------------------------------------------

    def before(self, exchange: Exchange) -> Awaitable[Reply | None] | None:
        """A ticket that comes back; a held session, and a body to keep; all else just goes on."""
        request = exchange.request
        if TICKET in request.target:
            path = self.signins.ticket_path(exchange.origin)
            url = parse_url(request.target, path) if path is not None else None
            if url is not None:
                return self._redeem(exchange, url)
        held = bool(self._held) and exchange.origin in self._held
        if held or request.method not in _SAFE or not exchange.repeatable:
            self._prepare(exchange, held)
        return None

    def after(
        self, exchange: Exchange, answer: ResponseHead
    ) -> Awaitable[Reply | Repeat | None] | None:
        """A challenge of a trusted origin begins a sign-in; every other answer goes through."""
        if answer.status != 401:
            if exchange.memo is not None or exchange.request.method == b"POST":
                self._settle(exchange, answer)
            return None
        return self._challenged(exchange, answer)

    def _challenged(
        self, exchange: Exchange, answer: ResponseHead
    ) -> Awaitable[Reply | Repeat | None] | None:
        signins = self.signins
        memo = exchange.memo
        if isinstance(memo, _Memo) and memo.held is not None:
            signins.held.drop(memo.held)
            memo.held = None
        signins.trust.refresh()
        decision = decide(
            exchange.request,
            answer,
            exchange.origin,
            signins.trust,
            mode=self.mode,
            signed_out=signins.signed_out_of,
        )
        if decision is None:
            if signins.trust.trusts(exchange.origin):
                _drop_nonce_cookies(answer)
            self._settle(exchange, answer)
            return None
        if isinstance(memo, _Memo) and memo.granted is not None:
            signins.forget(exchange.origin)
            if not memo.shared:
                return _now(explain.fruitless(exchange.origin, answer, _accept(exchange)))
            memo.granted, memo.shared = None, False
        return self._act(exchange, answer, decision)

    def reads_tunnel(self, origin: Origin) -> bool:
        """Browsers reach the WebSockets of plain-http apps through CONNECT."""
        return origin.scheme == "http" and self.signins.trust.trusts(origin)

    def failed(self, exchange: Exchange, error: PathError) -> Reply:
        """The page for a path that failed."""
        return self._stop(exchange, error)

    def refused(self, status: int, reason: str, client: str) -> Reply:
        """A request that is not forwarded. Its sender may be anybody, so nothing is quoted."""
        log.info("request refused", extra={"status": status, "reason": reason, "client": client})
        phrase = HTTPStatus(status).phrase
        return Stop(status, f"{phrase}: {reason}", "refused").reply(b"text/plain")

    # -- the person's answers ----------------------------------------------------------------------

    def answered(self, question: Answered, choice: str) -> None:
        """What the person said on the confirm page: ``once``, ``always`` or ``no``.

        :raises IamAuthError: it could not be kept.
        """
        if choice == "no":
            return
        signins = self.signins
        if question.kind != "again":
            signins.trust.grant(
                question.origin,
                key=question.key,
                kind=ProofKind.SIGNED_IDENTITY,
                keep=choice == "always",
            )
            signins.forget(question.origin)
        signins.signs_in_again(question.origin)

    # -- requests ----------------------------------------------------------------------------------

    def _prepare(self, exchange: Exchange, held: bool) -> None:
        """What the proxy adds to a request, and keeps of it, within its authority."""
        if held:
            self.signins.trust.refresh()  # a session goes with the trust that it was begun in
        app = self.signins.trust.app(exchange.origin)
        if app is None:
            return
        request = exchange.request
        verdict = ruling(request, exchange.origin, app.allow_from)
        if verdict.authority is not Authority.REPLAY:
            return
        exchange.hold = request.method not in _SAFE or not exchange.repeatable
        if held and (verdict.program or exchange.entrance.private):
            session = self.signins.held_for(exchange)
            if session is not None and session.put_into(request.target, request.headers):
                memo = _memo(exchange)
                memo.held = session

    def _settle(self, exchange: Exchange, answer: ResponseHead) -> None:
        """An answer that goes through: what it says of sessions."""
        memo = exchange.memo
        if isinstance(memo, _Memo):
            if memo.granted is not None:
                _give(answer, memo.granted)
            if memo.held is not None:
                if memo.held.take_over(answer.headers):
                    self.signins.served(memo.held)
                else:
                    self.signins.held.drop(memo.held)
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
            return self._stop(exchange, error)

    # -- challenges --------------------------------------------------------------------------------

    async def _act(
        self, exchange: Exchange, answer: ResponseHead, decision: Decision
    ) -> Reply | Repeat | None:
        if isinstance(decision, Refuse):
            self.challenges_refused += 1
            return self._stop(exchange, decision.error)
        if isinstance(decision, Ask):
            return self._ask(exchange, decision)
        try:
            challenged = Challenged.of(decision.challenge, answer.headers, exchange.origin)
            if isinstance(decision, Replay):
                return await self._replay(exchange, answer, challenged, decision.program)
            return await self._dance(exchange, answer, challenged, decision)
        except PathError:
            raise
        except KeyChanged as changed:
            self.signins.forget(exchange.origin)
            if isinstance(decision, Dance) and changed.question:
                return self._ask(exchange, decision, changed)
            return self._stop(exchange, changed)
        except IamAuthError as error:
            return self._stop(exchange, error, decision.challenge)

    async def _dance(
        self, exchange: Exchange, answer: ResponseHead, challenged: Challenged, decision: Dance
    ) -> Reply:
        origin, target = exchange.origin, exchange.request.target
        if self._loops.turn((client_key(exchange), origin, target), self._monotonic()):
            return explain.circling(origin, answer, _accept(exchange))
        if decision.literal:
            return await self.signins.redirect_with_token(exchange, challenged)
        return await self.signins.redirect_with_ticket(exchange, challenged)

    async def _replay(
        self, exchange: Exchange, answer: ResponseHead, challenged: Challenged, program: bool
    ) -> Reply | Repeat:
        memo = _memo(exchange)
        if not exchange.repeatable and self.signins.gave(exchange, challenged):
            # It was sent again with the session, as it was told to, and in vain.
            return explain.fruitless(exchange.origin, answer, _accept(exchange))
        try:
            hold = program or exchange.entrance.private
            done, memo.shared = await self.signins.session(exchange, challenged, hold=hold)
        except StartAgain:
            if memo.restarted or not exchange.repeatable:
                raise AppRefused("the app challenges whoever hands over a proof") from None
            memo.restarted = True
            return REPEAT
        assert done.granted is not None
        granted = done.granted
        request = exchange.request
        if not exchange.repeatable:
            # Its body is gone: the client sends it again, to the very same URL.
            location = str(exchange.origin) + request.target.decode("latin-1")
            return redirect(location, status=307, set_cookies=granted.set_cookies)
        memo.held, memo.granted = None, granted
        fitting = [cookie for cookie in granted.cookies if cookie.goes_with(request.target)]
        cookies.put(request.headers, fitting)
        return REPEAT

    def _ask(
        self, exchange: Exchange, decision: Ask | Dance, changed: KeyChanged | None = None
    ) -> Reply:
        """To the page that asks the person, or the stop page where there is none."""
        origin, challenge = exchange.origin, decision.challenge
        kind = "key" if changed is not None else decision.kind if isinstance(decision, Ask) else ""
        app = self.signins.trust.app(origin)
        profile = app.profile if app is not None else ""
        path = None
        if self._questions is not None and self._own_address:
            path = self._questions.ask(
                kind=kind,
                origin=origin,
                realm=challenge.realm,
                key=challenge.key.text,
                old_key=changed.old if changed is not None else "",
                proof=self._proof(origin, challenge),
                profile=profile,
                identity=self.signins.known_identity(profile),
                way_back=str(origin) + exchange.request.target.decode("latin-1"),
            )
        if path is not None:
            return redirect(f"http://{self._own_address}{path}")
        self.challenges_refused += 1
        if changed is not None:
            return self._stop(exchange, changed)
        if kind == "again":
            return self._stop(exchange, SignedOut(str(origin)))
        return self._stop(exchange, self.signins.trust.untrusted(origin))

    def _proof(self, origin: Origin, challenge: Challenge) -> ProofKind:
        """What the person would prove: what is in force where it is trusted."""
        try:
            return self.signins.trust.choose(origin, challenge)
        except IamAuthError:
            return ProofKind.SIGNED_IDENTITY

    # -- pages -------------------------------------------------------------------------------------

    def _stop(
        self, exchange: Exchange, error: IamAuthError, challenge: Challenge | None = None
    ) -> Reply:
        """:param challenge: the one that was being answered."""
        origin = exchange.origin
        log.warning(
            "stopped",
            extra={"origin": str(origin), "code": explain.code_of(error), "detail": str(error)},
        )
        trusted = self.signins.trust.trusts(origin)
        return explain.stopped(error, origin, _accept(exchange), trusted, challenge)


def _accept(exchange: Exchange) -> bytes:
    return exchange.request.get(b"accept") or b""


async def _now(reply: Reply) -> Reply:
    return reply


def _memo(exchange: Exchange) -> _Memo:
    memo = exchange.memo
    if not isinstance(memo, _Memo):
        memo = exchange.memo = _Memo()
    return memo


def _give(answer: ResponseHead, granted: Granted) -> None:
    """The session's cookies for the client, unless the app sets them anew in this very answer."""
    newer = {
        cookie.name
        for value in answer.get_all(b"set-cookie")
        if (cookie := cookies.parse_set_cookie(value)) is not None
    }
    given = [
        (b"Set-Cookie", value)
        for value in granted.set_cookies
        if value.partition(b"=")[0].strip() not in newer
    ]
    if given:
        answer.headers.extend(given)
        cookies.make_private(answer.headers)


def _drop_nonce_cookies(answer: ResponseHead) -> None:
    """A nonce is between the app and the proxy; no browser needs to keep it."""
    kept = [
        (name, value)
        for name, value in answer.headers
        if name.lower() != b"set-cookie" or not nonces.is_nonce_cookie(value)
    ]
    if len(kept) != len(answer.headers):
        answer.headers[:] = kept
