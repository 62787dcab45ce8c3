"""``--ssh-bastion`` and ``[via.NAME] ssh_bastion``: a real ssh to a real sshd, kept going."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.conftest import APP, USER_ARN, Stack, curl
from tests.support.bastion import Bastion
from tests.support.processes import PATIENCE, Proxy, children_of, free_port
from tests.support.terminal import Terminal

pytestmark = pytest.mark.e2e

OUTSIDE = "http://www.example.com"


@pytest.fixture
def bastion(tmp_path: Path) -> Iterator[Bastion]:
    found = Bastion(tmp_path)
    yield found
    found.stop()


def until(condition: Callable[[], Any]) -> Any:
    """What the condition comes to: what it looks at announces nothing."""
    pause = threading.Event()
    for _ in range(int(PATIENCE / 0.05)):
        found = condition()
        if found:
            return found
        pause.wait(0.05)
    raise AssertionError("it never came to that")


def tunnels(proxy: Proxy) -> list[int]:
    """The process ids of the proxy's ssh."""
    return [pid for pid, name in children_of(proxy.process.pid).items() if name == "ssh"]


def is_there(pid: int) -> bool:
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False


def status(proxy: Proxy, env: dict[str, str]) -> dict[str, Any]:
    argv = [sys.executable, "-m", "iam_auth_proxy", "status", "--json", "--bind", proxy.address]
    done = subprocess.run(argv, capture_output=True, text=True, env=env, check=True)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_it_begins_dies_and_comes_back(stack: Stack, bastion: Bastion) -> None:
    env = stack.env()
    outside = ["--connect-to", f"www.example.com:80:127.0.0.1:{stack.app_port}"]
    with stack.proxy(*bastion.flags(), *outside, env=env) as proxy:
        proxy.wait_for("the ssh tunnel is up")
        (first,) = tunnels(proxy)
        assert f"ok {USER_ARN}" in curl(proxy, f"{APP}/check")
        state = {"name": "ssh://bastion", "state": "up", "words": "", "starts": 1}
        document = status(proxy, env)
        assert document["tunnels"] == [state]
        assert document["counters"]["ssh_starts"] == document["gauges"]["ssh_tunnels_up"] == 1

        os.kill(first, signal.SIGKILL)
        proxy.wait_for("the ssh tunnel is down")
        assert f"ok {USER_ARN}" in curl(proxy, f"{APP}/check"), "a request makes it start at once"
        (second,) = tunnels(proxy)
        assert second != first

        bastion.stop()
        until(lambda: "Connection refused" in curl(proxy, f"{APP}/check"))
        down = curl(proxy, "-D", "-", "-H", "Accept: text/html", f"{APP}/check")
        assert "502" in down.splitlines()[0]
        assert "Proxy-Status: iam-auth-proxy; error=destination_unavailable" in down
        assert "The ssh tunnel to the app is down." in down
        assert "ssh said: ssh: connect to host 127.0.0.1 port" in down
        assert "Connection refused" in down
        assert "<pre>ssh bastion</pre>" in down
        shown = status(proxy, env)["tunnels"][0]
        assert shown["state"] in ("down", "starting")

        # What is no app has never gone that way.
        assert "HTTP/1.1" in curl(proxy, "-D", "-", f"{OUTSIDE}/")
        assert "Proxy-Status" not in curl(proxy, "-D", "-", f"{OUTSIDE}/")

        bastion.start()
        until(lambda: f"ok {USER_ARN}" in curl(proxy, f"{APP}/check"))
        (third,) = tunnels(proxy)
    assert not is_there(third), "it ends with the proxy"


def test_what_ssh_says_of_an_app_that_it_cannot_reach(stack: Stack, bastion: Bastion) -> None:
    flags = ["--trust", "http://down.test", "--connect-to", f"down.test:80:127.0.0.1:{free_port()}"]
    with stack.proxy(*bastion.flags(), *flags) as proxy:
        shown = curl(proxy, "-D", "-", "http://down.test/")
        assert "502" in shown.splitlines()[0]
        assert "The tunnel is up, but it could not reach 127.0.0.1:" in shown
        assert "open failed: connect failed: Connection refused" in shown


def test_it_ends_with_a_proxy_that_is_killed(stack: Stack, bastion: Bastion) -> None:
    proxy = Proxy(*bastion.flags(), env=stack.env())
    try:
        proxy.wait_for("the ssh tunnel is up")
        (pid,) = tunnels(proxy)
        proxy.process.kill()
        proxy.process.wait()
        until(lambda: not is_there(pid))
    finally:
        proxy.stop()


def test_a_route_of_its_own_from_the_first_need_on(
    stack: Stack, bastion: Bastion, tmp_path: Path
) -> None:
    config = tmp_path / "config.toml"
    app = f'[[app]]\norigin = "{APP}"\nvia = "jump"\n'
    route = f'[via.jump]\nssh_bastion = "bastion"\nssh = ["ssh", "-F", "{bastion.config}"]\n'
    config.write_text(
        f'connect_to = ["app.test:80:127.0.0.1:{stack.app_port}", '
        f'"direct.test:80:127.0.0.1:{stack.app_port}"]\n{app}{route}'
    )
    proxy = Proxy("--config", str(config), env=stack.env())
    try:
        assert "Proxy-Status" not in curl(proxy, "-D", "-", "http://direct.test/healthz")
        assert not tunnels(proxy), "nobody needed it yet"
        assert f"ok {USER_ARN}" in curl(proxy, f"{APP}/check")
        (pid,) = tunnels(proxy)

        # A reload that changes nothing about it leaves it alone; one that does not want it ends it.
        proxy.process.send_signal(signal.SIGHUP)
        proxy.wait_for("configuration reloaded")
        assert tunnels(proxy) == [pid]
        config.write_text(config.read_text().replace(route, "").replace('via = "jump"\n', ""))
        proxy.process.send_signal(signal.SIGHUP)
        until(lambda: not is_there(pid))
    finally:
        assert proxy.stop() == 0, proxy.output


def test_without_a_terminal_nothing_is_asked(stack: Stack, bastion: Bastion) -> None:
    """A key with a passphrase, and nobody to type it."""
    bastion.lock_key("hunter2")
    with stack.proxy(*bastion.flags()) as proxy:
        shown = curl(proxy, "-D", "-", f"{APP}/check")
        assert "502" in shown.splitlines()[0]
        assert "ssh said:" in shown
        assert "Permission denied (publickey)." in shown


def test_with_a_terminal_it_asks_there(stack: Stack, bastion: Bastion) -> None:
    bastion.lock_key("hunter2")
    argv = [sys.executable, "-m", "iam_auth_proxy", "run", "--bind", "127.0.0.1:0"]
    terminal = Terminal([*argv, *bastion.flags()], stack.env())
    try:
        terminal.wait_for("passphrase for key")
        terminal.type("hunter2\n")
        terminal.wait_for("the ssh tunnel is up")
        terminal.type("\x03")
        assert terminal.wait() == 0
    finally:
        terminal.close()


def test_a_host_that_is_an_option_of_ssh(stack: Stack) -> None:
    host = "-oProxyCommand=touch${IFS}x"
    argv = [sys.executable, "-m", "iam_auth_proxy", "config", "check", f"--ssh-bastion={host}"]
    done = subprocess.run(argv, capture_output=True, text=True, env=stack.env(), check=False)
    assert done.returncode == 2
    assert "a bastion is [USER@]HOST" in done.stdout + done.stderr
