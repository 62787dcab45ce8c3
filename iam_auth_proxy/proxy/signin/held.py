"""Sessions held for programs, which have no cookie jar. Pure but for the table.

Only what :func:`~iam_auth_proxy.proxy.decisions.decide.ruling` calls a program, and the clients of
a private entrance, get a held session: the cookies that the sign-in set and nothing else, to
exactly the origin that set them, and never in place of a cookie that the client sent itself. Who
came in by one entrance is one person: its check of the connection's owner, or its credential, says
so. A session ends with the app's word, at logout, when the key or the identity changes, and at a
reload.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Final

from iam_auth_proxy.names import Origin
from iam_auth_proxy.protocol.proof import ProofKind
from iam_auth_proxy.proxy.signin import cookies
from iam_auth_proxy.proxy.signin.cookies import SetCookie
from iam_auth_proxy.proxy.signin.handover import Challenged, Granted
from iam_auth_proxy.proxy.signin.renewal import Due

LIMIT: Final = 256
MAX_COOKIES: Final = 16 * 1024
"""Bytes of one session's cookies."""


class HeldSession:
    """One session at one origin.

    :ivar who: the profile and the kind of proof that it was begun with; ``identity``: the ARN that
        the app saw then.
    :ivar challenged: the challenge that began it: where and how to sign in again.
    :ivar expires: seconds since the epoch; None: until the app says so.
    :ivar due: when a request of its client begins the next sign-in; None: never.
    """

    __slots__ = (
        "challenged",
        "cookies",
        "due",
        "entrance",
        "expires",
        "identity",
        "origin",
        "who",
    )

    def __init__(
        self,
        entrance: str,
        origin: Origin,
        granted: Granted,
        *,
        who: tuple[str, ProofKind],
        identity: str,
        challenged: Challenged,
        begun: float,
    ) -> None:
        self.entrance = entrance
        self.origin = origin
        self.identity = identity
        self.who = who
        self.challenged = challenged
        self.cookies = {cookie.name: cookie for cookie in granted.cookies}
        self.expires: float | None = None
        self.due: Due | None = None
        if granted.life is not None:
            self.expires = begun + granted.life
            if challenged.challenge.bound is not None:
                self.due = Due(self.expires, granted.life)

    def __repr__(self) -> str:
        return f"HeldSession({self.entrance!r}, {str(self.origin)!r}, {self.identity!r})"

    def put_into(self, target: bytes, headers: list[tuple[bytes, bytes]]) -> bool:
        """Add the cookies to a request, unless it brings one of theirs itself."""
        mine = [cookie for cookie in self.cookies.values() if cookie.goes_with(target)]
        if not mine or self.cookies.keys() & cookies.names_sent(headers):
            return False
        cookies.put(headers, mine)
        return True

    def take_over(self, headers: Sequence[tuple[bytes, bytes]]) -> bool:
        """What an answer to a request with the session says of its cookies.

        :return: whether any is left.
        """
        for name, value in headers:
            if name.lower() != b"set-cookie":
                continue
            cookie = cookies.parse_set_cookie(value)
            if cookie is None or cookie.name not in self.cookies:
                continue
            if cookie.gone or not _fits([cookie]):
                del self.cookies[cookie.name]
            else:
                self.cookies[cookie.name] = cookie
        return bool(self.cookies)

    def is_over(self, now: float) -> bool:
        """Whether it is past its absolute limit."""
        return self.expires is not None and now >= self.expires


class HeldSessions:
    """The sessions in force, one for an entrance and an origin.

    :ivar origins: how many are held for each origin; for a look that costs nothing.
    """

    def __init__(self, limit: int = LIMIT) -> None:
        self._limit = limit
        self._sessions: OrderedDict[tuple[str, Origin], HeldSession] = OrderedDict()
        self.origins: dict[Origin, int] = {}

    def __len__(self) -> int:
        return len(self._sessions)

    def __iter__(self) -> Iterator[HeldSession]:
        return iter(self._sessions.values())

    def get(self, entrance: str, origin: Origin, now: float) -> HeldSession | None:
        """The session, unless it is over."""
        session = self._sessions.get((entrance, origin))
        if session is not None and session.is_over(now):
            self.drop(session)
            return None
        return session

    def put(self, session: HeldSession) -> None:
        """Hold it in place of what was held there; the oldest give way beyond the limit."""
        if not session.cookies or not _fits(session.cookies.values()):
            return
        key = (session.entrance, session.origin)
        before = self._sessions.get(key)
        if before is not None:
            self.drop(before)
        self._sessions[key] = session
        self.origins[session.origin] = self.origins.get(session.origin, 0) + 1
        while len(self._sessions) > self._limit:
            self.drop(next(iter(self._sessions.values())))

    def drop(self, session: HeldSession) -> None:
        """Forget it, where it is held still."""
        key = (session.entrance, session.origin)
        if self._sessions.get(key) is not session:
            return
        del self._sessions[key]
        self.origins[session.origin] -= 1
        if not self.origins[session.origin]:
            del self.origins[session.origin]

    def end(self, which: Callable[[HeldSession], bool] = lambda session: True) -> int:
        """Forget all of which this holds; how many there were."""
        ended = [session for session in self._sessions.values() if which(session)]
        for session in ended:
            self.drop(session)
        return len(ended)


def _fits(some: Iterable[SetCookie]) -> bool:
    return sum(len(cookie.pair) for cookie in some) <= MAX_COOKIES
