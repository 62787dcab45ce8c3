"""What only the WSGI adapter does: environ, REMOTE_USER, Flask's and Django's own ways."""

from __future__ import annotations

import io
import wsgiref.util
from collections.abc import Iterable
from typing import Any

import pytest
from flask import Flask

from iam_auth_proxy.errors import ConfigError
from iam_auth_proxy.server import Gate
from iam_auth_proxy.server.wsgi import IamAuth
from iam_auth_proxy.testing import signed_in
from tests.server.apps import django_app, flask_app, serve_wsgi
from tests.server.conftest import ANN, GateMaker
from tests.server.originalproxy import Browser


class Inner:
    """A WSGI app that remembers its environ."""

    def __init__(self) -> None:
        self.environ: dict[str, Any] = {}

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        self.environ = dict(environ)
        start_response("204 No Content", [])
        return []


def call(app: Any, path: str = "/", **environ: Any) -> tuple[str, dict[str, str], bytes]:
    got: list[Any] = []
    full: dict[str, Any] = {"PATH_INFO": path, "HTTP_HOST": "app.test", "REMOTE_ADDR": "192.0.2.1"}
    full |= environ
    wsgiref.util.setup_testing_defaults(full)
    full["wsgi.input"] = io.BytesIO()
    body = b"".join(app(full, lambda status, headers, exc_info=None: got.extend((status, headers))))
    return got[0], dict(got[1]), body


def test_identity_in_the_environ_is_the_gates_alone(make_gate: GateMaker) -> None:
    inner = Inner()
    gate = make_gate(public=["/healthz"])
    app = IamAuth(inner, gate=gate)
    said = {
        "REMOTE_USER": "evil", "AUTH_TYPE": "evil", "HTTP_REMOTE_USER": "evil",
        "HTTP_X_FORWARDED_USER": "evil", "iam_auth.identity": "evil", "iam_auth.session": "evil",
    }  # fmt: skip
    assert call(app, "/healthz", **said)[0] == "204 No Content"
    assert "evil" not in inner.environ.values()
    assert "REMOTE_USER" not in inner.environ
    call(app, "/", HTTP_COOKIE=str(signed_in(gate, ANN)), **said)
    assert "evil" not in inner.environ.values()
    assert (inner.environ["REMOTE_USER"], inner.environ["AUTH_TYPE"]) == (ANN, "IAM")
    assert inner.environ["iam_auth.identity"].arn == ANN
    assert inner.environ["iam_auth.session"].arn == ANN


def test_status_lines_and_lengths(gate: Gate) -> None:
    app = IamAuth(Inner(), gate=gate)
    for environ, status in (
        ({}, "401 Unauthorized"),
        ({"HTTP_HOST": "evil.test"}, "421 Misdirected Request"),
        ({"PATH_INFO": "/auth", "QUERY_STRING": "x"}, "400 Bad Request"),
    ):
        got, headers, body = call(app, **environ)
        assert got == status
        assert headers["Content-Length"] == str(len(body))


def test_the_path_below_a_mount_point_is_the_whole_path(make_gate: GateMaker) -> None:
    """An app mounted below /tool has its own /healthz; the public one is the site's."""
    app = IamAuth(Inner(), gate=make_gate(public=["/healthz"]))
    assert call(app, "/healthz", SCRIPT_NAME="/tool")[0] == "401 Unauthorized"
    assert call(app, "/healthz")[0] == "204 No Content"


def test_paths_that_are_not_utf_8_are_answered(gate: Gate) -> None:
    assert call(IamAuth(Inner(), gate=gate), "/\xff\xfe")[0] == "401 Unauthorized"


@pytest.mark.parametrize("rule", ["/auth", "/auth/", "/auth/whoami"])
def test_a_flask_app_with_a_path_of_the_gates_is_refused_at_mount(gate: Gate, rule: str) -> None:
    app = Flask("early")
    app.add_url_rule(rule, "mine", lambda: "mine")
    with pytest.raises(ConfigError, match='path="/iam-auth"'):
        IamAuth(app.wsgi_app, gate=gate)


def test_and_at_the_first_request_where_the_route_came_later(gate: Gate) -> None:
    app = flask_app(gate)
    app.add_url_rule("/auth", "mine", lambda: "mine")
    status, headers, _ = call(app, "/")
    assert (status, headers["Iam-Auth-Error"]) == ("503 Service Unavailable", "misconfigured")


def test_djangos_own_remote_user_backend_makes_a_user_of_it(gate: Gate) -> None:
    with serve_wsgi(django_app(gate)) as port:
        browser = Browser(port)
        cookie = signed_in(gate, ANN)
        browser.cookies[cookie.name] = cookie.value
        assert browser.get("/username").text == ANN
