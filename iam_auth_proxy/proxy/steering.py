"""What the relay asks, answered: the composition of ``decide``, ``signin`` and ``pages``."""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import Final

from iam_auth_proxy.errors import IamAuthError, NotTrusted, PathError
from iam_auth_proxy.names import Origin
from iam_auth_proxy.protocol.handoff import AUTH_PATH
from iam_auth_proxy.proxy.decide import Refuse, SessionEnded, SignIn, decide
from iam_auth_proxy.proxy.pages.stop import Stop
from iam_auth_proxy.proxy.signin import SignIns, client_key
from iam_auth_proxy.proxy.tickets import TicketUrl, parse_url
from iam_auth_proxy.relay.exchange import Exchange, Reply, ResponseHead

log = logging.getLogger(__name__)

_TICKET_PREFIX: Final = AUTH_PATH.encode("ascii") + b"?"


class Steering:
    """Implements :class:`~iam_auth_proxy.relay.exchange.Steering`.

    :param literal: the original's form of the redirect, with the token in the URL.
    :param monotonic: seconds.
    """

    def __init__(self, signins: SignIns, *, literal: bool, monotonic: Callable[[], float]) -> None:
        self.signins = signins
        self.literal = literal
        self.challenges_refused = 0
        self._loops = Loops()
        self._monotonic = monotonic

    def before(self, exchange: Exchange) -> Awaitable[Reply | None] | None:
        """A ticket that comes back; everything else goes to the app."""
        if not exchange.request.target.startswith(_TICKET_PREFIX):
            return None
        url = parse_url(exchange.request.target, AUTH_PATH)
        if url is None or not self.signins.trust.trusts(exchange.origin):
            return None
        return self._redeem(exchange, url)

    def after(self, exchange: Exchange, answer: ResponseHead) -> Awaitable[Reply | None] | None:
        """A challenge of a trusted origin begins a sign-in; every other answer goes through."""
        if answer.status != 401:
            return None
        decision = decide(exchange.request, answer, exchange.origin, self.signins.trust)
        if decision is None:
            return None
        return self._act(exchange, answer, decision)

    def reads_tunnel(self, origin: Origin) -> bool:
        """No tunnel is read yet."""
        return False

    def failed(self, exchange: Exchange, error: PathError) -> Reply:
        """The page for a path that failed."""
        return self._stop(exchange, error)

    def refused(self, status: int, reason: str, client: str) -> Reply:
        """A request that is not forwarded. Its sender may be anybody, so nothing is quoted."""
        log.info("request refused", extra={"status": status, "reason": reason, "client": client})
        phrase = HTTPStatus(status).phrase
        return Stop(status, f"{phrase}: {reason}", "refused").reply(b"text/plain")

    async def _act(
        self, exchange: Exchange, answer: ResponseHead, decision: SignIn | SessionEnded | Refuse
    ) -> Reply:
        if isinstance(decision, Refuse):
            self.challenges_refused += 1
            return self._stop(exchange, decision.error)
        if isinstance(decision, SessionEnded):
            return _session_ended(exchange)
        origin, target = exchange.origin, exchange.request.target
        if self._loops.turn((client_key(exchange), origin, target), self._monotonic()):
            return _loop(exchange, answer)
        try:
            if self.literal:
                return await self.signins.redirect_with_token(exchange, decision.challenge)
            return await self.signins.redirect_with_ticket(exchange, decision.challenge)
        except IamAuthError as error:
            return self._stop(exchange, error)

    async def _redeem(self, exchange: Exchange, url: TicketUrl) -> Reply:
        try:
            return await self.signins.redeem(exchange, url)
        except PathError:
            raise  # the relay counts it, says Proxy-Status, and asks for the page
        except IamAuthError as error:
            return self._stop(exchange, error)

    def _stop(self, exchange: Exchange, error: IamAuthError) -> Reply:
        origin = exchange.origin
        status, code = error.status, error.code
        if isinstance(error, PathError):
            status, code = error.http_status, error.error
        log.warning("stopped", extra={"origin": str(origin), "code": code, "detail": str(error)})
        headers: tuple[tuple[bytes, bytes], ...] = ()
        if status == 503:
            headers = ((b"Retry-After", b"5"),)
        # A stranger's scripts may read this: nothing but what to do about the stranger.
        told = isinstance(error, NotTrusted) or self.signins.trust.trusts(origin)
        remedy = error.remedy if told else ""
        stop = Stop(status, error.public, code, remedy, str(origin))
        return stop.reply(exchange.request.get(b"accept") or b"", headers=headers)


def _session_ended(exchange: Exchange) -> Reply:
    """A request that a redirect would rob of its body. Nothing was sent twice, nothing is lost."""
    stop = Stop(
        403,
        "Your session with this app has ended, and nothing was sent.",
        "session-ended",
        f"Open {exchange.origin}/ in another tab, then send this again.",
        str(exchange.origin),
    )
    return stop.reply(exchange.request.get(b"accept") or b"")


def _loop(exchange: Exchange, answer: ResponseHead) -> Reply:
    stop = Stop(
        401,
        "The app asked for a sign-in again and again.",
        "loop",
        "Your client must keep cookies: curl needs -L and -b ''. If it does, tell the app's owner.",
        str(exchange.origin),
    )
    # A 401 says how to authenticate (RFC 9110 section 15.5.2): in the app's own words.
    asked = tuple((b"WWW-Authenticate", value) for value in answer.get_all(b"www-authenticate"))
    return stop.reply(exchange.request.get(b"accept") or b"", headers=asked)


class Loops:
    """Breaks a client out of signing in again and again at one URL.

    :param turns: sign-ins of one client at one URL that are allowed in ``seconds``.
    """

    def __init__(self, turns: int = 3, seconds: float = 10.0, limit: int = 1024) -> None:
        self._turns = turns
        self._seconds = seconds
        self._limit = limit
        self._seen: OrderedDict[tuple[str, Origin, bytes], list[float]] = OrderedDict()

    def turn(self, key: tuple[str, Origin, bytes], now: float) -> bool:
        """Counts one sign-in; whether it is one too many."""
        times = [time for time in self._seen.pop(key, []) if now - time < self._seconds]
        if len(times) >= self._turns:
            self._seen[key] = times
            return True
        self._seen[key] = [*times, now]
        while len(self._seen) > self._limit:
            self._seen.popitem(last=False)
        return False
