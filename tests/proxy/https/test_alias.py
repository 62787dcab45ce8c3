"""What header fields become between an app on https and its name under .localhost."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from iam_auth_proxy.names import parse_origin
from iam_auth_proxy.proxy.https.alias import Names, policy, set_cookie, to_app, to_browser
from tests.support import vectors

NAMES = Names(parse_origin("https://wiki.corp.example"), parse_origin("http://wiki.localhost:8080"))
SECRET = {b"__Host-iam-auth"}


@pytest.mark.parametrize("case", vectors.accepted("alias_fields"))
def test_fields(case: dict[str, Any]) -> None:
    fields = [(case["name"].encode(), case["value"].encode())]
    if case["to"] == "app":
        to_app(NAMES, fields, SECRET)
    else:
        fields = to_browser(NAMES, fields, SECRET)
    wanted = case["becomes"]
    assert fields == ([] if wanted is None else [(case["name"].encode(), wanted.encode())])


def test_the_order_and_the_other_fields_stay() -> None:
    before = [(b"A", b"1"), (b"set-cookie", b"x=1"), (b"HSTS", b""), (b"Set-Cookie", b"y=1")]
    assert to_browser(NAMES, [*before, (b"Alt-Svc", b"clear")], SECRET) == before


@pytest.mark.parametrize(
    ("app", "domain", "taken"),
    [
        ("https://wiki", b"wiki", True),
        ("https://wiki.internal", b"internal", False),
        ("https://10.0.0.1", b"10.0.0.1", True),
        ("https://10.0.0.1", b"0.0.1", False),
        ("https://10.0.0.1", b".10.0.0.1", True),
    ],
)
def test_domains_of_hosts_of_one_label_and_of_addresses(
    app: str, domain: bytes, taken: bool
) -> None:
    names = Names(parse_origin(app), NAMES.alias)
    found = set_cookie(names, b"a=1; Domain=" + domain, ())
    assert found == (b"a=1" if taken else None)


# What a browser's side must never see, and what the app's must never see, whatever is around it.
_PIECES = st.one_of(
    st.sampled_from([b" ", b"\xe9"]),
    st.sampled_from(
        rb"""https://wiki.corp.example //wiki.corp.example http://wiki.localhost:8080 :443 /a ? \ @
        ; url= ' " 0 Domain=corp.example a=1 __Host-iam-auth=1 , evil.test . * https: #""".split()
    ),
)
_VALUES = st.lists(_PIECES, max_size=8).map(b"".join)
_ANSWERS = st.sampled_from(
    [b"Location", b"Refresh", b"Set-Cookie", b"Content-Security-Policy", b"ETag", b"Alt-Svc"]
)
_REQUESTS = st.sampled_from([b"Origin", b"Referer", b"Cookie", b"Accept"])


@given(st.lists(st.tuples(_ANSWERS, _VALUES), max_size=4))
def test_no_answer_sets_the_sessions_cookie(fields: list[tuple[bytes, bytes]]) -> None:
    for name, value in to_browser(NAMES, fields, SECRET):
        assert b"\r" not in value
        if name == b"Set-Cookie":
            assert not re.match(rb"[ \t]*__Host-iam-auth[ \t]*=", value)
            assert not re.search(rb";[ \t]*domain[ \t]*=[^;]*[^; \t]", value, re.IGNORECASE)
        if name == b"Location" and value.startswith(b"http://wiki.localhost"):
            # What follows cannot make another host of it.
            assert value[len(b"http://wiki.localhost:8080") :][:1] in (b"", b"/", b"?", b"#") or (
                (name, value) in fields
            )


@given(st.lists(st.tuples(_REQUESTS, _VALUES), max_size=4))
def test_no_request_brings_the_sessions_cookie(fields: list[tuple[bytes, bytes]]) -> None:
    before = list(fields)
    to_app(NAMES, fields, SECRET)
    for name, value in fields:
        if name == b"Cookie":
            assert b"__Host-iam-auth" not in [
                pair.partition(b"=")[0].strip(b" \t") for pair in value.split(b";")
            ]
        if name == b"Origin" and (name, value) not in before:
            assert value == b"https://wiki.corp.example"
    assert [field for field in before if field[0] == b"Accept"] == [
        field for field in fields if field[0] == b"Accept"
    ]


@given(_VALUES)
def test_a_policy_is_never_narrower(value: bytes) -> None:
    before = [directive.split() for each in value.split(b",") for directive in each.split(b";")]
    after = [
        directive.split()
        for each in policy(NAMES, value).split(b",")
        for directive in each.split(b";")
    ]
    kept = [words for words in after if words]
    for words, found in zip([words for words in before if words], kept, strict=True):
        if words[0].lower() != b"report-uri":
            assert set(words) <= set(found)
