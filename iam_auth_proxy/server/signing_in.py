"""A request to the path of the sign-in, from what it brings to the session that it ends in."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from contextlib import suppress

from iam_auth_proxy.errors import NonceKeyUnknown, Refused, Replayed, StaleToken, WrongOrigin
from iam_auth_proxy.names import Origin
from iam_auth_proxy.protocol import handoff as handoffs
from iam_auth_proxy.protocol.handoff import BoundHandoff, Handoff
from iam_auth_proxy.protocol.identity import Identity
from iam_auth_proxy.protocol.keyring import Rings
from iam_auth_proxy.server import answers
from iam_auth_proxy.server.bound import BoundSignIn, Checked
from iam_auth_proxy.server.facts import Reply, RequestFacts
from iam_auth_proxy.server.front import Place
from iam_auth_proxy.server.home import Homing
from iam_auth_proxy.server.legacy import LegacySignIn
from iam_auth_proxy.server.replay import ReplayStore
from iam_auth_proxy.server.sessions import Sessions, Visitor, fresh_id
from iam_auth_proxy.server.settings import Settings
from iam_auth_proxy.server.verifier import Proved, spend_proof

log = logging.getLogger(__name__)


class OtherIdentity(Refused):
    """Refused as the one whom the session names: signing out is a way on."""


class SigningIn:
    """Both protocols' hand-overs at one path: POST is the bound one's, GET the original's."""

    def __init__(
        self,
        settings: Settings,
        bound: BoundSignIn,
        legacy: LegacySignIn,
        homing: Homing,
        sessions: Sessions,
        rings: Rings,
        spent: ReplayStore,
    ) -> None:
        self._settings = settings
        self._bound = bound
        self._legacy = legacy
        self._homing = homing
        self._sessions = sessions
        self._rings = rings
        self._spent = spent

    def takes_body(self, facts: RequestFacts) -> bool:
        """Whether the request is a bound hand-over, as far as its method and path say."""
        return self._bound.on and facts.method == "POST" and facts.path == self._settings.path

    def read(self, facts: RequestFacts, place: Place, now: float) -> None:
        """Everything that can be checked without AWS.

        :raises Malformed: it is outside the grammar.
        :raises Refused: it is not worth asking AWS.
        """
        if self.takes_body(facts):
            self._bound.read(facts, place.origin, now)
        else:
            self._legacy.read(facts)

    def answer(
        self, facts: RequestFacts, place: Place, visitor: Visitor | None, now: float
    ) -> Reply:
        """A redirect with a session. Blocks.

        :param visitor: whose session the request came with.
        :raises Refused: no; as :meth:`read`, and where AWS says so.
        :raises Malformed: it, or what was sealed, is outside its grammar.
        :raises AwsUnavailable: it could not be checked.
        """
        if self.takes_body(facts):
            return self._posted(facts, place, now)
        return self._by_url(facts, place, visitor, now)

    def accept(
        self,
        handoff: Handoff | BoundHandoff,
        now: float,
        origin: Origin | None,
        cookies: Sequence[str],
    ) -> Identity:
        """See :meth:`Gate.accept`."""
        if isinstance(handoff, Handoff):
            self._legacy.check_taken()
            self._legacy.check_unused(handoff, now)
            proved = self._prove_legacy(handoff, now)
        else:
            if origin is None or origin not in self._settings.origins:
                raise WrongOrigin(f"{origin} is not among the origins of this app")
            try:
                checked = self._bound.check(handoff, cookies, origin, now)
            except NonceKeyUnknown:
                if not self._rings.reread(now):
                    raise
                checked = self._bound.check(handoff, cookies, origin, now)
            proved = self._prove_bound(checked, origin, now)
        spend_proof(self._spent, proved, now)
        return proved.identity

    def return_url(self, facts: RequestFacts) -> str:
        """Where a sign-in would have gone that was refused for what it says.

        :raises Malformed: it did not parse; then it was refused for that.
        """
        path = self._settings.path
        if self.takes_body(facts):
            return handoffs.parse_form(facts.body, auth_path=path).return_url
        return handoffs.parse(facts.query, auth_path=path).return_url

    def _posted(self, facts: RequestFacts, place: Place, now: float) -> Reply:
        """``POST /auth`` (section 3). A session that was there is replaced: its nonce's cookie says
        that whoever signs in wanted to.
        """
        checked = self._bound.read(facts, place.origin, now)
        proved = self._prove_bound(checked, place.origin, now)
        cookie = self._begin(proved, place, now)
        return answers.handed_over(
            checked.handoff.return_url, cookie, int(self._settings.max_session)
        )

    def _by_url(
        self, facts: RequestFacts, place: Place, visitor: Visitor | None, now: float
    ) -> Reply:
        """``GET /auth?token&return_url`` (steps 10 to 15).

        It never replaces a valid session of another identity: this GET may have been made by any
        page (login CSRF). With one of the same identity it only redirects, so that going back in a
        browser's history does no harm; the token is spent all the same.
        """
        handoff = self._legacy.read(facts)
        if visitor is None:
            self._legacy.check_unused(handoff, now)
        proved = self._prove_legacy(handoff, now)
        if visitor is None:
            return answers.signed_in(handoff.return_url, (self._begin(proved, place, now),))
        if visitor.identity != proved.identity:
            raise OtherIdentity(
                f"{proved.identity.arn} over a session of {visitor.identity.arn}",
                public="You are signed in here as somebody else.",
                remedy="Sign out first, if it was you who wanted to sign in again.",
            )
        with suppress(Replayed):  # it comes again where somebody goes back in the history
            spend_proof(self._spent, proved, now)
        return answers.signed_in(handoff.return_url, ())

    def _prove_bound(self, checked: Checked, origin: Origin, now: float) -> Proved:
        home = self._homing.find(now)
        return self._prove(lambda: self._bound.prove(checked, origin, home, now), now)

    def _prove_legacy(self, handoff: Handoff, now: float) -> Proved:
        home = self._homing.find(now)
        return self._prove(lambda: self._legacy.prove(handoff, home, now), now)

    def _prove(self, prove: Callable[[], Proved], now: float) -> Proved:
        """Where a key was just disabled, another worker may give out the next one's salts."""
        try:
            return prove()
        except StaleToken:
            if not self._rings.reread(now):
                raise
            return prove()

    def _begin(self, proved: Proved, place: Place, now: float) -> str:
        """Spend the proof, and a cookie for it: in this order, or of two at once both had one."""
        spend_proof(self._spent, proved, now)
        kind, id = proved.kind.value, fresh_id()
        cookie = self._sessions.begin(proved.identity, place.origin, kind, now, id)
        log.info(
            "%s signed in to %s from %s by %s, session %s",
            proved.identity.arn, place.origin, place.client or "-", kind, id,
        )  # fmt: skip
        return cookie
