"""The /auth requests. The cases are data: tests/vectors/handoffs.json and forms.json."""

from __future__ import annotations

import base64
import re
from dataclasses import replace
from urllib.parse import parse_qs, parse_qsl, urlencode

import pytest
from hypothesis import given
from hypothesis import strategies as st
from werkzeug.test import EnvironBuilder
from werkzeug.wrappers import Request

from iam_auth_proxy.errors import Malformed
from iam_auth_proxy.protocol import envelope, handoff
from iam_auth_proxy.protocol.envelope import Envelope
from iam_auth_proxy.protocol.handoff import BoundHandoff, Handoff
from iam_auth_proxy.protocol.proof import MAX_PROOF, ProofKind
from tests.support import vectors

TOKEN = b"\xfb\xff\xfe" * 50
LEGACY = Handoff(TOKEN, "/private?x=1&q=a+b%20c")


@pytest.mark.parametrize("case", vectors.accepted("handoffs"))
def test_is_read(case: dict[str, str]) -> None:
    expected = Handoff(base64.b64decode(case["token"]), case["return_url"])
    assert handoff.parse(case["query"]) == expected


@pytest.mark.parametrize(("query", "error"), vectors.refused("handoffs"))
def test_is_refused(query: str, error: str) -> None:
    with pytest.raises(Malformed, match=re.escape(error)):
        handoff.parse(query)


def test_the_originals_flask_server_reads_it_to_the_byte() -> None:
    target = handoff.write("/auth", LEGACY)
    environ = EnvironBuilder.from_environ(
        {
            **EnvironBuilder("/auth").get_environ(),
            "QUERY_STRING": target.partition("?")[2],
        }
    ).get_environ()
    arguments = Request(environ).args
    assert base64.b64decode(arguments["token"], validate=True) == TOKEN
    assert arguments["return_url"] == LEGACY.return_url


def test_what_the_go_original_writes_is_read() -> None:
    """url.Values.Encode: sorted by name, and escaped as urllib's quote_plus does."""
    values = [
        ("return_url", LEGACY.return_url),
        ("token", base64.b64encode(TOKEN).decode()),
    ]
    assert handoff.parse(urlencode(values)) == LEGACY


def test_what_is_written_needs_no_further_escaping() -> None:
    target = handoff.write("/auth", LEGACY)
    assert re.fullmatch(r"/auth\?token=[A-Za-z0-9%]+&return_url=[A-Za-z0-9%._~-]+", target)
    assert parse_qs(target.partition("?")[2], strict_parsing=True)["return_url"] == [
        LEGACY.return_url
    ]


def test_the_auth_path_is_the_apps_own() -> None:
    below = Handoff(b"x", "/iam/logout")
    assert handoff.parse(handoff.write("/auth", below).partition("?")[2]) == below
    with pytest.raises(Malformed, match="the sign-in itself"):
        handoff.write("/iam", below)
    with pytest.raises(Malformed, match="the sign-in itself"):
        handoff.parse("token=eA%3D%3D&return_url=/iam/logout", auth_path="/iam")


def test_the_longest_query_is_read() -> None:
    """Every character of both values at their limits escaped: nobody needs to, everybody may."""

    def escape(text: str) -> str:
        return "".join(f"%{ord(char):02X}" for char in text)

    longest = Handoff(bytes(6144), "/" + "a" * 2047)
    token = escape(base64.b64encode(longest.token).decode())
    query = f"token={token}&return_url={escape(longest.return_url)}"
    assert handoff.parse(query) == longest
    with pytest.raises(Malformed, match="the query is too long"):
        handoff.parse(query + "&")


@pytest.mark.parametrize(
    ("wrong", "error"),
    [
        (Handoff(b"", "/"), "the token is empty or too long"),
        (Handoff(bytes(6145), "/"), "the token is empty or too long"),
        (Handoff(b"x", "//evil.example"), "begins with two slashes"),
        (Handoff(b"x", "/auth"), "the sign-in itself"),
    ],
)
def test_what_would_be_refused_is_not_written(wrong: Handoff, error: str) -> None:
    with pytest.raises(Malformed, match=error):
        handoff.write("/auth", wrong)


def test_the_token_is_not_in_the_repr() -> None:
    assert repr(Handoff(b"sealed", "/")) == "Handoff(return_url='/')"


URLS = st.from_regex(re.compile(r"/[a-z0-9._~!$&'()*+,;=:@%/?-]{0,30}", re.ASCII), fullmatch=True)


@given(st.binary(min_size=1, max_size=300), URLS)
def test_what_is_written_is_read(token: bytes, return_url: str) -> None:
    try:
        target = handoff.write("/auth", Handoff(token, return_url))
    except Malformed:
        return
    path, _, query = target.partition("?")
    assert path == "/auth"
    assert handoff.parse(query) == Handoff(token, return_url)
    # and by a lax form decoder, as the original's server has one
    assert dict(parse_qsl(query)) == {
        "token": base64.b64encode(token).decode(),
        "return_url": return_url,
    }


PIECES = st.sampled_from(
    ["token", "return_url", "=", "&", "%", "%2f", "/", "+", "A", "==", "%00", "é", "\ud800", "x"]
)


@given(st.text(max_size=40) | st.lists(PIECES, max_size=12).map("".join))
def test_nothing_but_our_error(query: str) -> None:
    for candidate in (query, f"token=QUJD&return_url={query}", f"return_url=/&token={query}"):
        try:
            found = handoff.parse(candidate)
        except Malformed:
            continue
        assert handoff.parse(handoff.write("/auth", found).partition("?")[2]) == found


# -- the bound form --------------------------------------------------------------------------------

ENVELOPE = Envelope(b"\xfb\xff\xfe" * 50, bytes(12), b"\xfb\xff\xfe" * 30)
BOUND = BoundHandoff(ENVELOPE, LEGACY.return_url, "AZaz09._-" * 3, ProofKind.SIGNED_IDENTITY)


class TestForm:
    @pytest.mark.parametrize("case", vectors.accepted("forms"))
    def test_is_read(self, case: dict[str, str]) -> None:
        assert handoff.parse_form(case["form"].encode("latin-1")) == BoundHandoff(
            envelope.loads(case["token"]),
            case["return_url"],
            case["nonce"],
            ProofKind(case["proof"]),
        )

    @pytest.mark.parametrize(("form", "error"), vectors.refused("forms"))
    def test_is_refused(self, form: str, error: str) -> None:
        with pytest.raises(Malformed, match=re.escape(error)):
            handoff.parse_form(form.encode("latin-1"))

    def test_any_form_decoder_reads_it_alike(self) -> None:
        body = handoff.write_form(BOUND)
        builder = EnvironBuilder("/auth", method="POST", data=body, content_type=handoff.FORM_TYPE)
        expected = {
            "token": ENVELOPE.dumps(),
            "return_url": BOUND.return_url,
            "nonce": BOUND.nonce,
            "proof": "signed-identity",
        }
        assert Request(builder.get_environ()).form.to_dict() == expected
        assert parse_qsl(body.decode(), strict_parsing=True) == list(expected.items())

    def test_the_longest_that_is_written_is_read(self) -> None:
        """The return_url at its limit, of characters that are all escaped."""
        longest = BoundHandoff(
            Envelope(bytes(envelope.MAX_WRAPPED_KEY), bytes(12), bytes(MAX_PROOF + 16)),
            "/" + "!" * (handoff.MAX_RETURN_URL - 1),
            "n" * 512,
            ProofKind.SESSION_CREDENTIALS,
        )
        body = handoff.write_form(longest)
        assert len(body) <= handoff.MAX_FORM
        assert handoff.parse_form(body) == longest

    def test_the_auth_path_is_the_apps_own(self) -> None:
        below = replace(BOUND, return_url="/auth/x")
        body = handoff.write_form(below, auth_path="/iam")
        assert handoff.parse_form(body, auth_path="/iam") == below
        with pytest.raises(Malformed, match="the sign-in itself"):
            handoff.parse_form(body)
        with pytest.raises(Malformed, match="the sign-in itself"):
            handoff.write_form(replace(BOUND, return_url="/iam"), auth_path="/iam")

    @pytest.mark.parametrize(
        ("change", "error"),
        [
            ({"return_url": "//evil.example"}, "begins with two slashes"),
            ({"nonce": "short"}, "the nonce is not"),
        ],
    )
    def test_what_would_be_refused_is_not_written(self, change: dict[str, str], error: str) -> None:
        with pytest.raises(Malformed, match=error):
            handoff.write_form(replace(BOUND, **change))

    def test_the_token_is_not_in_the_repr(self) -> None:
        assert "token" not in repr(BOUND)

    @given(
        st.binary(min_size=1, max_size=200),
        st.binary(min_size=17, max_size=200),
        URLS,
        st.from_regex(r"[A-Za-z0-9._-]{22,60}", fullmatch=True),
        st.sampled_from(ProofKind),
    )
    def test_what_is_written_is_read(
        self, wrapped: bytes, sealed: bytes, return_url: str, nonce: str, proof: ProofKind
    ) -> None:
        made = BoundHandoff(Envelope(wrapped, bytes(12), sealed), return_url, nonce, proof)
        try:
            body = handoff.write_form(made)
        except Malformed:
            return
        assert handoff.parse_form(body) == made

    @given(
        st.binary(max_size=40)
        | st.lists(
            st.sampled_from(
                ["token", "nonce", "proof", "return_url", "=", "&", "%2f", "+", "e1.QUJD.QUJD"]
            ),
            max_size=16,
        ).map(lambda parts: "".join(parts).encode())
    )
    def test_nothing_but_our_error(self, body: bytes) -> None:
        for candidate in (body, handoff.write_form(BOUND) + body, b"token=" + body):
            try:
                found = handoff.parse_form(candidate)
            except Malformed:
                continue
            assert handoff.parse_form(handoff.write_form(found)) == found


@pytest.mark.parametrize("path", ["/auth", "/x", "/iam/auth", "/A-Z_0", "/" + "a" * 64, "/a" * 8])
def test_a_path_of_the_sign_in(path: str) -> None:
    assert handoff.check_auth_path(path) == path


@pytest.mark.parametrize("path", ["", "/", "auth", "//a", "/a/", "/a\n", "/%61", "/\u0661", "/a.b"])
def test_no_path_of_a_sign_in(path: str) -> None:
    """Of a challenge more of them are in tests/vectors/bound_challenges.json."""
    with pytest.raises(Malformed, match="must be a path such as /auth"):
        handoff.check_auth_path(path)
