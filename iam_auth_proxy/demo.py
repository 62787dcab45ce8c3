"""``iam-auth-proxy demo``: an embedded AWS, the example app, the proxy, and a sign-in through them.

Everything is real but AWS: the app and the proxy are child processes with nothing but their own
environment and credentials. What is told of the sign-in was observed: by the client, which is this
process; by a tap on the connection between proxy and app; and in the embedded AWS's call log.
"""

from __future__ import annotations

import contextlib
import http.client
import http.cookies
import importlib.util
import os
import re
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TextIO

from iam_auth_proxy.errors import IamAuthError
from iam_auth_proxy.local_aws.calls import Call
from iam_auth_proxy.local_aws.embedded import LocalAws
from iam_auth_proxy.local_aws.ready import Ready, make_ready

APP: Final = "app.test"
PATIENCE: Final = 30.0
_PORTS: Final = (8080, 8081, 8082)


class DemoFailed(IamAuthError):
    """A part did not start, or the sign-in did not happen."""

    code = "demo"
    public_default = "The demonstration failed."


@dataclass(frozen=True, slots=True)
class Event:
    """Something that was seen: ``at`` in seconds, ``step`` as in the README's picture."""

    at: float
    step: str
    who: str
    what: str


class Timeline:
    """What was seen, by any thread."""

    def __init__(self) -> None:
        self._events: list[Event] = []
        self._lock = threading.Lock()
        self._opened = False

    def see(self, step: str, who: str, what: str) -> None:
        """Something happened now."""
        with self._lock:
            self._events.append(Event(time.perf_counter(), step, who, what))

    def take(self) -> list[Event]:
        """What was seen since the last call, in the order of time."""
        with self._lock:
            seen, self._events = self._events, []
        return sorted(seen, key=lambda event: event.at)

    def call(self, call: Call) -> None:
        """A call that AWS answered.

        The proof is a GetCallerIdentity that the person signed and the app sends: what comes once
        the token is opened. Signing it takes no call, so there are no steps 4 and 5.
        """
        steps = {
            "Encrypt": ("6-7", "proxy -> KMS"),
            "DescribeKey": ("", "app -> KMS"),
            "Decrypt": ("11-12", "app -> KMS"),
            "GetCallerIdentity": ("13-14", "app -> STS") if self._opened else ("", "proxy -> STS"),
        }
        step, who = steps.get(call.action, ("", "? -> AWS"))
        self._opened = call.action == "Decrypt"
        if call.status != 200:
            self.see(step, who, f"{call.action}: {call.status} {call.code}")
        else:
            self.see(step, who, call.action + (", once" if not step else ""))


# -- the tap between proxy and app -----------------------------------------------------------------

_REQUEST = re.compile(rb"([A-Z]+) ([^ ]+) HTTP/1\.1\r\n")
_ANSWER = re.compile(rb"HTTP/1\.1 (\d{3}) ")


class Tap:
    """Passes bytes on between the proxy and the app, and tells the timeline whose they were."""

    def __init__(self, timeline: Timeline, app_port: int) -> None:
        self._timeline = timeline
        self._app_port = app_port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._asked = ""
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        """No further connections."""
        self._listener.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                far = socket.create_connection(("127.0.0.1", self._app_port))
                for source, sink in ((near, far), (far, near)):
                    source.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                    threading.Thread(target=self._pump, args=(source, sink), daemon=True).start()

    def _pump(self, source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                self._look(data)
                sink.sendall(data)
            sink.shutdown(socket.SHUT_WR)

    def _look(self, data: bytes) -> None:
        if request := _REQUEST.match(data):
            path = request[2].decode("ascii", "replace").partition("?")[0]
            auth = path == "/auth"
            signed_in = b"iam-auth=" in data.partition(b"\r\n\r\n")[0]
            self._asked = "10" if auth else "18" if signed_in else "2"
            more = " + token" if auth else " + cookie" if signed_in else ""
            self._timeline.see(self._asked, "proxy -> app", f"{request[1].decode()} {path}{more}")
        elif answer := _ANSWER.match(data):
            step = {"2": "3", "10": "15", "18": "19"}[self._asked]
            status = answer[1].decode()
            more = {"401": " + challenge", "303": " + cookie"}.get(status, "")
            self._timeline.see(step, "app -> proxy", status + more)


# -- the parts -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Demo:
    """What runs."""

    aws: LocalAws
    ready: Ready
    proxy: str
    app_port: int
    timeline: Timeline


@contextlib.contextmanager
def _parts(out: TextIO) -> Iterator[Demo]:
    proxy_port, app_port, aws_port = _ports()
    timeline = Timeline()
    with contextlib.ExitStack() as stack:
        aws = stack.enter_context(LocalAws(port=aws_port, observe=timeline.call))
        ready = make_ready(aws)
        print(f"  embedded AWS   {aws.url}  account {aws.account}, {aws.region}", file=out)
        secret = stack.enter_context(tempfile.NamedTemporaryFile("w", prefix="iam-auth-demo-"))
        secret.write(secrets.token_hex(32))
        secret.flush()
        app_env = _environment(aws, ready.server.access_key_id, ready.server.secret_access_key)
        app_env |= {
            "AWS_ACCOUNT_ID": aws.account,
            "KMS_KEY_ID": ready.key.arn,
            "SECRET_KEY_FILE": secret.name,
            "PORT": str(app_port),
            "IAM_AUTH_ORIGINS": f"http://{APP}",
        }
        stack.enter_context(
            _child("example app", [sys.executable, "-m", "server_example"], app_env, "listening")
        )
        print(f"  example app    http://127.0.0.1:{app_port}  as http://{APP}", file=out)
        tap = stack.enter_context(contextlib.closing(Tap(timeline, app_port)))
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="iam-auth-demo-"))
        (Path(folder) / "config.toml").touch()  # what is pinned stays apart from the person's own
        flags = ["--bind", f"127.0.0.1:{proxy_port}", "--log-format", "json"]
        flags += ["--config", f"{folder}/config.toml"]
        flags += ["--trust", f"http://{APP}", "--connect-to", f"{APP}:80:127.0.0.1:{tap.port}"]
        argv = [sys.executable, "-m", "iam_auth_proxy", "run", *flags]
        user_env = _environment(aws, ready.user.access_key_id, ready.user.secret_access_key)
        stack.enter_context(_child("proxy", argv, user_env, '"ready"'))
        print(f"  proxy          http://127.0.0.1:{proxy_port}  as example-user\n", file=out)
        yield Demo(aws, ready, f"127.0.0.1:{proxy_port}", app_port, timeline)


def _ports() -> list[int]:
    """The usual three where they are free, others where they are not."""
    found: list[int] = []
    with contextlib.ExitStack() as held:
        for port in _PORTS:
            try:
                probe = held.enter_context(socket.create_server(("127.0.0.1", port)))
            except OSError:
                probe = held.enter_context(socket.create_server(("127.0.0.1", 0)))
            found.append(probe.getsockname()[1])
    return found


def _environment(aws: LocalAws, key: str, secret: str) -> dict[str, str]:
    """Nothing of the person's AWS configuration: only the embedded AWS, and these keys."""
    keep = ["PATH", "HOME", "LANG", "TMPDIR", "VIRTUAL_ENV", "SYSTEMROOT"]
    keep.append("XDG_RUNTIME_DIR")  # where other commands find the proxy
    environment = {name: os.environ[name] for name in keep if name in os.environ}
    keys = {"AWS_ACCESS_KEY_ID": key, "AWS_SECRET_ACCESS_KEY": secret, "PYTHONUNBUFFERED": "1"}
    return environment | aws.env | keys


@contextlib.contextmanager
def _child(name: str, argv: list[str], env: Mapping[str, str], ready: str) -> Iterator[None]:
    """A child process, once it has said that it is ready.

    :raises DemoFailed: it ended, or said nothing in time; with its last words.
    """
    said: list[str] = []
    is_ready = threading.Event()

    def read() -> None:
        assert child.stdout is not None
        for line in child.stdout:
            said.append(line.rstrip())
            if ready in line:
                is_ready.set()
        is_ready.set()

    child = subprocess.Popen(
        argv, env=dict(env), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    try:
        in_time = is_ready.wait(PATIENCE)
        if not in_time or child.poll() is not None or not any(ready in line for line in said):
            raise DemoFailed(f"the {name} did not start:\n  " + "\n  ".join(said[-10:]))
        yield
    finally:
        child.terminate()
        try:
            child.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
        reader.join(PATIENCE)


# -- the sign-in -----------------------------------------------------------------------------------


def sign_in(demo: Demo) -> str:
    """One sign-in as a browser does it: redirects followed, cookies kept. The app's last answer.

    :raises DemoFailed: it ended elsewhere.
    """
    host, _, port = demo.proxy.partition(":")
    path, jar = "/check", http.cookies.SimpleCookie()
    steps = [("1", "8"), ("9", "16"), ("17", "20")]
    connection = http.client.HTTPConnection(host, int(port), timeout=PATIENCE)
    with contextlib.closing(connection):
        for asked, answered in steps:
            shown = path.partition("?")[0]
            ticket = " + ticket" if "ticket=" in path else ""
            cookie = " + cookie" if jar else ""
            demo.timeline.see(asked, "you -> proxy", f"GET http://{APP}{shown}{ticket}{cookie}")
            headers = {"Host": APP, "User-Agent": "iam-auth-proxy demo"}
            headers["Upgrade-Insecure-Requests"] = "1"  # a browser, going to a page
            if jar:
                headers["Cookie"] = "; ".join(f"{m.key}={m.coded_value}" for m in jar.values())
            connection.request("GET", f"http://{APP}{path}", headers=headers)
            response = connection.getresponse()
            body = response.read().decode("utf-8", "replace")
            location = response.headers.get("Location", "")
            for field in response.headers.get_all("Set-Cookie", []):
                jar.load(field)
            more = f" to {location.partition('?')[0]}" if location else ""
            more += " + ticket" if "ticket=" in location else ""
            more += " + cookie" if response.headers.get("Set-Cookie") else ""
            demo.timeline.see(answered, "proxy -> you", f"{response.status}{more}")
            if response.status not in (302, 303):
                break
            path = location
    if response.status != 200:
        raise DemoFailed(f"the app answered {response.status}:\n{body}")
    return body.strip()


def tell(events: list[Event], out: TextIO) -> None:
    """The steps, who calls whom, and how long each took."""
    begun = last = events[0].at
    print(f"  {'step':>5}  {'who':<13} {'what':<40}     took", file=out)
    for event in events:
        took = f"{(event.at - last) * 1000:6.1f} ms" if event.at > begun else ""
        line = f"  {event.step:>5}  {event.who:<13} {event.what:<40} {took}"
        print(line.rstrip(), file=out)
        last = event.at
    print(f"\n  signed in after {milliseconds(events)}", file=out)


def milliseconds(events: list[Event]) -> str:
    """From the first event to the last."""
    return f"{(events[-1].at - events[0].at) * 1000:.0f} ms"


def run(*, once: bool, out: TextIO | None = None) -> int:
    """Runs the demonstration.

    :param once: end after the sign-in instead of staying up.
    :returns: 0, or 1 where something failed.
    """
    out = out or sys.stdout
    if importlib.util.find_spec("server_example") is None:
        raise DemoFailed(
            "the example app is not part of the installed package",
            public="The demonstration needs a clone of the project.",
            remedy="Clone it, and run: make demo",
        )
    print("iam-auth-proxy demo: everything below runs on this machine alone.\n", file=out)
    try:
        with _parts(out) as demo:
            demo.timeline.take()
            answer = sign_in(demo)
            tell(demo.timeline.take(), out)
            sign_in(demo)
            again = milliseconds(demo.timeline.take())
            print(
                f"  and once more after {again}: boto3 is loaded now, and one call to AWS", file=out
            )
            print("  (Encrypt) is left for the proxy\n", file=out)
            print(f"  the app says: {answer}\n", file=out)
            if not once:
                _stay(demo, out)
    except DemoFailed as error:
        print(f"iam-auth-proxy demo: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        pass
    return 0


def _stay(demo: Demo, out: TextIO) -> None:
    # As it was started, which need not be on the PATH.
    started, module = sys.argv[0], f"{sys.executable} -m iam_auth_proxy"
    name = started if os.path.basename(started) == "iam-auth-proxy" else module
    print("It stays up. Try, in another terminal:\n", file=out)
    print(f"  curl -x {demo.proxy} http://{APP}/check", file=out)
    print(f"  {name} browser --bind {demo.proxy} http://{APP}/\n", file=out)
    print("Ctrl-C ends it.", file=out, flush=True)
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    stop.wait()
    print(file=out)
