"""The names of our cookies, and how they are read."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from iam_auth_proxy.names import parse_origin
from iam_auth_proxy.protocol import cookies


class TestCookieName:
    @pytest.mark.parametrize(
        ("origin", "name"),
        [
            ("http://app.test", "iam-auth"),
            ("https://app.test", "__Host-iam-auth"),
            ("http://app.test:8081", "iam-auth-8081"),
            ("https://app.test:8443", "__Host-iam-auth-8443"),
            ("http://app.test:443", "iam-auth-443"),
            ("https://app.test:80", "__Host-iam-auth-80"),
            ("http://[::1]:8081", "iam-auth-8081"),
        ],
    )
    def test_says_scheme_and_port(self, origin: str, name: str) -> None:
        assert cookies.cookie_name(parse_origin(origin), "iam-auth") == name

    def test_has_a_base_of_the_apps_choice(self) -> None:
        assert cookies.cookie_name(parse_origin("https://app.test"), "wiki") == "__Host-wiki"


class TestReadCookie:
    @pytest.mark.parametrize(
        ("fields", "value"),
        [
            ([], None),
            ([""], None),
            (["a=b; c=d"], None),
            (["iam-auth"], None),
            (["iam-auth=x"], "x"),
            (["a=b; iam-auth=x; c=d"], "x"),
            (["a=b", "iam-auth=x"], "x"),
            (["a=b;iam-auth=x"], "x"),
            ([" iam-auth = x "], "x"),
            (["iam-auth="], ""),
            (["iam-auth=x=y"], "x=y"),
            (['iam-auth="x"'], '"x"'),
            (["__Host-iam-auth=y; iam-auth=x"], "x"),
            (["iam-auth=x; iam-auth ; a=b"], "x"),
            (["Iam-Auth=y"], None),
            (["iam-auth-8081=y"], None),
            (["xiam-auth=y"], None),
            (["=iam-auth=y"], None),
            (["a=iam-auth=y"], None),
            (['a="; iam-auth=x"'], 'x"'),
            (["\u00a0iam-auth=y"], None),
            (["\x1ciam-auth=y"], None),
        ],
    )
    def test_finds_the_one_of_that_name(self, fields: list[str], value: str | None) -> None:
        assert cookies.read_cookie(fields, "iam-auth") == value

    @pytest.mark.parametrize(
        "fields",
        [
            ["iam-auth=x; iam-auth=y"],
            ["iam-auth=x; iam-auth=x"],
            ["iam-auth=x", "iam-auth=y"],
            ["iam-auth=; a=b; iam-auth=y"],
        ],
    )
    def test_two_of_one_name_are_none(self, fields: list[str]) -> None:
        assert cookies.read_cookie(fields, "iam-auth") is cookies.REPEATED

    def test_the_plain_name_is_not_read_for_the_host_one(self) -> None:
        assert cookies.read_cookie(["iam-auth=x"], "__Host-iam-auth") is None

    @given(
        st.lists(
            st.lists(
                st.sampled_from(("iuth=x", "iuth", "=", "; ", ";", "\t", "a=b", "\xe9", '"')),
                max_size=5,
            ).map("".join),
            max_size=3,
        )
    )
    def test_any_fields_have_one_none_or_several(self, fields: list[str]) -> None:
        found = cookies.read_cookie(fields, "iuth")
        with_one = cookies.read_cookie([*fields, "iuth=mine"], "iuth")
        assert with_one == ("mine" if found is None else cookies.REPEATED)
        if isinstance(found, str):
            assert ";" not in found
            assert cookies.read_cookie([f"iuth={found}"], "iuth") == found
