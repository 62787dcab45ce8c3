"""Asking a running proxy, over the socket that it has for its own user."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from iam_auth_proxy.cli.layout import PROGRAM
from iam_auth_proxy.config import Bind


class Told(Exception):
    """What went wrong, as the running proxy told it; or that there is none.

    :ivar remedy: the one thing to do; ``code``: of the error; ``exit_status``: what to end with.
    """

    def __init__(self, message: str, remedy: str, code: str, exit_status: int = 1) -> None:
        super().__init__(message)
        self.remedy = remedy
        self.code = code
        self.exit_status = exit_status


class Running:
    """A running proxy."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def ask(self, path: str, asked: Mapping[str, object] | None = None) -> dict[str, Any]:
        """GET, or POST where something is said.

        :raises Told: the proxy says why not, or has just ended.
        """
        from iam_auth_proxy.cli.unixhttp import Connection, HTTPException

        connection = Connection(self._path)
        try:
            if asked is None:
                connection.request("GET", path)
            else:
                fields = {"Content-Type": "application/json"}
                connection.request("POST", path, json.dumps(asked), fields)
            body = connection.getresponse().read()
        except TimeoutError as error:
            raise Told("the proxy does not answer", "Try again.", "no-answer", 6) from error
        except (OSError, HTTPException) as error:
            raise _none(str(self._path)) from error
        finally:
            connection.close()
        try:
            document = json.loads(body)
        except ValueError as error:
            what = "the running proxy failed in answering this"
            raise Told(what, "Its log says why.", "internal") from error
        said = document.get("error")
        if said:
            detail = "" if said["detail"] == said["public"] else f"\n  {said['detail']}"
            message = said["public"] + detail
            raise Told(message, said["remedy"], said["code"], said["exit_status"])
        return dict(document)

    def is_there(self) -> bool:
        """Whether it answers; its socket may be left from one that was killed."""
        from iam_auth_proxy.cli.unixhttp import Connection

        connection = Connection(self._path)
        try:
            connection.connect()
        except OSError:
            return False
        finally:
            connection.close()
        return True


def find(bind: Bind, *, named: bool) -> Running | None:
    """The proxy at a bind; where that was not asked for by name, the only one that runs.

    :raises Told: there are several others to choose from.
    """
    from iam_auth_proxy.proxy.process import runtime

    folder = runtime.folder()
    there = Running(folder / runtime.name_for(bind))
    if there.is_there():
        return there
    others = [each for path in runtime.sockets(folder) if (each := Running(path)).is_there()]
    if named or not others:
        return None
    if len(others) == 1:
        return others[0]
    places = [each.ask("/status")["addresses"][0] for each in others]
    raise Told(
        f"several proxies run: {', '.join(places)}",
        f"Say which, for example: --bind {places[0]}",
        "several",
    )


def must_find(bind: Bind, *, named: bool) -> Running:
    """As :func:`find`, where a proxy is needed.

    :raises Told: none runs.
    """
    found = find(bind, named=named)
    if found is None:
        raise _none(f"unix:{bind.path}" if bind.path else f"port {bind.port}")
    return found


def _none(where: str) -> Told:
    return Told(f"no proxy is running ({where})", f"Run: {PROGRAM}", "not-running")
