"""The frameworks, each with the mounting of the documentation and served for real on loopback."""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
import threading
import wsgiref.simple_server
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Annotated, Any, Final

import uvicorn
from aiohttp import web
from fastapi import Depends, FastAPI, Request, WebSocket
from fastapi.responses import PlainTextResponse, RedirectResponse, StreamingResponse

from iam_auth_proxy.protocol.identity import Identity
from iam_auth_proxy.server import Gate, asgi, wsgi
from iam_auth_proxy.server.aiohttp import iam_auth
from iam_auth_proxy.server.asgi import identity

Serving = contextlib.AbstractContextManager[int]
"""Inside of it the app is served at this port of 127.0.0.1."""


# -- the apps --------------------------------------------------------------------------------------
# Each has /, which answers the ARN; /size, which answers the size of a POST's body; /headers, which
# lists what it got of a client's claims; /cached, whose Cache-Control is its query; /stream and
# /healthz.


def aiohttp_app(gate: Gate) -> web.Application:
    app = web.Application(middlewares=[iam_auth(gate)], client_max_size=64 << 20)

    async def home(request: web.Request) -> web.Response:
        return web.Response(text=request["iam"].arn)

    async def size(request: web.Request) -> web.Response:
        return web.Response(text=str(len(await request.read())))

    async def headers(request: web.Request) -> web.Response:
        return web.Response(text="\n".join(f"{k.lower()}: {v}" for k, v in request.headers.items()))

    async def cached(request: web.Request) -> web.Response:
        return web.Response(headers={"Cache-Control": request.query_string})

    async def stream(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        for _ in range(3):
            await response.write(b"x" * 1000)
        return response

    async def found(request: web.Request) -> web.Response:
        raise web.HTTPFound("/elsewhere")

    async def healthz(request: web.Request) -> web.Response:
        return web.Response(text=f"ok {request.get('iam')}")

    async def echo(request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        await socket.send_str(request["iam"].arn)
        async for message in socket:
            await socket.send_str(message.data)
        return socket

    app.add_routes(
        [web.get("/", home), web.post("/size", size), web.get("/headers", headers),
         web.get("/cached", cached), web.get("/stream", stream), web.get("/found", found),
         web.get("/healthz", healthz), web.get("/ws", echo)]
    )  # fmt: skip
    return app


def fastapi_app(gate: Gate) -> Any:
    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[dict[str, str]]:
        yield {"started": "yes"}

    app = FastAPI(lifespan=lifespan)
    app.add_middleware(asgi.IamAuth, gate=gate)

    @app.get("/", response_class=PlainTextResponse)
    def home(me: Annotated[Identity, Depends(identity)]) -> str:
        return me.arn

    @app.post("/size", response_class=PlainTextResponse)
    async def size(request: Request) -> str:
        return str(len(await request.body()))

    @app.get("/headers", response_class=PlainTextResponse)
    def headers(request: Request) -> str:
        return "\n".join(f"{k}: {v}" for k, v in request.headers.items())

    @app.get("/cached")
    def cached(request: Request) -> PlainTextResponse:
        return PlainTextResponse("", headers={"Cache-Control": request.url.query})

    @app.get("/stream")
    def stream() -> StreamingResponse:
        return StreamingResponse(iter([b"x" * 1000] * 3))

    @app.get("/found")
    def found() -> RedirectResponse:
        return RedirectResponse("/elsewhere", 302)

    @app.get("/healthz", response_class=PlainTextResponse)
    def healthz(request: Request) -> str:
        return f"ok {request.scope['iam_auth.identity']} {request.state.started}"

    @app.get("/public-me", response_class=PlainTextResponse)
    def public_me(me: Annotated[Identity, Depends(identity)]) -> str:
        return me.arn

    @app.websocket("/ws")
    async def echo(socket: WebSocket, me: Annotated[Identity, Depends(identity)]) -> None:
        await socket.accept()
        await socket.send_text(me.arn)
        async for text in socket.iter_text():
            await socket.send_text(text)

    return app


def flask_app(gate: Gate) -> Any:
    from flask import Flask, Response, redirect, request

    app = Flask("flask_app")
    app.wsgi_app = wsgi.IamAuth(app.wsgi_app, gate=gate)  # type: ignore[method-assign]  # Flask's way

    @app.get("/")
    def home() -> str | None:
        assert request.environ["iam_auth.identity"].arn == request.remote_user
        return request.remote_user

    @app.post("/size")
    def size() -> str:
        return str(len(request.get_data()))

    @app.get("/headers")
    def headers() -> str:
        return "\n".join(f"{k.lower()}: {v}" for k, v in request.headers.items())

    @app.get("/cached")
    def cached() -> Response:
        return Response(headers={"Cache-Control": request.query_string.decode()})

    @app.get("/stream")
    def stream() -> Response:
        return Response(iter([b"x" * 1000] * 3))

    @app.get("/found")
    def found() -> Any:
        return redirect("/elsewhere")

    @app.get("/healthz")
    def healthz() -> str:
        return f"ok {request.remote_user}"

    return app


_FOLDER: Final = tempfile.TemporaryDirectory(prefix="iam-auth-django-")


def django_app(gate: Gate) -> Any:
    import django
    from django.conf import settings
    from django.core.wsgi import get_wsgi_application
    from django.db import connection
    from django.http import HttpRequest, HttpResponse, HttpResponseRedirect, StreamingHttpResponse
    from django.urls import path

    def home(request: HttpRequest) -> HttpResponse:
        return HttpResponse(str(request.META["REMOTE_USER"]))

    def size(request: HttpRequest) -> HttpResponse:
        return HttpResponse(str(len(request.body)))

    def headers(request: HttpRequest) -> HttpResponse:
        return HttpResponse("\n".join(f"{k.lower()}: {v}" for k, v in request.headers.items()))

    def cached(request: HttpRequest) -> HttpResponse:
        return HttpResponse(headers={"Cache-Control": request.META["QUERY_STRING"]})

    def stream(request: HttpRequest) -> StreamingHttpResponse:
        return StreamingHttpResponse(iter([b"x" * 1000] * 3))

    def found(request: HttpRequest) -> HttpResponse:
        return HttpResponseRedirect("/elsewhere")

    def healthz(request: HttpRequest) -> HttpResponse:
        return HttpResponse(f"ok {request.META.get('REMOTE_USER')}")

    def username(request: HttpRequest) -> HttpResponse:
        return HttpResponse(request.user.get_username())

    class Urls:
        urlpatterns = (
            path("", home), path("size", size), path("headers", headers), path("stream", stream),
            path("found", found), path("healthz", healthz), path("username", username),
            path("cached", cached),
        )  # fmt: skip

    if not settings.configured:
        settings.configure(
            ALLOWED_HOSTS=["*"],
            ROOT_URLCONF=Urls,
            DATA_UPLOAD_MAX_MEMORY_SIZE=64 << 20,
            SECRET_KEY="only for tests",
            USE_TZ=True,
            DATABASES={
                "default": {
                    "ENGINE": "django.db.backends.sqlite3",
                    # Not in memory: such a one Django leaves open in each thread that ends.
                    "NAME": f"{_FOLDER.name}/users",
                }
            },
            INSTALLED_APPS=[
                "django.contrib.auth", "django.contrib.contenttypes", "django.contrib.sessions",
            ],
            DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
            SESSION_ENGINE="django.contrib.sessions.backends.signed_cookies",
            AUTHENTICATION_BACKENDS=["django.contrib.auth.backends.RemoteUserBackend"],
            MIDDLEWARE=[
                "django.contrib.sessions.middleware.SessionMiddleware",
                "django.contrib.auth.middleware.AuthenticationMiddleware",
                "django.contrib.auth.middleware.RemoteUserMiddleware",
            ],
        )  # fmt: skip
        django.setup()
        from django.core.management import call_command

        call_command("migrate", verbosity=0)
        connection.close()
    return wsgi.IamAuth(get_wsgi_application(), gate=gate)


# -- the servers -----------------------------------------------------------------------------------


@contextlib.contextmanager
def serve_aiohttp(app: web.Application) -> Iterator[int]:
    """As web.run_app, on a loop of its own."""
    started, ports = threading.Event(), list[int]()
    loop = asyncio.new_event_loop()
    stop = asyncio.Event()

    async def main() -> None:
        # It reads what is left of a body that nobody wanted for a while, 10 s by itself.
        runner = web.AppRunner(
            app, access_log=None, max_line_size=32768, max_field_size=32768, lingering_time=0.5
        )
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        ports.append(runner.addresses[0][1])
        started.set()
        await stop.wait()
        await runner.cleanup()

    thread = threading.Thread(target=lambda: loop.run_until_complete(main()))
    thread.start()
    assert started.wait(10)
    try:
        yield ports[0]
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(10)
        loop.close()


@contextlib.contextmanager
def serve_asgi(app: Any, **options: Any) -> Iterator[int]:
    """Under uvicorn."""
    config = uvicorn.Config(app, port=0, log_config=None, ws="websockets-sansio", **options)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        while not server.started and thread.is_alive():
            thread.join(0.01)
        if not server.started:
            raise RuntimeError("the app did not start")
        yield server.servers[0].sockets[0].getsockname()[1]
    finally:
        server.should_exit = True
        thread.join(10)


class _Quiet(wsgiref.simple_server.WSGIRequestHandler):
    def log_message(self, format: str, *arguments: Any) -> None:
        """No access log."""


@contextlib.contextmanager
def serve_wsgi(app: Any) -> Iterator[int]:
    """Under the standard library's server."""
    with wsgiref.simple_server.make_server("127.0.0.1", 0, app, handler_class=_Quiet) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server.server_port
        finally:
            server.shutdown()
            thread.join(10)


@contextlib.contextmanager
def serve_werkzeug(app: Any) -> Iterator[int]:
    """Under Flask's own development server."""
    from werkzeug.serving import WSGIRequestHandler, make_server

    class Quiet(WSGIRequestHandler):
        def log(self, type: str, message: str, *arguments: Any) -> None:
            """No access log."""

    server = make_server("127.0.0.1", 0, app, threaded=True, request_handler=Quiet)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        thread.join(10)
        server.server_close()


FRAMEWORKS: dict[str, tuple[Callable[[Gate], Any], Callable[[Any], Serving]]] = {
    "aiohttp": (aiohttp_app, serve_aiohttp),
    "fastapi": (fastapi_app, serve_asgi),
    "flask": (flask_app, serve_werkzeug),
    "django": (django_app, serve_wsgi),
}
