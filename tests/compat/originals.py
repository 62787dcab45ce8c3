"""The originals' own tests against ours. They are in no package, so whoever has their repositories
says where::

    python -m tests.compat.originals kmsauth python-kmsauth/tests/unit/kmsauth
    python -m tests.compat.originals keys_management keys-management/tests

They need ``mock`` and ``pytest-mock``. Ours are put under the originals' names before anything of
theirs is imported. Seen to pass: 11 of python-kmsauth at 0.6.3 and 58 of keys-management at 0.1.5.
"""

from __future__ import annotations

import importlib
import pkgutil
import sys
import unittest
from pathlib import Path

import pytest


def take_the_place_of(name: str) -> None:
    """``import NAME``, and of whatever is in it, gives ours."""
    ours = f"iam_auth_proxy.compat.{name}"
    module = importlib.import_module(ours)
    sys.modules[name] = module
    for each in pkgutil.walk_packages(module.__path__, f"{ours}."):
        sys.modules[name + each.name.removeprefix(ours)] = importlib.import_module(each.name)


def main(name: str, folder: str) -> int:
    """Run the tests in a folder of the original's repository; pytest's exit status."""
    take_the_place_of(name)
    # Python 3.12 took these two names away; the tests are older.
    for old, new in (("assertRaisesRegexp", "assertRaisesRegex"), ("assertEquals", "assertEqual")):
        if not hasattr(unittest.TestCase, old):
            setattr(unittest.TestCase, old, getattr(unittest.TestCase, new))
    for each in [each for each in sys.modules if each.partition(".")[0] == "tests"]:
        del sys.modules[each]  # theirs may be called so, too
    sys.path.insert(0, str(Path(folder).resolve().parent))
    options = ["-c", "/dev/null", "--rootdir", folder, "-p", "no:cacheprovider", "-q"]
    return int(pytest.main([*options, "-o", "python_files=*_test.py", folder]))


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
