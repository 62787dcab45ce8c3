"""Sign-in through a real SOCKS tunnel: ``ssh -D`` to an sshd on loopback."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.conftest import APP, USER_ARN, Stack, curl
from tests.support.bastion import Bastion
from tests.support.processes import free_port

pytestmark = pytest.mark.e2e


@pytest.fixture
def bastion(tmp_path: Path) -> Iterator[Bastion]:
    found = Bastion(tmp_path)
    yield found
    found.stop()


def test_sign_in_through_ssh_and_a_tunnel_that_dies_and_comes_back(
    stack: Stack, bastion: Bastion
) -> None:
    port = free_port()
    with stack.proxy("--socks-proxy", f"127.0.0.1:{port}") as proxy:
        down = curl(proxy, "-D", "-", f"{APP}/check")
        assert "502" in down.splitlines()[0]
        assert "Proxy-Status: iam-auth-proxy; error=" in down
        assert f"127.0.0.1:{port}" in down, "the page names the tunnel"
        assert "ssh" in down, "and what to do"
        with bastion.tunnel(port):
            assert f"ok {USER_ARN}" in curl(proxy, f"{APP}/check")
        assert "502" in curl(proxy, "-D", "-", f"{APP}/check").splitlines()[0]
        with bastion.tunnel(port):
            assert f"ok {USER_ARN}" in curl(proxy, f"{APP}/check")


def test_the_tunnel_is_up_but_the_app_is_not(stack: Stack, bastion: Bastion) -> None:
    port, nobody = free_port(), free_port()
    flags = ["--socks-proxy", f"127.0.0.1:{port}", "--trust", "http://down.test"]
    flags += ["--connect-to", f"down.test:80:127.0.0.1:{nobody}"]
    with bastion.tunnel(port), stack.proxy(*flags) as proxy:
        shown = curl(proxy, "-D", "-", "http://down.test/")
        assert "502" in shown.splitlines()[0]
        assert "the tunnel is up" in shown.lower()
