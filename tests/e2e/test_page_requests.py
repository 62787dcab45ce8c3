"""The recorded vectors of ``authority()`` are what the installed Chromium sends today."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from iam_auth_proxy.names import parse_origin
from iam_auth_proxy.proxy.decisions.decide import authority
from iam_auth_proxy.relay.exchange import RequestHead
from tests.support import page_requests
from tests.support.page_requests import Recorded

pytestmark = pytest.mark.e2e


def test_every_request_of_a_page_gets_the_verdict_it_is_due(tmp_path: Path) -> None:
    found = page_requests.record(tmp_path)
    cases = json.loads(page_requests.FILE.read_text())["cases"]
    assert [(each.name, each.page) for each in found] == [
        (case["kind"], case["page"]) for case in cases
    ]
    hold(found)


def test_the_same_on_https(tmp_path: Path) -> None:
    """One kind of each sort: the browser has no more than these to tell us by."""
    sorts = "link open iframe form-post fetch fetch-no-cors fetch-noreferrer websocket img prefetch"
    kinds = [kind for kind in page_requests.KINDS if kind.name in sorts.split()]
    found = page_requests.record_secure(tmp_path, kinds)
    recorded = json.loads(page_requests.SECURE_FILE.read_text())["cases"]
    cases = {(case["kind"], case["page"]): case["verdict"] for case in recorded}
    assert len(found) == 1 + 2 * len(kinds) - 1, "who does not fetch from elsewhere is one short"
    for each in found:
        assert cases[each.name, each.page] == each.verdict
    hold(found)


def hold(found: list[Recorded]) -> None:
    """Each to its verdict."""
    wrong = []
    for each in found:
        fields = [(name.encode(), value.encode()) for name, value in each.seen.headers]
        request = RequestHead(each.seen.method.encode(), b"/", fields)
        verdict = authority(request, parse_origin(each.seen.target)).value
        if verdict != each.verdict:
            wrong.append((each.name, each.page, verdict, each.verdict, each.seen.headers))
    assert not wrong
