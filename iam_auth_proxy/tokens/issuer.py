"""Makes service tokens: KMS encrypts when a token is valid under a context that says from whom."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final, Protocol

from iam_auth_proxy.aws.base import Encrypted, Principal
from iam_auth_proxy.aws.renewal import Renewed
from iam_auth_proxy.errors import Malformed, WrongKey
from iam_auth_proxy.names import check_audience, parse_key_arn, parse_key_reference
from iam_auth_proxy.protocol import service_token
from iam_auth_proxy.protocol.service_token import Caller, ServiceToken, Window

LIFETIME: Final = 600.0
"""Seconds from now that a token lasts."""

SKEW: Final = 180.0
"""Seconds before now at which it begins, for verifiers whose clocks are behind."""

USUAL_WINDOW: Final = 3600.0
"""Seconds: what verifiers accept of a whole window, unless told otherwise."""

_SHORTEST, _LONGEST = 60.0, 86400.0
_AHEAD = 180.0


class Encrypts(Protocol):
    """The part of :class:`~iam_auth_proxy.aws.base.Kms` that is needed here."""

    def encrypt(self, key: str, plaintext: bytes, context: Mapping[str, str]) -> Encrypted:
        """KMS Encrypt. ``key``: any of KMS's four spellings."""
        ...


class OfPrincipal:
    """The same as the person behind a profile: with an assumed role, with MFA.

    :param clock: seconds since the epoch.
    """

    def __init__(self, principal: Principal, clock: Callable[[], float]) -> None:
        self._principal = principal
        self._clock = clock

    def encrypt(self, key: str, plaintext: bytes, context: Mapping[str, str]) -> Encrypted:
        return self._principal.encrypt(key, plaintext, context, self._clock())


class Issuer:
    """Makes the tokens of one caller for one audience. Safe to use from any thread.

    :param kms: encrypts as the caller: its IAM policy decides which ``from`` it may claim.
    :param key: the key, in any of KMS's four spellings.
    :param to: the audience: what the app calls itself.
    :param lifetime: seconds from now, a minute to a day. The window is longer by ``skew``.
    :param skew: seconds that the window begins before now.
    :param extra: further context that the app expects.
    :raises Malformed: one of them is outside its grammar.
    """

    def __init__(
        self,
        kms: Encrypts,
        key: str,
        caller: Caller,
        to: str,
        *,
        lifetime: float = LIFETIME,
        skew: float = SKEW,
        extra: Mapping[str, str] | None = None,
    ) -> None:
        if not _SHORTEST <= lifetime <= _LONGEST:
            raise Malformed(f"a token lasts {_SHORTEST:g} s to {_LONGEST:g} s, not {lifetime:g}")
        if not 0 <= skew <= USUAL_WINDOW:
            raise Malformed(f"a skew is 0 to {USUAL_WINDOW:g} s, not {skew:g}")
        self._kms = kms
        self._key = parse_key_reference(key)
        self._caller = caller
        self._to = check_audience(to)
        self._lifetime, self._skew = lifetime, skew
        self._context = caller.context(self._to, service_token.check_extra(extra or {}))
        self._held: Renewed[ServiceToken] = Renewed(ahead=min(_AHEAD, lifetime / 4))

    def token(self, now: float) -> ServiceToken:
        """A token that lasts a while longer: the last one, or a new one. May block.

        :param now: seconds since the epoch.
        :raises AwsError: KMS says no.
        :raises AwsUnavailable: KMS does not answer, and the last token has expired.
        """

        def fetch() -> tuple[ServiceToken, float]:
            made = self.issue(now)
            return made, float(made.window.not_after)

        return self._held.get(now, fetch)

    def issue(self, now: float) -> ServiceToken:
        """A new token. Blocks.

        :raises AwsError: KMS says no.
        :raises WrongKey: KMS used another key than the one whose ARN was given.
        :raises AwsUnavailable: KMS does not answer.
        """
        window = Window(int(now - self._skew), int(now + self._lifetime))
        sealed = self._kms.encrypt(
            str(self._key), service_token.write_payload(window), self._context
        )
        if self._is_other(sealed.key_arn):
            raise WrongKey(f"KMS used {sealed.key_arn}, not {self._key}")
        text = service_token.write_token(sealed.ciphertext)
        return ServiceToken(self._caller, self._to, window, text, sealed.key_arn)

    def _is_other(self, used: str) -> bool:
        try:
            return str(parse_key_arn(str(self._key))) != used
        except Malformed:
            return False  # an alias or an id: which key that is, KMS decides
