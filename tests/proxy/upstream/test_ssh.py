"""The words that OpenSSH is started with, and whether it could ask anybody."""

from __future__ import annotations

import os
import sys

import pytest

from iam_auth_proxy.proxy.upstream.ssh import argv, has_askpass


@pytest.mark.parametrize("batch", [False, True])
def test_its_words(batch: bool) -> None:
    """The host comes last, after ``--``: whatever it is, it is no option."""
    words = argv(("ssh", "-F", "x"), "-oProxyCommand=x", ("127.0.0.1", 1080), batch=batch)
    leash, rest = words[:6], words[6:]
    assert (leash[0], leash[-1]) == (sys.executable, str(os.getpid()))
    assert rest[:7] == ["ssh", "-F", "x", "-N", "-T", "-D", "127.0.0.1:1080"]
    assert rest[-2:] == ["--", "-oProxyCommand=x"]
    options = rest[8:-2:2]
    assert {*rest[7:-2:2]} == {"-o"}
    assert "ControlMaster=no" in options
    assert ("BatchMode=yes" in options) is batch


@pytest.mark.parametrize(
    ("environ", "found"),
    [
        ({}, False),
        ({"SSH_ASKPASS": "/x"}, False),
        ({"DISPLAY": ":0"}, False),
        ({"SSH_ASKPASS": "/x", "DISPLAY": ":0"}, True),
        ({"SSH_ASKPASS": "/x", "WAYLAND_DISPLAY": "wayland-0"}, True),
        ({"SSH_ASKPASS": "/x", "SSH_ASKPASS_REQUIRE": "force"}, True),
    ],
)
def test_a_window_to_ask_in(environ: dict[str, str], found: bool) -> None:
    assert has_askpass(environ) is found
