"""A process whose children are killed while they write a secret, at whatever line is asked.

``python -m tests.support.killed STORE KEYS MODULE...`` reads lines ``N PUT|REWRAP|ROTATE NAME``.
For each it forks a child that does that to the secret (its value is ``new``) or the key ring, and
sends itself SIGKILL at the Nth line it runs of the modules, and answers ``killed`` or ``done``.
Forking a process that has loaded everything takes milliseconds, and it has no other threads.
"""

from __future__ import annotations

import os
import signal
import sys
from types import FrameType
from typing import Any

from iam_auth_proxy.keys import build, drafts, folder, lazystore, objects  # noqa: F401  # loaded once
from iam_auth_proxy.keys.ringstore import RingStore
from iam_auth_proxy.keys.secrets import SecretStore

ROTATED_AT = 1_790_000_000.0


def main(place: str, keys: str, *modules: str) -> None:
    store = build.open_store(build.parse_place(place), keys.split(","))
    connections = store._wrapping._kms._logins.current().connections  # type: ignore[attr-defined]
    for service in ("kms", "s3"):
        connections.client(service, "eu-west-1")  # opens nothing yet
    print("ready", flush=True)
    for line in sys.stdin:
        number, what, name = line.split()
        print(_in_a_child(store, modules, int(number), what, name), flush=True)


def _in_a_child(
    store: SecretStore, modules: tuple[str, ...], number: int, what: str, name: str
) -> str:
    child = os.fork()
    if child == 0:
        _kill_at(number, modules)
        if what == "REWRAP":
            store.rewrap(name)
        elif what == "ROTATE":
            RingStore(store, name).rotate(ROTATED_AT)
        else:
            store.put(name, b"new", now=1.0)
        os._exit(0)
    status = os.waitpid(child, 0)[1]
    if os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL:
        return "killed"
    return "done" if status == 0 else f"failed {status}"


def _kill_at(number: int, modules: tuple[str, ...]) -> None:
    left = number

    def trace(frame: FrameType, event: str, _: Any) -> Any:
        nonlocal left
        if not frame.f_code.co_filename.endswith(modules):
            return None
        if event == "line":
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
        return trace

    sys.settrace(trace)


if __name__ == "__main__":
    main(*sys.argv[1:])
