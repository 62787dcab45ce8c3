"""An sshd of a test's own on loopback, and ways to it."""

from __future__ import annotations

import os
import pwd
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tests.support.processes import (
    Child,
    base_env,
    children_of,
    free_port,
    program,
    wait_for_port,
)


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
        # ssh ignores $HOME, so the person's file is another: this one has nothing of theirs.
        self.user = pwd.getpwuid(os.getuid()).pw_name
        self.config = folder / "ssh_config"
        self.config.write_text(
            f"Host bastion\n  HostName 127.0.0.1\n  Port {self.port}\n  User {self.user}\n"
            f"  IdentityFile {folder}/user\n  IdentitiesOnly yes\n"
            f"  StrictHostKeyChecking no\n  UserKnownHostsFile {folder}/known\n"
        )
        self.start()

    def start(self) -> None:
        """Listen, at first or again."""
        config = str(self.folder / "sshd_config")
        self.sshd = Child([program("sshd"), "-D", "-e", "-f", config])
        wait_for_port(self.port, self.sshd)

    def stop(self) -> None:
        """Nobody listens any more, and connections end."""
        ending = [*children_of(self.sshd.process.pid)]
        for pid in ending:  # the monitor of a connection has a child of its own
            ending += children_of(pid)
        for pid in ending:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.sshd.stop()

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
        with Child([*argv, f"{self.user}@127.0.0.1"], base_env()) as ssh:
            wait_for_port(port, ssh)
            yield ssh

    def flags(self) -> list[str]:
        """Those of a proxy whose person's ssh_config is this one."""
        command = ["ssh", "-F", str(self.config)]
        return ["--ssh-bastion=bastion", *(f"--ssh={word}" for word in command)]

    def lock_key(self, passphrase: str) -> None:
        """From now on the person's key has one."""
        argv = [program("ssh-keygen"), "-q", "-p", "-P", "", "-N", passphrase]
        subprocess.run([*argv, "-f", str(self.folder / "user")], check=True, capture_output=True)
