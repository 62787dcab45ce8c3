"""A loopback address for each alias: who answers there, and who comes later."""

from __future__ import annotations

import asyncio
import re
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from iam_auth_proxy import config
from iam_auth_proxy.config import parse_trust
from iam_auth_proxy.config.values import parse_alias_of
from iam_auth_proxy.errors import ConfigError
from iam_auth_proxy.names import parse_origin
from iam_auth_proxy.proxy.decisions.trust import Trust
from iam_auth_proxy.proxy.decisions.trustfile import TrustFile
from iam_auth_proxy.proxy.https.aliases import Aliases, address_of, addresses, app_of
from iam_auth_proxy.proxy.listeners.entrance import Entrance
from iam_auth_proxy.proxy.listeners.listen import bind_tcp
from iam_auth_proxy.proxy.process.build import Parts
from iam_auth_proxy.proxy.process.running import running
from tests.support.processes import free_on_both, free_port

WIKI = parse_origin("https://wiki.test")


def test_an_address_is_the_same_for_ever() -> None:
    """A browser keeps cookies for it: it must not become another app's."""
    assert (address_of("wiki"), address_of("docs")) == ("127.181.13.170", "127.133.253.228")


def test_no_address_is_a_network_or_a_neighbour_of_localhost() -> None:
    for number in range(3000):
        address = address_of(f"app-{number}")
        match = re.fullmatch(r"127\.(\d+)\.(\d+)\.(\d+)", address)
        assert match is not None
        assert 1 <= int(match[1]) <= 254
        assert 1 <= int(match[3]) <= 254


def test_which_address_is_whose() -> None:
    trust = Trust([parse_alias_of("wiki=https://wiki.test")])
    place = f"{address_of('wiki')}:8090"
    assert addresses(trust.aliases, 8090) == {place: "wiki"}
    assert addresses(trust.aliases, 80) == {address_of("wiki"): "wiki"}
    aliases = Aliases(lambda: trust, (), lambda: 0.0, 8090)
    local = Entrance("local", peers=None)
    assert aliases.serves(place.encode(), local) == WIKI
    for host in ("127.0.0.1:8090", f"{address_of('docs')}:8090", place[:-1], "wiki.localhost:8090"):
        assert aliases.serves(host.encode(), local) is None
    network = Entrance("network", peers=None, local=False)
    assert aliases.serves(place.encode(), network) is None
    assert Aliases(lambda: trust, (), lambda: 0.0).serves(place.encode(), local) is None
    assert app_of(parse_origin(f"http://{place}"), trust, "", 8090) == WIKI
    assert app_of(parse_origin(f"http://{place}"), trust, "") != WIKI


@asynccontextmanager
async def serving(tmp_path: Path, port: int) -> AsyncIterator[tuple[Parts, int]]:
    file = tmp_path / "config.toml"
    file.write_text("")
    flags = {"alias": ["wiki=https://wiki.test"], "alias-port": str(port)}
    flags["connect-to"] = [f"{host}.test:443:127.0.0.1:{port}" for host in ("wiki", "docs")]
    own = free_on_both()
    listener = bind_tcp("127.0.0.1", own)
    async with running(config.load(flags, {}, [file]), {}, [listener], None) as parts:
        yield parts, own


async def status(host: str, port: int, name: str = "") -> int:
    reader, writer = await asyncio.open_connection(host, port)
    writer.write(b"GET / HTTP/1.1\r\nHost: %b\r\n\r\n" % (name or f"{host}:{port}").encode())
    line = await asyncio.wait_for(reader.readline(), 20)
    writer.close()
    return int(line.split()[1])


async def test_each_is_served_at_its_own_and_nothing_else_is(tmp_path: Path) -> None:
    port = free_port()
    address = address_of("wiki")
    async with serving(tmp_path, port) as (parts, own):
        # Nobody answers for the app: what is asked is passed on all the same.
        assert await status(address, port) == 502
        assert await status("127.0.0.1", own, f"wiki.localhost:{own}") == 502
        for name in ("wiki.localhost:1", f"127.0.0.1:{own}:", "localhost", f"localhost:{port}"):
            assert await status(address, port, name) in (400, 421)
        assert parts.alias_of(WIKI) == f"http://wiki.localhost:{own}"
        assert parts.alias_address_of(WIKI) == f"http://{address}:{port}"
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection("127.0.0.1", port)


async def test_one_that_is_listed_later(tmp_path: Path) -> None:
    port = free_port()
    async with serving(tmp_path, port) as (_, own):
        rule = parse_alias_of("docs=https://docs.test")
        TrustFile(tmp_path / "trust.toml").add(rule)
        assert await status("127.0.0.1", own, f"docs.localhost:{own}") == 502
        async with asyncio.timeout(20):
            while True:
                try:
                    found = await status(address_of("docs"), port)
                    break
                except OSError:
                    await asyncio.sleep(0.01)  # nothing says when it listens
        assert found == 502
        # And no longer: its listener stays, and knows no app.
        TrustFile(tmp_path / "trust.toml").remove(parse_trust("https://docs.test"))
        assert await status(address_of("docs"), port) == 421


async def test_an_address_that_is_taken(tmp_path: Path) -> None:
    with socket.create_server((address_of("wiki"), 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError) as raised:
            async with serving(tmp_path, port):
                pass
    (problem,) = raised.value.problems
    assert problem.place == "--alias-port"
    assert problem.text == f"{address_of('wiki')}:{port} is in use; take another port"


async def test_a_name_that_leads_to_another_program_as_well_is_no_app(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Its pages would be of the alias's own origin: browsers try ``::1`` first."""
    port = free_on_both()
    with bind_tcp("::1", port) as squatter:
        squatter.listen()
        ours = bind_tcp("127.0.0.1", port)
        file = tmp_path / "config.toml"
        file.write_text("")
        settings = config.load({"alias": ["wiki=https://wiki.test"]}, {}, [file])
        async with running(settings, {}, [ours], None):
            assert await status("127.0.0.1", port, f"wiki.localhost:{port}") == 421
            assert await status("127.0.0.1", port, f"localhost:{port}") == 421
            assert await status("127.0.0.1", port, f"127.0.0.1:{port}") == 200
    assert f"another program is at [::1]:{port}" in caplog.text


async def test_nobody_listens_where_an_alias_leads_as_well(tmp_path: Path) -> None:
    async with serving(tmp_path, free_port()) as (_, own):
        with pytest.raises(OSError, match="in use"):
            bind_tcp("::1", own)
