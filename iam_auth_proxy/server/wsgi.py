"""The gate before a WSGI app: Flask, Django and everything else that speaks PEP 3333.

::

    app.wsgi_app = IamAuth(app.wsgi_app, gate=Gate.from_env(public=["/healthz"]))

The app finds the ARN in ``REMOTE_USER`` (Flask: ``request.remote_user``), the whole
:class:`~iam_auth_proxy.protocol.identity.Identity` in ``environ["iam_auth.identity"]`` and the
session in ``environ["iam_auth.session"]``. None of them is there on a public path without a
session, whatever the client sent.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable
from dataclasses import replace
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

from iam_auth_proxy.errors import AwsUnavailable
from iam_auth_proxy.protocol.handoff import MAX_FORM
from iam_auth_proxy.server import mount
from iam_auth_proxy.server.caching import with_cookies
from iam_auth_proxy.server.facts import Allow, Answer, Reply, RequestFacts
from iam_auth_proxy.server.gate import Gate

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

IDENTITY_KEY: Final = "iam_auth.identity"
SESSION_KEY: Final = "iam_auth.session"


class IamAuth:
    """A WSGI app that lets through what the gate allows.

    :raises ConfigError: a Flask app has one of the gate's paths already.
    """

    def __init__(self, app: WSGIApplication, gate: Gate) -> None:
        self._app = app
        self._gate = gate
        self._conflict = mount.conflict(gate, _routes(app))
        if self._conflict is not None:
            raise self._conflict
        self._looked_again = False
        self._turns = threading.BoundedSemaphore(mount.WSGI_THREADS)

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        facts = _facts(environ)
        if not self._looked_again:
            # Flask's routes are usually written below the line that mounts the gate.
            self._conflict, self._looked_again = (
                mount.conflict(self._gate, _routes(self._app)),
                True,
            )
        if self._conflict is not None:
            return _send(self._gate.misconfigured(facts, self._conflict), start_response)
        if self._gate.takes_body(facts):
            facts = replace(facts, body=_read_body(environ))
        answer = self._check(facts)
        if isinstance(answer, Reply):
            return _send(answer, start_response)
        _strip(environ, answer)
        if answer.identity is not None:
            environ["REMOTE_USER"] = answer.identity.arn
            environ["AUTH_TYPE"] = "IAM"
            environ[IDENTITY_KEY] = answer.identity
            environ[SESSION_KEY] = answer.session
        return self._app(environ, _with_cookies(start_response, answer.set_cookies))

    def _check(self, facts: RequestFacts) -> Answer:
        answer = self._gate.check_offline(facts, time.time())
        if answer is not None:
            return answer
        # AWS being slow must not stop the app for those who are signed in: anybody can send tokens.
        if not self._turns.acquire(timeout=mount.WSGI_PATIENCE):
            return self._gate.unavailable(facts, AwsUnavailable("too many sign-ins wait for AWS"))
        try:
            return self._gate.check_online(facts, time.time())
        finally:
            self._turns.release()


def _facts(environ: WSGIEnvironment) -> RequestFacts:
    mount_point, below = environ.get("SCRIPT_NAME", ""), environ.get("PATH_INFO", "")
    path = _text(mount_point + below) or "/"
    query = environ.get("QUERY_STRING", "")
    headers = [
        (key[5:].lower().replace("_", "-"), value)
        for key, value in environ.items()
        if key.startswith("HTTP_")
    ]
    if environ.get("CONTENT_TYPE"):
        headers.append(("content-type", environ["CONTENT_TYPE"]))
    return RequestFacts(
        method=environ["REQUEST_METHOD"],
        scheme=environ["wsgi.url_scheme"],
        path=path,
        query=query,
        headers=tuple(headers),
        client=environ.get("REMOTE_ADDR", ""),
        target=quote(path, safe="/!$&'()*+,;=:@") + (f"?{query}" if query else ""),
        routed=_text(below) if mount_point else None,
    )


def _read_body(environ: WSGIEnvironment) -> bytes:
    """The form of a sign-in; of a longer body as much as tells that it is too long.

    Without a length it is read where the server says that reading ends by itself (chunked bodies:
    ``wsgi.input_terminated``). What did not come to its end is as good as nothing. How long a
    client may take is up to the server, as for every body.
    """
    length = environ.get("CONTENT_LENGTH", "")
    if not length and environ.get("wsgi.input_terminated"):
        wanted = MAX_FORM + 1
    elif len(length) <= 9 and length.isascii() and length.isdigit():
        wanted = min(int(length), MAX_FORM + 1)
    else:
        return b""
    pieces, missing = list[bytes](), wanted
    try:
        while missing and (piece := environ["wsgi.input"].read(missing)):
            pieces.append(piece)
            missing -= len(piece)
    except (OSError, ValueError):  # the client left; ValueError where the chunks are broken
        return b""
    return b"" if missing and length else b"".join(pieces)


def _text(value: str) -> str:
    """PEP 3333 hands bytes over as if they were Latin-1."""
    return value.encode("latin-1", "replace").decode("utf-8", "replace")


def _strip(environ: WSGIEnvironment, answer: Allow) -> None:
    """Take out what could be read as somebody's identity and is not the gate's word."""
    for key in [key for key in environ if key.startswith("HTTP_") and answer.hides(key[5:])]:
        del environ[key]
    for key in ("REMOTE_USER", "REMOTE_IDENT", "AUTH_TYPE", IDENTITY_KEY, SESSION_KEY):
        environ.pop(key, None)


def _send(reply: Reply, start_response: StartResponse) -> Iterable[bytes]:
    status = f"{reply.status} {HTTPStatus(reply.status).phrase}"
    start_response(status, [*reply.headers, ("Content-Length", str(len(reply.body)))])
    return [reply.body]


def _with_cookies(start_response: StartResponse, cookies: tuple[str, ...]) -> StartResponse:
    if not cookies:
        return start_response

    def start(status: str, headers: list[tuple[str, str]], exc_info: Any = None, /) -> Any:
        return start_response(status, with_cookies(headers, cookies, time.time()), exc_info)

    return start


def _routes(app: object) -> Iterable[str]:
    """The routes of a Flask app, of which ``app.wsgi_app`` is a method; other apps do not tell."""
    url_map = getattr(getattr(app, "__self__", app), "url_map", None)
    iter_rules = getattr(url_map, "iter_rules", None)
    return [str(rule) for rule in iter_rules()] if callable(iter_rules) else []
