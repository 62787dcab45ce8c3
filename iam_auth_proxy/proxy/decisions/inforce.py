"""Lookups derived from the rules of trust (by origin, by alias), made once at each change. Pure.

The rules themselves, their precedence and what a rule says of an origin are :mod:`.rules`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Self

from iam_auth_proxy.config import DIRECT, TrustRule
from iam_auth_proxy.names import Origin
from iam_auth_proxy.proxy.decisions import rules as pure
from iam_auth_proxy.relay.tls import ClientIdentity


@dataclass(frozen=True, slots=True)
class Reach:
    """What is to be sent to the proxy, for the PAC.

    :ivar wildcard: ``host`` is what must follow at least one further label.
    :ivar routed: the whole host is reached through a route: every scheme and port of it.
    """

    scheme: str
    host: str
    port: int
    wildcard: bool = False
    routed: bool = False


@dataclass(frozen=True, slots=True)
class InForce:
    """The rules, merged, and what is looked up by origin or name.

    :ivar merged: (rule, whether its keys are the operator's), the most specific first.
    :ivar aliases: the apps on https that are reached under ``NAME.localhost``, by NAME.
    :ivar clients: the certificates that are shown to apps.
    :ivar adds: the apps whose requests get more than they came with: those, and those with service
        tokens.
    :ivar routed: also the rules whose route nobody defined.
    """

    merged: tuple[tuple[TrustRule, bool], ...]
    aliases: Mapping[str, Origin]
    clients: Mapping[Origin, ClientIdentity]
    adds: frozenset[Origin]
    routed: tuple[TrustRule, ...]

    @classmethod
    def of(cls, rules: Iterable[TrustRule], vias: Collection[str]) -> Self:
        """What these rules come to, whatever their order.

        :param vias: the names of the routes that exist.
        """
        rules = tuple(rules)
        # An app of trust.toml whose route nobody defined is a stranger, and stays out of reach.
        merged = pure.merge(rule for rule in rules if rule.via in ("", DIRECT, *vias))
        usable = tuple(rule for rule, _ in merged)
        clients = {
            _origin(rule): ClientIdentity(rule.client.certificate, rule.client.key)
            for rule in usable
            if rule.client is not None and not rule.wildcard
        }
        with_token = frozenset(_origin(rule) for rule in usable if rule.service_token is not None)
        return cls(
            merged,
            pure.aliases(usable),
            clients,
            frozenset(clients) | with_token,
            tuple(rule for rule, _ in pure.merge(rules)),
        )

    def reaches(self) -> tuple[Reach, ...]:
        """What is to be sent to the proxy: the trusted origins, and the hosts that are routed."""
        return tuple(
            Reach(rule.scheme, rule.host, rule.port, rule.wildcard, rule.via not in ("", DIRECT))
            for rule in self.routed
        )


def _origin(rule: TrustRule) -> Origin:
    return Origin(rule.scheme, rule.host, rule.port)
