"""What docs/security.md promises is held by tests, and what is named there is there."""

from __future__ import annotations

import ast
import re
from functools import cache

import pytest

from tests.support.processes import ROOT

SECURITY = (ROOT / "docs/security.md").read_text("utf-8")
# A pytest node id without the brackets of its parameters.
_NODE = re.compile(r"`(tests/[a-z0-9_/]+\.py)::((?:Test\w+::)?test_\w+)`")
_TABLE = re.compile(r"^\| Promise \| Tests \|\n\|[-|]+\|\n((?:\|.*\n)+)", re.MULTILINE)
ROWS = [row for table in _TABLE.findall(SECURITY) for row in table.splitlines()]


@cache
def defined_in(file: str) -> frozenset[str]:
    """The node ids of a file, but for its own part of them."""
    found = set()
    for node in ast.parse((ROOT / file).read_text("utf-8")).body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            found.add(node.name)
        elif isinstance(node, ast.ClassDef):
            inside = (each for each in node.body if hasattr(each, "name"))
            found.update(f"{node.name}::{each.name}" for each in inside)
    return frozenset(found)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[2:50])
def test_a_promise_names_its_tests(row: str) -> None:
    promise, named = row.strip("|").rsplit("|", 1)
    assert promise.strip()
    found = _NODE.findall(named)
    assert found
    assert not re.sub(r"[ ]", "", _NODE.sub("", named)), "something that is no node id"
    for file, test in found:
        assert (ROOT / file).is_file(), file
        assert test in defined_in(file), f"{file}::{test}"


def test_the_promises_are_found() -> None:
    assert len(ROWS) > 40
    assert SECURITY.count("| Tests |") == len(_TABLE.findall(SECURITY))
    between = SECURITY[
        SECURITY.index("\n## What is promised") : SECURITY.index("\n## What is not promised")
    ]
    assert between.count("| Tests |") == SECURITY.count("| Tests |")
    # Whatever is said to be a test is one that is looked for above, or at least in the same form.
    assert len(re.findall(r"`tests/", SECURITY)) == len(_NODE.findall(SECURITY))
    assert len(_NODE.findall(SECURITY)) == sum(len(_NODE.findall(row)) for row in ROWS)
