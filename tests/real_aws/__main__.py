"""``python -m tests.real_aws``: asks, prints what differed, and exits 1 where something did."""

from __future__ import annotations

import argparse
import contextlib
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import NoReturn

from botocore.exceptions import BotoCoreError, ClientError

from tests.real_aws.facts import FACTS, Fact, Play
from tests.real_aws.sides import Outcome, Side, embedded, real, told
from tests.real_aws.stage import Say, plan, staged

Connect = Callable[[str], contextlib.AbstractContextManager[Side]]
Row = tuple[Fact, Outcome, Outcome]


@contextlib.contextmanager
def account(region: str) -> Iterator[Side]:
    """The account whose credentials boto3 finds."""
    yield real(region)


def say(text: str) -> None:
    """Progress."""
    print(text, file=sys.stderr, flush=True)


def main(
    argv: Sequence[str] | None = None, connect: Connect = account, ask: Callable[[str], str] = input
) -> int:
    """The exit status: 0, 1 where answers differ, 2 where nothing was asked, 130 interrupted."""
    options = _parser().parse_args(argv)
    if not options.local and not options.yes_create_in:
        say("this creates users, keys and a role: name their account with --yes-create-in")
        return 2
    try:
        with embedded() if options.local else connect(options.region) as side:
            if not options.local and not _agreed(side, options.yes_create_in, ask):
                return 2
            rows = compare(side, say)
    except (BotoCoreError, ClientError) as error:
        say(f"AWS: {error}")
        return 2
    except KeyboardInterrupt:
        say("interrupted")
        return 130
    print(table(rows, side.name))
    return 0 if all(same(one, other) for _, one, other in rows) else 1


def _agreed(side: Side, number: str, ask: Callable[[str], str]) -> bool:
    if number != side.account:
        say(f"these are credentials of account {side.account}, as {side.caller}")
        say(f"to create things there: --yes-create-in {side.account}; nothing was created")
        return False
    for line in plan(side):
        say(line)
    try:
        answer = ask("Go on? Type yes: ")
    except EOFError:
        answer = ""
    if answer.strip().lower() != "yes":
        say("nothing was created")
        return False
    return True


def compare(side: Side, say: Say) -> list[Row]:
    """Every fact, asked of an embedded AWS first and then of ``side``."""
    with embedded(side.region, side.account) as model:
        expected = run(model, lambda text: None)
    found = run(side, say)
    return list(zip(FACTS, expected, found, strict=True))


def run(side: Side, say: Say) -> list[Outcome]:
    """The answers of one side, in the order of the facts."""
    outcomes = []
    with staged(side, say) as stage:
        play = Play(stage)
        for fact in FACTS:
            say(f"asking: {fact.text}")
            outcomes.append(_answer(fact, play))
    return outcomes


def _answer(fact: Fact, play: Play) -> Outcome:
    """What is asked by the way may be refused too, and that is then the answer."""
    found: list[Outcome] = []
    failed = told(lambda: found.append(fact.ask(play)))
    return found[0] if found else failed


def same(one: Outcome, other: Outcome) -> bool:
    """Messages change; codes and results do not."""
    return one.text == other.text


def table(rows: Sequence[Row], name: str) -> str:
    """One line a fact; where the answers differ, or nobody was sure, AWS's own words below."""
    differ = [row for row in rows if not same(row[1], row[2])]
    width = max((len(fact.text) for fact, _, _ in rows), default=0)
    lines = []
    for fact, expected, found in rows:
        verdict = "same  " if same(expected, found) else "DIFFER"
        lines.append(f"{verdict}  {fact.mark:<7}  {fact.text:<{width}}  {found.text}")
        if not same(expected, found):
            lines.append(f"{'':<19}{'embedded:':<{width}}  {expected.text}")
        if found.message and (not same(expected, found) or fact.mark == "assumed"):
            lines.append(f"{'':<19}{name + ' says:':<{width}}  {found.message}")
    lines.append(f"\n{len(rows)} asked of {name}, {len(differ)} answered otherwise than expected")
    return "\n".join(lines)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.real_aws", description=__doc__)
    parser.add_argument(
        "--yes-create-in", metavar="ACCOUNT_ID", default="",
        help="the account to create users, keys and a role in; it has to be that of the "
        "credentials (AWS_PROFILE)",
    )  # fmt: skip
    parser.add_argument("--region", default="", help="instead of the profile's")
    parser.add_argument(
        "--local", action="store_true", help="ask an embedded AWS instead, to try this program"
    )
    return parser


def _interrupt(*_: object) -> NoReturn:
    raise KeyboardInterrupt


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, _interrupt)
    sys.exit(main())
