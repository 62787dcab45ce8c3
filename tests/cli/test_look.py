"""How ``status`` puts things."""

from __future__ import annotations

from iam_auth_proxy.cli.look import _entries

AT = "2026-11-22T08:44:{:02}.123Z"


def warning(second: int, **fields: str) -> dict[str, str]:
    return {"time": AT.format(second), "level": "warning", "message": "stopped", **fields}


def test_what_is_said_again_stands_once() -> None:
    same = {"origin": "http://app.test", "code": "login-needed", "detail": "no credentials"}
    other = {"origin": "http://app.test", "code": "signed-out", "detail": "http://app.test"}
    entries = [warning(1, **same), warning(2, **same), warning(3, **other), warning(4, **same)]
    line = "stopped  origin=http://app.test  code=login-needed  detail=no credentials"
    assert _entries(entries) == [
        f"2026-11-22T08:44:02Z  {line}  (2 times)",
        "2026-11-22T08:44:03Z  stopped  origin=http://app.test  code=signed-out",
        f"2026-11-22T08:44:04Z  {line}",
    ]
    assert _entries([]) == []


def test_a_warning_cannot_draw_on_the_terminal() -> None:
    assert _entries([warning(1, detail="a\x1b[2Jb")])[0].endswith("detail=a?[2Jb")
