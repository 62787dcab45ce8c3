"""A proxy in this process: the real relay, dialler, sign-in and AWS client, on a port of its own.

Only time is the tests' own: two clocks that can be put forward, and shorter patience with AWS and
with the app.
"""

from __future__ import annotations

import asyncio
import base64
import io
import os
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import TypeVar

import pytest

from iam_auth_proxy.aws.credentials import AwsPrincipals, CredentialSettings
from iam_auth_proxy.aws.offload import Offload
from iam_auth_proxy.config import TrustRule
from iam_auth_proxy.config.values import parse_trust
from iam_auth_proxy.local_aws import Call, Key, Keys, LocalAws, allow
from iam_auth_proxy.names import Origin
from iam_auth_proxy.proxy.asking import Asks
from iam_auth_proxy.proxy.decisions.decide import SignInMode
from iam_auth_proxy.proxy.decisions.rules import STRENGTH
from iam_auth_proxy.proxy.decisions.trust import Trust
from iam_auth_proxy.proxy.process import logs
from iam_auth_proxy.proxy.signin.sealing import ProfilesFor
from iam_auth_proxy.proxy.signin.signins import SignIns
from iam_auth_proxy.proxy.steering import Steering
from iam_auth_proxy.relay.addresses import AddressPolicy
from iam_auth_proxy.relay.dial import TcpDialer
from iam_auth_proxy.relay.exchange import Fetched, RequestHead
from iam_auth_proxy.relay.limits import Limits
from iam_auth_proxy.relay.relay import Relay
from iam_auth_proxy.relay.tls import ClientTls
from iam_auth_proxy.relay.via import parse_connect_to
from tests.support.legacy_app import LegacyApp

APP = "http://legacy.test"
T = TypeVar("T")


class ShiftedClock:
    """A real clock, put forward by ``ahead`` seconds."""

    def __init__(self, base: Callable[[], float]) -> None:
        self._base = base
        self.ahead = 0.0

    def __call__(self) -> float:
        return self._base() + self.ahead


@dataclass
class Answer:
    """What a client got."""

    status: int
    headers: list[tuple[str, str]]
    body: bytes

    @classmethod
    def parse(cls, raw: bytes) -> Answer:
        head, _, body = raw.partition(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").split("\r\n")
        match = re.fullmatch(r"HTTP/1\.1 ([0-9]{3})(?: .*)?", first)
        assert match is not None, raw[:200]
        pairs = [line.partition(":") for line in lines]
        return cls(int(match[1]), [(name, value.strip()) for name, _, value in pairs], body)

    def all(self, name: str) -> list[str]:
        return [value for key, value in self.headers if key.lower() == name.lower()]

    def one(self, name: str) -> str:
        (value,) = self.all(name)
        return value

    @property
    def text(self) -> str:
        return self.body.decode("utf-8")


@dataclass
class Client:
    """A client of the proxy: one connection per request, and a cookie jar.

    :ivar program: it is no browser; otherwise a GET is a navigation unless ``headers`` say more.
    :ivar keeps: it keeps cookies.
    """

    port: int
    agent: str = "tests/1"
    program: bool = False
    keeps: bool = True
    cookies: dict[str, str] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)

    async def send(
        self, url: str, method: str = "GET", body: bytes = b"", **headers: str
    ) -> Answer:
        """One request; underscores in names of header fields become dashes."""
        self.asked.append(url)
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        fields = {"Host": "ignored.test", "User-Agent": self.agent, "Connection": "close"}
        if method in ("GET", "HEAD") and not self.program:
            fields["Upgrade-Insecure-Requests"] = "1"
        if body:
            fields["Content-Length"] = str(len(body))
        fields |= named
        if self.cookies:
            pairs = [f"{name}={value}" for name, value in self.cookies.items()]
            fields["Cookie"] = "; ".join([*filter(None, [fields.get("Cookie")]), *pairs])
        lines = [f"{method} {url} HTTP/1.1"]
        lines += [f"{name}: {value}" for name, value in fields.items()]
        head = ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")
        answer = Answer.parse(await exchange(self.port, head + body))
        for cookie in answer.all("Set-Cookie") if self.keeps else ():
            name, _, value = cookie.partition(";")[0].partition("=")
            self.cookies[name] = value
        return answer

    async def open(self, url: str, *, hops: int = 10, **headers: str) -> Answer:
        """The answer after every redirect; each stays on the origin."""
        origin = "/".join(url.split("/")[:3])
        answer = await self.send(url, **headers)
        while answer.status in (302, 303) and hops:
            hops -= 1
            where = answer.one("Location")
            full = f"http:{where}" if where.startswith("//") else f"{origin}{where}"
            answer = await self.send(full, **headers)
        return answer


async def exchange(port: int, request: bytes) -> bytes:
    """Everything that comes back until the proxy closes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(request)
        return await asyncio.wait_for(reader.read(-1), 30)
    finally:
        writer.close()


class Rig:
    """A proxy that trusts ``http://legacy.test`` unless a test says otherwise.

    :ivar wall: the clock that credentials expire by.
    :ivar ticking: the clock that tickets and sharing go by.
    :ivar aws_deadline: seconds; the product's own where it is shorter.
    :ivar aws_done: calls off the loop that have ended.
    """

    def __init__(self, aws: LocalAws) -> None:
        self.aws = aws
        self.wall = ShiftedClock(time.time)
        self.ticking = ShiftedClock(time.monotonic)
        self.aws_deadline = 30.0
        self.aws_done = 0
        self.app_deadline = 30.0
        self.off_loop = Offload(8)
        self.hosts: set[str] = set()

    async def start(
        self,
        *apps: tuple[str, int],
        trust: Sequence[str] = (APP,),
        settings: CredentialSettings | None = None,
        ask_mfa: Callable[[str], Awaitable[str]] | None = None,
        mode: SignInMode = SignInMode.AUTO,
        limits: Limits | None = None,
        rules: Sequence[TrustRule] = (),
        questions: Asks | None = None,
        own_address: str = "127.0.0.1:9",
        profiles_for: ProfilesFor = lambda account: (),
        cacert: str = "",
    ) -> None:
        """Listen. ``apps``: a host name and the loopback port that is dialled for its port 80, or
        for that of https where an authority is given.

        :param rules: of trust, instead of ``trust`` with every proof.
        :param cacert: vouches for the apps.
        """
        trusted = Trust(rules or [parse_trust(text) for text in trust], proofs=STRENGTH)
        self.signins = SignIns(
            principals=AwsPrincipals(settings or CredentialSettings()),
            trust=trusted,
            off_loop=self._hurried,
            fetch=self._fetch,
            ask_mfa=ask_mfa,
            clock=self.wall,
            monotonic=self.ticking,
            profiles_for=profiles_for,
        )
        self.steering = Steering(
            self.signins,
            mode=mode,
            monotonic=self.ticking,
            questions=questions,
            own_address=own_address,
            hosts=self.hosts,
        )
        plain = 443 if cacert else 80
        mapped = [f"{host}:{plain}:127.0.0.1:{port}" for host, port in apps]
        dialer = TcpDialer(
            AddressPolicy(),
            connect_to=[parse_connect_to(text) for text in mapped],
            tls=ClientTls(cacert),
        )
        self.relay = Relay(dialer=dialer, steering=self.steering, limits=limits)
        self.server = await asyncio.get_running_loop().create_server(
            self.relay.connection, "127.0.0.1", 0, backlog=1024
        )
        self.port: int = self.server.sockets[0].getsockname()[1]
        self.hosts.add(f"localhost:{self.port}")

    def client(self, agent: str = "tests/1") -> Client:
        return Client(self.port, agent)

    def program(self, agent: str = "curl/8", *, keeps: bool = False) -> Client:
        return Client(self.port, agent, program=True, keeps=keeps)

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait until the proxy has come to see what has happened."""
        async with asyncio.timeout(10):
            while not condition():  # noqa: ASYNC110  # nothing announces it
                await asyncio.sleep(0.005)

    async def stop(self) -> None:
        self.server.close()
        await self.signins.close()
        await self.relay.close()
        self.off_loop.close()

    async def _hurried(self, fn: Callable[..., T], *args: object, deadline: float) -> T:
        try:
            return await self.off_loop(fn, *args, deadline=min(deadline, self.aws_deadline))
        finally:
            self.aws_done += 1

    async def _fetch(
        self,
        origin: Origin,
        request: RequestHead,
        body: bytes,
        *,
        limit: int,
        deadline: float,
        identified: bool,
    ) -> Fetched:
        hurried = min(deadline, self.app_deadline)
        return await self.relay.fetch(
            origin, request, body, limit=limit, deadline=hurried, identified=identified
        )


@dataclass
class Person:
    """Somebody with an AWS identity, and an app that asks for it."""

    aws: LocalAws
    keys: Keys
    server: Keys
    key: Key

    def calls(self) -> list[str]:
        """The actions that the proxy asked of AWS with the person's own keys, in order."""
        return [call.action for call in self.own_calls()]

    def own_calls(self) -> list[Call]:
        return [call for call in self.aws.calls if call.access_key_id == self.keys.access_key_id]


@pytest.fixture
def person(local_aws: LocalAws, monkeypatch: pytest.MonkeyPatch) -> Person:
    """The keys of a user who may encrypt are in this process's environment, as in a shell."""
    key = local_aws.key()
    user = local_aws.user("ann", policies=[allow("kms:Encrypt", resource=key.arn)])
    server = local_aws.user("app", policies=[allow("kms:Decrypt", resource=key.arn)])
    person = Person(local_aws, user.keys(), server.keys(), key)
    monkeypatch.setenv("AWS_ENDPOINT_URL", local_aws.url)
    monkeypatch.setenv("AWS_REGION", local_aws.region)
    for name, value in person.keys.env.items():
        monkeypatch.setenv(name, value)
    # How long it waits between attempts is botocore's business.
    monkeypatch.setattr("botocore.endpoint.time", SimpleNamespace(sleep=lambda seconds: None))
    return person


@pytest.fixture
def become(monkeypatch: pytest.MonkeyPatch) -> Callable[[Keys | None], None]:
    """Other credentials, or none, in this process's environment."""

    def become(keys: Keys | None) -> None:
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"):
            monkeypatch.delenv(name, raising=False)
        for name, value in (keys.env if keys else {}).items():
            monkeypatch.setenv(name, value)

    return become


@pytest.fixture
def profile() -> Callable[[str], None]:
    """Puts text into the AWS configuration file."""
    return Path(os.environ["AWS_CONFIG_FILE"]).write_text  # type: ignore[return-value]  # its count


@pytest.fixture
def logged() -> io.StringIO:
    """What the product logs at its debug level."""
    stream = io.StringIO()
    logs.configure("debug", "json", stream, False)
    return stream


@pytest.fixture
def legacy(person: Person) -> Iterator[LegacyApp]:
    with LegacyApp(person.aws, person.server, person.key.arn) as app:
        yield app


@pytest.fixture
async def rig(local_aws: LocalAws) -> AsyncIterator[Rig]:
    """A proxy of which nothing is left when the test is over."""
    rig = Rig(local_aws)
    before = asyncio.all_tasks()
    yield rig
    if hasattr(rig, "server"):
        await rig.stop()
        assert (rig.relay.clients, rig.relay.origins, rig.signins.in_progress) == (0, 0, 0)
    left = {task for task in asyncio.all_tasks() - before if not task.done()}
    left.discard(asyncio.current_task())
    assert not left, left


def challenge(person: Person, **changes: str) -> list[tuple[str, str]]:
    """The fields of the 401; ``Iam_Auth_Kms_Key_Id=...`` replaces one."""
    fields = {
        "WWW-Authenticate": f'IAM realm="{person.aws.account}"',
        "Iam-Auth-Kms-Key-Id": person.key.arn,
        "Iam-Auth-Kms-Encryption-Context": base64.b64encode(b'{"salt":"s"}').decode(),
    }
    fields |= {name.replace("_", "-"): value for name, value in changes.items()}
    return list(fields.items())


class ScriptedApp:
    """An app that challenges everybody and answers ``/auth`` as a test says.

    :ivar at_auth: raw bytes of the answer to ``/auth``; None: never answers.
    :ivar closes: hangs up after it.
    :ivar go: it waits for this before it answers.
    :ivar heads: the heads of all requests.
    """

    def __init__(self, challenge: list[tuple[str, str]], at_auth: bytes | None) -> None:
        self.at_auth = at_auth
        self.closes = False
        self.go: asyncio.Event | None = None
        self.heads: list[bytes] = []
        lines = [f"{name}: {value}" for name, value in challenge]
        self._challenge = (
            "HTTP/1.1 401 Unauthorized\r\n"
            + "".join(f"{line}\r\n" for line in lines)
            + "Content-Length: 0\r\n\r\n"
        ).encode("latin-1")

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            self.heads.append(head)
            if b" /auth?token=" not in head.split(b"\r\n", 1)[0]:
                writer.write(self._challenge)
            elif self.at_auth is None:
                await asyncio.Event().wait()
            else:
                if self.go is not None:
                    await self.go.wait()
                writer.write(self.at_auth)
                if self.closes:
                    return
            await writer.drain()

    @property
    def auths(self) -> list[bytes]:
        """The heads of the hand-overs."""
        return [head for head in self.heads if head.startswith(b"GET /auth?token=")]
