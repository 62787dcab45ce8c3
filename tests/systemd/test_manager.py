"""The units under a real service manager of an unprivileged user, with all the hardening in force.

It runs in namespaces of its own (mounts and processes; nothing of it stays), which only root can
make. Everywhere else the tests are skipped and say so: no package would help.
"""

import json
import os
import shutil
import socket
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
UNITS = ROOT / "systemd"
UID = 61234
# What the proxy is run from. Homes are hidden from the manager's user, and /tmp from the service.
NEEDED = sorted({sys.base_prefix, sys.prefix, str(ROOT)})


def _obstacle() -> str:
    """Why no service manager can be started here; empty if one can."""
    if os.geteuid() != 0:
        return "needs root, to make the namespaces that a service manager runs in"
    trial = subprocess.run(
        ["unshare", "-m", "-p", "-f", "--mount-proc", "mount", "-t", "tmpfs", "x", "/mnt"],
        capture_output=True,
        check=False,
    )
    if trial.returncode:
        return "this machine lets nobody make mount namespaces"
    userns = ["setpriv", f"--reuid={UID}", f"--regid={UID}", "--clear-groups", "unshare", "-Ur"]
    if subprocess.run([*userns, "true"], capture_output=True, check=False).returncode:
        return "this machine lets no unprivileged user make a user namespace"
    return "" if _groups() else "no control group of systemd's is writable here"


def _groups() -> list[Path]:
    """Where a control group can be made for the manager: cgroup v2, and v1's named hierarchy."""
    mounts = [line.split() for line in Path("/proc/self/mounts").read_text().splitlines()]
    return [
        Path(place)
        for _, place, kind, options, *_ in mounts
        if kind == "cgroup2" or (kind == "cgroup" and "name=systemd" in options)
        if os.access(place, os.W_OK) and "rw" in options.split(",")
    ]


OBSTACLE = _obstacle()
pytestmark = pytest.mark.skipif(bool(OBSTACLE), reason=OBSTACLE)

# The machine as the manager sees it: a home of its own, the few folders that booting makes, and
# nothing that would stay.
OUTSIDE = """
set -e
mount --make-rprivate /
mount -t tmpfs -o mode=755 none /media
cp -R {work} /media/units; chmod -R a+rX /media/units
{save}
mount -t tmpfs -o mode=755 none /root
mount -t tmpfs -o mode=755 none /home
mount -t tmpfs -o mode=1777 none /tmp
mount -t tmpfs -o mode=1777 none /var/tmp
{restore}
mount -t tmpfs -o mode=755 none /run
mkdir -p /run/systemd/unit-root /run/systemd/system /run/user/{uid}
units=/home/alice/.config/systemd/user
mkdir -p $units/iam-auth-proxy.service.d $units/iam-auth-proxy.socket.d
mkdir -p /home/alice/.aws /home/alice/.local/bin
cp /media/units/iam-auth-proxy.* $units
printf '[Unit]\\nDescription=nothing\\n' > $units/nothing.target
printf '[Socket]\\nListenStream=\\nListenStream=127.0.0.1:{port}\\n' \\
    > $units/iam-auth-proxy.socket.d/port.conf
cat > $units/iam-auth-proxy.service.d/test.conf <<'EOT'
[Service]
StandardError=append:%h/log
StandardOutput=append:%h/log
BindReadOnlyPaths={shown}
{dropin}
EOT
printf '#!/bin/sh\\nexec {python} -m iam_auth_proxy "$@"\\n' > /home/alice/.local/bin/iam-auth-proxy
chmod 755 /home/alice/.local/bin/iam-auth-proxy
cp /media/units/probe.py /home/alice
chown -R {uid}:{uid} /home/alice /run/user/{uid}
exec setpriv --reuid={uid} --regid={uid} --clear-groups --inh-caps=-all \\
    env -i HOME=/home/alice XDG_RUNTIME_DIR=/run/user/{uid} PATH=/usr/bin:/bin \\
    SYSTEMD_PAGER= sh /media/units/inside
"""

INSIDE = """
{manager} --user --unit=nothing.target > ~/manager 2>&1 &
for _ in $(seq 100); do systemctl --user is-system-running > ~/state 2>&1; \\
    grep -qE 'running|degraded' ~/state && break; sleep 0.1; done
{{
{script}
}} 2>&1
echo "== log"
cat ~/log
kill %1
"""


class Manager:
    """Runs a shell script beside the service manager and gives what it printed."""

    def __init__(self, work: Path) -> None:
        self.work = work
        with socket.socket() as trial:
            trial.bind(("127.0.0.1", 0))
            self.port: int = trial.getsockname()[1]

    def run(self, script: str, dropin: str = "", probe: str = "") -> str:
        """The words of ``script`` and, after ``== log``, those of the service.

        :param dropin: further lines of the service's section.
        :param probe: a Python program, put at ``%h/probe.py``.
        """
        manager = next(
            path
            for path in ("/usr/lib/systemd/systemd", "/lib/systemd/systemd")
            if Path(path).exists()
        )
        for unit in UNITS.iterdir():
            shutil.copy(unit, self.work)
        hidden = [
            (path, f"/media/needed{number}")
            for number, path in enumerate(NEEDED)
            if path.startswith(("/root/", "/home/", "/tmp/", "/var/tmp/"))
        ]
        (self.work / "probe.py").write_text(textwrap.dedent(probe))
        (self.work / "inside").write_text(INSIDE.format(manager=manager, script=script))
        (self.work / "outside").write_text(
            OUTSIDE.format(
                save="\n".join(f"mkdir {at}; mount --rbind {path} {at}" for path, at in hidden),
                restore="\n".join(
                    f"mkdir -p {path}; mount --rbind {at} {path}" for path, at in hidden
                ),
                shown=" ".join(NEEDED),
                work=self.work,
                uid=UID,
                port=self.port,
                dropin=dropin,
                python=sys.executable,
            )
        )
        groups = [group / f"iam-auth-proxy-test-{os.getpid()}" for group in _groups()]
        for group in groups:
            group.mkdir()
            for path in (group, *group.iterdir()):
                os.chown(path, UID, UID)
        enter = "".join(f"echo $$ > {group}/cgroup.procs; " for group in groups)
        try:
            answer = subprocess.run(
                ["sh", "-c", f"{enter} exec unshare -mpf --mount-proc sh {self.work}/outside"],
                capture_output=True,
                text=True,
                timeout=90,
                check=False,
            )
        finally:
            for group in groups:
                for path in sorted(group.glob("**/"), reverse=True):
                    path.rmdir()
        return answer.stdout + answer.stderr


@pytest.fixture
def manager(tmp_path: Path) -> Manager:
    return Manager(tmp_path)


def test_it_starts_at_the_first_connection_reloads_and_stops(manager: Manager) -> None:
    said = manager.run(
        f"""
        systemctl --user start iam-auth-proxy.socket
        systemctl --user is-active iam-auth-proxy.service
        curl -sS -o /dev/null -w '%{{http_code}}\\n' -x 127.0.0.1:{manager.port} http://127.0.0.1:9/
        systemctl --user is-active iam-auth-proxy.service
        systemctl --user reload iam-auth-proxy.service && echo reloaded
        pid=$(systemctl --user show -P MainPID iam-auth-proxy.service)
        grep -E '^(CapBnd|NoNewPrivs|Seccomp):' /proc/$pid/status
        systemctl --user stop iam-auth-proxy.socket iam-auth-proxy.service
        systemctl --user show -P Result iam-auth-proxy.service
        """
    )
    words = said.split()
    assert words[:5] == ["inactive", "403", "active", "reloaded", "CapBnd:"], said
    assert words[5:][:1] == ["0" * 16]
    assert words[6:10] == ["NoNewPrivs:", "1", "Seccomp:", "2"]
    assert words[10] == "success", said
    assert "Traceback" not in said


def test_a_proxy_that_hangs_is_started_again(manager: Manager) -> None:
    said = manager.run(
        """
        systemctl --user start iam-auth-proxy.service
        kill -STOP $(systemctl --user show -P MainPID iam-auth-proxy.service)
        for _ in $(seq 150); do
            [ "$(systemctl --user show -P NRestarts iam-auth-proxy.service)" = 1 ] && break
            sleep 0.1
        done
        systemctl --user show -P NRestarts iam-auth-proxy.service
        """,
        dropin="WatchdogSec=1",
    )
    assert said.split()[0] == "1", said


def test_a_configuration_that_cannot_be_used_is_not_tried_again(manager: Manager) -> None:
    said = manager.run(
        """
        mkdir -p ~/.config/iam-auth-proxy; echo 'regoin = 1' > ~/.config/iam-auth-proxy/config.toml
        systemctl --user start iam-auth-proxy.service 2> ~/why || echo refused
        systemctl --user show -P NRestarts -P ExecMainStatus iam-auth-proxy.service
        """
    )
    assert said.split()[:3] == ["refused", "0", "2"], said
    assert "did you mean region?" in said


PROBE = """
    import asyncio, json, mmap, socket, subprocess, sys, tempfile
    import boto3, cryptography.x509, uvloop
    from botocore.exceptions import ClientError
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM
    from pathlib import Path
    from iam_auth_proxy.config import parse_trust
    from iam_auth_proxy.local_aws import LocalAws
    from iam_auth_proxy.proxy.decisions.trustfile import TrustFile

    def trying(action, *args):
        try:
            action(*args)
        except OSError as error:
            return error.strerror
        except ClientError:
            return "answered"
        return "done"

    async def main():
        with LocalAws() as aws, tempfile.TemporaryFile() as file:
            sts = boto3.client("sts", endpoint_url=aws.url, region_name="eu-west-1",
                               aws_access_key_id="A" * 20, aws_secret_access_key="b" * 40)
            said = {"sts": await asyncio.to_thread(trying, sts.get_caller_identity)}
            file.write(AESGCM(b"k" * 32).encrypt(b"n" * 12, b"d", b""))
        for path in ("/home/alice/x", "/home/alice/.aws/sso", "/etc/x"):
            said[path] = trying(open, path, "w")
        store = TrustFile(Path("/home/alice/.config/iam-auth-proxy/trust.toml"))
        said["trust"] = trying(store.add, parse_trust("http://app.test"))
        said["child"] = subprocess.run(["echo", "hi"], capture_output=True, text=True).stdout
        executable = mmap.PROT_WRITE | mmap.PROT_EXEC
        said["wx"] = trying(lambda: mmap.mmap(-1, 4096, prot=executable))
        said["netlink"] = trying(socket.socket, socket.AF_NETLINK, socket.SOCK_DGRAM, 4)
        said["packet"] = trying(socket.socket, socket.AF_PACKET, socket.SOCK_DGRAM)
        print(json.dumps(said), flush=True)

    uvloop.run(main())
"""


def test_what_the_proxy_does_is_allowed_and_the_rest_is_not(manager: Manager) -> None:
    said = manager.run(
        """
        systemctl --user start iam-auth-proxy.service
        for _ in $(seq 200); do grep -q '^{' ~/log 2> /dev/null && break; sleep 0.1; done
        """,
        dropin=f"Type=exec\nRestart=no\nExecStart=\nExecStart={sys.executable} %h/probe.py",
        probe=PROBE,
    )
    found = [line for line in said.splitlines() if line.startswith("{")]
    assert found, said
    assert json.loads(found[0]) == {
        "sts": "answered",
        "/home/alice/x": "Read-only file system",
        "/home/alice/.aws/sso": "done",
        "/etc/x": "Read-only file system",
        "trust": "done",
        "child": "hi\n",
        "wx": "Operation not permitted",
        "netlink": "done",
        "packet": "Address family not supported by protocol",
    }
