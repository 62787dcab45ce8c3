"""An app on https under another name, ``http://NAME.localhost:PORT``: what its fields become. Pure.

The browser's side is plain http on loopback, the app's is https on its own name. So whatever names
the one origin in a header field is made to name the other, here and nowhere else; bodies are never
touched. What a field says of any other host stays, but for one thing: a URL relative to the scheme
(``//cdn.internal/x``) was https to the app, and would be http to the browser.

- To the app: ``Origin`` and ``Referer`` (``Host`` is the relay's, with the target).
- To the browser, URLs: ``Location``, ``Content-Location``, ``Refresh``.
- ``Set-Cookie``: ``Domain`` goes where it covers the app's host, since the cookie is then this
  name's alone; a cookie that a browser would not have taken from the app is not given under another
  name either. ``Secure``, ``__Host-`` and the rest stay: names under ``.localhost`` are trustworthy
  to browsers (W3C Secure Contexts, section 3.1), which take those from them.
- ``Access-Control-Allow-Origin``: the app's own origin, as it was asked in its own name.
- ``Content-Security-Policy``, enforced or reported: a source that covers the app covers its other
  name too. ``upgrade-insecure-requests`` stays, as it is about other hosts: Chromium and Firefox
  leave names under ``.localhost`` alone.
- Not for this name, and gone: ``Strict-Transport-Security``, ``Public-Key-Pins``, ``Expect-CT``,
  ``Alt-Svc``.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from iam_auth_proxy.errors import Malformed
from iam_auth_proxy.names import Origin, parse_authority

Fields = list[tuple[bytes, bytes]]

_OWS: Final = b" \t"
_TCHAR: Final = rb"!#$%&'*+.^_`|~0-9A-Za-z-"  # RFC 9110 section 5.6.2; for a set in a pattern
_DROPPED: Final = frozenset(
    b"strict-transport-security public-key-pins public-key-pins-report-only expect-ct "
    b"alt-svc".split()
)
_URLS: Final = frozenset((b"location", b"content-location"))
_POLICIES: Final = frozenset((b"content-security-policy", b"content-security-policy-report-only"))
# A URL with a host, or one that leaves the scheme to the page: scheme, authority, the rest.
_URL = re.compile(rb"(?:([A-Za-z][A-Za-z0-9+.-]*):)?//([^/?#\\]*)(.*)", re.DOTALL)
# ``5; url=/x``: seconds, what leads to the URL, the quote if there is one, and the URL
# (HTML, "shared declarative refresh steps").
_REFRESH = re.compile(
    rb"""([ \t]*[0-9]+(?:\.[0-9.]*)?[ \t]*[;, \t][ \t]*(?:url[ \t]*=[ \t]*)?)(['"]?)(.*)""",
    re.IGNORECASE | re.DOTALL,
)
_HOST_SOURCE = re.compile(
    rb"(?:(https?|wss?)://)?(\*\.)?([A-Za-z0-9_.-]+)(:[0-9]{1,5}|:\*)?(/[^ ]*)?", re.IGNORECASE
)
_SECURE: Final = {b"https": b"http", b"wss": b"ws"}
# Directives that hold no sources (CSP Level 3, section 6), and that are left as they are.
_NO_SOURCES: Final = frozenset(
    b"sandbox report-to require-trusted-types-for trusted-types plugin-types "
    b"upgrade-insecure-requests block-all-mixed-content".split()
)


@dataclass(frozen=True, slots=True)
class Names:
    """The app's two names.

    :ivar app: its own, an https origin.
    :ivar alias: the other, as the browser says it in ``Origin``.
    """

    app: Origin
    alias: Origin

    @property
    def outside(self) -> bytes:
        """The alias as it stands in a field."""
        return str(self.alias).encode("ascii")

    @property
    def inside(self) -> bytes:
        """The app's origin as it stands in a field."""
        return str(self.app).encode("ascii")


# -- to the app ------------------------------------------------------------------------------------


def to_app(names: Names, headers: Fields, secret: Collection[bytes]) -> None:
    """A request's fields as the app shall see them.

    :param secret: names of cookies that the browser never has from us: what it sends by such a name
        was planted, by whoever else listens under this name on another port.
    """
    for index, (name, value) in enumerate(headers):
        key = name.lower()
        if key == b"origin":
            if value.strip(_OWS) == names.outside:
                headers[index] = (name, names.inside)
        elif key == b"referer":
            headers[index] = (name, _moved(value, names.alias, names.inside) or value)
    _without(headers, secret)


def _without(headers: Fields, secret: Collection[bytes]) -> None:
    """No cookie by these names in a request, nor what an app may take for one."""
    if not secret:
        return
    planted = _by_names(frozenset(secret))
    kept: Fields = []
    for name, value in headers:
        if name.lower() == b"cookie":
            pairs = [pair.strip(_OWS) for pair in value.split(b";")]
            own = [pair for pair in pairs if not planted.search(pair)]
            if len(own) < len(pairs):
                value = b"; ".join(pair for pair in own if pair)
                if not value:
                    continue
        kept.append((name, value))
    headers[:] = kept


@lru_cache(maxsize=64)
def _by_names(names: frozenset[bytes]) -> re.Pattern[bytes]:
    """One of the names, as the leniest of readers would find it in what browsers take for one pair.

    Some take white space of every kind off a name (that of Unicode is no part of the prefix that
    browsers look for, so it gets ``__Host-`` past them), some take it or a comma for an end.
    """
    either = b"|".join(re.escape(name) for name in sorted(names))
    return re.compile(rb"(?<![=%b])(?:%b)[^=%b]*(?:=|\Z)" % (_TCHAR, either, _TCHAR))


# -- to the browser --------------------------------------------------------------------------------


def to_browser(
    names: Names, headers: Sequence[tuple[bytes, bytes]], secret: Collection[bytes]
) -> Fields:
    """An answer's fields as the browser shall see them.

    :param secret: names of cookies that stay here: they are in none of the fields returned.
    """
    fields: Fields = []
    for name, value in headers:
        key = name.lower()
        if key in _DROPPED:
            continue
        if key in _URLS:
            value = location(names, value)
        elif key == b"refresh":
            value = refresh(names, value)
        elif key == b"access-control-allow-origin":
            if value.strip(_OWS) == names.inside:
                value = names.outside
        elif key in _POLICIES:
            value = policy(names, value)
        elif key == b"set-cookie":
            kept = set_cookie(names, value, secret)
            if kept is None:
                continue
            value = kept
        fields.append((name, value))
    return fields


def location(names: Names, value: bytes) -> bytes:
    """Rewrites a URL in an answer."""
    moved = _moved(value, names.app, names.outside)
    if moved is not None:
        return moved
    bare = value.strip(_OWS)
    return b"https:" + bare if bare.startswith(b"//") else value


def refresh(names: Names, value: bytes) -> bytes:
    """Rewrites the URL in ``Refresh``, found as browsers find it."""
    match = _REFRESH.fullmatch(value)
    if match is None:
        return value
    before, quote, text = match.groups()
    url, end, rest = text.partition(quote) if quote else (text, b"", b"")
    return before + quote + location(names, url) + end + rest


def _moved(value: bytes, source: Origin, target: bytes) -> bytes | None:
    """A URL of ``source``, with or without its scheme, at ``target``; None: it is another's."""
    match = _URL.fullmatch(value.strip(_OWS))
    if match is None:
        return None
    scheme, authority, rest = match.groups()
    if scheme is not None and scheme.lower() != source.scheme.encode("ascii"):
        return None
    if rest.startswith(b"\\"):  # which browsers read as "/", and others as a part of the host
        return None
    try:
        found = parse_authority(authority.decode("latin-1"), source.scheme)
    except Malformed:
        return None
    return target + rest if found == source else None


# -- cookies ---------------------------------------------------------------------------------------


def set_cookie(names: Names, value: bytes, secret: Collection[bytes]) -> bytes | None:
    """A ``Set-Cookie`` for this name; None: the browser is not given it."""
    pair, *attributes = value.split(b";")
    name = pair.partition(b"=")[0].strip(_OWS) if b"=" in pair else b""
    if name in secret:
        return None
    kept, domain = [pair], b""
    for attribute in attributes:
        key, _, text = attribute.partition(b"=")
        if key.strip(_OWS).lower() == b"domain":
            domain = text.strip(_OWS)  # the last one counts (RFC 6265 section 5.3)
        else:
            kept.append(attribute)
    if not domain:
        return b";".join(kept)
    if name.lower().startswith(b"__host-") or not _covers(domain, names.app):
        return None
    return b";".join(kept)


def _covers(domain: bytes, app: Origin) -> bool:
    """Whether a browser takes a cookie of this Domain from the app (RFC 6265 section 5.3).

    A domain of one label, such as ``internal``, is a public suffix to it, unless it is the host.
    """
    wanted = domain.removeprefix(b".").lower().decode("latin-1")
    if wanted == app.host:
        return True
    return not app.is_address and "." in wanted and app.host.endswith("." + wanted)


# -- Content-Security-Policy -----------------------------------------------------------------------


def policy(names: Names, value: bytes) -> bytes:
    """The policies of one field; what changes nothing in one leaves its bytes."""
    return b",".join(_policy(names, each) for each in value.split(b","))


def _policy(names: Names, value: bytes) -> bytes:
    directives, changed = [], False
    for directive in value.split(b";"):
        words = directive.split()
        if words and words[0].lower() not in _NO_SOURCES:
            found = [words[0], *_sources(names, words[0].lower(), words[1:])]
            if found != words:
                changed = True
                words = found
        if words:
            directives.append(b" ".join(words))
    return b"; ".join(directives) if changed else value


def _sources(names: Names, directive: bytes, sources: Sequence[bytes]) -> list[bytes]:
    """Sources, and beside each that covers the app the one that covers its other name."""
    if directive == b"report-uri":  # where reports go: to one of the two
        return [location(names, source) for source in sources]
    found: list[bytes] = []
    for source in sources:
        for each in (source, *_other(names, source)):
            if each not in found:
                found.append(each)
    return found


def _other(names: Names, source: bytes) -> list[bytes]:
    host = names.alias.authority.encode("ascii")
    scheme = source.removesuffix(b":").lower()
    if source.endswith(b":") and scheme in _SECURE:
        return [_SECURE[scheme] + b"://" + host]
    match = _HOST_SOURCE.fullmatch(source)
    if match is None:
        return []
    scheme, below, name, port, path = (part or b"" for part in match.groups())
    if not _matches(below, name.decode("ascii").lower(), port, names.app):
        return []
    if not scheme:  # that of the page
        return [host + path]
    return [_SECURE.get(scheme.lower(), scheme.lower()) + b"://" + host + path]


def _matches(below: bytes, name: str, port: bytes, app: Origin) -> bool:
    covered = app.host.endswith("." + name) if below else name == app.host
    # CSP: a source with http: also matches https:, each on its default port.
    return covered and (port == b":*" or int(port[1:] or b"443") == app.port)
