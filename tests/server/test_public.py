"""Public paths: exact ones and trees, and no way around."""

from __future__ import annotations

import posixpath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from iam_auth_proxy.errors import Malformed
from iam_auth_proxy.server.facts import RequestFacts
from iam_auth_proxy.server.public import parse_public

PUBLIC = parse_public(["/healthz", "/static/*", "/"])


@pytest.mark.parametrize(
    "path", ["/healthz", "/", "/static/", "/static/a.css", "/static/a/b-1_~.js"]
)
def test_public(path: str) -> None:
    assert path in PUBLIC


@pytest.mark.parametrize(
    "path",
    ["/static", "/healthz/", "/Healthz", "/healthz;x", "/healthz/..", "/static/..", "/static/../a",
     "/static/./a", "/static//a", "//static/a", "/static/a;/../b", "/static/%2e%2e/a",
     "/static/a b",
     "/static/\\..\\a", "/static/a\n", "/static/é", "/static/a?b", "/staticx", "", "*", "healthz",
     "/static/..;/admin", "/static/a/..", "/static/\0"],
)  # fmt: skip
def test_not_public(path: str) -> None:
    assert path not in PUBLIC


@given(st.text(alphabet="/.a%2e5c\\;*?\n", max_size=24).map(lambda tail: "/static/" + tail))
def test_below_a_tree_no_reading_leads_out_of_it(path: str) -> None:
    if path in PUBLIC:
        assert (posixpath.normpath(path) + "/").startswith("/static/")
        assert path.replace("\\", "/") == path


def test_nothing_is_public_without_rules() -> None:
    assert "/" not in parse_public([])


@pytest.mark.parametrize(
    "rule", ["", "*", "healthz", "/a*", "/*/a", "/a/../b", "//", "/a b/*", "/é"]
)
def test_refused(rule: str) -> None:
    with pytest.raises(Malformed):
        parse_public([rule])


def test_a_whole_site_may_be_public() -> None:
    assert "/anything" in parse_public(["/*"])


@pytest.mark.parametrize(
    ("path", "routed", "target", "public"),
    [
        ("/healthz", None, "/healthz?x=%2F", True),
        ("/healthz", None, "/%68ealthz", False),  # a router may read it otherwise
        ("/healthz", "/", "/healthz", True),
        ("/healthz", "/admin", "/healthz", False),  # of an app below a mount point
        ("/tool/healthz", "/healthz", "/tool/healthz", False),
        ("/admin", None, "/admin", False),
    ],
)
def test_every_reading_has_to_be_public(
    path: str, routed: str | None, target: str, public: bool
) -> None:
    facts = RequestFacts("GET", "http", path, "", (), target=target, routed=routed)
    assert PUBLIC.covers(facts) is public
