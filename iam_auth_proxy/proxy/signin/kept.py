"""Sessions that clients keep in cookie jars of their own, remembered so as to be renewed ahead.

The cookie is the client's, and nothing of it is kept here but a keyed digest, by which a request is
known to carry it. The proxy never puts one of these sessions into a request: it only gives a client
the next one, in an answer to a request that came with the last. Pure but for the table.
"""

from __future__ import annotations

import secrets
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from hashlib import blake2b
from typing import Final

from iam_auth_proxy.names import Origin
from iam_auth_proxy.proxy.decisions.rules import AppTrust
from iam_auth_proxy.proxy.signin import cookies
from iam_auth_proxy.proxy.signin.jobs import HandedOver
from iam_auth_proxy.proxy.signin.renewal import Due

LIMIT: Final = 256
FOLLOWED: Final = 4
"""Values of one session's cookie: requests that cross each other are answered with one each."""

_Fields = Sequence[tuple[bytes, bytes]]


class KeptSession:
    """One session of one client.

    :ivar app: what the person said of the origin when it was begun: another word ends this.
    :ivar bound: where another is to be had.
    :ivar names: of its cookies, all of which a request must carry.
    :ivar values: digests of what its cookies were lately.
    :ivar next: the sign-in whose session takes its place, for the client's next request.
    """

    __slots__ = (
        "app",
        "bound",
        "client",
        "due",
        "expires",
        "identity",
        "kind",
        "names",
        "next",
        "origin",
        "values",
    )

    def __init__(self, origin: Origin, client: str, app: AppTrust, done: HandedOver) -> None:
        granted, bound = done.granted, done.challenged.challenge.bound
        assert granted is not None
        assert granted.life is not None
        assert bound is not None
        self.origin = origin
        self.client = client
        self.app = app
        self.bound = bound
        self.kind = done.sealed.kind
        self.identity = done.sealed.identity.arn
        self.names = tuple(sorted(cookie.name for cookie in granted.cookies))
        self.expires = done.at + granted.life
        self.due = Due(self.expires, granted.life)
        self.next: HandedOver | None = None
        self.values: deque[bytes] = deque(maxlen=FOLLOWED)

    def __repr__(self) -> str:
        return f"KeptSession({str(self.origin)!r}, {self.identity!r})"


def can_be_kept(done: HandedOver) -> bool:
    """Whether it is known when the session ends, and where another is to be had."""
    granted, bound = done.granted, done.challenged.challenge.bound
    return granted is not None and granted.life is not None and bound is not None


class KeptSessions:
    """The sessions remembered; those least seen give way beyond the limit.

    :ivar origins: how many there are of each origin; for a look that costs nothing.
    """

    def __init__(self, limit: int = LIMIT) -> None:
        self.origins: dict[Origin, int] = {}
        self._limit = limit
        self._secret = secrets.token_bytes(32)
        self._clients: dict[tuple[Origin, str], list[KeptSession]] = {}
        self._seen: OrderedDict[KeptSession, None] = OrderedDict()

    def __len__(self) -> int:
        return len(self._seen)

    def __iter__(self) -> Iterator[KeptSession]:
        return iter(self._seen)

    def __contains__(self, session: KeptSession) -> bool:
        return session in self._seen

    def put(self, origin: Origin, client: str, app: AppTrust, done: HandedOver) -> None:
        """Remember the session that a client is given now. See :func:`can_be_kept`."""
        assert done.granted is not None
        session = KeptSession(origin, client, app, done)
        value = self._digest({cookie.name: cookie.value for cookie in done.granted.cookies})
        mine = self._clients.setdefault((origin, client), [])
        if any(value in known.values for known in mine):
            return  # several of its requests waited for one sign-in
        session.values.append(value)
        mine.append(session)
        self._seen[session] = None
        self.origins[origin] = self.origins.get(origin, 0) + 1
        while len(self._seen) > self._limit:
            self.drop(next(iter(self._seen)))

    def carried(self, origin: Origin, client: str, headers: _Fields) -> KeptSession | None:
        """The session whose cookies a request of this client came with, all of them."""
        for session in self._clients.get((origin, client), ()):
            sent = _sent(headers, session.names)
            if sent is not None and self._digest(sent) in session.values:
                self._seen.move_to_end(session)
                return session
        return None

    def follow(self, session: KeptSession, sent: _Fields, answer: _Fields) -> bool:
        """What an answer says of the session's cookies: the app sets them anew while in use.

        :param sent: the fields of the request, which carried the session.
        :return: False: it took one away, and the session is remembered no more.
        """
        values = _sent(sent, session.names)
        assert values is not None
        anew = False
        for name, field in answer:
            if name.lower() != b"set-cookie":
                continue
            cookie = cookies.parse_set_cookie(field)
            if cookie is None or cookie.name not in values:
                continue
            if cookie.gone or not cookie.value:
                self.drop(session)
                return False
            values[cookie.name] = cookie.value
            anew = True
        value = self._digest(values) if anew else b""
        if anew and value not in session.values:
            session.values.append(value)
        return True

    def drop(self, session: KeptSession) -> None:
        """Forget it, where it is remembered still."""
        if session not in self._seen:
            return
        del self._seen[session]
        session.next = None
        key = (session.origin, session.client)
        self._clients[key].remove(session)
        if not self._clients[key]:
            del self._clients[key]
        self.origins[session.origin] -= 1
        if not self.origins[session.origin]:
            del self.origins[session.origin]

    def end(self, which: Callable[[KeptSession], bool] = lambda session: True) -> None:
        """Forget all of which this holds."""
        for session in [session for session in self._seen if which(session)]:
            self.drop(session)

    def _digest(self, values: Mapping[bytes, bytes]) -> bytes:
        pairs = b";".join(name + b"=" + values[name] for name in sorted(values))
        return blake2b(pairs, key=self._secret, digest_size=16).digest()


def _sent(headers: _Fields, names: Iterable[bytes]) -> dict[bytes, bytes] | None:
    """The values of these cookies in a request; None unless each is there exactly once."""
    wanted = dict.fromkeys(names, b"")
    found: list[bytes] = []
    for name, value in cookies.sent(headers):
        if name in wanted:
            wanted[name] = value
            found.append(name)
    return wanted if sorted(found) == sorted(wanted) else None
