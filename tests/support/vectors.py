"""The vectors: what both ends accept and refuse, as data (``tests/vectors/*.json``).

A file holds two lists of groups. A group says why its cases are as they are; what a case is, the
file's ``about`` says. Of a refused group, ``error`` is a part of the message that every case must
be refused with, so that a case cannot pass for another reason than its own::

    {"about": "...",
     "accepted": [{"why": "...", "cases": [...]}],
     "refused": [{"why": "...", "error": "...", "cases": [...]}]}

Import it as ``from tests.support import vectors``: pytest puts the root of the project on the path
(``pythonpath`` in pyproject.toml).
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

FOLDER = Path(__file__).parents[1] / "vectors"


def accepted(name: str) -> list[Any]:
    """The accepted cases of a file, one parameter each: the case."""
    return [pytest.param(case, id=label) for _, case, label in _cases(name, "accepted")]


def refused(name: str) -> list[Any]:
    """The refused cases of a file, two parameters each: the case and a part of the message."""
    return [
        pytest.param(case, group["error"], id=label)
        for group, case, label in _cases(name, "refused")
    ]


def _cases(name: str, kind: str) -> Iterator[tuple[dict[str, Any], Any, str]]:
    groups = json.loads((FOLDER / f"{name}.json").read_text("utf-8"))[kind]
    number = 0
    for group in groups:
        assert group["why"], f"{name}.json has a group without a reason"
        for case in group["cases"]:
            number += 1
            yield group, case, f"{kind}-{number}-{group['why'][:40]}"
