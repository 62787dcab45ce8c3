"""What docs/compat.md says is so: its tests are there, its code runs, its settings are read."""

from __future__ import annotations

import re
import time
from importlib.metadata import version
from typing import Any

import pytest

from iam_auth_proxy.keys.rotation import open_ring
from iam_auth_proxy.local_aws import LocalAws
from iam_auth_proxy.protocol.lifecycle import Policy
from iam_auth_proxy.server.settings import SETTINGS
from tests.support.processes import ROOT
from tests.test_docs import defined_in

TEXT = (ROOT / "docs/compat.md").read_text("utf-8")
_CLOSED = TEXT[TEXT.index("\n## What is closed\n") :]
_SECTIONS = re.findall(r"^### (?:.*?`(tests/\S+)`|.*)\n((?:(?!^### ).*\n)*)", _CLOSED, re.MULTILINE)
ROWS = [
    (row[0], row[1], default)
    for default, section in _SECTIONS
    for row in re.findall(r"^\| ([KLM]\d+b?) \| .* \| ([^|]*) \|$", section, re.MULTILINE)
]
_K = [2, 3, 4, 5, 6, 7, 8, 9, *range(11, 24), 25, 27, 28, 29, 31, 34, 35, 36, 37]


def test_every_defect_is_there() -> None:
    expected = {f"K{n}" for n in _K} | {"K3b", "K9b", "K26b"}
    expected |= {f"L{n}" for n in range(14)}
    expected |= {f"M{n}" for n in range(1, 22) if n != 14}
    assert {row[0] for row in ROWS} == expected
    assert len(ROWS) == len(expected)
    assert len(re.findall(r"^\| [A-Z]\d", TEXT, re.MULTILINE)) == len(ROWS)


@pytest.mark.parametrize(("defect", "named", "default"), ROWS, ids=[row[0] for row in ROWS])
def test_a_defect_names_its_tests(defect: str, named: str, default: str) -> None:
    found = re.findall(r"`([^`]+)`", named)
    assert found
    for each in found:
        file, _, test = each.rpartition("::")
        assert test in defined_in(file or default), each


def test_the_originals_are_those_of_the_documentation() -> None:
    """Whatever fails with them is expected to: so it has to be them."""
    for name in ("kmsauth", "keys-management"):
        assert f"`{name.replace('-', '_')}` {version(name)} |" in TEXT


def test_confidants_settings() -> None:
    rows = re.findall(r"^\| `([A-Z_]+)` \| `([A-Z_]+)` \|$", TEXT, re.MULTILINE)
    known = [(each, setting) for setting in SETTINGS for each in setting.confidant]
    assert rows == [(each, f"IAM_AUTH_{setting.name.upper()}") for each, setting in known]


CODE = re.findall(r"^```python\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("code", CODE, ids=["kmsauth", "lazycred", "keys-management", "ring"])
def test_the_code(code: str, local_aws: LocalAws, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {**local_aws.env, **local_aws.root().env}.items():
        monkeypatch.setenv(name, value)
    for alias in ("services", "app"):
        local_aws.key(f"alias/{alias}")
    local_aws.client("s3", local_aws.root()).create_bucket(
        Bucket="bucket", CreateBucketConfiguration={"LocationConstraint": local_aws.region}
    )
    open_ring("s3://bucket/rings/data", ["alias/app"]).create(Policy(), time.time())
    names: dict[str, Any] = {}
    exec(compile(code, "docs/compat.md", "exec"), names)  # our own page
    if "verified" in names:
        assert str(names["verified"].caller) == "2/service/ci"
    if "value" in names:
        assert names["value"] == b"secret"
    if "keys_management" in names:
        assert len(names["keys_management"].get_forward_path_key("data")) == 32
    if "again" in names:
        assert names["again"] == names["key"]
    if "rings" in names:
        names["rings"].close()


@pytest.mark.parametrize("name", ["kmsauth", "lazycred", "keys_management"])
def test_the_page_is_named_where_it_is_needed(name: str) -> None:
    assert f"import iam_auth_proxy.compat.{name} as {name}" in TEXT
