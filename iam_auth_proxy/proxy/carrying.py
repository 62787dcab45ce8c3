"""Service tokens on requests: put there, waited for, and what the app's answer says of them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final

from iam_auth_proxy.errors import IamAuthError, SignedOut
from iam_auth_proxy.names import Origin
from iam_auth_proxy.proxy.decisions.rules import AppTrust
from iam_auth_proxy.proxy.memo import Memo, memo_of
from iam_auth_proxy.proxy.signin.servicetokens import Held
from iam_auth_proxy.proxy.signin.signins import SignIns
from iam_auth_proxy.relay.exchange import Exchange, Reply, ResponseHead

SENT_FIELD: Final = b"Iam-Auth-Service-Token"
"""Of an app's 401 and 403: from whom and for whom the token was that the request went with."""

_REFUSALS: Final = (401, 403)


def carries_token(exchange: Exchange) -> bool:
    """Whether its request goes with a token of ours."""
    memo = exchange.memo
    return isinstance(memo, Memo) and memo.token is not None


class Carrying:
    """Adds tokens.

    :param stop: makes the page of an error.
    """

    def __init__(self, signins: SignIns, stop: Callable[[Exchange, IamAuthError], Reply]) -> None:
        self._signins = signins
        self._stop = stop

    def add(self, exchange: Exchange, app: AppTrust) -> Awaitable[Reply | None] | None:
        """Put the app's token on a request, at once where one is at hand.

        Where the person signed out the request goes without. Where there is no token it does not
        go at all: the answer is the page that says why.
        """
        if self._is_signed_out(app.origin):
            memo_of(exchange).withheld = True
            return None
        held = self._signins.tokens.at_hand(app)
        if held is None:
            return self._await(exchange, app)
        _put(exchange, held)
        return None

    async def _await(self, exchange: Exchange, app: AppTrust) -> Reply | None:
        tokens, origin = self._signins.tokens, app.origin
        try:
            held = await tokens.get(app)
            if self._is_signed_out(origin):
                raise SignedOut(f"signed out of {origin} meanwhile")
            # Waiting may have taken minutes (an MFA code): look again at what the rule says by now.
            self._signins.trust.refresh()
            entry = self._signins.trust.app(origin)
            if entry is None or entry.service_token is None:
                return None
            if not held.is_of(entry):
                held = await tokens.get(entry)
        except IamAuthError as error:
            return self._stop(exchange, error)
        _put(exchange, held)
        return None

    def _is_signed_out(self, origin: Origin) -> bool:
        return origin in self._signins.signed_out_of

    def answered(self, held: Held, origin: Origin, answer: ResponseHead) -> None:
        """The app answered a request with this token. A refusal stays its own, and says whose."""
        if answer.status in _REFUSALS:
            self._signins.tokens.refused(held, origin, answer.status)
            answer.headers.append((SENT_FIELD, held.said))


def _put(exchange: Exchange, held: Held) -> None:
    exchange.request.headers.extend(held.fields)
    memo_of(exchange).token = held
