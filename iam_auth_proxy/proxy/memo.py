"""What is remembered of one exchange, between the relay's questions about it."""

from __future__ import annotations

from iam_auth_proxy.proxy.decisions.decide import Ruling
from iam_auth_proxy.proxy.signin.held import HeldSession
from iam_auth_proxy.proxy.signin.jobs import SignedIn
from iam_auth_proxy.proxy.signin.servicetokens import Held as HeldToken
from iam_auth_proxy.relay.exchange import Exchange


class Memo:
    """What steering remembers.

    :ivar admitted: by what a request to an alias was let in; None: it is to the app's own name.
    :ivar held: the held session that the request went with.
    :ivar signed_in: the sign-in that this request caused, with its session. Where it is ``shared``,
        the session may have ended since, and a sign-in of its own is owed still.
    :ivar restarted: the request was repeated as it came, for a fresh challenge.
    :ivar token: the service token that the request went with.
    :ivar withheld: it went without one, since the person signed out.
    """

    __slots__ = ("admitted", "held", "restarted", "signed_in", "token", "withheld")

    def __init__(self) -> None:
        self.admitted: Ruling | None = None
        self.held: HeldSession | None = None
        self.signed_in: SignedIn | None = None
        self.restarted = False
        self.token: HeldToken | None = None
        self.withheld = False


def memo_of(exchange: Exchange) -> Memo:
    """The exchange's; an empty one from now on where it had none."""
    memo = exchange.memo
    if not isinstance(memo, Memo):
        memo = exchange.memo = Memo()
    return memo
