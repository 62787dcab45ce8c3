"""What is said to the person: the question on the confirm page, or the page that explains."""

from __future__ import annotations

import logging
from typing import Protocol

from iam_auth_proxy.errors import IamAuthError, KeyChanged, SignedOut
from iam_auth_proxy.names import Origin
from iam_auth_proxy.protocol.challenge import Challenge
from iam_auth_proxy.protocol.proof import ProofKind
from iam_auth_proxy.proxy.decisions.decide import Ask, Dance, Replay
from iam_auth_proxy.proxy.pages import explain
from iam_auth_proxy.proxy.signin.handover import redirect
from iam_auth_proxy.proxy.signin.signins import SignIns
from iam_auth_proxy.relay.addresses import IPAddress, canonical, parse_address
from iam_auth_proxy.relay.exchange import Exchange, Reply

log = logging.getLogger(__name__)


class Asks(Protocol):
    """Questions to the person, on the proxy's own address."""

    def ask(
        self,
        *,
        kind: str,
        origin: Origin,
        realm: str,
        key: str,
        old_key: str,
        proof: ProofKind,
        profile: str,
        identity: str,
        way_back: str,
    ) -> str | None:
        """The path of the page that asks; None where there is no room for another question."""
        ...


class Answered(Protocol):
    """A question that was answered."""

    @property
    def kind(self) -> str: ...
    @property
    def origin(self) -> Origin: ...
    @property
    def key(self) -> str: ...
    @property
    def way_back(self) -> str: ...


class Asking:
    """Asks, explains, and does what the person says.

    :ivar refused: challenges that were neither answered nor asked about.
    :param questions: asks the person; None where the proxy has no pages that a browser can reach.
    :param own_address: ``host:port`` of those pages.
    """

    def __init__(self, signins: SignIns, questions: Asks | None, own_address: str) -> None:
        self.refused = 0
        self._signins = signins
        self._questions = questions
        self._own_address = own_address

    def ask(
        self,
        exchange: Exchange,
        decision: Ask | Dance | Replay,
        changed: KeyChanged | None = None,
    ) -> Reply:
        """To the page that asks the person, or the stop page where there is none."""
        origin, challenge = exchange.origin, decision.challenge
        kind = "key" if changed is not None else decision.kind if isinstance(decision, Ask) else ""
        app = self._signins.trust.app(origin)
        profile = app.profile if app is not None else ""
        path = None
        if self._questions is not None and self._is_here(exchange.client):
            path = self._questions.ask(
                kind=kind,
                origin=origin,
                realm=challenge.realm,
                key=challenge.key.text,
                old_key=changed.old if changed is not None else "",
                proof=self._proof(origin, challenge),
                profile=profile,
                identity=self._signins.known_identity(profile),
                way_back=place_of(exchange),
            )
        if path is not None:
            return redirect(f"http://{self._own_address}{path}")
        if changed is not None:
            return self.refuse(exchange, changed)
        if kind == "again":
            return self.refuse(exchange, SignedOut(str(origin)))
        return self.refuse(exchange, self._signins.trust.untrusted(origin))

    def _is_here(self, client: str) -> bool:
        """Whether this client finds the page at our own address, and the person with it.

        Loopback is another machine's own to whoever comes from there.
        """
        if not self._own_address:
            return False
        if client.startswith("unix:"):
            return True
        far = _address_of(client)
        return far is not None and (far.is_loopback or far == _address_of(self._own_address))

    def _proof(self, origin: Origin, challenge: Challenge) -> ProofKind:
        """What the person would prove: what is in force where it is trusted."""
        try:
            return self._signins.trust.choose(origin, challenge)
        except IamAuthError:
            return ProofKind.SIGNED_IDENTITY

    def refuse(self, exchange: Exchange, error: IamAuthError) -> Reply:
        """The page for a challenge that is not answered."""
        self.refused += 1
        return self.stop(exchange, error)

    def stop(
        self,
        exchange: Exchange,
        error: IamAuthError,
        challenge: Challenge | None = None,
        *,
        link: str = "",
    ) -> Reply:
        """The page for an error.

        :param challenge: the one that was being answered.
        :param link: see :class:`Stop`.
        """
        origin = exchange.origin
        log.warning(
            "stopped",
            extra={"origin": str(origin), "code": explain.code_of(error), "detail": str(error)},
        )
        trusted = self._signins.trust.trusts(origin)
        return explain.stopped(error, origin, accept(exchange), trusted, challenge, link=link)

    def answered(self, question: Answered, choice: str) -> None:
        """What the person said on the confirm page: ``once``, ``always`` or ``no``.

        :raises IamAuthError: it could not be kept.
        """
        if choice == "no":
            return
        signins = self._signins
        if question.kind != "again":
            signins.trust.grant(
                question.origin,
                key=question.key,
                kind=ProofKind.SIGNED_IDENTITY,
                keep=choice == "always",
            )
            signins.forget(question.origin)
        signins.signs_in_again(question.origin)


def place_of(exchange: Exchange) -> str:
    """The URL that the client asked for."""
    origin = exchange.alias.decode("ascii") or str(exchange.origin)
    return origin + exchange.request.target.decode("latin-1")


def accept(exchange: Exchange) -> bytes:
    """The ``Accept`` field of the client."""
    return exchange.request.get(b"accept") or b""


def _address_of(place: str) -> IPAddress | None:
    """Of ``address:port``."""
    address = parse_address(place.rpartition(":")[0].strip("[]"))
    return None if address is None else canonical(address)
