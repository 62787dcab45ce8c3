"""From samples to the table: medians, ratios, verdicts. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean, median
from typing import Final

from tests.bench.rows import OURS, Row

MISSED: Final = "NO"
FAILED: Final = "FAILED"


@dataclass(frozen=True, slots=True)
class Figure:
    """A row with what was measured.

    :ivar measured: median (of :func:`in_all`: mean), in the row's unit; None where the measurement
        failed.
    :ivar reference: the same of what it is compared with.
    :ivar ratio: median of the alternations' own ratios. Both sides of one of those were measured
        within seconds, so what drifts on a shared machine cancels out. Of :func:`in_all`: of means.
    :ivar samples: name of who was measured -> its samples, one for each alternation.
    """

    row: Row
    measured: float | None
    reference: float | None = None
    ratio: float | None = None
    samples: Mapping[str, Sequence[float]] = field(default_factory=dict)
    problem: str = ""

    @property
    def verdict(self) -> str:
        """``stretch``, ``owed``, or one of the two that fail the run."""
        value = self.ratio if self.row.relative else self.measured
        if value is None:
            return FAILED
        if self.row.stretch is not None and _within(value, self.row.stretch, self.row):
            return "stretch"
        return "owed" if _within(value, self.row.owed, self.row) else MISSED

    @property
    def holds(self) -> bool:
        """Whether at least what is owed was measured."""
        return self.verdict not in (MISSED, FAILED)


def absolute(row: Row, samples: Sequence[float]) -> Figure:
    """A figure that stands for itself: the median of its samples."""
    return Figure(row, median(samples), samples={OURS: samples})


def against(row: Row, samples: Mapping[str, Sequence[float]]) -> Figure:
    """A figure with another's of the same alternations.

    :param samples: of ours, of whom the row is against, and maybe of others, which are kept.
    :raises ValueError: not as many samples on both sides.
    """
    ours, theirs = samples[OURS], samples[row.against]
    ratios = [mine / other for mine, other in zip(ours, theirs, strict=True)]
    return Figure(row, median(ours), median(theirs), median(ratios), dict(samples))


def in_all(row: Row, samples: Mapping[str, Sequence[float]]) -> Figure:
    """A rate over all alternations together: what was done in all, against what the other did.

    A core of a shared machine is at half its speed for one second and not for the next. Samples are
    in two heaps then, and a median is somewhere between them.

    :param samples: as :func:`against`, each of as long a time.
    :raises ValueError: not as many samples on both sides.
    """
    ours, theirs = samples[OURS], samples[row.against]
    if len(ours) != len(theirs):
        raise ValueError("one side was measured for longer")
    return Figure(row, fmean(ours), fmean(theirs), fmean(ours) / fmean(theirs), dict(samples))


def failed(row: Row, problem: str) -> Figure:
    """A row that could not be measured."""
    return Figure(row, None, problem=problem)


def _within(value: float, bound: float, row: Row) -> bool:
    return value <= bound if row.at_most else value >= bound


# -- text ------------------------------------------------------------------------------------------


def show(value: float, unit: str) -> str:
    """A value as people read it: ``31,200/s``, ``131 us``, ``+4.2 MB``; MB are 10^6 bytes."""
    if unit == "/s":
        return f"{value:,.0f}/s"
    if unit in ("us", "ms", "MB/s"):
        return f"{value:,.0f} {unit}"
    if unit == "MB":
        return f"{value:.1f} MB"
    if unit == "+MB":
        return f"{value:+.1f} MB"
    return f"{value:g}"


def bound(row: Row, limit: float) -> str:
    """``>= 3x``, ``<= 350 ms``, ``<= +10 MB``."""
    sign = "<=" if row.at_most else ">="
    if row.relative:
        return f"{sign} {limit:g}x"
    plus = "+" if row.unit.startswith("+") else ""
    return f"{sign} {plus}{limit:g} {row.unit.removeprefix('+')}".rstrip()


def table(figures: Sequence[Figure]) -> str:
    """The Markdown table, its columns aligned."""
    head = ("what", "measured", "against", "ratio", "owed", "stretch", "met")
    lines = [head, *(_cells(figure) for figure in figures)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
    rule = tuple("-" * width for width in widths)
    return "\n".join(
        "| "
        + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True))
        + " |"
        for line in (head, rule, *lines[1:])
    )


def _cells(figure: Figure) -> tuple[str, ...]:
    row = figure.row
    against = row.against
    if figure.reference is not None:
        against = f"{row.against}: {show(figure.reference, row.unit)}"
    return (
        row.what,
        figure.problem or "–" if figure.measured is None else show(figure.measured, row.unit),
        against,
        "–" if figure.ratio is None else f"{figure.ratio:.2f}x",
        bound(row, row.owed),
        row.stretch_note or ("–" if row.stretch is None else bound(row, row.stretch)),
        figure.verdict,
    )


def document(figures: Sequence[Figure]) -> list[dict[str, object]]:
    """The same for machines, with every sample; values in the rows' units."""
    return [
        {
            "key": figure.row.key,
            "what": figure.row.what,
            "unit": figure.row.unit,
            "measured": figure.measured,
            "against": figure.row.against,
            "reference": figure.reference,
            "ratio": figure.ratio,
            "owed": figure.row.owed,
            "stretch": figure.row.stretch,
            "at_most": figure.row.at_most,
            "met": figure.verdict,
            "problem": figure.problem,
            "samples": {name: list(each) for name, each in figure.samples.items()},
        }
        for figure in figures
    ]
