"""For whom the proxy speaks, and what it makes of an answer. Pure.

:func:`authority` is the most security-relevant function of the project. Anything that the proxy
adds to a request is said in the person's name. Added carelessly, it would undo SameSite,
``credentials: "omit"`` and the WebSocket origin rule for every page in the browser, since a browser
that withheld its cookie looks just like a client that keeps none. So this function is asked first,
and it goes by what a page cannot forge (docs/protocol.md, section 4).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum
from typing import Protocol

from iam_auth_proxy.errors import BadChallenge, IamAuthError, Malformed
from iam_auth_proxy.names import Origin, parse_authority, parse_origin
from iam_auth_proxy.protocol import challenge as challenges
from iam_auth_proxy.protocol.challenge import Challenge
from iam_auth_proxy.relay.exchange import RequestHead, ResponseHead


class Authority(Enum):
    """What the proxy may do for a request that was answered with a challenge.

    REPLAY: sign in by itself and repeat the request. DANCE: send the browser through ``/auth``, so
    that the cookie lives there and the browser decides when it goes along. NOTHING: the app's
    answer goes through as it came, and not one AWS call is made.
    """

    REPLAY = "replay"
    DANCE = "dance"
    NOTHING = "nothing"


# Programs of operating systems that fetch whatever URL a certificate names.
_CERTIFICATE_CHECKERS = re.compile(rb"microsoft-cryptoapi|ocspd|trustd|certutil", re.ASCII)
_SAFE = (b"GET", b"HEAD")


def authority(request: RequestHead, target: Origin) -> Authority:
    """Whether, and how, the proxy may speak for this request. The first rule that matches wins.

    Accept is never evidence: a page can set it.
    """
    fields = _Fields(request)
    safe = request.method in _SAFE
    upgrade_insecure = safe and fields.one(b"upgrade-insecure-requests") == b"1"

    # 1. A preflight is the browser's own question; a prefetch is nobody's wish yet.
    if request.method == b"OPTIONS" and fields.has(b"access-control-request-method"):
        return Authority.NOTHING
    if b"prefetch" in fields.text(b"sec-purpose") or b"prefetch" in fields.text(b"purpose"):
        return Authority.NOTHING

    # 2. Origin says which page asks. "null" is a page that hides.
    if fields.has(b"origin"):
        same = _same_origin(fields.one(b"origin"), target)
        return Authority.REPLAY if same else Authority.NOTHING
    if b"websocket" in fields.text(b"upgrade") and fields.browser:
        return Authority.NOTHING

    # 3. Sec-Fetch-Site, where the browser sends it (https and loopback). same-site is not enough.
    if fields.has(b"sec-fetch-site"):
        if fields.one(b"sec-fetch-site") not in (b"same-origin", b"none"):
            return Authority.NOTHING
        document = fields.one(b"sec-fetch-dest") == b"document"
        navigation = fields.one(b"sec-fetch-mode") == b"navigate"
        return Authority.DANCE if safe and document and navigation else Authority.REPLAY

    # 4. A page of the app itself.
    if fields.has(b"referer") and _refers_to(fields.one(b"referer"), target):
        return Authority.DANCE if upgrade_insecure else Authority.REPLAY

    # 5. A page or a frame: the browser decides whether the cookie goes along.
    if upgrade_insecure:
        return Authority.DANCE

    # 6. Any other sign of a browser, or of a certificate checker.
    if fields.browser or _CERTIFICATE_CHECKERS.search(fields.text(b"user-agent")):
        return Authority.NOTHING

    # 7. A program: curl, wget, a library.
    return Authority.REPLAY


class _Fields:
    """A request's fields by lower-case name, as :func:`authority` asks for them."""

    def __init__(self, request: RequestHead) -> None:
        self._values: dict[bytes, list[bytes]] = {}
        for name, value in request.headers:
            self._values.setdefault(name.lower(), []).append(value.strip())

    def has(self, name: bytes) -> bool:
        return name in self._values

    def one(self, name: bytes) -> bytes:
        """The only value; empty where the field is absent, or came twice and proves nothing."""
        values = self._values.get(name, [])
        return values[0] if len(values) == 1 else b""

    def text(self, name: bytes) -> bytes:
        """All values, lower case, for a search."""
        return b",".join(self._values.get(name, [])).lower()

    @property
    def browser(self) -> bool:
        """Any sign of a browser."""
        return b"mozilla/" in self.text(b"user-agent") or any(
            name.startswith(b"sec-") and not name.startswith(b"sec-websocket-")
            for name in self._values
        )


def _same_origin(value: bytes, target: Origin) -> bool:
    try:
        return parse_origin(value.decode("ascii")) == target
    except (Malformed, UnicodeDecodeError):
        return False


_REFERER = re.compile(rb"(https?)://([^/?#]*)(?:[/?#].*)?", re.ASCII)


def _refers_to(value: bytes, target: Origin) -> bool:
    match = _REFERER.fullmatch(value)
    if match is None:
        return False
    try:
        return parse_authority(match[2].decode("ascii"), match[1].decode("ascii")) == target
    except (Malformed, UnicodeDecodeError):
        return False


# -- what becomes of a 401 -------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class SignIn:
    """Answer this challenge, by redirecting the client through ``/auth``."""

    challenge: Challenge


@dataclass(frozen=True, slots=True)
class SessionEnded:
    """The request may be spoken for, but it cannot be repeated by a redirect."""


@dataclass(frozen=True, slots=True)
class Refuse:
    """Do not answer the challenge, and say why."""

    error: IamAuthError


class Trusts(Protocol):
    """Whose challenges are answered: what :func:`decide` needs of it."""

    def trusts(self, origin: Origin) -> bool:
        """Whether a rule covers this origin."""
        ...

    def untrusted(self, origin: Origin) -> IamAuthError:
        """Why it is a stranger, and what to do."""
        ...


def decide(
    request: RequestHead, answer: ResponseHead, origin: Origin, trust: Trusts
) -> SignIn | SessionEnded | Refuse | None:
    """What becomes of an answer; None: it goes through as it came.

    Only a 401 with an IAM challenge is ever anything else. The order matters: nothing is said to a
    request that the proxy has no authority for, and nothing of a stranger's challenge is used.
    """
    if answer.status != 401:
        return None
    try:
        challenge, problem = challenges.parse(answer.headers), None
    except BadChallenge as error:
        challenge, problem = None, error
    if challenge is None and problem is None:
        return None
    verdict = authority(request, origin)
    if verdict is Authority.NOTHING:
        return None
    if not trust.trusts(origin):
        return Refuse(trust.untrusted(origin))
    if challenge is None:
        assert problem is not None
        return Refuse(problem)
    if request.method not in _SAFE or _is_websocket(request):
        return SessionEnded()
    return SignIn(challenge)


def _is_websocket(request: RequestHead) -> bool:
    return b"websocket" in (request.get(b"upgrade") or b"").lower()
