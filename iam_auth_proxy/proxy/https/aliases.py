"""Apps on https that are reached as ``http://NAME.localhost:PORT/``: who is let in, and as what.

A browser never gets such an app's session: it is held here, as for programs, and goes with every
request that is let in. So SameSite, the browser's own judgement, is missing, and
:func:`~iam_auth_proxy.proxy.decisions.decide.ruling` takes its place for **every** request, before
the app sees it: what another page asks for, or what nobody can say who asked for, is refused.

Two things open a page that another site led to, both the person's own: a click on the page that the
refusal shows, which makes it a request of this very name; and, once, a yes on the confirm page,
whose way back is a navigation from the proxy's own address.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from functools import lru_cache
from hashlib import blake2b
from typing import Final

from iam_auth_proxy.names import Origin, parse_origin
from iam_auth_proxy.protocol import nonce as nonces
from iam_auth_proxy.protocol.cookies import cookie_name
from iam_auth_proxy.proxy.decisions.clicks import SAFE, link_to, navigates
from iam_auth_proxy.proxy.decisions.decide import VISIT, Authority, Ruling, ruling
from iam_auth_proxy.proxy.decisions.trust import Trust
from iam_auth_proxy.proxy.https import alias
from iam_auth_proxy.proxy.https.alias import Fields, Names
from iam_auth_proxy.proxy.pages.stop import Stop
from iam_auth_proxy.relay.exchange import Entrance, Exchange, Reply, RequestHead

SUFFIX: Final = "localhost"
WELCOME: Final = 60.0
"""Seconds within which the way back from the confirm page is taken."""

_WELCOMES: Final = 16
_SESSION: Final = "iam-auth"  # as the gate calls its cookie unless it is told otherwise
_PRIVATE: Final = ((b"Cross-Origin-Resource-Policy", b"same-origin"),)


def url_of(name: str, own_address: str) -> str:
    """The alias's origin; empty where no browser reaches the proxy.

    :param own_address: ``HOST:PORT`` of the proxy's own pages.
    """
    port = own_address.rpartition(":")[2]
    if not name or not port:
        return ""
    return str(Origin("http", f"{name}.{SUFFIX}", int(port)))


@lru_cache(maxsize=1024)
def address_of(name: str) -> str:
    """The loopback address that is this alias's own, the same on every machine and day.

    Cookies ignore ports, so on one address all apps would share theirs; and on one that another app
    had yesterday, it would be sent that app's. With 24 bits of a digest no two aliases of a person
    have the same one but by a rare chance, in which case the second has none.
    """
    first, second, third = blake2b(name.encode("ascii"), digest_size=3).digest()
    # Neither 127.0.0.1 and its neighbours, which other programs use, nor a network's own.
    return f"127.{first % 254 + 1}.{second}.{third % 254 + 1}"


def addresses(aliases: Mapping[str, Origin], port: int) -> dict[str, str]:
    """``HOST:PORT`` as browsers say it -> the alias whose own address that is."""
    found: dict[str, str] = {}
    for name in aliases:
        found.setdefault(Origin("http", address_of(name), port).authority, name)
    return found


def app_of(origin: Origin, trust: Trust, own_address: str, port: int = 0) -> Origin:
    """The app that is known by this origin, where it is an alias; otherwise the origin itself."""
    aliases = trust.aliases
    if port and origin.scheme == "http" and origin.authority in addresses(aliases, port):
        return aliases[addresses(aliases, port)[origin.authority]]
    for name, app in aliases.items():
        if str(origin) == url_of(name, own_address):
            return app
    return origin


class Aliases:
    """Lets requests in, and rewrites what passes.

    :param trust: whose challenges are answered now.
    :param hosts: the values of Host for the proxy's own pages, as they are now.
    :param monotonic: seconds.
    :param port: where each has an address of its own; 0: nowhere.
    """

    def __init__(
        self,
        trust: Callable[[], Trust],
        hosts: Collection[str],
        monotonic: Callable[[], float],
        port: int = 0,
    ) -> None:
        self._port = port
        self._trust = trust
        self._hosts = hosts
        self._monotonic = monotonic
        # Names of session cookies, as sign-ins showed them; few, and of listed apps alone.
        self._learnt: dict[Origin, set[bytes]] = {}
        self._welcome: OrderedDict[str, float] = OrderedDict()

    # -- which app it is ---------------------------------------------------------------------------

    def serves(self, host: bytes, entrance: Entrance) -> Origin | None:
        """The app of a request on our own port; None: it is for the proxy's own pages.

        Names are for this machine: another's ``NAME.localhost`` is its own.

        :param host: the value of Host.
        """
        text = host.decode("latin-1").lower()
        name, _, place = text.partition(".")
        if entrance.private:  # its program was told of a proxy, and of no port
            named = place == SUFFIX
        else:
            named = place.startswith(SUFFIX) and place in self._hosts
        if not named and not (self._port and text.startswith("127.")):
            return None
        if not entrance.local:
            return None
        trust = self._trust()
        trust.refresh()
        if not named:
            name = addresses(trust.aliases, self._port).get(text, "")
        return trust.aliases.get(name)

    # -- who asks ----------------------------------------------------------------------------------

    def admit(self, exchange: Exchange) -> Ruling | Reply:
        """By which rule a request is let in, or the answer in its place.

        The request that is let in speaks the app's own names from now on.
        """
        request, names = exchange.request, _names(exchange)
        ruled = self._ruling(exchange, names)
        if ruled is None:
            return _refusal(request, names)
        alias.to_app(names, request.headers, self._secret(exchange.origin))
        return ruled

    def _ruling(self, exchange: Exchange, names: Names) -> Ruling | None:
        request = exchange.request
        app = self._trust().app(exchange.origin)
        allowed = () if app is None else self._known_as(app.allow_from, names.alias.port)
        found = ruling(request, names.alias, allowed)
        if found.authority is not Authority.NOTHING and found.vouched:
            return found
        url = names.outside + request.target
        if request.method in SAFE and navigates(request) and self._is_welcome(url):
            return VISIT
        return None

    def _known_as(self, origins: Iterable[Origin], port: int) -> tuple[Origin, ...]:
        """These origins, by whichever name a browser knows them."""
        given = tuple(origins)
        named = [name for name, app in self._trust().aliases.items() if app in given]
        found = [Origin("http", f"{name}.{SUFFIX}", port) for name in named]
        if self._port:
            found += [Origin("http", address_of(name), self._port) for name in named]
        return (*given, *found)

    def welcome(self, url: str) -> None:
        """The person said yes on the confirm page, which now leads back to this URL, once."""
        self._welcome[url] = self._monotonic() + WELCOME
        while len(self._welcome) > _WELCOMES:
            self._welcome.popitem(last=False)

    def _is_welcome(self, url: bytes) -> bool:
        if not self._welcome:
            return False
        return self._welcome.pop(url.decode("latin-1"), 0.0) > self._monotonic()

    # -- what passes -------------------------------------------------------------------------------

    def learn(self, origin: Origin, names: Iterable[bytes]) -> None:
        """Remembers the names of the cookies that make a session at this app."""
        self._learnt.setdefault(origin, set()).update(names)

    def _secret(self, origin: Origin) -> set[bytes]:
        usual = (cookie_name(origin, _SESSION), nonces.cookie_name(origin))
        return {*(name.encode("ascii") for name in usual), *self._learnt.get(origin, ())}

    def outside(self, exchange: Exchange, headers: Sequence[tuple[bytes, bytes]]) -> Fields:
        """An answer's fields, as the browser gets them: without session and nonce."""
        kept = [
            (name, value)
            for name, value in headers
            if name.lower() != b"set-cookie" or not nonces.is_nonce_cookie(value)
        ]
        return alias.to_browser(_names(exchange), kept, self._secret(exchange.origin))


def _names(exchange: Exchange) -> Names:
    return Names(exchange.origin, parse_origin(exchange.alias.decode("ascii")))


def _refusal(request: RequestHead, names: Names) -> Reply:
    """Another page asked, or nobody knows who. What opens it is a click on this page."""
    opens = navigates(request) or request.get(b"sec-fetch-site") is None
    link = link_to(request, names.alias) if opens else ""
    stop = Stop(
        403,
        "Did you mean to open this?" if link else "No page of this app asked for this.",
        "cross-site",
        "Another site led here, or your browser does not say who did. Open it only if you meant to."
        if link
        else "",
        str(names.app),
        link=link,
    )
    return stop.reply(request.get(b"accept") or b"", headers=_PRIVATE)
