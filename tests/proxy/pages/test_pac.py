"""The PAC's text; a browser evaluates it in tests/e2e/test_sign_in_chromium.py."""

from __future__ import annotations

import json
import re
from typing import Any

from iam_auth_proxy.config.values import parse_trust
from iam_auth_proxy.proxy.decisions.trust import Trust
from iam_auth_proxy.proxy.pages import pac


def variables(script: str) -> dict[str, Any]:
    return {
        name: json.loads(text) for name, text in re.findall(r"^var (\w+) = (.*);$", script, re.M)
    }


def test_hosts_of_the_rules() -> None:
    rules = ["http://grafana.internal", "https://grafana.internal:8443", "http://*.corp.test"]
    trust = Trust([parse_trust(rule) for rule in [*rules, "http://[fd00::1]:81"]])
    script = pac.script(trust.routes(), "127.0.0.1:8080")
    assert variables(script) == {
        "exact": {"fd00::1": 1, "grafana.internal": 1},
        "below": [".corp.test"],
    }
    assert script.count('"PROXY 127.0.0.1:8080"') == 2


def test_never_direct_after_us() -> None:
    script = pac.script(Trust([parse_trust("http://a.test")]).routes(), "127.0.0.1:8080")
    assert not re.search('PROXY[^"]*DIRECT', script)
    assert script.count("DIRECT") == 1


def test_nothing_trusted() -> None:
    assert variables(pac.script((), "127.0.0.1:1")) == {"exact": {}, "below": []}
