"""The pages on the proxy's own address.

Any page in the browser can send requests here, so: the Host allow-list with the exact port comes
first (DNS rebinding), no GET changes anything, nothing may be framed, and nothing is readable from
another origin.
"""

from __future__ import annotations

import shlex
from collections.abc import Awaitable, Callable, Collection, Iterable
from typing import Final

from aiohttp import web

from iam_auth_proxy import __version__
from iam_auth_proxy.proxy.decisions.questions import Questions
from iam_auth_proxy.proxy.listeners.address import UNIX, curl
from iam_auth_proxy.proxy.pages import confirm, pac
from iam_auth_proxy.proxy.pages.status import Status, exposition
from iam_auth_proxy.proxy.pages.template import template

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

_GUARDS: Final = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; "
    "frame-ancestors 'none'; base-uri 'none'; form-action 'none'",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


def application(
    status: Callable[[], Status],
    reaches: Callable[[], Iterable[pac.Reach]],
    questions: Questions,
    identify: confirm.Identify,
    hosts: Collection[str],
) -> web.Application:
    """The application.

    :param reaches: what is to be sent to the proxy, as it is now.
    :param identify: see :func:`confirm.routes`.
    :param hosts: the values of Host under which the pages may be asked for, ports included.
    """

    @web.middleware
    async def guard(request: web.Request, handler: Handler) -> web.StreamResponse:
        host = request.headers.get("Host", "").lower()
        if host not in hosts:
            # The host name is not repeated: whoever sent the request chose it.
            wrong = _NO_ALIAS if host.partition(".")[2] in hosts else _WRONG_HOST
            raise web.HTTPMisdirectedRequest(text=wrong, headers=_GUARDS)
        try:
            response = await handler(request)
        except web.HTTPException as error:
            _guard(error)
            raise
        _guard(response)
        return response

    async def home(request: web.Request) -> web.Response:
        now = status()
        # An app for the examples on the page. A wildcard is no URL; an app on https without an
        # alias comes last, since nobody is signed in inside a tunnel.
        apps = [each for each in now.origins if "*" not in each]
        open_here = [each for each in apps if each.startswith("http:") or each in now.aliases]
        app = next(iter([*open_here, *apps, "http://app.internal"]))
        alias = now.aliases.get(app, "")
        text = template("home.html").render(
            status=now,
            version=__version__,
            browser=not now.address.startswith(UNIX),
            opening=f"iam-auth-proxy browser {shlex.quote(app)}/",
            command=f"curl {alias}/" if alias else curl(now.address, f"{app}/"),
        )
        return web.Response(text=text, content_type="text/html")

    async def health(request: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    async def metrics(request: web.Request) -> web.Response:
        return web.Response(text=exposition(status()), content_type="text/plain")

    async def proxy_pac(request: web.Request) -> web.Response:
        # Which hosts there are is nobody's business but the browser's own: no page may load it.
        if request.headers.get("Sec-Fetch-Site", "none") != "none":
            raise web.HTTPForbidden(text="iam-auth-proxy: not for pages.\n")
        text = pac.script(reaches(), request.headers["Host"])
        return web.Response(text=text, content_type=pac.MEDIA_TYPE)

    app = web.Application(middlewares=[guard])
    app.router.add_get("/", home)
    app.router.add_get("/healthz", health)
    app.router.add_get("/metrics", metrics)
    app.router.add_get("/proxy.pac", proxy_pac)
    app.router.add_routes(confirm.routes(questions, identify))
    return app


def _guard(response: web.StreamResponse) -> None:
    """Adds the security headers that a page has not set itself."""
    for name, value in _GUARDS.items():
        response.headers.setdefault(name, value)


_WRONG_HOST: Final = (
    "iam-auth-proxy: this is a proxy. Set it as your HTTP proxy; do not open app URLs on it.\n"
)


_NO_ALIAS: Final = (
    "iam-auth-proxy: no app has this name here. Give it to one, for example: "
    "iam-auth-proxy trust add https://wiki.internal --alias wiki\n"
)
