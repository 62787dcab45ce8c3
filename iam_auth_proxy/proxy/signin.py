"""The steps of a sign-in that the proxy performs (numbers as in the README's picture).

Steps 4 to 7 make the token: the caller's identity and session credentials are cached, so a warm
sign-in makes one AWS call, Encrypt. Step 8 sends the client to ``/auth``: with a one-time ticket,
or in the original's literal form with the token. When the ticket comes back (step 9), the proxy
hands the token to the app (step 10) and passes on the app's redirect and cookie (step 16).

Parallel challenges of one origin to one client share one sign-in: one token, one hand-over, one
session.
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final, Protocol, TypeVar

from iam_auth_proxy.aws.base import Encrypted, Principal
from iam_auth_proxy.errors import (
    AwsUnavailable,
    IamAuthError,
    Malformed,
    MfaNeeded,
    NoSessionCredentials,
    WrongAccount,
)
from iam_auth_proxy.names import Origin
from iam_auth_proxy.protocol import handoff as handoffs
from iam_auth_proxy.protocol.challenge import Challenge
from iam_auth_proxy.protocol.handoff import AUTH_PATH, Handoff, check_return_url
from iam_auth_proxy.protocol.proof import ProofKind
from iam_auth_proxy.proxy import tickets
from iam_auth_proxy.proxy.rules import add_command
from iam_auth_proxy.proxy.tickets import Tickets, TicketUrl
from iam_auth_proxy.proxy.trust import Trust
from iam_auth_proxy.relay.exchange import Exchange, Fetched, Reply, RequestHead

log = logging.getLogger(__name__)

AWS_DEADLINE: Final = 30.0
APP_DEADLINE: Final = 30.0
APP_ANSWER_LIMIT: Final = 256 * 1024
SHARED_FOR: Final = 60.0
MAX_PLAINTEXT: Final = 4096
"""Bytes that KMS Encrypt takes (API reference, Plaintext). A session token alone may be as long."""
# Of a User-Agent, in a client's key: its sender may make it as long as a head.
_AGENT = 256

T = TypeVar("T")


class OffLoop(Protocol):
    """Runs a synchronous call off the event loop, with a deadline in seconds."""

    async def __call__(self, fn: Callable[..., T], *args: object, deadline: float) -> T: ...


class Fetch(Protocol):
    """The relay's own request to an app, through the same pool, route and policy."""

    async def __call__(
        self, origin: Origin, request: RequestHead, *, limit: int, deadline: float
    ) -> Fetched: ...


# Asks the person for a code of the device with this serial number.
AskMfa = Callable[[str], Awaitable[str]]


def seal(
    principal: Principal, trust: Trust, origin: Origin, challenge: Challenge, now: float
) -> Encrypted:
    """Steps 4 to 7, synchronously: session credentials, encrypted for the app's key.

    Nothing leaves before the realm and the key were checked, and KMS has said which key it used.

    :raises WrongAccount: the realm is another account than the caller's.
    :raises WrongKey: the key is not one that may be used for this origin.
    :raises NoSessionCredentials: there are none, or they are longer than Encrypt takes.
    :raises AwsError: AWS refused.
    :raises AwsUnavailable: AWS did not answer.
    """
    identity = principal.identity(now)
    if identity.account != challenge.realm:
        raise WrongAccount(
            f"{origin} wants account {challenge.realm}; {identity.arn} is of {identity.account}",
            public=f"The app wants an identity of AWS account {challenge.realm}; "
            f"yours is of {identity.account}.",
            remedy=f"With a profile of that account: {add_command(origin)} --profile NAME",
        )
    kind = ProofKind.SESSION_CREDENTIALS
    trust.check_key(origin, challenge.key, identity.account, kind)
    credentials = principal.session_credentials(now)
    plaintext = credentials.dumps()
    if len(plaintext) > MAX_PLAINTEXT:
        raise NoSessionCredentials(
            f"the session's credentials are {len(plaintext)} bytes; Encrypt takes {MAX_PLAINTEXT}",
            public="Your AWS session is too long for this app's form of sign-in.",
            remedy="Ask your AWS administrator for fewer session tags, or use another profile.",
        )
    sealed = principal.encrypt(challenge.key.text, plaintext, challenge.context, now)
    trust.check_used(origin, sealed.key_arn, identity.account, kind)
    return sealed


@dataclass(slots=True, eq=False)
class Job:
    """One sign-in: the token once it is sealed, and the hand-over once it was begun.

    :ivar begun: monotonic seconds; ``begun_wall``: seconds since the epoch.
    """

    origin: Origin
    begun: float
    begun_wall: float
    # A task's repr shows its result: the cookie that the app gave, what AWS said.
    sealed: asyncio.Task[Encrypted] = field(repr=False)
    handed_over: asyncio.Task[Fetched] | None = field(default=None, repr=False)
    return_url: str = ""

    def joinable(self, now: float, wall: float) -> bool:
        """Whether a further challenge may share this sign-in.

        Once the app has answered, a client that is challenged again did not get, or did not keep,
        the cookie: it needs a sign-in of its own.
        """
        finished = self.handed_over is not None and self.handed_over.done()
        failed = self.sealed.done() and (self.sealed.cancelled() or bool(self.sealed.exception()))
        return not finished and not failed and now - self.begun < SHARED_FOR and self.fresh(wall)

    def fresh(self, wall: float) -> bool:
        """Whether its token may still be handed over.

        Tickets see to that, but by a clock that stands still while a laptop sleeps; what is sealed
        goes by the wall clock.
        """
        return wall - self.begun_wall < SHARED_FOR + tickets.LIFE


class SignIns:
    """Performs sign-ins and remembers those under way.

    :ivar completed: sign-ins that the app accepted.
    :ivar refused: sign-ins that came to no token: AWS, or the rules of trust, said no.
    :ivar unavailable: sign-ins that came to no token because AWS did not answer.
    :ivar rejected: tokens that the app did not accept.
    :param clock: wall-clock seconds; credentials expire by it.
    :param monotonic: seconds for tickets and sharing.
    """

    def __init__(
        self,
        *,
        principal: Principal,
        trust: Trust,
        off_loop: OffLoop,
        fetch: Fetch,
        ask_mfa: AskMfa | None,
        clock: Callable[[], float],
        monotonic: Callable[[], float],
    ) -> None:
        self.principal = principal
        self.trust = trust
        self.completed = 0
        self.refused = 0
        self.unavailable = 0
        self.rejected = 0
        self._off_loop = off_loop
        self._fetch = fetch
        self._ask_mfa = ask_mfa
        self._clock = clock
        self._monotonic = monotonic
        self._tickets: Tickets[Job] = Tickets()
        self._jobs: OrderedDict[tuple[object, ...], Job] = OrderedDict()
        self._mfa: asyncio.Task[None] | None = None
        self._tasks: set[asyncio.Task[object]] = set()

    @property
    def in_progress(self) -> int:
        """Sign-ins and hand-overs under way."""
        return len(self._tasks)

    def reconfigure(self, principal: Principal, trust: Trust) -> None:
        """From now on; sign-ins under way end as they began, and no further request joins them."""
        self.principal = principal
        self.trust = trust
        self._jobs.clear()

    async def close(self) -> None:
        """End what is under way."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def redirect_with_token(self, exchange: Exchange, challenge: Challenge) -> Reply:
        """Step 8 in the original's form: the token in the URL, relative to the scheme."""
        sealed = await self._seal(exchange.origin, challenge)
        handoff = Handoff(sealed.ciphertext, return_url(exchange.request))
        location = f"//{exchange.origin.authority}{handoffs.write(AUTH_PATH, handoff)}"
        return redirect(location)

    async def redirect_with_ticket(self, exchange: Exchange, challenge: Challenge) -> Reply:
        """Step 8: to ``/auth`` on the app's own origin, with a ticket."""
        client = client_key(exchange)
        job = self._job(exchange.origin, client, challenge)
        await asyncio.shield(job.sealed)
        back = return_url(exchange.request)
        ticket = self._tickets.issue(exchange.origin, client, back, job, self._monotonic())
        return redirect(tickets.write_url(AUTH_PATH, TicketUrl(ticket, back)))

    async def redeem(self, exchange: Exchange, url: TicketUrl) -> Reply:
        """Steps 9 to 16: the token goes to the app, the app's redirect and cookie come back.

        A ticket that is not good (spent, late, after a restart) starts again at return_url.

        :raises PathError: the app could not be asked.
        """
        job = self._tickets.redeem(url, exchange.origin, client_key(exchange), self._monotonic())
        if job is None or (job.handed_over is None and not job.fresh(self._clock())):
            return redirect(url.return_url)
        if job.handed_over is None:
            job.return_url = url.return_url
            job.handed_over = self._task(self._hand_over(job))
        answer = await asyncio.shield(job.handed_over)
        if answer.status == 401:
            # The salt was rotated in between, or the token is too old: from the start.
            return redirect(url.return_url)
        return relayed(answer, job.return_url, url.return_url, exchange.origin)

    def _job(self, origin: Origin, client: str, challenge: Challenge) -> Job:
        now, wall = self._monotonic(), self._clock()
        context = tuple(sorted(challenge.context.items()))
        key = (origin, client, challenge.realm, challenge.key, context)
        job = self._jobs.get(key)
        if job is None or not job.joinable(now, wall):
            job = Job(origin, now, wall, self._task(self._seal(origin, challenge)))
            self._jobs[key] = job
            self._jobs.move_to_end(key)
            while next(iter(self._jobs.values())).begun <= now - SHARED_FOR:
                self._jobs.popitem(last=False)
        return job

    async def _seal(self, origin: Origin, challenge: Challenge) -> Encrypted:
        try:
            try:
                sealed = await self._sealed_off_loop(origin, challenge)
            except MfaNeeded as needed:
                await self._enter_mfa(needed)
                sealed = await self._sealed_off_loop(origin, challenge)
        except AwsUnavailable:
            self.unavailable += 1
            raise
        except IamAuthError:
            self.refused += 1
            raise
        log.info("token sealed", extra={"origin": str(origin), "key": sealed.key_arn})
        return sealed

    async def _sealed_off_loop(self, origin: Origin, challenge: Challenge) -> Encrypted:
        arguments = (self.principal, self.trust, origin, challenge, self._clock())
        return await self._off_loop(seal, *arguments, deadline=AWS_DEADLINE)

    async def _enter_mfa(self, needed: MfaNeeded) -> None:
        """One question at a time; its answer is everybody's who waits, a refusal too."""
        if self._ask_mfa is None:
            raise needed
        if self._mfa is None or self._mfa.done():
            self._mfa = self._task(self._ask_and_enter(self._ask_mfa, needed.serial))
        await asyncio.shield(self._mfa)

    async def _ask_and_enter(self, ask: AskMfa, serial: str) -> None:
        with suppress(MfaNeeded):
            # Who failed before the last answer came, and asks after it, finds the session there.
            await self._off_loop(self.principal.identity, self._clock(), deadline=AWS_DEADLINE)
            return
        code = await ask(serial)
        await self._off_loop(self.principal.enter_mfa, code, self._clock(), deadline=AWS_DEADLINE)

    async def _hand_over(self, job: Job) -> Fetched:
        """Step 10: no cookie and no header of the browser goes along."""
        target = handoffs.write(AUTH_PATH, Handoff(job.sealed.result().ciphertext, job.return_url))
        request = RequestHead(
            b"GET",
            target.encode("ascii"),
            [(b"Host", job.origin.authority.encode("ascii")), (b"Accept", b"*/*")],
        )
        answer = await self._fetch(
            job.origin, request, limit=APP_ANSWER_LIMIT, deadline=APP_DEADLINE
        )
        if 300 <= answer.status < 400:
            self.completed += 1
            log.info("signed in", extra={"origin": str(job.origin)})
        else:
            self.rejected += 1
            log.warning(
                "the app did not sign us in",
                extra={"origin": str(job.origin), "status": answer.status},
            )
        return answer

    def _task(self, work: Coroutine[object, object, T]) -> asyncio.Task[T]:
        """A task that outlives the request that began it, and whose failure somebody has seen."""

        def done(task: asyncio.Task[T]) -> None:
            self._tasks.discard(task)
            if not task.cancelled():
                task.exception()

        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(done)
        return task


def client_key(exchange: Exchange) -> str:
    """What tells one client of this machine from another: its address and its User-Agent.

    Ports differ between the connections of one browser, so they cannot be part of it.
    """
    agent = exchange.request.get(b"user-agent") or b""
    return f"{exchange.client.rpartition(':')[0]} {agent[:_AGENT].decode('latin-1')}"


def return_url(request: RequestHead) -> str:
    """Where the client goes after the sign-in: where it was, or ``/`` where that cannot be."""
    try:
        return check_return_url(request.target.decode("latin-1"), auth_path=AUTH_PATH)
    except Malformed:
        return "/"


# No step of a sign-in is stored, and none tells the next site where it came from.
_QUIET = ((b"Cache-Control", b"private, no-store"), (b"Referrer-Policy", b"no-referrer"))


def redirect(location: str) -> Reply:
    """A 302 of the proxy's own."""
    return Reply(302, [(b"Location", location.encode("latin-1")), *_QUIET])


# What is said about the app's connection or its body's form, not about the browser's.
_NOT_RELAYED = frozenset(
    b"connection keep-alive proxy-connection transfer-encoding te trailer upgrade content-length "
    b"cache-control referrer-policy www-authenticate".split()
)


def relayed(answer: Fetched, sent: str, wanted: str, origin: Origin) -> Reply:
    """The app's answer at ``/auth`` as the client gets it.

    :param sent: the return_url that the token went with.
    :param wanted: this client's own, where it shares another request's sign-in.
    """
    own = {spelling + sent for spelling in ("", str(origin), f"//{origin.authority}")}
    headers: list[tuple[bytes, bytes]] = []
    for name, value in answer.headers:
        key = name.lower()
        if key in _NOT_RELAYED:
            continue
        if key == b"location" and value.decode("latin-1") in own:
            headers.append((name, wanted.encode("latin-1")))
        elif key == b"set-cookie":
            headers.append((name, _complete_cookie(value)))
        else:
            headers.append((name, value))
    return Reply(answer.status, [*headers, *_QUIET], answer.body)


def _complete_cookie(value: bytes) -> bytes:
    """Path and SameSite where the app left them out.

    The browser would take Path from the URL it asked, which is the ticket's.
    """
    names = {part.split(b"=", 1)[0].strip().lower() for part in value.split(b";")[1:]}
    if b"path" not in names:
        value += b"; Path=" + (AUTH_PATH.rpartition("/")[0] or "/").encode("ascii")
    if b"samesite" not in names:
        value += b"; SameSite=Lax"
    return value
