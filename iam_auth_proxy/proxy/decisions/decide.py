"""For whom the proxy speaks, and what it makes of an answer. Pure.

:func:`authority` is the most security-relevant function of the project. Anything that the proxy
adds to a request is said in the person's name. Added carelessly, it would undo SameSite,
``credentials: "omit"`` and the WebSocket origin rule for every page in the browser, since a browser
that withheld its cookie looks just like a client that keeps none. So this function is asked first,
and it goes by what a page cannot forge (docs/protocol.md, section 4).
"""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass
from enum import Enum, StrEnum
from typing import Final, Literal, Protocol

from iam_auth_proxy.errors import BadChallenge, IamAuthError, Malformed, SignedOut
from iam_auth_proxy.names import Origin, parse_authority, parse_origin
from iam_auth_proxy.protocol import challenge as challenges
from iam_auth_proxy.protocol.challenge import Challenge
from iam_auth_proxy.protocol.proof import ProofKind
from iam_auth_proxy.proxy.decisions.clicks import SAFE
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


@dataclass(frozen=True, slots=True)
class Ruling:
    """What :func:`ruling` says.

    :ivar rule: the number of the rule of docs/protocol.md, section 4, that matched.
    :ivar opened: the browser says that it is a page of a window or tab of its own, which the
        person or the app's own page opens, or a click of the person's on another page.
    """

    authority: Authority
    rule: int
    opened: bool = False

    @property
    def program(self) -> bool:
        """Whether the client is a program, for which a held session may be used."""
        return self.rule == _PROGRAM

    @property
    def vouched(self) -> bool:
        """Whether the request itself says who asks. Rule 5 leaves that to the browser's cookies."""
        return self.rule != _BY_COOKIES

    @property
    def certified(self) -> bool:
        """Whether a client certificate may be shown: no cookie decides after it.

        What is opened so is less than what ``SameSite=Lax`` lets cookies go along with, and nobody
        but the person reads the answer. Without the browser's word a page looks like a frame.
        """
        return self.authority is Authority.REPLAY or self.opened


_PROGRAM: Final = 7
_BY_COOKIES: Final = 5
_NOTHING: Final = tuple(Ruling(Authority.NOTHING, rule) for rule in range(7))
_REPLAY: Final = tuple(Ruling(Authority.REPLAY, rule) for rule in range(8))
_DANCE: Final = tuple(Ruling(Authority.DANCE, rule) for rule in range(6))
VISIT: Final = Ruling(Authority.DANCE, 3, opened=True)
"""A page that the person or the app's own page opens, in a window or tab of its own."""

_FOLLOWED: Final = Ruling(Authority.DANCE, _BY_COOKIES, opened=True)

# What fetches URLs that others name: an operating system's programs those in certificates, and a
# browser's helpers those of a page's media and icons.
_ERRANDS = re.compile(
    rb"microsoft-cryptoapi|ocspd|trustd|certutil"
    rb"|applecoremedia|com\.apple\.webkit|^(?:mobile)?safari/|stagefright|nsplayer",
    re.ASCII,
)


def authority(
    request: RequestHead, target: Origin, allow_from: Collection[Origin] = ()
) -> Authority:
    """Whether, and how, the proxy may speak for this request: :func:`ruling` without its rule."""
    return ruling(request, target, allow_from).authority


def ruling(request: RequestHead, target: Origin, allow_from: Collection[Origin] = ()) -> Ruling:
    """Whether, and how, the proxy may speak for this request. The first rule that matches wins.

    Accept is never evidence: a page can set it.

    :param allow_from: other origins whose pages the person lets speak to this one in their name.
    """
    fields = _Fields(request)
    safe = request.method in SAFE
    upgrade_insecure = safe and fields.one(b"upgrade-insecure-requests") == b"1"

    # 1. A preflight (CORS) is sent by the browser itself; nobody has asked for a prefetch yet.
    if request.method == b"OPTIONS" and fields.has(b"access-control-request-method"):
        return _NOTHING[1]
    if fields.prefetch:
        return _NOTHING[1]

    # 2. Origin says which page asks; "null" conceals it.
    if fields.has(b"origin"):
        known = _is_one_of(fields.one(b"origin"), target, allow_from)
        if known and fields.framed and fields.one(b"origin") == str(target).encode("ascii"):
            return _NOTHING[3]
        return _REPLAY[2] if known else _NOTHING[2]
    if request.websocket and fields.browser:
        return _NOTHING[2]

    # 3. Sec-Fetch-Site, where the browser sends it (https and loopback). same-site is not enough,
    # but for a link that the person followed to here: a click, and a page in a window of its own.
    # A page of the app's own in a frame of another site is not the app's own any more.
    if fields.framed:
        return _NOTHING[3]
    if fields.has(b"sec-fetch-site"):
        document = fields.one(b"sec-fetch-dest") == b"document"
        navigation = safe and document and fields.one(b"sec-fetch-mode") == b"navigate"
        if fields.one(b"sec-fetch-site") in (b"same-origin", b"none"):
            return VISIT if navigation else _REPLAY[3]
        followed = navigation and fields.one(b"sec-fetch-user") == b"?1"
        return _FOLLOWED if followed else _NOTHING[3]

    # 4. A page of the app itself.
    referred = fields.has(b"referer")
    if referred and _refers_to(fields.one(b"referer"), target):
        return _DANCE[4] if upgrade_insecure else _REPLAY[4]

    # 5. A page or a frame: the browser decides whether the cookie goes along.
    if upgrade_insecure:
        return _DANCE[5]

    # 6. Any other sign of a browser, another page as the reason, or what fetches URLs that others
    # name: programs that follow a page's links and images (wget -p, text browsers) say Referer.
    if fields.browser or referred or _ERRANDS.search(fields.text(b"user-agent")):
        return _NOTHING[6]

    # 7. A program: curl, wget, a library.
    return _REPLAY[_PROGRAM]


def is_aside(request: RequestHead) -> bool:
    """Whether a browser fetches what somebody may want later, or a picture for what is open.

    On plain http nothing but Accept says that it is one. Nothing is granted for it.
    """
    fields = _Fields(request)
    return fields.prefetch or (request.method in SAFE and fields.picture)


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
    def prefetch(self) -> bool:
        return b"prefetch" in self.text(b"sec-purpose") or b"prefetch" in self.text(b"purpose")

    @property
    def picture(self) -> bool:
        """A favicon, for example. A page that is opened wants text/html before any picture."""
        return self.browser and self.text(b"accept").startswith(b"image/")

    @property
    def browser(self) -> bool:
        """Any sign of a browser."""
        return b"mozilla/" in self.text(b"user-agent") or any(
            name.startswith(b"sec-") and not name.startswith(b"sec-websocket-")
            for name in self._values
        )

    @property
    def framed(self) -> bool:
        """Whether the browser says that another site's page is around the one that asks.

        It sends this field only where cookies are a third party's (Storage Access API, section
        "Sec-Fetch-Storage-Access"), whatever its value: those with SameSite are withheld there.
        """
        return b"sec-fetch-storage-access" in self._values


def _is_one_of(value: bytes, target: Origin, allow_from: Collection[Origin]) -> bool:
    try:
        origin = parse_origin(value.decode("ascii"))
    except (Malformed, UnicodeDecodeError):
        return False
    return origin == target or origin in allow_from


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
class Dance:
    """Answer this challenge by a redirect through ``/auth``.

    :ivar literal: in the original's form, with the token in the URL.
    """

    challenge: Challenge
    literal: bool = False


@dataclass(frozen=True, slots=True)
class Replay:
    """Answer this challenge here, and repeat the request.

    :ivar program: the client keeps no cookies as a browser does: the session is held for it.
    :ivar navigation: a person looks at the answer, and can be asked something in its place.
    :ivar framed: a page of the app's own asks, and that page may be in a frame of another site,
        where the browser withholds the session's cookie: it has to be seen not to.
    """

    challenge: Challenge
    program: bool
    navigation: bool = False
    framed: bool = False


@dataclass(frozen=True, slots=True)
class Ask:
    """Ask the person first, on a page of the proxy's own; no AWS call until there is an answer.

    :ivar kind: ``trust``: nobody said that this origin is trusted. ``again``: the person signed
        out.
    """

    kind: Literal["trust", "again"]
    challenge: Challenge


@dataclass(frozen=True, slots=True)
class Refuse:
    """Do not answer the challenge, and say why."""

    error: IamAuthError


Decision = Dance | Replay | Ask | Refuse


class SignInMode(StrEnum):
    """``--sign-in``. In every mode :func:`authority` is what limits the proxy.

    REDIRECT answers a challenge of the original protocol in the original's form, whoever asks: a
    redirect with the token in the URL. What a redirect would rob of its body is replayed.

    INLINE replays navigations too, where the browser vouches for them (``Sec-Fetch-Site`` says that
    the person or the app's own page asks, ``Sec-Fetch-Dest`` that it is no frame), since it sends
    every cookie with those. Any other navigation still dances: on plain http nothing tells a page
    of the person's from a frame of another site, from which the browser withholds the cookie.
    """

    AUTO = "auto"
    REDIRECT = "redirect"
    INLINE = "inline"


class App(Protocol):
    """What the person said about one origin."""

    @property
    def allow_from(self) -> Collection[Origin]:
        """Origins whose pages may speak to it in the person's name."""
        ...


class Trusts(Protocol):
    """Whose challenges are answered: what :func:`decide` needs of it."""

    def app(self, origin: Origin) -> App | None:
        """What is known of this origin; None: it is not trusted."""
        ...

    def untrusted(self, origin: Origin) -> IamAuthError:
        """Why it is a stranger, and what to do."""
        ...


def decide(
    request: RequestHead,
    answer: ResponseHead,
    origin: Origin,
    trust: Trusts,
    *,
    mode: SignInMode = SignInMode.AUTO,
    signed_out: Collection[Origin] = (),
    admitted: Ruling | None = None,
) -> Decision | None:
    """What becomes of an answer; None: it goes through as it came.

    Only a 401 with an IAM challenge is ever anything else. The order matters: nothing is said to a
    request that the proxy has no authority for, and nothing of a stranger's challenge is used but
    to ask the person about it.

    :param signed_out: where the person signed out, which holds until they say otherwise.
    :param admitted: by what a request to an alias was let in. Its session never goes to a browser,
        so there is nothing to dance for.
    """
    if answer.status != 401:
        return None
    try:
        challenge, problem = challenges.parse(answer.headers), None
    except BadChallenge as error:
        challenge, problem = None, error
    if challenge is None and problem is None:
        return None
    app = trust.app(origin)
    verdict = admitted or ruling(request, origin, () if app is None else app.allow_from)
    if verdict.authority is Authority.NOTHING:
        return None
    navigation = verdict.authority is Authority.DANCE
    if app is None:
        if challenge is not None and navigation and _may_be_asked(challenge):
            return Ask("trust", challenge)
        return Refuse(trust.untrusted(origin))
    if challenge is None:
        assert problem is not None
        return Refuse(problem)
    if origin in signed_out:
        return Ask("again", challenge) if navigation else Refuse(SignedOut(str(origin)))
    if admitted is not None:
        return Replay(challenge, verdict.program, navigation)
    return _answer(request, origin, challenge, verdict, mode)


def is_challenge(answer: ResponseHead) -> bool:
    """Whether an answer has an IAM challenge, be it one that is malformed."""
    try:
        return answer.status == 401 and challenges.parse(answer.headers) is not None
    except BadChallenge:
        return True


def _answer(
    request: RequestHead,
    origin: Origin,
    challenge: Challenge,
    verdict: Ruling,
    mode: SignInMode,
) -> Decision:
    literal = mode is SignInMode.REDIRECT and challenge.bound is None
    if literal and request.method in SAFE and not request.websocket:
        return Dance(challenge, literal=True)
    vouched_for = mode is SignInMode.INLINE and verdict is VISIT
    if verdict.authority is Authority.DANCE and not vouched_for:
        return Dance(challenge)
    framed = not vouched_for and verdict.rule != _PROGRAM and _may_be_framed(request, origin)
    return Replay(challenge, verdict.program, framed=framed)


def _may_be_framed(request: RequestHead, origin: Origin) -> bool:
    """Whether a browser asks for a page of the app's own, and not for one of ``allow_from``.

    What a page asks of its own origin looks the same in a window of its own and in a frame of
    another site; but from the latter no cookie with SameSite goes along.
    """
    fields = _Fields(request)
    if not fields.browser:
        return False
    return not fields.has(b"origin") or fields.one(b"origin") == str(origin).encode("ascii")


def _may_be_asked(challenge: Challenge) -> bool:
    """What the confirm page grants is the signed identity alone."""
    return challenge.bound is not None and ProofKind.SIGNED_IDENTITY in challenge.bound.proofs
