"""``python -m server_example``."""

from __future__ import annotations

import asyncio
import logging
import os
import re
import signal
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from iam_auth_proxy.errors import ConfigError, Problem
from iam_auth_proxy.server import Gate
from iam_auth_proxy.server.settings import read_variable
from server_example.app import PUBLIC, make_app

_LONGEST_FAULT = 200


@dataclass(frozen=True, slots=True)
class Listen:
    """Where to listen; port 0 is any free one."""

    host: str
    port: int


def read_listen(environ: Mapping[str, str]) -> Listen:
    """``BIND`` and ``PORT``.

    :raises ConfigError: the port is none.
    """
    problems: list[Problem] = []
    _, host = read_variable(environ, "BIND", problems)
    place, text = read_variable(environ, "PORT", problems)
    text = text or "8082"
    if not (re.fullmatch("[0-9]{1,5}", text) and int(text) <= 65535):
        problems.append(Problem(place or "PORT", "not a port from 0 to 65535"))
    if problems:
        raise ConfigError(problems)
    return Listen(host or "127.0.0.1", int(text))


def make_gate(environ: Mapping[str, str]) -> Gate:
    """The gate of the environment.

    :raises ConfigError: with every problem.
    """
    return Gate.from_env(environ, public=PUBLIC)


def configure(environ: Mapping[str, str]) -> tuple[Listen, Gate]:
    """Both.

    :raises ConfigError: with every problem of either.
    """
    problems: list[Problem] = []
    listen, gate = None, None
    try:
        listen = read_listen(environ)
    except ConfigError as error:
        problems += error.problems
    try:
        gate = make_gate(environ)
    except ConfigError as error:
        problems += error.problems
    if listen is None or gate is None:
        raise ConfigError(problems)
    return listen, gate


async def serve(app: web.Application, listen: Listen, names: str) -> None:
    """Serve until SIGINT or SIGTERM."""
    # A legacy token is up to 8 KiB of the request line, more than aiohttp allows by itself. There
    # is no access log: aiohttp's has the query in it, and with it the token.
    runner = web.AppRunner(app, access_log=None, max_line_size=32768, max_field_size=32768)
    await runner.setup()
    try:
        site = web.TCPSite(runner, listen.host, listen.port)
        await site.start()
        host, port = runner.addresses[0][:2]
        print(f"listening on http://{host}:{port} for {names}", flush=True)
        stop = asyncio.Event()
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        await stop.wait()
    finally:
        await runner.cleanup()


class Brief(logging.Filter):
    """What is wrong with a request is its sender's doing: a line, and no traceback of aiohttp's."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Changes the record; keeps all of them."""
        error = record.exc_info[1] if record.exc_info else None
        if isinstance(error, HttpProcessingError | web.RequestPayloadError):
            text = " ".join(str(error).split())
            record.levelno, record.levelname = logging.INFO, "INFO"
            record.msg, record.args = "a malformed request: %s", (ascii(text[:_LONGEST_FAULT]),)
            record.exc_info = None
        return True


def main() -> int:
    """Exit status: 2 where the configuration or the key ring is not usable, 1 where the port is
    taken.
    """
    logging.basicConfig(format="%(levelname)s %(name)s: %(message)s", level=logging.INFO)
    logging.getLogger("aiohttp.server").addFilter(Brief())
    try:
        listen, gate = configure(os.environ)
        gate.start(time.time())
    except ConfigError as error:
        print(error, file=sys.stderr)
        return error.exit_status
    names = " ".join(str(origin) for origin in gate.settings.origins) or "any name"
    try:
        asyncio.run(serve(make_app(gate), listen, names))
    except OSError as error:
        print(f"cannot listen on {listen.host}:{listen.port}: {error.strerror}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
