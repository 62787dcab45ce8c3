"""How ssh is started, kept going and ended, and when it may ask: with a program in its place.

``tests/e2e/test_bastion.py`` has the real one.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from iam_auth_proxy.errors import PathError
from iam_auth_proxy.names import Origin
from iam_auth_proxy.proxy.upstream import bastion as module
from iam_auth_proxy.proxy.upstream.bastion import Bastion, Bastions
from iam_auth_proxy.relay.addresses import AddressPolicy
from iam_auth_proxy.relay.dial import TcpDialer
from iam_auth_proxy.relay.via import Via

# In place of ssh: what it does is the host's name. It writes down how it was called.
_SSH = """
import json, os, socket, sys, time
log, host, words = sys.argv[1], sys.argv[-1], sys.argv[2:]
with open(log, "a") as file:
    file.write(json.dumps([os.getpid(), words, dict(os.environ)]) + "\\n")
def listen():
    name, _, port = words[words.index("-D") + 1].rpartition(":")
    return socket.create_server((name, int(port)))
if host == "fine":
    listener = listen()
    time.sleep(60)
elif host == "mute":
    time.sleep(60)
elif host == "once" and len(open(log).readlines()) == 1:
    listener = listen()
    time.sleep(60)
for number in range(8):
    print(f"line {number}", file=sys.stderr)
sys.exit("Permission\\x1b[31m denied\\u202e (publickey).")
"""


class Calls:
    """What the program was called with."""

    def __init__(self, folder: Path) -> None:
        self._log = folder / "calls"
        script = folder / "ssh.py"
        script.write_text(_SSH)
        self.command = [sys.executable, str(script), str(self._log)]

    def all(self) -> list[tuple[int, list[str], dict[str, str]]]:
        if not self._log.exists():
            return []
        return [tuple(json.loads(line)) for line in self._log.read_text().splitlines()]


class People:
    """Somebody at the terminal, or nobody."""

    here = False

    def __call__(self) -> bool:
        return self.here


@pytest.fixture
def calls(tmp_path: Path) -> Calls:
    return Calls(tmp_path)


@pytest.fixture
def people() -> People:
    return People()


@pytest.fixture
async def make(calls: Calls, people: People) -> AsyncIterator[Callable[[str], Bastion]]:
    made: list[Bastion] = []

    def make(host: str) -> Bastion:
        environ = {"PATH": os.environ["PATH"], "IAM_AUTH_PROXY_SOCKS_PASSWORD": "hunter2"}
        made.append(Bastion(host, calls.command, environ, asks=people))
        return made[-1]

    before = asyncio.all_tasks()
    yield make
    for bastion in made:
        await bastion.close()
    left = {task for task in asyncio.all_tasks() - before if not task.done()}
    assert left <= {asyncio.current_task()}
    assert not [pid for pid, _, _ in calls.all() if is_there(pid)]


def is_there(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


async def until(condition: Callable[[], Any]) -> None:
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110  # another process does it
            await asyncio.sleep(0.01)


async def failure(bastion: Bastion) -> PathError:
    with pytest.raises(PathError) as caught:
        await bastion.open()
    return caught.value


def is_batch(call: tuple[int, list[str], dict[str, str]]) -> bool:
    return "BatchMode=yes" in call[1]


async def test_how_it_is_called(make: Callable[[str], Bastion], calls: Calls) -> None:
    bastion = make("fine")
    assert bastion.state().state == "idle"
    found = await asyncio.gather(*[bastion.open() for _ in range(5)])
    assert len(set(found)) == 1
    host, port = found[0]
    ((_, words, environ),) = calls.all()
    assert words[:4] == ["-N", "-T", "-D", f"{host}:{port}"]
    assert words[-2:] == ["--", "fine"]
    options = [after for word, after in pairwise(words) if word == "-o"]
    assert {"ExitOnForwardFailure=yes", "ServerAliveInterval=15", "ControlPath=none"} <= {*options}
    assert "BatchMode=yes" in options
    assert "IAM_AUTH_PROXY_SOCKS_PASSWORD" not in environ
    state = bastion.state()
    assert (state.name, state.state, state.words, state.starts) == ("ssh://fine", "up", "", 1)


async def test_a_failure_is_told_in_its_words_and_not_tried_again_at_once(
    make: Callable[[str], Bastion], calls: Calls, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module.random, "uniform", lambda low, high: 100.0)
    bastion = make("refuses")
    error = await failure(bastion)
    assert (error.error, error.http_status) == ("destination_unavailable", 502)
    assert error.public == "The ssh tunnel to the app is down."
    assert error.remedy == (
        "ssh said: line 4 line 5 line 6 line 7 Permission?[31m denied? (publickey). "
        "Try it by hand: ssh refuses"
    )
    assert bastion.state().state == "down"
    await failure(bastion)
    assert len(calls.all()) == 1
    monkeypatch.setattr(module, "_JUST_NOW", 0.0)
    await failure(bastion)
    assert len(calls.all()) == 2


async def test_no_such_command() -> None:
    bastion = Bastion("host", ["/nowhere/ssh"], {})
    error = await failure(bastion)
    assert "ssh said: /nowhere/ssh: No such file or directory." in error.remedy
    await bastion.close()


async def test_it_asks_where_somebody_waits_and_never_by_itself(
    make: Callable[[str], Bastion],
    calls: Calls,
    people: People,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module.random, "uniform", lambda low, high: 0.0)
    people.here = True
    bastion = make("refuses")
    await failure(bastion)
    await until(lambda: len(calls.all()) >= 3)
    await bastion.close()
    assert [is_batch(call) for call in calls.all()][:3] == [False, True, True]


async def test_a_request_after_a_drop_starts_it_and_may_be_asked(
    make: Callable[[str], Bastion],
    calls: Calls,
    people: People,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module.random, "uniform", lambda low, high: 100.0)
    people.here = True
    bastion = make("once")
    await bastion.open()
    os.kill(calls.all()[0][0], signal.SIGKILL)
    await until(lambda: bastion.state().state == "down")
    await failure(bastion)
    assert [is_batch(call) for call in calls.all()] == [False, False]


async def test_it_waits_longer_each_time(
    make: Callable[[str], Bastion], monkeypatch: pytest.MonkeyPatch
) -> None:
    delays: list[float] = []
    enough = asyncio.Event()

    async def pause(self: Bastion, delay: float) -> None:
        delays.append(delay)
        if len(delays) == 12:
            enough.set()
            await asyncio.Event().wait()

    async def attempt(self: Bastion, *, batch: bool) -> None:
        if len(delays) == 10:
            monkeypatch.setattr(module, "_STEADY", 0.0)  # this one went on for long

    monkeypatch.setattr(module.random, "uniform", lambda low, high: low + high)
    monkeypatch.setattr(Bastion, "_pause", pause)
    monkeypatch.setattr(Bastion, "_attempt", attempt)
    make("fine").start()
    await asyncio.wait_for(enough.wait(), 5)
    assert delays[:10] == [2.0 * each for each in (1, 2, 4, 8, 16, 32, 64, 128, 256, 300)]
    assert delays[10:] == [2.0, 2.0]


async def test_one_that_never_gets_there(
    make: Callable[[str], Bastion], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_READY_WITHIN", 0.2)
    assert "no tunnel after 0.2 s" in (await failure(make("mute"))).remedy


async def test_a_port_that_is_another_users(
    make: Callable[[str], Bastion], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_READY_WITHIN", 0.5)
    monkeypatch.setattr(module, "listener_owner", lambda host, port: os.geteuid() + 1)
    assert "no tunnel" in (await failure(make("fine"))).remedy


async def test_whose_port_it_is() -> None:
    server = await asyncio.start_server(lambda *_: None, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    assert module.listener_owner("127.0.0.1", port) == os.geteuid()
    server.close()
    await server.wait_closed()
    assert module.listener_owner("127.0.0.1", port) is None


async def test_who_waits_hears_of_the_end(make: Callable[[str], Bastion], calls: Calls) -> None:
    bastion = make("mute")
    waiting = asyncio.create_task(bastion.open())
    await until(calls.all)
    await bastion.close()
    with pytest.raises(PathError):
        await waiting
    await failure(bastion)
    assert len(calls.all()) == 1, "what is closed stays so"


async def test_a_dial_does_not_wait_for_ever(
    make: Callable[[str], Bastion], people: People, calls: Calls
) -> None:
    people.here = True
    via = Via("socks5h", "127.0.0.1", 0, tunnel=make("mute"))
    dialer = TcpDialer(AddressPolicy(), via_for=lambda origin: via, deadline=0.3)
    with pytest.raises(PathError) as caught:
        await dialer.connect(Origin("http", "app.test", 80), asyncio.Protocol)
    assert (caught.value.error, caught.value.http_status) == ("connection_timeout", 504)
    assert caught.value.public == "The ssh tunnel to app.test:80 is not up yet."
    assert "in the terminal of iam-auth-proxy, answer it there" in caught.value.remedy
    await until(calls.all)


async def test_those_that_are_no_longer_wanted_end(calls: Calls) -> None:
    bastions = Bastions({"PATH": os.environ["PATH"]})
    one, other = bastions.of("fine", calls.command), bastions.of("fine", [*calls.command, "-4"])
    assert bastions.of("fine", calls.command) is one
    assert other is not one
    await asyncio.gather(one.open(), other.open())
    bastions.keep([one])
    assert [state.state for state in bastions.states()] == ["up"]
    await until(lambda: other.state().state == "idle")
    await bastions.close()
    assert [state.state for state in bastions.states()] == ["idle"]
