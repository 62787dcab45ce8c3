"""What goes through a bastion, and what never touches it."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Sequence
from pathlib import Path

import pytest

from iam_auth_proxy import config
from iam_auth_proxy.names import parse_origin
from iam_auth_proxy.proxy.pages import pac
from iam_auth_proxy.proxy.process.build import Parts
from iam_auth_proxy.proxy.upstream.bastion import Bastion
from tests.proxy.conftest import exchange
from tests.support.tls_peers import speaking
from tests.support.upstreams import Socks5

BASTION = "ssh://ann@bastion"


async def no_own_pages() -> socket.socket:
    raise OSError("none here")


class Built:
    """Parts that are never dialled with, but for what a test does."""

    def __init__(self, settings: config.Settings) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.parts = Parts(settings, {}, [self.listener], no_own_pages, None)

    def route(self, origin: str) -> str:
        """How an origin is reached: the name of a way, or "directly"."""
        via = self.parts._route.dialer._via_for(parse_origin(origin))
        return "directly" if via is None else str(via)

    async def close(self) -> None:
        await self.parts.close()
        self.listener.close()


@pytest.fixture(autouse=True)
def started(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The bastions that were started; none really is."""
    names: list[str] = []
    monkeypatch.setattr(Bastion, "start", lambda self: names.append(self.name))
    return names


def of_flags(**flags: str | Sequence[str]) -> config.Settings:
    return config.load({name.replace("_", "-"): text for name, text in flags.items()}, {}, [])


@pytest.mark.parametrize(
    ("origin", "through"),
    [
        ("http://app.corp.example", True),  # listed
        ("https://app.corp.example", True),  # what a browser tries besides
        ("http://app.corp.example:8443", True),
        ("https://wiki.corp.example", True),
        ("https://a.apps.example", True),  # of a wildcard
        ("http://grafana.internal", True),  # no public name, so the first contact finds it
        ("https://grafana.internal", True),
        ("http://intranet", True),
        ("https://www.example.com", False),
        ("http://www.example.com", False),
        ("https://other.corp.example", False),
        ("https://apps.example", False),
        ("https://internal", True),
        ("https://internal.example.com", False),
        ("https://192.0.2.7", False),
        ("http://10.1.2.3", False),
        ("http://localhost", False),
        ("http://wiki.localhost", False),
        ("https://[2001:db8::7]", False),
    ],
)
async def test_the_bastion_is_for_apps_alone(origin: str, through: bool) -> None:
    listed = ["http://app.corp.example", "https://wiki.corp.example", "https://*.apps.example"]
    built = Built(of_flags(ssh_bastion="ann@bastion", trust=listed))
    try:
        assert built.route(origin) == (BASTION if through else "directly")
    finally:
        await built.close()


async def test_an_app_that_a_command_opens_is_one() -> None:
    built = Built(of_flags(ssh_bastion="ann@bastion"))
    try:
        assert built.route("http://new.corp.example") == "directly"
        built.parts.reach(parse_origin("http://new.corp.example"))
        assert built.route("http://new.corp.example") == BASTION
    finally:
        await built.close()


async def test_routes_of_apps(tmp_path: Path, started: list[str]) -> None:
    file = tmp_path / "config.toml"
    file.write_text(
        '[via.jump]\nssh_bastion = "ann@bastion"\n[via.socks]\nsocks = "127.0.0.1:1080"\n'
        '[[app]]\norigin = "http://a.test"\nvia = "jump"\n'
        '[[app]]\norigin = "https://b.test"\nvia = "socks"\n'
        '[[app]]\norigin = "http://c.test"\n'
    )
    built = Built(config.load({}, {}, [file]))
    try:
        built.parts.start_bastions()
        assert started == [], "not before somebody needs it"
        routes = {
            "http://a.test": BASTION,
            "https://a.test": BASTION,
            "https://b.test": "socks5h://127.0.0.1:1080",
            "http://c.test": "directly",
            "http://grafana.internal": "directly",
            "https://www.example.com": "directly",
        }
        assert {origin: built.route(origin) for origin in routes} == routes
    finally:
        await built.close()


async def test_an_app_that_goes_directly_past_the_default(
    tmp_path: Path, started: list[str]
) -> None:
    file = tmp_path / "config.toml"
    file.write_text(
        'ssh_bastion = "ann@bastion"\nssh = ["ssh", "-F", "/x"]\n'
        '[[app]]\norigin = "http://near.internal"\nvia = "direct"\n'
    )
    settings = config.load({}, {}, [file])
    assert settings.ssh == ("ssh", "-F", "/x")
    built = Built(settings)
    try:
        built.parts.start_bastions()
        assert started == [BASTION], "at once, since it is for everything"
        assert built.route("http://near.internal") == "directly"
        assert built.route("http://far.internal") == BASTION
    finally:
        await built.close()


async def test_a_browser_is_not_even_told_to_come_here() -> None:
    """With the PAC, what is no app never reaches the proxy at all."""
    built = Built(of_flags(ssh_bastion="ann@bastion", trust=["http://app.corp.example"]))
    try:
        script = pac.script(built.parts.reaches(), "127.0.0.1:8080")
        assert "app.corp.example" in script
        assert "bastion" not in script
        assert 'return "DIRECT"' in script
    finally:
        await built.close()


async def test_exchanges_go_there_and_others_do_not(monkeypatch: pytest.MonkeyPatch) -> None:
    async with speaking(None) as port, Socks5(names={"app.test": ("127.0.0.1", port)}) as far:

        async def opened(self: Bastion) -> tuple[str, int]:
            return "127.0.0.1", far.port

        monkeypatch.setattr(Bastion, "open", opened)
        mapped = f"www.example.com:80:127.0.0.1:{port}"
        built = Built(of_flags(ssh_bastion="bastion", trust=["http://app.test"], connect_to=mapped))
        server = await asyncio.get_running_loop().create_server(
            built.parts.relay.connection, "127.0.0.1", 0
        )
        near = server.sockets[0].getsockname()[1]
        try:
            for host in ("app.test", "www.example.com"):
                request = f"GET http://{host}/ HTTP/1.1\r\nHost: {host}\r\n"
                request += "Connection: close\r\n\r\n"
                assert (await exchange(near, request.encode())).endswith(b"hello")
            assert far.asked == [("app.test", 80)]
        finally:
            server.close()
            await built.close()
