"""The README's tables, made from the tables of options and settings that the code goes by.

``python -m tests.support.tables`` writes them between their marks; tests/test_readme.py compares.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import fields

from iam_auth_proxy import config
from iam_auth_proxy.server import SETTINGS, Settings
from tests.support.processes import ROOT

README = ROOT / "README.md"

# What a setting's default is where the dataclass cannot say it.
_DEFAULTS = {
    "kms_key": "needed",
    "secret_key": "needed, or `keyring`",
    "keyring_kms_keys": "`kms_key`",
    "keyring_poll": "the ring's own",
    "accounts": "the app's own account",
    "origins": "none: only the original's sign-in, at any Host; in code needed",
    "proofs": "both; in code `signed-identity`",
    "legacy": "with both proofs; in code false",
    "salt": "rotates every 15 minutes",
    "allow": "users, roles, permission sets",
    "region": "the key's",
    "token_types": "whoever there are keys for",
    "token_leeway": "`30s`",
}


def options() -> str:
    """Every option of the proxy: flag and variable, place in the file, meaning and default."""
    rows = []
    for option in config.OPTIONS:
        flag = f"--{option.name} {option.metavar}".rstrip()
        default = f" Default: `{option.default}`." if option.default and not option.switch else ""
        rows.append(
            (
                f"`{flag}`<br>`{option.variable}`",
                f"`{option.key}`" if option.key else "",
                _text(option.help) + default,
            )
        )
    return _table(("Flag, and its variable", "In `config.toml`", "Meaning"), rows)


def settings() -> str:
    """Every setting of the server module: argument, variables, default, meaning."""
    defaults = {each.name: each.default for each in fields(Settings)}
    rows = [
        (
            f"`{setting.name}`",
            ", ".join(f"`{variable}`" for variable in setting.variables),
            _DEFAULTS.get(setting.name) or _default(defaults[setting.name]),
            _text(setting.help[:1].upper() + setting.help[1:] + "."),
        )
        for setting in SETTINGS
    ]
    return _table(("Argument", "Variables", "Default", "Meaning"), rows)


def _default(value: object) -> str:
    if isinstance(value, float):
        return f"`{value / 3600:.0f}h`" if value else "none"
    return f"`{value}`" if isinstance(value, (str, int)) and value else "none"


def _text(text: str) -> str:
    """Plain text: what Markdown would read in its own way is escaped."""
    return re.sub(r"([\\|*_\[\]<>])", r"\\\1", text)


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


TABLES = {"options": options, "settings": settings}


def between_marks(text: str, name: str) -> tuple[int, int]:
    """Where in the README the table of that name stands: its first and its last index."""
    begin = re.search(rf"^<!-- {name}: .*-->\n", text, re.MULTILINE)
    assert begin is not None, f"the README has no <!-- {name}: ... -->"
    return begin.end(), text.index(f"<!-- /{name} -->", begin.end())


def main() -> None:
    text = README.read_text(encoding="utf-8")
    for name, table in TABLES.items():
        start, end = between_marks(text, name)
        text = text[:start] + table() + text[end:]
    README.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
