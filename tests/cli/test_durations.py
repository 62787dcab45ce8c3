"""Durations as they are typed and read."""

from __future__ import annotations

import click
import pytest

from iam_auth_proxy.cli.durations import instant, length, seconds

CONTEXT = click.Context(click.Command("x"))
FLAG = click.Option(["--poll"])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("30d", 2_592_000), ("1d12h", 129_600), ("12h", 43_200), ("90s", 90), ("1h1m1s", 3661),
        ("0.5h", 1800), ("0d1s", 1), (None, None),
    ],
)  # fmt: skip
def test_typed(text: str | None, expected: int | None) -> None:
    assert seconds(CONTEXT, FLAG, text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        "d",
        "5",
        "-1d",
        "1d1d",
        "1.5d",
        "1.5s",
        "12h1d",
        "\u0663d",
        "1d ",
        "1d-1h",
        "x",
        "999999d",
    ],
)
def test_not_typed(text: str) -> None:
    with pytest.raises(click.BadParameter, match="is not a duration such as 30d"):
        seconds(CONTEXT, FLAG, text)


def test_read() -> None:
    found = [length(each) for each in (30, 60, 120, 5400, 7200, 90_000, 172_800)]
    assert found == [
        "30 seconds", "60 seconds", "2 minutes", "90 minutes", "2 hours", "25 hours", "2 days",
    ]  # fmt: skip
    assert instant(0) == "1970-01-01T00:00:00Z"
    assert instant(None) == ""
