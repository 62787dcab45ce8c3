"""The mountings of the documentation, to the letter, with the original's environment."""

from __future__ import annotations

from typing import Any

import pytest

from iam_auth_proxy.local_aws import LocalAws
from iam_auth_proxy.local_aws.ready import make_ready
from tests.server.apps import (
    Serving,
    django_app,
    serve_aiohttp,
    serve_asgi,
    serve_werkzeug,
    serve_wsgi,
)
from tests.server.conftest import SECRET, GateMaker
from tests.server.originalproxy import Browser, OriginalProxy

AIOHTTP = """
from iam_auth_proxy.server import Gate
from iam_auth_proxy.server.aiohttp import iam_auth
app = web.Application(middlewares=[iam_auth(Gate.from_env(public=["/healthz"]))])
async def home(request): return web.Response(text=request["iam"].arn)
"""

FASTAPI = """
from iam_auth_proxy.server.asgi import IamAuth, identity
app = FastAPI(); app.add_middleware(IamAuth, gate=Gate.from_env(public=["/healthz"]))
@app.get("/")
def home(me: Annotated[Identity, Depends(identity)]): return me.arn
"""

FLASK = """
from iam_auth_proxy.server.wsgi import IamAuth
app.wsgi_app = IamAuth(app.wsgi_app, gate=Gate.from_env(public=["/healthz"]))
@app.get("/")
def home(): return request.remote_user
"""

DJANGO = """
application = IamAuth(get_wsgi_application(), gate=Gate.from_env(public=["/healthz"]))
"""


def run(before: str, snippet: str) -> dict[str, Any]:
    space: dict[str, Any] = {"__name__": "snippet"}
    exec(before + snippet, space)
    return space


def serve_snippet(framework: str) -> Serving:
    if framework == "aiohttp":
        space = run("from aiohttp import web\n", AIOHTTP)
        space["app"].router.add_get("/", space["home"])
        return serve_aiohttp(space["app"])
    if framework == "fastapi":
        before = (
            "from typing import Annotated\nfrom fastapi import Depends, FastAPI\n"
            "from iam_auth_proxy.server import Gate\n"
            "from iam_auth_proxy.protocol.identity import Identity\n"
        )
        return serve_asgi(run(before, FASTAPI)["app"])
    if framework == "flask":
        before = (
            "from flask import Flask, request\nfrom iam_auth_proxy.server import Gate\n"
            "app = Flask('snippet')\n"
        )
        return serve_werkzeug(run(before, FLASK)["app"])
    before = (
        "from django.core.wsgi import get_wsgi_application\n"
        "from iam_auth_proxy.server import Gate\nfrom iam_auth_proxy.server.wsgi import IamAuth\n"
    )
    return serve_wsgi(run(before, DJANGO)["application"])


@pytest.mark.parametrize("framework", ["aiohttp", "fastapi", "flask", "django"])
def test_it_signs_in(
    framework: str, local_aws: LocalAws, monkeypatch: pytest.MonkeyPatch, make_gate: GateMaker
) -> None:
    ready = make_ready(local_aws)
    environ = local_aws.env | ready.server.env | {
        "AWS_ACCOUNT_ID": ready.account, "KMS_KEY_ID": ready.key.arn, "SECRET_KEY": SECRET,
    }  # fmt: skip
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    if framework == "django":
        django_app(make_gate())  # the settings of the process
    with serve_snippet(framework) as port:
        answer = OriginalProxy(local_aws, ready.user).open(Browser(port), "/")
        assert answer.text.strip('"') == "arn:aws:iam::111122223333:user/example-user"
