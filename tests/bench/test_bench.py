"""The pure parts of the bench. What it measures is never asserted here."""

from __future__ import annotations

import pytest

from tests.bench import __main__ as bench
from tests.bench import contestants, figures, rows, wrk
from tests.bench.contestants import Field
from tests.bench.machine import BenchError
from tests.bench.rows import Row
from tests.bench.settings import QUICK, Settings

AT_LEAST = Row("k", "speed", "/s", "other", True, False, 3, 4)
AT_MOST = Row("k", "size", "MB", "(constant)", False, True, 48, 40)


def versus(ours: list[float], other: list[float]) -> figures.Figure:
    return figures.against(AT_LEAST, {"ours": ours, "other": other, "third": [7]})


def test_ratio_is_the_median_of_the_alternations_ratios() -> None:
    figure = versus([30, 10, 40], [10, 5, 10])
    assert (figure.measured, figure.reference, figure.ratio) == (30, 10, 3.0)
    with pytest.raises(ValueError):
        versus([1, 2], [1])


def test_rates_are_those_of_all_the_time() -> None:
    figure = figures.in_all(AT_LEAST, {"ours": [30, 60, 60], "other": [10, 10, 40]})
    assert (figure.measured, figure.reference, figure.ratio) == (50, 20, 2.5)
    with pytest.raises(ValueError):
        figures.in_all(AT_LEAST, {"ours": [1, 2], "other": [1]})


@pytest.mark.parametrize(
    ("figure", "verdict", "holds"),
    [
        (versus([40], [10]), "stretch", True),
        (versus([30], [10]), "owed", True),
        (versus([29.99], [10]), figures.MISSED, False),
        (figures.absolute(AT_MOST, [1, 40, 99]), "stretch", True),
        (figures.absolute(AT_MOST, [48]), "owed", True),
        (figures.absolute(AT_MOST, [48.001]), figures.MISSED, False),
        (figures.failed(AT_MOST, "why"), figures.FAILED, False),
        (figures.absolute(rows.AWS_CALLS, [1, 1, 1]), "owed", True),
        (figures.absolute(rows.AWS_CALLS, [1, 2, 2]), figures.MISSED, False),
    ],
)
def test_verdict_keeps_to_the_bounds(figure: figures.Figure, verdict: str, holds: bool) -> None:
    assert (figure.verdict, figure.holds) == (verdict, holds)


def test_table_shows_every_column_of_every_kind_of_row() -> None:
    lines = figures.table(
        [
            figures.against(rows.RATE_PROXY_PY, {"ours": [31234.4], "proxy.py": [9012.2]}),
            figures.absolute(rows.IDLE, [4.21]),
            figures.absolute(rows.AWS_CALLS, [1]),
            figures.failed(rows.READY, "not measured"),
        ]
    ).splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    assert len({len(line) for line in lines}) == 1
    assert set("".join(cells[1])) == {"-"}
    measured = [row[1:] for row in cells[2:]]
    assert measured == [
        ["31,234/s", "proxy.py: 9,012/s", "3.47x", ">= 3x", ">= 4x", "owed"],
        ["+4.2 MB", "itself with none", "–", "<= +10 MB", "<= +5 MB", "stretch"],
        ["1", "(the Go original: 3)", "–", "<= 1", "1, and 0 waited for", "owed"],
        ["not measured", "(the Go original: 13 ms)", "–", "<= 350 ms", "<= 250 ms", figures.FAILED],
    ]


def test_document_keeps_every_sample() -> None:
    (entry,) = figures.document([versus([30, 40], [10, 10])])
    assert entry["samples"] == {"ours": [30, 40], "other": [10, 10], "third": [7]}
    assert (entry["ratio"], entry["met"]) == (3.5, "owed")


def test_every_row_is_measured_by_one_group() -> None:
    covered = [row for _, group in bench.GROUPS.values() for row in group]
    assert sorted(row.key for row in covered) == sorted(row.key for row in rows.ROWS)


WRK = """Running 1s test @ http://127.0.0.1:1/
  1 threads and 1 connections
{"micros": 2000000, "requests": 9000, "bytes": 1, "p50": 131, "p99": 400, %s}
"""
CLEAN = '"connect": 0, "read": 0, "write": 0, "timeout": 0, "status": 0'


def test_wrk_line_is_read() -> None:
    load = wrk.parse(WRK % CLEAN)
    assert (load.requests, load.rate, load.p50, load.p99) == (9000, 4500.0, 131, 400)


@pytest.mark.parametrize(
    ("output", "complaint"),
    [
        ("unable to connect to 127.0.0.1:1 Connection refused\n", "Connection refused"),
        ("", "no output"),
        (WRK % CLEAN.replace('"status": 0', '"status": 7'), "'status': 7"),
        (WRK % CLEAN.replace('"timeout": 0', '"timeout": 1'), "'timeout': 1"),
        ((WRK % CLEAN).replace('"requests": 9000', '"requests": 0'), "no answer"),
    ],
)
def test_a_run_with_errors_is_none(output: str, complaint: str) -> None:
    with pytest.raises(BenchError, match=complaint):
        wrk.parse(output)


def test_what_fails_is_a_figure_and_stops_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(field: Field, settings: Settings) -> list[figures.Figure]:
        raise BenchError("the origin is gone")

    def fine(field: Field, settings: Settings) -> list[figures.Figure]:
        return [figures.absolute(rows.RSS, [1])]

    groups = {"memory": (broken, (rows.IDLE,)), "start": (fine, (rows.RSS,))}
    monkeypatch.setattr(bench, "GROUPS", groups)
    monkeypatch.setattr(contestants, "cores", lambda: (0, 0))
    found = bench.run(list(groups), "daemon", QUICK)
    assert [(figure.row.key, figure.verdict) for figure in found] == [
        ("rss", "stretch"),
        ("idle-memory", figures.FAILED),
    ]
