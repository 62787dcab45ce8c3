"""Step 10 and its answer: the request that hands a proof to the app, and what the app makes of it.

Pure: requests and answers are values. No cookie and no header of the client goes along; a bound
hand-over carries the nonce's cookie of the challenge that it answers, and nothing says Origin.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from iam_auth_proxy.errors import (
    AppRefused,
    AwsUnavailable,
    BadChallenge,
    IamAuthError,
    Malformed,
    Misconfigured,
)
from iam_auth_proxy.names import Origin
from iam_auth_proxy.protocol import handoff as handoffs
from iam_auth_proxy.protocol import nonce as nonces
from iam_auth_proxy.protocol.challenge import Bound, Challenge
from iam_auth_proxy.protocol.envelope import Envelope
from iam_auth_proxy.protocol.handoff import AUTH_PATH, BoundHandoff, Handoff, check_return_url
from iam_auth_proxy.proxy.signin import cookies
from iam_auth_proxy.proxy.signin.cookies import SetCookie
from iam_auth_proxy.proxy.signin.sealing import Sealed
from iam_auth_proxy.relay.exchange import Fetched, Reply, RequestHead
from iam_auth_proxy.relay.fields import Headers

ERROR_FIELD: Final = b"iam-auth-error"
AGAIN: Final = frozenset(("expired", "bad-nonce", "replayed", "stale-token"))
"""What an app says of a hand-over that came too late or twice, or of a key that it has disabled
meanwhile: a fresh challenge may do.
"""

MAX_LIFE: Final = 30 * 86400
"""Seconds; a session's life is not believed to be longer."""


@dataclass(frozen=True, slots=True)
class Challenged:
    """A challenge, and the cookie that came with it.

    :ivar nonce_cookie: the nonce in the cookie; empty for the original protocol.
    """

    challenge: Challenge
    nonce_cookie: str = field(default="", repr=False)

    @classmethod
    def of(cls, challenge: Challenge, headers: Headers, origin: Origin) -> Challenged:
        """From the 401's fields.

        :raises BadChallenge: the cookie that a bound challenge needs is missing or repeated.
        """
        if challenge.bound is None:
            return cls(challenge)
        value = nonces.read_set_cookie(headers, origin)
        if value is None:
            raise BadChallenge("Iam-Auth-Nonce came without its cookie")
        return cls(challenge, value)

    @property
    def path(self) -> str:
        """Where the app takes the hand-over."""
        return AUTH_PATH if self.challenge.bound is None else self.challenge.bound.path


def write(
    challenged: Challenged, sealed: Sealed, return_url: str, origin: Origin
) -> tuple[RequestHead, bytes]:
    """The request, head and body.

    :raises Malformed: the app would refuse it.
    """
    fields = [(b"Host", origin.authority.encode("ascii")), (b"Accept", b"*/*")]
    bound = challenged.challenge.bound
    if bound is None or not isinstance(sealed.token, Envelope):
        assert isinstance(sealed.token, bytes)
        target = handoffs.write(AUTH_PATH, Handoff(sealed.token, return_url))
        return RequestHead(b"GET", target.encode("ascii"), fields), b""
    name = nonces.cookie_name(origin)
    fields += [
        (b"Content-Type", handoffs.FORM_TYPE.encode("ascii")),
        (b"Cookie", f"{name}={challenged.nonce_cookie}".encode("ascii")),
    ]
    form = BoundHandoff(sealed.token, return_url, bound.nonce, sealed.kind)
    body = handoffs.write_form(form, auth_path=bound.path)
    return RequestHead(b"POST", bound.path.encode("ascii"), fields), body


def ask(bound: Bound, origin: Origin) -> RequestHead:
    """The request whose answer is a challenge, and which never reaches the app behind the gate."""
    fields = [(b"Host", origin.authority.encode("ascii")), (b"Accept", b"*/*")]
    return RequestHead(b"GET", bound.path.encode("ascii"), fields)


# -- the answer ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Granted:
    """A session that the app gave.

    :ivar cookies: what to put into requests.
    :ivar set_cookies: Set-Cookie values for the client, completed.
    :ivar life: seconds of the session's absolute life; None: the app did not say.
    """

    cookies: tuple[SetCookie, ...] = field(repr=False)
    set_cookies: tuple[bytes, ...] = field(repr=False)
    life: float | None = None

    def carried_by(self, headers: Sequence[tuple[bytes, bytes]]) -> bool:
        """Whether a request came with one of these very cookies, and so was not helped by it."""
        sent = cookies.pairs_sent(headers)
        return any(cookie.pair in sent for cookie in self.cookies)

    def named_by(self, headers: Sequence[tuple[bytes, bytes]]) -> bool:
        """Whether a request came with a cookie of such a name, be it one that is over.

        These are SameSite=Lax where the app does not say otherwise, so whoever sends one would send
        the new one, too.
        """
        return bool(cookies.names_sent(headers) & {cookie.name for cookie in self.cookies})


def accepted(answer: Fetched) -> bool:
    """Whether the app signed us in."""
    return 300 <= answer.status < 400


def starts_again(answer: Fetched, *, bound: bool) -> bool:
    """Whether a fresh challenge may help: the proof was late, or the salt was rotated."""
    return answer.status == 401 or (bound and error_code(answer) in AGAIN)


def error_code(answer: Fetched) -> str:
    """The app's code, where it is one that the protocol knows; otherwise empty."""
    values = [value for name, value in answer.headers if name.lower() == ERROR_FIELD]
    code = values[0].decode("latin-1").strip() if len(values) == 1 else ""
    return code if code in _SAYS or code == AwsUnavailable.code else ""


def granted(answer: Fetched, auth_path: str, origin: Origin) -> Granted:
    """The session in an answer that was :func:`accepted`.

    :raises AppRefused: there is none that a client at this origin would send back.
    """
    found: list[SetCookie] = []
    values: list[bytes] = []
    for name, value in answer.headers:
        if name.lower() != b"set-cookie" or nonces.is_nonce_cookie(value):
            continue
        values.append(cookies.complete(value, auth_path))
        cookie = cookies.parse_set_cookie(value, cookies.default_path(auth_path))
        if cookie is None or cookie.gone or (cookie.secure and origin.scheme != "https"):
            continue
        found.append(cookie)
    if not found:
        raise AppRefused(
            f"{origin} answered the sign-in with {answer.status} and no cookie",
            public="The app took the sign-in and gave no session.",
            remedy="Tell the app's owner.",
        )
    return Granted(tuple(found), tuple(values), _life(answer))


def _life(answer: Fetched) -> float | None:
    wanted = handoffs.EXPIRES_FIELD.lower().encode("ascii")
    values = [value for name, value in answer.headers if name.lower() == wanted]
    text = values[0].strip(b" \t") if len(values) == 1 else b""
    if not (0 < len(text) <= 9 and text.isdigit()):
        return None
    return float(min(int(text), MAX_LIFE))


# What each of the protocol's codes means to the person whose proxy handed over (section 5).
_SAYS: Final = {
    "stale-token": ("The app could not open the sign-in.", "Open the page again."),
    "replayed": ("The app had seen this sign-in before.", "Open the page again."),
    "expired": (
        "The sign-in reached the app too late.",
        "Try again; if it stays so, set the clock: timedatectl set-ntp true",
    ),
    "bad-nonce": ("The app did not recognise its own challenge.", "Open the page again."),
    "wrong-key": ("The app does not take sign-ins under this KMS key.", "Tell the app's owner."),
    "wrong-origin": ("The app does not go by this name.", "Use the address that its owner gives."),
    "wrong-account": (
        "The app does not take identities of your AWS account.",
        "Ask its owner which account it wants.",
    ),
    "not-allowed": ("Your AWS identity is not allowed in this app.", "Ask its owner to allow it."),
    "weak-proof": ("The app does not take this kind of proof.", "Tell the app's owner."),
    "malformed": ("The app could not read the sign-in.", "Tell the app's owner."),
    Misconfigured.code: (
        "The app is not set up to check sign-ins.",
        "Tell the app's owner: its log says what is wrong.",
    ),
}


def refusal(answer: Fetched, origin: Origin) -> IamAuthError:
    """The error that says what the app's answer means; never its own words."""
    code = error_code(answer)
    if code == AwsUnavailable.code or (not code and answer.status == 503):
        return AwsUnavailable(
            f"{origin} could not ask AWS about the sign-in (HTTP {answer.status})",
            public="The app could not check the sign-in, since AWS did not answer it."
            if code
            else "The app cannot sign anybody in at the moment.",
        )
    detail = f"{origin} answered the sign-in with {answer.status} [{code or 'no code'}]"
    if not code:
        return AppRefused(
            detail,
            public=f"The app refused the sign-in (HTTP {answer.status}).",
            remedy="Tell the app's owner.",
        )
    public, remedy = _SAYS[code]
    return AppRefused(detail, public=public, remedy=remedy, app_code=code)


# -- for the browser -------------------------------------------------------------------------------

# No step of a sign-in is stored, and none tells the next site where it came from.
_QUIET: Final = ((b"Cache-Control", b"private, no-store"), (b"Referrer-Policy", b"no-referrer"))

# What is said about the app's connection or its body's form, or to the proxy; not to the browser.
_NOT_RELAYED = frozenset(
    b"connection keep-alive proxy-connection transfer-encoding te trailer upgrade content-length "
    b"cache-control referrer-policy www-authenticate iam-auth-expires-in iam-auth-error".split()
)


def return_url(request: RequestHead, *auth_paths: str) -> str:
    """Where the client goes after the sign-in: where it was, or ``/`` where that cannot be.

    :param auth_paths: where the app takes sign-ins, and where tickets go.
    """
    target = request.target.decode("latin-1")
    try:
        for path in auth_paths:
            check_return_url(target, auth_path=path)
    except Malformed:
        return "/"
    return target


def redirect(location: str, *, set_cookies: Sequence[bytes] = (), status: int = 302) -> Reply:
    """A redirect of the proxy's own."""
    given = [(b"Set-Cookie", value) for value in set_cookies]
    return Reply(status, [(b"Location", location.encode("latin-1")), *given, *_QUIET])


def relayed(
    answer: Fetched, sent: str, wanted: str, origin: Origin, auth_path: str = AUTH_PATH
) -> Reply:
    """The app's answer to the hand-over as the client gets it.

    :param sent: the return_url that the token went with.
    :param wanted: this client's own, where it shares another request's sign-in.
    """
    own = {spelling + sent for spelling in ("", str(origin), f"//{origin.authority}")}
    headers: list[tuple[bytes, bytes]] = []
    for name, value in answer.headers:
        key = name.lower()
        if key in _NOT_RELAYED:
            continue
        if key == b"location" and value.decode("latin-1") in own:
            headers.append((name, wanted.encode("latin-1")))
        elif key == b"set-cookie":
            if not nonces.is_nonce_cookie(value):
                headers.append((name, cookies.complete(value, auth_path)))
        else:
            headers.append((name, value))
    return Reply(answer.status, [*headers, *_QUIET], answer.body)
