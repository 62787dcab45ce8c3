"""Whose challenges are answered, and with which keys. Pure but for the pins it keeps.

Nothing is proved to a stranger: a challenge is answered only for an origin that a rule covers, and
session credentials are sealed only to a key that the rule names by ARN or, where the person named
the origin alone, to a key of the caller's own account, which is then pinned for the life of the
process. What counts is the ARN that KMS says it used, not the one that the challenge asked for: an
alias can be repointed.
"""

from __future__ import annotations

from collections.abc import Iterable

from iam_auth_proxy.config import TrustRule
from iam_auth_proxy.errors import Malformed, NotTrusted, WrongKey
from iam_auth_proxy.names import KeyReference, Origin, parse_key_arn


class Trust:
    """The rules in force, and the keys pinned at first use."""

    def __init__(self, rules: Iterable[TrustRule]) -> None:
        # Exact origins before wildcards, longer wildcards before shorter ones.
        self._rules = sorted(rules, key=lambda rule: (rule.wildcard, -len(rule.host)))
        self._pins: dict[Origin, str] = {}

    def with_rules(self, rules: Iterable[TrustRule]) -> Trust:
        """The trust after a reload: other rules, the same pins."""
        fresh = Trust(rules)
        fresh._pins = self._pins
        return fresh

    @property
    def rules(self) -> tuple[TrustRule, ...]:
        """The rules, the most specific first."""
        return tuple(self._rules)

    def trusts(self, origin: Origin) -> bool:
        """Whether a rule covers this origin."""
        return self._keys(origin) is not None

    def _keys(self, origin: Origin) -> tuple[str, ...] | None:
        """The key ARNs of the rules that cover the origin; None where none does.

        Several rules for one origin add up: a flag adds a key to the file's.
        """
        covering = [rule for rule in self._rules if rule.covers(origin)]
        if not covering:
            return None
        exact = [rule for rule in covering if not rule.wildcard] or covering[:1]
        return tuple(key for rule in exact for key in rule.keys)

    def check_key(self, origin: Origin, key: KeyReference, account: str) -> None:
        """Before anything is sealed: may this challenge's key be used at all?

        :param account: the caller's own.
        :raises NotTrusted: no rule covers the origin.
        :raises WrongKey: the challenge names a key that is not pinned, or of another account.
        """
        if _is_key_arn(key.text):
            self.check_used(origin, key.text, account, pin=False)
        elif self._keys(origin) is None:
            raise NotTrusted(f"{origin} is not trusted")
        elif not self._keys(origin) and key.account not in ("", account):
            raise self._foreign(origin, key.text)

    def check_used(self, origin: Origin, arn: str, account: str, *, pin: bool = True) -> None:
        """Before a token leaves: is the key that KMS used the pinned one?

        Pins it where the rule names none and this is the first.

        :raises NotTrusted: no rule covers the origin.
        :raises WrongKey: another key than the pinned one, or one of another account.
        """
        keys = self._keys(origin)
        if keys is None:
            raise NotTrusted(f"{origin} is not trusted")
        if keys:
            if arn not in keys:
                raise WrongKey(
                    f"{origin} wants {arn}; trusted: {', '.join(keys)}",
                    public="The app asks for another KMS key than the one you trusted.",
                    remedy=f"If its owner confirms the new key: --trust {origin}={arn}",
                )
            return
        if parse_key_arn(arn).account != account:
            raise self._foreign(origin, arn)
        pinned = self._pins.get(origin)
        if pinned is not None and pinned != arn:
            raise WrongKey(
                f"{origin} wants {arn}, but {pinned} was pinned at first use",
                public="The app asks for another KMS key than it did before.",
                remedy="If its owner confirms the new key, restart iam-auth-proxy.",
            )
        if pin:
            self._pins[origin] = arn

    @staticmethod
    def _foreign(origin: Origin, key: str) -> WrongKey:
        return WrongKey(
            f"{origin} wants {key}, which is not of the caller's account",
            public="The app's KMS key belongs to another AWS account than yours.",
            remedy=f"If its owner confirms the key: --trust {origin}={key}",
        )


def _is_key_arn(text: str) -> bool:
    try:
        parse_key_arn(text)
    except Malformed:
        return False
    return True
