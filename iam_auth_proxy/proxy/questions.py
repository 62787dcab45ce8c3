"""Questions to the person that a page of the proxy's own puts, and what was answered.

An app that nobody has trusted yet, a key that changed, a sign-in after a sign-out: the browser is
sent to the proxy's own address, where the person decides. Any site can cause a question, so they
are few (one an origin, :data:`ROOM` in all), short-lived, known by an id of 128 random bits, and
hold what is shown, which is what will be pinned. The way back is kept here and never travels.
"""

from __future__ import annotations

import hmac
import secrets
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from iam_auth_proxy.names import Origin
from iam_auth_proxy.protocol.proof import ProofKind

ROOM: Final = 8
"""Questions that are open at one time."""

LIFE: Final = 300.0
"""Seconds that a question stays open, and that a no is remembered."""

PATH: Final = "/confirm/"


class Kind(StrEnum):
    """What is asked: may this app know me, is this key right, sign in again after a sign-out."""

    TRUST = "trust"
    KEY = "key"
    AGAIN = "again"


class Choice(StrEnum):
    """What can be answered."""

    ONCE = "once"
    ALWAYS = "always"
    NO = "no"


CHOICES: Final = {
    Kind.TRUST: (Choice.ONCE, Choice.ALWAYS, Choice.NO),
    Kind.KEY: (Choice.ALWAYS, Choice.NO),
    Kind.AGAIN: (Choice.ONCE, Choice.NO),
}


@dataclass(frozen=True, slots=True)
class Question:
    """One question, as it is shown.

    :ivar realm: the account that the app wants an identity of.
    :ivar key: the key ARN that the proof would be sealed for; ``old_key`` the one pinned before.
    :ivar profile: the AWS profile that would be used; empty: the default one.
    :ivar identity: the ARN that the app would see; empty where AWS was not asked yet.
    :ivar way_back: the URL that the browser goes to after a yes.
    :ivar asked: monotonic seconds.
    :ivar token: what a form has to bring besides the id.
    """

    kind: Kind
    origin: Origin
    realm: str
    key: str
    proof: ProofKind
    profile: str
    identity: str
    way_back: str
    asked: float
    old_key: str = ""
    id: str = field(default_factory=lambda: secrets.token_urlsafe(16), repr=False)
    token: str = field(default_factory=lambda: secrets.token_urlsafe(16), repr=False)

    @property
    def path(self) -> str:
        """The path of its page, on the proxy's own address."""
        return PATH + self.id

    def same(self, other: Question) -> bool:
        """Whether the two ask for the same, so that one answer does for both."""
        return (
            self.kind == other.kind
            and self.key == other.key
            and self.old_key == other.old_key
            and self.realm == other.realm
            and self.proof == other.proof
            and self.profile == other.profile
        )


class Questions:
    """The open questions, and the origins that were answered with no.

    :param on_answer: called once with a question that was answered with a yes, and the choice.
    :param monotonic: seconds.
    """

    def __init__(
        self,
        on_answer: Callable[[Question, Choice], None],
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._on_answer = on_answer
        self._monotonic = monotonic
        self._open: OrderedDict[Origin, Question] = OrderedDict()
        self._refused: OrderedDict[Origin, float] = OrderedDict()

    def __len__(self) -> int:
        return len(self._open)

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
        """Where to send the browser: the path of a new question, or of the same one still open.

        None where it may not be put: the person said no to this origin a moment ago, another
        question of it is open, or there are :data:`ROOM` already.
        """
        now = self._expire()
        question = Question(
            kind=Kind(kind),
            origin=origin,
            realm=realm,
            key=key,
            old_key=old_key,
            proof=proof,
            profile=profile,
            identity=identity,
            way_back=way_back,
            asked=now,
        )
        if origin in self._refused:
            return None
        before = self._open.get(origin)
        if before is not None:
            return before.path if before.same(question) else None
        if len(self._open) >= ROOM:
            return None
        self._open[origin] = question
        return question.path

    def find(self, id: str) -> Question | None:
        """The open question of that id."""
        self._expire()
        # All are compared, and in constant time: an id is a secret.
        wanted = id.encode("utf-8", "surrogateescape")
        found = None
        for question in self._open.values():
            if hmac.compare_digest(question.id.encode("ascii"), wanted):
                found = question
        return found

    def answer(self, id: str, token: str, choice: str) -> tuple[Question, Choice] | None:
        """Closes the question; None where there is none, or this is no answer to it.

        :raises IamAuthError: what ``on_answer`` raises: the answer could not be carried out. The
            question stays open. OSError: ``trust.toml`` could not be written.
        """
        question = self.find(id)
        if question is None or choice not in CHOICES[question.kind]:
            return None
        if not hmac.compare_digest(
            question.token.encode("ascii"), token.encode("utf-8", "surrogateescape")
        ):
            return None
        chosen = Choice(choice)
        if chosen is Choice.NO:
            self._refused[question.origin] = self._monotonic() + LIFE
            while len(self._refused) > 64:
                self._refused.popitem(last=False)
        else:
            self._on_answer(question, chosen)
        self._open.pop(question.origin, None)
        return question, chosen

    def forget(self, origin: Origin | None = None) -> None:
        """No longer a question: the person decided elsewhere, such as on the command line.

        :param origin: None: whatever is asked about, since what was shown may hold no more.
        """
        if origin is None:
            self._open.clear()
            return
        self._open.pop(origin, None)
        self._refused.pop(origin, None)

    def _expire(self) -> float:
        """Closes questions that were open too long; returns the monotonic time."""
        now = self._monotonic()
        while self._open and next(iter(self._open.values())).asked + LIFE <= now:
            self._open.popitem(last=False)
        while self._refused and next(iter(self._refused.values())) <= now:
            self._refused.popitem(last=False)
        return now
