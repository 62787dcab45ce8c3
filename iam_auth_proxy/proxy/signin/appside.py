"""The app's side of a sign-in: the proxy's own requests to its gate."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import suppress
from typing import Final, Protocol

from iam_auth_proxy.errors import AppRefused
from iam_auth_proxy.names import Origin
from iam_auth_proxy.protocol import challenge as challenges
from iam_auth_proxy.protocol.challenge import Bound
from iam_auth_proxy.proxy.signin import handover
from iam_auth_proxy.proxy.signin.handover import Challenged
from iam_auth_proxy.proxy.signin.jobs import HandedOver
from iam_auth_proxy.proxy.signin.sealing import Sealed
from iam_auth_proxy.relay.exchange import Fetched, RequestHead

log = logging.getLogger(__name__)

APP_DEADLINE: Final = 30.0
APP_ANSWER_LIMIT: Final = 256 * 1024


class Fetch(Protocol):
    """The relay's own request to an app, through the same pool, route and policy."""

    async def __call__(
        self,
        origin: Origin,
        request: RequestHead,
        body: bytes,
        *,
        limit: int,
        deadline: float,
        identified: bool,
    ) -> Fetched: ...


class AppSide:
    """Hands tokens over.

    :ivar completed: sign-ins that the app accepted.
    :ivar rejected: tokens that the app did not accept.
    :param clock: wall-clock seconds.
    """

    def __init__(self, fetch: Fetch, clock: Callable[[], float]) -> None:
        self.completed = 0
        self.rejected = 0
        self._fetch = fetch
        self._clock = clock

    async def hand_over(
        self,
        origin: Origin,
        challenged: Challenged,
        sealed: Sealed,
        back: str,
        *,
        profile: str,
        identified: bool,
        retried: bool = False,
    ) -> HandedOver:
        """Step 10.

        :param identified: a client certificate may be shown.
        :raises PathError: the app could not be asked.
        """
        request, body = handover.write(challenged, sealed, back, origin)
        answer = await self._asked(origin, request, body, identified=identified)
        granted = None
        if handover.accepted(answer):
            self.completed += 1
            with suppress(AppRefused):  # a dance may be answered so; a replay says it then
                granted = handover.granted(answer, challenged.path, origin)
            log.info("signed in", extra={"origin": str(origin), "proof": sealed.kind.value})
        else:
            self.rejected += 1
            said = {"status": answer.status, "code": handover.error_code(answer)}
            log.warning("the app did not sign us in", extra={"origin": str(origin), **said})
        return HandedOver(answer, challenged, sealed, profile, self._clock(), granted, retried)

    async def challenge(
        self, origin: Origin, bound: Bound, *, identified: bool
    ) -> Challenged | None:
        """A fresh challenge, had for the asking; None where the app gives none.

        :raises PathError: the app could not be asked.
        :raises BadChallenge: what it gives is malformed.
        """
        answer = await self._asked(origin, handover.ask(bound, origin), identified=identified)
        challenge = challenges.parse(answer.headers) if answer.status == 401 else None
        if challenge is None or challenge.bound is None or challenge.bound.path != bound.path:
            return None
        return Challenged.of(challenge, answer.headers, origin)

    async def _asked(
        self, origin: Origin, request: RequestHead, body: bytes = b"", *, identified: bool
    ) -> Fetched:
        return await self._fetch(
            origin,
            request,
            body,
            limit=APP_ANSWER_LIMIT,
            deadline=APP_DEADLINE,
            identified=identified,
        )
