"""Verifies service tokens: KMS opens what it made, for nobody but the keys that are named.

What costs nothing comes first: grammar, version, type, and what is remembered. Of a token that was
not seen before KMS is asked once, however many bring it at the same time; of a bad one not again
for a while. How often strangers may make KMS be asked is for the caller to limit.

An answer of KMS is used for :data:`OPENED_FOR` seconds at most, so that a key that is disabled
shuts out who came in by it. The window is compared at each use.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from iam_auth_proxy.aws.base import Decrypted, Kms
from iam_auth_proxy.errors import (
    AccessDenied,
    BadServiceToken,
    CiphertextInvalid,
    CiphertextOfOtherKey,
    KeyUnusable,
)
from iam_auth_proxy.protocol import service_token
from iam_auth_proxy.protocol.service_token import Caller, CallerType, Window
from iam_auth_proxy.tokens.accepts import Accepts
from iam_auth_proxy.tokens.cache import Flights, Lru
from iam_auth_proxy.tokens.keys import Keys

log = logging.getLogger(__name__)

OPENED_FOR: Final = 300.0
"""Seconds."""

REFUSED_FOR: Final = 20.0
"""Seconds that a token which KMS does not open is refused without asking again."""

CACHE_SIZE: Final = 4096

Explain = Callable[[Kms, str, bytes, Caller, Accepts], BadServiceToken | None]


@dataclass(frozen=True, slots=True)
class Verified:
    """A token that holds.

    :ivar account: what its key stands for, where the key is a scoped one.
    :ivar id: names the token in logs, and opens nothing.
    """

    caller: Caller
    window: Window
    key_arn: str
    account: str = ""
    id: str = ""


_Key = tuple[str, bytes]
"""What a token is remembered by: its username, and a digest of it. Each has one spelling."""


@dataclass(frozen=True, slots=True)
class _Presented:
    """A token that is worth asking KMS about."""

    key: _Key
    caller: Caller
    blob: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class _Opened:
    verified: Verified
    at: float


@dataclass(frozen=True, slots=True)
class _Refused:
    # Not the error itself, whose traceback would keep all that was at hand.
    field: str
    said: str
    at: float


class Verifier:
    """Verifies the tokens of one app. Safe to use from any thread.

    :param kms: gives the one to ask.
    :param cache_size: how many tokens are remembered; 0: KMS is asked about each.
    :param explain: says why KMS did not open a token, see :mod:`.diagnosis`; None: nobody does.
    """

    def __init__(
        self,
        accepts: Accepts,
        kms: Callable[[], Kms],
        *,
        cache_size: int = CACHE_SIZE,
        explain: Explain | None = None,
    ) -> None:
        self.accepts: Final = accepts
        self._kms = kms
        self._keys = Keys(accepts, kms)
        self._explain = explain
        self._opened: Lru[_Key, _Opened] = Lru(cache_size)
        self._refused: Lru[_Key, _Refused] = Lru(cache_size)
        self._last_key: Lru[Caller, str] = Lru(cache_size)
        self._flights: Flights[_Key, Verified] = Flights()

    def known(self, username: str, token: str, now: float) -> Verified | None:
        """What can be said without KMS, in microseconds; None where it has to be asked.

        :raises BadServiceToken: the token is not accepted.
        """
        key = _key(username, token)
        opened = self._usable(key, now)
        if opened is None:
            self._look(self._read(key, username, token), now)
        return opened

    def verify(self, username: str, token: str, now: float) -> Verified:
        """Whose token it is. May block.

        :param now: seconds since the epoch.
        :raises BadServiceToken: it is not accepted; its ``field`` says which part is at fault.
        :raises AwsUnavailable: that could not be found out.
        :raises AwsError: the same; what AWS says no to is our own identity, or a key of ours.
        """
        key = _key(username, token)
        opened = self._usable(key, now)
        if opened is None:
            presented = self._read(key, username, token)
            self._look(presented, now)
            opened = self._flights.share(key, lambda: self._ask(presented, now))
            self._check(opened, now)
        return opened

    # -- without KMS -------------------------------------------------------------------------------

    def _read(self, key: _Key, username: str, token: str) -> _Presented:
        caller = service_token.parse_username(username)
        self.accepts.check(caller)
        blob = service_token.parse_token(token)
        return _Presented(key, caller, blob)

    def _usable(self, key: _Key, now: float) -> Verified | None:
        """What was opened a moment ago; only what passed the grammar is among that."""
        opened = self._opened.get(key)
        if opened is None or not opened.at <= now < opened.at + OPENED_FOR:
            return None
        self._check(opened.verified, now)
        return opened.verified

    def _look(self, presented: _Presented, now: float) -> None:
        """Whether it was refused a moment ago.

        :raises BadServiceToken: it was.
        """
        refused = self._refused.get(presented.key)
        if refused is not None and refused.at <= now < refused.at + REFUSED_FOR:
            raise BadServiceToken(refused.said, field=refused.field)

    def _check(self, verified: Verified, now: float) -> None:
        accepts = self.accepts
        verified.window.check(now, max_lifetime=accepts.max_lifetime, leeway=accepts.leeway)

    # -- with KMS ----------------------------------------------------------------------------------

    def _ask(self, presented: _Presented, now: float) -> Verified:
        self._opened.drop(presented.key)
        try:
            verified = self._open(presented, now)
        except BadServiceToken as error:
            self._refused.put(presented.key, _Refused(error.field, error.said, now))
            raise
        self._opened.put(presented.key, _Opened(verified, now))
        return verified

    def _open(self, presented: _Presented, now: float) -> Verified:
        caller = presented.caller
        opened = self._decrypt(presented, now)
        window = service_token.parse_payload(opened.plaintext)
        account = ""
        if caller.type is CallerType.SERVICE:
            account = self._keys.account(opened.key_arn, now)
        self._last_key.put(caller, opened.key_arn)
        name = presented.key[1].hex()[:16]
        return Verified(caller, window, opened.key_arn, account, name)

    def _decrypt(self, presented: _Presented, now: float) -> Decrypted:
        """Try the keys in turn, the one that opened this caller's last token first.

        The key is always named to KMS: else it would open whatever this app's role may, and be
        asked about keys that are nobody's here.
        """
        caller = presented.caller
        context = caller.context(self.accepts.to, self.accepts.extra)
        found = self._keys.of(caller.type, now)
        checked = caller.version == 1 and not self.accepts.shared_v1
        users = self._keys.of(CallerType.USER, now) if checked else None
        said: list[str] = []
        last = self._last_key.get(caller)
        for key in sorted(found.arns, key=lambda arn: arn != last):
            try:
                opened = self._kms().decrypt(key, presented.blob, context)
            except CiphertextOfOtherKey:
                continue
            except CiphertextInvalid as error:
                raise self._unopened(presented, key, context) from error
            except (AccessDenied, KeyUnusable) as error:
                # A key of ours that is disabled, or whose use we are denied: it opens nothing.
                log.error("KMS does not decrypt with %s: %s", key, error)
                said.append(str(error))
                continue
            if opened.key_arn != key:
                raise BadServiceToken(f"it is sealed under {opened.key_arn}", field="key")
            if users is not None and (key in users.arns or users.missing):
                # The context of version 1 does not hold the caller's type: with this key, users
                # could make tokens in the name of services.
                raise BadServiceToken("a key of users opens no version 1", field="key")
            return opened
        if found.missing:
            raise found.unknown(f"keys cannot be looked up: {', '.join(found.missing)}")
        said = said or [f"it is sealed under none of the {len(found.arns)} keys of {caller.type}s"]
        raise BadServiceToken("; ".join(said), field="key")

    def _unopened(
        self, presented: _Presented, key: str, context: dict[str, str]
    ) -> BadServiceToken:
        if self._explain is not None:
            why = self._explain(self._kms(), key, presented.blob, presented.caller, self.accepts)
            if why is not None:
                return why
        pairs = ", ".join(f"{name}={value}" for name, value in sorted(context.items()))
        return BadServiceToken(
            f"KMS does not open it for {pairs}: it was changed, or made for something else",
            field="context",
        )


def _key(username: str, token: str) -> _Key:
    # What is not ASCII is outside the grammar, and so never remembered; here it must not raise.
    data = token.encode("utf-8", "backslashreplace")
    return username, hashlib.sha256(data).digest()
