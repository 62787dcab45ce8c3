"""Which requests a click on a page of ours makes once more."""

from __future__ import annotations

import pytest

from iam_auth_proxy.names import parse_origin
from iam_auth_proxy.proxy.decisions.clicks import link_to, navigates
from iam_auth_proxy.relay.message import Request, parse_request

APP = parse_origin("https://app.test")


def head(method: str = "GET", target: bytes = b"/a?b=c", **said: str) -> Request:
    lines = [method.encode() + b" " + target + b" HTTP/1.1", b"Host: app.test"]
    lines += [f"{name.replace('_', '-')}: {value}".encode() for name, value in said.items()]
    return parse_request(b"\r\n".join([*lines, b"", b""]))


@pytest.mark.parametrize(
    ("mode", "dest", "found"),
    [
        ("navigate", "document", True),
        ("navigate", "empty", True),
        ("navigate", "iframe", False),
        ("navigate", "", False),
        ("no-cors", "document", False),
        ("", "", False),
    ],
)
def test_navigates(mode: str, dest: str, found: bool) -> None:
    assert navigates(head(Sec_Fetch_Mode=mode, Sec_Fetch_Dest=dest)) is found


def test_a_link_asks_the_same() -> None:
    assert link_to(head(), APP) == "https://app.test/a?b=c"
    assert link_to(head("HEAD"), APP) == "https://app.test/a?b=c"
    assert link_to(head("POST"), APP) == ""
