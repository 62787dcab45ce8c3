"""TOML, written: the standard library only reads it. What is written is read back equal."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from datetime import date, datetime, time
from typing import Any

_BARE = re.compile(r"[A-Za-z0-9_-]+", re.ASCII)


def dumps(tables: Mapping[str, Any]) -> str:
    """A document as tomllib makes it: dicts, lists, strings, numbers, booleans, times.

    Values come first, then tables, each under its own header; the order is otherwise kept.

    :raises TypeError: another type, which tomllib never makes.
    """
    lines: list[str] = []
    _table(lines, "", tables)
    return "\n".join(lines).lstrip("\n") + "\n"


def _table(lines: list[str], path: str, table: Mapping[str, Any]) -> None:
    below: list[tuple[str, str, Any]] = []
    for key, value in table.items():
        name = f"{path}.{_key(key)}" if path else _key(key)
        if isinstance(value, dict):
            below.append((f"[{name}]", name, value))
        elif isinstance(value, list) and value and all(isinstance(each, dict) for each in value):
            below += [(f"[[{name}]]", name, each) for each in value]
        else:
            lines.append(f"{_key(key)} = {_value(value)}")
    for header, name, value in below:
        lines += ["", header]
        _table(lines, name, value)


def _key(key: str) -> str:
    return key if _BARE.fullmatch(key) else _string(key)


def _string(text: str) -> str:
    # JSON's escapes are TOML's. DEL is what JSON leaves as it is and TOML refuses.
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def _value(value: Any) -> str:
    match value:
        case bool():
            return "true" if value else "false"
        case str():
            return _string(value)
        case int():
            return str(value)
        case float():
            return repr(value)  # inf and nan are spelt alike
        case datetime() | date() | time():
            return value.isoformat()
        case list():
            return f"[{', '.join(_value(each) for each in value)}]"
        case dict():
            pairs = ", ".join(f"{_key(key)} = {_value(each)}" for key, each in value.items())
            return f"{{{pairs}}}"
    raise TypeError(f"TOML has no {type(value).__name__}")
