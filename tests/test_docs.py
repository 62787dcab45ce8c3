"""docs/security.md promises what tests hold, docs/deployment.md advises what works, and each
package's docstring names its modules.
"""

from __future__ import annotations

import ast
import json
import re
from functools import cache
from pathlib import Path

import pytest
from botocore.exceptions import ClientError

from iam_auth_proxy.local_aws import Keys, LocalAws, allow
from tests.support.processes import ROOT

SECURITY = (ROOT / "docs/security.md").read_text("utf-8")
# A pytest node id without the brackets of its parameters.
_NODE = re.compile(r"`(tests/[a-z0-9_/]+\.py)::((?:Test\w+::)?test_\w+)`")
_PROMISES = SECURITY[
    SECURITY.index("\n## What is promised\n") : SECURITY.index("\n## What is not promised\n")
]
ENTRIES = re.findall(r"^- ((?:.*\n)(?:  .*\n)*)", _PROMISES, re.MULTILINE)


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


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry[:40].replace("\n", " "))
def test_a_promise_names_its_tests(entry: str) -> None:
    promise, _, named = entry.partition("<br>\n")
    assert promise.endswith(".")
    found = _NODE.findall(named)
    assert found
    assert not _NODE.sub("", named).strip(), "something that is no node id"
    for file, test in found:
        assert (ROOT / file).is_file(), file
        assert test in defined_in(file), f"{file}::{test}"


def test_the_promises_are_found() -> None:
    assert len(ENTRIES) > 40
    # Whatever is named as a test is one that is looked for above.
    assert SECURITY.count("tests/") == sum(len(_NODE.findall(entry)) for entry in ENTRIES)
    beside = [line for line in _PROMISES.splitlines() if line.startswith(("|", "*", "1"))]
    assert not beside, "promises that are no entries of a list"


def test_a_login_roles_trust_policy_ties_the_name_to_the_person() -> None:
    text = (ROOT / "docs/deployment.md").read_text("utf-8")
    chapter = text[text.index("\n## A login role for original servers\n") :]
    found = re.search(r"^```json\n(.*?)^```$", chapter, re.MULTILINE | re.DOTALL)
    assert found is not None
    with LocalAws() as aws:
        permissions = [allow("sts:AssumeRole")]
        ann, bob = (
            aws.sso_role("Developer", name, policies=permissions)
            for name in ("ann.lee@example.com", "bob@example.com")
        )
        user_id = aws.client("sts", ann).get_caller_identity()["UserId"].partition(":")[0]
        policy = json.loads(found[1].replace("AROAEXAMPLEEXAMPLE", user_id))
        role = aws.role("login", policy)

        def assume(keys: Keys, name: str) -> str:
            try:
                made = aws.client("sts", keys).assume_role(RoleArn=role.arn, RoleSessionName=name)
            except ClientError as error:
                return str(error.response["Error"]["Code"])
            return str(made["AssumedRoleUser"]["Arn"]).rpartition("/")[2]

        assert assume(ann, "ann.lee@example.com") == "ann.lee@example.com"
        assert assume(ann, "bob@example.com") == "AccessDenied"
        assert assume(bob, "ann.lee@example.com") == "AccessDenied"


PACKAGE = ROOT / "iam_auth_proxy"
# The modules of compat/ are those of the packages that it stands in for.
PACKAGES = [
    path.parent
    for path in sorted(PACKAGE.rglob("__init__.py"))
    if "compat" not in path.relative_to(PACKAGE).parent.parts
]


@pytest.mark.parametrize("folder", PACKAGES, ids=lambda folder: folder.name)
def test_a_package_names_its_modules(folder: Path) -> None:
    docstring = ast.get_docstring(ast.parse((folder / "__init__.py").read_text("utf-8"))) or ""
    named = set(re.findall(r"``(\w+)``", docstring))
    modules = {path.stem for path in folder.glob("*.py")}
    packages = {path.parent.name for path in folder.glob("*/__init__.py")}
    assert (modules | packages) - {"__init__", "__main__"} <= named
