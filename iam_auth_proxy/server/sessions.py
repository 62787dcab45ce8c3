"""Sessions as cookies: begun at sign-in, read on every request, renewed while in use, ended.

Nothing is stored but the ids of sessions that were ended by a logout, in a replay store: an answer
that was under way at the logout may carry a renewed cookie, which must not bring it back. Where the
store is a file, a logout holds in all workers.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass

from iam_auth_proxy.errors import BadSession, Expired, Malformed, SessionKeyUnknown
from iam_auth_proxy.names import Origin
from iam_auth_proxy.protocol import cookies
from iam_auth_proxy.protocol import identity as identities
from iam_auth_proxy.protocol import session as sessions
from iam_auth_proxy.protocol.identity import Identity
from iam_auth_proxy.protocol.keyring import Rings
from iam_auth_proxy.protocol.session import Session
from iam_auth_proxy.server.facts import RequestFacts
from iam_auth_proxy.server.replay import ReplayStore, StoreFull, digest
from iam_auth_proxy.server.settings import Settings

RENEWAL = 300.0
"""Seconds after which a session in use gets a fresh cookie; sooner where ``idle`` is short."""


@dataclass(frozen=True, slots=True)
class Visitor:
    """A valid session and whose it is."""

    session: Session
    identity: Identity


@dataclass(frozen=True, slots=True)
class Visit:
    """What a request's cookies say.

    :ivar stale: there is a cookie of ours that does not count.
    :ivar unknown: for the one reason that its key is not in the ring, which may be behind.
    """

    visitor: Visitor | None = None
    stale: bool = False
    unknown: bool = False


def fresh_id() -> str:
    """An id for a session: random, and no secret, since it opens nothing."""
    return secrets.token_urlsafe(16)


class Sessions:
    """The cookies of one app. Times are seconds since the epoch.

    :param ended: remembers which sessions were ended. Where it fails, StoreUnavailable is raised.
    """

    def __init__(self, settings: Settings, rings: Rings, ended: ReplayStore) -> None:
        self._settings = settings
        self._rings = rings
        self._ended = ended

    def read(self, facts: RequestFacts, origin: Origin, now: float) -> Visit:
        """The session that the request came with, if it is valid for ``origin`` at ``now``."""
        name = cookies.cookie_name(origin, self._settings.cookie_name)
        value = cookies.read_cookie(facts.all("cookie"), name)
        if value is None:
            return Visit()
        if value is cookies.REPEATED:
            return Visit(stale=True)
        try:
            session = sessions.open_(
                value, self._rings.at(now), origin=str(origin), now=now, idle=self._settings.idle
            )
            identity = identities.parse(session.arn, session.user_id)
        except SessionKeyUnknown:
            return Visit(stale=True, unknown=True)
        except (BadSession, Expired, Malformed):
            return Visit(stale=True)
        over = (
            session.issued < self._settings.sessions_issued_after
            or now >= session.issued + self._settings.max_session
            or self.ended(session.id, now)
        )
        return Visit(stale=True) if over else Visit(Visitor(session, identity))

    def ended(self, session_id: str, now: float) -> bool:
        """Whether it was ended by :meth:`end` or :meth:`revoke`."""
        return self._ended.seen(digest("session", session_id), now)

    def begin(
        self, identity: Identity, origin: Origin, proof: str, now: float, id: str = ""
    ) -> str:
        """A Set-Cookie value for a new session.

        :param id: from :func:`fresh_id`; one is made if absent.
        :raises Malformed: it would be too long for a cookie.
        """
        session = Session(
            id=id or fresh_id(),
            origin=str(origin),
            arn=identity.arn,
            user_id=identity.user_id,
            account=identity.account,
            partition=identity.partition,
            kind=identity.kind,
            proof=proof,
            issued=int(now),
            expires=int(now + self._settings.max_session),
        )
        return self._set(origin, sessions.seal(session, self._rings.at(now), now))

    def renewal(self, session: Session, origin: Origin, now: float) -> tuple[str, ...]:
        """A Set-Cookie value where it is time for one: the idle time starts again, no more."""
        if now - session.renewed < min(RENEWAL, self._settings.idle / 4):
            return ()
        return (self._set(origin, sessions.seal(session, self._rings.at(now), now)),)

    def end(self, session: Session, now: float) -> None:
        """Take the session for ended from now on, wherever the store is shared."""
        try:
            self.revoke(session.id, session.expires, now)
        except StoreFull:
            pass  # the cookie is cleared all the same, which is what ends it for its holder

    def revoke(self, session_id: str, until: float, now: float) -> None:
        """The same for a session that is known by its id alone.

        :raises StoreFull: the store holds too many to remember one more.
        """
        self._ended.spend(digest("session", session_id), until, now)

    def clear(self, origin: Origin) -> str:
        """A Set-Cookie value that removes the cookie."""
        return self._set(origin, "", "; Max-Age=0")

    def _set(self, origin: Origin, value: str, more: str = "") -> str:
        name = cookies.cookie_name(origin, self._settings.cookie_name)
        secure = "; Secure" if origin.scheme == "https" else ""
        return f"{name}={value}; Path=/; HttpOnly; SameSite=Lax{secure}{more}"
