"""The rule of each listener."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, suppress
from pathlib import Path

import pytest
import uvloop

from iam_auth_proxy import config
from iam_auth_proxy.errors import ConfigError
from iam_auth_proxy.proxy.listeners.clientauth import OneSecret, add
from iam_auth_proxy.proxy.listeners.entrance import Entrance, Entrances
from iam_auth_proxy.proxy.listeners.peers import Peers
from tests.support.users import NOBODY, Stranger

PASSWORD = "correct horse"


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Their transports show their sockets differently."""
    return {"stock": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}


@pytest.fixture
def peers() -> Iterator[Peers]:
    made = Peers.of_this_process()
    assert made is not None
    with closing(made):
        yield made


class Door(asyncio.Protocol):
    """Asks its entrance, as the relay does, and hangs up."""

    def __init__(self, entrance: Entrance, admitted: asyncio.Queue[bool]) -> None:
        self._entrance = entrance
        self._admitted = admitted

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._admitted.put_nowait(self._entrance.admits(transport))
        assert isinstance(transport, asyncio.Transport)
        transport.abort()


@pytest.mark.parametrize("where", ["127.0.0.1", "::1", "unix"])
async def test_this_user_and_no_other(
    peers: Peers, where: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    entrance = Entrance("local", peers=peers)
    admitted: asyncio.Queue[bool] = asyncio.Queue()
    loop = asyncio.get_running_loop()

    def door() -> Door:
        return Door(entrance, admitted)

    if where == "unix":
        path = f"/tmp/iam-auth-proxy-test-{id(peers)}.sock"
        server = await loop.create_unix_server(door, path)
        os.chmod(path, 0o666)
        address, near = path, socket.socket(socket.AF_UNIX)
        near.connect(address)
    else:
        server = await loop.create_server(door, where, 0)
        port = server.sockets[0].getsockname()[1]
        address, near = f"{where}:{port}", socket.create_connection((where, port))
    assert await asyncio.wait_for(admitted.get(), 5)
    near.close()
    with caplog.at_level(logging.WARNING), closing(Stranger(address)):
        assert not await asyncio.wait_for(admitted.get(), 5)
    assert [record.__dict__["uid"] for record in caplog.records] == [NOBODY]
    server.close()
    await server.wait_closed()
    if where == "unix":
        with suppress(FileNotFoundError):  # Python 3.13 does it when the server closes
            os.unlink(path)


async def test_one_line_a_minute(peers: Peers, caplog: pytest.LogCaptureFixture) -> None:
    now = [0.0]
    entrance = Entrance("local", peers=peers, monotonic=lambda: now[0])
    with caplog.at_level(logging.WARNING):
        for moment in (0.0, 1.0, 59.9, 60.0, 61.0):
            now[0] = moment
            entrance._refused(NOBODY)
        entrance._refused(None)  # gone before it was asked about: no line
    assert [record.__dict__["connections"] for record in caplog.records] == [1, 3]


def settings(**given: str) -> config.Settings:
    return config.load({name.replace("_", "-"): text for name, text in given.items()}, {}, [])


@pytest.fixture
def users(tmp_path: Path) -> str:
    path = str(tmp_path / "users")
    add(path, "ann", PASSWORD)
    return path


@pytest.fixture
def outside() -> Iterator[socket.socket]:
    with socket.create_server(("0.0.0.0", 0)) as listener:
        yield listener


@pytest.fixture
def inside() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener


ANN = b"Basic YW5uOmNvcnJlY3QgaG9yc2U="


def test_loopback_asks_for_this_user(inside: socket.socket, users: str) -> None:
    local = Entrances(settings()).public(inside)
    assert (local.name, local.private, local.guarded) == ("local", False, False)
    assert local.local
    assert local.peers is not None
    both = Entrances(settings(client_auth=users)).public(inside)
    assert both.peers is not None
    assert both.guarded
    assert both.authenticates(ANN, "127.0.0.1:1")
    assert not both.authenticates(None, "127.0.0.1:1")
    open_ = Entrances(settings(allow_other_users="true")).public(inside)
    assert open_.peers is None


def test_what_others_reach_asks_for_a_password(outside: socket.socket, users: str) -> None:
    with pytest.raises(ConfigError, match="needs --client-auth"):
        Entrances(settings()).public(outside)
    with pytest.raises(ConfigError, match="needs --client-auth"):
        Entrances(settings(allow_other_users="true")).public(outside)
    entrance = Entrances(settings(client_auth=users)).public(outside)
    assert (entrance.name, entrance.guarded, entrance.peers) == ("network", True, None)
    assert not entrance.local
    assert entrance.authenticates(ANN, "10.0.0.1:1")
    assert not entrance.authenticates(b"Basic YW5uOng=", "10.0.0.1:1")


def test_private_ones_are_apart() -> None:
    entrances = Entrances(settings())
    first, second = entrances.private("exec", "s1"), entrances.private("exec", "s2")
    assert first.name != second.name
    assert first.private
    assert first.guarded
    assert first.peers is not None
    assert isinstance(first.credentials, OneSecret)
    assert first.authenticates(b"Basic eDpzMQ==", "")
    assert not second.authenticates(b"Basic eDpzMQ==", "")


def test_users_come_and_go_with_a_reload(
    outside: socket.socket, users: str, caplog: pytest.LogCaptureFixture
) -> None:
    given = settings(client_auth=users)
    entrances = Entrances(given)
    entrance = entrances.public(outside)
    assert entrance.authenticates(ANN, "10.0.0.1:1")
    add(users, "bob", "another password")
    kept = Path(users).read_text().splitlines()[1]
    Path(users).write_text(kept + "\n")
    change = entrances.prepare(given)
    assert entrance.authenticates(ANN, "10.0.0.1:1"), "not before all else is well"
    assert entrance in change()
    assert not entrance.authenticates(ANN, "10.0.0.1:1")
    Path(users).write_text("")
    with pytest.raises(ConfigError):
        entrances.prepare(given)
    entrances.prepare(settings())()
    assert entrance.guarded, "what was asked for at the start is never dropped"
    assert not entrance.authenticates(None, "10.0.0.1:1")
    assert "needs a restart" in caplog.text


def test_connections_end_with_a_password_and_with_nothing_less(
    outside: socket.socket, inside: socket.socket, users: str
) -> None:
    given = settings(client_auth=users)
    entrances = Entrances(given)
    both = {entrances.public(outside), entrances.public(inside)}
    private = entrances.private("exec", "secret")
    assert not entrances.prepare(given)(), "nothing has changed"
    add(users, "bob", "another password")
    assert not entrances.prepare(given)(), "one more changes nothing for the others"
    add(users, "bob", "a third password")
    assert set(entrances.prepare(given)()) == both
    assert private not in both
