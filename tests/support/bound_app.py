"""An app behind the real gate, in this process, that answers what it was asked and by whom."""

from __future__ import annotations

import asyncio
import ssl
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field, replace

from aiohttp import WSMsgType, web

from iam_auth_proxy.aws.base import CallerIdentity, Decrypted, Encrypted, Sts
from iam_auth_proxy.aws.clients import make_clients
from iam_auth_proxy.local_aws import Keys, LocalAws
from iam_auth_proxy.protocol.proof import SessionCredentials
from iam_auth_proxy.protocol.signed_identity import StsRequest
from iam_auth_proxy.server.aiohttp import IDENTITY, iam_auth
from iam_auth_proxy.server.facts import Answer, Reply, RequestFacts
from iam_auth_proxy.server.gate import Gate


@dataclass(frozen=True)
class Asked:
    """One request as the app's server got it, the gate's own paths included."""

    method: str
    target: str
    headers: tuple[tuple[str, str], ...]
    body: bytes

    def all(self, name: str) -> list[str]:
        return [value for key, value in self.headers if key.lower() == name.lower()]


class ServerKms:
    """KMS as the app's server, whatever this process's environment says."""

    def __init__(self, aws: LocalAws, keys: Keys) -> None:
        self._aws, self._keys = aws, keys

    def encrypt(self, key: str, plaintext: bytes, context: Mapping[str, str]) -> Encrypted:
        raise AssertionError("a server encrypts nothing")

    def decrypt(self, key: str, ciphertext: bytes, context: Mapping[str, str]) -> Decrypted:
        answer = self._aws.client("kms", self._keys, region=key.split(":")[3]).decrypt(
            KeyId=key, CiphertextBlob=ciphertext, EncryptionContext=dict(context)
        )
        return Decrypted(answer["Plaintext"], answer["KeyId"])

    def key_arn(self, key: str) -> str:
        return key


class CountedSts:
    """STS as the app's server, and how often it was asked whose a proof is."""

    def __init__(self, sts: Sts) -> None:
        self._sts = sts
        self.checks = 0

    def caller_identity(self, credentials: SessionCredentials | None = None) -> CallerIdentity:
        return self._sts.caller_identity(credentials)

    def check_signed_identity(self, request: StsRequest) -> CallerIdentity:
        self.checks += 1
        return self._sts.check_signed_identity(request)


@dataclass
class BoundApp:
    """What a test may look at and change.

    :ivar port: where it listens.
    :ivar asked: all requests, in order; of bodies the gate is shown those of hand-overs.
    :ivar deaf: so many requests from now on are seen without their cookies, as after an expiry.
    :ivar expired: paths whose next request is seen without its cookies, whatever comes before it.
    :ivar late: so many hand-overs from now on are answered ``expired``.
    """

    sts: CountedSts
    gate: Gate
    port: int = 0
    asked: list[Asked] = field(default_factory=list)
    deaf: int = 0
    expired: set[str] = field(default_factory=set)
    late: int = 0

    def see(self, facts: RequestFacts) -> RequestFacts | Reply:
        """The request as the gate is to see it, or the answer in its place."""
        self.asked.append(Asked(facts.method, facts.target, facts.headers, facts.body))
        handed_over = facts.body.startswith(b"token=e1.")
        if self.late and handed_over:
            self.late -= 1
            return Reply(403, (("Iam-Auth-Error", "expired"),))
        if facts.path in self.expired or (self.deaf and not facts.path.startswith("/auth")):
            self.deaf -= facts.path not in self.expired
            self.expired.discard(facts.path)
            kept = tuple(field for field in facts.headers if field[0] != "cookie")
            return replace(facts, headers=kept)
        return facts

    def targets(self, method: str) -> list[str]:
        return [asked.target for asked in self.asked if asked.method == method]

    @property
    def handed_over(self) -> list[Asked]:
        return [asked for asked in self.asked if asked.body.startswith(b"token=e1.")]


class SeenGate(Gate):
    """A gate whose app looks on."""

    app: BoundApp

    def check_offline(self, facts: RequestFacts, now: float) -> Answer | None:
        seen = self.app.see(facts)
        return seen if isinstance(seen, Reply) else super().check_offline(seen, now)


@asynccontextmanager
async def bound_app(
    aws: LocalAws,
    server: Keys,
    key: str,
    origin: str,
    *,
    port: int = 0,
    tls: ssl.SSLContext | None = None,
    routes: Callable[[web.Application], None] | None = None,
    **settings: object,
) -> AsyncIterator[BoundApp]:
    """Serve it on a loopback port.

    :param port: 0 is any free one.
    :param tls: the server's side of TLS; None: plain http.
    :param routes: adds what comes before the app's own.
    """
    sts = CountedSts(make_clients(region_name=aws.region)[1])
    given: dict[str, object] = {
        "accounts": [aws.account],
        "kms_key": key,
        "secret_key": "6f1ed002ab5595859014ebf0951522d9a0a1b2c3d4e5f60718293a4b5c6d7e8f",
        # With another salt, as each quarter of an hour would bring, no sign-in is shared.
        "salt": "pepper",
        "origins": [origin],
        **settings,
    }
    gate = SeenGate(kms=ServerKms(aws, server), sts=sts, **given)
    app = gate.app = BoundApp(sts, gate)

    async def echo(request: web.Request) -> web.Response:
        body = await request.read()
        text = f"{request.method} {len(body)} bytes of {request[IDENTITY].arn}"
        public = {"Cache-Control": "public, max-age=60"} if "public" in request.query else {}
        return web.Response(text=text, headers=public)

    async def socket(request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        await socket.send_str(request[IDENTITY].arn)
        async for message in socket:
            if message.type is WSMsgType.TEXT:
                await socket.send_str(message.data)
        return socket

    application = web.Application(middlewares=[iam_auth(gate)], client_max_size=128 << 20)
    if routes is not None:
        routes(application)
    application.router.add_get("/ws", socket)
    application.router.add_route("*", "/{tail:(?!auth).*}", echo)
    runner = web.AppRunner(application, access_log=None)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", port, reuse_address=True, ssl_context=tls)
        await site.start()
        app.port = runner.addresses[0][1]
        yield app
    finally:
        await runner.cleanup()


@contextmanager
def in_thread(
    aws: LocalAws, server: Keys, key: str, origin: str, **more: object
) -> Iterator[BoundApp]:
    """:func:`bound_app` on a loop of its own, for tests that have none."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    app = bound_app(aws, server, key, origin, **more)  # type: ignore[arg-type]  # passed on as is
    try:
        yield asyncio.run_coroutine_threadsafe(app.__aenter__(), loop).result(20)
    finally:

        async def close() -> None:
            await app.__aexit__(None, None, None)
            left = asyncio.all_tasks() - {asyncio.current_task()}
            for task in left:  # connections that aiohttp has aborted, and no longer waits for
                task.cancel()
            await asyncio.gather(*left, return_exceptions=True)

        try:
            asyncio.run_coroutine_threadsafe(close(), loop).result(20)
        finally:
            loop.call_soon_threadsafe(loop.stop)
            thread.join()
            loop.close()
