"""Questions to the person that a page of the proxy's own puts, and what was answered.

An app that nobody has trusted yet, a key that changed, a sign-in after a sign-out: the browser is
sent to the proxy's own address, where the person decides. Any site can cause a question, so they
are few (about :data:`ROOM` origins, and the same for each), short-lived, known by an id of 128
random bits, and hold what is shown, which is what will be pinned. The way back is kept here and
never travels. Everyone who asks gets a page of their own: a yes must not lead to where a hidden
frame of another site wanted to go.
"""

from __future__ import annotations

import hmac
import secrets
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import chain
from typing import Final

from iam_auth_proxy.names import Origin
from iam_auth_proxy.protocol.proof import ProofKind

ROOM: Final = 8
"""Origins that are asked about at one time."""

PAGES: Final = 8
"""Pages with the same question, each with a way back of its own."""

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


@dataclass(slots=True)
class _Page:
    """A question, and whether anybody had it before them: in a frame nobody has."""

    question: Question
    shown: bool = False


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
        self._pages: OrderedDict[Origin, list[_Page]] = OrderedDict()
        self._refused: OrderedDict[Origin, float] = OrderedDict()

    def __len__(self) -> int:
        return len(self._pages)

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
        """Where to send the browser: the path of a page that puts the question.

        None where it may not be put: the person said no to this origin a moment ago, another
        question of it is open, or there is no room. Pages that nobody saw make room for others.
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
        pages = self._pages.get(origin, [])
        if pages and not pages[0].question.same(question):
            return None
        for page in pages:
            if page.question.way_back == way_back:
                return page.question.path
        if len(pages) == PAGES:
            pages.remove(min(pages, key=lambda page: page.shown))  # the first of those unseen
        elif not pages and not self._make_room():
            return None
        self._pages.setdefault(origin, []).append(_Page(question))
        return question.path

    def find(self, id: str, *, show: bool = False) -> Question | None:
        """The open question of that id.

        :param show: the person has it before them now.
        """
        self._expire()
        # All are compared, and in constant time: an id is a secret.
        wanted = id.encode("utf-8", "surrogateescape")
        found = None
        for page in chain.from_iterable(self._pages.values()):
            if hmac.compare_digest(page.question.id.encode("ascii"), wanted):
                found = page
        if found is None:
            return None
        found.shown = found.shown or show
        return found.question

    def answer(self, id: str, token: str, choice: str) -> tuple[Question, Choice] | None:
        """Closes the question, with all its pages; None where there is none, or this is no answer.

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
        self._pages.pop(question.origin, None)
        return question, chosen

    def forget(self, origin: Origin | None = None) -> None:
        """No longer a question: the person decided elsewhere, such as on the command line.

        :param origin: None: whatever is asked about, since what was shown may hold no more.
        """
        if origin is None:
            self._pages.clear()
            return
        self._pages.pop(origin, None)
        self._refused.pop(origin, None)

    def _make_room(self) -> bool:
        """For the question of one more origin."""
        if len(self._pages) < ROOM:
            return True
        for origin, pages in self._pages.items():
            if not any(page.shown for page in pages):
                del self._pages[origin]
                return True
        return False

    def _expire(self) -> float:
        """Closes questions that were open too long; returns the monotonic time."""
        now = self._monotonic()
        for origin, pages in list(self._pages.items()):
            pages[:] = [page for page in pages if page.question.asked + LIFE > now]
            if not pages:
                del self._pages[origin]
        while self._refused and next(iter(self._refused.values())) <= now:
            self._refused.popitem(last=False)
        return now
