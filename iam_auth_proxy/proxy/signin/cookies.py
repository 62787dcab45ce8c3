"""Cookies as the proxy handles them: what an app sets, and putting it into a request. Pure.

The proxy has no cookie jar. It completes the cookies of a sign-in for the browser that keeps them,
and puts them into the one request that it repeats, or into a program's requests to that app.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from iam_auth_proxy.protocol import caching

_OWS = b" \t"
# RFC 6265 section 4.1.1: a token; what a client sends as a name.
_NAME = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+", re.ASCII)


@dataclass(frozen=True, slots=True)
class SetCookie:
    """What one Set-Cookie field sets.

    :ivar path: of the requests that it goes with.
    :ivar gone: it deletes the cookie (``Max-Age`` of 0 or less).
    """

    name: bytes
    value: bytes = field(repr=False)
    path: bytes = b"/"
    secure: bool = False
    gone: bool = False

    @property
    def pair(self) -> bytes:
        """As it stands in Cookie."""
        return self.name + b"=" + self.value

    def goes_with(self, target: bytes) -> bool:
        """Whether a request for this target carries it (RFC 6265 section 5.1.4)."""
        path = target.partition(b"?")[0]
        if path == self.path:
            return True
        return path.startswith(self.path) and (
            self.path.endswith(b"/") or path[len(self.path) : len(self.path) + 1] == b"/"
        )


def parse_set_cookie(value: bytes, default_path: bytes = b"/") -> SetCookie | None:
    """What a Set-Cookie field says; None where it sets nothing that a client would send."""
    pair, *attributes = value.split(b";")
    name, separator, content = pair.partition(b"=")
    name = name.strip(_OWS)
    if not separator or not _NAME.fullmatch(name):
        return None
    path, secure, gone = default_path, False, False
    for attribute in attributes:
        key, _, text = attribute.partition(b"=")
        key, text = key.strip(_OWS).lower(), text.strip(_OWS)
        if key == b"path" and text.startswith(b"/"):
            path = text
        elif key == b"secure":
            secure = True
        elif key == b"max-age":
            gone = text == b"0" or text.startswith(b"-")
    return SetCookie(name, content.strip(_OWS), path, secure, gone)


def complete(value: bytes, auth_path: str) -> bytes:
    """A Set-Cookie field with Path and SameSite, where the app left them out.

    The browser would take Path from the URL that it asked, which is not the one that set it.
    """
    names = {part.split(b"=", 1)[0].strip(_OWS).lower() for part in value.split(b";")[1:]}
    if b"path" not in names:
        value += b"; Path=" + default_path(auth_path)
    if b"samesite" not in names:
        value += b"; SameSite=Lax"
    return value


def default_path(auth_path: str) -> bytes:
    """The Path of a cookie that says none (RFC 6265 section 5.1.4)."""
    return (auth_path.rpartition("/")[0] or "/").encode("ascii")


def names_sent(headers: Sequence[tuple[bytes, bytes]]) -> set[bytes]:
    """The names of the cookies in a request."""
    return {name for name, _ in sent(headers)}


def sent(headers: Sequence[tuple[bytes, bytes]]) -> Iterator[tuple[bytes, bytes]]:
    """The cookies in a request, name and value."""
    for pair in _pairs(headers):
        name, _, value = pair.partition(b"=")
        yield name.strip(_OWS), value.strip(_OWS)


def names_set(headers: Sequence[tuple[bytes, bytes]]) -> set[bytes]:
    """The names of the cookies that an answer sets."""
    found = [parse_set_cookie(value) for name, value in headers if name.lower() == b"set-cookie"]
    return {cookie.name for cookie in found if cookie is not None}


def give(headers: list[tuple[bytes, bytes]], set_cookies: Iterable[bytes]) -> None:
    """Add a session's cookies to an answer, unless the app sets them anew in this very one."""
    newer = names_set(headers)
    given = [
        (b"Set-Cookie", value)
        for value in set_cookies
        if value.partition(b"=")[0].strip(_OWS) not in newer
    ]
    if given:
        headers.extend(given)
        make_private(headers)


def leave_removals_out(headers: list[tuple[bytes, bytes]]) -> None:
    """Take from an answer what would remove a cookie of the client's.

    For the challenge to a prefetch or a picture that nobody is signed in for. A page that is open
    would lose by it the cookie that says it may have the next session, and a WebSocket cannot be
    made anew; or that session itself, where the answer comes late. The app says it again to the
    next request.
    """

    def removes(value: bytes) -> bool:
        cookie = parse_set_cookie(value)
        return cookie is not None and cookie.gone

    headers[:] = [
        (name, value)
        for name, value in headers
        if name.lower() != b"set-cookie" or not removes(value)
    ]


def pairs_sent(headers: Sequence[tuple[bytes, bytes]]) -> set[bytes]:
    """The cookies in a request, as ``name=value``."""
    return {pair.strip(_OWS) for pair in _pairs(headers)}


def put(headers: list[tuple[bytes, bytes]], cookies: Iterable[SetCookie]) -> None:
    """Put cookies into a request's fields, in place of those of the same names."""
    fresh = list(cookies)
    names = {cookie.name for cookie in fresh}
    if not fresh:
        return
    place, kept = len(headers), []
    for number, (name, value) in enumerate(headers):
        if name.lower() != b"cookie":
            continue
        place = min(place, number)
        kept += [
            pair.strip(_OWS)
            for pair in value.split(b";")
            if pair.strip(_OWS) and pair.partition(b"=")[0].strip(_OWS) not in names
        ]
    named = headers[place][0] if place < len(headers) else b"Cookie"
    line = b"; ".join([*kept, *(cookie.pair for cookie in fresh)])
    headers[:] = [field for field in headers if field[0].lower() != b"cookie"]
    headers.insert(place, (named, line))


def _pairs(headers: Sequence[tuple[bytes, bytes]]) -> Iterable[bytes]:
    for name, value in headers:
        if name.lower() == b"cookie":
            yield from value.split(b";")


def make_private(headers: list[tuple[bytes, bytes]]) -> None:
    """No shared cache keeps an answer that carries a session (RFC 9111 section 5.2.2.7)."""
    said = [value.decode("latin-1") for name, value in headers if name.lower() == b"cache-control"]
    headers[:] = [field for field in headers if field[0].lower() != b"cache-control"]
    headers.append((b"Cache-Control", caching.made_private(said).encode("latin-1")))
