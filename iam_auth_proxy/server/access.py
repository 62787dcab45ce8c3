"""Who may come in: rules on identities, or a function of the app's.

A rule is ``[PROOF:][ACCOUNT/]KIND[:NAME]`` or ``[PROOF:]id:UNIQUE_ID``::

    user                     any IAM user of the accounts
    user:alice               one of them, whatever its path
    role:deploy              sessions of a role; the role's path is not part of its name
    sso:Admin                an IAM Identity Center permission set
    222222222222/user:bob    with several accounts, of that one only
    id:AROAEXAMPLEEXAMPLE    one principal, by its unique id
    service:ci               a service, by its service token
    sandbox/service:ci       the same, of the account that the token's key stands for
    token-user:alice         a person, by a service token
    signed-identity:user     whoever signed in by that proof

There are no wildcards, and nothing speaks of a role's session name: whoever assumes the role
chooses it. A permission set is known by the name of its role (``AWSReservedSSO_SET_...``); where
people may create roles of any name, name the role's unique id instead, which also tells a principal
from one that was deleted and made again.

Who comes with a service token is a ``service`` or a ``token-user`` and nobody else: no rule about
users, which AWS vouches for, speaks of a name in a token.

Root and federated identities come in only by a rule that names their kind. A federated user's name
was chosen by whoever called GetFederationToken.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from iam_auth_proxy.errors import Malformed
from iam_auth_proxy.names import is_account_id
from iam_auth_proxy.protocol.identity import Identity, Kind
from iam_auth_proxy.protocol.proof import ProofKind

ORDINARY = frozenset({Kind.USER, Kind.ROLE, Kind.SSO, Kind.SERVICE, Kind.TOKEN_USER})

_BY_TOKEN = frozenset({Kind.SERVICE, Kind.TOKEN_USER})

ACCOUNT_LABEL = r"[A-Za-z0-9_.-]{1,64}"
"""The grammar of what a scoped key stands for; the other kinds' accounts are twelve digits."""

_RULE = re.compile(
    rf"(?:(?P<proof>{'|'.join(ProofKind)}):)?(?:"
    rf"(?:(?P<account>{ACCOUNT_LABEL})/)?"
    r"(?P<kind>user|role|sso|federated|root|service|token-user)"
    r"(?::(?P<name>[A-Za-z0-9_+=,.@-]{1,128}))?"
    r"|id:(?P<id>(?:AIDA|AROA)[A-Z0-9]{12,124}))",
    re.ASCII,
)


@dataclass(frozen=True, slots=True)
class Rule:
    """What is empty or None is not asked for."""

    kind: Kind | None = None
    name: str = ""
    account: str = ""
    unique_id: str = ""
    proof: str = ""

    def matches(self, identity: Identity, proof: str) -> bool:
        """Whether the rule speaks of this identity, which was proved so."""
        return (
            (not self.proof or self.proof == proof)
            and (self.kind is None or self.kind is identity.kind)
            and (not self.name or self.name == identity.name)
            and (not self.account or self.account == identity.account)
            and (not self.unique_id or self.unique_id == identity.unique_id)
        )


@dataclass(frozen=True, slots=True)
class Allowed:
    """Who may come in: whoever one of the rules, or the function, speaks of.

    Without either: every user, role and permission set, and whoever comes with a service token that
    is accepted. The function is asked about those only, and answers True or False.
    """

    rules: tuple[Rule, ...] = ()
    function: Callable[[Identity], bool] | None = None

    def __call__(self, identity: Identity, proof: str = "") -> bool:
        if self.function is not None:
            return identity.kind in ORDINARY and self._asked(self.function(identity))
        if self.rules:
            return any(rule.matches(identity, proof) for rule in self.rules)
        return identity.kind in ORDINARY

    def _asked(self, answer: object) -> bool:
        # Not bool(answer): a coroutine, or a function that nobody called, is truthy.
        if answer is None or isinstance(answer, bool):
            return bool(answer)
        raise TypeError(f"allow= must answer True or False, not {type(answer).__name__}")


def parse_rule(text: str) -> Rule:
    """One rule.

    :raises Malformed: it is none, or names root and a name.
    """
    match = _RULE.fullmatch(text)
    if match is None:
        raise Malformed(f"{text!r} is not a rule such as user:alice, role:deploy or sso:Admin")
    if match["id"]:
        return Rule(unique_id=match["id"], proof=match["proof"] or "")
    kind = Kind(match["kind"])
    if kind is Kind.ROOT and match["name"]:
        raise Malformed("root has no name")
    account, proof = match["account"] or "", match["proof"] or ""
    if kind in _BY_TOKEN:
        if proof:
            raise Malformed(f"a {kind} comes with a service token, never by {proof}")
    elif account and not is_account_id(account):
        raise Malformed(f"{account!r} is not an account id of twelve digits")
    elif len(match["name"] or "") > 64:
        raise Malformed(f"no {kind} has a name of more than 64 characters")
    return Rule(kind, match["name"] or "", account, proof=proof)


def parse_rules(value: object) -> Allowed:
    """A function, a list of rules, or a text with white space between them.

    Commas may stand in names, so they separate nothing.

    :raises Malformed: an empty list (leave the setting out instead), a bad rule, or a coroutine
        function, whose answer would come too late.
    """
    if isinstance(value, Allowed):
        return value
    if callable(value):
        if inspect.iscoroutinefunction(value) or inspect.iscoroutinefunction(type(value).__call__):
            raise Malformed("must be a plain function, not a coroutine function")
        return Allowed(function=value)
    items = value.split() if isinstance(value, str) else value
    if not isinstance(items, Iterable):
        raise Malformed("must be a function or a list of rules")
    rules = tuple(parse_rule(item if isinstance(item, str) else repr(item)) for item in items)
    if not rules:
        raise Malformed("is empty, so that nobody could come in; leave it out instead")
    return Allowed(rules)
