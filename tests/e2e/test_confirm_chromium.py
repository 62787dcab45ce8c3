"""The page that asks the person, in a real browser: its colours, and when it takes a yes."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Literal

import pytest
from playwright.sync_api import Page, expect

from tests.e2e.conftest import APP, USER_ARN, Stack
from tests.support.browser import launched, through
from tests.support.processes import Proxy

pytestmark = pytest.mark.e2e


@pytest.fixture
def page(stack: Stack) -> Iterator[Page]:
    """A browser's page, behind a proxy that trusts nobody yet and knows where the app is."""
    proxy = Proxy(f"--connect-to=app.test:80:127.0.0.1:{stack.app_port}", env=stack.env())
    try:
        with launched(through(proxy.address)) as browser:
            yield browser.new_page()
    finally:
        assert proxy.stop() == 0, proxy.output


# -- light and dark --------------------------------------------------------------------------------

# What each element with text of its own is called, and its two colours.
COLOURS = """() => {
    const background = element => {
        const own = getComputedStyle(element).backgroundColor;
        return own === 'rgba(0, 0, 0, 0)' ? background(element.parentElement) : own;
    };
    return [...document.body.querySelectorAll('*')]
        .filter(each => [...each.childNodes].some(node => node.nodeType === 3 && node.data.trim()))
        .map(each => [
            each.closest('footer') ? 'footer ' + each.localName : each.localName,
            getComputedStyle(each).color,
            background(each),
        ]);
}"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_is_read_in_every_light(page: Page, scheme: Literal["light", "dark"]) -> None:
    """In both schemes, and no text of it is fainter than WCAG 2.2 has it (1.4.3, AA)."""
    page.emulate_media(color_scheme=scheme)
    page.goto(f"{APP}/")
    page.wait_for_url("**/confirm/*")
    shown = page.evaluate(COLOURS)
    page.goto(re.sub("/confirm/.*", "/", page.url))
    shown += page.evaluate(COLOURS)
    kinds = {kind for kind, _, _ in shown}
    assert {"h1", "p", "dt", "dd", "code", "small", "span", "button", "pre"} <= kinds
    assert {"footer footer", "footer code", "footer a"} <= kinds

    for each in shown:
        assert contrast(*each[1:]) >= 4.5, each
    grounds = [luminance(background) for _, _, background in shown]
    assert (max(grounds) < 0.1) if scheme == "dark" else (min(grounds) > 0.8)


def contrast(one: str, other: str) -> float:
    """How far apart two colours are, from 1 to 21 (WCAG 2.2, "contrast ratio")."""
    dark, light = sorted((luminance(one), luminance(other)))
    return (light + 0.05) / (dark + 0.05)


def luminance(colour: str) -> float:
    """Of an opaque colour as browsers compute it, from 0 to 1 (WCAG 2.2, "relative luminance")."""
    found = re.fullmatch(r"rgb\((\d+), (\d+), (\d+)\)", colour)
    assert found is not None, colour
    parts = [int(part) / 255 for part in found.groups()]
    red, green, blue = (
        part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts
    )
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def test_of_contrast() -> None:
    """Against the numbers that WCAG itself and others give."""
    assert contrast("rgb(0, 0, 0)", "rgb(255, 255, 255)") == pytest.approx(21)
    assert contrast("rgb(119, 119, 119)", "rgb(255, 255, 255)") == pytest.approx(4.48, abs=0.005)
    assert contrast("rgb(9, 9, 9)", "rgb(9, 9, 9)") == 1


# -- a yes that is meant ---------------------------------------------------------------------------

# Time stands still on the page from its beginning, and goes where the test puts it.
STANDS_STILL = """
    const sheet = new CSSStyleSheet();
    sheet.replaceSync('* { animation-play-state: paused !important }');
    document.adoptedStyleSheets = [sheet];
"""
GOES_TO = "time => document.getAnimations().forEach(each => each.currentTime = time)"
ABLE = """() => [...document.querySelectorAll('button')].map(button => {
    button.focus();
    const style = getComputedStyle(button);
    const focused = document.activeElement === button;
    return [button.value, style.visibility, style.pointerEvents, focused];
})"""
FOCUSED = "() => document.activeElement.value || document.activeElement.localName"


def test_a_yes_by_keyboard_takes_a_second(page: Page) -> None:
    """No pointer has been on the page: there is nothing to press before, and nothing to click."""
    page.add_init_script(STANDS_STILL)
    page.goto(f"{APP}/")
    page.wait_for_url("**/confirm/*")
    assert not page.evaluate("document.documentElement.matches(':hover')")
    no = ["no", "visible", "auto", True]
    for time in (0, 999):
        page.evaluate(GOES_TO, time)
        assert page.evaluate(ABLE) == [
            no,
            ["once", "hidden", "none", False],
            ["always", "hidden", "none", False],
        ], time
        assert tabbed(page, 3).isdisjoint({"once", "always"})

    page.evaluate(GOES_TO, 1000)
    assert page.evaluate(ABLE) == [
        no,
        ["once", "visible", "none", True],
        ["always", "visible", "none", True],
    ]
    assert tabbed(page, 2) == {"once", "always"}
    expect(page.get_by_role("button", name="Yes, always")).to_be_focused()
    page.keyboard.press("Enter")
    page.wait_for_url(f"{APP}/")
    assert USER_ARN in page.inner_text("body")


def tabbed(page: Page, times: int) -> set[str]:
    """What the tabulator leads to from No, where the page begins."""
    page.get_by_role("button", name="No").focus()
    found = set()
    for _ in range(times):
        page.keyboard.press("Tab")
        found.add(page.evaluate(FOCUSED))
    return found
