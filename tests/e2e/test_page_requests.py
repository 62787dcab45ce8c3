"""The recorded vectors of ``authority()`` are what the installed Chromium sends today."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from iam_auth_proxy.names import parse_origin
from iam_auth_proxy.proxy.decide import authority
from iam_auth_proxy.relay.exchange import RequestHead
from tests.support import page_requests

pytestmark = pytest.mark.e2e


def test_every_request_of_a_page_gets_the_verdict_it_is_due(tmp_path: Path) -> None:
    found = page_requests.record(tmp_path)
    cases = json.loads(page_requests.FILE.read_text())["cases"]
    assert [(each.name, each.page) for each in found] == [
        (case["kind"], case["page"]) for case in cases
    ]
    wrong = []
    for each in found:
        fields = [(name.encode(), value.encode()) for name, value in each.seen.headers]
        request = RequestHead(each.seen.method.encode(), b"/", fields)
        verdict = authority(request, parse_origin(each.seen.target)).value
        if verdict != each.verdict:
            wrong.append((each.name, each.page, verdict, each.verdict, each.seen.headers))
    assert not wrong
