"""Sign-in through a real SOCKS tunnel: ``ssh -D`` to an sshd on loopback."""

from __future__ import annotations

import os
import pwd
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.e2e.conftest import APP, USER_ARN, Stack, curl
from tests.support.processes import Child, base_env, free_port, program, wait_for_port

pytestmark = pytest.mark.e2e


class Bastion:
    """An sshd of our own, and tunnels to it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = free_port()
        for name in ("host", "user"):
            subprocess.run(
                [program("ssh-keygen"), "-q", "-t", "ed25519", "-N", "", "-f", str(folder / name)],
                check=True,
            )
        (folder / "authorized").write_text((folder / "user.pub").read_text())
        (folder / "sshd_config").write_text(
            f"Port {self.port}\nListenAddress 127.0.0.1\nHostKey {folder}/host\n"
            f"AuthorizedKeysFile {folder}/authorized\nPidFile none\nUsePAM no\n"
            "PasswordAuthentication no\nKbdInteractiveAuthentication no\nStrictModes no\n"
            "PermitRootLogin prohibit-password\n"
        )
        if os.getuid() == 0:
            Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
        self.sshd = Child([program("sshd"), "-D", "-e", "-f", str(folder / "sshd_config")])
        wait_for_port(self.port, self.sshd)

    @contextmanager
    def tunnel(self, port: int) -> Iterator[Child]:
        """``ssh -D``, once it listens."""
        argv = [program("ssh"), "-F", "none", "-N", "-D", f"127.0.0.1:{port}"]
        argv += ["-p", str(self.port), "-i", str(self.folder / "user")]
        for option in (
            "StrictHostKeyChecking=no",
            f"UserKnownHostsFile={self.folder}/known",
            "ExitOnForwardFailure=yes",
            "BatchMode=yes",
        ):
            argv += ["-o", option]
        with Child([*argv, f"{pwd.getpwuid(os.getuid()).pw_name}@127.0.0.1"], base_env()) as ssh:
            wait_for_port(port, ssh)
            yield ssh


@pytest.fixture
def bastion(tmp_path: Path) -> Iterator[Bastion]:
    found = Bastion(tmp_path)
    yield found
    found.sshd.stop()


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
