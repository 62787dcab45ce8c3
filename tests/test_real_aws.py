"""The program that asks a real AWS, asking an embedded one: what it creates and removes."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable, Iterator

import pytest

from iam_auth_proxy.local_aws import LocalAws, allow
from tests.real_aws import __main__ as program
from tests.real_aws import facts
from tests.real_aws.facts import FACTS, Fact, Play
from tests.real_aws.sides import UNCHECKED, Outcome, Side

ACCOUNT = "222222222222"
AGREED = ["--yes-create-in", ACCOUNT]


@pytest.fixture(autouse=True)
def quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(facts, "OVER", 0.01)


@pytest.fixture
def aws() -> Iterator[LocalAws]:
    """Stands for the real one."""
    with LocalAws((ACCOUNT,), "eu-central-1") as aws:
        yield aws


Run = Callable[..., int]


@pytest.fixture
def run(aws: LocalAws) -> Run:
    """The program with ``aws`` for the real one, and an answer to its question."""
    admin = aws.user("admin", policies=[allow("*")]).keys()

    @contextlib.contextmanager
    def connect(region: str) -> Iterator[Side]:
        yield Side(
            "AWS", ACCOUNT, "aws", aws.region, admin.arn,
            lambda service, keys: aws.client(service, keys or admin, config=UNCHECKED),
            aws.env, patience=0.0,
        )  # fmt: skip

    def run(argv: list[str], says: str = "yes") -> int:
        return program.main(argv, connect, lambda question: says)

    return run


def left(aws: LocalAws) -> tuple[list[str], list[str], set[str]]:
    """Users and roles that are still there, and the states of the keys."""
    room = aws.state.accounts[ACCOUNT]
    return list(room.users), list(room.roles), {k.state for k in aws.state.kms_keys.values()}


def test_everything_is_asked_compared_and_removed(
    run: Run, aws: LocalAws, capsys: pytest.CaptureFixture[str]
) -> None:
    before = dict(os.environ)
    assert run(AGREED) == 0
    told = capsys.readouterr()
    assert told.out.count("\nsame ") + told.out.startswith("same ") == len(FACTS)
    assert "DIFFER" not in told.out
    assert "signed in True, again 403 replayed" in told.out
    assert "NOT REMOVED" not in told.err
    assert left(aws) == (["admin"], [], {"PendingDeletion"})
    assert dict(os.environ) == before


def test_without_a_real_account(capsys: pytest.CaptureFixture[str]) -> None:
    assert program.main(["--local"]) == 0
    assert f"{len(FACTS)} asked of embedded, 0 answered otherwise" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("argv", "says"),
    [([], "yes"), (["--yes-create-in", "111122223333"], "yes"), (["--yes-create-in", ""], "yes"),
     (AGREED, ""), (AGREED, "no"), (AGREED, "y")],
)  # fmt: skip
def test_nothing_is_created_unless_it_was_agreed_to(
    run: Run, aws: LocalAws, argv: list[str], says: str
) -> None:
    assert run(argv, says) == 2
    assert left(aws) == (["admin"], [], set())


def test_without_an_account_nobody_is_asked_anything() -> None:
    def connect(region: str) -> contextlib.AbstractContextManager[Side]:
        raise AssertionError("asked")

    assert program.main([], connect) == 2


def test_a_terminal_that_is_none_does_not_agree(run: Run, aws: LocalAws) -> None:
    def closed(question: str) -> str:
        raise EOFError

    side = aws.user("other", policies=[allow("*")]).keys()
    given = Side("AWS", ACCOUNT, "aws", aws.region, side.arn, lambda *_: None, {}, 0.0)
    assert program.main(AGREED, lambda region: contextlib.nullcontext(given), closed) == 2


def test_a_difference_is_shown_with_both_answers(
    run: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def differs(play: Play) -> Outcome:
        return Outcome("yes", "because") if play.side.name == "AWS" else Outcome("no")

    monkeypatch.setattr(program, "FACTS", (Fact("is it so", differs),))
    assert run(AGREED) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["DIFFER", "known", "is", "it", "so", "yes"]
    assert lines[1].split() == ["embedded:", "no"]
    assert lines[2].split() == ["AWS", "says:", "because"]
    assert lines[-1] == "1 asked of AWS, 1 answered otherwise than expected"


def test_ctrl_c_leaves_nothing_behind(
    run: Run, aws: LocalAws, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(play: Play) -> Outcome:
        if play.side.name == "AWS":
            assert len(left(aws)[0]) == 3
            signal.raise_signal(signal.SIGINT)
        return Outcome("ok")

    monkeypatch.setattr(program, "FACTS", (Fact("never mind", interrupted),))
    assert run(AGREED) == 130
    assert left(aws) == (["admin"], [], {"PendingDeletion"})


@pytest.mark.parametrize("action", ["PutUserPolicy", "CreateAccessKey", "CreateRole", "CreateUser"])
def test_nor_does_a_failure_on_the_way(run: Run, aws: LocalAws, action: str) -> None:
    aws.fault("iam", action, code="LimitExceeded", status=409)
    assert run(AGREED) == 2
    assert left(aws) == (["admin"], [], {"PendingDeletion"})


def test_what_cannot_be_removed_is_named_and_the_rest_goes(
    run: Run, aws: LocalAws, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(program, "FACTS", ())
    aws.fault("iam", "DeleteRole", code="AccessDenied", status=403)
    assert run(AGREED) == 0
    (role,) = left(aws)[1]
    told = capsys.readouterr().err
    assert f"Remove it with: aws iam delete-role --role-name {role}" in told
    assert left(aws)[0] == ["admin"]
    assert left(aws)[2] == {"PendingDeletion"}


def test_a_second_ctrl_c_does_not_stop_the_removal(
    run: Run, aws: LocalAws, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(play: Play) -> Outcome:
        raise KeyboardInterrupt

    def again(call: object) -> bool:
        os.kill(os.getpid(), signal.SIGINT)
        return False

    aws.fault("iam", "DeleteRole", when=again)
    monkeypatch.setattr(program, "FACTS", (Fact("x", interrupted),))
    monkeypatch.setattr(program, "compare", lambda side, say: program.run(side, say))
    assert run(AGREED) == 130
    assert "removing what was created; wait" in capsys.readouterr().err
    assert left(aws) == (["admin"], [], {"PendingDeletion"})
