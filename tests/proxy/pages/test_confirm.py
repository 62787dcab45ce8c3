"""The page that asks the person: what it shows, and what it takes for an answer."""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import urlencode

import pytest

from iam_auth_proxy.names import Origin
from iam_auth_proxy.protocol.proof import ProofKind
from iam_auth_proxy.proxy.decisions.questions import PAGES, PATH, Choice, Question
from tests.proxy.conftest import Answer
from tests.proxy.pages.conftest import Own

KEY = "arn:aws:kms:eu-west-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab"
IDENTITY = "arn:aws:iam::111122223333:user/alice"


def ask(own: Own, **more: Any) -> Question:
    facts: dict[str, Any] = {
        "kind": "trust",
        "origin": Origin("http", "app.test", 80),
        "realm": "111122223333",
        "key": KEY,
        "old_key": "",
        "proof": ProofKind.SIGNED_IDENTITY,
        "profile": "dev",
        "identity": IDENTITY,
        "way_back": "http://app.test/page?x=1",
    }
    path = own.questions.ask(**{**facts, **more})
    assert path is not None
    question = own.questions.find(path.removeprefix(PATH))
    assert question is not None
    return question


async def post(
    own: Own, question: Question, choice: str = "once", origin: str | None = None, **more: str
) -> Answer:
    form = urlencode({"token": question.token, "choice": choice} | more)
    said = f"Origin: {f'http://{own.host}' if origin is None else origin}\r\n"
    fields = (said if origin != "" else "") + (
        f"Content-Type: application/x-www-form-urlencoded\r\nContent-Length: {len(form)}\r\n"
    )
    return await own.ask(question.path, method="POST", extra=fields, body=form)


async def test_it_shows_what_will_be_pinned(own: Own) -> None:
    answer = await own.ask(ask(own).path)
    assert answer.status == 200
    for text in ("http://app.test", "not encrypted", KEY, IDENTITY, "111122223333", "dev"):
        assert text in answer.text
    assert "<script" not in answer.text
    assert 'value="no" autofocus' in answer.text
    assert "page?x=1" not in answer.text


async def test_a_changed_key_side_by_side(own: Own) -> None:
    text = (await own.ask(ask(own, kind="key", old_key=KEY[:-1] + "c").path)).text
    assert KEY in text
    assert KEY[:-1] + "c" in text
    assert 'value="always"' in text
    assert 'value="once"' not in text


async def test_after_a_sign_out(own: Own) -> None:
    question = ask(own, kind="again", proof=ProofKind.SESSION_CREDENTIALS, identity="")
    text = (await own.ask(question.path)).text
    assert "You signed out" in text
    assert "session credentials" in text
    assert 'value="always"' not in text


@pytest.mark.parametrize(
    ("kind", "yes"), [("trust", {"once", "always"}), ("key", {"always"}), ("again", {"once"})]
)
async def test_every_yes_takes_a_click_that_is_meant(own: Own, kind: str, yes: set[str]) -> None:
    """The class is what keeps a button away for a second, and from a hasty click."""
    text = (await own.ask(ask(own, kind=kind, old_key=KEY[:-1] + "c").path)).text
    buttons = re.findall(r"<button\b([^>]*)>", text)
    named = {re.findall(r'value="(\w+)"', button)[0]: button for button in buttons}
    assert len(named) == len(buttons)
    assert set(named) == {"no", *yes}
    for value, button in named.items():
        assert ('class="meant"' in button) is (value != "no")


async def test_nobody_is_named_whom_aws_did_not_name(own: Own) -> None:
    assert (
        "your default AWS profile" in (await own.ask(ask(own, identity="", profile="").path)).text
    )


async def test_whom_aws_names_then(own: Own) -> None:
    own.identity = IDENTITY
    assert IDENTITY in (await own.ask(ask(own, identity="").path)).text
    assert own.asked == ["dev"]


async def test_a_stranger_makes_nobody_ask_aws(own: Own) -> None:
    ask(own, identity="")
    await own.ask(f"{PATH}{'A' * 22}")
    assert not own.asked


async def test_guards(own: Own) -> None:
    answer = await own.ask(ask(own).path)
    assert answer.one("Content-Security-Policy") == (
        "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'; base-uri 'none'; "
        "form-action 'self' http://app.test"
    )
    assert answer.one("Cross-Origin-Opener-Policy") == "same-origin"
    assert answer.one("Cross-Origin-Resource-Policy") == "same-origin"
    assert answer.one("Cache-Control") == "no-store"
    assert answer.one("X-Content-Type-Options") == "nosniff"
    assert answer.one("Referrer-Policy") == "same-origin"


@pytest.mark.parametrize("choice", ["once", "always"])
async def test_yes_leads_back(own: Own, choice: str) -> None:
    question = ask(own)
    answer = await post(own, question, choice)
    assert answer.status == 303
    assert answer.one("Location") == "http://app.test/page?x=1"
    assert own.answers == [(question, Choice(choice))]
    assert (await post(own, question, choice)).status == 410
    assert len(own.answers) == 1


async def test_no_leads_nowhere(own: Own) -> None:
    answer = await post(own, ask(own), "no")
    assert (answer.status, answer.all("Location")) == (200, [])
    assert "Nothing was sent" in answer.text
    assert not own.answers


@pytest.mark.parametrize(
    "origin",
    ["", "null", "http://evil.test", "http://app.test", "http://127.0.0.1", "https://{host}"],
)
async def test_only_its_own_form(own: Own, origin: str) -> None:
    answer = await post(own, ask(own), "always", origin.format(host=own.host))
    assert answer.status == 403
    assert not own.answers


@pytest.mark.parametrize("site", ["cross-site", "same-site", "none", "x"])
async def test_nor_what_the_browser_says_is_anothers(own: Own, site: str) -> None:
    question = ask(own)
    form = urlencode({"token": question.token, "choice": "once"})
    said = f"Origin: http://{own.host}\r\nSec-Fetch-Site: {site}\r\n"
    said += f"Content-Type: application/x-www-form-urlencoded\r\nContent-Length: {len(form)}\r\n"
    assert (await own.ask(question.path, method="POST", extra=said, body=form)).status == 403
    assert not own.answers


async def test_two_origins_are_none(own: Own) -> None:
    question = ask(own)
    said = f"Origin: http://{own.host}\r\n" * 2
    form = urlencode({"token": question.token, "choice": "once"})
    said += f"Content-Type: application/x-www-form-urlencoded\r\nContent-Length: {len(form)}\r\n"
    assert (await own.ask(question.path, method="POST", extra=said, body=form)).status == 403
    assert not own.answers


@pytest.mark.parametrize(("field", "value"), [("token", "x"), ("choice", "perhaps")])
async def test_a_form_with_something_else(own: Own, field: str, value: str) -> None:
    assert (await post(own, ask(own), **{field: value})).status == 410
    assert not own.answers


@pytest.mark.parametrize("kind", ["text/plain", "multipart/form-data; boundary=x", ""])
async def test_another_content_type(own: Own, kind: str) -> None:
    question = ask(own)
    fields = f"Origin: http://{own.host}\r\nContent-Length: 0\r\n"
    fields += f"Content-Type: {kind}\r\n" if kind else ""
    assert (await own.ask(question.path, method="POST", extra=fields)).status == 415


@pytest.mark.parametrize(
    ("charset", "body"),
    [
        ("; charset=nothing", b"token=x"),
        ("; charset=hex", b"token=x"),
        ("; charset=utf-16", b"x"),
        ("", b"token=\xff"),
        ("", b"&" * 1000),
    ],
)
async def test_a_form_that_cannot_be_read(own: Own, charset: str, body: bytes) -> None:
    question = ask(own)
    said = f"Origin: http://{own.host}\r\nContent-Length: {len(body)}\r\n"
    said += f"Content-Type: application/x-www-form-urlencoded{charset}\r\n"
    answer = await own.ask(question.path, method="POST", extra=said, body=body.decode("latin-1"))
    assert answer.status in (400, 410)
    assert not own.answers


@pytest.mark.parametrize("coding", ["gzip", "deflate", "br", "zstd", "identity"])
@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_a_coded_body_is_not_unpacked(
    own: Own, coding: str, method: str, caplog: pytest.LogCaptureFixture
) -> None:
    said = f"Origin: http://{own.host}\r\nContent-Length: 5\r\nContent-Encoding: {coding}\r\n"
    said += "Content-Type: application/x-www-form-urlencoded\r\n"
    answer = await own.ask(ask(own).path, method=method, extra=said, body="hello")
    assert answer.status == (415 if method == "POST" else 200)
    assert not caplog.records


async def test_a_long_form(own: Own) -> None:
    answer = await post(own, ask(own), more="x" * 2000)
    assert answer.status == 413
    assert not own.answers


async def test_a_get_changes_nothing(own: Own) -> None:
    question = ask(own)
    query = urlencode({"token": question.token, "choice": "always"})
    assert (await own.ask(f"{question.path}?{query}")).status == 200
    assert not own.answers


async def test_not_in_a_frame_nor_by_a_script(own: Own) -> None:
    question = ask(own)
    for dest in ("iframe", "empty", "object", "image"):
        answer = await own.ask(question.path, extra=f"Sec-Fetch-Dest: {dest}\r\n")
        assert answer.status == 403
        assert KEY not in answer.text


async def test_a_question_that_is_not_there(own: Own) -> None:
    answer = await own.ask(f"{PATH}{'A' * 22}")
    assert answer.status == 410
    assert "no longer open" in answer.text
    for id in ("%00", "..%2f..", "%c3%a9", "x" * 3000):
        assert (await own.ask(PATH + id)).status in (404, 410)


async def test_one_page_more_than_there_is_room_for(own: Own) -> None:
    """All are open before somebody; the first makes room, and says how to go on."""
    pages = []
    for number in range(PAGES + 1):
        pages.append(ask(own, way_back=f"http://app.test/{number}"))
        assert (await own.ask(pages[-1].path)).status == 200
    for answer in (await own.ask(pages[0].path), await post(own, pages[0])):
        assert answer.status == 410
        assert "Open the app&#39;s page again. You are asked anew" in answer.text
    assert not own.answers
    for page in pages[1:]:
        assert (await own.ask(page.path)).status == 200


async def test_under_no_other_name(own: Own) -> None:
    question = ask(own)
    assert (await own.ask(question.path, "evil.test")).status == 421


async def test_the_pac(own: Own) -> None:
    answer = await own.ask("/proxy.pac")
    assert answer.status == 200
    assert answer.one("Content-Type").startswith("application/x-ns-proxy-autoconfig")
    assert f'"PROXY {own.host}"' in answer.text
    assert "grafana.internal" in answer.text


@pytest.mark.parametrize("site", ["cross-site", "same-site", "same-origin"])
async def test_the_pac_is_not_for_pages(own: Own, site: str) -> None:
    answer = await own.ask("/proxy.pac", extra=f"Sec-Fetch-Site: {site}\r\n")
    assert answer.status == 403
    assert "grafana" not in answer.text
    assert (await own.ask("/proxy.pac", extra="Sec-Fetch-Site: none\r\n")).status == 200
