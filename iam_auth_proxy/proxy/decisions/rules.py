"""What the rules of trust say of one origin, and of one key. Pure.

**Who comes first.** An origin can be named in several places. Rules for the same origin, or for the
same wildcard, are merged key by key, in the order of :data:`~iam_auth_proxy.config.SOURCES`: the
operator's files, then flags, environment, ``config.toml`` and ``trust.toml``.

- ``kms_keys``: the operator's list, where there is one, is the whole list. Otherwise the person's
  entries add up: a flag adds a key to the file's.
- ``profile``, ``proofs``, ``via``, ``allow_from``, ``https``, ``alias``, ``service_token``
  (with its ``allow_http``): the first entry that says anything.

So whatever an operator leaves out is the person's to say, and what the operator says holds. An
exact origin hides the wildcards that cover it, a longer wildcard the shorter ones: those are other
rules, not other words on the same one. (But for the route: that is a matter of the network, so an
entry without one takes that of the wildcard around it.)

**Which keys.** :func:`check` holds the rule that session credentials are sealed only to a key that
the person named by ARN or, where the origin was named alone, to one of the caller's own account or
of ``key_accounts``. The signed identity is worthless to anybody else, so it needs a trusted origin
only. Either way the first key is pinned, and another one is a question or an alarm.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final

from iam_auth_proxy.config import DIRECT, SOURCES, ServiceTokenRule, TrustRule
from iam_auth_proxy.errors import BadChallenge, KeyChanged, Malformed, WeakProof, WrongKey
from iam_auth_proxy.names import KeyArn, KeyReference, Origin, parse_key_arn
from iam_auth_proxy.protocol.challenge import Challenge
from iam_auth_proxy.protocol.proof import ProofKind

STRENGTH: Final = (ProofKind.SIGNED_IDENTITY, ProofKind.SESSION_CREDENTIALS)
"""The proxy's own order, the strongest first; a server's is never looked at."""


class Accepted(StrEnum):
    """How a pinned key came to be pinned."""

    FIRST_USE = "first-use"
    PAGE = "page"
    COMMAND = "command"


@dataclass(frozen=True, slots=True)
class Pin:
    """What was seen of an origin. It trusts nobody by itself: it narrows what a rule allows.

    :ivar key: the key's ARN; empty: none was used yet.
    :ivar accepted: how the key was pinned. One that the person typed is as good as one of the
        rule's own; one of the confirm page holds for the signed identity.
    :ivar proof: the strongest proof that the origin ever took.
    :ivar path: where its sign-ins go.
    :ivar route: of a plain-http origin: how it is reached.
    """

    key: str = ""
    accepted: Accepted = Accepted.FIRST_USE
    proof: ProofKind | None = None
    path: str = ""
    route: str = ""


@dataclass(frozen=True, slots=True)
class AppTrust:
    """What holds for one trusted origin.

    :ivar profile: the AWS profile; empty: the default one.
    :ivar proofs: what may be proved here.
    :ivar allow_from: origins whose pages may cause a sign-in here.
    :ivar keys: the ARNs that the rules name.
    :ivar via: the name of a route, ``direct``, or empty: the default route.
    :ivar https: how an app on https is reached, of :data:`~iam_auth_proxy.config.HTTPS`; empty: as
        through a tunnel.
    :ivar alias: its name under ``.localhost``; empty: none.
    :ivar service_token: what is added to its requests; None: nothing.
    :ivar managed: whether the keys are the operator's, to which nobody adds.
    :ivar place: where the first of its rules was written.
    :ivar flagged: whether that is a flag or a variable, of which no command knows.
    """

    origin: Origin
    profile: str = ""
    proofs: frozenset[ProofKind] = frozenset(STRENGTH[:1])
    allow_from: tuple[Origin, ...] = ()
    keys: tuple[str, ...] = ()
    wildcard: bool = False
    via: str = ""
    pin: Pin = Pin()
    managed: bool = False
    place: str = ""
    https: str = ""
    alias: str = ""
    service_token: ServiceTokenRule | None = None
    flagged: bool = False

    def named(self, kind: ProofKind) -> tuple[str, ...]:
        """The keys that count as named for this kind; where there are any, no other is used."""
        by = (Accepted.COMMAND,) if kind is ProofKind.SESSION_CREDENTIALS else tuple(Accepted)[1:]
        if self.managed or not self.pin.key or self.pin.accepted not in by:
            return self.keys
        return tuple(dict.fromkeys((*self.keys, self.pin.key)))


def merge(rules: Iterable[TrustRule]) -> tuple[tuple[TrustRule, bool], ...]:
    """One rule for each origin and wildcard, the most specific first; see the module's own words.

    :returns: (rule, whether its keys are the operator's).
    """
    same: dict[tuple[str, str, int, bool], list[TrustRule]] = {}
    for rule in rules:
        same.setdefault((rule.scheme, rule.host, rule.port, rule.wildcard), []).append(rule)
    merged = [_merged(sorted(each, key=_precedence)) for each in same.values()]
    return tuple(sorted(merged, key=lambda pair: (pair[0].wildcard, -len(pair[0].host))))


def _precedence(rule: TrustRule) -> int:
    return SOURCES.index(rule.source)


def _merged(rules: Sequence[TrustRule]) -> tuple[TrustRule, bool]:
    operators = [rule for rule in rules if rule.source == SOURCES[0] and rule.keys]
    keys = dict.fromkeys(key for rule in operators or rules for key in rule.keys)
    whole = replace(
        rules[0],
        keys=tuple(keys),
        profile=next((rule.profile for rule in rules if rule.profile), ""),
        proofs=next((rule.proofs for rule in rules if rule.proofs), ()),
        via=next((rule.via for rule in rules if rule.via), ""),
        allow_from=next((rule.allow_from for rule in rules if rule.allow_from), ()),
        https=next((rule.https for rule in rules if rule.https), ""),
        alias=next((rule.alias for rule in rules if rule.alias), ""),
        service_token=next((rule.service_token for rule in rules if rule.service_token), None),
        client=next((rule.client for rule in rules if rule.client), None),
    )
    return whole, bool(operators)


def aliases(rules: Iterable[TrustRule]) -> dict[str, Origin]:
    """Whose each name under ``.localhost`` is; of two apps that want one, the first source's.

    :param rules: merged ones.
    """
    found: dict[str, Origin] = {}
    for rule in sorted(rules, key=_precedence):
        if rule.alias_name:
            found.setdefault(rule.alias_name, Origin(rule.scheme, rule.host, rule.port))
    return found


def via_of(rules: Iterable[TrustRule], origin: Origin) -> str:
    """The route that the most specific rule names for the origin's host; empty where none does.

    A route is a host's: what a browser tries besides, on another port or with TLS, must not go
    around it.
    """
    routed = [rule for rule in rules if rule.via]
    for rule in routed:
        if rule.covers(origin):
            return rule.via
    for rule in routed:
        if rule.covers(Origin(rule.scheme, origin.host, rule.port)):
            return rule.via
    return ""


def lists_host(rules: Iterable[TrustRule], host: str) -> bool:
    """Whether there is an app at a host, on whatever port."""
    return any(rule.covers(Origin(rule.scheme, host, rule.port)) for rule in rules)


def app_of(
    origin: Origin,
    rule: TrustRule,
    pin: Pin,
    *,
    managed: bool,
    via: str,
    proofs: frozenset[ProofKind],
) -> AppTrust:
    """What a merged rule and a pin say of one origin.

    :param via: see :func:`via_of`.
    :param proofs: what may be proved where the rule does not say.
    """
    allowed = frozenset(ProofKind(kind) for kind in rule.proofs) or proofs
    if rule.wildcard:
        # A wildcard covers everybody who can get a name under it, so apps found by one only ever
        # get the strongest kind of proof, which is of no use to a thief.
        allowed = frozenset(STRENGTH[:1])
    return AppTrust(
        origin,
        rule.profile,
        allowed,
        rule.allow_from,
        rule.keys,
        rule.wildcard,
        via,
        pin,
        managed,
        rule.place,
        rule.https,
        rule.alias_name,
        None if rule.wildcard else rule.service_token,
        bool(rule.place) and rule.source in SOURCES[1:3],
    )


# -- proofs ----------------------------------------------------------------------------------------


def choose(app: AppTrust, challenge: Challenge) -> ProofKind:
    """The strongest proof that both sides allow.

    :raises WeakProof: there is none, or it is weaker than one that this origin took before.
    """
    bound = challenge.bound
    offered = frozenset(STRENGTH[1:]) if bound is None else bound.proofs
    common = [kind for kind in STRENGTH if kind in offered and kind in app.proofs]
    if not common:
        unset = "IAM_AUTH_ORIGINS" if bound is None else "IAM_AUTH_PROOFS"
        raise _nothing_in_common(app, offered, unset)
    best, before = common[0], app.pin.proof
    # A stronger proof that the person has disallowed since does not count as a downgrade.
    if before in app.proofs and before is not None and _weaker(best, before):
        raise WeakProof(
            f"{app.origin} took {before} before, and now wants {best}",
            public="The app asks for a weaker proof than it did before.",
            remedy=f"If its owner confirms that: {add_command(app.origin, proofs=STRENGTH)}",
        )
    return best


def _weaker(kind: ProofKind, than: ProofKind) -> bool:
    return STRENGTH.index(kind) > STRENGTH.index(than)


def strongest(kind: ProofKind, before: ProofKind | None) -> ProofKind:
    """The stronger of two."""
    return before if before is not None and _weaker(kind, before) else kind


def _nothing_in_common(app: AppTrust, offered: frozenset[ProofKind], unset: str) -> WeakProof:
    """:param unset: what the owner of an app that mounts our module may have forgotten to set."""
    if ProofKind.SESSION_CREDENTIALS in offered:
        return WeakProof(
            f"{app.origin} wants session credentials, and may be given {_words(app.proofs)}",
            public="The app wants session credentials, which carry nearly all of your rights.",
            remedy="If it mounts iam_auth_proxy.server, it asks for less once its owner sets "
            f"{unset}. If it is an original server, and you trust its owner with "
            f"those: {add_command(app.origin, proofs=STRENGTH)}",
        )
    return WeakProof(
        f"{app.origin} takes {_words(offered)}, and may be given {_words(app.proofs)}",
        public="The app takes no proof that you allow it.",
        remedy=add_command(app.origin, proofs=STRENGTH[:1]),
    )


def _words(kinds: Iterable[ProofKind]) -> str:
    return ", ".join(sorted(kinds)) or "nothing"


# -- keys ------------------------------------------------------------------------------------------


def check_reference(
    app: AppTrust, key: KeyReference, kind: ProofKind, accounts: Sequence[str]
) -> None:
    """Before anything is sealed: may this challenge's key be used at all?

    An alias or a bare id says little; which key it stands for, :func:`check` is asked once KMS has
    said so.

    :param accounts: the caller's own and ``key_accounts``.
    :raises WrongKey: the challenge names a key that is not pinned, or of another account.
    :raises BadChallenge: a bound challenge must name its key by ARN.
    """
    if key_arn(key.text) is not None:
        check(app, key.text, kind, accounts)
    elif kind is ProofKind.SIGNED_IDENTITY:
        raise BadChallenge(f"{app.origin} does not name its key by ARN")
    elif not app.named(kind) and key.account not in ("", *accounts):
        raise _foreign(app.origin, key.text, alias=True)


def check(app: AppTrust, arn: str, kind: ProofKind, accounts: Sequence[str]) -> None:
    """May something be sealed to this very key?

    :raises KeyChanged: another key than the one that is pinned.
    :raises WrongKey: none is pinned, and this one is of somebody else's account.
    """
    named = app.named(kind)
    if named:
        if arn not in named:
            raise _changed(app, named, arn, kind)
        return
    if app.pin.key and app.pin.key != arn:
        raise _changed(app, (app.pin.key,), arn, kind)
    if kind is ProofKind.SESSION_CREDENTIALS and parse_key_arn(arn).account not in accounts:
        raise _foreign(app.origin, arn, alias=False)


def _changed(app: AppTrust, before: Sequence[str], arn: str, kind: ProofKind) -> KeyChanged:
    account = parse_key_arn(arn).account
    alike = [key for key in before if parse_key_arn(key).account == account]
    old = (alike or list(before))[0]
    remedy = f"If its owner confirms the new key: {accept_command(app.origin, arn)}"
    if app.flagged:
        where = f"{app.place}, which trusts the app"
        remedy = f"If its owner confirms the new key, correct {where}: {app.origin}={arn}"
    if app.managed:
        remedy = f"This machine's operator lists the app's keys in {app.place}: ask there."
    return KeyChanged(
        f"{app.origin} wants {arn}; pinned: {', '.join(before)}",
        old=old,
        new=arn,
        same_account=bool(alike),
        question=bool(alike) and kind is ProofKind.SIGNED_IDENTITY and not app.managed,
        remedy=remedy,
    )


def _foreign(origin: Origin, key: str, *, alias: bool) -> WrongKey:
    arn = "KEY_ARN" if alias else key
    return WrongKey(
        f"{origin} wants {key}, which is not of the caller's account",
        public="The app's KMS key belongs to another AWS account than yours.",
        remedy=f"If its owner confirms the key: {add_command(origin, keys=[arn])}",
    )


def key_arn(text: str) -> KeyArn | None:
    """The key ARN that a text is; None where it is an alias, a bare id or nothing of the kind."""
    try:
        return parse_key_arn(text)
    except Malformed:
        return None


# -- routes ----------------------------------------------------------------------------------------


def route_of(app: AppTrust, default: str) -> str:
    """How the origin is reached: the name of a route, an upstream proxy's URL, or ``direct``."""
    return app.via or default


def strayed(app: AppTrust, default: str) -> bool:
    """Whether a plain-http origin is reached otherwise than when it was trusted.

    Whoever answers by that name there may be somebody else. What an entry says of the route is the
    person's own word, so only the default route can stray.
    """
    plain = app.origin.scheme == "http"
    return plain and not app.via and app.pin.route not in ("", default)


def in_words(route: str) -> str:
    """A route in a sentence: "reached …"."""
    return "directly" if route == DIRECT else f"through {route}"


# -- commands --------------------------------------------------------------------------------------


def add_command(
    origin: Origin, *, keys: Iterable[str] = (), proofs: Iterable[ProofKind] = ()
) -> str:
    """The command that trusts an origin, quoted for a shell."""
    words = ["iam-auth-proxy", "trust", "add", str(origin)]
    words += [word for key in keys for word in ("--kms-key", key)]
    words += [word for kind in proofs for word in ("--proof", str(kind))]
    return shlex.join(words)


def accept_command(origin: Origin, key: str) -> str:
    """The command that accepts another key, quoted for a shell."""
    return shlex.join(["iam-auth-proxy", "trust", "accept-key", str(origin), key])
