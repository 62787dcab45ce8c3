"""Why KMS does not open a token: the usual mistakes are tried one by one.

KMS says no more than that ciphertext and context do not go together. Nobody comes in by what is
found here; it is one sentence for whoever has to put it right.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Final

from iam_auth_proxy.aws.base import Kms
from iam_auth_proxy.errors import AwsError, AwsUnavailable, BadServiceToken
from iam_auth_proxy.protocol.service_token import Caller, CallerType
from iam_auth_proxy.tokens.accepts import Accepts

EVERY: Final = 60.0
"""Seconds between two explanations, once :data:`AT_FIRST` were given."""

AT_FIRST: Final = 5


def explain(
    kms: Kms, key: str, blob: bytes, caller: Caller, accepts: Accepts
) -> BadServiceToken | None:
    """What is wrong with a token that ``key`` does not open; None where no guess fits.

    Asks KMS as often as there are guesses, which is at most seven times.
    """
    for field, said, context in _guesses(caller, accepts):
        try:
            kms.decrypt(key, blob, context)
        except AwsUnavailable:
            return None
        except AwsError:
            continue
        return BadServiceToken(said, field=field)
    return None


class Rationed:
    """:func:`explain` a few times, and once in a while then: bad tokens are anybody's to send.

    :param clock: seconds; any steady one.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._left = float(AT_FIRST)
        self._at = clock()
        self._lock = threading.Lock()

    def __call__(
        self, kms: Kms, key: str, blob: bytes, caller: Caller, accepts: Accepts
    ) -> BadServiceToken | None:
        with self._lock:
            now = self._clock()
            self._left = min(float(AT_FIRST), self._left + max(0.0, now - self._at) / EVERY)
            self._at = now
            if self._left < 1:
                return None
            self._left -= 1
        return explain(kms, key, blob, caller, accepts)


def _guesses(caller: Caller, accepts: Accepts) -> Iterator[tuple[str, str, Mapping[str, str]]]:
    """(the field, what is wrong with it, the context that the token would have then)."""
    right = caller.context(accepts.to, accepts.extra)
    other = CallerType.USER if caller.type is CallerType.SERVICE else CallerType.SERVICE
    if caller.version == 1:
        said = f"it was sealed as version 2: its username is 2/service/{caller.name}"
        yield "version", said, right | {"user_type": caller.type.value}
    else:
        bare = {name: value for name, value in right.items() if name != "user_type"}
        said = "it was sealed without user_type in its context, as in version 1"
        yield "user_type", said, bare
        said = f"it was sealed for a {other}, and its username says {caller.type}"
        yield "user_type", said, right | {"user_type": other.value}
    said = f"it was sealed with from={caller}: the context has the bare name"
    if caller.version > 1:
        yield "from", said, right | {"from": str(caller)}
    local = caller.name.partition("@")[0]
    if local != caller.name:
        said = f"it was sealed with from={local}: the username has to say the same"
        yield "from", said, right | {"from": local}
    if accepts.extra:
        said = f"it was sealed without {', '.join(sorted(accepts.extra))}"
        yield "context", said, caller.context(accepts.to)
    said = "to and from are the wrong way round"
    yield "to", said, right | {"to": caller.name, "from": accepts.to}
