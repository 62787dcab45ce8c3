"""Where the proxy listens."""

from __future__ import annotations

import os
import socket
import stat
from pathlib import Path

import pytest

from iam_auth_proxy.config import parse_bind
from iam_auth_proxy.errors import ConfigError
from iam_auth_proxy.proxy.listeners.listen import (
    addresses,
    bind_tcp,
    hold_names,
    listen,
    own_hosts,
    reachable,
)
from tests.support.processes import free_on_both


def closing(sockets: list[socket.socket]) -> None:
    for each in sockets:
        each.close()


def test_a_bare_port_is_both_loopbacks_with_one_port() -> None:
    sockets = listen(parse_bind(":0"))
    try:
        names = addresses(sockets)
        assert names[0].startswith("127.0.0.1:")
        assert {name.rpartition(":")[2] for name in names} == {names[0].rpartition(":")[2]}
        port = names[0].rpartition(":")[2]
        assert {f"127.0.0.1:{port}", f"localhost:{port}"} <= own_hosts(sockets)
        assert "localhost" not in own_hosts(sockets)
    finally:
        closing(sockets)


def test_a_port_in_use_says_so() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError, match=f"127.0.0.1:{port} is in use.* --bind :8090"):
            listen(parse_bind(f"127.0.0.1:{port}"))


def test_a_unix_socket_is_the_owners_alone(tmp_path: Path) -> None:
    path = tmp_path / "proxy.sock"
    before = os.umask(0)
    try:
        sockets = listen(parse_bind(f"unix:{path}"))
    finally:
        os.umask(before)
    try:
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert addresses(sockets) == [f"unix:{path}"]
        assert own_hosts(sockets) == {"localhost"}
    finally:
        closing(sockets)


def test_a_stale_unix_socket_is_replaced_and_a_live_one_is_not(tmp_path: Path) -> None:
    path = tmp_path / "proxy.sock"
    closing(listen(parse_bind(f"unix:{path}")))  # nobody listens any more; the file is left
    sockets = listen(parse_bind(f"unix:{path}"))
    try:
        sockets[0].listen()
        with pytest.raises(ConfigError, match="is in use"):
            listen(parse_bind(f"unix:{path}"))
    finally:
        closing(sockets)


def test_another_kind_of_file_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "proxy.sock"
    path.write_text("mine")
    with pytest.raises(ConfigError, match="not a socket"):
        listen(parse_bind(f"unix:{path}"))
    assert path.read_text() == "mine"


@pytest.mark.parametrize(("everywhere", "here"), [("0.0.0.0", "127.0.0.1"), ("::", "[::1]")])
def test_where_a_browser_finds_the_pages(everywhere: str, here: str) -> None:
    """Nobody can open 0.0.0.0: it is every address of the machine, and the page is for this one."""
    try:
        far = bind_tcp(everywhere, 0)
    except OSError:
        pytest.skip("this machine has no IPv6")
    near = bind_tcp("127.0.0.1", 0)
    try:
        assert reachable([far]) == f"{here}:{far.getsockname()[1]}"
        assert reachable([far, near]) == f"127.0.0.1:{near.getsockname()[1]}"
        assert reachable([]) == ""
        for sockets in ([far], [near]):
            assert reachable(sockets) in own_hosts(sockets)
    finally:
        closing([far, near])


@pytest.mark.parametrize(("ours", "other"), [("127.0.0.1", "::1"), ("::1", "127.0.0.1")])
def test_nobody_else_gets_where_our_names_lead_as_well(ours: str, other: str) -> None:
    """Chromium tries ``::1`` first for ``NAME.localhost``: whose page is there has that origin."""
    port = free_on_both()
    with bind_tcp(ours, port) as listener:
        listener.listen()
        held, taken = hold_names([listener])
        try:
            assert ([each.getsockname()[:2] for each in held], taken) == ([(other, port)], [])
            with pytest.raises(OSError, match="in use"):
                bind_tcp(other, port)
            with pytest.raises(ConnectionRefusedError):
                socket.create_connection((other, port))
        finally:
            closing(held)


def test_where_somebody_is_already() -> None:
    port = free_on_both()
    with bind_tcp("127.0.0.1", port) as listener, bind_tcp("::1", port) as squatter:
        squatter.listen()
        assert hold_names([listener]) == ([], [f"[::1]:{port}"])


def test_both_are_ours(tmp_path: Path) -> None:
    places = f":{free_on_both()}", f"unix:{tmp_path}/sock"
    sockets = [each for place in places for each in listen(parse_bind(place))]
    try:
        assert hold_names(sockets) == ([], [])
    finally:
        closing(sockets)
