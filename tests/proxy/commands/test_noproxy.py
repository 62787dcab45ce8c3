"""What goes past the proxy."""

from __future__ import annotations

import pytest

from iam_auth_proxy.proxy.commands.noproxy import exports, in_the_way

LOCAL = "localhost,127.0.0.1,::1"
HALF = "::1,a.test,localhost,127.0.0.1"


@pytest.mark.parametrize(
    ("environ", "lower", "upper"),
    [
        ({}, LOCAL, LOCAL),
        ({"no_proxy": "a.test, .b.test"}, f"a.test,.b.test,{LOCAL}", f"a.test,.b.test,{LOCAL}"),
        (
            {"NO_PROXY": "::1,a.test"},
            "::1,a.test,localhost,127.0.0.1",
            "::1,a.test,localhost,127.0.0.1",
        ),
        ({"no_proxy": "a.test", "NO_PROXY": "b.test"}, f"a.test,{LOCAL}", f"b.test,{LOCAL}"),
        ({"no_proxy": "*"}, "*", "*"),
        ({"no_proxy": LOCAL, "NO_PROXY": LOCAL}, LOCAL, LOCAL),
    ],
)
def test_this_machine_is_added(environ: dict[str, str], lower: str, upper: str) -> None:
    assert exports(environ, ["app.test"], ["10.0.0.1"]) == {"no_proxy": lower, "NO_PROXY": upper}


@pytest.mark.parametrize(
    ("hosts", "allowed"),
    [
        (["app.test", "localhost"], []),
        (["127.0.0.2"], []),
        (["::1"], []),
        ([], ["localhost:3000"]),
        ([], ["127.0.0.1:3000"]),
        ([], ["127.0.0.0/8"]),
        ([], ["[::1]:3000"]),
    ],
)
def test_but_not_where_an_app_of_it_goes_through_the_proxy(
    hosts: list[str], allowed: list[str]
) -> None:
    assert exports({"no_proxy": "a.test"}, hosts, allowed) == {}


def test_what_is_allowed_elsewhere_is_no_matter() -> None:
    assert exports({}, [], ["169.254.1.1", "fe80::/10", "api.test:80"]) != {}


def test_aliases_are_names_under_localhost() -> None:
    assert exports({}, [], [], aliases=True) == dict.fromkeys(
        ("no_proxy", "NO_PROXY"), "127.0.0.1,::1"
    )


@pytest.mark.parametrize(
    ("environ", "hosts", "aliases", "names"),
    [
        ({"no_proxy": LOCAL}, ["app.test"], False, []),
        ({"no_proxy": LOCAL}, ["localhost"], False, ["localhost", "127.0.0.1", "::1"]),
        ({"NO_PROXY": "a.test, 127.0.0.1"}, ["127.0.0.1"], False, ["127.0.0.1"]),
        ({"no_proxy": LOCAL}, ["wiki.test"], True, ["localhost"]),
        ({"no_proxy": "a.test"}, ["localhost"], True, []),
        ({}, ["localhost"], False, []),
    ],
)
def test_what_keeps_an_app_of_this_machine_from_the_proxy(
    environ: dict[str, str], hosts: list[str], aliases: bool, names: list[str]
) -> None:
    """A shell that was set up before the app was listed has them."""
    assert in_the_way(environ, hosts, [], aliases=aliases) == names
