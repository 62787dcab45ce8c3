"""``cli/catalogue.py``: every command is there, and none is imported for another's sake."""

from __future__ import annotations

import subprocess
import sys

import click
import pytest

from iam_auth_proxy.cli.catalogue import Catalogue
from iam_auth_proxy.cli.commands import cli

_PLACE = "iam_auth_proxy.cli.browser:browser_command"


def test_each_name_leads_to_the_command_of_that_name() -> None:
    assert {name: command.name for name, command in cli.commands.items()} == {
        name: name for name in cli.commands
    }


def test_to_look_a_name_up_imports_one_command() -> None:
    names = "browser", "exec", "look", "policies", "secret", "service", "token", "trust"
    program = f"""
import sys
from iam_auth_proxy.cli.commands import cli
def loaded(): return [name for name in {names!r} if "iam_auth_proxy.cli." + name in sys.modules]
assert "trust" in cli.commands and len(list(cli.commands)) == len(cli.commands) > 10
assert loaded() == [], loaded()
cli.commands["trust"]
assert loaded() == ["trust"], loaded()
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)


def test_what_is_set_comes_before_what_is_elsewhere_and_what_is_deleted_is_gone() -> None:
    catalogue = Catalogue({"browser": _PLACE, "other": _PLACE})
    mine = click.Command("other")
    catalogue["other"] = mine
    assert catalogue["other"] is mine
    assert list(catalogue) == ["browser", "other"]
    del catalogue["browser"], catalogue["other"]
    assert len(catalogue) == 0
    assert "browser" not in catalogue
    with pytest.raises(KeyError):
        catalogue["browser"]
    with pytest.raises(KeyError):
        del catalogue["browser"]
