"""What is said where an app wants a client certificate, and the request is none to show it for."""

from __future__ import annotations

import pytest

from iam_auth_proxy.errors import PathError
from iam_auth_proxy.names import parse_origin
from iam_auth_proxy.proxy.decisions.unidentified import refused
from iam_auth_proxy.relay.exchange import Exchange
from iam_auth_proxy.relay.message import parse_request

APP = parse_origin("https://app.test")
LED = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}
ALERT = PathError("SSLV3_ALERT_CERTIFICATE_REQUIRED", error="tls_alert_received", public="No.")


def asked(method: str = "GET", **fields: str) -> Exchange:
    lines = [f"{method} /a?b HTTP/1.1", "Host: app.test"]
    lines += [f"{name}: {value}" for name, value in fields.items()]
    request = parse_request("\r\n".join([*lines, "", ""]).encode())
    return Exchange(APP, "127.0.0.1:1", request)


@pytest.mark.parametrize("error", ["tls_alert_received", "connection_terminated"])
def test_another_page_led_here(error: str) -> None:
    said, link = refused(asked(**LED), PathError("detail", error=error))
    assert (said.error, said.http_status, str(said)) == (error, 502, "detail")
    assert "your client certificate was not shown" in said.public
    assert "Open it only if you meant to" in said.remedy
    assert link == "https://app.test/a?b"


@pytest.mark.parametrize(
    ("method", "fields"),
    [
        ("GET", {"Upgrade-Insecure-Requests": "1"}),
        ("GET", {**LED, "Sec-Fetch-Dest": "iframe"}),
        ("POST", LED),
        ("GET", {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors"}),
    ],
)
def test_where_no_click_helps(method: str, fields: dict[str, str]) -> None:
    said, link = refused(asked(method, **fields), ALERT)
    assert link == ""
    assert 'https = "alias"' in said.remedy


@pytest.mark.parametrize("error", ["tls_certificate_error", "connection_refused", "dns_error"])
def test_other_failures_are_told_as_they_are(error: str) -> None:
    failed = PathError("detail", error=error)
    assert refused(asked(**LED), failed) == (failed, "")
