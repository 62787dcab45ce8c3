"""The questions that are open, and who may answer them."""

from __future__ import annotations

from typing import Any

import pytest

from iam_auth_proxy.errors import Refused
from iam_auth_proxy.names import Origin
from iam_auth_proxy.protocol.proof import ProofKind
from iam_auth_proxy.proxy.decisions.questions import (
    LIFE,
    PAGES,
    PATH,
    ROOM,
    Choice,
    Question,
    Questions,
)


class Rig:
    """Questions on a clock of the test's own."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.said: list[tuple[Question, Choice]] = []
        self.refuse: Exception | None = None
        self.questions = Questions(self._answered, lambda: self.now)

    def _answered(self, question: Question, choice: Choice) -> None:
        if self.refuse is not None:
            raise self.refuse
        self.said.append((question, choice))

    def ask(self, host: str = "app.test", **more: Any) -> str | None:
        facts: dict[str, Any] = {
            "kind": "trust",
            "origin": Origin("http", host, 80),
            "realm": "111122223333",
            "key": "arn:aws:kms:eu-west-1:111122223333:key/one",
            "old_key": "",
            "proof": ProofKind.SIGNED_IDENTITY,
            "profile": "dev",
            "identity": "",
            "way_back": f"http://{host}/page",
        }
        return self.questions.ask(**{**facts, **more})

    def opened(self, path: str | None) -> Question:
        assert path is not None
        question = self.questions.find(path.removeprefix(PATH))
        assert question is not None
        return question


@pytest.fixture
def rig() -> Rig:
    return Rig()


def test_a_question_is_answered_once(rig: Rig) -> None:
    question = rig.opened(rig.ask())
    assert rig.questions.answer(question.id, question.token, "once") == (question, Choice.ONCE)
    assert rig.said == [(question, Choice.ONCE)]
    assert rig.questions.answer(question.id, question.token, "once") is None
    assert len(rig.said) == 1


def test_ids_and_tokens_are_secrets(rig: Rig) -> None:
    one, two = rig.opened(rig.ask("one.test")), rig.opened(rig.ask("two.test"))
    assert len({one.id, one.token, two.id, two.token}) == 4
    assert len(one.id) == len(one.token) == 22
    assert one.id not in repr(one)
    assert one.token not in repr(one)


@pytest.mark.parametrize("token", ["", "x", "A" * 22, "\udcff", "é"])
def test_another_token_answers_nothing(rig: Rig, token: str) -> None:
    question = rig.opened(rig.ask())
    assert rig.questions.answer(question.id, token, "always") is None
    assert rig.questions.answer(question.token, question.id, "always") is None
    assert not rig.said
    assert rig.questions.find(question.id) is question


@pytest.mark.parametrize(
    ("kind", "choice"), [("trust", "yes"), ("trust", ""), ("key", "once"), ("again", "always")]
)
def test_what_is_no_answer_to_it(rig: Rig, kind: str, choice: str) -> None:
    question = rig.opened(rig.ask(kind=kind))
    assert rig.questions.answer(question.id, question.token, choice) is None
    assert not rig.said


def test_each_goes_back_where_it_came_from(rig: Rig) -> None:
    """A hidden frame that asks first does not choose where the person's yes leads."""
    frame = rig.opened(rig.ask(way_back="http://app.test/danger"))
    tab = rig.opened(rig.ask(way_back="http://app.test/mine"))
    assert len({frame.id, frame.token, tab.id, tab.token}) == 4
    assert rig.questions.answer(tab.id, frame.token, "once") is None
    assert rig.questions.answer(tab.id, tab.token, "once") == (tab, Choice.ONCE)
    assert tab.way_back == "http://app.test/mine"
    assert rig.questions.find(frame.id) is None  # one answer for all pages of it
    assert len(rig.said) == 1


def test_the_same_page_asks_once(rig: Rig) -> None:
    assert rig.ask() == rig.ask()
    assert len(rig.questions) == 1


def test_pages_of_one_question_are_few_and_those_unseen_go_first(rig: Rig) -> None:
    first = rig.opened(rig.ask(way_back="http://app.test/first"))
    rig.questions.find(first.id, show=True)
    made = [rig.opened(rig.ask(way_back=f"http://app.test/{n}")) for n in range(PAGES + 2)]
    kept = [rig.questions.find(question.id) is not None for question in (first, *made)]
    assert kept == [True] + [False] * 3 + [True] * (PAGES - 1)
    for question in made:
        rig.questions.find(question.id, show=True)
    assert rig.ask(way_back="http://app.test/last") is not None
    assert rig.questions.find(first.id) is None  # all were seen, and it is the oldest


@pytest.mark.parametrize(
    "change",
    [
        {"key": "arn:aws:kms:eu-west-1:111122223333:key/two"},
        {"realm": "444455556666"},
        {"kind": "again"},
        {"profile": "ops"},
        {"old_key": "arn:aws:kms:eu-west-1:111122223333:key/zero"},
        {"proof": ProofKind.SESSION_CREDENTIALS},
    ],
)
def test_what_is_shown_does_not_change(rig: Rig, change: dict[str, Any]) -> None:
    """A page that asks again with another key must not have it pinned by the first one's yes."""
    question = rig.opened(rig.ask())
    assert rig.ask(**change) is None
    assert rig.opened(question.path) == question


def test_a_flood_of_origins_finds_no_room(rig: Rig) -> None:
    paths = list[str | None]()
    for number in range(ROOM + 3):
        paths.append(path := rig.ask(f"app{number}.test"))
        if path is not None:
            rig.questions.find(path.removeprefix(PATH), show=True)
    assert [path is not None for path in paths] == [True] * ROOM + [False] * 3
    rig.now += LIFE
    assert rig.ask("late.test") is not None
    assert len(rig.questions) == 1


def test_a_flood_that_nobody_sees_takes_no_room_from_what_somebody_does(rig: Rig) -> None:
    seen = rig.opened(rig.ask("seen.test"))
    rig.questions.find(seen.id, show=True)
    for number in range(3 * ROOM):
        assert rig.ask(f"frame{number}.test") is not None
    assert len(rig.questions) == ROOM
    assert rig.questions.find(seen.id) is seen
    assert rig.opened(rig.ask("app.test")).origin.host == "app.test"


def test_a_question_closes_by_itself(rig: Rig) -> None:
    question = rig.opened(rig.ask())
    rig.now += LIFE - 1
    assert rig.questions.find(question.id) is question
    rig.now += 1
    assert rig.questions.find(question.id) is None
    assert rig.questions.answer(question.id, question.token, "once") is None
    assert not rig.said


def test_no_is_remembered_for_a_while(rig: Rig) -> None:
    question = rig.opened(rig.ask())
    assert rig.questions.answer(question.id, question.token, "no") == (question, Choice.NO)
    assert not rig.said
    assert rig.ask() is None
    assert rig.ask("other.test") is not None
    rig.now += LIFE
    assert rig.ask() is not None


def test_what_the_person_does_elsewhere_ends_it(rig: Rig) -> None:
    question = rig.opened(rig.ask())
    rig.questions.answer(question.id, question.token, "no")
    rig.questions.forget(question.origin)
    assert rig.ask() is not None


def test_an_answer_that_cannot_be_kept_leaves_it_open(rig: Rig) -> None:
    question = rig.opened(rig.ask())
    rig.refuse = Refused("trust.toml is damaged")
    with pytest.raises(Refused):
        rig.questions.answer(question.id, question.token, "always")
    rig.refuse = None
    assert rig.questions.answer(question.id, question.token, "once") == (question, Choice.ONCE)
