"""Whose challenges are answered, with which proof and which keys: what a sign-in asks.

Nothing is proved to a stranger. The rules themselves are pure and live in
:mod:`iam_auth_proxy.proxy.decisions.rules`; this module knows which are in force, and keeps what
was seen: the key, the strongest proof, the path and the route of each origin, which are pinned at
first use and written to ``trust.toml``, so that they hold over restarts.

What counts is the key ARN that KMS says it used, not the one that the challenge asked for: an alias
can be repointed. Methods may be called from any thread.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Final, Protocol

from iam_auth_proxy.config import DIRECT, TrustRule
from iam_auth_proxy.errors import BadChallenge, ConfigError, KeyChanged, NotTrusted
from iam_auth_proxy.names import KeyReference, Origin
from iam_auth_proxy.protocol.challenge import Challenge
from iam_auth_proxy.protocol.proof import ProofKind
from iam_auth_proxy.proxy.decisions import rules as pure
from iam_auth_proxy.proxy.decisions.inforce import InForce, Reach
from iam_auth_proxy.proxy.decisions.rules import STRENGTH, Accepted, AppTrust, Pin
from iam_auth_proxy.relay.tls import ClientIdentity

__all__ = ["AppTrust", "Pin", "Store", "Stored", "Trust"]

log = logging.getLogger(__name__)

# Answers kept; a page can ask for any number of names under a wildcard.
_KNOWN: Final = 4096


@dataclass(frozen=True, slots=True)
class Stored:
    """What one ``trust.toml`` holds."""

    rules: tuple[TrustRule, ...] = ()
    pins: Mapping[Origin, Pin] = field(default_factory=dict)


class Store(Protocol):
    """One ``trust.toml``, as this module needs it; :class:`.trustfile.TrustFile` implements it."""

    def stamp(self) -> object:
        """Changes when the file does; cheap."""
        ...

    def load(self) -> Stored:
        """What it holds.

        :raises ConfigError: it is damaged; nothing of it is used.
        """
        ...

    def pin(self, origin: Origin, change: Callable[[Pin], Pin]) -> Stored:
        """Writes what ``change`` makes of the origin's pin as it is in the file by now.

        :raises ConfigError: it is damaged, and stays as it is.
        :raises OSError: it cannot be written.
        """
        ...

    def grant(self, origin: Origin, change: Callable[[Pin], Pin]) -> Stored:
        """As :meth:`pin`, and trusts the origin for the signed identity unless it is listed."""
        ...


class Trust:
    """The rules in force, and what was seen of the origins they cover.

    :param rules: those of flags, environment and ``config.toml``.
    :param proofs: what may be proved where a rule does not say.
    :param key_accounts: accounts whose keys are as those of the caller's own.
    :param route: the default route: ``direct`` or the URL of an upstream proxy.
    :param vias: the names of the routes that exist.
    :param stores: the operator's and the person's, in this order; the last is written.
    :param before: the trust before a reload: what it granted once, and pinned without a store.
    :ivar clients: the certificates that are shown to apps, where that may be.
    :ivar adds: the apps whose requests get more than they came with, by their entries: those, and
        those with service tokens. For a look that costs nothing.
    :ivar on_change: called when a store was read again, where :meth:`refresh` is.
    :raises ConfigError: a store is damaged. Without its pins any key would be the first.
    """

    def __init__(
        self,
        rules: Iterable[TrustRule],
        *,
        proofs: Iterable[str] = STRENGTH[:1],
        key_accounts: Iterable[str] = (),
        route: str = DIRECT,
        vias: Iterable[str] = (),
        stores: Iterable[Store] = (),
        before: Trust | None = None,
    ) -> None:
        self._given = tuple(rules)
        self._proofs = frozenset(ProofKind(kind) for kind in proofs)
        self._key_accounts = tuple(key_accounts)
        self._route = route
        self._vias = frozenset(vias)
        self._stores = tuple(stores)
        self._lock = threading.RLock()
        self.on_change: Callable[[], None] = lambda: None
        self._once: dict[Origin, Pin] = before._once if before else {}
        # Pins in memory only: there is no trust.toml, or it could not be written.
        self._unsaved: dict[Origin, Pin] = before._unsaved if before else {}
        self._stamps: tuple[object, ...] = tuple(store.stamp() for store in self._stores)
        self._stored: tuple[Stored, ...] = tuple(store.load() for store in self._stores)
        self._settle()

    def refresh(self) -> bool:
        """Reads the stores again where they changed; whether anything did.

        A store that was damaged since is reported, and what it held before stays in force: nothing
        is trusted, and no pin is lost, by accident.
        """
        stamps = tuple(store.stamp() for store in self._stores)
        if stamps == self._stamps:
            return False
        with self._lock:
            if stamps == self._stamps:  # we wrote it ourselves, just now
                return False
            self._stamps = stamps
            try:
                self._stored = tuple(store.load() for store in self._stores)
            except ConfigError as error:
                for problem in error.problems:
                    log.error("trust not read again, what was known stays: %s", problem)
                return False
            self._settle()
        log.info("trust read again", extra={"origins": len(self.rules)})
        self.on_change()
        return True

    def _settle(self) -> None:
        """Makes the rules in force of what was given, stored and granted."""
        once = [_rule(origin) for origin in self._once]
        rules = [*self._given, *(rule for stored in self._stored for rule in stored.rules), *once]
        pins: dict[Origin, Pin] = {}
        for stored in self._stored:
            pins |= stored.pins
        self._in_force = InForce.of(rules, self._vias)
        self.clients: Mapping[Origin, ClientIdentity] = self._in_force.clients
        self.adds = self._in_force.adds
        self._pins = {**pins, **self._unsaved, **self._once}
        self._apps: dict[Origin, AppTrust | None] = {}

    def known(self) -> frozenset[Origin]:
        """Every origin by name: those that rules list, and those that were signed in to."""
        listed = (
            Origin(rule.scheme, rule.host, rule.port) for rule in self.rules if not rule.wildcard
        )
        return frozenset((*listed, *self._pins))

    # -- questions ---------------------------------------------------------------------------------

    @property
    def rules(self) -> tuple[TrustRule, ...]:
        """The rules in force, the most specific first; one for each origin and wildcard."""
        return tuple(rule for rule, _ in self._in_force.merged)

    def trusts(self, origin: Origin) -> bool:
        """Whether challenges of this origin are answered."""
        return self.app(origin) is not None

    def app(self, origin: Origin) -> AppTrust | None:
        """What holds for this origin; None where it is a stranger."""
        known = self._apps.get(origin)
        if known is not None or origin in self._apps:
            return known
        apps, app = self._apps, self.listed(origin)
        if app is not None and pure.strayed(app, self._route):
            app = None
        if len(apps) >= _KNOWN:
            apps.clear()
        apps[origin] = app
        return app

    def listed(self, origin: Origin) -> AppTrust | None:
        """What the rules say of an origin, on whichever route it is reached now."""
        for rule, managed in self._in_force.merged:
            if rule.covers(origin):
                pin = self._pins.get(origin, Pin())
                via, proofs = self.via(origin), self._proofs
                app = pure.app_of(origin, rule, pin, managed=managed, via=via, proofs=proofs)
                if app.alias and self.aliases[app.alias] != origin:
                    return replace(app, alias="")  # it is another's
                return app
        return None

    @property
    def aliases(self) -> Mapping[str, Origin]:
        """The apps on https that are reached under ``NAME.localhost``, by NAME."""
        return self._in_force.aliases

    def untrusted(self, origin: Origin, *, asked: bool = True) -> NotTrusted:
        """Why an origin is a stranger, and the command that changes it.

        :param asked: whether it has asked who somebody is.
        """
        app = self.listed(origin)
        command = pure.add_command(origin)
        if app is None:
            what = f"{origin} is not an app that you trust."
            return NotTrusted(
                f"{origin} is not trusted" if asked else what,
                public="" if asked else what,
                remedy=f"If you know this site, run: {command}",
            )
        # The routes go to the log only: the answer can be read by that other site's scripts.
        before, now = pure.in_words(app.pin.route), pure.in_words(self._route)
        return NotTrusted(
            f"{origin} was trusted when reached {before}, and is reached {now}",
            public="You trusted this site on another route than the one it is reached by now: "
            "it may be another site of the same name.",
            remedy=f"If it is the same site, run: {command}",
        )

    def choose(self, origin: Origin, challenge: Challenge) -> ProofKind:
        """The strongest proof that both sides allow, by the proxy's own order.

        :raises NotTrusted: a stranger.
        :raises WeakProof: there is none, or it is weaker than one that this origin took before.
        """
        return pure.choose(self._known(origin), challenge)

    def check_key(self, origin: Origin, key: KeyReference, account: str, kind: ProofKind) -> None:
        """Before anything is sealed: may this challenge's key be used at all?

        :param account: the caller's own.
        :raises NotTrusted: a stranger.
        :raises WrongKey: another key than the pinned one, or of somebody else's account.
        :raises BadChallenge: the challenge had to name its key by ARN.
        """
        pure.check_reference(self._known(origin), key, kind, self._accounts(account))

    def check_used(
        self, origin: Origin, arn: str, account: str, kind: ProofKind, *, pin: bool = True
    ) -> None:
        """Before a token leaves: is the key that KMS used the right one? If it is the first: pins
        it, with the proof and the route.

        :raises NotTrusted: a stranger.
        :raises WrongKey: another key than the pinned one, or of somebody else's account.
        """
        app, accounts = self._known(origin), self._accounts(account)
        pure.check(app, arn, kind, accounts)
        if not pin:
            return

        def seen(before: Pin) -> Pin:
            # Another process may have pinned another key since.
            pure.check(replace(app, pin=before), arn, kind, accounts)
            plain = origin.scheme == "http"
            return replace(
                before,
                key=before.key or ("" if app.keys else arn),
                proof=pure.strongest(kind, before.proof),
                route=pure.route_of(app, self._route)
                if plain and not before.route
                else before.route,
            )

        self._pin(origin, seen)

    def check_path(self, origin: Origin, path: str) -> None:
        """Where a challenge wants the proof to go; the first path is pinned.

        A page of the same origin that somebody else wrote could otherwise have it sent to itself.

        :raises NotTrusted: a stranger.
        :raises BadChallenge: another path than before.
        """
        before = self._known(origin).pin.path
        if before and before != path:
            raise BadChallenge(
                f"{origin} wants its sign-ins at {path}; before: {before}",
                public="The app wants its sign-ins elsewhere than before.",
                remedy=f"If its owner confirms that: {pure.add_command(origin)}",
            )
        if not before:
            self._pin(origin, lambda pin: replace(pin, path=pin.path or path))

    def check_route(self, origin: Origin) -> None:
        """Before a service token leaves: is this the route to the app? The first one is pinned.

        A sign-in pins it with the key; an app that wants tokens may never ask for one.

        :raises NotTrusted: a stranger, as whoever answers by that name on another route is.
        """
        app = self._known(origin)
        if origin.scheme == "http" and not app.pin.route:
            route = pure.route_of(app, self._route)
            self._pin(origin, lambda pin: replace(pin, route=pin.route or route))

    def _known(self, origin: Origin) -> AppTrust:
        app = self.app(origin)
        if app is None:
            raise self.untrusted(origin)
        return app

    def _accounts(self, account: str) -> tuple[str, ...]:
        return (account, *self._key_accounts)

    # -- answers -----------------------------------------------------------------------------------

    def grant(self, origin: Origin, *, key: str, kind: ProofKind, keep: bool) -> None:
        """What the confirm page was told: this origin, with this key. Never session credentials.

        For an origin that is trusted already, it is the answer to a changed key. Once (``keep``
        false) is for the life of this process; always is written to ``trust.toml``.

        :param key: the ARN that was shown.
        :raises BadChallenge: no key ARN, or another proof than the signed identity.
        :raises KeyChanged: another account's key in place of a pinned one: the command's business.
        :raises ConfigError: ``trust.toml`` is damaged. OSError: it cannot be written.
        """
        if kind is not ProofKind.SIGNED_IDENTITY or pure.key_arn(key) is None:
            raise BadChallenge(f"{origin}: the confirm page grants the signed identity only")
        app, listed = self.app(origin), self.listed(origin)
        if app is None and listed is not None and STRENGTH[1] in listed.proofs:
            raise self.untrusted(origin)  # on another route, and trusted with more than a page is
        if app is not None:
            try:
                pure.check(app, key, kind, ())
            except KeyChanged as changed:
                if not changed.question:
                    raise
        route = "" if origin.scheme != "http" else (app.via if app else "") or self._route

        def granted(before: Pin) -> Pin:
            path = before.path if app is not None else ""
            return Pin(key, Accepted.PAGE, before.proof, path, route)

        with self._lock:
            if keep and self._stores:
                new = listed is None or self._once.pop(origin, None) is not None
                change = self._stores[-1].grant if new else self._stores[-1].pin
                self._store(change(origin, granted))
                return
            new = listed is None or origin in self._once
            pins = self._once if new else self._unsaved
            pins[origin] = granted(self._pins.get(origin, Pin()))
            self._settle()

    def forget(self, origin: Origin | None = None) -> None:
        """Ends what was granted once: for this origin, or for all."""
        with self._lock:
            for each in [origin] if origin is not None else list(self._once):
                self._once.pop(each, None)
            self._settle()

    def _pin(self, origin: Origin, change: Callable[[Pin], Pin]) -> None:
        with self._lock:
            before = self._pins.get(origin, Pin())
            after = change(before)
            if after == before:
                return
            if origin in self._once:
                self._once[origin] = after
            elif self._stores:
                try:
                    self._store(self._stores[-1].pin(origin, change))
                    return
                except (OSError, ConfigError) as error:
                    log.warning(
                        "not pinned beyond this run: %s", error, extra={"origin": str(origin)}
                    )
                    self._unsaved[origin] = after
            else:
                self._unsaved[origin] = after
            self._settle()

    def _store(self, stored: Stored) -> None:
        self._stored = (*self._stored[:-1], stored)
        self._stamps = (*self._stamps[:-1], self._stores[-1].stamp())
        self._settle()

    # -- routes ------------------------------------------------------------------------------------

    def via(self, origin: Origin) -> str:
        """The route of an origin's host: its name, ``direct``, or empty: the default one.

        :returns: also a name that nobody defined, so that the host is not reached directly instead.
        """
        return pure.via_of(self._in_force.routed, origin)

    def lists_host(self, host: str) -> bool:
        """Whether there is an app at a host, on whatever port."""
        return pure.lists_host(self._in_force.routed, host)

    def routes(self) -> tuple[Reach, ...]:
        """What is to be sent to the proxy: the trusted origins, and the hosts that are routed."""
        return self._in_force.reaches()


def _rule(origin: Origin) -> TrustRule:
    """An origin that was granted once."""
    return TrustRule(
        origin.scheme,
        origin.host,
        origin.port,
        proofs=tuple(STRENGTH[:1]),
        source="store",
        place="the confirm page, once",
    )
