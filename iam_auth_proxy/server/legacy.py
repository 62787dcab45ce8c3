"""The original's hand-over: session credentials in the URL of ``GET /auth`` (section 1).

Any page can make a browser send such a request, so it says nothing of who wanted the sign-in. That
is what the bound protocol is for; see :mod:`~iam_auth_proxy.server.bound`.
"""

from __future__ import annotations

import hashlib

from iam_auth_proxy.errors import Replayed, StaleToken, WeakProof
from iam_auth_proxy.protocol import handoff as handoffs
from iam_auth_proxy.protocol import proof as proofs
from iam_auth_proxy.protocol.handoff import Handoff
from iam_auth_proxy.protocol.proof import ProofKind
from iam_auth_proxy.server.contexts import Contexts
from iam_auth_proxy.server.facts import RequestFacts
from iam_auth_proxy.server.home import Home
from iam_auth_proxy.server.replay import ReplayStore
from iam_auth_proxy.server.settings import Settings
from iam_auth_proxy.server.verifier import Proved, Verifier


class LegacySignIn:
    """Checks legacy hand-overs. ``now`` is in seconds since the epoch."""

    def __init__(
        self, settings: Settings, contexts: Contexts, verifier: Verifier, spent: ReplayStore
    ) -> None:
        self._settings = settings
        self._contexts = contexts
        self._verifier = verifier
        self._spent = spent

    def read(self, facts: RequestFacts) -> Handoff:
        """What the request hands over, without asking anybody.

        :raises Malformed: it is outside the grammar.
        :raises WeakProof: such hand-overs are not taken here.
        """
        handoff = handoffs.parse(facts.query, auth_path=self._settings.path)
        self.check_taken()
        return handoff

    def check_taken(self) -> None:
        """Whether legacy hand-overs are taken at all.

        :raises WeakProof: they are not.
        """
        if not self._settings.legacy:
            raise WeakProof(
                "a token without a nonce, and legacy is off",
                public="This app does not take sign-ins of the original proxy.",
                remedy="Open the page again with a current one: pip install -U iam-auth-proxy",
            )

    def check_unused(self, handoff: Handoff, now: float) -> None:
        """Before AWS is asked; :func:`~iam_auth_proxy.server.verifier.spend_proof` decides.

        :raises Replayed: the token is spent.
        """
        if self._spent.seen(_digest(handoff.token), now):
            raise Replayed("the token was used before")

    def prove(self, handoff: Handoff, home: Home, now: float) -> Proved:
        """Open the token and ask STS whose credentials are in it. Blocks.

        :raises Refused: the proof is not good, or its identity may not come in.
        :raises Malformed: what was sealed is not a proof.
        :raises AwsUnavailable: it could not be checked.
        """
        credentials = proofs.loads(self._open(handoff.token, home, now))
        credentials.check(now)
        kind = ProofKind.SESSION_CREDENTIALS
        identity = self._verifier.identify(lambda sts: sts.caller_identity(credentials), home, kind)
        until = float(credentials.expiration)
        return Proved(identity, kind, _digest(handoff.token), until)

    def _open(self, token: bytes, home: Home, now: float) -> bytes:
        for context in self._contexts.open_now(now):
            try:
                return self._verifier.decrypt(home, token, context)
            except StaleToken:
                continue
        raise StaleToken("no context of this or the last epoch opens the token")


def _digest(token: bytes) -> bytes:
    """What a token is remembered by: its decoded bytes, of which there is one spelling."""
    return hashlib.sha256(token).digest()
