"""When the proxy shows a client certificate: where it speaks for the person."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

import pytest

from iam_auth_proxy.config import TrustRule, parse_trust
from iam_auth_proxy.config.values import ClientCertificate
from iam_auth_proxy.names import Origin, parse_origin
from iam_auth_proxy.proxy.decisions.trust import Trust
from iam_auth_proxy.proxy.signin.sessions import Sessions
from iam_auth_proxy.proxy.signin.signins import SignIns
from iam_auth_proxy.proxy.steering import Steering
from iam_auth_proxy.relay.exchange import Exchange
from iam_auth_proxy.relay.message import parse_request, route
from iam_auth_proxy.relay.tls import ClientIdentity
from tests.support import vectors

APP = "https://grafana.internal"
MINE = ClientCertificate("/me.pem", "/me.key")


def listed(*origins: str, client: ClientCertificate | None = MINE) -> Iterator[TrustRule]:
    for origin in origins:
        yield replace(parse_trust(origin), client=client)


def steering(trust: Trust) -> Steering:
    """With nothing but trust: whom it speaks for is all that is asked here."""
    held: dict[Origin, Any] = {}
    sessions = SimpleNamespace(
        held=SimpleNamespace(origins=held),
        kept=SimpleNamespace(origins=held),
        held_for=lambda exchange: None,
    )
    parts = SimpleNamespace(
        trust=trust, sessions=cast(Sessions, sessions), ticket_path=lambda origin: None
    )
    return Steering(cast(SignIns, parts), monotonic=lambda: 0.0)


def asked(method: str, target: str, headers: list[list[str]]) -> Exchange:
    """The exchange that a request to an https app is, as the relay shows it."""
    sent = {name.lower() for name, _ in headers}
    host = target.partition("://")[2]
    lines = [f"{method} http://{host}/ HTTP/1.1"]
    lines += [] if "host" in sent else [f"Host: {host}"]
    lines += ["Connection: Upgrade"] if "upgrade" in sent and "connection" not in sent else []
    lines += [f"{name}: {value}" for name, value in headers]
    request = parse_request("\r\n".join([*lines, "", ""]).encode("latin-1"))
    route(request)
    return Exchange(parse_origin(target), "127.0.0.1:1", request)


def requests() -> Iterator[object]:
    written = json.loads((vectors.FOLDER / "authority.json").read_text())
    for group in written["groups"]:
        for number, case in enumerate(group["cases"]):
            label = f"{group['verdict']}-{group['why'][:40]}-{number}"
            yield pytest.param({**case, "verdict": group["verdict"]}, id=label)
    for scheme in ("", "_https"):
        recorded = json.loads((vectors.FOLDER / f"authority_chromium{scheme}.json").read_text())
        for case in recorded["cases"]:
            yield pytest.param(case, id=f"{case['kind']}-by-{case['page']}{scheme}")


@pytest.mark.parametrize("case", [*requests()])
def test_only_a_request_that_the_proxy_may_speak_for(case: dict[str, Any]) -> None:
    steers = steering(Trust(listed(case["target"])))
    exchange = asked(case["method"], case["target"], case["headers"])
    assert steers.before(exchange) is None
    assert exchange.identified is (case["verdict"] == "replay" or opened(case))


def opened(case: dict[str, Any]) -> bool:
    """A page in a tab or window of its own, of which the browser says who opens it.

    That those of other sites take a click is in the verdict.
    """
    said = {name.lower(): value for name, value in case["headers"]}
    return case["verdict"] == "dance" and said.get("sec-fetch-dest") == "document"


def test_only_an_app_that_has_one() -> None:
    trust = Trust([*listed(APP), *listed("https://other.internal", client=None)])
    steers = steering(trust)
    assert dict(trust.clients) == {parse_origin(APP): ClientIdentity("/me.pem", "/me.key")}
    for target, identified in (
        (APP, True),
        ("https://other.internal", False),
        ("https://grafana.internal:8443", False),
        ("https://stranger.internal", False),
    ):
        exchange = asked("GET", target, [["User-Agent", "curl/8"]])
        assert steers.before(exchange) is None
        assert exchange.identified is identified


def test_no_wildcard_has_one() -> None:
    trust = Trust(listed("https://*.corp.example"))
    assert not trust.clients
